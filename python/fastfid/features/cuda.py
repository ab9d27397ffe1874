"""Images on a CUDA device to their moments there: nothing visits the host, and nothing makes the host wait.

All work goes to one stream that the network owns, in the order in which it was asked for: ONNX Runtime ties a session
to one stream, and what lies between the layers is reused from run to run, so runs must not overlap. Streams of callers
are joined to it by events: the network's stream waits for the images, and the caller's waits until they have been
read. The caller's later work, a training step, say, then runs beside the network.

The network always runs on batches of one size, from buffers at fixed addresses: cuDNN chooses an algorithm, and with it
the order of its sums, for each size, so that this is what keeps the features of an image independent of how many come
at once. Images that do not fill a batch wait in its buffer.
"""

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from fastfid import _core
from fastfid.errors import BackendUnavailable
from fastfid.features.onnx import Network
from fastfid.sources.device import DeviceImages

__all__ = ["CudaMemory", "DeviceBatch", "DeviceSide", "Memory", "expect_device", "features_of", "input_size"]


def expect_device(device: str, own: str) -> None:
    """Raise ValueError unless a tensor on `device` (``cuda:N``) is where the network runs."""
    if device != own:
        raise ValueError(
            f"images: expected a tensor on {own}, where the network runs, or images on the host; got one on {device}."
            f" Pass images.cpu(), or device={device!r}"
        )


def input_size(images: DeviceImages, protocol: str) -> tuple[int, int]:
    """Return height and width of what the network gets."""
    return (images.height, images.width) if protocol == "none" else (299, 299)


