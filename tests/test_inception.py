"""The feature extractor: features, layouts, devices, errors."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from stubs import FakeRuntime
from tolerances import (
    CANCELLED_MEAN,
    FEATURES_EXACT,
    FEATURES_FLOAT16,
    FEATURES_FLOAT64,
    FEATURES_OF_NOISE,
    FLOAT16_SHOWS,
    ROUNDED_TO_FLOAT32,
)

import fastfid
from fastfid import _core
from fastfid._checks import DIMS
from fastfid.errors import BackendUnavailable, FastfidWarning, WeightsError
from fastfid.features import inception_network, session
from fastfid.features.inception import InceptionV3
from fastfid.features.inception_network import InceptionNetwork, fingerprint_input
from fastfid.features.inception_torch import FIDInception, convolutions, load_weights
from fastfid.features.make import make_extractor
from fastfid.features.session import CudaSettings
from fastfid.features.weights import IDENTITY
from fastfid.pipeline import extract
from fastfid.precisions import PRECISIONS
from fastfid.sources import open_source

SKELETONS = Path(session.__file__).parent / "skeletons"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def photographs():
    return [getattr(skimage.data, name)() for name in PHOTOGRAPHS]


@pytest.fixture(scope="module")
def prepared(photographs):
    """The photographs as pytorch-fid feeds them to the network, by torch."""
    options = {"size": (299, 299), "mode": "bilinear", "align_corners": False}
    images = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in photographs)
    return torch.cat([2 * torch.nn.functional.interpolate(x, **options) - 1 for x in images]).numpy()


@pytest.fixture(scope="module", params=DIMS)
def dims(request):
    return request.param


@pytest.fixture(scope="module")
def extractor(dims):
    return InceptionV3(dims, device="cpu")


def truth(dims, weights, x):
    """The network in float64."""
    network = FIDInception(dims)
    load_weights(network, weights)
    with torch.inference_mode():
        return network.double()(torch.from_numpy(x).double()).mean((2, 3)).numpy()


def test_features_are_those_of_the_network_in_float64(extractor, weights, prepared):
    features = extractor.forward(prepared)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, truth(extractor.dims, weights, prepared), rtol=0, atol=FEATURES_EXACT)


def test_images_come_out_as_when_torch_prepares_them(extractor, photographs, prepared):
    np.testing.assert_allclose(extractor(photographs), extractor.forward(prepared), rtol=0, atol=FEATURES_EXACT)


def test_batch_size_changes_no_bit(extractor, prepared):
    whole = extractor.forward(prepared)
    single = np.concatenate([extractor.forward(x[None]) for x in prepared])
    np.testing.assert_array_equal(whole, single)
    np.testing.assert_array_equal(whole[1:], extractor.forward(prepared[1:]))


def test_threads_change_no_bit(dims, prepared):
    try:
        _core.set_num_threads(1)
        one = InceptionV3(dims, device="cpu").forward(prepared[:2])
        _core.set_num_threads(3)
        three = InceptionV3(dims, device="cpu").forward(prepared[:2])
    finally:
        _core.set_num_threads(0)
    np.testing.assert_array_equal(one, three)


def test_attributes(extractor, dims):
    assert extractor.dims == dims
    assert extractor.identity == IDENTITY
    assert (extractor.protocol, extractor.precision, extractor.device) == ("pytorch-fid", "float32", "cpu")
    assert extractor.batch_size >= 1


@pytest.fixture(scope="module")
def small():
    return InceptionV3(64, device="cpu")


def test_layouts(small, photographs):
    nhwc = np.stack([image[:200, :300] for image in photographs])
    nchw = np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))
    expected = small(list(nhwc))
    np.testing.assert_array_equal(small(nhwc), expected)
    np.testing.assert_array_equal(small(nchw), expected)
    np.testing.assert_array_equal(small(nhwc, layout="nhwc"), expected)
    np.testing.assert_array_equal(small(nchw, layout="nchw"), expected)
    # Three rows: the shape leaves the axes open.
    with pytest.raises(ValueError, match="layout"):
        small(nchw[:, :, :, :3])
    np.testing.assert_array_equal(small(nchw[:, :, :, :3], layout="nchw"), small(nhwc[:, :, :3]))


def test_tensors_and_batches(small, photographs):
    nhwc = np.stack([image[:200, :300] for image in photographs])
    expected = small(nhwc)
    np.testing.assert_array_equal(small(torch.from_numpy(nhwc)), expected)
    np.testing.assert_array_equal(small(iter([nhwc[:1], nhwc[1:]])), expected)


def test_mixed_sizes_keep_their_order(small, photographs):
    together = small(photographs + photographs[:1])
    np.testing.assert_array_equal(together, np.concatenate([small([x]) for x in photographs + photographs[:1]]))


def test_inputs_are_left_alone(small, photographs, prepared):
    image, batch = photographs[0].copy(), prepared.copy()
    small([image])
    small.forward(batch)
    np.testing.assert_array_equal(image, photographs[0])
    np.testing.assert_array_equal(batch, prepared)


def test_any_size_without_a_resize(weights):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((75, 75), (120, 91), (299, 299))]
    for dims in (64, 2048):
        extract = InceptionV3(dims, protocol="none", device="cpu")
        for image, features in zip(images, extract(images), strict=True):
            x = (2 * (image.astype(np.float32) / 255) - 1).transpose(2, 0, 1)[None]
            np.testing.assert_allclose(features, truth(dims, weights, x)[0], rtol=0, atol=FEATURES_OF_NOISE)


# ---------------------------------------------------------------------------------------------------- spatial features


def spatial_truth(weights, x):
    """Seven channels of the layer in float64, place by place: row, column, channel."""
    network = FIDInception(2048)
    load_weights(network, weights)
    kept = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda layer, given, output: kept.append(output.numpy()))
    with torch.inference_mode():
        network.double()(torch.from_numpy(x).double())
    (maps,) = kept
    assert maps.shape == (len(x), 192, 17, 17)
    return np.stack([maps[:, c, y, x] for y in range(17) for x in range(17) for c in range(7)], axis=1)


@pytest.fixture(scope="module")
def both():
    return InceptionV3(outputs=("features", "spatial"), device="cpu")


def test_spatial_features_are_those_of_the_network_in_float64(both, weights, prepared):
    noise = np.random.default_rng(5).uniform(-1, 1, (2, *prepared.shape[1:])).astype(np.float32)
    batch = np.concatenate([prepared, noise])
    found = both.forward(batch)
    assert list(found) == ["features", "spatial"]
    assert both.outputs == {"features": 2048, "spatial": 2023}
    assert found["spatial"].shape == (6, 2023)
    assert found["spatial"].dtype == np.float32
    np.testing.assert_allclose(found["spatial"], spatial_truth(weights, batch), rtol=0, atol=FEATURES_OF_NOISE)


def test_spatial_features_change_no_bit_of_the_features(both, prepared, photographs):
    alone = InceptionV3(device="cpu")
    assert alone.outputs == {"features": 2048}
    found = both.forward(prepared)
    np.testing.assert_array_equal(found["features"], alone.forward(prepared))
    np.testing.assert_array_equal(both.features(prepared), found["features"])
    np.testing.assert_array_equal(both(photographs), alone(photographs))
    single = np.concatenate([both.forward(x[None])["spatial"] for x in prepared])
    np.testing.assert_array_equal(single, found["spatial"])
    assert both.forward(prepared[:0])["spatial"].shape == (0, 2023)


def test_spatial_features_in_float16(weights, prepared):
    network = InceptionNetwork(2048, weights, "cpu", "float16", outputs=("spatial", "features"))
    spatial = network.run(prepared[:1])["spatial"]
    assert spatial.dtype == np.float32
    error = np.abs(spatial - spatial_truth(weights, prepared[:1])).max()
    assert FLOAT16_SHOWS < error < PRECISIONS["float16"].tolerance


def test_spatial_features_go_through_the_pipeline(both, photographs, prepared):
    batches = []
    extract(
        open_source(photographs), both, lambda outputs, _: batches.append(outputs["spatial"].copy()), mixed_sizes=True
    )
    prepared = np.stack([both.prepare(image) for image in photographs])
    np.testing.assert_array_equal(np.concatenate(batches), both.forward(prepared)["spatial"])


def test_a_pickle_keeps_the_outputs(both, prepared):
    sent = pickle.loads(pickle.dumps(both))
    assert sent.outputs == both.outputs
    np.testing.assert_array_equal(sent.forward(prepared[:1])["spatial"], both.forward(prepared[:1])["spatial"])


def test_the_fingerprint_of_the_spatial_features(weights, monkeypatch, tmp_path):
    for path in SKELETONS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(SKELETONS / "fingerprint.npz") as stored:
        changed = dict(stored)
    np.testing.assert_allclose(
        changed["spatial"], spatial_truth(weights, fingerprint_input())[0], rtol=0, atol=FEATURES_FLOAT64
    )
    changed["spatial"] = changed["spatial"].reshape(17, 17, 7).transpose(2, 0, 1).ravel()  # channel, row, column
    np.savez(tmp_path / "fingerprint.npz", **changed)
    monkeypatch.setattr(inception_network, "_skeletons", lambda: tmp_path)
    InceptionNetwork(2048, weights, "cpu")
    with pytest.raises(WeightsError, match="does not reproduce the stored features"):
        InceptionNetwork(2048, weights, "cpu", outputs=("features", "spatial"))


@pytest.mark.parametrize("size", [(298, 299), (299, 300), (256, 256)])
def test_spatial_features_need_one_size(size):
    both = InceptionV3(protocol="none", outputs=["features", "spatial"], device="cpu")
    text = f"spatial features: expected network inputs of 299 x 299, got {size[0]} x {size[1]}; choose a protocol that"
    with pytest.raises(ValueError, match=text):
        both(np.zeros((1, *size, 3), np.uint8))
    assert both(np.zeros((1, 299, 299, 3), np.uint8)).shape == (1, 2048)


@pytest.mark.parametrize(
    ("dims", "outputs", "error", "text"),
    [
        (2048, "spatial", TypeError, "expected a sequence of names, such as .*; got 'spatial'"),
        (2048, None, TypeError, "expected a sequence of names, such as .*; got None"),
        (2048, ("spatial",), ValueError, r"expected 'features', or 'features' and 'spatial'; got \('spatial',\)"),
        (2048, ("features", "logits"), ValueError, r"'features' and 'spatial'; got \('features', 'logits'\)"),
        (2048, (), ValueError, r"'features' and 'spatial'; got \(\)"),
        (768, ("features", "spatial"), ValueError, "'spatial' is of the network with dims 2048, got dims 768"),
    ],
)
def test_outputs_that_there_are_not(dims, outputs, error, text):
    for make in (InceptionV3, make_extractor):
        with pytest.raises(error, match=f"^outputs: .*{text}"):
            make(dims, device="cpu", outputs=outputs)


# --------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("dims", [64, 192])
def test_float16_graph_is_the_network_in_float16(dims, weights, prepared):
    """The graph that a GPU runs, on ONNX Runtime's CPU provider, against PyTorch's own float16 convolutions."""
    features = InceptionNetwork(dims, weights, "cpu", "float16").features(prepared[:2])
    assert features.dtype == np.float32
    network = FIDInception(dims)
    load_weights(network, weights)
    for _, layer in convolutions(network):  # batch norm folded before the rounding, as the engine does
        layer.conv = torch.nn.utils.fuse_conv_bn_eval(layer.conv.double(), layer.bn.double())
        layer.bn = torch.nn.Identity()
    with torch.inference_mode():
        expected = network.half()(torch.from_numpy(prepared[:2]).half()).double().mean((2, 3)).numpy()
    np.testing.assert_allclose(features, expected, rtol=0, atol=FEATURES_FLOAT16)
    error = np.abs(features - truth(dims, weights, prepared[:2])).max()
    assert FLOAT16_SHOWS < error < PRECISIONS["float16"].tolerance


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_the_cpu_has_float32_only(precision):
    with pytest.raises(ValueError, match=f"precision: the CPU has 'float32' only, got '{precision}'"):
        InceptionV3(64, precision=precision, device="cpu")


@pytest.mark.parametrize("precision", ["fp16", "bfloat16", "", None, np.float32])
def test_unknown_precision(precision):
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, float16; got"):
        InceptionV3(64, precision=precision)


def test_another_precision_does_not_fall_back_to_the_cpu(monkeypatch):
    FakeRuntime(monkeypatch).failure = NotImplementedError("no cuDNN")
    with pytest.raises(BackendUnavailable, match="no cuDNN"):
        InceptionV3(64, device="auto", precision="float16")


def test_what_decides_the_last_bits_on_a_device(monkeypatch):
    assert InceptionV3(64, device="cpu").runtime == ""
    monkeypatch.setattr(_core, "cuda_device_name", lambda device: {1: "NVIDIA H100"}.get(device, ""))
    assert session.runtime_on("cuda:1", CudaSettings(provider="tensorrt")) == "tensorrt on NVIDIA H100"
    assert session.runtime_on("cuda:0", CudaSettings()) == "cuda on cuda:0"


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char* name, int length, int device) {
  if (device != 41) return 1;
  strncpy(name, "NVIDIA H100 80GB HBM3", length);
  return 0;
}
"""


