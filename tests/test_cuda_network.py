"""From tensors on a GPU to moments: the logic on host memory and ONNX Runtime's CPU provider, the rest where there is a
device."""

import ctypes
import gc
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from stubs import HostMemory, HostMoments, OnDevice, Tensor
from tolerances import (
    ANOTHER_ORDER,
    CANCELLED_MEAN,
    EQUAL_SETS_ON_DEVICE,
    FEATURES_ON_DEVICE,
    FID_ON_DEVICE,
    ROUNDED_TO_FLOAT32,
)

from benchmarks.cuda_cases import EMULATED, SMALL
from fastfid import FID, Moments, _core, compute_fid, compute_statistics
from fastfid._checks import DIMS
from fastfid.errors import BackendUnavailable
from fastfid.features import cuda
from fastfid.features.inception import InceptionV3
from fastfid.features.inception_network import InceptionNetwork
from fastfid.features.session import CudaSettings
from fastfid.metrics.moments import FeatureMoments
from fastfid.pipeline import DeviceFeed, features_on_device
from fastfid.protocols import input_spec
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream, device_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def moments_on_the_host(request, monkeypatch):
    """In the place of a device's, where there is none."""
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(_core, "DeviceMoments", HostMoments)


# ------------------------------------------------------------------------------------------------------ spatial mean


@pytest.fixture(scope="module")
def emulated_mean(tmp_path_factory):
    """csrc/cuda/features.cu, thread by thread on the CPU."""
    library = tmp_path_factory.mktemp("emulation") / "features.so"
    files = ["csrc/cuda/features.cu", "tests/cuda_emulation/features.cpp", "tests/cuda_emulation/runtime.cpp"]
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-DFASTFID_CUDA_EMULATION", "-Icsrc", "-Itests/cuda_emulation"]
    subprocess.run(["c++", *flags, "-x", "c++", *files, "-o", library], cwd=ROOT, check=True)
    function = ctypes.CDLL(library).spatial_mean
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int]

    def mean(map, order):
        out = np.full(map.shape[:2], np.nan, np.float32)
        area = map.shape[2] * map.shape[3]
        function(map.ctypes.data, int(map.dtype == np.float16), out.size, area, out.ctypes.data, order)
        return out

    return mean


@pytest.mark.parametrize("case", (EMULATED + SMALL).maps, ids=str)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_spatial_mean_of_the_device_is_numpys(emulated_mean, case, order):
    x = case.map()
    expected = x.astype(np.float64).mean((2, 3))
    np.testing.assert_allclose(emulated_mean(x, order), expected, rtol=ROUNDED_TO_FLOAT32, atol=CANCELLED_MEAN)


def test_spatial_mean_of_the_device_passes_nan_on(emulated_mean):
    x = np.ones((1, 2, 8, 8), np.float32)
    x[0, 1, 7, 7] = np.nan
    np.testing.assert_array_equal(emulated_mean(x, 0), [[1, np.nan]])


# ------------------------------------------------------------------------------------------------------ bound network


@pytest.fixture(scope="module", params=DIMS)
def network(request, weights):
    return InceptionNetwork(request.param, weights, "cpu")


@pytest.mark.parametrize("size", [(75, 76), (81, 100), (299, 299)])
def test_network_between_fixed_addresses(network, size):
    x = np.random.default_rng(2).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    map = np.full(network.map_shape(x.shape), np.nan, np.float32)
    network.bind(x.ctypes.data, x.shape, map.ctypes.data)()
    np.testing.assert_array_equal(_core.spatial_mean(map), network.features(x))