class Memory(Protocol):
    """What a batch and a side need of a device. :class:`CudaMemory` is the one there is; tests bring host memory."""

    def array(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array at a fixed place, of undefined values, with ``data``, ``shape`` and ``rows(start, stop)``."""

    def fill(self, array: Any, byte: int) -> None:
        """Set every byte of `array`."""

    def copy_from(self, array: Any, source: NDArray[Any]) -> None:
        """Copy a host array of the same shape and dtype into `array`."""

    def copy(self, array: Any, source: Any) -> None:
        """Copy one array of this memory into another of the same shape and dtype."""

    def numpy(self, array: Any) -> NDArray[Any]:
        """Return a copy of `array` on the host."""

    def spatial_mean(self, map: Any, out: Any) -> None:
        """Put the mean over the last two axes of `map` into `out`, float32."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what asks for the same again, with less of the host's time; `work` itself is called, but not done."""

    def wait_for(self, caller: int) -> None:
        """Let all that is asked for from now on wait for what the caller's stream has been given so far."""

    def preprocess(self, images: DeviceImages, start: int, protocol: str, out: Any) -> None:
        """Put the network inputs of the images from `start` on, as many as `out` has rows, into `out`."""

    def hold(self, caller: int | None) -> None:
        """Let the caller's stream wait until all images asked for have been read; the host, where it is unknown."""

    def moments(self, d: int) -> Any:
        """Return an empty accumulator of rows in this memory: ``update(rows)``, ``to_host()``, ``on_device``."""


class CudaMemory:
    """The memory of one CUDA device, and the stream of all work on it.

    Parameters
    ----------
    index : int
        The device.

    Raises
    ------
    fastfid.BackendUnavailable
        There is no such device, it is older than compute capability 8.0, or fastfid was built without CUDA.
    """

    def __init__(self, index: int):
        if not hasattr(_core, "CudaStream"):
            raise BackendUnavailable(f"fastfid's own CUDA part is {_core.build_info()['cuda']}")
        self.index = index
        self.stream = _core.CudaStream(index)
        self._preprocessors: dict[str, Any] = {}

    def array(self, shape: tuple[int, ...], dtype: str) -> "_core.CudaArray":
        """Return an array of undefined values."""
        return _core.CudaArray(shape, dtype, self.stream)

    def fill(self, array: "_core.CudaArray", byte: int) -> None:
        """Set every byte of `array`."""
        array.fill_bytes(byte)

    def copy_from(self, array: "_core.CudaArray", source: NDArray[Any]) -> None:
        """Copy a host array into `array`; waits."""
        array.copy_from(source)

    def copy(self, array: "_core.CudaArray", source: "_core.CudaArray") -> None:
        """Copy one array into another."""
        array.copy_on_device(source)

    def numpy(self, array: "_core.CudaArray") -> NDArray[Any]:
        """Return a copy on the host; waits."""
        return array.numpy()

    def spatial_mean(self, map: "_core.CudaArray", out: "_core.CudaArray") -> None:
        """Put the mean over the last two axes of `map` into `out`."""
        _core.cuda_spatial_mean(map, out)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the launch of a CUDA graph of what `work` gives to the stream."""
        return _core.CudaGraph(self.stream, work).launch

    def wait_for(self, caller: int) -> None:
        """Let all that is asked for from now on wait for what the stream `caller` has been given so far."""
        self.stream.wait_for(caller)

    def preprocess(self, images: DeviceImages, start: int, protocol: str, out: "_core.CudaArray") -> None:
        """Put the network inputs of ``out.shape[0]`` images, from `start` on, into `out`."""
        preprocessor = self._preprocessors.get(protocol)
        if preprocessor is None:
            preprocessor = self._preprocessors[protocol] = _core.CudaPreprocessor(protocol, self.index)
        # The tensor as a whole: a slice of it may be a copy (JAX), whose memory would be free before it has been read.
        preprocessor.run(images.tensor, out, channels_last=images.channels_last, stream=self.stream.handle, start=start)

    def hold(self, caller: int | None) -> None:
        """Let the caller's stream wait for what has been asked for so far; the host, where it is unknown."""
        if caller is None:
            self.stream.synchronize()
        else:
            self.stream.hold(caller)

    def moments(self, d: int) -> "_Moments":
        """Return an empty accumulator of rows."""
        # In float64 on every card: rows on the host are summed so, and a FID does not depend on where they are. That is
        # slow on workstation cards, but the network before it is slower.
        return _Moments(_core.DeviceMoments(d, device=self.index, arithmetic="float64"), self.stream.handle)


class _Moments:
    """The device's accumulator, used on one stream."""

    def __init__(self, moments: "_core.DeviceMoments", stream: int):
        self.on_device = moments
        self._stream = stream

    def update(self, rows: "_core.CudaArray") -> None:
        self.on_device.update(rows, stream=self._stream)

    def to_host(self) -> _core.Moments:
        return self.on_device.to_host()


class DeviceBatch:
    """A batch of network inputs at a fixed place, and its way to features.

    Parameters
    ----------
    network : Network
        Whose device `memory` is on.
    memory : Memory
    shape : (n, h, w)
        Images in a run, and their size after the protocol's resize.

    Notes
    -----
    Of a network with ``cuda_graph`` the third run and later ones are replayed. The first two are not: in the first
    cuDNN chooses its algorithms and ONNX Runtime takes memory, which a recording must not, and the second shows that
    this is over.

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
        self._network_run = network.bind(self.images.data, (n, 3, h, w), self._map.data)
        self._replay: Callable[[], None] | None = None
        self._runs_to_recording = 2 if network.cuda_graph else None

    def run(self) -> None:
        """Compute the features of all rows; on a CUDA device, ask for it and do not wait."""
        if self._runs_to_recording == 0:
            self._replay = self._memory.record(self._run_anew)
            self._runs_to_recording = None
        elif self._runs_to_recording is not None:
            self._runs_to_recording -= 1
        if self._replay is not None:
            self._replay()
        else:
            self._run_anew()

    def _run_anew(self) -> None:
        self._network_run()
        self._memory.spatial_mean(self._map, self.features)


def features_of(
    images: DeviceImages, caller: int | None, batch: DeviceBatch, memory: Memory, protocol: str, dims: int
) -> Any:
    """Return the features (n, dims) of images as an array in `memory`; see :meth:`FeatureExtractor.device_features`.

    The network's lock is held.
    """
    features = memory.array((len(images), dims), "float32")
    if caller is not None:
        memory.wait_for(caller)
    rows = batch.images.shape[0]
    for start in range(0, len(images), rows):
        stop = min(start + rows, len(images))
        memory.preprocess(images, start, protocol, batch.images.rows(0, stop - start))
        if stop == len(images):
            memory.hold(caller)  # before the last run: the images have been read by then
        batch.run()
        memory.copy(features.rows(start, stop), batch.features.rows(0, stop - start))
    return features


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
    Calls from several threads take turns, also with those of other sides of the same network: its runs must not
    overlap. An error of the device leaves what was accumulated in doubt: it is raised, and the side is not to be used
    again.
    """

    def __init__(self, network: Network, memory: Memory, protocol: str, batch_size: int):
        self._network = network
        self._memory = memory
        self._protocol = protocol
        self._batch_size = batch_size
        self._batch: DeviceBatch | None = None
        self._size: tuple[int, int] | None = None
        self._waiting = 0  # rows of the batch that hold images without features
        self.n = 0  # images so far
        self._moments = memory.moments(network.dims)

    def update(self, images: DeviceImages, caller: int | None) -> None:
        """Add images; `caller` is the stream on which they are made, and may be overwritten once this returns.

        Where it is None, the images are what their ``__dlpack__`` says they are, and the host waits until they have
        been read.

        Raises
        ------
        ValueError
            They are on another device than the network.
        """
        expect_device(images.device, self._network.device)
        size = input_size(images, self._protocol)
        with self._network.lock:
            if size != self._size:
                self._flush()
                self._batch = DeviceBatch(self._network, self._memory, (self._batch_size, *size))
                self._size = size
            assert self._batch is not None
            if caller is not None:
                self._memory.wait_for(caller)
            start = 0
            while start < len(images):
                count = min(self._batch_size - self._waiting, len(images) - start)
                rows = self._batch.images.rows(self._waiting, self._waiting + count)
                self._memory.preprocess(images, start, self._protocol, rows)
                start += count
                self._waiting += count
                self.n += count
                if start == len(images):
                    self._memory.hold(caller)  # before the last run: the images have been read by then
                if self._waiting == self._batch_size:
                    self._flush()

    def to_host(self) -> _core.Moments:
        """Return the moments of all images so far; waits for the device. More may follow."""
        with self._network.lock:
            self._flush()
            on_device = self._moments
        moments: _core.Moments = on_device.to_host()  # waits: others may go on
        return moments

    @property
    def device(self) -> str:
        """Where the images come, ``cuda:N``."""
        return self._network.device

    def on_device(self) -> "_core.DeviceMoments":
        """Return the moments of all images so far where they are, without waiting. Later images change them too."""
        with self._network.lock:
            self._flush()
            moments: _core.DeviceMoments = self._moments.on_device
            return moments

    def reset(self) -> None:
        """Forget all images."""
        with self._network.lock:
            self._waiting = self.n = 0
            self._moments = self._memory.moments(self._network.dims)

    def _flush(self) -> None:
        if self._batch is None or self._waiting == 0:
            return
        self._batch.run()
        self._moments.update(self._batch.features.rows(0, self._waiting))
        self._waiting = 0
