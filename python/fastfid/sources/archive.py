"""Pictures in zip and tar archives. Members are read from the archive and never extracted to a file."""

import bz2
import contextlib
import errno
import functools
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

from fastfid._files import DamagedFile
from fastfid._remote import ReadsAt, known_file, random_access
from fastfid.errors import FastfidWarning, ImageError, SuspiciousInputWarning
from fastfid.sources.base import FailedItem, FileSource, Header, ImageItem, Labels
from fastfid.sources.labels import DATASET_JSON, from_dataset_json, largest_dataset_json
from fastfid.sources.listing import PassedOver
from fastfid.sources.picture import Decoder, reason
from fastfid.sources.samples import SampleLabels, Samples

__all__ = ["BytesItem", "TarSource", "ZipItem", "ZipSource", "reading_as"]


class ZipItem(ImageItem):
    """A member of a zip archive. zipfile allows several threads to read one archive."""

    __slots__ = ("_archive", "_decoder", "_member")

    def __init__(self, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, decoder: Decoder):
        self.name = name
        self._archive = archive
        self._member = member
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Read and decode the member."""
        return self._decoder.decode_bytes(self._data(), self.name)

    def header(self) -> Header:
        """Read the member."""
        return Header(*self._decoder.header_of_bytes(self._data(), self.name))

    def _data(self) -> bytes:
        size = self._member.file_size
        if self._member.flag_bits & 1:
            raise ImageError(f"{self.name}: is encrypted")
        self._decoder.check_size(size, self.name)
        try:
            with self._archive.open(self._member) as stream:
                # With a length, because read() without a length inflates everything before it checks the declared size.
                data = stream.read(size + 1)
        except MemoryError:
            raise MemoryError(f"{self.name}: not enough memory to read it") from None
        except Exception as error:  # many classes, because zipfile does not check the headers it reads
            raise ImageError(f"{self.name}: cannot be read from the archive ({reason(error)})") from error
        if len(data) != size:
            raise ImageError(f"{self.name}: has {len(data)} bytes, the archive declares {size}")
        return data


class ZipSource(FileSource):
    """The pictures of a zip archive, at any depth, sorted by name as strings.

    Parameters
    ----------
    path : str
        The archive.
    decoder : Decoder
        Converts pictures to RGB.
    passed_over : PassedOver
        Selects pictures and counts other entries.

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
        self._file = known_file(path)
        with self._file.open() as file, reading_as(path, "zip archive"), zipfile.ZipFile(file) as archive:
            names = [
                member.filename
                for member in archive.infolist()
                if not member.filename.endswith("/") and passed_over.is_archived_picture(member.filename)
            ]
        names.sort()
        # If several members have one name, zipfile reads the last.
        self._names = _last_of_each(names, names, self)

    def __len__(self) -> int:
        return len(self._names)

    def picture_names(self) -> Iterator[str]:
        """Yield the names of the members."""
        return iter(self._names)

    def own_labels(self) -> Labels | None:
        """Read ``dataset.json`` at the root of the archive."""
        path = f"{self.name}/{DATASET_JSON}"
        with self._file.open() as file, reading_as(self.name, "zip archive"), zipfile.ZipFile(file) as archive:
            if DATASET_JSON not in archive.namelist():
                return None
            size, most = archive.getinfo(DATASET_JSON).file_size, largest_dataset_json(len(self))
            if size <= most:
                with archive.open(DATASET_JSON) as stream:
                    data = stream.read(size + 1)
        if size > most:
            raise ValueError(f"{path}: has {size} bytes; at most {most} are read for {len(self)} images")
        return from_dataset_json(data, self._names, path, self)

    def __iter__(self) -> Iterator[ImageItem]:
        # The file is opened again, and closed when the last item is gone.
        file = self._file.open_until_dropped()
        with reading_as(self.name, "zip archive"):
            archive = zipfile.ZipFile(file)
        for name in self._names:
            yield ZipItem(f"{self.name}/{name}", archive, archive.getinfo(name), self._decoder)


_Member = TypeVar("_Member")


