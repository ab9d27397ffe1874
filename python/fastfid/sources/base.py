"""The interface of sources of images for the pipeline, and sources made of other sources."""

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastfid._files import FileSet
from fastfid._remote import File, RemoteFile, is_url
from fastfid.errors import FastfidWarning, ImageError

__all__ = [
    "UNVERSIONED",
    "ConcatenatedSource",
    "FailedItem",
    "Header",
    "ImageItem",
    "ImageSource",
    "Label",
    "LabelledSource",
    "Labels",
    "NamingSource",
    "SlicedSource",
    "SubsetSource",
]

Label: TypeAlias = int | str
"""The class of an image: a number from 0 on, or a name."""


class Header(NamedTuple):
    """What a picture declares before it is decoded.

    Attributes
    ----------
    width, height : int
    mode, format : str
        Pillow's names, such as ``RGB`` and ``PNG``. Images of an array have the format ``array``.
    """

    width: int
    height: int
    mode: str
    format: str


# The end of the state of images, some of which come from a file of an unknown version.
UNVERSIONED = "?"


class _Decoded(threading.local):
    """What the picture declared that this thread has decoded last."""

    header: Header | None = None


_decoded = _Decoded()


def note_header(header: Header | None) -> None:
    """Set what the picture declares that this thread decodes; None: no picture."""
    _decoded.header = header


def noted_header(image: NDArray[Any]) -> Header:
    """Return what the picture declared that this thread has decoded to `image`; an array declares its shape alone."""
    if _decoded.header is not None:
        return _decoded.header
    return Header(image.shape[1], image.shape[0], "RGB", "array")