def test_float16_network_between_fixed_addresses(weights):
    network = InceptionNetwork(64, weights, "cpu", "float16")
    x = np.random.default_rng(3).uniform(-1, 1, (2, 3, 75, 80)).astype(np.float16)
    map = np.full(network.map_shape(x.shape), np.nan, np.float16)
    network.bind(x.ctypes.data, x.shape, map.ctypes.data)()
    np.testing.assert_array_equal(_core.spatial_mean(map.astype(np.float32)), network.features(x))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_spatial_features_at_a_fixed_address(precision, weights):
    network = InceptionNetwork(2048, weights, "cpu", precision, outputs=("features", "spatial"))
    x = np.random.default_rng(4).uniform(-1, 1, (2, 3, 299, 299)).astype(network.dtype)
    map, spatial = (np.full(shape, np.nan, network.dtype) for shape in (network.map_shape(x.shape), (2, 2023)))
    network.bind(x.ctypes.data, x.shape, map.ctypes.data, spatial.ctypes.data)()
    expected = network.run(x)
    np.testing.assert_array_equal(spatial, expected["spatial"])
    np.testing.assert_array_equal(_core.spatial_mean(map.astype(np.float32)), expected["features"])
    with pytest.raises(ValueError, match="expected network inputs of 299 x 299, got 299 x 300"):
        network.bind(0, (2, 3, 299, 300), 0, 0)


# --------------------------------------------------------------------------------------------------- batches and sides


def pictures(n, seed, size=(80, 91)):
    return np.random.default_rng((seed, n)).integers(0, 256, (n, *size, 3), dtype=np.uint8)


class Side:
    """Images on a device, and the moments of their features: what FID has of each side."""

    def __init__(self, extractor):
        self.moments = FeatureMoments(extractor.dims)
        self.feed = DeviceFeed(extractor.on_device("cuda:0"), self.moments.update)

    def update(self, images, stream):
        self.feed.add(images, stream)

    def total(self):
        self.feed.flush()
        return self.moments.total()


def assert_same(moments, expected):
    assert moments.n == expected.n
    np.testing.assert_array_equal(moments.mean, expected.mean)
    np.testing.assert_array_equal(moments.covariance(), expected.covariance())


@pytest.mark.parametrize("splits", [[7], [1] * 7, [2, 5], [3, 3, 1], [6, 1]])
def test_any_split_gives_the_bits_of_the_host(splits):
    extractor = OnDevice(64, "none", 3)
    images = pictures(7, 1)
    expected = Moments(64)
    expected.update(InceptionV3(64, protocol="none", device="cpu")(images))
    side, memory = Side(extractor), extractor.memory
    start = 0
    for n in splits:
        side.update(DeviceImages(Tensor(images[start : start + n])), 17)
        start += n
    assert memory.held == [17] * len(splits)  # each caller waits once, for all its images
    calls = iter(memory.calls)
    for n in splits:  # and is waited for, before the first of them is read
        assert next(calls) == ("wait_for", 17)
        while n:
            what, count = next(calls)
            assert what == "preprocess"
            n -= count
        assert next(calls) == ("hold", 17)
    assert next(calls, None) is None
    assert memory.runs == 2  # full batches only, until the moments are asked for
    assert side.feed.waiting == 1
    assert_same(side.total(), expected)
    assert memory.runs == 3
    assert_same(side.total(), expected)  # asking changes nothing


def test_sides_of_one_device_are_merged_there():
    extractor = OnDevice(64, "none", 3)
    images = pictures(7, 1)
    sides = Side(extractor), Side(extractor)
    for side, part in zip(sides, (images[:4], images[4:]), strict=True):
        side.update(DeviceImages(Tensor(part)), 17)
        side.feed.flush()
    here, there = (side.moments for side in sides)
    expected = here.total()
    expected.merge(there.total())
    here.merge(there)
    assert (here._on_device.n, here._on_host.n, there.n) == (7, 0, 3)
    assert_same(here.total(), expected)


def test_images_of_a_run_that_failed_are_run_again():
    extractor = OnDevice(64, "none", 3)
    images = pictures(4, 1)
    kept = []

    def consume(outputs):
        kept.append(outputs["features"].numpy().copy())
        if len(kept) == 1:
            raise RuntimeError("no memory for the moments")

    feed = DeviceFeed(extractor.on_device("cuda:0"), consume)
    with pytest.raises(RuntimeError, match="no memory"):
        feed.add(DeviceImages(Tensor(images[:3])), 17)
    assert feed.waiting == 3
    feed.add(DeviceImages(Tensor(images[3:])), 17)
    assert feed.waiting == 1
    feed.flush()
    expected = InceptionV3(64, protocol="none", device="cpu")(images)
    np.testing.assert_array_equal(np.concatenate(kept[1:]), expected)


