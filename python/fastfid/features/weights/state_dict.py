"""Reads the pickle of a torch state dict, and runs no code of it.

Only tensor values are read: a pickle's operations are looked at before any is carried out, and the unpickler knows
ordered dictionaries, tensors and storages and refuses everything else.
"""

import functools
import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import WeightsError
from fastfid.features.weights.known import convolutions

__all__ = ["StoredTensor", "float32_array", "read_state_dict", "read_tensor", "unpickle"]


def float32_array(data: memoryview | bytes, shape: tuple[int, ...], offset: int = 0) -> NDArray[np.float32]:
    """View little-endian float32 `data` as an array; WeightsError where it is too short."""
    count = math.prod(shape)
    if offset < 0 or min(shape, default=1) < 0 or (offset + count) * 4 > len(data):
        raise WeightsError(
            f"a tensor of shape {shape} at offset {offset} does not fit its storage of {len(data)} bytes"
        )
    array = np.frombuffer(data, dtype="<f4", count=count, offset=4 * offset).reshape(shape)
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class _Storage:
    """What a state dict's pickle says of a storage; the bytes come from elsewhere in the file."""

    key: str
    dtype: str


class _StorageType:
    """Stands for torch.FloatStorage and its kind; the pickle only ever uses it as a label."""

    def __init__(self, name: str):
        self.name = name


@dataclass(frozen=True)
class StoredTensor:
    """What a state dict's pickle says of a tensor."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    for numbers in ((offset,), size, stride):
        if not isinstance(numbers, tuple) or any(type(number) is not int for number in numbers):
            raise pickle.UnpicklingError("a tensor whose offset, size or stride are no integers")
    return StoredTensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


# What the pickle of a state dict is written with, in protocols 2 and 4.
_OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    )
)
# A state dict of these weights has about 20,000 operations, nests 5 deep, and its values have 400,000 characters and
# elements in all, those of a value counted again in each value around it.
_MAX_OPERATIONS = 500_000
_MAX_NESTING = 50
_MAX_SIZE = 20_000_000


@dataclass(frozen=True)
class _Extent:
    """How deep a value nests, and how many elements and characters it has; what it holds twice counts twice."""

    depth: int
    size: int


class _Scan:
    """Carries out a pickle's operations on the extents of its values."""

    def __init__(self) -> None:
        self._stack: list[_Extent | None] = []  # None: a mark
        self._memo: dict[int, _Extent] = {}
        self._total = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Carry out one operation; UnpicklingError where no state dict has it."""
        if opcode.name == "MARK":
            self._stack.append(None)
        elif opcode.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._remember(argument)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise pickle.UnpicklingError(f"there is no memo entry {argument}")
            self._push(self._memo[argument])
        else:
            taken = self._take(opcode)
            own = len(argument) if isinstance(argument, str | bytes) else 1
            extent = _Extent(
                max((value.depth for value in taken), default=-1) + 1, own + sum(value.size for value in taken)
            )
            for _ in opcode.stack_after:
                self._push(extent)

    def _push(self, extent: _Extent) -> None:
        self._total += extent.size
        if extent.depth > _MAX_NESTING or self._total > _MAX_SIZE:
            raise pickle.UnpicklingError("it nests too deep, or its values are too large for a state dict")
        self._stack.append(extent)

    def _remember(self, index: int | None) -> None:
        """Keep the last value in the memo; pickles number its entries in order, from 0 or from 1."""
        last = self._stack[-1] if self._stack else None
        if index is None:
            index = len(self._memo)
        if last is None or index in self._memo or index > len(self._memo) + 1:
            raise pickle.UnpicklingError(f"memo entry {index} does not follow {len(self._memo)} others")
        self._memo[index] = last

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[_Extent]:
        """Remove what the operation takes from the stack, and return it."""
        taken: list[_Extent | None] = []
        single = len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:  # everything down to the mark, and what stands before it
            single = opcode.stack_before.index(pickletools.markobject)
            while self._stack and self._stack[-1] is not None:
                taken.append(self._stack.pop())
            if not self._stack:
                raise pickle.UnpicklingError("a mark is missing")
            self._stack.pop()
        if len(self._stack) < single:
            raise pickle.UnpicklingError("its stack is empty")
        taken += [self._stack.pop() for _ in range(single)]
        values = [value for value in taken if value is not None]
        if len(values) < len(taken):
            raise pickle.UnpicklingError("a mark stands where a value is needed")
        return values


def _scanned(file: io.BytesIO) -> io.BytesIO:
    """Read one pickle, and look at its operations before any is carried out.

    The unpickler takes memory for whatever index a memo entry names; C code that hashes or prints a tuple goes through
    all tuples inside it, however often one is shared and however deep they nest; a short pickle can hold one long text
    a thousand times. These are bounded here: memo entries follow each other, nesting is shallow, and the values' sizes
    are added up as if nothing were shared.

    Raises
    ------
    pickle.UnpicklingError
        It is not written as a state dict is.
    """
    begin = file.tell()
    scan = _Scan()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name not in _OPCODES or count >= _MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"no state dict: operation {opcode.name} in place {count}")
        scan.step(opcode, argument)
    return io.BytesIO(file.getbuffer()[begin : file.tell()])


class _StateDictUnpickler(pickle.Unpickler):
    """Reads the pickle of a torch state dict: ordered dictionaries, tensors and storages, and nothing else.

    ``find_class`` is the only door through which a pickle reaches code. Behind it there are `OrderedDict`, two
    functions of this file that build a record, and labels; whatever else is asked for is refused before it is called.
    """

    _ALLOWED: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED:
            return self._ALLOWED[module, name]
        if module == "torch" and name.endswith("Storage") and name.removesuffix("Storage").isalnum():
            return _StorageType(name)
        raise WeightsError(f"refused: its pickle asks for {module}.{name}, and a state dict needs tensors only")

    def persistent_load(self, pid: Any) -> _Storage:
        is_storage = isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"
        if not is_storage or not isinstance(pid[1], _StorageType) or not isinstance(pid[2], str):
            raise pickle.UnpicklingError("a persistent id that names no storage")
        return _Storage(pid[2], pid[1].name)


def unpickle(file: io.BytesIO) -> Any:
    """Read one pickle of a state dict from the file's position."""
    return _StateDictUnpickler(_scanned(file)).load()


