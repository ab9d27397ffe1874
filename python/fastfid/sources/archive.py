"""Pictures in zip and tar archives. Members are read where they are; nothing is ever extracted to a file."""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastfid._files import KnownFile, RandomAccessFile
from fastfid.errors import FastfidWarning, ImageError, SuspiciousInputWarning
from fastfid.sources.base import FailedItem, FileSource, ImageItem
from fastfid.sources.listing import PassedOver
from fastfid.sources.picture import Decoder, reason

__all__ = ["BytesItem", "TarSource", "ZipItem", "ZipSource"]


class ZipItem(ImageItem):
    """A member of a zip archive; zipfile lets several threads read one archive."""

    __slots__ = ("_archive", "_decoder", "_member")

    def __init__(self, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, decoder: Decoder):
        self.name = name
        self._archive = archive
        self._member = member
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Read and decode the member."""
        size = self._member.file_size
        if self._member.flag_bits & 1:
            raise ImageError(f"{self.name}: is encrypted")
        self._decoder.check_size(size, self.name)
        try:
            with self._archive.open(self._member) as stream:
                # A length, because read() of the rest would inflate everything before it looks at the declared size.
                data = stream.read(size + 1)
        except MemoryError:
            raise MemoryError(f"{self.name}: not enough memory to read it") from None
        except Exception as error:  # of many classes: zipfile trusts the headers it reads
            raise ImageError(f"{self.name}: cannot be read from the archive ({reason(error)})") from error
        if len(data) != size:
            raise ImageError(f"{self.name}: has {len(data)} bytes, the archive declares {size}")
        return self._decoder.decode_bytes(data, self.name)


class ZipSource(FileSource):
    """The pictures of a zip archive, at any depth, sorted by name as strings.

    Parameters
    ----------
    path : str
        The archive.
    decoder : Decoder
        How a picture becomes RGB.
    passed_over : PassedOver
        Decides what is a picture and counts the rest.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is not a zip archive.
    """

    def __init__(self, path: str, decoder: Decoder, passed_over: PassedOver):
        self.name = path
        self.notes = []
        self._decoder = decoder
        self._file = KnownFile(path)
        with self._file.open() as file, _listing(path, "zip archive"), zipfile.ZipFile(file) as archive:
            names = [
                member.filename
                for member in archive.infolist()
                if not member.filename.endswith("/") and passed_over.is_archived_picture(member.filename)
            ]
        names.sort()
        # Of members of one name zipfile gives the last.
        self._names = _last_of_each(names, names, self)

    def __len__(self) -> int:
        return len(self._names)

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the members."""
        return iter(self._names)

    def __iter__(self) -> Iterator[ImageItem]:
        # Opened again, and closed when the last item is gone.
        file = self._file.open_until_dropped()
        with _listing(self.name, "zip archive"):
            archive = zipfile.ZipFile(file)
        for name in self._names:
            yield ZipItem(f"{self.name}/{name}", archive, archive.getinfo(name), self._decoder)


_Member = TypeVar("_Member")


def _last_of_each(members: list[_Member], names: list[str], source: FileSource) -> list[_Member]:
    """Return the last member of each name, which is what unpacking leaves, and let the source say so if that drops any.

    `members` are sorted by name; those of one name are in the archive's order.
    """
    kept = [member for i, member in enumerate(members) if names[i] != (names[i + 1] if i + 1 < len(names) else None)]
    if len(kept) < len(members):
        source.notes.append(
            FastfidWarning(
                f"{source.name}: {len(members) - len(kept)} pictures are replaced by later ones of the same name in the"
                " archive, as when it is unpacked"
            )
        )
    return kept


class BytesItem(ImageItem):
    """An encoded picture in memory."""

    __slots__ = ("_data", "_decoder")

    def __init__(self, name: str, data: bytes, decoder: Decoder):
        self.name = name
        self._data = data
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Decode the bytes."""
        return self._decoder.decode_bytes(self._data, self.name)


class _TarItem(ImageItem):
    __slots__ = ("_decoder", "_file", "_offset", "_size")

    def __init__(self, name: str, file: RandomAccessFile, offset: int, size: int, decoder: Decoder):
        self.name = name
        self._file = file
        self._offset = offset
        self._size = size
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Read and decode the member."""
        self._decoder.check_size(self._size, self.name)
        data = self._file.read(self._offset, self._size)
        if len(data) != self._size:
            raise ImageError(f"{self.name}: has {len(data)} bytes, the archive declares {self._size}")
        return self._decoder.decode_bytes(data, self.name)


# Of a long name or an extended header; the longest path that systems allow is 4 KiB.
_MAX_HEADER_BYTES = 2**20
_CHUNK_BYTES = 2**20

_Opener = Callable[[IO[bytes]], IO[bytes]]
# Most bytes that a member may declare: what an int64 holds, with room for sums.
_MAX_MEMBER_BYTES = 2**62
_COMPRESSIONS: dict[bytes, _Opener] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # type: ignore[dict-item]