def _last_of_each(members: list[_Member], names: list[str], source: FileSource) -> list[_Member]:
    """Return the last member of each name, as unpacking does. If a member is dropped, add a note to the source.

    `members` are sorted by name. Members of one name are in the archive's order.
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

    def header(self) -> Header:
        """Read the header in the bytes."""
        return Header(*self._decoder.header_of_bytes(self._data, self.name))


class _TarItem(ImageItem):
    __slots__ = ("_decoder", "_file", "_offset", "_size")

    def __init__(self, name: str, file: ReadsAt, offset: int, size: int, decoder: Decoder):
        self.name = name
        self._file = file
        self._offset = offset
        self._size = size
        self._decoder = decoder

    def load(self) -> NDArray[np.uint8]:
        """Read and decode the member."""
        return self._decoder.decode_bytes(self._data(), self.name)

    def header(self) -> Header:
        """Read the member."""
        return Header(*self._decoder.header_of_bytes(self._data(), self.name))

    def _data(self) -> bytes:
        self._decoder.check_size(self._size, self.name)
        data = self._file.read(self._offset, self._size)
        if len(data) != self._size:
            raise ImageError(f"{self.name}: has {len(data)} bytes, the archive declares {self._size}")
        return data


# Limit of a long name or an extended header. The longest path that systems allow is 4 KiB.
_MAX_HEADER_BYTES = 2**20
_CHUNK_BYTES = 2**20

_Opener = Callable[[IO[bytes]], IO[bytes]]
# Limit of the size that a member may declare, and of its place: both fit into an int64.
_MAX_MEMBER_BYTES = 2**62
_COMPRESSIONS: dict[bytes, _Opener] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # type: ignore[dict-item]


class TarSource(FileSource):
    """The pictures of a tar archive, at any depth. Links, devices and pipes are counted and never followed.

    One pass over the headers finds the members. The pictures of an uncompressed archive are sorted by name as strings.
    An archive compressed with gzip, bzip2 or xz can only be read from front to back, so its pictures are in the
    archive's order.

    Parameters
    ----------
    path : str
        The archive.
    decoder : Decoder
        Converts pictures to RGB.
    passed_over : PassedOver
        Selects pictures and counts other entries.
    until_damage : bool
        Take the pictures before the first damaged header, and keep the error in `damage`.

    Attributes
    ----------
    damage : DamagedFile or None
        What ended the list of members, with `until_damage`.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is not a tar archive, or it is damaged.
    """

    def __init__(self, path: str, decoder: Decoder, passed_over: PassedOver, *, until_damage: bool = False):
        self.name = path
        self.notes = []
        self.damage: DamagedFile | None = None
        self._until_damage = until_damage
        self._decoder = decoder
        self._file = known_file(path)
        with self._file.open() as file, reading_as(path, "tar archive"):
            start = file.read(8)
        self._opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        self._has_end = True
        samples = Samples(passed_over)
        members = []
        for member, _ in self._members():
            if not samples.is_companion(member) and _is_picture(member, passed_over):
                samples.add_picture(member.name)
                members.append((member.name, member.offset_data, member.size))
        samples.end()
        if not self._has_end:
            self.notes.append(
                SuspiciousInputWarning(
                    f"{self.name}: has no end mark (two blocks of zeros); it may be cut short, and pictures missing"
                )
            )
        members.sort()
        members = _last_of_each(members, [name for name, _, _ in members], self)
        if self._opener is not None:
            members.sort(key=lambda member: member[1])
        # Shards may contain millions of images, so offset and size are stored in 16 bytes instead of Python objects.
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
            in_order = bool((self._offsets[1:] > self._offsets[:-1]).all())
            shared = random_access(self._file, in_order=in_order)
            for name, offset, size in zip(self._names, self._offsets, self._sizes, strict=True):
                yield _TarItem(f"{self.name}/{name}", shared, int(offset), int(size), self._decoder)
            return
        with (
            self._file.open() as file,
            reading_as(self.name, "tar archive"),
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

    def own_labels(self) -> Labels | None:
        """Read the ``.cls``, or the ``.json``, beside each picture, as in a WebDataset. None: there are none."""
        wanted = set(self._names)
        found = SampleLabels(self.name)
        for member, stream in self._members():
            if member.isfile() and not member.issparse():
                data = functools.partial(self._data, member, stream)
                found.add(member.name, member.size, data, is_picture=member.name in wanted)
        return found.labels(self._names)

    def _data(self, member: tarfile.TarInfo, stream: IO[bytes]) -> bytes:
        """Read the data of a member."""
        with reading_as(self.name, "tar archive"):
            stream.seek(member.offset_data)
            return stream.read(member.size)

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        """Yield what :meth:`_walk` yields, up to the first damage if this is asked for."""
        try:
            yield from self._walk()
        except DamagedFile as error:
            if not self._until_damage:
                raise
            self.damage = error

    def _walk(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        """Yield the headers of all members, and the stream that they lie in. ValueError if the archive is damaged.

        The caller may move the stream.
        """
        with (
            self._file.open() as file,
            reading_as(self.name, "tar archive"),
            (self._opener or contextlib.nullcontext)(file) as stream,
            tarfile.open(fileobj=_HeaderReader(stream), mode="r:") as archive,
        ):
            before = 0
            while (member := archive.next()) is not None:
                # Older Python versions loop for ever if a size is negative (CVE-2025-8194).
                if not 0 <= member.size <= _MAX_MEMBER_BYTES or not before < archive.offset <= _MAX_MEMBER_BYTES:
                    raise tarfile.ReadError(f"impossible size {member.size} of {member.name!r}")
                before = archive.offset
                archive.members = []  # type: ignore[attr-defined]  # the list would grow with every member
                yield member, stream
            # tarfile treats a damaged header as the end of the archive and would silently ignore the rest.
            stream.seek(archive.offset)
            end = stream.read(2 * tarfile.BLOCKSIZE)
            if any(end[: tarfile.BLOCKSIZE]):
                raise tarfile.ReadError(f"damaged header at byte {archive.offset}")
            if len(end) < 2 * tarfile.BLOCKSIZE:
                self._has_end = False
            rest = end
            while rest:
                if rest.strip(b"\0"):
                    raise tarfile.ReadError(
                        "more follows the end of the archive, as when archives are joined with cat: hand in the parts, "
                        "as a glob or a brace list"
                    )
                rest = stream.read(_CHUNK_BYTES)


class _HeaderReader(io.RawIOBase):
    """The stream from which tarfile reads headers. It refuses long headers, so a decompression bomb is not expanded."""

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
    # The holes of a sparse member are not stored as zeros. No tool stores pictures as sparse members.
    if not member.isfile() or member.issparse():
        passed_over.links_and_devices += 1
        return False
    return passed_over.is_archived_picture(member.name)


@contextlib.contextmanager
def reading_as(path: str, kind: str) -> Iterator[Any]:
    """Convert the exceptions of the standard library for a damaged archive into a ValueError that names the archive."""
    try:
        yield
    except MemoryError:
        raise MemoryError(f"{path}: not enough memory to read it") from None
    except Exception as error:  # many classes, because the parsers do not check the headers they read
        # An error number other than EINVAL (an invalid seek) comes from the system, such as "permission denied".
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedFile(f"{path}: not a readable {kind} ({reason(error)})") from error