def test_the_drivers_name_of_a_device(tmp_path):
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"], check=True)
    code = "from fastfid import _core; print(_core.cuda_driver(), [_core.cuda_device_name(i) for i in (-1, 0, 1, 2)])"
    before = os.environ.get("LD_LIBRARY_PATH")
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{before}" if before else str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "(2, '') ['', '', 'NVIDIA H100 80GB HBM3', '']\n"


@pytest.mark.parametrize(("precision", "use_tf32"), [("float32", "0"), ("tf32", "1"), ("float16", "1")])
def test_what_the_cuda_provider_is_told(precision, use_tf32, monkeypatch, weights):
    """Tensor cores where the precision has them, no fallback to the CPU, and the card that was asked for."""
    runtime = FakeRuntime(monkeypatch)
    InceptionNetwork(64, weights, "cuda:1", precision)
    InceptionNetwork(64, weights, "cuda:1", precision, SimpleNamespace(handle=77))
    without, on_stream = runtime.asked
    assert "user_compute_stream" not in without.options
    assert on_stream.options["user_compute_stream"] == "77"
    assert (without.provider, without.enable_fallback) == ("CUDAExecutionProvider", 0)
    assert (without.options["device_id"], without.options["use_tf32"]) == ("1", use_tf32)
    suffix = "-float16" if precision == "float16" else ""
    assert without.model == (SKELETONS / f"inception-64{suffix}.onnx").read_bytes()


