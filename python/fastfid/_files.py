"""Files: regular ones only, the same when they are opened again, written whole or not at all; the cache's folder."""

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

# A disk, a quota or a limit that is full.
_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    OSError
        It cannot be opened.
    ValueError
        It is a device, a pipe or a socket, whatever it is called: a device may have no end.
    """
    return open(_open_descriptor(path), "rb")


def _open_descriptor(path: str | os.PathLike[str]) -> int:
    """Return the descriptor of a regular file."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would make it wait
    except BlockingIOError:
        # A regular file that another machine has leased: it is waited for. No pipe ends here.
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
    """A regular file that is looked at now and read later, when it must be the same: of the same size and time.

    It is not kept open: a set may have more shards than a process may open files. Its inode is not compared, because
    some network file systems give another one to the same file.

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
            status = os.fstat(file.fileno())
        self.size = status.st_size
        self._modified_ns = status.st_mtime_ns

    def open(self) -> BinaryIO:
        """Open the file.

        Raises
        ------
        OSError, ValueError
            See :func:`open_regular`; or another file has its name now, or it was written to.
        """
        return open(self._descriptor(), "rb")

    def open_until_dropped(self) -> BinaryIO:
        """Open the file as :meth:`open` does, for as long as something refers to it."""
        return cast(BinaryIO, _UntilDropped(self._descriptor(), "rb"))

    def _descriptor(self) -> int:
        descriptor = _open_descriptor(self.path)
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified_ns):
            os.close(descriptor)
            raise ValueError(f"{self.path}: has changed since it was listed")
        return descriptor


class _UntilDropped(io.FileIO):
    """Closed when nothing refers to it any more, which is no mistake here and hence no ResourceWarning."""

    def __del__(self) -> None:
        self.close()


class RandomAccessFile:
    """A known file that several threads read at any place. Closed when nothing refers to it any more."""

    def __init__(self, known: KnownFile):
        self._file = known.open_until_dropped()
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
