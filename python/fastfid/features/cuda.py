"""The network on a CUDA device, from images there to features there: nothing visits the host or makes it wait.

All work goes to one stream that the network owns, in the order in which it was asked for: ONNX Runtime ties a session
to one stream, and what lies between the layers is reused from run to run, so runs must not overlap. Streams of callers
are joined to it by events: the network's stream waits for the images, and the caller's waits until they have been
read. The caller's later work, a training step, say, then runs beside the network.

The network always runs on batches of one size, from buffers at fixed addresses: cuDNN chooses an algorithm, and with it
the order of its sums, for each size, so that this is what keeps the features of an image independent of how many come
at once. Images that do not fill a batch wait in its buffer.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.errors import BackendUnavailable
from fastfid.extractor import FEATURES, SPATIAL
from fastfid.features.inception_network import InceptionNetwork
from fastfid.sources.device import DeviceImages

__all__ = ["CudaBatch", "CudaMemory", "CudaNetwork", "Memory"]


class Memory(Protocol):
    """What a batch needs of a device. :class:`CudaMemory` is the one there is; tests bring host memory."""

    def array(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array at a fixed place, of undefined values, with the members of ``_core.CudaArray``."""

    def spatial_mean(self, map: Any, out: Any) -> None:
        """Put the mean over the last two axes of `map` into `out`, float32."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what asks for the same again, with less of the host's time; `work` itself is called, but not done."""

    def wait_for(self, stream: int) -> None:
        """Let all that is asked for from now on wait for what the caller's stream has been given so far."""

    def preprocess(self, images: DeviceImages, start: int, spec: _core.InputSpec, out: Any) -> None:
        """Put the network inputs of the images from `start` on, as many as `out` has rows, into `out`."""

    def hold(self, stream: int | None) -> None:
        """Let the caller's stream wait until all images asked for have been read; the host, where it is unknown."""


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
        self._preprocessors: dict[_core.InputSpec, Any] = {}

    def array(self, shape: tuple[int, ...], dtype: str) -> "_core.CudaArray":
        """Return an array of undefined values."""
        return _core.CudaArray(shape, dtype, self.stream)

    def spatial_mean(self, map: "_core.CudaArray", out: "_core.CudaArray") -> None:
        """Put the mean over the last two axes of `map` into `out`."""
        _core.cuda_spatial_mean(map, out)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the launch of a CUDA graph of what `work` gives to the stream."""
        return _core.CudaGraph(self.stream, work).launch

    def wait_for(self, stream: int) -> None:
        """Let all that is asked for from now on wait for what the caller's stream has been given so far."""
        self.stream.wait_for(stream)

    def preprocess(self, images: DeviceImages, start: int, spec: _core.InputSpec, out: "_core.CudaArray") -> None:
        """Put the network inputs of ``out.shape[0]`` images, from `start` on, into `out`."""
        preprocessor = self._preprocessors.get(spec)
        if preprocessor is None:
            preprocessor = self._preprocessors[spec] = _core.CudaPreprocessor(spec, self.index)
        # The tensor as a whole: a slice of it may be a copy (JAX), whose memory would be free before it has been read.
        preprocessor.run(images.tensor, out, channels_last=images.channels_last, stream=self.stream.handle, start=start)

    def hold(self, stream: int | None) -> None:
        """Let the caller's stream wait for what has been asked for so far; the host, where it is unknown."""
        if stream is None:
            self.stream.synchronize()
        else:
            self.stream.hold(stream)


