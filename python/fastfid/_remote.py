"""Files at URLs, read in parts through fsspec, which is imported only for them."""

import contextlib
import errno
import glob
import importlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from fastfid._files import KnownFile, RandomAccessFile, open_regular

__all__ = [
    "File",
    "ReadsAt",
    "RemoteFile",
    "examined_once",
    "expand_url",
    "file_system",
    "is_url",
    "known_file",
    "open_file",
    "persistently",
    "random_access",
]

# Bytes of a request where a file is read from front to back.
_BLOCK_BYTES = 2**22
# Blocks in memory of a file that several threads read about in order.
_BLOCKS = 4
# Seconds before a request is made again. The last failure is an error.
_DELAYS_S = (0.1, 0.5, 2.0, 5.0)

# Seconds to wait for a server, at each step of a request.
_ANSWER_S = 30.0

# What file systems say of the version of a file, the surest first. Every one has names of its own.
_VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "blob_id",
    "Content-MD5",
    "mtime",
    "LastModified",
    "Last-Modified",
    "created",
)

# The package that fsspec needs for a scheme, which is also the module that it imports.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "hf": "huggingface_hub",
}

Found = TypeVar("Found")


class File(Protocol):
    """A file that is examined now and read later: :class:`fastfid._files.KnownFile`, or a file at a URL."""

    path: str
    size: int

    def open(self) -> BinaryIO:
        """Open the file. Raises ValueError if it has changed."""

    def open_until_dropped(self) -> BinaryIO:
        """Open the file; it is closed when the last reference is gone."""


class ReadsAt(Protocol):
    """A file that several threads read at any offset."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer at the end of the file."""


def is_url(path: str) -> bool:
    """Return whether `path` begins with a scheme, as ``https://`` or ``s3://``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def known_file(path: str) -> File:
    """Return the file at a path or URL.

    Raises
    ------
    ImportError
        The package for a URL's scheme is not installed.
    OSError, ValueError
        There is no such file, or it cannot be opened.
    """
    return RemoteFile(path) if is_url(path) else KnownFile(path)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open the regular file at a path, or the file at a URL.

    Raises
    ------
    ImportError, OSError, ValueError
        See :func:`known_file`.
    """
    text = os.fsdecode(path)
    return RemoteFile(text).open() if is_url(text) else open_regular(path)


def random_access(file: File, *, in_order: bool = False) -> ReadsAt:
    """Return the file for several threads that read at any offset.

    With `in_order` they go through it from front to back, so that what is at a URL is asked for in large blocks.
    """
    if isinstance(file, RemoteFile):
        return _RemoteBlocks(file) if in_order else _RemoteAccess(file)
    return RandomAccessFile(cast(KnownFile, file))


# The states that were asked for within `examined_once`, by URL.
_examined: ContextVar[dict[str, tuple[int, str | None]] | None] = ContextVar("_examined", default=None)


@contextlib.contextmanager
def examined_once() -> Iterator[Mapping[str, tuple[int, str | None]]]:
    """Ask a server once for the version of a file within the block, however often its state is wanted.

    Yields the states by URL, to which each answer is added.
    """
    found: dict[str, tuple[int, str | None]] = {}
    token = _examined.set(found)
    try:
        yield found
    finally:
        _examined.reset(token)


