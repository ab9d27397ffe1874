"""Preprocessing against each peer's own resizer: at most 1e-3 grey levels apart."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import cleanfid.resize
import numpy as np
import pytest
import skimage.data
import torch
from tolerances import GREY_LEVELS, NETWORKS_INPUT, SUM_OF_WEIGHTS

from fastfid import _core
from fastfid._checks import DIMS
from fastfid.options import Dims, PrecisionName, ProtocolName
from fastfid.precisions import PRECISIONS
from fastfid.protocols import PROTOCOLS, SIDE, input_spec

RESIZING = [name for name, row in PROTOCOLS.items() if row.filter is not None]

SIZES = [  # (height, width)
    *((1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (7, 1), (32, 32), (75, 76)),
    *((298, 300), (299, 299), (299, 17), (600, 299), (598, 897), (256, 256), (375, 500), (500, 375), (1023, 767)),
    *((1, 3000), (3000, 1), (4000, 2)),
]


def load_module(package, name):
    """Import one file of a package without the package, which imports torchvision."""
    folder = Path(importlib.util.find_spec(package).origin).parent
    spec = importlib.util.spec_from_file_location(f"{package}_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tf1_bilinear = load_module("torch_fidelity", "interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x


def preprocess(images, protocol, out=None):
    return _core.preprocess(images, input_spec(protocol), out)


def peer(image, protocol):
    """The network's input (3, H, W) as the peer's own code makes it from uint8 (h, w, 3)."""
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].contiguous()
    options = {"size": (299, 299), "align_corners": False}
    if protocol == "pytorch-fid":
        x = 2 * torch.nn.functional.interpolate(x / 255, mode="bilinear", **options) - 1
    elif protocol == "tensorflow":
        x = (tf1_bilinear(x, **options) - 128) / 128
    elif protocol == "torchmetrics":
        x = (torch.nn.functional.interpolate(x, mode="bilinear", antialias=True, **options) - 128) / 128
    elif protocol == "clean":
        x = (torch.from_numpy(cleanfid.resize.build_resizer("clean")(image)).permute(2, 0, 1)[None] - 128) / 128
    elif protocol == "none":
        x = 2 * (x / 255) - 1
    else:
        raise ValueError(f"{protocol}: no tool's resizer is known for it")
    return x[0].numpy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    y, x = np.mgrid[0:height, 0:width]
    levels = (x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x + y) % 256)
    return np.stack(levels, axis=2).astype(np.uint8)


def photographs():
    return {
        "astronaut": skimage.data.astronaut(),
        "chelsea": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
        "rocket": skimage.data.rocket(),
        "motorcycle": skimage.data.stereo_motorcycle()[0],
        "retina": skimage.data.retina(),
    }


def deviation(image, protocol):
    """Largest difference from the peer, in grey levels."""
    ours = preprocess([image], protocol)
    theirs = peer(image, protocol)
    assert ours.shape == (1, *theirs.shape)
    assert ours.dtype == np.float32
    grey_levels = PROTOCOLS[protocol].divisor / PROTOCOLS[protocol].factor  # per unit of the network's input
    return grey_levels * np.abs(ours[0].astype(np.float64) - theirs).max()


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer(protocol, size):
    assert deviation(noise(*size), protocol) < GREY_LEVELS
    assert deviation(ramp(*size), protocol) < GREY_LEVELS


@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer_on_a_large_image(protocol):
    assert deviation(noise(3000, 4000), protocol) < GREY_LEVELS
    assert deviation(ramp(3000, 4000), protocol) < GREY_LEVELS
    enlarged = skimage.data.retina().repeat(3, axis=0).repeat(3, axis=1)[:3001, :3999]
    assert deviation(enlarged, protocol) < GREY_LEVELS


@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer_on_photographs(protocol):
    for name, photograph in photographs().items():
        assert deviation(photograph, protocol) < GREY_LEVELS, name
        assert deviation(photograph[5:162, 3:110], protocol) < GREY_LEVELS, f"crop of {name}"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_has_the_peers_bits_where_nothing_is_resized(protocol):
    image = noise(299, 299)
    image[0, :256, 0] = np.arange(256)  # every grey level
    np.testing.assert_array_equal(preprocess([image], protocol)[0], peer(image, protocol))


def test_none_keeps_the_size_and_scales():
    images = [noise(75, 211, seed) for seed in range(3)]
    ours = preprocess(images, "none")
    np.testing.assert_array_equal(ours, np.stack([peer(image, "none") for image in images]))


def test_none_refuses_what_it_cannot_stack_or_the_network_cannot_take():
    with pytest.raises(ValueError, match=r"images\[1\]: protocol 'none' .*expected 80 x 90.*got 90 x 80"):
        preprocess([noise(80, 90), noise(90, 80)], "none")
    with pytest.raises(ValueError, match=r"images\[0\]: .* at least 75 pixels a side, got height 74, width 200"):
        preprocess([noise(74, 200)], "none")


@pytest.mark.parametrize("protocol", RESIZING)
def test_the_bits_are_those_of_the_stated_sums(protocol):
    """Vertical sums, then horizontal ones, each in float32 in ascending order: whatever the machine's instructions."""
    image = noise(411, 173)
    row = PROTOCOLS[protocol]
    x = image.astype(np.float32)
    for axis in (0, 1):
        first, weights = _core.resize_taps(image.shape[axis], 299, row.filter)
        shape = [1, 1, 1]
        shape[axis] = 299
        total = None
        for k in range(weights.shape[1]):
            term = weights[:, k].reshape(shape) * x.take(first + k, axis)
            total = term if total is None else total + term
        x = total
    assert x.dtype == np.float32
    if row.clip:
        x = x.clip(0, 255)
    scaled = x / np.float32(row.divisor) * np.float32(row.factor) - 1
    np.testing.assert_array_equal(preprocess([image], protocol)[0], scaled.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "filter", ["bilinear", "bilinear-tf1", "bilinear-antialias", "bicubic-antialias", "bicubic-antialias-torch"]
)
@pytest.mark.parametrize("lengths", [(1, 1), (1, 299), (2, 299), (299, 1), (256, 299), (299, 299), (5000, 299), (7, 3)])
def test_weights_stay_inside_and_sum_to_one(filter, lengths):
    n_in, n_out = lengths
    first, weights = _core.resize_taps(n_in, n_out, filter)
    assert first.shape == (n_out,)
    assert first.min() >= 0
    assert (np.diff(first) >= 0).all()
    assert first.max() + weights.shape[1] <= n_in
    np.testing.assert_allclose(weights.sum(1, dtype=np.float64), 1, rtol=0, atol=SUM_OF_WEIGHTS)