def test_the_session_ends_before_its_stream(monkeypatch, weights):
    runtime = FakeRuntime(monkeypatch)
    ended = runtime.ended

    class Stream:
        handle = 77

        def __del__(self):
            ended.append("stream")

    network = InceptionNetwork(64, weights, "cuda:0", stream=Stream())
    assert ended == []
    del network
    assert ended == ["session", "stream"]
    # The binding alone keeps both, and lets them go in the same order.
    network = InceptionNetwork(64, weights, "cuda:0", stream=Stream())
    run = network.bind(1, (1, 3, 75, 75), 1)
    binding = runtime.bindings.pop()
    ended.clear()
    del network, run
    assert ended == []
    del binding
    assert ended == ["session", "stream"]


def test_a_first_run_that_fails(monkeypatch, weights):
    """As where cuDNN is missing, which ONNX Runtime loads when it first needs it."""
    runtime = FakeRuntime(monkeypatch)
    runtime.failure = NotImplementedError("cuDNN is unavailable")
    reason = "ONNX Runtime cannot run the network on cuda:0: cuDNN is unavailable"
    with pytest.raises(BackendUnavailable, match=reason):
        InceptionNetwork(64, weights, "cuda:0")
    with pytest.warns(FastfidWarning, match=f"running on the CPU: {reason}"):
        assert InceptionNetwork(64, weights, "auto").device == "cpu"


