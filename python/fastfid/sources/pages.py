"""Sizes of the pages of a parquet file, from their headers. pyarrow allocates what a header declares.

Where the pages are is read from the file's footer. pyarrow's own access to it ends the process if the footer is damaged
in certain ways. Footer and page headers are structs in Thrift's compact protocol, and ``parquet.thrift`` of the Parquet
format has their fields.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["check_pages"]

# A page may be larger than this only if it is not compressed by more than this factor. Pictures hardly compress.
_MOST_BYTES = 2**26
_MOST_RATIO = 32

_UNCOMPRESSED, _COMPRESSED = 2, 3  # fields of a page header
# Fields on the way to a column of a group of rows, and of its description.
_ROW_GROUPS, _COLUMNS, _COLUMN = 4, 1, 3
_PATH, _TOTAL_COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = 3, 7, 9, 11
_MOST_FOOTER_BYTES = 2**28
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MOST_DEPTH = 16
_MOST_ELEMENTS = 2**20


def check_pages(file: BinaryIO, column: str) -> None:
    """Check the pages of a column, in every group of rows.

    Raises
    ------
    ValueError
        The footer or a page header is damaged, or a page would unpack to far more than it has.
    """
    size = file.seek(0, 2)
    for path, start, nbytes in list(_chunks(file)):
        if path != column.encode():
            continue
        if not 0 <= start <= size or nbytes < 0:
            raise ValueError(f"the column {column} has {nbytes} bytes at byte {start}")
        for at, unpacked, packed in _pages(file, start, min(start + nbytes, size)):
            if unpacked > max(_MOST_BYTES, _MOST_RATIO * packed):
                raise ValueError(f"the page at byte {at} declares {unpacked} bytes in {packed} compressed ones")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of the column, the place and the bytes of every column of every group of rows."""
    file.seek(-8, 2)
    nbytes = int.from_bytes(file.read(4), "little")
    if nbytes > min(_MOST_FOOTER_BYTES, file.tell() - 4):
        raise ValueError(f"the footer declares {nbytes} bytes")
    file.seek(-8 - nbytes, 2)
    footer = io.BytesIO(file.read(nbytes))
    for field, kind in _fields(footer):
        if field != _ROW_GROUPS or kind != _LIST:
            _skip(footer, kind, 0)
            continue
        for _ in range(_list_head(footer)[0]):
            for inner, inner_kind in _fields(footer):
                if inner != _COLUMNS or inner_kind != _LIST:
                    _skip(footer, inner_kind, 0)
                    continue
                for _ in range(_list_head(footer)[0]):
                    yield from _column(footer)


def _column(footer: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, place and bytes of one column of a group of rows, if they are described."""
    for field, kind in _fields(footer):
        if field != _COLUMN or kind != _STRUCT:
            _skip(footer, kind, 0)
            continue
        path = b""
        found: dict[int, int] = {}
        for inner, inner_kind in _fields(footer):
            if inner == _PATH and inner_kind == _LIST:
                names = [footer.read(_varint(footer)) for _ in range(_list_head(footer)[0])]
                path = names[0] if names else b""
            elif inner in (_TOTAL_COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE) and inner_kind == _I64:
                found[inner] = _zigzag(footer)
            else:
                _skip(footer, inner_kind, 0)
        places = [found[place] for place in (_DATA_PAGE, _DICTIONARY_PAGE) if place in found]
        if not places or _TOTAL_COMPRESSED not in found:
            raise ValueError(f"the footer does not say where the column {path.decode(errors='replace')} is")
        # Some writers leave the dictionary's place at 0, where the file's signature is.
        start = min(place for place in places if place > 0) if max(places) > 0 else max(places)
        yield path, start, found[_TOTAL_COMPRESSED]


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
        raise ValueError("a header goes beyond its end")
    return data[0]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a number in a header does not end")


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
        raise ValueError("a header nests too deep")
    if kind in (_I16, _I32, _I64):
        _varint(file)
    elif kind == _BYTE:
        _byte(file)
    elif kind == _DOUBLE:
        file.seek(8, 1)
    elif kind == _BINARY:
        file.seek(_varint(file), 1)  # statistics may contain whole pictures
    elif kind in (_LIST, _SET):
        n, inner = _list_head(file)
        _skip_elements(file, n, (inner,), depth)
    elif kind == _MAP:
        n = _varint(file)
        if n > _MOST_ELEMENTS:
            raise ValueError(f"a header has a map of {n} elements")
        if n:
            kinds = _byte(file)
            _skip_elements(file, n, (kinds >> 4, kinds & 15), depth)
    elif kind == _STRUCT:
        for _, inner in _fields(file):
            _skip(file, inner, depth + 1)
    elif kind not in (_TRUE, _FALSE):
        raise ValueError(f"a header has a value of the unknown type {kind}")


def _list_head(file: BinaryIO) -> tuple[int, int]:
    """Return number and type of the elements of a list."""
    head = _byte(file)
    n = head >> 4 if head >> 4 < 15 else _varint(file)
    if n > _MOST_ELEMENTS:
        raise ValueError(f"a header has a list of {n} elements")
    return n, head & 15


def _skip_elements(file: BinaryIO, n: int, kinds: tuple[int, ...], depth: int) -> None:
    for _ in range(n):
        for kind in kinds:
            if kind in (_TRUE, _FALSE):  # within a list, a boolean takes a byte
                _byte(file)
            else:
                _skip(file, kind, depth + 1)