VIEWS = {
    "channels first": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "transposed": lambda x: np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
    "every second pixel": lambda x: x.repeat(2, axis=0).repeat(2, axis=1)[::2, ::2],
    "upside down": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "mirrored": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "BGR": lambda x: np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
    "RGBA": lambda x: np.dstack([x, x[:, :, :1]])[:, :, :3],
    "window": lambda x: np.pad(x, ((3, 1), (2, 5), (0, 0)))[3:-1, 2:-5],
}


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("view", list(VIEWS))
def test_strides_do_not_matter(protocol, view):
    image = noise(131, 97)
    strided = VIEWS[view](image)
    np.testing.assert_array_equal(strided, image)
    assert not strided.flags.c_contiguous
    strided.flags.writeable = False
    np.testing.assert_array_equal(preprocess([strided], protocol), preprocess([image], protocol))
    np.testing.assert_array_equal(strided, image)


def test_a_broadcast_image_has_one_colour():
    ours = preprocess([np.broadcast_to(np.uint8(51), (200, 300, 3))], "clean")
    np.testing.assert_allclose(ours, (51 - 128) / 128, rtol=0, atol=NETWORKS_INPUT)


@pytest.mark.parametrize("protocol", RESIZING)
def test_a_batch_of_mixed_sizes_is_its_images(protocol):
    images = [noise(h, w, h) for h, w in ((1, 1), (299, 299), (64, 640), (300, 200), (1, 1), (700, 699))]
    copies = [image.copy() for image in images]
    together = preprocess(images, protocol)
    for image, copy, row in zip(images, copies, together, strict=True):
        np.testing.assert_array_equal(preprocess([image], protocol)[0], row)
        np.testing.assert_array_equal(image, copy)


