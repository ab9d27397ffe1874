"""Images on a CUDA device to their moments there: nothing visits the host, and nothing makes the host wait.

All work goes to one stream that the network owns, in the order in which it was asked for: ONNX Runtime ties a session
to one stream, and what lies between the layers is reused from run to run, so runs must not overlap. Streams of callers
are joined to it by events: the network's stream waits for the images, and the caller's waits until they have been
read. The caller's later work, a training step, say, then runs beside the network.

The network always runs on batches of one size, from buffers at fixed addresses: cuDNN chooses an algorithm, and with it
the order of its sums, for each size, so that this is what keeps the features of an image independent of how many come
at once. Images that do not fill a batch wait in its buffer.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.errors import BackendUnavailable
from fastfid.features.onnx import Network
from fastfid.sources.arrays import channels_last, expect_uint8

__all__ = ["CudaMemory", "DeviceBatch", "DeviceImages", "DeviceSide", "callers_stream", "device_of", "is_built"]

# DLPack's names of kinds of device: CUDA, and CUDA's managed memory.
_DLPACK_CUDA = (2, 13)


def is_built() -> bool:
    """Whether the extension has its CUDA part."""
    return hasattr(_core, "CudaStream")


def device_of(images: Any) -> str | None:
    """Return ``cuda:N`` for a tensor on a CUDA device, and None for anything else."""
    ask = getattr(images, "__dlpack_device__", None)
    if ask is None or isinstance(images, np.ndarray):
        return None
    kind, index = ask()
    return f"cuda:{int(index)}" if int(kind) in _DLPACK_CUDA else None


def callers_stream(images: Any, stream: Any = None) -> int | None:
    """Return the handle of the stream on which the caller works on `images`; None where it is not known.

    Parameters
    ----------
    images : tensor
        On a CUDA device.
    stream : optional
        A handle (int), or a stream object: one that speaks ``__cuda_stream__``, torch's or CuPy's. Default: the current
        stream of torch or CuPy, if the tensor is theirs.

    Raises
    ------
    TypeError
        `stream` is no stream.
    """
    if stream is None:
        package = type(images).__module__.partition(".")[0]
        if package == "torch":
            stream = sys.modules["torch"].cuda.current_stream(images.device)
        elif package == "cupy":
            stream = sys.modules["cupy"].cuda.get_current_stream()
        else:
            return None
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):  # (version of the protocol, handle)
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):  # torch, CuPy
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise TypeError(f"stream: expected a CUDA stream or its handle, got {type(stream).__name__}")


class DeviceImages:
    """A uint8 tensor (n, h, w, 3) or (n, 3, h, w) on a CUDA device, checked; it is viewed, not copied.

    Raises
    ------
    TypeError
        It is not uint8.
    ValueError
        It has another shape, or no images.
    """

    def __init__(self, tensor: Any, layout: Literal["nhwc", "nchw"] | None = None):
        self.name = "tensor"
        self.device = device_of(tensor)
        shape = tuple(int(length) for length in tensor.shape)
        if len(shape) != 4:
            raise ValueError(f"tensor: expected shape (n, h, w, 3) or (n, 3, h, w); got {shape}")
        self.is_last = channels_last(shape, layout, self.name)
        if shape[0] == 0:
            raise ValueError(f"tensor: has no images (shape {shape})")
        expect_uint8(tensor, self.name)
        self.tensor = tensor
        self.height, self.width = shape[1:3] if self.is_last else shape[2:]

    def __len__(self) -> int:
        return int(self.tensor.shape[0])


class Memory(Protocol):
    """What a batch and a side need of a device. :class:`CudaMemory` is the one there is; tests bring host memory."""

    def array(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array at a fixed place, of undefined values, with ``data``, ``shape`` and ``rows(start, stop)``."""

    def fill(self, array: Any, byte: int) -> None:
        """Set every byte of `array`."""

    def copy_from(self, array: Any, source: NDArray[Any]) -> None:
        """Copy a host array of the same shape and dtype into `array`."""

    def numpy(self, array: Any) -> NDArray[Any]:
        """Return a copy of `array` on the host."""

    def spatial_mean(self, map: Any, out: Any) -> None:
        """Put the mean over the last two axes of `map` into `out`, float32."""

    def preprocess(self, images: DeviceImages, start: int, protocol: str, out: Any) -> None:
        """Put the network inputs of the images from `start` on, as many as `out` has rows, into `out`."""

    def hold(self, caller: int | None) -> None:
        """Let the caller's stream wait until all images asked for have been read; the host, where it is unknown."""

    def moments(self, d: int) -> Any:
        """Return an empty accumulator of rows in this memory, with ``update(rows)`` and ``drain(moments)``."""