def test_the_third_run_and_later_ones_are_replayed():
    extractor = OnDevice(64, "none", 3)
    extractor._network.graph = True
    images = pictures(14, 1)
    expected = Moments(64)
    expected.update(InceptionV3(64, protocol="none", device="cpu")(images))
    side, memory = Side(extractor), extractor.memory
    for start in range(0, 14, 2):
        side.update(DeviceImages(Tensor(images[start : start + 2])), 17)
    assert_same(side.total(), expected)
    assert (memory.runs, memory.replays) == (5, 3)
    assert memory.calls.count(("record", None)) == 1
    # Another size is another recording.
    other = pictures(9, 2, (90, 80))
    expected.update(InceptionV3(64, protocol="none", device="cpu")(other))
    side.update(DeviceImages(Tensor(other)), 17)
    assert_same(side.total(), expected)
    assert (memory.runs, memory.replays) == (8, 4)
    assert memory.calls.count(("record", None)) == 2


def test_spatial_features_of_images_on_a_device():
    """By batches, the last of them not full, and by forward(): the bits of the host; the map is theirs too."""
    extractor = OnDevice(2048, "pytorch-fid", 2, outputs=("features", "spatial"))
    images = pictures(3, 1)
    on_host = InceptionV3(device="cpu", outputs=("features", "spatial"))
    inputs = np.stack([on_host.prepare(image) for image in images])
    expected = on_host.forward(inputs)
    kept = {"features": [], "spatial": []}

    def keep(outputs):
        for name, rows in outputs.items():
            kept[name].append(rows.numpy())

    feed = DeviceFeed(extractor.on_device("cuda:0"), keep)
    feed.add(DeviceImages(Tensor(images)), 17)
    feed.flush()
    found = extractor.forward(inputs)
    for name in expected:
        np.testing.assert_array_equal(np.concatenate(kept[name]), expected[name])
        np.testing.assert_array_equal(found[name], expected[name])
    features = features_on_device(extractor.on_device("cuda:0"), DeviceImages(Tensor(images)), 17)
    np.testing.assert_array_equal(features.values, expected["features"])


def test_batches_are_used_again():
    """By all feeds of a network, and by forward(): one that no images wait in is free."""
    extractor = OnDevice(64, "none", 3)
    made = []
    array = extractor.memory.array
    extractor.memory.array = lambda shape, dtype: made.append(shape) or array(shape, dtype)
    first, second = Side(extractor), Side(extractor)
    first.update(DeviceImages(Tensor(pictures(3, 1))), 17)
    second.update(DeviceImages(Tensor(pictures(6, 2))), 17)
    features_on_device(extractor.on_device("cuda:0"), DeviceImages(Tensor(pictures(2, 3))), 17)
    extractor(pictures(4, 4))
    inputs = (3, 3, 80, 91)
    assert made.count(inputs) == 1
    first.update(DeviceImages(Tensor(pictures(1, 5))), 17)  # which waits in the one
    second.update(DeviceImages(Tensor(pictures(3, 6))), 17)
    assert made.count(inputs) == 2
    assert (first.total().n, second.total().n) == (4, 9)


@pytest.mark.parametrize("graph", [False, True])
def test_a_batch_frees_its_memory_at_once(graph):
    """Without the collector of cycles, which knows nothing of a device's memory."""
    extractor = OnDevice(64, "none", 2)
    extractor._network.graph = graph
    batch = cuda.CudaBatch(extractor._network, HostMemory(), input_spec("none"), (2, 80, 90))
    for _ in range(4):
        batch.run()
    image = weakref.ref(batch.inputs.values)
    gc.disable()
    try:
        del batch
        assert image() is None
    finally:
        gc.enable()


def test_an_unknown_stream_is_not_waited_for():
    extractor = OnDevice(64, "none", 3)
    Side(extractor).update(DeviceImages(Tensor(pictures(4, 1))), None)
    assert extractor.memory.calls == [("preprocess", 3), ("preprocess", 1), ("hold", None)]