class CudaBatch:
    """A batch of network inputs at a fixed place, and its way to the network's outputs.

    Parameters
    ----------
    network : InceptionNetwork
        Whose device `memory` is on.
    memory : Memory
    spec : InputSpec
    shape : (n, h, w)
        Images in a run, and their size after the resize.

    Notes
    -----
    Of a network with ``graph`` the third run and later ones are replayed. The first two are not: in the first
    cuDNN chooses its algorithms and ONNX Runtime takes memory, which a recording must not, and the second shows that
    this is over.

    Attributes
    ----------
    inputs : array (n, 3, h, w)
        The network's input, in its dtype. Rows that were never written are zero.
    outputs : dict of str to array (n, length)
        float32; what :meth:`run` makes of `inputs`, by the names of the network's outputs.
    """

    def __init__(self, network: InceptionNetwork, memory: Memory, spec: _core.InputSpec, shape: tuple[int, int, int]):
        n, h, w = shape
        self.size = (h, w)
        self._memory = memory
        self._spec = spec
        self.inputs = memory.array((n, 3, h, w), network.dtype)
        self.inputs.fill_bytes(0)  # no NaN from stray bits in rows that are computed in vain
        self.outputs = {name: memory.array((n, length), "float32") for name, length in network.outputs.items()}
        # What the graph gives, in the network's dtype; the mean over its last two axes is the output. For the spatial
        # features these axes have one value, and the mean only widens float16.
        self._maps = {FEATURES: memory.array(network.map_shape((n, 3, h, w)), network.dtype)}
        if SPATIAL in network.outputs:
            self._maps[SPATIAL] = memory.array((n, network.outputs[SPATIAL], 1, 1), network.dtype)
        addresses = [map.data for map in self._maps.values()]
        self._network_run = network.bind(self.inputs.data, (n, 3, h, w), *addresses)
        self._replay: Callable[[], None] | None = None
        self._runs_to_recording = 2 if network.graph else None

    def fill(self, first: int, images: DeviceImages, start: int, count: int) -> None:
        """Prepare `count` images, from `start` on, as the inputs from `first` on; do not wait."""
        self._memory.preprocess(images, start, self._spec, self.inputs.rows(first, first + count))

    def run(self) -> Mapping[str, Any]:
        """Compute the outputs for all inputs and return them; on a CUDA device, ask for it and do not wait."""
        if self._runs_to_recording == 0:
            self._replay = self._memory.record(self._run_anew)
            self._runs_to_recording = None
        elif self._runs_to_recording is not None:
            self._runs_to_recording -= 1
        if self._replay is not None:
            self._replay()
        else:
            self._run_anew()
        return self.outputs

    def _run_anew(self) -> None:
        self._network_run()
        for name, map in self._maps.items():
            self._memory.spatial_mean(map, self.outputs[name])


class CudaNetwork:
    """A network on a CUDA device, for images that are there and for inputs from the host.

    Parameters
    ----------
    network : InceptionNetwork
    memory : Memory
    spec : InputSpec
    batch_size : int
        Images in a run of the network.
    """

    def __init__(self, network: InceptionNetwork, memory: Memory, spec: _core.InputSpec, batch_size: int):
        self.batch_size = batch_size
        self.lock = network.lock
        self._network = network
        self._memory = memory
        self._spec = spec
        self._free: list[CudaBatch] = []

    def input_size(self, images: DeviceImages) -> tuple[int, int]:
        """Return height and width of the inputs that `images` give."""
        return self._spec.output_size(images.height, images.width)

    def take_batch(self, size: tuple[int, int]) -> CudaBatch:
        """Return a batch of that input size that is not in use. Of other sizes none is kept."""
        self._free = [batch for batch in self._free if batch.size == size]
        if self._free:
            return self._free.pop()
        return CudaBatch(self._network, self._memory, self._spec, (self.batch_size, *size))

    def give_back(self, batch: CudaBatch) -> None:
        """Take back what :meth:`take_batch` returned, to hand it out again."""
        self._free.append(batch)

    def new_rows(self, n: int) -> Any:
        """Return an array on the device for the features of `n` images: float32 (n, dims), of undefined values."""
        return self._memory.array((n, self._network.dims), "float32")

    def wait_for(self, stream: int) -> None:
        """Let all that is asked for from now on wait for what the caller's stream has been given so far."""
        self._memory.wait_for(stream)

    def hold(self, stream: int | None) -> None:
        """Let the caller's stream wait until all images asked for have been read; the host, where it is unknown."""
        self._memory.hold(stream)

    def forward(self, inputs: NDArray[np.float32], outputs: Mapping[str, NDArray[np.float32]]) -> None:
        """Put the outputs for network inputs on the host into `outputs`; waits. Rows that fill a batch are left out."""
        with self.lock:
            batch = self.take_batch(inputs.shape[2:])
            for start in range(0, len(inputs), self.batch_size):
                chunk = inputs[start : start + self.batch_size].astype(self._network.dtype, copy=False)
                batch.inputs.rows(0, len(chunk)).copy_from(chunk)
                for name, rows in batch.run().items():
                    outputs[name][start : start + len(chunk)] = rows.rows(0, len(chunk)).numpy()
            self.give_back(batch)
