"""Helpers of several test files: an extractor with known features, a test of the GIL, a CUDA device on the host."""

import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
from metric_cases import CLASSIFIER

from fastfid import Moments, _core
from fastfid.extractor import FeatureExtractor
from fastfid.features import cuda, session
from fastfid.features.inception import InceptionV3
from fastfid.features.inception_network import InceptionNetwork
from fastfid.protocols import input_spec


class GridMeans(FeatureExtractor):
    """Means over a grid of cells, per channel: d = 3 * cells^2. The arithmetic is exact for images of any size."""

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


class AllOutputs(GridMeans):
    """What every metric needs: the means as both outputs of the Inception network, and a classifier of them."""

    def __init__(self):
        super().__init__()
        self.outputs = {"features": self.dims, "spatial": self.dims}

    def forward(self, batch):
        rows = super().forward(batch)
        return {"features": rows, "spatial": rows}

    def classifier(self):
        return CLASSIFIER


class TwoGrids(FeatureExtractor):
    """Means over 2 x 2 cells as the features, 3 x 3 cells as the spatial features, and a classifier of the features.

    Attributes
    ----------
    seen : int
        Number of images that the network saw.
    """

    identity = "two-grids"
    protocol = "none"
    precision = "float32"
    device = "cpu"
    batch_size = 7
    dims = 12

    def __init__(self):
        self.outputs = {"features": 12, "spatial": 27}
        self.seen = 0

    def prepare(self, image):
        return np.concatenate([GridMeans(cells).prepare(image) for cells in (2, 3)])

    def forward(self, batch):
        self.seen += len(batch)
        rows = np.ascontiguousarray(batch, dtype=np.float32)
        return {"features": rows[:, :12].copy(), "spatial": rows[:, 12:].copy()}

    def classifier(self):
        return CLASSIFIER


def counts_during(call):
    """Return how far another Python thread counts while `call` runs. It cannot count if `call` holds the GIL."""
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
        # Without forced switches, the other thread runs only if this thread releases the GIL.
        sys.setswitchinterval(1000)
        before = count
        call()
        return count - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        worker.join()


class FakeRuntime:
    """ONNX Runtime on a machine with two CUDA devices: sessions there compute on the CPU.

    Attributes
    ----------
    asked : list of SimpleNamespace
        ``model``, ``provider``, ``options`` and ``enable_fallback`` of each session on a device.
    bindings : list
        What was bound, in order.
    ended : list of str
        ``"session"``, where the native session has ended, which its bindings keep too.
    provider : str, optional
        What sessions say they run on; else what they were asked for.
    stream : str, optional
        The stream that sessions say they use; "" for none. Else what they were told.
    failure : Exception, optional
        What runs raise.
    """

    def __init__(self, monkeypatch):
        self.asked, self.bindings, self.ended = [], [], []
        self.provider = self.stream = self.failure = None
        monkeypatch.setattr(_core, "cuda_driver", lambda: (2, ""))
        runtime = session.load_onnxruntime()
        self.on_cpu = runtime.InferenceSession
        monkeypatch.setattr(runtime, "InferenceSession", self.open)

    def open(self, model, options, providers, enable_fallback=True):
        if providers == ["CPUExecutionProvider"]:
            return self.on_cpu(model, options, providers=providers)
        (provider,) = providers
        self.asked.append(
            SimpleNamespace(model=model, provider=provider[0], options=provider[1], enable_fallback=enable_fallback)
        )
        return _FakeSession(self, self.on_cpu(model, options, providers=["CPUExecutionProvider"]))


class _Native:
    """The state that a session and its bindings share."""

    def __init__(self, ended):
        self._ended = ended

    def __del__(self):
        self._ended.append("session")


class _FakeSession:
    def __init__(self, runtime, on_cpu):
        self._asked, self._on_cpu, self._native = runtime.asked[-1], on_cpu, _Native(runtime.ended)
        self._runtime = weakref.proxy(runtime)

    def get_providers(self):
        return [self._runtime.provider or self._asked.provider]

    def get_inputs(self):
        return self._on_cpu.get_inputs()

    def get_outputs(self):
        return self._on_cpu.get_outputs()

    def get_provider_options(self):
        options = dict(self._asked.options)
        if self._runtime.stream is not None:
            options["user_compute_stream"] = self._runtime.stream
        return {self._asked.provider: options}

    def run(self, outputs, inputs):
        if self._runtime.failure is not None:
            raise self._runtime.failure
        return self._on_cpu.run(outputs, inputs)

    def io_binding(self):
        binding = SimpleNamespace(
            native=self._native, bind_input=lambda *_: None, bind_output=lambda *_: None, stream=None
        )
        self._runtime.bindings.append(binding)
        return binding