def test_what_a_later_run_raises_stays_as_it_is(monkeypatch, weights, prepared):
    runtime = FakeRuntime(monkeypatch)
    network = InceptionNetwork(64, weights, "cuda:0")
    runtime.failure = NotImplementedError("the device fell off the bus")
    with pytest.raises(NotImplementedError):
        network.features(prepared[:1])


def test_memory_that_others_have_is_no_missing_backend(monkeypatch, weights):
    runtime = FakeRuntime(monkeypatch)
    runtime.failure = RuntimeError("Failed to allocate memory for requested buffer")
    with pytest.raises(RuntimeError, match="allocate memory"):
        InceptionNetwork(64, weights, "auto")


def test_a_provider_that_does_not_take_the_stream_is_refused(monkeypatch, weights):
    runtime = FakeRuntime(monkeypatch)
    for runtime.stream in ("", "0"):
        with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider did not take the stream it was given"):
            InceptionNetwork(64, weights, "cuda:0", stream=SimpleNamespace(handle=77))
    runtime.stream = "77"
    assert InceptionNetwork(64, weights, "cuda:0", stream=SimpleNamespace(handle=77)).device == "cuda:0"


@pytest.mark.parametrize(("precision", "is_half"), [("tf32", "0"), ("float16", "1")])
def test_what_tensorrt_is_told(precision, is_half, monkeypatch, weights):
    runtime = FakeRuntime(monkeypatch)
    settings = CudaSettings(provider="tensorrt")
    InceptionNetwork(64, weights, "cuda:1", precision, SimpleNamespace(handle=77), settings)
    (asked,) = runtime.asked
    assert asked.provider == "TensorrtExecutionProvider"
    assert asked.options == {"device_id": "1", "trt_fp16_enable": is_half, "user_compute_stream": "77"}
    runtime.provider = "CUDAExecutionProvider"  # TensorRT is not installed
    with pytest.raises(BackendUnavailable, match="its session runs on CUDAExecutionProvider"):
        InceptionNetwork(64, weights, "cuda:1", precision, settings=settings)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("dims", [0, 128, 2047, "2048", None])
