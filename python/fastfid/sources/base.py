"""The interface of sources of images for the pipeline, and sources made of other sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import FastfidWarning, ImageError

__all__ = ["ConcatenatedSource", "FailedItem", "ImageItem", "ImageSource", "RestOfSource", "SubsetSource"]


class ImageItem(ABC):
    """One image, not yet decoded.

    Attributes
    ----------
    name : str
        Name in error messages: a path, or ``archive.zip/member.png``, or ``item 17``.
    """

    __slots__ = ("name",)
    name: str

    @abstractmethod
    def load(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 (h, w, 3). Several worker threads call this method at the same time.

        Raises
        ------
        fastfid.ImageError
            The image cannot be read. The message begins with :attr:`name`.
        """


class FailedItem(ImageItem):
    """An image that the source could not read. :meth:`load` raises the error."""

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
        Name of the source in messages and in the statistics file.
    notes : list of FastfidWarning
        Remarks for the user, such as the number of ignored files and the reasons. Complete before iteration.
    """

    name: str
    notes: list[FastfidWarning]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images. Raises TypeError if it is not known before reading (an iterable)."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageItem]:
        """Yield the items in the documented order of the source (sorted names for folders and archives)."""

    def files(self) -> Iterator[str]:
        """Yield the paths of the files that the images come from, in a fixed order.

        Raises
        ------
        ValueError
            The images do not come from files: arrays and iterables.
        """
        raise ValueError(f"{self.name}: is not made of files")

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the pictures in the folder or archive, in order. Pictures without names yield nothing."""
        return iter(())


class FileSource(ImageSource):
    """A source that is one file. Its name is the path of the file."""

    def files(self) -> Iterator[str]:
        """Yield the file's path."""
        yield self.name


class ConcatenatedSource(ImageSource):
    """Several sources, one after another, such as the shards of one set."""

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


class RestOfSource(ImageSource):
    """The images of another source without the first `done`."""

    def __init__(self, source: ImageSource, done: int):
        self.name = source.name
        self.notes = []
        self._source = source
        self._done = done

    def __len__(self) -> int:
        return len(self._source) - self._done

    def __iter__(self) -> Iterator[ImageItem]:
        return islice(iter(self._source), self._done, None)


class SubsetSource(ImageSource):
    """`num` images of another source, in the order of this source.

    If the length of the source is known, the images are ``sort(RandomState(seed).permutation(len(source))[:num])``.
    This is the rule of edm, so a seed selects the same files in edm. NumPy guarantees that this random stream never
    changes. If the length is not known, the images are the first `num` images, and a note says so.

    Raises
    ------
    ValueError
        `num` is not positive, or the source has fewer images. For a stream, the error is raised at its end.
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
        """Yield the files of the whole source, because the choice of images depends on all of them."""
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
