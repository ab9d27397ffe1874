"""What several test files use: an extractor whose truth is known, a look at the GIL, a CUDA device that is the host."""

import sys
import threading
import time
import weakref

import numpy as np

from fastfid import Moments, _core
from fastfid.features import FeatureExtractor, cuda, onnx
from fastfid.features.inception import InceptionV3


class GridMeans(FeatureExtractor):
    """Means over a grid of cells, per channel: d = 3 * cells^2, exact arithmetic that any size of image allows."""

    identity = "grid-means"
    protocol = "none"
    precision = "float32"
    device = "cpu"
    batch_size = 2

    def __init__(self, cells=2):
        self.cells = cells
        self.dims = 3 * cells * cells

    def prepare(self, image):
        height, width, _ = image.shape
        starts = np.arange(self.cells)
        tops, lefts = starts * height // self.cells, starts * width // self.cells
        bottoms = np.maximum((starts + 1) * height // self.cells, tops + 1)
        rights = np.maximum((starts + 1) * width // self.cells, lefts + 1)
        cells = [
            image[tops[i] : bottoms[i], lefts[j] : rights[j]].mean((0, 1))
            for i in range(self.cells)
            for j in range(self.cells)
        ]
        return np.concatenate(cells).astype(np.float32)

    def forward(self, batch):
        return np.ascontiguousarray(batch, dtype=np.float32)


def counts_during(call):
    """How far another Python thread counts while `call` runs: not at all if it holds the GIL."""
    count = 0
    stop = threading.Event()

    def run():
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    worker = threading.Thread(target=run)
    worker.start()
    try:
        # No forced switches: the other thread runs only where this one gives the GIL away.
        sys.setswitchinterval(1000)
        before = count
        call()
        return count - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        worker.join()


class HostArray:
    """What a CudaArray is, on the host."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.data = values.ctypes.data

    def rows(self, start, stop):
        return HostArray(self.values[start:stop])

    def __dlpack__(self, **_):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class HostMemory:
    """cuda.Memory on the host. Fresh memory is poisoned; what a caller's stream would wait for is written down."""

    def __init__(self):
        self.held = []
        self.runs = 0
        self.replays = 0
        self.calls = []  # what has an order: "wait_for" and "hold" with the stream, "preprocess"

    def array(self, shape, dtype):
        return HostArray(np.full(shape, np.nan, dtype))

    def fill(self, array, byte):
        assert byte == 0
        array.values[...] = 0

    def copy(self, array, source):
        array.values[...] = source.values

    def spatial_mean(self, map, out):
        self.runs += 1
        out.values[...] = _core.spatial_mean(map.values)
        map.values[...] = np.nan

    def record(self, work):
        runs = self.runs
        work()  # of which a device would do nothing
        self.runs = runs
        self.calls.append(("record", None))

        again = weakref.WeakMethod(work)  # a recording keeps addresses, not objects

        def replay():
            self.replays += 1
            again()()

        return replay

    def wait_for(self, caller):
        self.calls.append(("wait_for", caller))

    def preprocess(self, images, start, protocol, out):
        self.calls.append(("preprocess", len(out.values)))
        given = images.tensor.values if isinstance(images.tensor, Tensor) else np.asarray(images.tensor)
        part = given[start : start + len(out.values)]
        part = part if images.channels_last else np.moveaxis(part, 1, -1)
        out.values[...] = _core.preprocess(list(part), protocol)

    def hold(self, caller):
        self.held.append(caller)
        self.calls.append(("hold", caller))

    def moments(self, d):
        return HostMoments(d)


class HostMoments:
    def __init__(self, d):
        self._moments = Moments(d)

    def update(self, rows):
        self._moments.update(rows.values.copy())  # a device would read them before the next run writes them

    def to_host(self):
        return Moments.from_state(self._moments.state())

    @property
    def on_device(self):
        return self._moments  # for who plays _core.frechet_distance


class Tensor:
    """Says that it is on a GPU; its values are on the host."""

    def __init__(self, values, device=0):
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype
        self._device = device

    def __dlpack_device__(self):
        return 2, self._device

    def __dlpack__(self, **keywords):
        raise AssertionError("was copied to the host")


class OnDevice(InceptionV3):
    """The network on the CPU that says it is on cuda:0, and takes its tensors there."""

    def __init__(self, dims, protocol, batch_size):
        super().__init__(dims, protocol=protocol, device="cpu")
        self.device = self._network.device = "cuda:0"
        self._network.bind = self._bind
        self.memories = []
        self._rows = batch_size

    def _bind(self, image, shape, map):
        self._network.device = "cpu"
        try:
            return onnx.Network.bind(self._network, image, shape, map)
        finally:
            self._network.device = "cuda:0"

    def device_side(self, device):
        cuda.expect_device(device, self.device)
        self.memories.append(HostMemory())
        return cuda.DeviceSide(self._network, self.memories[-1], self.protocol, self._rows)

    def device_features(self, images, caller):
        self._memory = HostMemory()
        self.memories.append(self._memory)
        self.batch_size = self._rows
        return super().device_features(images, caller)