class FakeCore:
    """What CudaMemory asks of the compiled part; it writes down how."""

    def __init__(self, monkeypatch):
        self.calls = []
        record = self.calls

        class Stream:
            def __init__(self, device):
                self.handle = 11

            def wait_for(self, other):
                record.append(("wait_for", other))

            def hold(self, other):
                record.append(("hold", other))

            def synchronize(self):
                record.append(("synchronize",))

        class Preprocessor:
            def __init__(self, spec, device):
                record.append(("preprocessor", spec, device))

            def run(self, images, out, *, channels_last, stream, start):
                record.append(("preprocess", images, out, channels_last, stream, start))

        class DeviceMoments:
            def __init__(self, d, *, device=0):
                record.append(("moments", d, device))

            def update(self, rows, *, stream):
                record.append(("update", rows, stream))

        for name, stand_in in (
            ("CudaStream", Stream),
            ("CudaPreprocessor", Preprocessor),
            ("DeviceMoments", DeviceMoments),
            ("CudaArray", lambda *arguments: record.append(("array", *arguments))),
            ("cuda_spatial_mean", lambda *arguments: record.append(("spatial mean", *arguments))),
            ("CudaGraph", lambda *arguments: SimpleNamespace(launch=("launch", *arguments))),
        ):
            monkeypatch.setattr(_core, name, stand_in, raising=False)


def test_rows_on_a_device_are_summed_in_float64(monkeypatch):
    core = FakeCore(monkeypatch)
    rows = SimpleNamespace(stream=SimpleNamespace(device=1, handle=11), shape=(0, 64))
    FeatureMoments(64).update({"features": rows})
    assert core.calls == [("moments", 64, 1), ("update", rows, 11)]


def test_the_tensor_itself_is_read(monkeypatch):
    """Not a slice of it: that may be a copy which nobody keeps until the device has read it."""
    core = FakeCore(monkeypatch)

    class Whole(Tensor):
        def __getitem__(self, _):
            raise AssertionError("was sliced")

    memory, images, out = cuda.CudaMemory(1), DeviceImages(Whole(pictures(5, 1), device=1)), "out"
    memory.wait_for(7)
    memory.preprocess(images, 3, input_spec("clean"), out)
    memory.hold(7)
    memory.hold(None)
    assert core.calls == [
        ("wait_for", 7),
        ("preprocessor", input_spec("clean"), 1),
        ("preprocess", images.tensor, out, True, 11, 3),
        ("hold", 7),
        ("synchronize",),
    ]
    memory.preprocess(images, 0, input_spec("clean"), out)
    assert [name for name, *_ in core.calls].count("preprocessor") == 1


def test_work_goes_to_the_stream(monkeypatch):
    core = FakeCore(monkeypatch)
    memory = cuda.CudaMemory(1)
    memory.array((2, 3), "float32")
    memory.spatial_mean("map", "out")
    assert core.calls == [("array", (2, 3), "float32", memory.stream), ("spatial mean", "map", "out")]
    assert memory.record(core) == ("launch", memory.stream, core)