class TarSource(FileSource):
    """The pictures of a tar archive, at any depth; links, devices and pipes are counted and never followed.

    One pass over the headers finds the members. Of a plain archive they come sorted by name as strings; one compressed
    with gzip, bzip2 or xz can only be read from front to back, so they come in the archive's order.

    Parameters
    ----------
    path : str
        The archive.
    decoder : Decoder
        How a picture becomes RGB.
    passed_over : PassedOver
        Decides what is a picture and counts the rest.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is not a tar archive, or it is damaged.
    """

    def __init__(self, path: str, decoder: Decoder, passed_over: PassedOver):
        self.name = path
        self.notes = []
        self._decoder = decoder
        self._file = KnownFile(path)
        with self._file.open() as file:
            start = file.read(8)
        self._opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        members = [
            (member.name, member.offset_data, member.size)
            for member in self._walk()
            if _is_picture(member, passed_over)
        ]
        members.sort()
        members = _last_of_each(members, [name for name, _, _ in members], self)
        if self._opener is not None:
            members.sort(key=lambda member: member[1])
        # Shards may hold millions of images: 16 bytes beside each name, not three objects.
        self._names = [name for name, _, _ in members]
        self._offsets = np.array([offset for _, offset, _ in members], np.int64)
        self._sizes = np.array([size for _, _, size in members], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the members."""
        return iter(self._names)

    def __iter__(self) -> Iterator[ImageItem]:
        if self._opener is None:
            shared = RandomAccessFile(self._file)
            for name, offset, size in zip(self._names, self._offsets, self._sizes, strict=True):
                yield _TarItem(f"{self.name}/{name}", shared, int(offset), int(size), self._decoder)
            return
        with (
            self._file.open() as file,
            _listing(self.name, "tar archive"),
            self._opener(file) as stream,
        ):
            for name, offset, size in zip(self._names, self._offsets, self._sizes, strict=True):
                full_name = f"{self.name}/{name}"
                try:
                    self._decoder.check_size(int(size), full_name)
                except ImageError as error:
                    yield FailedItem(full_name, error)
                    continue
                stream.seek(int(offset))
                yield BytesItem(full_name, stream.read(int(size)), self._decoder)

    def _walk(self) -> Iterator[tarfile.TarInfo]:
        """Yield the headers of all members; ValueError where the archive is damaged."""
        with (
            self._file.open() as file,
            _listing(self.name, "tar archive"),
            (self._opener or contextlib.nullcontext)(file) as stream,
            tarfile.open(fileobj=_HeaderReader(stream), mode="r:") as archive,
        ):
            before = 0
            while (member := archive.next()) is not None:
                # Older Pythons follow a negative size backwards, for ever (CVE-2025-8194).
                if not 0 <= member.size <= _MAX_MEMBER_BYTES or not before < archive.offset <= _MAX_MEMBER_BYTES:
                    raise tarfile.ReadError(f"impossible size {member.size} of {member.name!r}")
                before = archive.offset
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                yield member
            # tarfile takes a damaged header for the end of the archive, and the rest would be lost without a word.
            stream.seek(archive.offset)
            end = stream.read(2 * tarfile.BLOCKSIZE)
            if any(end[: tarfile.BLOCKSIZE]):
                raise tarfile.ReadError(f"damaged header at byte {archive.offset}")
            if len(end) < 2 * tarfile.BLOCKSIZE:
                self.notes.append(
                    SuspiciousInputWarning(
                        f"{self.name}: has no end mark (two blocks of zeros); it may be cut short, and pictures missing"
                    )
                )
            rest = end
            while rest:
                if rest.strip(b"\0"):
                    raise tarfile.ReadError(
                        "more follows the end of the archive, as when archives are joined with cat: hand in the parts, "
                        "as a glob or a brace list"
                    )
                rest = stream.read(_CHUNK_BYTES)


class _HeaderReader(io.RawIOBase):
    """What tarfile reads headers from; no header is long, whatever it declares, so a bomb stays packed."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, nbytes: int = -1) -> bytes:
        if not 0 <= nbytes <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header declares {nbytes} bytes")
        return self._stream.read(nbytes)


def _is_picture(member: tarfile.TarInfo, passed_over: PassedOver) -> bool:
    if member.isdir():
        return False
    # The holes of a sparse member are not in the archive as zeros; no tool stores pictures so.
    if not member.isfile() or member.issparse():
        passed_over.links_and_devices += 1
        return False
    return passed_over.is_archived_picture(member.name)


@contextlib.contextmanager
def _listing(path: str, kind: str) -> Iterator[Any]:
    """Turn what the standard library raises for a damaged archive into a ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise MemoryError(f"{path}: not enough memory to read it") from None
    except Exception as error:  # of many classes: the parsers trust the headers they read
        # A number other than EINVAL (a seek to an impossible place) is the system's own, such as "permission denied".
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{path}: not a readable {kind} ({reason(error)})") from error
