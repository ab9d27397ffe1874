"""A torch module as an extractor: features of the original transform and the module, identity, errors."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import FLOAT32_FEATURES, NETWORKS_INPUT

import fastfid

SPEC = fastfid.InputSpec((24, 32), filter="bicubic", rounding="pillow-uint8", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


class Network(torch.nn.Module):
    """A convolution with a batch norm; its output is of several kinds."""

    def __init__(self, returned="rows", seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(3, 5, 4, 4)
        self.norm = torch.nn.BatchNorm2d(5)
        self.norm.running_mean += torch.rand(5)
        self.returned = returned
        self.eval()

    def forward(self, x):
        maps = torch.tanh(self.norm(self.conv(x)))
        rows = maps.mean(dim=(2, 3))
        tokens = maps.flatten(2).transpose(1, 2)
        kinds = {
            "rows": rows,
            "maps": maps,
            "tokens": tokens,
            "tuple": (tokens, rows),
            "dict": {"tokens": tokens, "rows": rows},
            "double": rows.double(),
            "one": rows[:1],
            "none": rows[:, :0],
            "sparse": rows.to_sparse(),
            "half": rows.half(),
            "nan": rows / 0,
        }
        if self.returned == "object":
            found = type("Output", (), {})()
            found.pooled, found.kind = rows, "x"
            return found
        return kinds[self.returned]


def pictures(n=7, high=256):
    return np.random.default_rng(high).integers(0, high, (n, 40, 31, 3), dtype=np.uint8)


def expected_rows(module, images):
    """The module's rows behind Pillow's resize, ToTensor and Normalize, one image after the other."""
    rows = []
    for image in images:
        resized = np.asarray(Image.fromarray(image).resize((32, 24), Image.BICUBIC))
        x = torch.from_numpy(resized.copy()).permute(2, 0, 1).double() / 255
        x = (x - torch.tensor(SPEC.mean)[:, None, None]) / torch.tensor(SPEC.std)[:, None, None]
        with torch.no_grad():
            rows.append(module.double()(x[None].double())[0].numpy())
    module.float()
    return np.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_features_are_the_modules(batch_size):
    module = Network()
    images = pictures()
    expected = expected_rows(Network(), images)
    extractor = fastfid.TorchExtractor(module, SPEC, batch_size=batch_size)
    assert (extractor.dims, extractor.device, extractor.precision) == (5, "cpu", "float32")
    np.testing.assert_allclose(extractor(images), expected, rtol=0, atol=NETWORKS_INPUT)
    # How many images come at once changes no bit.
    np.testing.assert_array_equal(extractor(images[:2]), extractor(images)[:2])
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("returned", "output", "select"),
    [
        ("maps", None, "mean-spatial"),
        ("tokens", None, "mean-tokens"),
        ("tuple", 1, "all"),
        ("tuple", -1, "all"),
        ("tuple", 0, "mean-tokens"),
        ("dict", "rows", "all"),
        ("object", "pooled", "all"),
    ],
)
def test_what_the_features_are_of_an_output(returned, output, select):
    from dataclasses import replace

    images = pictures()
    found = fastfid.TorchExtractor(Network(returned), replace(SPEC, select=select), output=output)
    rows = fastfid.TorchExtractor(Network(), SPEC)(images)
    np.testing.assert_allclose(found(images), rows, rtol=0, atol=FLOAT32_FEATURES)
    assert found.identity.split(":")[:-1] == ["torch", "Network", *([str(output)] if output is not None else [])]
    unit = fastfid.TorchExtractor(Network(returned), replace(SPEC, select=select, post="l2"), output=output)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit(images), rows / norms, rtol=0, atol=FLOAT32_FEATURES)


def test_the_same_network_as_a_file(tmp_path):
    import warnings

    module = Network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        torch.onnx.export(module, (torch.zeros(2, 3, 24, 32),), tmp_path / "n.onnx", dynamo=True, verbose=False)
    onnx = fastfid.OnnxExtractor(tmp_path / "n.onnx", SPEC, device="cpu")
    ours = fastfid.TorchExtractor(module, SPEC)
    real, fake = pictures(12), pictures(12, 180)
    np.testing.assert_allclose(ours(real), onnx(real), rtol=0, atol=FLOAT32_FEATURES)
    metrics = ["fid", "kid", "cmmd"]
    for name in metrics:
        found, expected = (fastfid.evaluate(real, fake, metrics=[name], extractor=one)[name] for one in (ours, onnx))
        assert found.value == pytest.approx(expected.value, rel=0, abs=NETWORKS_INPUT)
    with pytest.raises(ValueError, match="extractor"):  # two names of a network: not compared without being asked
        fastfid.compute_fid(fastfid.compute_statistics(real, extractor=onnx), fake, extractor=ours)


def test_evaluate_statistics_and_evaluator(tmp_path):
    extractor = fastfid.TorchExtractor(Network(), SPEC)
    real, fake = pictures(12), pictures(12, 180)
    value = fastfid.compute_fid(real, fake, extractor=extractor)
    rows = [expected_rows(Network(), images) for images in (real, fake)]
    gaussians = [(x.mean(0), np.cov(x, rowvar=False)) for x in rows]
    assert value == pytest.approx(fastfid.frechet_distance(*gaussians), rel=NETWORKS_INPUT)
    statistics = fastfid.compute_statistics(real, extractor=extractor)
    assert statistics.meta["extractor"] == extractor.identity
    statistics.save(tmp_path / "real.npz")
    assert fastfid.compute_fid(tmp_path / "real.npz", fake, extractor=extractor) == value
    evaluator = fastfid.Evaluator(["fid", "kid"], extractor=extractor)
    evaluator.update(torch.from_numpy(real), real=True)
    evaluator.update(torch.from_numpy(fake), real=False)
    assert evaluator.compute()["fid"].value == pytest.approx(value, rel=FLOAT32_FEATURES)
    several = fastfid.evaluate_extractors(real, fake, {"a": extractor, "b": fastfid.TorchExtractor(Network(), SPEC)})
    assert several["a"]["fid"].value == several["b"]["fid"].value == value
    stored = fastfid.evaluate(real, fake, extractor=extractor)
    assert stored["fid"].value == value


def test_identity_is_that_of_the_tensors_and_the_output():
    from dataclasses import replace

    identity = fastfid.TorchExtractor(Network(), SPEC).identity
    assert identity == fastfid.TorchExtractor(Network(), SPEC).identity
    assert identity == fastfid.TorchExtractor(Network(), replace(SPEC, mean=(0, 0, 0))).identity  # `protocol` differs
    others = [
        fastfid.TorchExtractor(Network(seed=1), SPEC),
        fastfid.TorchExtractor(Network(), SPEC, name="mine"),
        fastfid.TorchExtractor(Network("tuple"), SPEC, output=1),
        fastfid.TorchExtractor(torch.nn.Sequential(*list(Network().children()), torch.nn.Flatten()).eval(), SPEC),
    ]
    assert len({identity, *(one.identity for one in others)}) == 5
    buffer = Network()
    buffer.norm.running_mean[0] += 1
    assert fastfid.TorchExtractor(buffer, SPEC).identity != identity
    with pytest.raises(ValueError, match=r"extractor"):
        fastfid.compute_fid(
            fastfid.compute_statistics(pictures(), extractor=others[0]), pictures(), extractor=others[1]
        )


@pytest.mark.parametrize("how", ["step", "load", "data"])
def test_tensors_that_change_are_noticed(how):
    module = Network()
    extractor = fastfid.TorchExtractor(module, SPEC)
    extractor(pictures())
    if how == "step":
        with torch.no_grad():
            module.conv.weight += 1
    elif how == "load":
        module.load_state_dict(Network(seed=1).state_dict())
    else:
        module.conv.weight.data = torch.zeros_like(module.conv.weight)
    with pytest.raises(ValueError, match="its tensors were changed since: its identity is that of the old ones"):
        extractor(pictures())
    assert fastfid.TorchExtractor(module, SPEC).identity != extractor.identity


def test_copies_within_a_process_are_the_object():
    extractor = fastfid.TorchExtractor(Network(), SPEC, device="cpu")
    assert copy.copy(extractor) is extractor
    assert copy.deepcopy([extractor])[0] is extractor


def test_the_inputs_of_images(tmp_path):
    SPEC.save(tmp_path / "spec.json")
    extractor = fastfid.TorchExtractor(Network(), tmp_path / "spec.json")
    found = np.empty((3, 24, 32), np.float32)
    extractor.prepare_into(pictures()[0], found)
    np.testing.assert_array_equal(extractor.prepare(pictures()[0]), found)
    np.testing.assert_array_equal(extractor.forward(found[None]), extractor(pictures()[:1]))


def test_a_number_of_features_that_depends_on_the_size():
    class Rows(torch.nn.Module):
        def forward(self, x):
            return x.mean((1, 2))

    extractor = fastfid.TorchExtractor(Rows().eval(), fastfid.InputSpec(None, "none"))
    with pytest.raises(
        ValueError, match=r"gives its output of 31 numbers an image for inputs of \(3, 40, 31\), expected"
    ):
        extractor(pictures())


def test_sixteen_bits_and_copies():
    module = Network().bfloat16()
    extractor = fastfid.TorchExtractor(module, SPEC)
    assert extractor.precision == "bfloat16"
    rows = extractor(pictures())
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, torch.from_numpy(rows).bfloat16().float().numpy())
    assert fastfid.compute_fid(pictures(), pictures(high=200), extractor=extractor) > 0
    again = pickle.loads(pickle.dumps(extractor))
    assert (again.identity, repr(again)) == (extractor.identity, repr(extractor))
    np.testing.assert_array_equal(again(pictures()), rows)


@pytest.mark.parametrize(
    ("module", "options", "text"),
    [
        (Network().train(), {}, r"module: is in training mode: expected module\.eval\(\)"),
        (Network("double"), {}, r"expected its output as float32, or of 16 bits; got torch\.float64"),
        (Network("one"), {}, r"of shape \(1, 5\) for 32 images: expected one vector an image"),
        (Network("nan"), {}, "gives its output that is not finite for a grey image"),
        (Network("none"), {}, "gives its output of no numbers for an image"),
        (Network("sparse"), {}, r"expected its output as a dense tensor, got torch\.sparse_coo"),
        (Network("unknown"), {}, r"cannot be run on an input of shape \(32, 3, 24, 32\): KeyError: 'unknown'"),
        (torch.nn.Linear(7, 3).eval(), {}, "Linear: cannot be run on an input of .*: RuntimeError: mat1 and mat2"),
        (Network().to("meta"), {}, "module: has tensors on meta, without numbers: load a checkpoint first"),
        (Network(), {"device": "gpu"}, "device: expected one that this torch can use, got 'gpu': "),
        (Network("maps"), {}, r"expected the output its output as \(n, d\) for select 'all', got \(32, 5, 6, 8\)"),
        (Network("tuple"), {}, "in what the module returns, a tuple of 2; got None"),
        (Network("tuple"), {"output": 2}, "expected a place in what the module returns, a tuple of 2; got 2"),
        (Network("dict"), {"output": "x"}, "in what the module returns, a dict of tokens, rows; got 'x'"),
        (Network("object"), {"output": "kind"}, "in what the module returns, a Output; got 'kind'"),
        (Network(), {"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        (Network(), {"name": ""}, "name: expected printable letters, got ''"),
        (
            Network(),
            {"device": "meta"},
            r"device: the module's tensors are on cpu, expected meta: module\.to\('meta'\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(module, options, text):
    with pytest.raises(ValueError, match=text):
        fastfid.TorchExtractor(module, SPEC, **options)


def test_features_that_depend_on_the_run_are_refused():
    """A part in training mode, as after module.head.train(), and a batch norm of the images at hand."""
    part = Network()
    part.norm.train()
    with pytest.raises(ValueError, match=r"module: its part norm is in training mode: expected module\.eval\(\)"):
        fastfid.TorchExtractor(part, SPEC)
    batch = Network()
    batch.norm = torch.nn.BatchNorm2d(5, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="module: its part norm has no running statistics, so that features depend on"):
        fastfid.TorchExtractor(batch, SPEC)


class Noisy(torch.nn.Module):
    """Means of channels, to which something is done that no mode of the module shows."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x.mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: torch.nn.functional.dropout(y, 0.5),
        lambda y: y - y.mean(0),
        lambda y: y + torch.rand_like(y) * y.abs(),
    ],
)
def test_features_that_are_random_or_depend_on_other_images_are_refused(change):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.raises(ValueError, match=r"Noisy: gives one image other its output in another run, beside other"):
            fastfid.TorchExtractor(Noisy(change).eval(), fastfid.InputSpec(size=(8, 8)), batch_size=4)
    alone = fastfid.TorchExtractor(Noisy(lambda y: y * 2).eval(), fastfid.InputSpec(size=(8, 8)), batch_size=1)
    assert alone.dims == 3