def test_runs_of_one_network_do_not_overlap():
    """Two sides and forward(), from three threads, while each run takes a while."""
    extractor = OnDevice(64, "none", 2)
    bind, running, most = extractor._network.bind, [0], [0]

    def slow(*places):
        run = bind(*places)

        def once():
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.02)
            run()
            running[0] -= 1

        return once

    extractor._network.bind = slow
    images = pictures(6, 3)
    expected = Moments(64)
    expected.update(InceptionV3(64, protocol="none", device="cpu")(images))
    sides = [Side(extractor) for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        on_host = pool.submit(extractor, images)
        updates = [pool.submit(side.update, DeviceImages(Tensor(images)), 1) for side in sides]
        for update in updates:
            update.result()
        features = on_host.result()
    assert most == [1]
    for side in sides:
        assert_same(side.total(), expected)
    np.testing.assert_array_equal(features, expected.rows)


def test_first_updates_from_two_threads_share_a_side():
    extractor = OnDevice(64, "none", 4)
    both = threading.Barrier(2)
    make = extractor.on_device

    def slow(device):
        time.sleep(0.1)  # long enough for the other thread to ask as well
        return make(device)

    extractor.on_device = slow
    fid = FID(extractor=extractor)

    def update(seed):
        both.wait()
        fid.update(Tensor(pictures(3, seed)), real=True, stream=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(update, (1, 2)))
    assert fid.real.n == 6


def test_first_updates_from_two_threads_load_one_network(monkeypatch):
    made = []

    def slow(*arguments):
        time.sleep(0.1)
        made.append(OnDevice(64, "none", 4))
        return made[-1]

    monkeypatch.setattr("fastfid.batches.fid.make_extractor", slow)
    fid = FID(dims=64, protocol="none")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda real: fid.update(Tensor(pictures(3, 4)), real=real, stream=1), (True, False)))
    assert len(made) == 1
    assert (fid.real.n, fid.fake.n) == (3, 3)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_features_stay_where_the_images_are(n):
    extractor = OnDevice(64, "pytorch-fid", 3)
    images = pictures(n, 3)
    features = features_on_device(extractor.on_device("cuda:0"), DeviceImages(Tensor(images)), 17)
    np.testing.assert_array_equal(features.values, InceptionV3(64, device="cpu")(images))
    memory = extractor.memory
    assert memory.held == [17]
    assert memory.calls[0] == ("wait_for", 17)
    assert memory.calls[-1] == ("hold", 17)
    with pytest.raises(ValueError, match="expected a tensor on cuda:0"):
        extractor.on_device("cuda:1")


