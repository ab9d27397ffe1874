"""Helpers for files: opening regular files only, detecting changed files, atomic writing, and the cache's folder."""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

__all__ = [
    "STORE_SIDECAR",
    "DamagedFile",
    "FileSet",
    "KnownFile",
    "RandomAccessFile",
    "append_line",
    "atomic_file",
    "cache_folder",
    "check_appendable",
    "check_store_folder",
    "check_writable",
    "content_hash",
    "is_store",
    "npz_path",
    "open_regular",
]


class DamagedFile(ValueError):
    """The content of a file is not what its format says. The message begins with the file's name."""


STORE_SIDECAR = "fastfid-store.json"  # makes a folder a store of features: no data set has a file of this name


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
            raise ValueError(f"{os.fspath(path)}: is not a regular file; copy what it gives into one")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_store(path: Any) -> bool:
    """Return whether `path` is the folder of a store of features, complete or not."""
    if not isinstance(path, str | os.PathLike):
        return False
    sidecar = os.path.join(os.fsdecode(path), STORE_SIDECAR)
    return os.path.isfile(sidecar) or os.path.isfile(f"{sidecar}.new")


def check_store_folder(store: Any) -> None:
    """Raise TypeError or ValueError unless `store` is None, or can be the folder in which stores are made."""
    if store is None:
        return
    if not isinstance(store, str | os.PathLike):
        raise TypeError(f"store: expected the path of a folder, got {store!r}")
    path = os.fsdecode(store)
    if not path or (os.path.exists(path) and not os.path.isdir(path)):
        raise ValueError(f"store: expected the path of a folder, got {path!r}")
    if is_store(path):
        raise ValueError(f"store: {path} is a store itself: give the folder that it is in")


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
            raise ValueError(f"{self.path}: has changed since it was listed; run again when nothing writes to it")
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


def content_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; the errors are those of :func:`open_regular`."""
    with open(_open_descriptor(path), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FileSet:
    """The files that a set of images comes from, as they are now, to be known again by names and contents.

    Parameters
    ----------
    paths : iterable of str
        A file that cannot be opened is one of them: its content counts as "unreadable".
    """

    def __init__(self, paths: Iterable[str]):
        self._paths = [os.path.abspath(path) for path in paths]
        self._before = self._state()

    @property
    def state(self) -> str:
        """A hash of inodes, sizes and times of the files as they were listed."""
        return self._before

    def sizes(self) -> str:
        """Return a hash of the names and sizes of the files, which a copy and ``touch`` leave as they are."""
        sizes = hashlib.sha256()
        for path in self._paths:
            try:
                facts = str(os.stat(path).st_size)
            except OSError:
                facts = "unreadable"
            sizes.update(os.fsencode(path) + f"\0{facts}\0".encode())
        return sizes.hexdigest()

    def identity(self) -> dict[str, Any] | None:
        """Return number, bytes and one SHA-256 of the files; None where one has changed since they were listed.

        Names are those below the folder that all files share, so that a set that was moved is the same. The hash is of
        the lines that ``sha256sum`` prints, sorted by name.
        """
        folder = os.path.commonpath({os.path.dirname(path) for path in self._paths})
        nbytes = 0
        lines = []
        for path in self._paths:
            try:
                digest = content_hash(path)
                nbytes += os.stat(path).st_size
            except (OSError, ValueError):
                digest = "unreadable"
            name = os.fsencode(path[len(folder) :].lstrip("/"))
            lines.append((name, digest))
        if self._state() != self._before:
            return None
        whole = hashlib.sha256()
        for name, digest in sorted(lines):
            whole.update(_checksum_line(name, digest))
        return {"files": len(self._paths), "bytes": nbytes, "sha256": whole.hexdigest()}

    def _state(self) -> str:
        state = hashlib.sha256()
        for path in self._paths:
            try:
                status = os.stat(path)
                facts = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            except OSError:
                facts = "unreadable"
            state.update(f"{facts}\n".encode())
        return state.hexdigest()


def _checksum_line(name: bytes, digest: str) -> bytes:
    """Return the line of ``sha256sum``, which begins with a backslash where the name needs some."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"" if escaped == name else b"\\") + digest.encode() + b"  " + escaped + b"\n"


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


def check_appendable(path: str | os.PathLike[str]) -> None:
    """Refuse a file to which :func:`append_line` could not write: before hours of work, not after.

    Raises
    ------
    OSError, ValueError
        See :func:`append_line`. A file that is not there yet is not made.
    """
    try:
        with _locked(path):
            return
    except FileNotFoundError:  # a loop of links is another error
        pass
    check_writable(Path(os.path.realpath(path)))


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to a file, which is made where there is none: the whole line or nothing of it.

    Processes that append at once wait for each other. A last line without an end, of a program that was killed, is left
    as it is, and the new line begins after it.

    Raises
    ------
    OSError
        The file is a folder, cannot be written to or locked, or the disk is full; the error names it.
    ValueError
        It is a device, a pipe or a socket.
    """
    with _locked(path, os.O_CREAT) as descriptor:
        size = os.fstat(descriptor).st_size
        is_ended = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        data = (line if is_ended else f"\n{line}").encode() + b"\n"
        is_whole = False
        try:
            written = os.write(descriptor, data)
            if written < len(data):  # what the disk, the quota or the limit still took
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
            is_whole = True
        finally:
            if not is_whole:  # an interrupt too
                os.ftruncate(descriptor, size)


@contextlib.contextmanager
def _locked(path: str | os.PathLike[str], flags: int = 0) -> Iterator[int]:
    """Open a regular file to append to, for this process alone; the system's errors get its name."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{os.fspath(path)}: is not a regular file; copy what it gives into one")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)  # and the lock goes
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


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
