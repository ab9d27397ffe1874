"""Files: regular ones only, the same when they are opened again, written whole or not at all; the cache's folder."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

__all__ = [
    "KnownFile",
    "RandomAccessFile",
    "atomic_file",
    "cache_folder",
    "check_writable",
    "npz_path",
    "open_regular",
]

# A disk, a quota or a limit that is full.
_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe without a writer would block. Regular files do not notice."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    OSError
        It cannot be opened.
    ValueError
        It is a device, a pipe or a socket, whatever it is called: a device may have no end.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{os.fspath(path)}: is not a regular file")
    except BaseException:
        file.close()
        raise
    return file


class _Identity(NamedTuple):
    """What tells that a file is still the one that was looked at."""

    device: int
    inode: int
    size: int
    modified_ns: int


def _identity(file: BinaryIO) -> _Identity:
    status = os.fstat(file.fileno())
    return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class KnownFile:
    """A regular file that is looked at now and read later, when it must be the same.

    It is not kept open: a set may have more shards than a process may open files.

    Attributes
    ----------
    path : str
    size : int
        Bytes.

    Raises
    ------
    OSError, ValueError
        See :func:`open_regular`.
    """

    def __init__(self, path: str):
        self.path = path
        with open_regular(path) as file:
            self._identity = _identity(file)
        self.size = self._identity.size

    def open(self) -> BinaryIO:
        """Open the file.

        Raises
        ------
        OSError, ValueError
            See :func:`open_regular`; or another file has its name now, or it was written to.
        """
        file = open_regular(self.path)
        if _identity(file) != self._identity:
            file.close()
            raise ValueError(f"{self.path}: has changed since it was listed")
        return file


class RandomAccessFile:
    """A known file that several threads read at any place. Closed when nothing refers to it any more."""

    def __init__(self, known: KnownFile):
        self._file = known.open()
        self._size = known.size

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`; fewer where the file ends."""
        parts = []
        nbytes = min(nbytes, self._size - offset)  # no memory for what cannot be there
        while nbytes > 0 and (part := os.pread(self._file.fileno(), nbytes, offset)):
            parts.append(part)
            offset += len(part)
            nbytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def npz_path(path: str | os.PathLike[str]) -> Path:
    """Return the path with the ``.npz`` suffix that NumPy would add."""
    text = os.fspath(path)
    return Path(text if text.endswith(".npz") else text + ".npz")


def cache_folder() -> Path:
    """Return the folder of the cache: ``FASTFID_CACHE``, else below ``XDG_CACHE_HOME`` or the home folder.

    Raises
    ------
    RuntimeError
        There is no home folder.
    """
    if folder := os.environ.get("FASTFID_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "fastfid"
    try:
        return Path.home() / ".cache" / "fastfid"
    except RuntimeError as error:
        raise RuntimeError(f"there is no home folder for the cache ({error}); set FASTFID_CACHE") from None


@contextlib.contextmanager
def atomic_file(target: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `target`, which takes its name only when the block ends well."""
    descriptor, temporary = _temporary_beside(target)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_new(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OSError(error.errno, error.strerror, str(target)) from error  # the system's error names no file
        raise


def check_writable(target: Path) -> None:
    """Raise OSError if no file can be made where `target` will be: before hours of work, not after."""
    descriptor, temporary = _temporary_beside(target)
    os.close(descriptor)
    os.unlink(temporary)


def _temporary_beside(target: Path) -> tuple[int, str]:
    try:
        # Of the name only what leaves room for the rest: names have at most 255 bytes.
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    except OSError as error:  # the user knows the target, not the temporary file
        raise OSError(error.errno, error.strerror, str(target)) from error


def _rename_new(temporary: str, target: Path) -> None:
    """Rename, but never over a file that appeared meanwhile: link() fails if the name is taken."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "Existing output file", str(target)) from None
    except OSError:  # a file system without hard links
        os.replace(temporary, target)
    else:
        os.unlink(temporary)
