"""Sources that go on after damage, for ``on_error="skip"``: what is lost comes as images that cannot be read."""

from collections.abc import Iterator

from fastfid._files import DamagedFile
from fastfid.errors import ImageError
from fastfid.sources.base import FailedItem, ImageItem, ImageSource, Labels

__all__ = ["LostSource", "SkippingSource"]


class LostSource(ImageSource):
    """A file, or the rest of one, that cannot be read. It counts as one image, as nobody knows how many it holds."""

    is_lost = True

    def __init__(self, name: str, error: Exception):
        self.name = name
        self.notes = []
        self._error = ImageError(f"{error}; how many images are lost is not known")

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[ImageItem]:
        yield FailedItem(self.name, self._error)

    def files(self) -> Iterator[str]:
        """Yield the file's path."""
        yield self.name


class SkippingSource(ImageSource):
    """Another source of a known length. If it fails while it is read, each image that is missing comes as a failure."""

    def __init__(self, source: ImageSource):
        self.name = source.name
        self.notes = source.notes
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[ImageItem]:
        found = 0
        try:
            for item in self._source:
                yield item
                found += 1
        except DamagedFile as error:
            for index in range(found, len(self)):
                yield FailedItem(f"{self.name}: image {index}", ImageError(str(error)))

    def own_labels(self) -> Labels | None:
        """Read the labels of the source."""
        return self._source.own_labels()

    def files(self) -> Iterator[str]:
        """Yield the files of the source."""
        return self._source.files()

    def state_of(self, first: int, stop: int) -> str:
        """Return the hash of the source's items."""
        return self._source.state_of(first, stop)

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the source."""
        return self._source.picture_names()
