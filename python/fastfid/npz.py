"""Reading of untrusted NumPy files: headers are checked before data is read, and nothing is unpickled."""

import contextlib
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastfid._files import DamagedFile
from fastfid._remote import open_file

__all__ = ["ArrayHeader", "NpzFile", "open_npz", "read_header"]

_MAX_HEADER_BYTES = 65536
_MAX_AXES = 16


class ArrayHeader:
    """Shape, dtype and memory order of one ``.npy`` stream, and the number of bytes of its data."""

    def __init__(self, shape: tuple[int, ...], fortran_order: bool, dtype: "np.dtype[Any]"):
        self.shape = shape
        self.fortran_order = fortran_order
        self.dtype = dtype
        # Python integers, because the product of an invalid shape may overflow an int64.
        self.nbytes = dtype.itemsize
        for length in shape:
            self.nbytes *= length


class Readable(Protocol):
    """A stream from which a header is read."""

    def read(self, nbytes: int = ..., /) -> bytes:
        """Read `nbytes`, or fewer at the end of the stream."""


def read_header(stream: Readable, name: str, how: str = "") -> ArrayHeader:
    """Read the ``.npy`` header at the stream's position.

    Parameters
    ----------
    name : str
        Name of the array, with which error messages begin.
    how : str
        Text appended to the error about Python objects.

    Raises
    ------
    ValueError
        The header is invalid, or it declares Python objects, elements without bytes, or an impossible shape.
    """
    with _naming(name, "not a NumPy array file"):
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    if dtype.hasobject:
        raise ValueError(
            f"{name}: holds Python objects (dtype {dtype}); they would have to be unpickled, which is refused{how}"
        )
    if dtype.itemsize == 0 or dtype.subdtype is not None or dtype.names is not None:
        raise ValueError(f"{name}: declares elements of dtype {dtype}; expected numbers or text")
    if len(shape) > _MAX_AXES or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"{name}: declares an impossible shape {str(shape)[:80]}")
    return ArrayHeader(shape, fortran_order, dtype)


def _check_text(array: NDArray[Any]) -> None:
    """Raise ValueError if a text has a number that is no character: Python's texts of such numbers are undefined."""
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise ValueError(f"has a text with the number {codes.max():#x}, which is no character")


class NpzFile:
    """An open ``.npz``.

    Attributes
    ----------
    path : str
    names : list of str
        Names of its arrays, without the ``.npy`` suffix.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile):
        self.path = path
        self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        self._archive = archive

    def size(self, key: str) -> int:
        """Return the number of bytes that the archive declares for the array `key`, including its header."""
        return self._info(key).file_size

    @contextlib.contextmanager
    def stream(self, key: str) -> Iterator["_Member"]:
        """Open the array `key`, header and data."""
        name = f"{self.path}: {key}"
        info = self._info(key)
        with _naming(name, _DAMAGED):
            stream = self._archive.open(info)
        with stream:
            yield _Member(stream, name)

    def read(self, key: str, max_bytes: int) -> NDArray[Any]:
        """Read the whole array `key`.

        Raises
        ------
        ValueError
            The member is not an array, holds objects, declares more than `max_bytes`, or its data has another length
            than declared.
        """
        name = f"{self.path}: {key}"
        with self.stream(key) as stream:
            header = read_header(stream, name)
            if header.nbytes > max_bytes:
                raise ValueError(
                    f"{name}: declares shape {header.shape} of {header.dtype}, more than {max_bytes} bytes"
                )
            data = stream.read(header.nbytes + 1)
        if len(data) != header.nbytes:
            found = "more" if len(data) > header.nbytes else len(data)
            raise ValueError(f"{name}: declares {header.nbytes} bytes of data but has {found}")
        with _naming(name, "not a NumPy array file"):
            array = np.frombuffer(data, dtype=header.dtype)
            _check_text(array)
            return array.reshape(header.shape, order="F" if header.fortran_order else "C")

    def read_stored(self, key: str) -> NDArray[Any]:
        """Read the whole array `key`, which is not compressed, into memory once.

        The archive's checksum is not compared: for callers who have one of their own, as it takes most of the time.

        Raises
        ------
        ValueError
            See :meth:`read`. Also if the array is compressed, or in Fortran's order.
        """
        name, info, file = f"{self.path}: {key}", self._info(key), self._archive.fp
        with _naming(name, _DAMAGED):
            if info.compress_type != zipfile.ZIP_STORED or file is None:
                raise ValueError("is compressed")
            file.seek(info.header_offset)
            head = file.read(_LOCAL_HEADER.size)
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
            if signature != b"PK\3\4":
                raise ValueError("has no header")
            file.seek(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
            header = read_header(file, name)
            if header.nbytes > info.file_size or header.fortran_order:
                raise ValueError(f"declares shape {header.shape} of {header.dtype}, more than {info.file_size} bytes")
            array = np.empty(header.shape, header.dtype)
            if header.nbytes and file.readinto(array.reshape(-1).view(np.uint8)) != header.nbytes:  # type: ignore[attr-defined]  # of binary files
                raise ValueError("is cut short")
            _check_text(array)
            return array

    def _info(self, key: str) -> zipfile.ZipInfo:
        if key not in self.names:
            raise ValueError(f"{self.path}: has no array {key}")
        info = self._archive.getinfo(f"{key}.npy")
        if info.flag_bits & 1:
            raise ValueError(f"{self.path}: {key}: is encrypted")
        return info


_DAMAGED = "cannot be read from the archive"
# Of a member of a zip: the signature, what its directory says too, and the lengths of its name and of what follows.
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class _Member:
    """The stream of one array. If the archive is damaged, reading raises a ValueError that names the array."""

    def __init__(self, stream: IO[bytes], name: str):
        self._stream = stream
        self._name = name

    def read(self, nbytes: int = -1) -> bytes:
        """Read `nbytes`, or fewer at the end of the array."""
        with _naming(self._name, _DAMAGED):
            return self._stream.read(nbytes)

    def tell(self) -> int:
        """Return the number of bytes read so far."""
        return self._stream.tell()


@contextlib.contextmanager
def open_npz(path: str | Path, file: IO[bytes] | None = None) -> Iterator[NpzFile]:
    """Open an ``.npz``. If `file` is given, it is the open file.

    Raises
    ------
    FileNotFoundError, OSError
        The file cannot be opened.
    ValueError
        The file is not a regular file or not a zip archive. The message begins with the path.
    """
    with contextlib.ExitStack() as stack:
        if file is None:
            file = stack.enter_context(open_file(path))
        with _naming(str(path), "not a readable .npz file"):
            archive = stack.enter_context(zipfile.ZipFile(file))
        yield NpzFile(str(path), archive)


@contextlib.contextmanager
def _naming(name: str, what: str) -> Iterator[None]:
    """Convert every exception of the parsers for a damaged file into a ValueError that names the file."""
    try:
        yield
    except _NamedError:  # raised by the inner stream
        raise
    except MemoryError:
        raise MemoryError(f"{name}: not enough memory to read it") from None
    except Exception as error:  # many classes, because zipfile and NumPy do not check the headers they read
        raise _NamedError(f"{name}: {what} ({_first_line(error)})") from None


class _NamedError(DamagedFile):
    """An error whose message already names the file."""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