class ImageItem(ABC):
    """One image, not yet decoded.

    Attributes
    ----------
    name : str
        Name in error messages: a path, or ``archive.zip/member.png``, or ``item 17``.
    """

    __slots__ = ("_label", "name")
    name: str
    _label: Label | None

    @property
    def label(self) -> Label | None:
        """The class of the image; None: the source reads no labels."""
        return getattr(self, "_label", None)  # unset, so that an item without a label costs no time

    @label.setter
    def label(self, label: Label | None) -> None:
        self._label = label

    @abstractmethod
    def load(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 (h, w, 3). Several worker threads call this method at the same time.

        Raises
        ------
        fastfid.ImageError
            The image cannot be read. The message begins with `name`.
        """

    def header(self) -> Header:
        """Return size, mode and format. A picture is not decoded.

        Raises
        ------
        fastfid.ImageError
            The image cannot be read. The message begins with `name`.
        """
        height, width, _ = self.load().shape
        return Header(width, height, "RGB", "array")


class FailedItem(ImageItem):
    """An image that the source could not read. :meth:`load` raises the error."""

    __slots__ = ("_error",)

    def __init__(self, name: str, error: ImageError):
        self.name = name
        self._error = error

    def load(self) -> NDArray[np.uint8]:
        """Raise the error."""
        raise self._error


@dataclass(frozen=True)
class Labels:
    """The labels of the images of a source, in the source's order.

    Attributes
    ----------
    values : sequence of int, or sequence of str
        One label for each image: an int64 array (n,), or names.
    origin : str
        What the labels were read from, such as ``dataset.json``.
    class_names : tuple of str, optional
        Names of the classes. An integer label is a position in it, and a name is one of it. None: not known.
    """

    values: NDArray[np.int64] | Sequence[str]
    origin: str
    class_names: tuple[str, ...] | None = None


# The rest of the source whose slice was read last: one, so that few files are open.
_left: "list[tuple[ImageSource, int, Iterator[ImageItem]]]" = []


class ImageSource(ABC):
    """An ordered collection of images that is read once from front to back.

    Attributes
    ----------
    name : str
        Name of the source in messages and in the statistics file.
    notes : list of FastfidWarning
        Remarks for the user, such as the number of ignored files and the reasons. Complete before iteration.
    labels_from : str or None
        What the labels of the items were read from, such as ``dataset.json``; None: the items have no labels.
    class_names : tuple of str or None
        Names of the classes. An integer label is a position in it, and a name is one of it. None: not known.
    is_lost : bool
        Whether the source stands for what cannot be read.
    first : int
        Index of the first item: 0, or in a slice of another source its index there. The items that follow have the
        indices that follow, also where an image turns out to be unreadable.
    """

    name: str
    notes: list[FastfidWarning]
    labels_from: str | None = None
    class_names: tuple[str, ...] | None = None
    is_lost: bool = False
    first: int = 0

    @property
    def has_labels(self) -> bool:
        """Whether every item has a label."""
        return self.labels_from is not None

    def own_labels(self) -> Labels | None:
        """Read the labels that the source itself carries. None: it carries none.

        Raises
        ------
        ValueError
            The labels are damaged, or an image has no label. The message names the file and the image.
        """
        return None

    def labels_digest(self) -> str | None:
        """Return a hash of the labels that were given beside the images. None: there are none."""
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images. Raises TypeError if it is not known before reading (an iterable)."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageItem]:
        """Yield the items in the documented order of the source (sorted names for folders and archives)."""

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield the items `first` to ``stop - 1``; None: to the end.

        Sources override this method where they reach an item without reading those before it. Else items that follow
        those of the call before go on where it ended, so that the slices of a compressed archive take one pass.
        """
        try:
            left = _left.pop()
        except IndexError:
            left = None
        at, rest = (left[1], left[2]) if left is not None and left[0] is self and left[1] <= first else (0, iter(self))
        yield from islice(rest, first - at, None if stop is None else stop - at)
        if stop is not None:
            _left[:] = [(self, stop, rest)]

    def slice(self, first: int, count: int | None = None) -> "ImageSource":
        """Return `count` items from the index `first` on, as a source; None: all that follow.

        Raises
        ------
        ValueError
            The source has fewer items, or a number is negative.
        """
        return SlicedSource(self, first, count)

    def files(self) -> Iterator[str]:
        """Yield the paths of the files that the images come from, in a fixed order.

        Raises
        ------
        ValueError
            The images do not come from files: arrays and iterables.
        """
        raise ValueError(f"{self.name}: is not made of files")

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield the paths of the files that the items `first` to ``stop - 1`` come from, or of more files.

        Raises
        ------
        ValueError
            The images do not come from files.
        """
        return self.files()

    def state_of(self, first: int, stop: int) -> str:
        """Return a hash of what the items `first` to ``stop - 1`` come from: sizes, times and inodes of files.

        Of files at URLs, it is a hash of the URLs, of their sizes and of what the servers say of their versions. It
        ends in `UNVERSIONED` where a server says nothing.

        Raises
        ------
        OSError
            A file at a URL is not there any more, or its server cannot be reached.
        ValueError
            The images do not come from files, and the source does not know another way.
        """
        return FileSet(self.files_of(first, stop)).state

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the pictures in the folder or archive, in order. Pictures without names yield nothing."""
        return iter(())


class FileSource(ImageSource):
    """A source that is one file. Its name is the path of the file."""

    _file: File

    def files(self) -> Iterator[str]:
        """Yield the file's path. Raises ValueError for a URL."""
        if is_url(self.name):
            raise ValueError(f"{self.name}: is not a file of this machine")
        yield self.name

    def state_of(self, first: int, stop: int) -> str:
        """Return the hash of the file."""
        if not isinstance(self._file, RemoteFile):
            return super().state_of(first, stop)
        size, version = self._file.state()
        # Servers make versions of size and time, which files at two URLs may share: two npy files of one shape.
        digest = hashlib.sha256(json.dumps([self._file.path, size, version]).encode()).hexdigest()
        return digest if version is not None else digest + UNVERSIONED


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

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield items of those sources alone in which they lie."""
        for source, start, end in self._within(first, len(self) if stop is None else stop):
            yield from source.items(start, end)

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield the files of those sources in which the items lie."""
        for source, start, end in self._within(first, stop):
            yield from source.files_of(start, end)

    def state_of(self, first: int, stop: int) -> str:
        """Return a hash of the states of those sources in which the items lie."""
        states = [source.state_of(start, end) for source, start, end in self._within(first, stop)]
        if len(states) == 1:
            return states[0]
        digest = hashlib.sha256("\n".join(states).encode()).hexdigest()
        return digest + UNVERSIONED if any(state.endswith(UNVERSIONED) for state in states) else digest

    def _within(self, first: int, stop: int) -> Iterator[tuple[ImageSource, int, int]]:
        """Yield each source with items from `first` to ``stop - 1``, and which of its items these are."""
        before = 0
        for source in self._sources:
            here = len(source)
            start, end = max(first - before, 0), min(stop - before, here)
            if start < end:
                yield source, start, end
            before += here

    def own_labels(self) -> Labels | None:
        """Read the labels of each source. Either all sources carry labels, or none does."""
        sound = [source for source in self._sources if not source.is_lost]
        found = [source.own_labels() for source in sound]
        known = [labels for labels in found if labels is not None]
        if not known:
            return None
        if len(known) < len(found):
            bare, labelled = (sound[[x is None for x in found].index(y)].name for y in (True, False))
            raise ValueError(f"{bare}: carries no labels, but {labelled} does; labels are read from all parts or none")
        for source, labels in zip(sound, known, strict=True):
            is_alike = isinstance(labels.values, np.ndarray) == isinstance(known[0].values, np.ndarray)
            if not is_alike or labels.class_names != known[0].class_names:
                raise ValueError(
                    f"{source.name}: its labels ({labels.origin}) are not of the classes of those of"
                    f" {sound[0].name} ({known[0].origin})"
                )
        # What is lost comes as one image that cannot be read. Any label does for it.
        following = iter(known)
        parts = [known[0].values[:1] if source.is_lost else next(following).values for source in self._sources]
        origin = " + ".join(dict.fromkeys(labels.origin for labels in known))
        if isinstance(known[0].values, np.ndarray):
            return Labels(np.concatenate(parts), origin, known[0].class_names)
        return Labels([label for part in parts for label in part], origin, known[0].class_names)

    def files(self) -> Iterator[str]:
        """Yield the files of each source in turn."""
        for source in self._sources:
            yield from source.files()

    def picture_names(self) -> Iterator[str]:
        """Yield the names of each source in turn."""
        for source in self._sources:
            yield from source.picture_names()


class SlicedSource(ImageSource):
    """A run of items of another source; see :meth:`ImageSource.slice`."""

    def __init__(self, source: ImageSource, first: int, count: int | None):
        if first < 0 or (count is not None and count < 0):
            raise ValueError(f"{source.name}: expected a slice of numbers from 0 on; got first {first}, count {count}")
        found = None if count is None and first == 0 else len(source)
        if found is not None and first + (count or 0) > found:
            raise ValueError(f"{source.name}: has {found:,} images; a slice ends at {first + (count or 0):,}")
        self.name = source.name
        self.notes = []
        self.labels_from = source.labels_from
        self.class_names = source.class_names
        self.first = source.first + first
        self._source = source
        self._start = first
        self._count = count

    def __len__(self) -> int:
        return len(self._source) - self._start if self._count is None else self._count

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items(0, None)

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield items of the source."""
        end = self._count if stop is None else stop
        return self._source.items(self._start + first, None if end is None else self._start + end)

    def files(self) -> Iterator[str]:
        """Yield the files of these items."""
        return self.files_of(0, len(self))

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield files of the source."""
        return self._source.files_of(self._start + first, self._start + stop)

    def state_of(self, first: int, stop: int) -> str:
        """Return the hash of the source's items."""
        return self._source.state_of(self._start + first, self._start + stop)


class NamingSource(SlicedSource):
    """The items of a source from an index on. The names of those that were read are kept in ``names``."""

    def __init__(self, source: ImageSource, first: int):
        super().__init__(source, first, None)
        self.names: list[str] = []

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield items of the source."""
        for item in super().items(first, stop):
            self.names.append(item.name)
            yield item


class LabelledSource(ImageSource):
    """Another source whose items get labels.

    Raises
    ------
    ValueError
        There are more or fewer labels than images. For a stream, the error is raised when it is read.
    """

    def __init__(self, source: ImageSource, labels: Labels):
        self.name = source.name
        self.notes = source.notes
        self.labels_from = labels.origin
        self.class_names = labels.class_names
        self._source = source
        self._values = labels.values
        try:
            found = len(source)
        except TypeError:  # a stream
            return
        if found != len(self._values):
            raise ValueError(
                f"{self.name}: has {found:,} images, but {self.labels_from} has {len(self._values):,} labels"
            )

    def __len__(self) -> int:
        return len(self._source)

    def labels_digest(self) -> str:
        """Return a hash of the labels."""
        labels = self._values.tolist() if isinstance(self._values, np.ndarray) else list(self._values)
        return hashlib.sha256(json.dumps([labels, self.class_names]).encode()).hexdigest()

    def __iter__(self) -> Iterator[ImageItem]:
        labels = self._values.tolist() if isinstance(self._values, np.ndarray) else self._values
        found = 0
        for item in self._source:
            if found == len(labels):
                raise ValueError(f"{item.name}: has no label; {self.labels_from} has {found:,} labels")
            item.label = labels[found]
            found += 1
            yield item
        if found < len(labels):
            raise ValueError(f"{self.name}: has {found:,} images, but {self.labels_from} has {len(labels):,} labels")

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield items of the source, with their labels."""
        values = self._values[first:stop]
        labels = values.tolist() if isinstance(values, np.ndarray) else values
        for item, label in zip(self._source.items(first, stop), labels, strict=True):
            item.label = label
            yield item

    def files(self) -> Iterator[str]:
        """Yield the files of the source."""
        return self._source.files()

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield files of the source."""
        return self._source.files_of(first, stop)

    def state_of(self, first: int, stop: int) -> str:
        """Return the hash of the source's items."""
        return self._source.state_of(first, stop)


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
        self.labels_from = source.labels_from
        self.class_names = source.class_names
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
            raise ValueError(f"num: {num} images were asked for, {source.name} has {found}: ask for {found} at most")

    def __len__(self) -> int:
        return self._num

    def labels_digest(self) -> str | None:
        """Return a hash of the labels of the whole source."""
        return self._source.labels_digest()

    def files(self) -> Iterator[str]:
        """Yield the files of the whole source, because the choice of images depends on all of them."""
        return self._source.files()

    def state_of(self, first: int, stop: int) -> str:
        """Return the hash of the whole source."""
        try:
            found = len(self._source)
        except TypeError:  # a stream
            found = self._num
        return self._source.state_of(0, found)

    def __iter__(self) -> Iterator[ImageItem]:
        try:
            found = len(self._source)
        except TypeError:
            yield from self._first()
            return
        chosen = np.sort(np.random.RandomState(self._seed).permutation(found)[: self._num])
        items = iter(self._source)
        for passed_over in (np.diff(chosen, prepend=-1) - 1).tolist():
            if (item := next(islice(items, passed_over, None), None)) is None:
                raise ValueError(f"num: {self.name} ended before its {found} images, of which {self._num} were chosen")
            yield item

    def _first(self) -> Iterator[ImageItem]:
        taken = 0
        for item in self._source:
            yield item
            taken += 1
            if taken == self._num:
                return
        raise ValueError(f"num: {self._num} images were asked for, {self.name} gave {taken}")
