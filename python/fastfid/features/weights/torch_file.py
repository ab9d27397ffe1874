"""torch's files of tensors, in both of its formats: what their pickle holds, and the bytes of each storage."""

import io
import mmap
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from fastfid.errors import WeightsError
from fastfid.features.weights.state_dict import StoredTensor, unpickle

__all__ = ["ZIP", "Content", "State", "legacy_state", "stored_member", "torch_members", "zip_state"]

Content = bytes | mmap.mmap  # of a whole file
ZIP = b"PK\x03\x04"  # how a zip file begins
# What a state dict's pickle holds, and a function that finds the bytes of a storage by its name.
State = tuple[Any, Callable[[str], memoryview]]


def stored_member(content: Content, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed zip member without copying them."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(f"{info.filename}: expected an uncompressed member, as torch writes")
    begin = info.header_offset + 30
    if 30 <= begin <= len(content):
        begin += sum(struct.unpack_from("<HH", content, begin - 4))  # the lengths of its name and of the extra field
    end = begin + info.file_size
    if begin < 30 or end > len(content):
        raise WeightsError(f"{info.filename}: lies outside of the file, which is cut off or damaged")
    return memoryview(content)[begin:end]


def zip_state(content: Content, members: dict[str, zipfile.ZipInfo], prefix: str) -> State:
    """Unpickle a state dict saved by torch 1.6 and later."""
    byteorder = members.get(f"{prefix}/byteorder")
    if byteorder is not None and bytes(stored_member(content, byteorder)) != b"little":
        raise WeightsError("expected little-endian tensors")

    def storage_bytes(key: str) -> memoryview:
        try:
            return stored_member(content, members[f"{prefix}/data/{key}"])
        except KeyError:
            raise WeightsError(f"storage {key!r} is missing") from None

    state = unpickle(io.BytesIO(stored_member(content, members[f"{prefix}/data.pkl"])))
    return state, storage_bytes


def legacy_state(content: Content) -> State:
    """Unpickle a state dict saved by torch before 1.6: five pickles, then each storage as its length and its bytes."""
    file = io.BytesIO(content)
    magic = unpickle(file)
    if magic != 0x1950A86A20F9469CFC6C:
        raise WeightsError("expected torch's magic number")
    version = unpickle(file)
    system = unpickle(file)
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("expected a little-endian file of torch's format 1001")
    state = unpickle(file)
    keys = unpickle(file)
    if not isinstance(state, dict) or not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise WeightsError("expected a state dict and the names of its storages")
    dtypes = {t.storage.key: t.storage.dtype for t in state.values() if isinstance(t, StoredTensor)}
    item_sizes = {"FloatStorage": 4, "LongStorage": 8}  # LongStorage: batch norm's count of batches
    position = file.tell()
    storages = {}
    for key in keys:
        item_size = item_sizes.get(dtypes.get(key, ""))
        if item_size is None:
            raise WeightsError(f"storage {key!r}: expected FloatStorage or LongStorage, got {dtypes.get(key)}")
        (count,) = struct.unpack_from("<q", content, position)
        begin, end = position + 8, position + 8 + item_size * count
        if count < 0 or end > len(content):
            raise WeightsError(f"storage {key!r} is cut off")
        storages[key] = memoryview(content)[begin:end]
        position = end
    return state, storages.__getitem__


def torch_members(members: dict[str, zipfile.ZipInfo], otherwise: str) -> tuple[str, bool]:
    """Return the folder inside a torch file, and whether the file is a TorchScript archive.

    Raises
    ------
    fastfid.WeightsError
        It is no torch file; the message is `otherwise`.
    """
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(otherwise)
    prefix = pickles[0].removesuffix("/data.pkl")
    return prefix, any(name.startswith(f"{prefix}/code/") for name in members)
