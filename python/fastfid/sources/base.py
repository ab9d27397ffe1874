"""What every source of images offers to the pipeline."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import FastfidWarning, ImageError

__all__ = ["ConcatenatedSource", "FailedItem", "ImageItem", "ImageSource", "SubsetSource"]


class ImageItem(ABC):
    """One image, not yet decoded.

    Attributes
    ----------
    name : str
        What an error message calls it: a path, or ``archive.zip/member.png``, or ``item 17``.
    """

    __slots__ = ("name",)
    name: str

    @abstractmethod
    def load(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 (h, w, 3). Called from worker threads, several at once.

        Raises
        ------
        fastfid.ImageError
            The image cannot be read; the message begins with :attr:`name`.
        """


class FailedItem(ImageItem):
    """An image that could not be read when its turn came; its error waits until the image is asked for."""

    __slots__ = ("_error",)

    def __init__(self, name: str, error: ImageError):
        self.name = name
        self._error = error

    def load(self) -> NDArray[np.uint8]:
        """Raise the error."""
        raise self._error


class ImageSource(ABC):
    """An ordered collection of images that is read once from front to back.

    Attributes
    ----------
    name : str
        What messages and the statistics file call it.
    notes : list of FastfidWarning
        What the user should know of it, e.g. how many files were passed over and why. Complete before iteration.
    """

    name: str
    notes: list[FastfidWarning]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images; TypeError where it is not known beforehand (an iterable)."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageItem]:
        """Yield the items in the source's stated order (sorted names for folders and archives)."""

    def files(self) -> Iterator[str]:
        """Yield the paths of the files that the images come from, in a fixed order.

        Raises
        ------
        ValueError
            They come from none: arrays and iterables.
        """
        raise ValueError(f"{self.name}: is not made of files")

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the pictures below the folder or in the archive, in order; none where they have none."""
        return iter(())


class FileSource(ImageSource):
    """A source that is one file, whose path is its name."""

    def files(self) -> Iterator[str]:
        """Yield the file's path."""
        yield self.name


class ConcatenatedSource(ImageSource):
    """Several sources, one after the other, such as the shards of one set."""

    def __init__(self, name: str, sources: Sequence[ImageSource]):
        self.name = name
        self.notes = [note for source in sources for note in source.notes]
        self._sources = sources

    def __len__(self) -> int:
        return sum(len(source) for source in self._sources)

    def __iter__(self) -> Iterator[ImageItem]:
        for source in self._sources:
            yield from source

    def files(self) -> Iterator[str]:
        """Yield the files of each source in turn."""
        for source in self._sources:
            yield from source.files()

    def picture_names(self) -> Iterator[str]:
        """Yield the names of each source in turn."""
        for source in self._sources:
            yield from source.picture_names()


class SubsetSource(ImageSource):
    """`num` images of another source, in that source's order.

    Of a source whose length is known: ``sort(RandomState(seed).permutation(len(source))[:num])``, the rule of edm, so
    the same seed picks the same files there. NumPy guarantees that this stream never changes. Of a stream of unknown
    length: its first `num` images, and a note says so.

    Raises
    ------
    ValueError
        `num` is not positive, or the source has fewer images (a stream says so when it ends).
    """

    def __init__(self, source: ImageSource, num: int, seed: int):
        if num < 1:
            raise ValueError(f"num: expected a positive number of images; got {num}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed: expected 0 to 2^32 - 1; got {seed}")
        self._source = source
        self._num = num
        self._seed = seed
        self.name = source.name
        self.notes = list(source.notes)
        try:
            found = len(source)
        except TypeError:
            self.notes.append(
                FastfidWarning(
                    f"{source.name}: the number of images is not known beforehand, so the first {num} are taken"
                    " (--seed has no effect)"
                )
            )
            return
        if found < num:
            raise ValueError(f"num: {num} images were asked for, {source.name} has {found}")

    def __len__(self) -> int:
        return self._num

    def files(self) -> Iterator[str]:
        """Yield the files of the whole source: which of them are chosen depends on all."""
        return self._source.files()

    def __iter__(self) -> Iterator[ImageItem]:
        try:
            found = len(self._source)
        except TypeError:
            yield from self._first()
            return
        chosen = np.sort(np.random.RandomState(self._seed).permutation(found)[: self._num])
        wanted = iter(chosen.tolist())
        next_index = next(wanted)
        for index, item in enumerate(self._source):
            if index == next_index:
                yield item
                next_index = next(wanted, -1)
                if next_index < 0:
                    return

    def _first(self) -> Iterator[ImageItem]:
        taken = 0
        for item in self._source:
            yield item
            taken += 1
            if taken == self._num:
                return
        raise ValueError(f"num: {self._num} images were asked for, {self.name} gave {taken}")
