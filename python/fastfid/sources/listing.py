"""Selection of the pictures of a folder or an archive by name, and counts of the ignored entries."""

import fnmatch
import re
from collections import Counter
from collections.abc import Container

from fastfid._remote import is_url
from fastfid.errors import FastfidWarning, SuspiciousInputWarning
from fastfid.sources.picture import IMAGE_EXTENSIONS

__all__ = ["ARCHIVE_SUFFIXES", "FILE_SUFFIXES", "PassedOver", "is_called_picture", "kind_of_file"]

# Files that hold images but are no pictures: how each kind may end. Messages name the first two.
FILE_SUFFIXES = {
    "zip": (".zip",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
    "npz": (".npz",),
    "npy": (".npy",),
    "parquet": (".parquet",),
}
ARCHIVE_SUFFIXES = tuple(suffix for suffixes in FILE_SUFFIXES.values() for suffix in suffixes)

# Limit of stored names, because a hostile archive may have a million kinds of files or folders. Messages show three.
_MOST_NAMES = 100


def kind_of_file(path: str) -> str | None:
    """Return the key of `FILE_SUFFIXES` that the path's end, in upper or lower case, belongs to; None: none."""
    lower = path.lower()
    if is_url(path):
        lower = re.split("[?#]", lower)[0]
    return next((kind for kind, suffixes in FILE_SUFFIXES.items() if lower.endswith(suffixes)), None)


def is_called_picture(path: str) -> bool:
    """Return whether the path has the extension of a picture, in upper or lower case."""
    return path.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


class PassedOver:
    """Decides by name whether an entry is a picture, and counts the entries of a folder or archive that are not read.

    Parameters
    ----------
    any_case : bool
        Whether ``A.PNG`` is a picture. pytorch-fid reads lower-case extensions only.
    is_deep : bool
        Whether sub-folders are entered.
    match : str, optional
        Read only pictures that this pattern (``*.input.png``) matches. The pattern is compared with the name, or, if it
        contains "/", with the path below the folder or in the archive.
    read_otherwise : container of str
        Paths of other files that are read too, such as ``dataset.json``. They are not counted.

    Attributes
    ----------
    folders, links_and_devices : int
        Counts that the code that lists the source increments.
    """

    def __init__(
        self, any_case: bool, match: str | None = None, *, is_deep: bool = True, read_otherwise: Container[str] = ()
    ):
        if match is not None and not isinstance(match, str):
            raise TypeError(f"match: expected a pattern, got {match!r}")
        self._any_case = any_case
        self._match = match
        self._is_deep = is_deep
        self._read_otherwise = read_otherwise
        self._has_path = match is not None and "/" in match
        self._matches = re.compile(fnmatch.translate(match)).match if match is not None else None
        self._other_case = 0
        self._unmatched = 0
        self._resource_forks = 0
        self._hidden: set[str] = set()
        self._others: Counter[str] = Counter()
        self.folders = 0
        self.links_and_devices = 0

    def is_picture(self, path: str) -> bool:
        """Return whether the file at `path` ("/" between its parts) is a picture to read. Other files are counted."""
        name = path.rpartition("/")[2]
        if name.startswith("._"):  # a metadata file that macOS writes on other file systems
            self._resource_forks += 1
            return False
        _, dot, extension = name.rpartition(".")
        if not (dot and extension in IMAGE_EXTENSIONS):
            if dot and extension.lower() in IMAGE_EXTENSIONS:
                if not self._any_case:
                    self._other_case += 1
                    return False
            else:
                if path not in self._read_otherwise:
                    self.count_other(dot + extension if dot else "no extension")
                return False
        if self._matches is not None and not self._matches(path if self._has_path else name):
            self._unmatched += 1
            return False
        return True

    def count_other(self, kind: str) -> None:
        """Count a file that is no picture, such as a ``.txt``."""
        self._others[kind if kind in self._others or len(self._others) < _MOST_NAMES else "others"] += 1

    def uncount(self, kind: str) -> None:
        """Forget the files of a kind that were counted, because they are read after all."""
        self._others.pop(kind, None)

    def is_archived_picture(self, path: str) -> bool:
        """Like :meth:`is_picture`, for a member of an archive. The folders in its path are checked too."""
        self._is_deep = True
        if path.startswith("__MACOSX/"):
            self._resource_forks += 1
            return False
        if ("." in path[:1] or "/." in path or "@eaDir" in path) and self._is_below_hidden(path):
            return False
        return self.is_picture(path)

    def is_hidden_folder(self, path: str) -> bool:
        """Return whether the folder at `path` is a hidden folder, such as those of file browsers, and count it."""
        name = path.rpartition("/")[2]
        if (name.startswith(".") and name not in (".", "..")) or name == "@eaDir":
            if len(self._hidden) < _MOST_NAMES:
                self._hidden.add(path)
            return True
        return False

    def _is_below_hidden(self, path: str) -> bool:
        parts = path.split("/")[:-1]
        return any(self.is_hidden_folder("/".join(parts[: i + 1])) for i in range(len(parts)))

    def notes(self, name: str) -> list[FastfidWarning]:
        """Return a warning for each kind of ignored entry in the source called `name`."""
        kind = {True: SuspiciousInputWarning, False: FastfidWarning}
        return [kind[is_suspicious](f"{name}: {what}") for what, is_suspicious in self._said(name)]

    def nothing_found(self, name: str) -> ValueError:
        """Return the error for a source without pictures."""
        there = "; ".join(what for what, _ in self._said(name)) or "it is empty"
        return ValueError(f"{name}: no images found (extensions {', '.join(sorted(IMAGE_EXTENSIONS))}); {there}")

    def _said(self, name: str) -> list[tuple[str, bool]]:
        """Return a text for each kind of ignored entry, and whether its pictures may have been ignored by mistake."""
        said = []
        if self._hidden:
            more = "" if len(self._hidden) < _MOST_NAMES else " or more"
            hidden = f"{_count(len(self._hidden), 'hidden folder')}{more} not entered ({_three(sorted(self._hidden))})"
            said.append((hidden, self._is_deep))  # if not deep, no folder is entered
        if self._other_case:
            files = _count(self._other_case, "file")
            said.append((f"{files} with upper-case extensions not read (--any-case reads them)", False))
        if self._unmatched:
            said.append((f"{_count(self._unmatched, 'picture')} not read, as --match {self._match} asks", False))
        if self.folders:
            said.append((f"{_count(self.folders, 'sub-folder')} not entered (--recursive enters them)", False))
        if self._others:
            kinds = [kind for kind, _ in self._others.most_common()]
            archives = [kind for kind in kinds if kind in ARCHIVE_SUFFIXES]
            how = f"; '{name}/*{archives[0]}' reads the images inside" if archives else ""
            said.append((f"{_count(self._others.total(), 'other file')} not read ({_three(kinds)}{how})", False))
        if self.links_and_devices:
            said.append(
                (f"{_count(self.links_and_devices, 'entry', 'entries')} not read: links, devices or pipes", False)
            )
        if self._resource_forks:
            forks = _count(self._resource_forks, "macOS resource fork")
            said.append((f"{forks} (._*, __MACOSX/) not read", False))
        return said


def _three(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _count(number: int, thing: str, things: str | None = None) -> str:
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