class RemoteFile:
    """A file at a URL, which is read in parts. Requests that fail are made again.

    Attributes
    ----------
    path : str
        The URL.
    size : int
        Size in bytes.

    Raises
    ------
    ImportError
        fsspec, or the package for the scheme, is not installed.
    OSError
        There is no such file, the server cannot be reached, or credentials are missing.
    ValueError
        The scheme is unknown, or the server does not say how large the file is.
    """

    def __init__(self, path: str):
        self.path = path
        self._system, self._place = file_system(path)
        self.size, self._version = self._examine()
        # A server that gives no parts, or cannot be read, is found here: zipfile would call it a file that is no zip.
        with _RemoteStream(self) as stream:
            stream.read_at(self.size - 1, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_system"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._system, _ = file_system(self.path)  # with the credentials of this process, and our bounds

    def state(self) -> tuple[int, str | None]:
        """Return size and version of the file as it is now; None: the server says nothing of the version."""
        known = _examined.get()
        if known is not None and self.path in known:
            return known[self.path]
        size, version = self._examine()
        found = size, None if version is None else str(version)
        if known is not None:
            known[self.path] = found
        return found

    def open(self) -> BinaryIO:
        """Open the file.

        Raises
        ------
        ValueError
            It has changed since it was examined.
        """
        if self._examine() != (self.size, self._version):
            raise ValueError(f"{self.path}: has changed since it was listed; run again when nothing writes to it")
        return cast(BinaryIO, io.BufferedReader(_RemoteStream(self), _BLOCK_BYTES))

    def open_until_dropped(self) -> BinaryIO:
        """Open the file; it is closed when the last reference is gone."""
        return self.open()

    def open_once(self) -> Any:
        """Open the file with fsspec. Nothing is kept of what was read."""
        return self._system.open(self._place, "rb", cache_type="none")

    def _examine(self) -> tuple[int, Any]:
        """Return the size, and whatever the server says of the version."""
        self._system.invalidate_cache(self._place)  # of listings, which would hide that the file has changed
        info = persistently(self.path, lambda: self._system.info(self._place))
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if not isinstance(info.get("size"), int):
            raise ValueError(f"{self.path}: the server does not say how large the file is; download it first")
        return info["size"], next((info[key] for key in _VERSIONS if info.get(key) is not None), None)


class _RemoteStream(io.RawIOBase):
    """A file at a URL as a stream. A request that fails is made again, on a new connection."""

    def __init__(self, file: RemoteFile):
        self._file = file
        self._opened: Any = None
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.read_at(self._position, len(buffer))
        except OSError as error:  # which zipfile would take for a file that is no zip
            raise RuntimeError(error.strerror) from None
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer at the end of the file."""
        nbytes = min(nbytes, self._file.size - offset)
        if nbytes <= 0:
            return b""
        return persistently(self._file.path, lambda: self._request(offset, nbytes))

    def _request(self, offset: int, nbytes: int) -> bytes:
        try:
            self._opened = self._opened or self._file.open_once()
            self._opened.seek(offset)
            data: bytes = self._opened.read(nbytes)
        except BaseException:
            self._drop()
            raise
        if len(data) != nbytes:
            self._drop()
            raise ConnectionError(f"{len(data)} bytes came of {nbytes}")
        return data

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        super().close()


class _RemoteAccess:
    """A file at a URL that several threads read at any offset, each on its own connection."""

    def __init__(self, file: RemoteFile):
        file.open().close()  # has it changed?
        self._file = file
        self._streams = threading.local()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer at the end of the file."""
        if not hasattr(self._streams, "own"):
            self._streams.own = _RemoteStream(self._file)
        data: bytes = self._streams.own.read_at(offset, nbytes)
        return data


class _RemoteBlocks(_RemoteAccess):
    """The same for threads that go through the file about in order: a few blocks of it are in memory."""

    def __init__(self, file: RemoteFile):
        super().__init__(file)
        self._lock = threading.Lock()
        self._blocks: dict[int, Future[bytes]] = {}  # the oldest first

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer at the end of the file."""
        first, last = offset // _BLOCK_BYTES, (offset + nbytes - 1) // _BLOCK_BYTES
        if nbytes <= 0 or last - first >= _BLOCKS:  # more than is kept
            return super().read(offset, nbytes)
        start = offset - first * _BLOCK_BYTES
        data = b"".join(map(self._block, range(first, last + 1)))
        return data[start : start + nbytes]

    def _block(self, number: int) -> bytes:
        """Return a block, which the thread that wants it first asks for, and the others wait for."""
        with self._lock:
            block = self._blocks.get(number)
            is_mine = block is None
            if block is None:
                block = self._blocks[number] = Future()
                while len(self._blocks) > _BLOCKS:
                    del self._blocks[next(iter(self._blocks))]
        if is_mine:
            try:
                block.set_result(super().read(number * _BLOCK_BYTES, _BLOCK_BYTES))
            except BaseException as error:  # an interrupt too: the threads that wait must hear of it
                with self._lock:
                    self._blocks.pop(number, None)
                block.set_exception(error)
        return block.result()


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the file's place in it. `options` are those of the file system."""
    try:
        core = importlib.import_module("fsspec.core")
    except ImportError:
        raise ImportError(
            f"{url}: reading URLs needs fsspec: pip install fsspec aiohttp, or '.[urls]' in fastfid's source folder"
        ) from None
    scheme = url.partition("://")[0].lower()
    try:
        system, place = core.url_to_fs(url, **_options(scheme), **options)
    except ImportError as error:
        raise ImportError(f"{url}: {_what_is_missing(scheme, error)}") from None
    except ValueError as error:
        raise ValueError(f"{url}: {_first_line(error)}") from None
    if scheme in ("s3", "s3a"):
        system.retries = 1  # `persistently` makes requests again, and says so
    return system, place


def _options(scheme: str) -> dict[str, Any]:
    """Return the options of the file system that bound how long a request takes.

    Without them, a web server may take 5 minutes to answer. The packages for s3 would make each request 25 times, which
    takes half an hour where a server does not answer.
    """
    if scheme in ("s3", "s3a"):
        users = importlib.import_module("fsspec.config").conf.get(scheme, {}).get("config_kwargs", {})
        bounds = {"connect_timeout": _ANSWER_S, "read_timeout": _ANSWER_S, "retries": {"max_attempts": 0}}
        return {"config_kwargs": {**users, **bounds}}
    if scheme in ("http", "https"):
        library = importlib.import_module("aiohttp")
        return {"client_kwargs": {"timeout": library.ClientTimeout(sock_connect=_ANSWER_S, sock_read=_ANSWER_S)}}
    return {}


def _what_is_missing(scheme: str, error: ImportError) -> str:
    """Return which package a scheme needs, and how it is installed."""
    package = "aiohttp" if scheme in ("http", "https") else _PACKAGES.get(scheme)
    missing = error if error.name else error.__cause__  # fsspec raises an error of its own, without the name
    if package is None or not isinstance(missing, ImportError) or (missing.name or "").partition(".")[0] != package:
        return _first_line(error if package is None else missing or error)
    return f"needs {package}: pip install {package}"


def persistently(url: str, request: Callable[[], Found], failed: str = "cannot be read") -> Found:
    """Return the result of a request, which is made again if it fails for a reason that may pass.

    Raises
    ------
    OSError
        The file is not there, access is denied, or the request has failed five times. The error has the URL.
    """
    delays = iter(_DELAYS_S)
    while True:
        try:
            return request()
        except MemoryError:
            raise
        except Exception as error:  # every package for a scheme has classes of its own
            if (final := _final(url, error)) is not None:
                raise final from None
            if (delay := next(delays, None)) is None:
                raise OSError(errno.EIO, f"{failed} ({_first_line(_cause(error))})", url) from None
        time.sleep(delay)


def _cause(error: BaseException) -> BaseException:
    """Return what was wrong: fsspec calls a file missing where a web server has refused it or is not there."""
    cause = error.__cause__
    is_of_web = isinstance(cause, OSError) or type(cause).__module__.partition(".")[0] == "aiohttp"
    return cause if isinstance(error, FileNotFoundError) and cause is not None and is_of_web else error


def _final(url: str, error: BaseException) -> OSError | None:
    """Return the error to raise if another request would not help, else None."""
    error = _cause(error)
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, f"access is denied ({_first_line(error)})", url)
    if "Credential" in type(error).__name__:
        return PermissionError(errno.EACCES, f"credentials are missing ({_first_line(error)})", url)
    if type(error).__name__ == "FileExpired":  # of s3fs: the version that was opened is not there any more
        return OSError(errno.ESTALE, "has changed since it was listed", url)
    if "range requests" in str(error):
        text = "the server gives no parts of files (HTTP ranges); download it first"
        return OSError(errno.EOPNOTSUPP, text, url)
    return None


def _status(error: BaseException) -> int | None:
    """Return the status of HTTP that a server answered with, where the error says it."""
    answer = getattr(error, "response", None)  # of botocore's errors, a dict
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None)
    return found if isinstance(found, int) else None


def expand_url(url: str) -> list[str]:
    """Return the files that a pattern of a URL matches, sorted; of http and https, the URL itself.

    Raises
    ------
    FileNotFoundError
        The pattern matches no file.
    """
    if url.lower().startswith(("http:", "https:")) or not glob.has_magic(url):
        return [url]
    system, place = file_system(url)
    found = persistently(url, lambda: sorted(system.glob(place)))
    if not found:
        raise FileNotFoundError(f"{url}: no such file or folder")
    return [system.unstrip_protocol(path) for path in found]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