def read_tensor(
    state: dict[str, Any], storage_bytes: Callable[[str], memoryview], name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """View one tensor of an unpickled state dict; WeightsError unless it is float32, contiguous and of that shape."""
    found = state.get(name)
    if not isinstance(found, StoredTensor):
        raise WeightsError(f"{name}: not in its state dict")
    if found.storage.dtype != "FloatStorage" or found.size != shape:
        raise WeightsError(
            f"{name}: expected float32 (torch.FloatStorage) {shape}, got torch.{found.storage.dtype} {found.size}"
        )
    contiguous = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    if any(size > 1 and a != b for size, a, b in zip(shape, found.stride, contiguous, strict=True)):
        raise WeightsError(f"{name}: expected a contiguous tensor, got strides {found.stride}")
    return float32_array(storage_bytes(found.storage.key), shape, found.offset)


def read_state_dict(state: Any, storage_bytes: Callable[[str], memoryview]) -> list[NDArray[np.float32]]:
    """Pick the 376 tensors out of an unpickled state dict with torchvision's names."""
    if not isinstance(state, dict):
        raise WeightsError(f"expected a state dict, got {type(state).__name__}")
    tensor = functools.partial(read_tensor, state, storage_bytes)
    tensors = []
    for name, shape, _ in convolutions():
        channels = shape[:1]
        tensors.append(tensor(f"{name}.conv.weight", shape))
        tensors.extend(tensor(f"{name}.bn.{part}", channels) for part in ("bias", "running_mean", "running_var"))
        # Google's graph has no gamma. A file that scales by one is not these weights, whatever the other tensors are.
        if f"{name}.bn.weight" in state and not np.all(tensor(f"{name}.bn.weight", channels) == 1):
            raise WeightsError(f"{name}.bn.weight: expected ones (the FID network has no gamma)")
    return tensors
