"""A folder of picture files."""

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastfid.sources.base import ImageItem, ImageSource
from fastfid.sources.picture import IMAGE_EXTENSIONS, Decoder

__all__ = ["FileItem", "FolderSource", "PassedOver", "count_of"]


class FileItem(ImageItem):
    """A picture file."""

    __slots__ = ("_decoder",)

    def __init__(self, path: str, decoder: Decoder):
        self.name = path
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Decode the file."""
        return self._decoder.decode_file(self.name)


def count_of(number: int, thing: str, plural: str | None = None) -> str:
    """Return "1 file", "2 files"."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


class PassedOver:
    """Counts what is in a folder or an archive and is not read."""

    def __init__(self, any_case: bool):
        self._any_case = any_case
        self.other_case = 0
        self.folders = 0
        self.links_and_devices = 0
        self.resource_forks = 0
        self._others: Counter[str] = Counter()

    def is_picture(self, name: str) -> bool:
        """Whether the name's extension is one that is read; counts it otherwise."""
        _, dot, extension = name.rpartition(".")
        if dot and extension in IMAGE_EXTENSIONS:
            return True
        if dot and extension.lower() in IMAGE_EXTENSIONS:
            if self._any_case:
                return True
            self.other_case += 1
        else:
            suffix = dot + extension if dot and "/" not in extension else "no extension"
            # A hostile archive may hold a million extensions; the first hundred kinds are enough to name three.
            self._others[suffix if suffix in self._others or len(self._others) < 100 else "others"] += 1
        return False

    def sentences(self, name: str) -> list[str]:
        """Return one sentence for each kind of thing passed over."""
        said = []
        if self.other_case:
            files = count_of(self.other_case, "file")
            said.append(f"{name}: {files} with upper-case extensions not read (--any-case reads them)")
        if self.folders:
            folders = count_of(self.folders, "sub-folder")
            said.append(f"{name}: {folders} not entered (--recursive enters them)")
        if self._others:
            kinds = ", ".join(kind for kind, _ in self._others.most_common(3))
            more = ", ..." if len(self._others) > 3 else ""
            files = count_of(self._others.total(), "other file")
            said.append(f"{name}: {files} not read ({kinds}{more})")
        if self.links_and_devices:
            entries = count_of(self.links_and_devices, "entry", "entries")
            said.append(f"{name}: {entries} not read: links, devices or pipes")
        if self.resource_forks:
            files = count_of(self.resource_forks, "macOS resource fork")
            said.append(f"{name}: {files} (__MACOSX/) not read")
        return said

    def nothing_found(self, name: str) -> ValueError:
        """Return the error for a source without pictures."""
        extensions = ", ".join(sorted(IMAGE_EXTENSIONS))
        there = "; ".join(sentence.removeprefix(f"{name}: ") for sentence in self.sentences(name)) or "it is empty"
        return ValueError(f"{name}: no images found (extensions {extensions}); {there}")


class FolderSource(ImageSource):
    """The picture files of a folder, sorted by name as strings.

    pytorch-fid's rules: sub-folders are not entered and only lower-case extensions count, so that the number is the
    same; what is passed over is counted. With `recursive`, files are sorted by their path below the folder ("/" between
    parts); links to folders are followed, each folder once.

    Parameters
    ----------
    path : str
        The folder.
    decoder : Decoder
        How a picture becomes RGB.
    recursive, any_case : bool
        Whether to enter sub-folders; whether to read files such as ``A.PNG``.

    Raises
    ------
    ValueError
        The folder holds no picture.
    OSError
        It, or a sub-folder, cannot be listed.
    """

    def __init__(self, path: str, decoder: Decoder, *, recursive: bool = False, any_case: bool = False):
        self.name = path
        self._decoder = decoder
        passed_over = PassedOver(any_case)
        # A million names are kept as strings, not as Path objects, and joined to the folder only when they are read.
        self._names = _list_pictures(path, recursive, passed_over)
        self._names.sort()
        if not self._names:
            raise passed_over.nothing_found(path)
        self.notes = passed_over.sentences(path)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[ImageItem]:
        for name in self._names:
            yield FileItem(os.path.join(self.name, name), self._decoder)


def _list_pictures(root: str, recursive: bool, passed_over: PassedOver) -> list[str]:
    found: list[str] = []
    pending = [""]  # folders to list, as prefixes "a/b/"
    seen = {_identity(os.stat(root))}  # a link to a parent folder would go round for ever
    while pending:
        prefix = pending.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not recursive:
                        passed_over.folders += 1
                        continue
                    identity = _identity(os.stat(entry.path))
                    if identity in seen:
                        passed_over.links_and_devices += 1
                    else:
                        seen.add(identity)
                        pending.append(f"{prefix}{entry.name}/")
                elif (
                    entry.is_file() or entry.is_symlink()
                ):  # a broken link is an image that cannot be read, not nothing
                    if passed_over.is_picture(entry.name):
                        found.append(prefix + entry.name)
                else:
                    passed_over.links_and_devices += 1  # opening a pipe would wait for ever
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
