"""clean-fid beside us: its own resizers, file search, statistics, trace and KID, on the same images.

Of its networks only the one of mode legacy_pytorch can be had offline, and runs here as it is. The TorchScript network
of the modes clean and legacy_tensorflow cannot; there both sides are given the same ``custom_feat_extractor``, so that
everything else is clean-fid's own.
"""

import importlib
import inspect

import numpy as np
import pytest
import torch

from fastfid.compat.cleanfid import features, fid, resize, wrappers
from fastfid.fid import compute_fid

OPTIONS = {"device": torch.device("cpu"), "num_workers": 0, "verbose": False}


class Means(torch.nn.Module):
    """Cheap features of resized images: enough to compare everything but a network."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)


@pytest.fixture(scope="session")
def both(cleanfid):
    return cleanfid, fid


def test_signatures_are_the_same(both):
    modules = {
        fid: "cleanfid.fid",
        features: "cleanfid.features",
        resize: "cleanfid.resize",
    }
    names = {
        fid: [name for name in fid.__all__ if name != "EXTENSIONS"],
        features: ["build_feature_extractor", "get_reference_statistics"],
        resize: ["build_resizer", "make_resizer"],
    }
    # What differs: the default device exists, the number of threads is chosen, and what we add is keyword-only.
    improved = {"device", "num_workers"}
    for module, theirs in modules.items():
        for name in names[module]:
            expected = inspect.signature(getattr(importlib.import_module(theirs), name)).parameters.values()
            found = inspect.signature(getattr(module, name)).parameters.values()
            common = [
                p
                for p in found
                if (p.kind is not p.KEYWORD_ONLY and p.name != "seed")
                or p.name in dict.fromkeys(q.name for q in expected)
            ]
            assert [p.name for p in common] == [p.name for p in expected], name
            for ours, peers in zip(common, expected, strict=True):
                assert ours.default == peers.default or ours.name in improved or peers.default is peers.empty, name
    expected = inspect.signature(importlib.import_module("cleanfid.wrappers").CleanFID).parameters
    assert list(inspect.signature(wrappers.CleanFID).parameters) == list(expected)
    assert fid.EXTENSIONS == importlib.import_module("cleanfid.utils").EXTENSIONS


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch", "legacy_tensorflow"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resizers(cleanfid, mode, dtype):
    image = np.random.default_rng(0).integers(0, 256, (200, 333, 3)).astype(dtype)
    expected = importlib.import_module("cleanfid.resize").build_resizer(mode)(image)
    found = resize.build_resizer(mode)(image)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_more_images_than_dimensions(both, many, mode):
    values = [
        module.compute_fid(*map(str, many), mode=mode, custom_feat_extractor=Means(), **OPTIONS) for module in both
    ]
    assert type(values[1]) is type(values[0])
    # clean-fid's mean is float32; that alone is 1e-6.
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_mode_legacy_tensorflow_hands_images_on_unresized(both, many):
    values = [
        module.compute_fid(*map(str, many), mode="legacy_tensorflow", custom_feat_extractor=Means(), **OPTIONS)
        for module in both
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_mode_legacy_pytorch_with_its_own_network(both, few):
    values = [
        module.compute_fid(*map(str, few), mode="legacy_pytorch", use_dataparallel=False, **OPTIONS) for module in both
    ]
    # Fewer images than dimensions: clean-fid's own rounding, see test_pytorch_fid.py.
    assert values[1] == pytest.approx(values[0], rel=1e-5, abs=1e-4)
    assert compute_fid(*few, device="cpu") == pytest.approx(values[1], rel=1e-5)