def crops(n=6):
    """Return crops of a photograph, each of another size."""
    import skimage.data

    photo = skimage.data.astronaut()
    return [np.ascontiguousarray(photo[30 * i : 30 * i + 90 + 7 * i, 20 * i : 20 * i + 120]) for i in range(n)]


def classifier_of(seed):
    """A matrix in the place of the Inception network's classifier: logits of order 1 from features of order 0.5."""
    return np.random.default_rng(seed).normal(0, 0.05, (1008, 2048)).astype(np.float32)


def weights_with_classifier(folder, seed, *, changes=None, zip_format=True):
    """Write the real weights with :func:`classifier_of` as pytorch-fid's file holds them; return the file.

    `changes` are other entries of the state dict, by name; None removes one. The real classifier is in no file of the
    package index.
    """
    import torch

    from fastfid.features.inception_torch import FIDInception, load_weights
    from fastfid.features.weights import find_weights

    network = FIDInception()
    load_weights(network, find_weights())
    state = network.state_dict()
    state |= {"fc.weight": torch.from_numpy(classifier_of(seed)), "fc.bias": torch.full((1008,), 0.5)}
    for name, value in (changes or {}).items():
        state.pop(name)
        if value is not None:
            state[name] = value
    path = folder / f"with-classifier-{seed}.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    return path


class HostArray:
    """A stand-in for CudaArray in host memory."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype
        self.data = values.ctypes.data
        self.stream = SimpleNamespace(device=0, handle=11)

    def rows(self, start, stop):
        return HostArray(self.values[start:stop])

    def fill_bytes(self, byte):
        assert byte == 0
        self.values[...] = 0

    def copy_from(self, source):
        assert (source.shape, source.dtype) == (self.values.shape, self.values.dtype)
        self.values[...] = source

    def copy_on_device(self, source):
        self.values[...] = source.values

    def take(self, indices):
        return HostArray(self.values[indices])

    def numpy(self):
        return self.values.copy()

    def __dlpack__(self, **_):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class HostMemory:
    """A stand-in for cuda.Memory on the host. New memory is poisoned, and waits of a caller's stream are recorded."""

    def __init__(self):
        self.held = []
        self.runs = 0
        self.replays = 0
        self.calls = []  # what has an order: "wait_for" and "hold" with the stream, "preprocess"

    def array(self, shape, dtype):
        return HostArray(np.full(shape, np.nan, dtype))

    def spatial_mean(self, map, out):
        self.runs += 1
        out.values[...] = _core.spatial_mean(map.values)
        map.values[...] = np.nan

    def record(self, work):
        runs = self.runs
        work()  # a device would execute nothing here
        self.runs = runs
        self.calls.append(("record", None))

        again = weakref.WeakMethod(work)  # a recording keeps addresses, not objects

        def replay():
            self.replays += 1
            again()()

        return replay

    def wait_for(self, stream):
        self.calls.append(("wait_for", stream))

    def preprocess(self, images, start, spec, out):
        self.calls.append(("preprocess", len(out.values)))
        given = images.tensor.values if isinstance(images.tensor, Tensor) else np.asarray(images.tensor)
        part = given[start : start + len(out.values)]
        part = part if images.channels_last else np.moveaxis(part, 1, -1)
        out.values[...] = _core.preprocess(list(part), spec)

    def hold(self, stream):
        self.held.append(stream)
        self.calls.append(("hold", stream))


class HostMoments(Moments):
    """DeviceMoments on the host."""

    def __init__(self, d, *, device):
        super().__init__(d)
        self.device = device

    def update(self, rows, *, stream):
        assert stream == rows.stream.handle
        super().update(rows.values.copy())  # a device would read them before the next run writes them

    def to_host(self):
        return Moments.from_state(self.state())


class Tensor:
    """A tensor that reports a GPU as its device, with values on the host."""

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
    """The network on the CPU, which reports cuda:0 as its device and takes tensors of this device."""

    def __init__(self, dims, protocol, batch_size, **options):
        super().__init__(dims, protocol=protocol, device="cpu", **options)
        self.device = self._network.device = "cuda:0"
        self._network.bind = self._bind
        self.batch_size = batch_size
        self.concurrency = 1
        self.memory = HostMemory()
        self._there = cuda.CudaNetwork(self._network, self.memory, input_spec(protocol), batch_size)

    def _bind(self, *places):
        self._network.device = "cpu"
        try:
            return InceptionNetwork.bind(self._network, *places)
        finally:
            self._network.device = "cuda:0"