def test_an_array_of_images_is_a_sequence():
    images = np.stack([noise(40, 50, seed) for seed in range(3)])
    np.testing.assert_array_equal(preprocess(images, "clean"), preprocess(list(images), "clean"))


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_threads_do_not_change_the_bits(protocol):
    images = [noise(1200, 1600), noise(1601, 1203)[:, ::-1]][: 2 if protocol in RESIZING else 1]
    try:
        _core.set_num_threads(1)
        one = preprocess(images, protocol)
        _core.set_num_threads(5)
        five = preprocess(images, protocol)
    finally:
        _core.set_num_threads(0)
    np.testing.assert_array_equal(one, five)


def test_python_threads_may_call_it_at_once():
    images = [noise(100 + 10 * i, 900 - 20 * i, i) for i in range(24)]
    expected = [preprocess([image], "clean") for image in images]
    with ThreadPoolExecutor(6) as pool:
        for ours, alone in zip(pool.map(lambda x: preprocess([x], "clean"), images), expected, strict=True):
            np.testing.assert_array_equal(ours, alone)


FORK = """
import os, threading
import numpy as np
from fastfid import _core
from fastfid.protocols import input_spec
_core.set_num_threads(3)
spec = input_spec("clean")
images = [np.random.default_rng(i).integers(0, 256, (90 + i, 80, 3), dtype=np.uint8) for i in range(12)]
expected = _core.preprocess(images, spec)
def work():
    while True:
        _core.preprocess(images, spec)
threading.Thread(target=work, daemon=True).start()  # forks happen while the pool is at work
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(not np.array_equal(_core.preprocess(images, spec), expected))
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""


def test_a_forked_process_starts_a_pool_of_its_own():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


def test_long_strips_stay_exact_and_small():
    """A strip of 100,000 pixels: 1,339 taps in float32 are still within the bound."""
    for shape in ((100_000, 1), (1, 100_000)):
        for protocol in RESIZING:
            assert deviation(noise(*shape), protocol) < GREY_LEVELS, (shape, protocol)


@pytest.mark.parametrize("size", [(224, 224), (299, 299), (17, 401), (1, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_equals_clean_fids_resizer(size, dtype):
    image = noise(211, 163).astype(dtype)
    theirs = cleanfid.resize.make_resizer("PIL", False, "bicubic", size[::-1])(image)
    ours = _core.resize(image, *size, "bicubic-antialias", clip=True)
    assert ours.dtype == np.float32
    assert ours.shape == (*size, 3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=GREY_LEVELS)


def test_resize_equals_torch_and_tensorflow_at_other_sizes():
    image = noise(90, 131).astype(np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    theirs = {
        "bilinear": torch.nn.functional.interpolate(x, size=(50, 333), mode="bilinear", align_corners=False),
        "bilinear-tf1": tf1_bilinear(x, size=(50, 333), align_corners=False),
        "bilinear-antialias": torch.nn.functional.interpolate(x, size=(50, 333), mode="bilinear", antialias=True),
    }
    for name, expected in theirs.items():
        ours = _core.resize(image, 50, 333, name)
        np.testing.assert_allclose(ours, expected[0].permute(1, 2, 0).numpy(), rtol=0, atol=GREY_LEVELS, err_msg=name)


def test_resize_clips_only_when_asked():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    free = _core.resize(edge, 64, 64, "bicubic-antialias")
    assert free.min() < -1
    assert free.max() > 256
    np.testing.assert_array_equal(_core.resize(edge, 64, 64, "bicubic-antialias", clip=True), free.clip(0, 255))


def test_resize_reads_floats_at_odd_addresses():
    image = noise(20, 30).astype(np.float32)
    odd = np.frombuffer(b"\0" + image.tobytes(), np.uint8)[1:].view(np.float32).reshape(image.shape)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(_core.resize(odd, 9, 9, "bilinear"), _core.resize(image, 9, 9, "bilinear"))


GOOD = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (
            GOOD.astype(np.float32),
            TypeError,
            r"images\[1\]: expected a uint8 array \(h, w, 3\), got an array of float32",
        ),
        (GOOD.astype(bool), TypeError, "got an array of bool"),
        (GOOD.astype(np.int8), TypeError, "got an array of int8"),
        (GOOD[0], TypeError, r"got an array of uint8 \(5, 3\)"),
        (GOOD[None], TypeError, r"got an array of uint8 \(1, 4, 5, 3\)"),
        ([[0, 0, 0]], TypeError, "got list"),
        (None, TypeError, "got NoneType"),
        (GOOD[:, :, :1], ValueError, r"expected a uint8 array \(h, w, 3\), got an array of uint8 \(4, 5, 1\)"),
        (GOOD.transpose(2, 0, 1), ValueError, r"\(3, 4, 5\)"),
        (GOOD[:0], ValueError, r"images\[1\]: expected an image of 1 to 1048576 pixels a side, got height 0, width 5"),
        (GOOD[:, :0], ValueError, "got height 4, width 0"),
        (np.broadcast_to(np.uint8(0), (2**20 + 1, 1, 3)), ValueError, "got height 1048577, width 1"),
    ],
)
def test_refuses_what_is_not_an_image(image, error, text):
    with pytest.raises(error, match=text):
        preprocess([GOOD, image], "clean")
    name_free = text.replace(r"images\[1\]: ", "").replace("a uint8 array", "a uint8 or float32 array")
    if not (isinstance(image, np.ndarray) and image.dtype == np.float32):
        with pytest.raises(error, match=name_free):
            _core.resize(image, 9, 9, "bilinear")


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="images: expected at least one image, got none"):
        preprocess([], "clean")
    with pytest.raises(TypeError):
        preprocess(iter([GOOD]), "clean")
    known = ", ".join(PROTOCOLS)
    with pytest.raises(ValueError, match=rf"^protocol: expected one of {known}; got 'cleaner'$"):
        preprocess([GOOD], "cleaner")
    with pytest.raises(ValueError, match=r"filter: expected one of bilinear, bilinear-tf1, .*; got 'lanczos'"):
        _core.resize(GOOD, 9, 9, "lanczos")
    for size in ((0, 9), (9, -1), (2**20 + 1, 9)):
        with pytest.raises(ValueError, match="height, width: expected 1 to 1048576, got"):
            _core.resize(GOOD, *size, "bilinear")
    with pytest.raises(ValueError, match="expected 1 to 1048576 pixels, got 0 to 9"):
        _core.resize_taps(0, 9, "bilinear")


def test_writes_where_it_is_told():
    images = [noise(13, 17), noise(40, 30)]
    room = np.full((4, 3, 299, 299), np.nan, np.float32)
    out = preprocess(images, "clean", room[1:3])
    assert np.shares_memory(out, room)
    np.testing.assert_array_equal(room[1:3], preprocess(images, "clean"))
    assert np.isnan(room[[0, 3]]).all()


def test_refuses_a_wrong_place():
    image = noise(13, 17)
    read_only = np.zeros((1, 3, 299, 299), np.float32)
    read_only.flags.writeable = False
    for place, error in [
        (np.zeros((1, 3, 299, 299)), TypeError),
        (np.zeros((1, 3, 299, 598), np.float32)[..., ::2], TypeError),
        ([0.0], TypeError),
        (np.zeros((1, 3, 299, 298), np.float32), ValueError),
        (np.zeros((3, 299, 299), np.float32), ValueError),
        (read_only, ValueError),
    ]:
        with pytest.raises(error, match=r"^out: expected a writeable, C-contiguous float32 array"):
            preprocess([image], "clean", place)


@pytest.mark.parametrize("strides", [(2**62, 2**62, 1), (2**61, 3, 1), (3, -(2**62), -(2**61)), (-(2**63) + 1, 3, 1)])
def test_refuses_strides_that_lead_beyond_all_addresses(strides):
    image = np.lib.stride_tricks.as_strided(np.zeros(300, np.uint8), (5, 3, 3), strides)
    with pytest.raises(ValueError, match=r"^images\[1\]: .* does not fit into 64 bits"):
        preprocess([np.zeros((5, 3, 3), np.uint8), image], "clean")
    with pytest.raises(ValueError, match=r"^image: .* does not fit into 64 bits"):
        _core.resize(image, 4, 4, "bilinear")


@pytest.mark.parametrize("axis", [0, 1])
def test_a_side_of_one_pixel_may_have_any_stride(axis):
    """As NumPy's arrays do; the sanitizers watch that no address is made of it."""
    image = np.random.default_rng(1).integers(0, 256, (5, 1, 3) if axis else (1, 5, 3), dtype=np.uint8)
    strides = list(image.strides)
    strides[axis] = -(2**62)
    view = np.lib.stride_tricks.as_strided(image, image.shape, strides)
    for protocol in ("clean", "tensorflow"):
        np.testing.assert_array_equal(preprocess([view], protocol), preprocess([image], protocol))
    for call in (
        lambda x: _core.resize(x, 7, 7, "bilinear"),
        lambda x: _core.resize(x.astype(np.float32), 7, 7, "bilinear"),
    ):
        np.testing.assert_array_equal(call(view), call(image))


