"""The shipped skeletons are equal to the output of tools/export_inception.py for the PyTorch definition."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
import torch
from tolerances import FEATURES, U_FLOAT32

from fastfid._checks import DIMS
from fastfid.features import inception_network
from fastfid.features.inception import InceptionV3
from fastfid.features.inception_torch import FIDInception, load_weights
from fastfid.features.session import load_onnxruntime
from fastfid.features.weights import convolutions

onnxruntime = load_onnxruntime()

# torch.export copies objects of classes that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

ROOT = Path(__file__).resolve().parents[1]
SKELETONS = Path(inception_network.__file__).parent / "skeletons"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("export_inception", ROOT / "tools" / "export_inception.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=DIMS)
def dims(request):
    return request.param


@pytest.fixture(scope="module")
def shipped(dims):
    return onnx.load(SKELETONS / f"inception-{dims}.onnx", load_external_data=False)


@pytest.fixture(scope="module")
def exported(tool, dims):
    return tool.skeleton(dims)


def canonical(model):
    """Nodes in order with their attributes, and edges by the node and output that feed them: names do not matter."""
    origin = {value.name: ("input", i) for i, value in enumerate(model.graph.input)}
    origin |= {tensor.name: ("initializer", tensor.name) for tensor in model.graph.initializer}
    nodes = []
    for k, node in enumerate(model.graph.node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        nodes.append((node.domain, node.op_type, attributes, [origin[name] for name in node.input], len(node.output)))
        origin |= {name: (k, i) for i, name in enumerate(node.output)}
    return nodes, [origin[value.name] for value in model.graph.output]


def interface(model):
    values = [*model.graph.input, *model.graph.output]
    types = [value.type.tensor_type for value in values]
    axes = [[axis.dim_value or axis.dim_param for axis in t.shape.dim] for t in types]
    return [(value.name, t.elem_type, shape) for value, t, shape in zip(values, types, axes, strict=True)]


def test_exporting_again_gives_the_same_graph(shipped, exported):
    assert canonical(shipped) == canonical(exported)
    assert interface(shipped) == interface(exported)
    assert list(shipped.opset_import) == list(exported.opset_import)


def test_exporting_again_gives_the_same_initializers(shipped, exported):
    def described(model):
        return [(t.name, list(t.dims), t.data_type) for t in model.graph.initializer]

    assert described(shipped) == described(exported)


def test_skeleton_has_no_weights(shipped, dims):
    path = SKELETONS / f"inception-{dims}.onnx"
    assert path.stat().st_size < 100_000
    names = []
    for tensor in shipped.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert not tensor.raw_data
        assert not tensor.float_data
        names.append(tensor.name)
    layers = [row.name for row in convolutions() if row.dims <= dims]
    assert names == [f"{name}.conv.{part}" for name in layers for part in ("weight", "bias")]
    onnx.shape_inference.infer_shapes(shipped, check_type=True, strict_mode=True)


def test_the_map_is_that_of_a_graph_without_a_second_output(tool, dims, monkeypatch):
    """Node by node, so that the features of the FID keep their bits."""
    monkeypatch.setattr(tool, "add_spatial", lambda graph: None)
    plain = tool.skeleton(dims)
    shipped = onnx.load(SKELETONS / f"inception-{dims}.onnx", load_external_data=False)
    del shipped.graph.node[len(plain.graph.node) :]
    del shipped.graph.output[1:]
    assert shipped.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_float16_skeleton_differs_from_the_float32_one_in_its_dtype_only(shipped, dims):
    half = onnx.load(SKELETONS / f"inception-{dims}-float16.onnx", load_external_data=False)
    assert canonical(half) == canonical(shipped)  # no cast among them
    assert list(half.opset_import) == list(shipped.opset_import)
    assert [(t.name, list(t.dims)) for t in half.graph.initializer] == [
        (t.name, list(t.dims)) for t in shipped.graph.initializer
    ]
    assert {t.data_type for t in half.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert not any(t.raw_data or t.int32_data for t in half.graph.initializer)
    assert interface(half) == [(name, onnx.TensorProto.FLOAT16, shape) for name, _, shape in interface(shipped)]
    onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)


def test_exporting_float16_again_gives_the_same_bytes(tool):
    again = tool.skeleton(64, "float16").SerializeToString(deterministic=True)
    assert (SKELETONS / "inception-64-float16.onnx").read_bytes() == again


def test_axes_are_free(shipped, dims):
    assert interface(shipped) == [
        ("image", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"]),
        ("map", onnx.TensorProto.FLOAT, ["n", dims, "map_h", "map_w"]),
        *[("spatial", onnx.TensorProto.FLOAT, ["n", "spatial_length"])] * (dims == DIMS[-1]),
    ]


def test_skeleton_does_not_run_without_weights(dims):
    """Missing weights cause an error of ONNX Runtime, not meaningless features."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = (SKELETONS / f"inception-{dims}.onnx").read_bytes()
    with pytest.raises(Exception, match=r"(?i)external|initializer|weights-come-from-the-program"):
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_features_of_both_skeletons_and_of_torch(dims, exported, weights, monkeypatch, tmp_path):
    pictures = (skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee())
    photographs = np.stack([picture[:299, :299] for picture in pictures])
    features = InceptionV3(dims, device="cpu")(photographs)
    for path in SKELETONS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"inception-{dims}.onnx").write_bytes(exported.SerializeToString())
    monkeypatch.setattr(inception_network, "_skeletons", lambda: tmp_path)
    np.testing.assert_array_equal(InceptionV3(dims, device="cpu")(photographs), features)

    network = FIDInception(dims)
    load_weights(network, weights)
    x = torch.from_numpy(photographs).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = network(2 * x - 1).double().mean((2, 3)).numpy()
    np.testing.assert_allclose(features, expected, rtol=0, atol=FEATURES)


