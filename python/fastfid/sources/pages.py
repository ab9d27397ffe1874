"""Sizes of the pages of a parquet file, from their headers. pyarrow allocates what a header declares.

A page header is a struct in Thrift's compact protocol: ``parquet.thrift`` of the Parquet format has its fields.
"""

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["check_pages"]

# A page may be larger than this only if it is not compressed by more than this factor. Pictures hardly compress.
_MOST_BYTES = 2**26
_MOST_RATIO = 32

_UNCOMPRESSED, _COMPRESSED = 2, 3  # fields of a page header
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MOST_DEPTH = 16
_MOST_ELEMENTS = 2**16


def check_pages(file: BinaryIO, start: int, nbytes: int) -> None:
    """Check the pages of one column of a group of rows, `nbytes` from `start` on.

    Raises
    ------
    ValueError
        A header is damaged, or a page would unpack to far more than it has.
    """
    for at, unpacked, packed in _pages(file, start, start + nbytes):
        if unpacked > max(_MOST_BYTES, _MOST_RATIO * packed):
            raise ValueError(f"the page at byte {at} declares {unpacked} bytes in {packed} compressed ones")


def _pages(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield place, unpacked size and packed size of each page."""
    last = file.seek(0, 2)
    at = start
    while at < end:
        file.seek(at)
        unpacked = packed = -1
        for field, kind in _fields(file):
            if field in (_UNCOMPRESSED, _COMPRESSED) and kind == _I32:
                size = _zigzag(file)
                if field == _UNCOMPRESSED:
                    unpacked = size
                else:
                    packed = size
            else:
                _skip(file, kind, 0)
        if unpacked < 0 or packed < 0:
            raise ValueError(f"the page header at byte {at} declares no size")
        yield at, unpacked, packed
        at = file.tell() + packed
        if at > last:
            raise ValueError(f"a page goes beyond the end of the file, to byte {at}")


def _byte(file: BinaryIO) -> int:
    data = file.read(1)
    if not data:
        raise ValueError("a page header goes beyond the end of the file")
    return data[0]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a number in a page header does not end")


def _zigzag(file: BinaryIO) -> int:
    value = _varint(file)
    return (value >> 1) ^ -(value & 1)


def _fields(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield number and type of each field of a struct. The caller reads or skips its value before the next."""
    field = 0
    while (head := _byte(file)) != 0:
        delta, kind = head >> 4, head & 15
        field = field + delta if delta else _zigzag(file)
        yield field, kind


def _skip(file: BinaryIO, kind: int, depth: int) -> None:
    """Skip a value."""
    if depth > _MOST_DEPTH:
        raise ValueError("a page header nests too deep")
    if kind in (_I16, _I32, _I64):
        _varint(file)
    elif kind == _BYTE:
        _byte(file)
    elif kind == _DOUBLE:
        file.seek(8, 1)
    elif kind == _BINARY:
        file.seek(_varint(file), 1)  # statistics may contain whole pictures
    elif kind in (_LIST, _SET):
        head = _byte(file)
        n = head >> 4 if head >> 4 < 15 else _varint(file)
        _skip_elements(file, n, (head & 15,), depth)
    elif kind == _MAP:
        n = _varint(file)
        if n:
            kinds = _byte(file)
            _skip_elements(file, n, (kinds >> 4, kinds & 15), depth)
    elif kind == _STRUCT:
        for _, inner in _fields(file):
            _skip(file, inner, depth + 1)
    elif kind not in (_TRUE, _FALSE):
        raise ValueError(f"a page header has a value of the unknown type {kind}")


def _skip_elements(file: BinaryIO, n: int, kinds: tuple[int, ...], depth: int) -> None:
    if n > _MOST_ELEMENTS:
        raise ValueError(f"a page header has a list of {n} elements")
    for _ in range(n):
        for kind in kinds:
            if kind in (_TRUE, _FALSE):  # within a list, a boolean takes a byte
                _byte(file)
            else:
                _skip(file, kind, depth + 1)
