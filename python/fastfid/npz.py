"""Reading NumPy files from untrusted hands: headers are checked before data is read, and nothing is unpickled."""

import contextlib
import errno
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

__all__ = ["ArrayHeader", "member_names", "open_npz", "read_header", "read_member"]

_MAX_HEADER_BYTES = 65536


class ArrayHeader:
    """Shape, dtype and order of one ``.npy`` stream, and the bytes its data must have."""

    def __init__(self, shape: tuple[int, ...], fortran_order: bool, dtype: "np.dtype[Any]"):
        self.shape = shape
        self.fortran_order = fortran_order
        self.dtype = dtype
        # Python integers: absurd shapes do not overflow.
        self.nbytes = dtype.itemsize
        for length in shape:
            self.nbytes *= length


def read_header(stream: IO[bytes], name: str, how: str = "") -> ArrayHeader:
    """Read the ``.npy`` header at the stream's position; ValueError names `name` if it is none, or holds objects.

    `how` says what to do with objects.
    """
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    except (
        ValueError,
        SyntaxError,
        TypeError,
        LookupError,
        RecursionError,
        MemoryError,
        EOFError,
        OverflowError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(f"{name}: not a NumPy array file ({_first_line(error)})") from None
    if dtype.hasobject:
        raise ValueError(
            f"{name}: holds Python objects (dtype {dtype}); they would have to be unpickled, which is refused{how}"
        )
    if any(length < 0 for length in shape):
        raise ValueError(f"{name}: declares a negative shape {shape}")
    return ArrayHeader(shape, fortran_order, dtype)


@contextlib.contextmanager
def open_npz(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """Open an ``.npz`` for :func:`read_member`.

    Raises
    ------
    FileNotFoundError, OSError
        The file cannot be opened.
    ValueError
        It is not a zip archive, or a member is damaged; the message begins with the path.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a readable .npz file ({_first_line(error)})") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a damaged file makes zipfile seek to impossible places
            raise
        raise ValueError(f"{path}: not a readable .npz file ({_first_line(error)})") from None


def member_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in the archive, without the ``.npy`` suffix."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_member(archive: zipfile.ZipFile, key: str, max_bytes: int) -> NDArray[Any]:
    """Read the array `key` whole.

    Raises
    ------
    ValueError
        It is not an array, holds objects, declares more than `max_bytes`, or its data has another length than declared.
    """
    name = f"{archive.filename}: {key}"
    info = archive.getinfo(key + ".npy")
    if info.flag_bits & 1:
        raise ValueError(f"{name}: is encrypted")
    with archive.open(info) as stream:
        header = read_header(stream, name)
        if header.nbytes > max_bytes:
            raise ValueError(f"{name}: declares shape {header.shape} of {header.dtype}, more than {max_bytes} bytes")
        data = stream.read(header.nbytes + 1)
    if len(data) != header.nbytes:
        found = "more" if len(data) > header.nbytes else len(data)
        raise ValueError(f"{name}: declares {header.nbytes} bytes of data but has {found}")
    array = np.frombuffer(data, dtype=header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