def test_table_of_convolutions(tool):
    assert json.loads((SKELETONS / "convolutions.json").read_text()) == [list(row) for row in tool.convolution_table()]


def test_command_writes_the_files(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "skeleton", lambda dims, dtype: onnx.ModelProto(producer_name=f"{dims} {dtype}"))
    monkeypatch.setattr(tool.sys, "argv", ["export_inception.py", "--output", str(tmp_path)])
    assert tool.main() == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {path.name for path in SKELETONS.iterdir()} - {"fingerprint.npz"}
    assert onnx.load(tmp_path / "inception-768.onnx").producer_name == "768 float32"
    assert onnx.load(tmp_path / "inception-768-float16.onnx").producer_name == "768 float16"
    assert (tmp_path / "convolutions.json").read_bytes() == (SKELETONS / "convolutions.json").read_bytes()


def test_fold_is_the_convolution_and_its_batch_norm(weights):
    """In float64 the folded layer is the layer."""
    layer = FIDInception(64)
    load_weights(layer, weights)
    layer = layer.Conv2d_1a_3x3.double()
    weight, bias = (torch.from_numpy(x).double() for x in inception_network._fold_batch_norm(weights.tensors[:4]))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 20, 20)))
    with torch.inference_mode():
        folded = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride=2))
        # The fold is rounded to float32 once: half a unit in the last place of each of 27 products.
        np.testing.assert_allclose(folded, layer(x), rtol=0, atol=27 * U_FLOAT32 * float(weight.abs().max()))


def test_load_weights_refuses_another_network(weights):
    network = FIDInception(64)
    network.Conv2d_2a_3x3.conv = torch.nn.Conv2d(32, 32, 5, bias=False)
    with pytest.raises(ValueError, match=r"expected a layer of shape \(32, 32, 3, 3\), got \(32, 32, 5, 5\)"):
        load_weights(network, weights)


def test_unknown_dims():
    with pytest.raises(ValueError, match="dims: expected one of 64, 192, 768, 2048; got 1008"):
        FIDInception(1008)


def test_network_starts_in_evaluation_mode_and_is_differentiable(weights):
    network = FIDInception(192)
    load_weights(network, weights)
    assert not any(module.training for module in network.modules())
    x = torch.rand(1, 3, 75, 75, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in network.parameters())


def test_stages_are_the_network(weights):
    network = FIDInception()
    load_weights(network, weights)
    x = torch.rand(1, 3, 75, 75)
    with torch.inference_mode():
        expected, y = network(x), x
        for width, stage in zip(DIMS, network.stages(), strict=True):
            y = stage(y)
            assert y.shape[1] == width
    assert torch.equal(y, expected)
    assert len(FIDInception(192).stages()) == 2