def test_a_module_that_is_switched_to_training_is_refused():
    """Before it runs, so that its batch norms keep their statistics."""
    module = Network()
    extractor = fastfid.TorchExtractor(module, SPEC)
    rows = extractor(pictures())
    for part in (module, module.norm):
        part.train()
        with pytest.raises(ValueError, match=r"is in training mode: expected module\.eval\(\)"):
            extractor(pictures())
        module.eval()
    np.testing.assert_array_equal(extractor(pictures()), rows)


def test_half_rows_of_a_float32_module():
    images = pictures()
    rows = fastfid.TorchExtractor(Network("half"), SPEC)(images)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, fastfid.TorchExtractor(Network(), SPEC)(images).astype(np.float16))


def test_sparse_tensors_have_no_hash():
    module = Network()
    module.register_buffer("mask", torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match=r"module: its state has mask, a tensor of torch\.sparse_coo: expected dense"):
        fastfid.TorchExtractor(module, SPEC)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got str"):
        fastfid.TorchExtractor("net.pth", SPEC)
    with pytest.raises(TypeError, match=r"input: expected a fastfid\.InputSpec or the path of its JSON file"):
        fastfid.TorchExtractor(Network(), (24, 32))
    with pytest.raises(TypeError, match="output: expected a name or a place, got True"):
        fastfid.TorchExtractor(Network("tuple"), SPEC, output=True)
    with pytest.raises(ValueError, match="output: expected 'rows', as the InputSpec says, or neither; got 'tokens'"):
        fastfid.TorchExtractor(Network("dict"), dataclasses.replace(SPEC, output="rows"), output="tokens")

    class Stateful(Network):
        def get_extra_state(self):
            return 3

    with pytest.raises(ValueError, match="module: its state has _extra_state, which is no tensor: export it to ONNX"):
        fastfid.TorchExtractor(Stateful(), SPEC)
    mixed = Network()
    mixed.norm.double()
    with pytest.raises(ValueError, match=r"has tensors of torch\.float32, torch\.float64: expected one dtype"):
        fastfid.TorchExtractor(mixed, SPEC)
    with pytest.raises(TypeError, match=r"got Network; fastfid\.TorchExtractor\(module, fastfid\.InputSpec\("):
        fastfid.evaluate(pictures(), pictures(), extractor=Network())