def test_unknown_dims(dims):
    with pytest.raises(ValueError, match="dims: expected one of 64, 192, 768, 2048; got"):
        InceptionV3(dims)


def test_unknown_protocol():
    with pytest.raises(ValueError, match="protocol: expected one of"):
        InceptionV3(protocol="bicubic")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", None, -1, True])
def test_unknown_device(device):
    with pytest.raises(ValueError, match="device: expected 'auto', 'cpu', 'cuda', 'cuda:N' or N"):
        InceptionV3(64, device=device)


def test_cuda_without_a_device(monkeypatch):
    monkeypatch.setattr(_core, "cuda_driver", lambda: (0, "the NVIDIA driver reports no device"))
    for device in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(BackendUnavailable, match="there is no CUDA device: the NVIDIA driver reports no device"):
            InceptionV3(64, device=device)
    assert InceptionV3(64, device="auto").device == "cpu"


def test_cuda_device_out_of_range(monkeypatch):
    monkeypatch.setattr(_core, "cuda_driver", lambda: (2, ""))
    with pytest.raises(BackendUnavailable, match="the driver has 2 CUDA device"):
        InceptionV3(64, device="cuda:2")


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError, "expected uint8 images"),
        (np.zeros((2, 8, 8, 3), np.int64), TypeError, "expected uint8 images"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"\(n, h, w, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), ValueError, r"\(n, h, w, 3\)"),
        ([np.zeros((8, 8), np.uint8)], ValueError, r"\(n, h, w, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "no images"),
        ([], ValueError, "images: expected at least one image, got none"),
        (7, TypeError, "got int"),
    ],
)
def test_bad_images(small, images, error, text):
    with pytest.raises(error, match=text):
        small(images)


def test_small_images_need_a_resize(small):
    extract = InceptionV3(64, protocol="none", device="cpu")
    with pytest.raises(ValueError, match="75"):
        extract(np.zeros((1, 74, 80, 3), np.uint8))


def test_cuda_that_cannot_be_used(monkeypatch, capfd):
    """A driver with a device, but no CUDA libraries: an error that says so, and nothing else on stdout or stderr."""
    monkeypatch.setattr(_core, "cuda_driver", lambda: (64, ""))  # device 63 exists on no machine
    with pytest.raises(BackendUnavailable, match="cuda:63"):
        InceptionV3(64, device="cuda:63")
    assert capfd.readouterr() == ("", "")


def test_auto_says_why_it_runs_on_the_cpu(monkeypatch, photographs):
    expected = InceptionV3(64, device="cpu")(photographs)
    FakeRuntime(monkeypatch).failure = NotImplementedError("no cuDNN")
    with pytest.warns(FastfidWarning, match=r"running on the CPU: ONNX Runtime cannot run .* cuda:0: no cuDNN"):
        extract = InceptionV3(64, device="auto")
    assert extract.device == "cpu"
    np.testing.assert_array_equal(extract(photographs), expected)


