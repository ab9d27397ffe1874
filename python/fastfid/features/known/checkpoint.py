"""The tensors of a checkpoint: a safetensors file, or a state dict as torch saves it. No code of the file is run."""

import json
import math
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastfid._files import open_regular
from fastfid.errors import WeightsError
from fastfid.features.weights.state_dict import StoredTensor
from fastfid.features.weights.torch_file import ZIP, Content, legacy_state, torch_members, zip_state

__all__ = ["Checkpoint", "read_checkpoint"]

# What the formats call the types of numbers that become float32 without a loss.
_FLOATS = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
}
# Keys under which training scripts keep the state dict, beside an optimiser or a number of epochs.
_INNER = ("model", "state_dict")
_MOST_HEADER_BYTES = 100_000_000  # of a safetensors file; the format's own limit


@dataclass(frozen=True)
class _Stored:
    """A tensor in the file: its numbers are read when they are asked for."""

    shape: tuple[int, ...]
    dtype: str
    data: Callable[[], memoryview]


class Checkpoint(Mapping[str, NDArray[np.float32]]):
    """The tensors of a file by their names; each is read, as float32, when it is asked for.

    A tensor that cannot be had as float32 without a loss raises ValueError, which names the file and the tensor.
    """

    def __init__(self, path: str, tensors: Mapping[str, _Stored]):
        self.path = path
        self._tensors = tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._tensors[name].shape

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        stored = self._tensors[name]
        try:
            return _float32(stored)
        except WeightsError as error:
            raise ValueError(f"{self.path}: {name}: {error}") from None


def _float32(stored: _Stored) -> NDArray[np.float32]:
    kind = _FLOATS.get(stored.dtype)
    if kind is None:
        raise WeightsError(f"expected float32, float16 or bfloat16, got {stored.dtype}: save it in one of these")
    data, size = stored.data(), 4 if kind == "<f4" else 2
    count = math.prod(stored.shape)
    if len(data) < count * size:
        raise WeightsError(f"a tensor of shape {stored.shape} does not fit its {len(data)} bytes")
    if kind == "bfloat16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2", count).astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(stored.shape)
    array: NDArray[np.float32] = np.frombuffer(data, kind, count).astype(np.float32, copy=False).reshape(stored.shape)
    return array


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is neither a safetensors file nor a state dict of torch, or it is damaged; TorchScript and pickles of whole
        modules, which carry code, are refused. The message names the file.
    """
    name = os.fspath(path)
    with open_regular(path) as stream:
        try:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ValueError(f"{name}: expected a checkpoint, got an empty file") from None
        try:
            tensors = _safetensors(content) if _is_safetensors(content) else _torch(stream, content)
        except WeightsError as error:
            raise ValueError(f"{name}: {error.args[0]}") from None
        except Exception as error:
            # A damaged or hostile file can make the zip, pickle, json and struct modules raise almost anything.
            raise ValueError(
                f"{name}: expected a safetensors file or a state dict that torch saved: {type(error).__name__}: {error}"
            ) from None
    if not tensors:
        raise ValueError(f"{name}: has no tensors: expected a state dict, the names and tensors of one network")
    return Checkpoint(name, tensors)


def _is_safetensors(content: Content) -> bool:
    return len(content) > 8 and content[8:9] == b"{"


def _safetensors(content: Content) -> dict[str, _Stored]:
    """Read the header: its length in 8 bytes, then JSON with type, shape and place of each tensor."""
    length = int.from_bytes(content[:8], "little")
    if length > min(_MOST_HEADER_BYTES, len(content) - 8):
        raise WeightsError(f"it is cut off: a safetensors header of {length} bytes, in a file of {len(content)}")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise WeightsError("expected a JSON object as the header of a safetensors file")
    header.pop("__metadata__", None)
    data = memoryview(content)[8 + length :]
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not _all_counts((begin, end, *shape)) or not begin <= end <= len(data):
            raise WeightsError(f"{name}: lies outside of the file, or has no shape: {entry}")
        found[name] = _Stored(shape, str(entry["dtype"]), _constant(data[begin:end]))
    return found


def _all_counts(numbers: tuple[object, ...]) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _constant(data: memoryview) -> Callable[[], memoryview]:
    return lambda: data


def _torch(stream: BinaryIO, content: Content) -> dict[str, _Stored]:
    """Read the pickle of a state dict, in torch's format of today or of before 1.6."""
    if content[:4] == ZIP:
        with zipfile.ZipFile(stream) as archive:
            members = {info.filename: info for info in archive.infolist()}
        prefix, is_script = torch_members(members, "it is a zip file, but none that torch saved")
        if is_script:
            raise WeightsError(
                "it is a TorchScript archive, which carries code: expected a state dict. In Python:"
                " torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)"
            )
        state, storage_bytes = zip_state(content, members, prefix)
    else:
        state, storage_bytes = legacy_state(content)
    if not isinstance(state, dict):
        raise WeightsError(f"expected a state dict, got {type(state).__name__}")
    inner = [key for key in _INNER if isinstance(state.get(key), dict)]
    if len(inner) == 1 and not any(isinstance(value, StoredTensor) for value in state.values()):
        state = state[inner[0]]
    if not all(isinstance(name, str) for name in state):
        raise WeightsError("expected a state dict, whose keys are names")
    return {name: _stored(value, storage_bytes) for name, value in state.items() if isinstance(value, StoredTensor)}


def _stored(tensor: StoredTensor, storage_bytes: Callable[[str], memoryview]) -> _Stored:
    kind = _FLOATS.get(tensor.storage.dtype)
    size = 4 if kind == "<f4" else 2
    contiguous = tuple(math.prod(tensor.size[i + 1 :]) for i in range(len(tensor.size)))
    is_contiguous = len(tensor.stride) == len(tensor.size) and all(
        length == 1 or a == b for length, a, b in zip(tensor.size, tensor.stride, contiguous, strict=True)
    )

    def data() -> memoryview:
        if not is_contiguous or tensor.offset < 0 or not _all_counts(tensor.size):
            raise WeightsError(f"expected a contiguous tensor, got shape {tensor.size} and strides {tensor.stride}")
        return storage_bytes(tensor.storage.key)[size * tensor.offset :]

    return _Stored(tensor.size, tensor.storage.dtype, data)