def test_torchmetrics_names_take_features_on_the_device(monkeypatch, torchvision_importable):
    from fastfid.compat import torchmetrics
    from fastfid.compat._torchmetrics import network

    images = torch.from_numpy(pictures(5, 4).transpose(0, 3, 1, 2).copy())
    metric, plain = (torchmetrics.FrechetInceptionDistance(feature=64) for _ in range(2))
    monkeypatch.setattr(network, "open_source", lambda x, layout: DeviceImages(Tensor(x.numpy()), layout))
    monkeypatch.setattr(network, "callers_stream", lambda x: 17)
    metric.inception._engine_on = lambda device: OnDevice(64, "torchmetrics", 2)
    for real in (True, False):
        metric.update(images // (1 + real), real=real)
    monkeypatch.undo()
    for real in (True, False):
        plain.update(images // (1 + real), real=real)
    assert metric.compute() == plain.compute()


def test_layouts_and_mixed_sizes():
    extractor = OnDevice(64, "none", 4)
    wide, tall = pictures(3, 2), pictures(2, 3, (90, 77))
    expected = Moments(64)
    on_host = InceptionV3(64, protocol="none", device="cpu")
    for images in (wide, tall, wide):
        expected.update(on_host(images))
    side = Side(extractor)
    side.update(DeviceImages(Tensor(wide)), None)
    side.update(DeviceImages(Tensor(np.ascontiguousarray(tall.transpose(0, 3, 1, 2)))), None)
    side.update(DeviceImages(Tensor(wide)), None)
    assert_same(side.total(), expected)


def test_fid_of_tensors_is_the_fid_of_arrays():
    extractor = OnDevice(64, "pytorch-fid", 4)
    a, b = pictures(9, 4, (32, 32)), pictures(11, 5, (32, 32)) // 2
    plain = FID(dims=64, device="cpu")
    plain.update(a, real=True)
    plain.update(b, real=False)
    fid = FID(extractor=extractor)
    fid.update(Tensor(a[:5]), real=True, stream=3)
    fid.update(Tensor(b), real=False, stream=4)
    fid.update(Tensor(a[5:]), real=True, stream=5)
    assert extractor.memory.held == [3, 4, 5]
    assert fid.compute() == plain.compute()
    # Both ways in, on one side; and all that carries a state.
    fid.update(a, real=False)
    plain.update(a, real=False)
    assert fid.compute() == pytest.approx(plain.compute(), rel=ANOTHER_ORDER)
    copy = FID(dims=64, device="cpu")
    state = fid.state_dict()
    copy.load_state_dict({**state, "provenance": plain.state_dict()["provenance"]})
    assert copy.compute() == fid.compute()
    merged = FID(extractor=OnDevice(64, "pytorch-fid", 4))
    merged.merge(fid)
    assert merged.compute() == fid.compute()
    fid.reset(fake=False)
    fid.update(Tensor(a), real=True)
    assert fid.real.n == 9
    np.testing.assert_array_equal(fid.real.mu, plain.real.mu)
    fid.load_state_dict(state)
    assert fid.compute() == copy.compute()


def test_pickle_leaves_the_device_behind():
    fid = FID(dims=64)
    fid._extractor = OnDevice(64, "pytorch-fid", 4)
    fid.update(Tensor(pictures(5, 6)), real=True, stream=1)
    back = pickle.loads(pickle.dumps(fid))
    assert back._feeds == {}
    assert back.real.n == fid.real.n == 5
    np.testing.assert_array_equal(back.real.mu, fid.real.mu)


def test_compute_takes_tensors():
    extractor = OnDevice(64, "none", 4)
    a, b = pictures(6, 7), pictures(7, 8) // 2
    expected = compute_fid(a, b, dims=64, protocol="none", device="cpu")
    record = compute_fid(Tensor(a), Tensor(b), extractor=extractor, return_info=True)
    assert record["fid"] == expected
    assert record["n"] == {"real": 6, "fake": 7}


# --------------------------------------------------------------------------------------------------------- refusals


def test_a_tensor_on_a_gpu_is_not_for_the_cpu():
    tensor = Tensor(pictures(3, 9))
    sentence = r"images: expected a tensor on cpu, .* got one on cuda:0. Pass images.cpu\(\), or device='cuda:0'"
    with pytest.raises(ValueError, match=sentence):
        FID(dims=64, device="cpu").update(tensor, real=True)
    with pytest.raises(ValueError, match=sentence):
        compute_statistics(tensor, dims=64, device="cpu")


def test_a_tensor_on_another_gpu():
    fid = FID(extractor=OnDevice(64, "none", 4))
    for _ in range(2):  # before and after the side exists
        with pytest.raises(ValueError, match=r"expected a tensor on cuda:0, .* got one on cuda:1"):
            fid.update(Tensor(pictures(3, 9), device=1), real=True, stream=0)
        fid.update(Tensor(pictures(3, 9)), real=True, stream=0)
    assert fid.real.n == 6


def test_a_stream_without_a_tensor_for_it():
    with pytest.raises(ValueError, match="stream: is for tensors on the GPU"):
        FID(extractor=OnDevice(64, "none", 4)).update(pictures(3, 9), real=True, stream=0)


def test_a_subset_of_a_tensor():
    with pytest.raises(ValueError, match="num: is not for a tensor on a GPU; index the tensor"):
        open_source(Tensor(pictures(3, 9)), num=2)


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError, "tensor: expected uint8 images"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"tensor: expected shape \(n, h, w, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), ValueError, r"tensor: expected RGB images"),
        (np.zeros((2, 3, 8, 3), np.uint8), ValueError, "tensor: shape .* layout"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "tensor: has no images"),
    ],
)
def test_bad_tensors(values, error, text):
    with pytest.raises(error, match=text):
        open_source(Tensor(values))


def test_an_extension_without_cuda_says_so(monkeypatch):
    monkeypatch.delattr(_core, "CudaStream", raising=False)
    with pytest.raises(BackendUnavailable, match="fastfid's own CUDA part"):
        cuda.CudaMemory(0)
    extract = InceptionV3(64, device="cpu")
    extract.device, extract._why_not_there = "cuda:0", "fastfid's own CUDA part is not built: nvcc was not found"
    with pytest.raises(BackendUnavailable, match=r"nvcc was not found. Pass images.cpu\(\)"):
        extract.on_device("cuda:0")


def test_what_is_a_tensor_on_a_gpu():
    assert device_of(Tensor(pictures(1, 0), device=3)) == "cuda:3"
    for other in (pictures(1, 0), torch.zeros(1), torch.zeros(1, device="meta"), [1], "folder", None):
        assert device_of(other) is None


