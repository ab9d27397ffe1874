"""Any network in an ONNX file: its features in closed form, its identity, and what does not fit."""

import copy
import dataclasses
import hashlib
import os
import pickle
import re

import numpy as np
import onnx
import onnx.parser
import pytest
import scipy.linalg
import torch
from stubs import FakeRuntime, Tensor
from tolerances import FLOAT32_FEATURES, FLOAT32_PRODUCT, NETWORKS_INPUT

import fastfid
from fastfid import _core
from fastfid.errors import BackendUnavailable, FastfidWarning
from fastfid.features import session
from fastfid.features.onnx_file import tensor_files
from fastfid.features.onnx_model import OnnxExtractor
from fastfid.input_spec import InputSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = InputSpec((12, 20), mean=MEAN, std=STD)

MEANS = "{ y = ReduceMean <axes = [2, 3], keepdims = 0> (x) }"
# Means and second moments of each channel: six features, of which no two are the same line.
SIX = """{
  first = ReduceMean <axes = [2, 3], keepdims = 0> (x)
  square = Mul (x, x)
  second = ReduceMean <axes = [2, 3], keepdims = 0> (square)
  y = Concat <axis = 1> (first, second)
}"""


def write(folder, inputs="float[n, 3, 12, 20] x", outputs="float[n, 3] y", body=MEANS, name="network.onnx"):
    """Write a network and return its path."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {body}')
    onnx.save(model, folder / name)
    return folder / name


def images(n, seed, size=(12, 20)):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def means_in_float64(pictures):
    """The truth where nothing is resized."""
    return (pictures.astype(np.float64).mean((1, 2)) / 255 - MEAN) / STD


def opened(path, spec=SPEC, **options):
    return OnnxExtractor(path, spec, **{"device": "cpu", **options})


# ---------------------------------------------------------------------------------------------------------- features


def test_features_have_their_closed_form(tmp_path):
    pictures = images(7, 1)
    extractor = opened(write(tmp_path))
    features = extractor(pictures)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, means_in_float64(pictures), rtol=0, atol=NETWORKS_INPUT)
    assert (extractor.dims, dict(extractor.outputs), extractor.device) == (3, {"features": 3}, "cpu")
    assert extractor.input_shape == (3, 12, 20)


@pytest.mark.parametrize("antialias", [False, True])
def test_images_are_resized_as_the_spec_says(tmp_path, antialias):
    pictures = images(3, 2, (50, 41))
    spec = InputSpec((12, 20), mean=MEAN, std=STD, antialias=antialias)
    got = opened(write(tmp_path, outputs="float[n, 6] y", body=SIX), spec)(pictures)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).double()
    x = torch.nn.functional.interpolate(x, (12, 20), mode="bilinear", antialias=antialias, align_corners=False) / 255
    x = (x - torch.tensor(MEAN).double()[:, None, None]) / torch.tensor(STD).double()[:, None, None]
    expected = torch.cat([x.mean((2, 3)), (x * x).mean((2, 3))], 1).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=NETWORKS_INPUT)


def test_images_may_keep_their_size(tmp_path):
    path = write(tmp_path, "float[n, 3, h, w] x")
    spec = InputSpec(None, "none", mean=MEAN, std=STD)
    extractor = opened(path, spec)
    assert extractor.input_shape is None
    for size in ((5, 9), (40, 31)):
        pictures = images(4, 3, size)
        np.testing.assert_allclose(extractor(pictures), means_in_float64(pictures), rtol=0, atol=NETWORKS_INPUT)
    with pytest.raises(ValueError, match=r"protocol 'any size no resize .*' needs images of one size"):
        fastfid.compute_statistics([images(1, 1)[0], images(1, 1, (9, 9))[0]], extractor=extractor)


@pytest.mark.parametrize("outputs", ["float[n, 3] y", "float[n, d] y", "float[a, b] y"])
@pytest.mark.parametrize("inputs", ["float[n, 3, 12, 20] x", "float[n, 3, h, w] x", "float[n, c, 12, w] x"])
def test_open_lengths(tmp_path, inputs, outputs):
    pictures = images(3, 4)
    extractor = opened(write(tmp_path, inputs, outputs))
    assert extractor.dims == 3
    np.testing.assert_allclose(extractor(pictures), means_in_float64(pictures), rtol=0, atol=NETWORKS_INPUT)


@pytest.fixture
def product(tmp_path):
    """A matrix product over 720 pixels: its sums take another order for other numbers of rows, on some processors."""
    path = write(tmp_path, outputs="float[n, 33] y", body="{ rows = Flatten (x)  y = MatMul (rows, w) }")
    model = onnx.load(path)
    weight = np.random.default_rng(0).normal(size=(720, 33)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    return path, weight


def test_batches_and_workers_change_no_bit(product):
    path, weight = product
    pictures = images(11, 5)
    extractor = opened(path)
    prepared = np.stack([extractor.prepare(picture) for picture in pictures])
    whole = extractor.forward(prepared)
    expected = prepared.reshape(11, -1).astype(np.float64) @ weight.astype(np.float64)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=FLOAT32_PRODUCT)
    for size in (1, 2, 3, 7):
        parts = [extractor.forward(prepared[i : i + size]) for i in range(0, 11, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(extractor(pictures), whole)
    np.testing.assert_array_equal(extractor(iter([pictures[:4], pictures[4:5], pictures[5:]])), whole)
    sets = [fastfid.compute_statistics(pictures, extractor=extractor, num_workers=n) for n in (0, 1, 3)]
    for statistics in sets[1:]:
        np.testing.assert_array_equal(statistics.rows, sets[0].rows)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_number_of_images(tmp_path, fixed):
    pictures = images(7, 6)
    extractor = opened(write(tmp_path, f"float[{fixed}, 3, 12, 20] x", f"float[{fixed}, 3] y"))
    assert extractor.batch_size == fixed
    np.testing.assert_array_equal(extractor(pictures), opened(write(tmp_path))(pictures))


def test_one_output_of_several(tmp_path):
    both = "{ y = ReduceMean <axes = [2, 3], keepdims = 0> (x)  z = ReduceMax <axes = [2, 3], keepdims = 0> (x) }"
    path = write(tmp_path, outputs="float[n, 3] y, float[n, 3] z", body=both)
    pictures = images(3, 7)
    np.testing.assert_allclose(
        opened(path, output="y")(pictures), means_in_float64(pictures), rtol=0, atol=NETWORKS_INPUT
    )
    most = (pictures.max((1, 2)) / 255 - MEAN) / STD
    np.testing.assert_allclose(opened(path, output="z")(pictures), most, rtol=0, atol=NETWORKS_INPUT)
    with pytest.raises(ValueError, match=r"has 2 outputs, name one by output: y \(float\) \(n, 3\), z \(float\)"):
        opened(path)


# Tokens: the rows of the picture, (n, 12, 60); the map: the picture itself.
TOKENS = "<int64[3] to = {-1, 12, 60}> { rows = Transpose <perm = [0, 2, 3, 1]> (x)  y = Reshape (rows, to) }"
MAP = "{ y = Identity (x) }"


def rows_in_float64(pictures):
    return ((pictures.astype(np.float64) / 255 - MEAN) / STD).reshape(len(pictures), 12, 60)


@pytest.mark.parametrize(
    ("select", "outputs", "body", "truth"),
    [
        ("token:0", "float[n, 12, 60] y", TOKENS, lambda x: rows_in_float64(x)[:, 0]),
        ("token:11", "float[n, 12, 60] y", TOKENS, lambda x: rows_in_float64(x)[:, 11]),
        ("mean-tokens", "float[n, t, d] y", TOKENS, lambda x: rows_in_float64(x).mean(1)),
        ("mean-spatial", "float[n, 3, 12, 20] y", MAP, means_in_float64),
    ],
)
@pytest.mark.parametrize("inputs", ["float[n, 3, 12, 20] x", "float[2, 3, 12, 20] x"])
def test_what_of_the_output_are_the_features(tmp_path, select, outputs, body, truth, inputs):
    path = write(tmp_path, inputs, outputs, body)
    pictures = images(5, 31)
    spec = dataclasses.replace(SPEC, select=select)
    extractor = opened(path, spec)
    expected = truth(pictures)
    assert extractor.dims == expected.shape[1]
    np.testing.assert_allclose(extractor(pictures), expected, rtol=0, atol=NETWORKS_INPUT)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    unit = opened(path, dataclasses.replace(spec, post="l2"))(pictures)
    np.testing.assert_allclose(unit, expected / norms, rtol=0, atol=NETWORKS_INPUT)
    scaled = opened(path, dataclasses.replace(spec, post="l2-sqrt-d"))(pictures)
    root = np.sqrt(expected.shape[1])
    np.testing.assert_allclose(scaled, root * expected / norms, rtol=0, atol=root * NETWORKS_INPUT)


def test_channels_last_and_blue_first(tmp_path):
    """The channels of the input are blue, green and red; mean, deviation and features come in that order."""
    pictures = images(3, 32)
    expected = means_in_float64(pictures)[:, ::-1]
    last = {"layout": "nhwc", "channels": "bgr"}
    spec = InputSpec((12, 20), mean=MEAN[::-1], std=STD[::-1], **last)
    path = write(tmp_path, "float[n, 12, 20, 3] x", "float[n, 3] y", MEANS.replace("2, 3", "1, 2"))
    np.testing.assert_allclose(opened(path, spec)(pictures), expected, rtol=0, atol=NETWORKS_INPUT)
    path = write(tmp_path, "float[n, h, w, 3] x", "float[n, h, w, 3] y", MAP)
    extractor = opened(path, dataclasses.replace(spec, select="mean-spatial"))
    assert extractor.input_shape == (12, 20, 3)
    np.testing.assert_allclose(extractor(pictures), expected, rtol=0, atol=NETWORKS_INPUT)
    means = fastfid.compute_statistics(pictures, extractor=extractor).mu
    np.testing.assert_allclose(means, expected.mean(0), rtol=0, atol=NETWORKS_INPUT)


def test_a_vector_of_zeros_has_no_direction(tmp_path):
    spec = dataclasses.replace(SPEC, mean=(0, 0, 0), post="l2")
    for fixed in ("n", 4):  # a run is filled up with images of zeros, which are nobody's
        extractor = opened(write(tmp_path, f"float[{fixed}, 3, 12, 20] x", f"float[{fixed}, 3] y"), spec)
        assert np.isfinite(extractor(images(3, 33))).all()
        black = np.zeros((2, 12, 20, 3), np.uint8)
        with pytest.raises(ValueError, match=r"network\.onnx: gives y = 0 for an image, which has no direction"):
            extractor(black)


@pytest.mark.parametrize(
    ("select", "outputs", "body", "text"),
    [
        ("token:12", "float[n, 12, 60] y", TOKENS, r"select 'token:12': y has 12 tokens, 0 to 11"),
        ("all", "float[n, 12, 60] y", TOKENS, r"as \(n, d\) for select 'all', got \(n, 12, 60\)"),
        ("token:0", "float[n, 3] y", MEANS, r"as \(n, tokens, d\) for select 'token:0', got \(n, 3\)"),
        ("mean-tokens", "float[n, 3, 12, 20] y", MAP, r"as \(n, tokens, d\) for select 'mean-tokens'"),
        ("mean-spatial", "float[n, 12, 60] y", TOKENS, r"as \(n, d, h, w\) for select 'mean-spatial'"),
        ("mean-spatial", "float y", TOKENS, r"as \(n, d, h, w\) for select 'mean-spatial', got \(1, 12, 60\)"),
    ],
)
def test_an_output_of_other_axes(tmp_path, select, outputs, body, text):
    with pytest.raises(ValueError, match=rf"network\.onnx: .*{text}"):
        opened(write(tmp_path, outputs=outputs, body=body), dataclasses.replace(SPEC, select=select))


def test_an_output_without_numbers_or_with_two_lines_in_its_name(tmp_path):
    body = "<int64[1] zero = {0}, int64[1] axis = {1}> { means = ReduceMean <axes = [2, 3], keepdims = 0> (x)"
    path = write(tmp_path, outputs="float[n, d] y", body=f"{body} y = Slice (means, zero, zero, axis) }}")
    with pytest.raises(ValueError, match=r"network\.onnx: gives y of no numbers for an image"):
        opened(path)
    model = onnx.load(write(tmp_path))
    model.graph.output[0].name = model.graph.node[0].output[0] = "y\nz"
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"expected an output whose name has printable letters, got 'y\\nz'"):
        opened(path)


def test_the_spec_lies_beside_the_file(tmp_path):
    path = write(tmp_path)
    with pytest.raises(
        ValueError, match=r"network\.onnx: how its input is made is not known, and there is no .*\.json"
    ):
        OnnxExtractor(path, device="cpu")
    SPEC.save(tmp_path / "network.fastfid.json")
    SPEC.save(tmp_path / "elsewhere.json")
    expected = opened(path)
    for extractor in (
        OnnxExtractor(path, device="cpu"),
        OnnxExtractor(path, tmp_path / "elsewhere.json", device="cpu"),
    ):
        assert (extractor.identity, extractor.protocol) == (expected.identity, expected.protocol)
    (tmp_path / "network.fastfid.json").write_text("{}")
    with pytest.raises(ValueError, match=r"network\.fastfid\.json: expected the key 'size'"):
        OnnxExtractor(path, device="cpu")


# ----------------------------------------------------------------------------------------------------------- metrics


def brute_force_fid(a, b):
    difference = a.mean(0) - b.mean(0)
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The eigenvalues of a product of two covariances are those of a symmetric matrix: real and not negative.
    root = np.sqrt(np.maximum(scipy.linalg.eigvals(sa @ sb).real, 0)).sum()
    return difference @ difference + np.trace(sa) + np.trace(sb) - 2 * root


def test_fid_and_kid_are_those_of_the_closed_form(tmp_path):
    real, fake = images(60, 8), images(50, 9) // 2
    extractor = opened(write(tmp_path))
    a, b = means_in_float64(real), means_in_float64(fake)
    assert fastfid.compute_fid(real, fake, extractor=extractor) == pytest.approx(
        brute_force_fid(a, b), rel=FLOAT32_FEATURES
    )
    found = fastfid.evaluate(real, fake, metrics=("fid", "kid"), extractor=extractor)
    assert found["fid"].value == pytest.approx(brute_force_fid(a, b), rel=FLOAT32_FEATURES)

    def kernel(x, y):
        return (x @ y.T / 3 + 1) ** 3

    m, n = len(a), len(b)
    same = (kernel(a, a).sum() - np.trace(kernel(a, a))) / (m * (m - 1))
    same += (kernel(b, b).sum() - np.trace(kernel(b, b))) / (n * (n - 1))
    assert found["kid"].value == pytest.approx(same - 2 * kernel(a, b).mean(), rel=FLOAT32_FEATURES)


def test_in_a_training_loop(tmp_path):
    real, fake = images(20, 10), images(24, 11) // 2
    extractor = opened(write(tmp_path))
    metric = fastfid.FID(extractor=extractor)
    for part, is_real in ((real, True), (fake[:7], False), (fake[7:], False)):
        metric.update(part, real=is_real)
    assert metric.compute() == fastfid.compute_fid(real, fake, extractor=extractor)


# ---------------------------------------------------------------------------------------------------------- identity


def test_statistics_of_other_networks_and_specs_are_refused(tmp_path):
    real, fake = images(20, 12), images(20, 13)
    extractor = opened(write(tmp_path))
    file = fastfid.compute_statistics(real, extractor=extractor).save(tmp_path / "real.npz")
    expected = fastfid.compute_fid(real, fake, extractor=extractor)
    assert fastfid.compute_fid(file, fake, extractor=extractor) == expected
    other_bytes = opened(
        write(tmp_path, outputs="float[n, 3] y", body=MEANS.replace("[2, 3]", "[3, 2]"), name="o.onnx")
    )
    with pytest.raises(ValueError, match=r"made with extractor onnx:y:\w{64}, and .* has onnx:y:\w{64}: "):
        fastfid.compute_fid(file, fake, extractor=other_bytes)
    named = opened(write(tmp_path), name="ours")
    with pytest.raises(ValueError, match=r"the other side has ours:y:"):
        fastfid.compute_fid(file, fake, extractor=named)
    other_spec = opened(write(tmp_path), InputSpec((12, 20), mean=MEAN))
    with pytest.raises(ValueError, match=r"with protocol 12x20 .* std 0\.229.* has 12x20 .* std 1\.0"):
        fastfid.compute_fid(file, fake, extractor=other_spec)


def test_the_identity_is_that_of_the_bytes(tmp_path):
    a = opened(write(tmp_path))
    (tmp_path / "elsewhere.onnx").write_bytes((tmp_path / "network.onnx").read_bytes())
    assert opened(tmp_path / "elsewhere.onnx").identity == a.identity
    assert a.identity.startswith("onnx:y:")


def test_equal_specs_have_one_word_and_others_another():
    words = {
        spec.protocol
        for spec in (
            SPEC,
            InputSpec((20, 12), mean=MEAN, std=STD),
            InputSpec((12, 20), mean=MEAN),
            InputSpec((12, 20), std=STD),
            InputSpec((12, 20), mean=MEAN, std=(0.229, 0.224, np.nextafter(0.225, 1))),
            InputSpec((12, 20), mean=MEAN, std=STD, antialias=False),
            InputSpec((12, 20), mean=MEAN, std=STD, rounding="clip"),
            InputSpec(None, "none", mean=MEAN, std=STD),
        )
    }
    assert len(words) == 8
    same = InputSpec(np.array([12, 20]), mean=list(MEAN), std=np.array(STD))
    assert same == SPEC
    assert same.protocol == SPEC.protocol
    assert InputSpec(None, "none", "bicubic").protocol == InputSpec(None, "none").protocol  # nothing is resized


def test_copies_and_pickles(tmp_path):
    path = write(tmp_path)
    extractor = opened(path, name="ours")
    assert copy.deepcopy(extractor) is extractor
    pickled = pickle.dumps(extractor)
    pictures = images(2, 14)
    back = pickle.loads(pickled)
    assert back.identity == extractor.identity
    np.testing.assert_array_equal(back(pictures), extractor(pictures))
    assert repr(back) == repr(extractor)
    assert repr(back).startswith(f"OnnxExtractor({str(path)!r}, output='y', dims=3, protocol='12x20 ")
    write(tmp_path, body=MEANS.replace("[2, 3]", "[3, 2]"))
    with pytest.raises(ValueError, match=r"network\.onnx: has changed: it is ours:y:\w+ now, ours:y:\w+ was pickled"):
        pickle.loads(pickled)


# ------------------------------------------------------------------------------------------------------------ errors


def test_outputs_that_are_no_vector_an_image(tmp_path):
    body = "<int64[2] to = {-1, 1}> { m = ReduceMean <axes = [2, 3], keepdims = 0> (x)  y = Reshape (m, to) }"
    path = write(tmp_path, outputs="float[m, d] y", body=body)
    with pytest.raises(ValueError, match=r"network\.onnx: gives y of shape \(3, 1\) for 1 images: expected one vector"):
        opened(path)
    body = "<int64[1] zero = {0}, int64[1] axis = {1}> { y = Slice (x, zero, zero, axis) }"
    path = write(tmp_path, "float[n, 12, 20, 3] x", "float[n, h, w, 3] y", body)
    spec = dataclasses.replace(SPEC, layout="nhwc", select="mean-spatial")
    with pytest.raises(ValueError, match=r"network\.onnx: y of shape \(1, 0, 20, 3\) has nothing to take a mean of"):
        opened(path, spec)


def test_a_number_of_features_that_depends_on_the_size(tmp_path):
    body = "{ y = ReduceMean <axes = [1, 2], keepdims = 0> (x) }"
    path = write(tmp_path, "float[n, 3, h, w] x", "float[n, w] y", body)
    spec = InputSpec(None, "none", mean=MEAN, std=STD)
    extractor = opened(path, spec)
    with pytest.raises(
        ValueError, match=r"network\.onnx: gives y of shape \(1, 7\) for inputs of \(3, 5, 7\), expected"
    ):
        extractor(images(2, 1, (5, 7)))


@pytest.mark.parametrize(
    ("inputs", "outputs", "body", "text"),
    [
        (
            "float[n, 3, 12, 20] x, float[n] mask",
            "float[n, 3] y",
            MEANS,
            r"expected one input, float32 \(n, 3, h, w\), got 2: x \(float\) \(n, 3, 12, 20\), mask \(float\) \(n\)",
        ),
        ("float16[n, 3, 12, 20] x", "float16[n, 3] y", MEANS, r"got x \(float16\) .* Export it in float32, or cast"),
        ("uint8[n, 3, 12, 20] x", "uint8[n, 3, 12, 20] y", "{ y = Identity (x) }", r"got x \(uint8\)"),
        ("float[n, 720] x", "float[n, 720] y", "{ y = Relu (x) }", r"got x \(float\) \(n, 720\)\. Export it with"),
        ("float x", "float y", "{ y = Relu (x) }", "got x of unknown shape"),
        (
            "float[n, 12, 20, 3] x",
            "float[n, 3] y",
            MEANS.replace("2, 3", "1, 2"),
            r"3\)\. Give its .* layout 'nhwc'",
        ),
        ("float[n, 1, 12, 20] x", "float[n, 1] y", MEANS, r"1, 12, 20\)\. Images have three channels"),
        (
            "float[n, 3, 24, 20] x",
            "float[n, 3] y",
            MEANS,
            r"takes 24 x 20 \(height x width\), and its InputSpec makes 12 x 20: give it that size",
        ),
        ("float[n, 3, h, 24] x", "float[n, 3] y", MEANS, r"takes \? x 24 .* makes 12 x 20"),
        (
            "float[n, 3, 12, 20] x",
            "float[n, 3, 240] y",
            "<int64[3] to = {0, 3, 240}> { y = Reshape (x, to) }",
            r"expected the output y as \(n, d\) for select 'all', got \(n, 3, 240\)\. Select 'all' is for",
        ),
        ("float[n, 3, 12, 20] x", "float[n, 3, 12, 20] y", "{ y = Relu (x) }", r"got \(n, 3, 12, 20\)\. Select 'all'"),
        (
            "float[n, 3, 12, 20] x",
            "float y",
            "{ y = ReduceMean <keepdims = 0> (x) }",
            r"for select 'all', got \(\)",
        ),
        (
            "float[n, 3, 12, 20] x",
            "int64[n, 3] y",
            "{ m = ReduceMean <axes = [2, 3], keepdims = 0> (x)  y = Cast <to = 7> (m) }",
            r"expected the output as float32, got y \(int64\) \(n, 3\)\. Cast in the graph",
        ),
        (
            "float[n, 3, 12, 20] x",
            "float[n, 3] y",
            "{ m = ReduceMean <axes = [2, 3], keepdims = 0> (x)  z = Sub (m, m)  y = Div (z, z) }",
            r"gives y that is not finite for a grey image: is this its InputSpec\?",
        ),
        (
            "float[n, 3, h, w] x",
            "float[n, 7] y",
            "<int64[2] to = {-1, 7}> { y = Reshape (x, to) }",
            r"cannot be run on inputs of shape \(1, 3, 12, 20\)",
        ),
        (
            "float[n, 3, 12, 20] x",
            "float[n, 3] y",
            "{ y = Nonsense (x) }",
            r"ONNX Runtime \S+ can run: .*Nonsense",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, inputs, outputs, body, text):
    path = write(tmp_path, inputs, outputs, body)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{text}"):
        opened(path)


def test_a_fixed_size_needs_a_resize(tmp_path):
    with pytest.raises(ValueError, match=r"takes 12 x 20 .*, and its InputSpec leaves images their size"):
        opened(write(tmp_path), InputSpec(None, "none"))


def test_an_output_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"output: there is none called 'pooled'; it has y \(float\) \(n, 3\)"):
        opened(write(tmp_path), output="pooled")


@pytest.mark.parametrize("damage", [lambda model: model[:-9], lambda model: b"", lambda model: b"no model" * 9])
def test_damaged_files(tmp_path, damage):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damage(write(tmp_path).read_bytes()))
    with pytest.raises(ValueError, match=r"damaged\.onnx: expected a whole ONNX file that ONNX"):
        opened(path)


@pytest.fixture
def with_files(product):
    """The product with its tensor in a file of its own, the inputs beside it, and the features of the one file."""
    path, _ = product
    pictures = images(3, 21)
    expected = opened(path)
    model = onnx.load(path)
    folder = path.parent / "apart"
    (folder / "deep").mkdir(parents=True)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="deep/tensors.bin", size_threshold=0)
    return folder, pictures, expected(pictures), expected.identity


def test_tensors_in_files_of_their_own(with_files, monkeypatch):
    """They are in the identity, and are found from any working folder."""
    folder, pictures, expected, identity = with_files
    extractor = opened(folder / "m.onnx")
    np.testing.assert_array_equal(extractor(pictures), expected)
    own, tensors = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("m.onnx", "deep/tensors.bin"))
    both = hashlib.sha256(f"{own}\n{tensors} deep/tensors.bin\n".encode()).hexdigest()
    assert extractor.identity == f"onnx:y:{both}" != identity
    monkeypatch.chdir(folder)
    assert opened("m.onnx").identity == extractor.identity
    pickled = pickle.dumps(extractor)
    content = bytearray((folder / "deep/tensors.bin").read_bytes())
    content[0] ^= 1
    (folder / "deep/tensors.bin").write_bytes(content)
    assert opened(folder / "m.onnx").identity != extractor.identity
    with pytest.raises(ValueError, match=r"m\.onnx: has changed"):
        pickle.loads(pickled)


def test_files_of_tensors_that_do_not_fit(with_files):
    folder, *_ = with_files
    path, tensors = folder / "m.onnx", folder / "deep" / "tensors.bin"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"m\.onnx: expected a whole ONNX file .*out of bounds"):
        opened(path)
    tensors.unlink()
    with pytest.raises(ValueError, match=r"m\.onnx: its tensors are in 'deep/tensors\.bin', which cannot be"):
        opened(path)
    os.mkfifo(tensors)
    with pytest.raises(ValueError, match=r"tensors\.bin: is not a regular file"):
        opened(path)
    model = onnx.load(path, load_external_data=False)
    for location in ("../tensors.bin", "/etc/passwd", "deep/../../x", "a\nb"):
        entry = next(one for one in model.graph.initializer[0].external_data if one.key == "location")
        entry.value = location
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=r"m\.onnx: names a file with tensors outside of its folder"):
            opened(path)


def test_every_place_of_a_tensor_is_searched():
    """The schema of onnx.proto is the truth: messages, their numbers, and what they hold."""

    def tensor(location):
        found = onnx.TensorProto(name="t", data_location=onnx.TensorProto.EXTERNAL)
        found.external_data.add(key="length", value="12")
        found.external_data.add(key="location", value=location)
        return found

    def node(*attributes):
        return onnx.NodeProto(op_type="If", attribute=attributes)

    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"), dims=[9] * 100)
    inner = onnx.GraphProto(initializer=[tensor("inner")], node=[node(onnx.AttributeProto(t=tensor("constant")))])
    graph = onnx.GraphProto(
        initializer=[tensor("b"), tensor("a"), tensor("b")],
        sparse_initializer=[sparse],
        node=[
            node(onnx.AttributeProto(g=inner, f=1.5), onnx.AttributeProto(tensors=[tensor("list")])),
            node(onnx.AttributeProto(graphs=[onnx.GraphProto(initializer=[tensor("branch")])])),
            node(onnx.AttributeProto(sparse_tensor=onnx.SparseTensorProto(values=tensor("s")), floats=[1, 2])),
            node(onnx.AttributeProto(sparse_tensors=[onnx.SparseTensorProto(indices=tensor("ss"))])),
        ],
    )
    function = onnx.FunctionProto(
        node=[node(onnx.AttributeProto(t=tensor("function")))],
        attribute_proto=[onnx.AttributeProto(t=tensor("default"))],
    )
    model = onnx.ModelProto(ir_version=8, graph=graph, functions=[function], doc_string="location").SerializeToString()
    places = ["a", "b", "branch", "constant", "default", "function", "indices", "inner", "list", "s", "ss", "values"]
    assert tensor_files(model) == places
    for end in range(0, len(model), 7):
        assert set(tensor_files(model[:end])) <= set(places)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx"):
        opened(tmp_path / "missing.onnx")
    with pytest.raises(IsADirectoryError):
        opened(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ValueError, match=r"pipe\.onnx: is not a regular file"):
        opened(tmp_path / "pipe.onnx")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"spec": (12, 20)},
            TypeError,
            r"input: expected a fastfid\.InputSpec or the path of its JSON",
        ),
        (
            {"spec": InputSpec((12, 20), output="y"), "output": "z"},
            ValueError,
            "output: expected 'y', as the",
        ),
        ({"name": ""}, ValueError, "name: expected printable letters, got ''"),
        ({"name": "a\nb"}, ValueError, "name: expected printable letters"),
        ({"device": "gpu"}, ValueError, "device: expected 'auto'"),
        ({"precision": "half"}, ValueError, "precision: expected one of"),
        ({"precision": "float16"}, ValueError, "precision: the CPU has 'float32' only"),
    ],
)
def test_bad_arguments(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        opened(write(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"size": 224}, TypeError, r"size: expected \(height, width\) in pixels, or None; got 224"),
        ({"size": (224.0, 224)}, TypeError, "size: expected"),
        ({"size": (1, 2, 3)}, TypeError, "size: expected"),
        ({"size": (0, 224)}, ValueError, "size: expected 1 to 1048576"),
        ({"size": (4096, 4097)}, ValueError, "size: expected at most 16,777,216 pixels, got 4096 x 4097"),
        (
            {"resize": "shorter", "crop": "center", "shorter_side": 4097},
            ValueError,
            "shorter_side: expected at most 4,096 pixels, got 4,097",
        ),
        ({"output": "a\nb"}, ValueError, r"output: expected printable letters, got 'a\\nb'"),
        ({"mean": 0.5}, TypeError, "mean: expected three numbers, one a channel; got 0.5"),
        ({"mean": (0.5, 0.5)}, TypeError, "mean: expected three numbers"),
        ({"std": "abc"}, TypeError, "std: expected three numbers"),
        ({"std": (1, 0, 1)}, ValueError, r"std: expected numbers from 1e-30 to 1e\+30, got \(1\.0, 0\.0, 1\.0\)"),
        ({"std": (1, -1, 1)}, ValueError, "std: expected numbers from 1e-30"),
        ({"std": (1, 1e-46, 1)}, ValueError, "std: expected numbers from 1e-30"),  # 0 in float32; 255 times it is not
        ({"std": (1, 1e-320, 1)}, ValueError, "std: expected numbers from 1e-30"),
        ({"std": (1, 1, 1e31)}, ValueError, "std: expected numbers from 1e-30"),
        (
            {"mean": (0, 1e9, 0), "std": (1, 1e-30, 1)},
            ValueError,
            r"mean, std: expected numbers of float32's range, got \(0\.0, 1000000000\.0, 0\.0\), ",
        ),
        ({"mean": (1e300, 0, 1)}, ValueError, "mean, std: expected numbers of float32's range"),
        ({"size": (10**30, 0)}, ValueError, "size: expected at most 16,777,216 pixels"),
        ({"std": (1, float("inf"), 1)}, ValueError, "std: expected finite numbers"),
        ({"size": (True, 224)}, TypeError, "size: expected"),
        ({"std": (1, True, 1)}, TypeError, "std: expected three numbers"),
        ({"filter": "lanczos"}, ValueError, "filter: expected one of bilinear, bicubic, tf1-bilinear; got 'lanczos'"),
        ({"filter": 3}, TypeError, "filter: expected"),
        ({"antialias": 1}, TypeError, "antialias: expected True or False, got 1"),
        ({"filter": "bicubic", "antialias": False}, ValueError, "antialias: expected True for filter 'bicubic'"),
        ({"filter": "tf1-bilinear"}, ValueError, "antialias: expected False for filter 'tf1-bilinear', got True"),
        ({"rounding": "uint8"}, ValueError, "rounding: expected one of none, clip, pillow-uint8; got 'uint8'"),
        ({"rounding": "pillow-uint8", "antialias": False}, ValueError, "rounding: 'pillow-uint8' is Pillow's resize"),
        ({"resize": "none", "rounding": "clip"}, ValueError, "rounding: expected 'none' where resize is 'none'"),
        ({"size": None}, ValueError, r"size: expected \(height, width\) for resize 'squash' and crop None, got None"),
        ({"size": None, "resize": "none", "crop": "center"}, ValueError, r"size: expected \(height, width\)"),
        ({"crop": "center"}, ValueError, r"crop: .* cuts out a square, and size is \(12, 20\): expected a square size"),
        ({"crop": "top"}, ValueError, "crop: expected center, or None"),
        ({"resize": "shorter"}, ValueError, "resize: 'shorter' leaves images of several sizes: expected crop 'center'"),
        ({"resize": "shorter", "crop": "center"}, ValueError, "shorter_side: expected a length in pixels, as size"),
        ({"shorter_side": 20}, ValueError, "shorter_side: is for resize 'shorter', and resize is 'squash'"),
        ({"resize": "shorter", "crop": "center", "shorter_side": 19}, ValueError, "shorter_side: expected 20 or more"),
        ({"resize": "shorter", "crop": "center", "shorter_side": 2.5}, TypeError, "shorter_side: expected a length"),
        ({"layout": "chw"}, ValueError, "layout: expected one of nchw, nhwc"),
        ({"channels": "grb"}, ValueError, "channels: expected one of rgb, bgr"),
        ({"output": 3}, TypeError, "output: expected the name of an output, or None"),
        ({"select": "token:-1"}, ValueError, r"select: expected all, token:0 \(or another number\), mean-tokens or"),
        ({"select": 0}, TypeError, "select: expected all"),
        ({"post": "sqrt"}, ValueError, "post: expected one of none, l2, l2-sqrt-d"),
    ],
)
def test_bad_specs(options, error, text):
    with pytest.raises(error, match=text):
        InputSpec(**{"size": (12, 20), **options})


# ----------------------------------------------------------------------------------------------------------- devices


def test_on_a_cuda_device(tmp_path, monkeypatch, product):
    """What ONNX Runtime is told there; runs of one size; images on the device come to the host."""
    path, _ = product
    pictures = images(5, 15)
    expected = opened(path)(pictures)
    runtime = FakeRuntime(monkeypatch)
    extractor = OnnxExtractor(path, SPEC, device="cuda:1", precision="tf32")
    (asked,) = runtime.asked
    assert (asked.provider, asked.model) == ("CUDAExecutionProvider", path.read_bytes())
    assert (asked.options["device_id"], asked.options["use_tf32"]) == ("1", "1")
    assert (extractor.device, extractor.precision, extractor.concurrency) == ("cuda:1", "tf32", 1)
    assert extractor.batch_size > 5
    shapes = []
    run = session.Session.run
    monkeypatch.setattr(
        session.Session, "run", lambda self, name, x: (shapes.append(x["x"].shape[0]), run(self, name, x))[1]
    )
    np.testing.assert_allclose(extractor(pictures), expected, rtol=0, atol=FLOAT32_PRODUCT)
    assert set(shapes) == {extractor.batch_size}
    assert extractor.on_device("cuda:1") is None
    with pytest.raises(AssertionError, match="was copied to the host"):
        fastfid.compute_statistics(Tensor(pictures, device=1), extractor=extractor)


def test_a_device_that_cannot_be_used(tmp_path, monkeypatch):
    path = write(tmp_path)
    expected = opened(path).identity
    runtime = FakeRuntime(monkeypatch)
    runtime.failure = NotImplementedError("no cuDNN")
    with pytest.raises(BackendUnavailable, match="cannot run the network on cuda:0: no cuDNN"):
        OnnxExtractor(path, SPEC, device="cuda:0")
    with pytest.raises(BackendUnavailable, match="no cuDNN"):
        OnnxExtractor(path, SPEC, precision="tf32")
    with pytest.raises(ValueError, match="a file's network runs in 'float32' or 'tf32', got 'float16'"):
        OnnxExtractor(path, SPEC, precision="float16")
    with pytest.warns(FastfidWarning, match=r"running on the CPU: .* no cuDNN"):
        extractor = OnnxExtractor(path, SPEC)
    assert (extractor.device, extractor.identity) == ("cpu", expected)
    monkeypatch.setattr(_core, "cuda_driver", lambda: (0, "no driver"))
    with pytest.raises(BackendUnavailable, match="there is no CUDA device"):
        OnnxExtractor(path, SPEC, device="cuda")


def test_a_session_that_cannot_be_opened(tmp_path, monkeypatch):
    path = write(tmp_path)
    runtime = FakeRuntime(monkeypatch)

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(runtime, "on_cpu", fails)
    error = RuntimeError("CUDA failure 999")
    with pytest.raises(BackendUnavailable, match="ONNX Runtime cannot open a session on cuda:0: CUDA failure 999"):
        OnnxExtractor(path, SPEC, device="cuda:0")
    error = MemoryError()
    with pytest.raises(MemoryError):
        OnnxExtractor(path, SPEC, device="cpu")


def test_a_run_that_fails_on_a_device_is_not_said_of_the_file(tmp_path, monkeypatch):
    runtime = FakeRuntime(monkeypatch)
    extractor = OnnxExtractor(write(tmp_path), SPEC, device="cuda:0")
    runtime.failure = RuntimeError("CUDA failure 999")
    with pytest.raises(RuntimeError, match="CUDA failure 999"):
        extractor(images(2, 1))


def test_a_damaged_file_is_no_missing_device(tmp_path, monkeypatch):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"no model")
    FakeRuntime(monkeypatch)
    for device in ("auto", "cuda:0"):
        with pytest.raises(ValueError, match=r"damaged\.onnx: expected a whole ONNX file"):
            OnnxExtractor(path, SPEC, device=device)