def test_both_runtimes_in_one_environment(monkeypatch):
    monkeypatch.setattr(session.importlib.metadata, "version", lambda name: "1.31.1")
    facts = session.runtime_facts()
    assert facts["onnxruntime"] == "onnxruntime 1.31.1, onnxruntime-gpu 1.31.1"
    for text in (facts["onnxruntime_conflict"], session._cuda_needs("")):
        assert "pip uninstall -y onnxruntime onnxruntime-gpu" in text
        assert "pip install onnxruntime-gpu" in text


def test_the_runtime_for_the_cpu_alone(monkeypatch):
    def version(name):
        if name == "onnxruntime-gpu":
            raise session.importlib.metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(session.importlib.metadata, "version", version)
    assert session._cuda_needs("").startswith("pip uninstall -y onnxruntime; pip install '.[cuda]'")


def test_runtime_that_cannot_be_imported(monkeypatch):
    session.load_onnxruntime.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    try:
        with pytest.raises(BackendUnavailable, match="ONNX Runtime cannot be loaded"):
            InceptionV3(64, device="cpu")
        assert "cannot be loaded" in session.runtime_facts()["onnxruntime_providers"]
    finally:
        session.load_onnxruntime.cache_clear()


@pytest.mark.parametrize("dims", DIMS)
def test_fingerprint_is_the_network_in_float64(dims, weights):
    with np.load(SKELETONS / "fingerprint.npz") as stored:
        expected = stored[str(dims)]
    np.testing.assert_allclose(expected, truth(dims, weights, fingerprint_input())[0], rtol=0, atol=FEATURES_FLOAT64)


@pytest.mark.parametrize("layer", [0, 4, 9, 33, 69, 70, 93])
def test_one_exchanged_tensor_is_noticed(layer, weights):
    """The fingerprint sees one channel of one layer. (Of all 94 layers' first channels it misses one, a dead one.)"""
    tensors = list(weights.tensors)
    beta, mean = tensors[4 * layer + 1].copy(), tensors[4 * layer + 2].copy()
    beta[0], mean[0] = mean[0], beta[0]
    tensors[4 * layer + 1 : 4 * layer + 3] = beta, mean
    with pytest.raises(WeightsError, match="does not reproduce the stored features"):
        InceptionNetwork(2048, dataclasses.replace(weights, tensors=tuple(tensors)), "cpu")


def test_import_is_light():
    """`import fastfid`, and even the extractor's module, loads neither ONNX Runtime nor torch."""
    code = (
        "import sys, fastfid.features.inception as _; print([m for m in ('onnxruntime', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------ spatial mean


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 7), (3, 64, 73, 73), (5, 2048, 8, 8), (0, 4, 2, 2), (2, 0, 2, 2)]
)
def test_spatial_mean_is_numpy_in_float64(shape):
    # Large values that cancel: a float32 sum would be off in the third digit.
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(shape) + 1e3 * rng.choice([-1, 1], shape)).astype(np.float32)
    expected = x.astype(np.float64).mean((2, 3))
    np.testing.assert_allclose(_core.spatial_mean(x), expected, rtol=ROUNDED_TO_FLOAT32, atol=CANCELLED_MEAN)


def test_spatial_mean_does_not_depend_on_threads():
    x = np.random.default_rng(2).standard_normal((3, 97, 31, 37), np.float32)
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(_core.spatial_mean(x))
    finally:
        _core.set_num_threads(0)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((1, 2, 3, 4)), TypeError),
        (np.zeros((1, 2, 3), np.float32), TypeError),
        (np.zeros((1, 2, 3, 8), np.float32)[..., ::2], TypeError),
        (np.zeros((1, 2, 0, 4), np.float32), ValueError),
        ([[[[1.0]]]], TypeError),
    ],
)
def test_spatial_mean_refuses(x, error):
    with pytest.raises(error, match="map: expected"):
        _core.spatial_mean(x)


def test_a_network_can_be_copied_and_sent(small):
    images = np.random.default_rng(1).integers(0, 256, (2, 90, 80, 3), dtype=np.uint8)
    assert copy.deepcopy(small) is copy.copy(small) is small
    sent = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(sent(images), small(images))
    fid = fastfid.FID(extractor=small)
    fid.update(images, real=True)
    assert copy.deepcopy(fid).extractor is small
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fid)).real.mu, fid.real.mu)
