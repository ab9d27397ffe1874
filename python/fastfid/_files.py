"""Helpers for files: opening regular files only, detecting changed files, atomic writing, and the cache's folder."""

import contextlib
import errno
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

__all__ = [
    "KnownFile",
    "RandomAccessFile",
    "atomic_file",
    "cache_folder",
    "check_writable",
    "npz_path",
    "open_regular",
]

# Errors of a full disk, an exhausted quota or a file size limit.
_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        The path is a device, a pipe or a socket. Reading a device may never end.
    """
    return open(_open_descriptor(path), "rb")


def _open_descriptor(path: str | os.PathLike[str]) -> int:
    """Return the descriptor of a regular file."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)  # without O_NONBLOCK, a pipe without a writer blocks
    except BlockingIOError:
        # A regular file that another machine has leased: wait for the lease. Pipes do not raise this error.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise
        descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{os.fspath(path)}: is not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class KnownFile:
    """A regular file that is examined now and read later. Opening it checks that size and modification time are equal.

    The file is not kept open, because a set may have more shards than the limit of open files. Inodes are not compared,
    because some network file systems change the inode of a file.

    Attributes
    ----------
    path : str
    size : int
        Size in bytes.

    Raises
    ------
    OSError, ValueError
        See :func:`open_regular`.
    """

    def __init__(self, path: str):
        self.path = path
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
        self.size = status.st_size
        self._modified_ns = status.st_mtime_ns

    def open(self) -> BinaryIO:
        """Open the file.

        Raises
        ------
        OSError, ValueError
            See :func:`open_regular`. ValueError is also raised if the file was replaced or written to.
        """
        return open(self._descriptor(), "rb")

    def open_until_dropped(self) -> BinaryIO:
        """Open the file as :meth:`open` does. The file is closed when the last reference to it is gone."""
        return cast(BinaryIO, _UntilDropped(self._descriptor(), "rb"))

    def _descriptor(self) -> int:
        descriptor = _open_descriptor(self.path)
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified_ns):
            os.close(descriptor)
            raise ValueError(f"{self.path}: has changed since it was listed")
        return descriptor


class _UntilDropped(io.FileIO):
    """A file that is closed when the last reference is gone. This is intended, so there is no ResourceWarning."""

    def __del__(self) -> None:
        self.close()


class RandomAccessFile:
    """A known file that several threads read at any offset. It is closed when the last reference is gone."""

    def __init__(self, known: KnownFile):
        self._file = known.open_until_dropped()
        self._size = known.size

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer at the end of the file."""
        parts = []
        nbytes = min(nbytes, self._size - offset)  # do not allocate memory beyond the end of the file
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
    """Return the folder of the cache: ``FASTFID_CACHE``, else a folder in ``XDG_CACHE_HOME`` or the home folder.

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
    """Open a temporary file in the folder of `target`, and rename it to `target` if the block ends without an error."""
    descriptor, temporary = _temporary_beside(target)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes the file private
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
    """Raise OSError if no file can be made in the folder of `target`. Called before hours of work, not after."""
    descriptor, temporary = _temporary_beside(target)
    os.close(descriptor)
    os.unlink(temporary)


def _temporary_beside(target: Path) -> tuple[int, str]:
    try:
        # The prefix has only 40 characters of the name, because names have at most 255 bytes.
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    except OSError as error:  # the user knows the target, not the temporary file
        raise OSError(error.errno, error.strerror, str(target)) from error


def _rename_new(temporary: str, target: Path) -> None:
    """Rename a file, but do not overwrite a file that appeared meanwhile: link() fails if the name exists."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "Existing output file", str(target)) from None
    except OSError:  # a file system without hard links
        os.replace(temporary, target)
    else:
        os.unlink(temporary)