def test_a_tensor_without_values():
    tensor = torch.zeros((2, 8, 8, 3), dtype=torch.uint8, device="meta")
    with pytest.raises(ValueError, match=r"array.*: is on torch's meta device, where tensors have no values"):
        FID(extractor=OnDevice(64, "none", 4)).update(tensor, real=True)


def test_callers_streams(monkeypatch):
    tensor = Tensor(pictures(1, 0))

    class Speaks:
        def __cuda_stream__(self):
            return 0, 41

    class Torchs:
        cuda_stream = 42

    class Cupys:
        ptr = 43

    # The current stream of the tensor's own device, also for a class derived from the library's.
    for package, of_current, device in (
        ("torch", "current_stream", SimpleNamespace(index=3)),
        ("cupy", "get_current_stream", SimpleNamespace(id=3)),
    ):
        kind = type("Base", (), {"__module__": f"{package}.core", "device": device})
        handles = {
            "torch": lambda device: SimpleNamespace(cuda_stream=100 + device.index),
            "cupy": lambda index: 100 + index,
        }
        library = SimpleNamespace(cuda=SimpleNamespace(**{of_current: handles[package]}))
        monkeypatch.setitem(sys.modules, package, library)
        assert callers_stream(type("Derived", (kind,), {"__module__": "other"})()) == 103
    assert callers_stream(tensor) is None
    assert [callers_stream(tensor, s) for s in (7, Speaks(), Torchs(), Cupys())] == [7, 41, 42, 43]
    with pytest.raises(TypeError, match="stream: expected a CUDA stream or its handle, got str"):
        callers_stream(tensor, "stream")


# ------------------------------------------------------------------------------------------------------ on a device

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device for torch"),
]
BATCH = 200  # more than three runs of the network, so that update itself runs it


@pytest.fixture(scope="module")
def photographs():
    crops = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    # Each another cut of a picture; all lie within the smallest, 300 x 451.
    cuts = [crop[y : y + 160, x : x + 200] for y in range(0, 136, 20) for x in range(0, 248, 32) for crop in crops]
    return np.stack(cuts[:BATCH])


class Replayed(InceptionV3):
    _cuda_settings = CudaSettings(graph=True)


@pytest.fixture(scope="module", params=["float32", "tf32", "float16", "float16 graph"])
def on_gpu(request):
    precision, _, graph = request.param.partition(" ")
    return (Replayed if graph else InceptionV3)(2048, precision=precision, device="cuda:0")