class DeviceBatch:
    """A batch of network inputs at a fixed place, and its way to features.

    Parameters
    ----------
    network : Network
        Whose device `memory` is on.
    memory : Memory
    shape : (n, h, w)
        Images in a run, and their size after the protocol's resize.

    Attributes
    ----------
    images : array (n, 3, h, w)
        The network's input, in its dtype. Rows that were never written are zero.
    features : array (n, dims)
        float32; what :meth:`run` makes of `images`.
    """

    def __init__(self, network: Network, memory: Memory, shape: tuple[int, int, int]):
        n, h, w = shape
        self._memory = memory
        self.images = memory.array((n, 3, h, w), network.dtype)
        memory.fill(self.images, 0)  # no NaN from stray bits in rows that are computed in vain
        self._map = memory.array(network.map_shape((n, 3, h, w)), network.dtype)
        self.features = memory.array((n, network.dims), "float32")
        self._run = network.bind(self.images.data, (n, 3, h, w), self._map.data)

    def run(self) -> None:
        """Compute the features of all rows; on a CUDA device, ask for it and do not wait."""
        self._run()
        self._memory.spatial_mean(self._map, self.features)


class DeviceSide:
    """One side of an FID while its images come as device tensors.

    Parameters
    ----------
    network : Network
    memory : Memory
    protocol : str
    batch_size : int
        Images in a run of the network.

    Notes
    -----
    Calls from several threads take turns. An error of the device leaves what was accumulated in doubt: it is raised,
    and the side is not to be used again.
    """

    def __init__(self, network: Network, memory: Memory, protocol: str, batch_size: int):
        self._network = network
        self._memory = memory
        self._protocol = protocol
        self._batch_size = batch_size
        self._batch: DeviceBatch | None = None
        self._size: tuple[int, int] | None = None
        self._waiting = 0  # rows of the batch that hold images without features
        self._moments = memory.moments(network.dims)
        self._lock = threading.Lock()

    def update(self, images: DeviceImages, caller: int | None) -> None:
        """Add images; `caller` is the stream on which their memory may be written or freed once this returns."""
        size = (images.height, images.width) if self._protocol == "none" else (299, 299)
        with self._lock:
            if size != self._size:
                self._flush()
                self._batch = DeviceBatch(self._network, self._memory, (self._batch_size, *size))
                self._size = size
            assert self._batch is not None
            start = 0
            while start < len(images):
                count = min(self._batch_size - self._waiting, len(images) - start)
                rows = self._batch.images.rows(self._waiting, self._waiting + count)
                self._memory.preprocess(images, start, self._protocol, rows)
                start += count
                self._waiting += count
                if start == len(images):
                    self._memory.hold(caller)  # before the last run: the images have been read by then
                if self._waiting == self._batch_size:
                    self._flush()

    def drain(self, moments: _core.Moments) -> None:
        """Add what was accumulated to `moments`, and begin anew; waits for the device."""
        with self._lock:
            self._flush()
            self._moments.drain(moments)

    def reset(self) -> None:
        """Forget all images."""
        with self._lock:
            self._waiting = 0
            self._moments = self._memory.moments(self._network.dims)

    def _flush(self) -> None:
        if self._batch is None or self._waiting == 0:
            return
        self._batch.run()
        self._moments.update(self._batch.features.rows(0, self._waiting))
        self._waiting = 0