# ------------------------------------------------------------------------------------------------- specs of one's own


def spec(**changes):
    ours = {"name": "ours", "size": (20, 30), "divisor": (255.0,) * 3, "factor": (1.0,) * 3, "offset": (0.0,) * 3}
    return _core.InputSpec(**{**ours, **changes})


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in the units of x / 255


@pytest.mark.parametrize(("filter", "clip"), [("bilinear", False), ("bicubic-antialias", True)])
def test_each_channel_has_its_scale_and_sides_may_differ(filter, clip):
    image = noise(50, 41)
    ours = _core.preprocess(
        [image],
        spec(
            filter=filter,
            clip=clip,
            divisor=[255 * s for s in DEVIATION],
            offset=[m / s for m, s in zip(MEAN, DEVIATION, strict=True)],
        ),
    )
    grey = _core.resize(image, 20, 30, filter, clip=clip).astype(np.float64)
    expected = (grey / 255 - MEAN) / DEVIATION
    assert ours.shape == (1, 3, 20, 30)
    np.testing.assert_allclose(ours[0], expected.transpose(2, 0, 1), rtol=0, atol=NETWORKS_INPUT)


def test_a_spec_says_the_size_of_the_input():
    assert spec().output_size(7, 9) == (20, 30)
    assert spec(size=None).output_size(7, 9) == (7, 9)
    for name, row in PROTOCOLS.items():
        assert row.input.output_size(80, 90) == ((SIDE, SIDE) if name in RESIZING else (80, 90))
    images = [noise(12, 13)]
    np.testing.assert_array_equal(
        _core.preprocess(images, spec(size=None, divisor=(1.0,) * 3))[0], images[0].transpose(2, 0, 1)
    )
    with pytest.raises(ValueError, match="protocol 'ours' does not resize and the network needs at least 13 pixels"):
        _core.preprocess(images, spec(size=None, least=13))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"size": (0, 0)}, "size: expected 1 to 1048576 pixels a side, got 0 x 0"),
        ({"size": (5, 0)}, "size: expected 1 to 1048576 pixels a side, got 5 x 0"),
        ({"size": (-5, 5)}, "size: expected 1 to 1048576 pixels a side, got -5 x 5"),
        ({"size": (2**20 + 1, 5)}, "size: expected 1 to 1048576"),
        ({"least": 0}, "least: expected 1 to"),
        ({"filter": "lanczos"}, "filter: expected one of bilinear, bilinear-tf1, .*; got 'lanczos'"),
        ({"divisor": (1.0, 0.0, 1.0)}, "divisor: expected finite numbers other than 0, got 0"),
        ({"divisor": (1.0, np.nan, 1.0)}, "divisor: expected finite numbers"),
        ({"factor": (1.0, np.inf, 1.0)}, "factor: expected finite numbers, got inf"),
        ({"offset": (1.0, 1e39, 1.0)}, "offset: expected finite numbers|incompatible"),
    ],
)
def test_specs_that_cannot_be(changes, text):
    with pytest.raises((ValueError, TypeError), match=text):
        spec(**changes)


def test_the_types_of_options_name_what_there_is():
    assert get_args(ProtocolName) == tuple(PROTOCOLS)
    assert get_args(PrecisionName) == tuple(PRECISIONS)
    assert get_args(Dims) == DIMS