class TestOnADevice:
    pytestmark = needs_cuda

    def test_features_are_the_cpus(self, on_gpu, photographs):
        expected = InceptionV3(2048, device="cpu")(photographs)
        features = on_gpu(photographs)
        np.testing.assert_allclose(features, expected, rtol=0, atol=FEATURES_ON_DEVICE[on_gpu.precision])

    def test_spatial_features_are_the_cpus(self, on_gpu, photographs):
        def spatial(network):
            return network.forward(np.stack([network.prepare(image) for image in photographs[:8]]))["spatial"]

        both = {"outputs": ("features", "spatial")}
        there = spatial(type(on_gpu)(precision=on_gpu.precision, device="cuda:0", **both))
        on_cpu = spatial(InceptionV3(device="cpu", **both))
        np.testing.assert_allclose(there, on_cpu, rtol=0, atol=FEATURES_ON_DEVICE[on_gpu.precision])

    def test_batch_size_changes_no_bit(self, on_gpu, photographs):
        whole = on_gpu(photographs)
        np.testing.assert_array_equal(np.concatenate([on_gpu(photographs[i : i + 1]) for i in range(3)]), whole[:3])

    def test_tensors_give_the_moments_of_the_features(self, on_gpu, photographs):
        tensor = torch.from_numpy(photographs).cuda()
        side = Side(on_gpu)
        assert len(photographs) >= 3 * on_gpu.batch_size
        for part in (tensor[:5], tensor[5:6], tensor[6:].permute(0, 3, 1, 2)):
            side.update(open_source(part), callers_stream(part))
        expected = Moments(2048)
        expected.update(on_gpu(photographs))
        np.testing.assert_array_equal(side.total().rows, expected.rows)

    def test_update_does_not_wait(self, on_gpu, photographs):
        """Half a second of work is ahead of the images on the caller's stream; update returns before it is done."""
        assert len(photographs) >= 3 * on_gpu.batch_size
        fid = FID(extractor=on_gpu)
        tensor = torch.from_numpy(photographs).cuda()
        fid.update(tensor, real=True)  # tables, buffers, algorithms
        fid.real  # noqa: B018 waits
        done = torch.cuda.Event()
        torch.cuda._sleep(1_000_000_000)
        fid.update(tensor, real=True)
        done.record()
        assert not done.query()
        assert fid.real.n == 2 * len(photographs)
        assert done.query()

    def test_images_may_be_overwritten_at_once(self, on_gpu, photographs):
        fid = FID(extractor=on_gpu)
        tensor = torch.from_numpy(photographs).cuda()
        fid.update(tensor, real=True)
        tensor.fill_(0)
        np.testing.assert_array_equal(fid._total(True).rows, on_gpu(photographs))

    def test_two_overlapping_streams(self, on_gpu, photographs):
        halves = photographs, photographs[::-1].copy()
        assert len(photographs) >= 3 * on_gpu.batch_size
        expected = [on_gpu(half) for half in halves]
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        fid = FID(extractor=on_gpu)
        for part in range(4):
            for real, stream, half in zip((True, False), streams, halves, strict=True):
                with torch.cuda.stream(stream):
                    piece = torch.from_numpy(half[part::4].copy()).cuda(non_blocking=True)
                    torch.cuda._sleep(10_000_000)
                    fid.update(piece, real=real)
                    piece.fill_(255)
        for real, rows in zip((True, False), expected, strict=True):
            order = np.concatenate([np.arange(len(rows))[part::4] for part in range(4)])
            np.testing.assert_array_equal(fid._total(real).rows, rows[order])

    def test_features_stay_on_the_device(self, on_gpu, photographs):
        tensor = torch.from_numpy(photographs).cuda()
        network = on_gpu.on_device("cuda:0")
        features = torch.from_dlpack(features_on_device(network, open_source(tensor), callers_stream(tensor)))
        assert features.is_cuda
        kept = features.clone()
        del features  # the memory may be used anew, but not before the copy has been made
        features_on_device(network, open_source(tensor.flip(0)), callers_stream(tensor))
        np.testing.assert_array_equal(kept.cpu().numpy(), on_gpu(photographs))

    def test_torchmetrics_names(self, photographs, torchvision_importable):
        from fastfid.compat.torchmetrics import FrechetInceptionDistance

        tensor = torch.from_numpy(photographs).permute(0, 3, 1, 2)
        values = []
        for device in ("cuda", "cpu"):
            metric = FrechetInceptionDistance(feature=64).to(device)
            metric.update(tensor.to(device), real=True)
            metric.update(tensor.to(device) // 2, real=False)
            values.append(metric.compute())
            assert values[-1].device.type == device
        assert float(values[0]) == pytest.approx(float(values[1]), rel=FID_ON_DEVICE)

    def test_a_replayed_graph_changes_no_bit(self, photographs):
        plain, replayed = (kind(2048, precision="tf32", device="cuda:0") for kind in (InceptionV3, Replayed))
        many = np.concatenate([photographs, photographs[::-1]])  # seven runs
        np.testing.assert_array_equal(replayed(many), plain(many))
        sides = [Side(extractor) for extractor in (plain, replayed)]
        tensor = torch.from_numpy(many).cuda()
        for side in sides:
            side.update(open_source(tensor), callers_stream(tensor))
        np.testing.assert_array_equal(sides[0].total().rows, sides[1].total().rows)

    def test_a_tensor_on_the_host_beside(self, on_gpu, photographs):
        fid = FID(extractor=on_gpu)
        fid.update(torch.from_numpy(photographs).cuda(), real=True)
        fid.update(photographs, real=False)
        assert abs(fid.compute()) < EQUAL_SETS_ON_DEVICE
