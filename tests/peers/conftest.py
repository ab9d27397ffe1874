"""Fixtures: the peers, unmodified, with the real weights, and the photographs on which peers and fastfid are compared.

Everything is made once per session, because eager PyTorch computes 6 images per second at dims 2048 on 2 cores.
"""

import importlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks import peers

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/peers" in item.path.as_posix():
            item.add_marker(pytest.mark.peers)


@pytest.fixture(scope="session")
def environment(tmp_path_factory, weights, torchvision_importable):
    """The environment for child processes. After this fixture, this process can import the peers too."""
    return peers.prepare(tmp_path_factory.mktemp("peers"))


@pytest.fixture(scope="session")
def pytorch_fid(environment):
    """``pytorch_fid.fid_score``."""
    return importlib.import_module("pytorch_fid.fid_score")


@pytest.fixture(scope="session")
def torchmetrics_fid(environment):
    """``torchmetrics.image.fid.FrechetInceptionDistance``."""
    return importlib.import_module("torchmetrics.image.fid").FrechetInceptionDistance


@pytest.fixture(scope="session")
def cleanfid(environment):
    """``cleanfid.fid``."""
    return importlib.import_module("cleanfid.fid")


def crops(n, size, seed, noise=0.0):
    """Random crops of photographs, disturbed by Gaussian noise of that many grey levels."""
    rng = np.random.default_rng(seed)
    photographs = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    images = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        y, x = (rng.integers(0, limit - size) for limit in photograph.shape[:2])
        image = photograph[y : y + size, x : x + size] + noise * rng.standard_normal((size, size, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


def write(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}{suffix}")
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Two folders of 20 crops of 256 x 256 pixels: fewer than the dimensions of any layer."""
    root = tmp_path_factory.mktemp("few")
    return write(root / "real", crops(20, 256, 0)), write(root / "fake", crops(20, 256, 1, noise=30))


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Two folders of 210 and 200 crops of 48 x 48 pixels: more than the 64 or 192 dimensions of the first layers."""
    root = tmp_path_factory.mktemp("many")
    return write(root / "real", crops(210, 48, 2)), write(root / "fake", crops(200, 48, 3, noise=20))
