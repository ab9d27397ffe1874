"""Preprocessing against each peer's own resizer: at most 1e-3 grey levels apart."""

import importlib.util
from pathlib import Path

import cleanfid.resize
import numpy as np
import pytest
import skimage.data
import torch
from fastfid import _core
from fastfid.protocols import PROTOCOLS

RESIZING = [name for name in PROTOCOLS if name != "none"]
# Grey levels per unit of the network's input.
GREY = {"pytorch-fid": 127.5, "tensorflow": 128, "clean": 128, "torchmetrics": 128, "none": 127.5}
TOLERANCE = 1e-3  # grey levels, the bound; measured: below 1e-4 up to 4000 x 3000

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
    else:
        x = 2 * (x / 255) - 1
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
    ours = _core.preprocess([image], protocol)
    theirs = peer(image, protocol)
    assert ours.shape == (1, *theirs.shape)
    assert ours.dtype == np.float32
    return GREY[protocol] * np.abs(ours[0].astype(np.float64) - theirs).max()


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer(protocol, size):
    assert deviation(noise(*size), protocol) < TOLERANCE
    assert deviation(ramp(*size), protocol) < TOLERANCE


@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer_on_a_large_image(protocol):
    assert deviation(noise(3000, 4000), protocol) < TOLERANCE


@pytest.mark.parametrize("protocol", RESIZING)
def test_equals_the_peer_on_photographs(protocol):
    for name, photograph in photographs().items():
        assert deviation(photograph, protocol) < TOLERANCE, name
        assert deviation(photograph[5:162, 3:110], protocol) < TOLERANCE, f"crop of {name}"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_has_the_peers_bits_where_nothing_is_resized(protocol):
    image = noise(299, 299)
    image[0, :256, 0] = np.arange(256)  # every grey level
    np.testing.assert_array_equal(_core.preprocess([image], protocol)[0], peer(image, protocol))
