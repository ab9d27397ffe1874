"""A folder of picture files."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fastfid._files import open_regular
from fastfid.sources.base import Header, ImageItem, ImageSource, Labels
from fastfid.sources.labels import DATASET_JSON, from_dataset_json, largest_dataset_json
from fastfid.sources.listing import PassedOver, is_called_picture
from fastfid.sources.picture import Decoder

__all__ = ["FileItem", "FilesSource", "FolderSource"]


class FileItem(ImageItem):
    """A picture file."""

    __slots__ = ("_decoder",)

    def __init__(self, path: str, decoder: Decoder):
        self.name = path
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Decode the file."""
        return self._decoder.decode_file(self.name)

    def header(self) -> Header:
        """Read the beginning of the file."""
        return Header(*self._decoder.header_of_file(self.name))


class FolderSource(ImageSource):
    """The picture files of a folder, sorted by name as strings.

    The rules are pytorch-fid's, so that the FID is pytorch-fid's: sub-folders are not entered, and only lower-case
    extensions are read. Ignored entries are counted. With `recursive`, files are sorted by their path below the folder
    ("/" between parts). Links to folders are followed, and each folder is read once.

    Parameters
    ----------
    path : str
        The folder.
    decoder : Decoder
        Converts pictures to RGB.
    passed_over : PassedOver
        Selects pictures and counts other entries.
    recursive : bool
        Whether to enter sub-folders.

    Raises
    ------
    OSError
        The folder, or a sub-folder, cannot be listed.
    """

    def __init__(self, path: str, decoder: Decoder, passed_over: PassedOver, *, recursive: bool = False):
        self.name = path
        self.notes = []
        self._decoder = decoder
        # Names are stored as strings and not as Path objects, and joined to the folder only when they are read, because
        # there may be millions.
        self._names = _list_pictures(path, recursive, passed_over)
        self._names.sort()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items(0, None)

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield pictures, without looking at those before."""
        for name in islice(self._names, first, stop):
            yield FileItem(os.path.join(self.name, name), self._decoder)

    def own_labels(self) -> Labels | None:
        """Read ``dataset.json`` in the folder."""
        path = os.path.join(self.name, DATASET_JSON)
        if not os.path.lexists(path):
            return None
        most = largest_dataset_json(len(self))
        with open_regular(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"{path}: has more than the {most} bytes that are read for {len(self)} images")
        return from_dataset_json(data, self._names, path, self)

    def files(self) -> Iterator[str]:
        """Yield the paths of the pictures."""
        return self.files_of(0, len(self))

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield the paths of these pictures alone."""
        for name in islice(self._names, first, stop):
            yield os.path.join(self.name, name)

    def picture_names(self) -> Iterator[str]:
        """Yield the pictures' paths below the folder."""
        return iter(self._names)


class FilesSource(ImageSource):
    """Picture files found by a glob, in the given order."""

    def __init__(self, name: str, paths: Sequence[str], decoder: Decoder):
        self.name = name
        self.notes = []
        self._paths = paths
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items(0, None)

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield pictures, without looking at those before."""
        return (FileItem(path, self._decoder) for path in islice(self._paths, first, stop))

    def files(self) -> Iterator[str]:
        """Yield the paths of the pictures."""
        return iter(self._paths)

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        """Yield the paths of these pictures alone."""
        return islice(self._paths, first, stop)

    def picture_names(self) -> Iterator[str]:
        """Yield the pictures' paths below the folder in which the pattern begins."""
        fixed = re.split(r"[*?\[{]", self.name)[0].rpartition("/")[0]
        shared = len(fixed) + 1 if fixed else 0
        return (path[shared:] for path in self._paths)


def _list_pictures(root: str, recursive: bool, passed_over: PassedOver) -> list[str]:
    found: list[str] = []
    pending = [""]  # folders to list, as prefixes "a/b/"
    seen = {_identity(root)}  # prevents an endless loop for a link to a parent folder
    while pending:
        prefix = pending.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                path = prefix + entry.name
                if _is_folder(entry):
                    if passed_over.is_hidden_folder(path):
                        continue
                    if not recursive:
                        passed_over.folders += 1
                    elif (identity := _identity(entry.path)) in seen:
                        passed_over.links_and_devices += 1
                    else:
                        seen.add(identity)
                        pending.append(f"{path}/")
                elif _is_file(entry):
                    if passed_over.is_picture(path):
                        found.append(path)
                else:
                    passed_over.links_and_devices += 1  # opening a pipe would block
    return found


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Return whether the entry is a file or a link. For a broken link, the reader raises an error that names it."""
    try:
        return entry.is_file() or entry.is_symlink()
    except OSError:  # a link to itself: the reader raises an error if its name is that of a picture
        return is_called_picture(entry.name)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
