"""torchmetrics (and torch-fidelity, whose network it uses) beside us on the same images and weights."""

import importlib
import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from fastfid.fid import compute_fid


@pytest.fixture(scope="session")
def our_fid(environment):
    return importlib.import_module("fastfid.compat.torchmetrics").FrechetInceptionDistance


@pytest.fixture(scope="session")
def both(torchmetrics_fid, our_fid):
    return torchmetrics_fid, our_fid


@pytest.fixture(scope="session")
def tensors(many):
    """The first 90 and 80 small photographs as tensors: more than the 64 dimensions of the first layer."""
    return tuple(
        torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())[:n]])).permute(
            0, 3, 1, 2
        )
        for folder, n in zip(many, (90, 80), strict=True)
    )


def distance(metric, real, fake, batch=40):
    for side, images in ((True, real), (False, fake)):
        for part in images.split(batch):
            metric.update(part, real=side)
    return metric.compute()


def test_the_documented_value(both):
    """torchmetrics documents tensor(12.6388) for feature=64 and seed 42, its images drawn after its construction."""
    theirs, ours = both
    torch.manual_seed(42)
    theirs(feature=64)
    real = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
    fake = torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)
    value = distance(ours(feature=64), real, fake)
    assert str(value) == "tensor(12.6388)"
    # The same scale, (x - 128) / 128, by its protocol.
    fid = compute_fid(real.numpy(), fake.numpy(), dims=64, protocol="torchmetrics", device="cpu")
    assert f"{fid:.4f}" == "12.6388"
    assert float(distance(theirs(feature=64), real, fake)) == pytest.approx(float(value), rel=1e-6)


def test_signatures_are_the_same(both):
    for name in ("__init__", "update", "compute", "reset", "set_dtype", "plot", "merge_state"):
        expected, found = (inspect.signature(getattr(metric, name)).parameters for metric in both)
        assert [(p.name, p.default) for p in found.values()] == [(p.name, p.default) for p in expected.values()], name
    for name in ("higher_is_better", "is_differentiable", "full_state_update", "plot_lower_bound", "feature_network"):
        assert getattr(both[0], name) == getattr(both[1], name), name


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_more_images_than_dimensions(both, tensors, antialias, normalize):
    real, fake = (images / 255 for images in tensors) if normalize else tensors
    metrics = [metric(feature=64, antialias=antialias, normalize=normalize) for metric in both]
    expected, found = (distance(metric, real, fake) for metric in metrics)
    assert (found.dtype, found.shape, found.device) == (expected.dtype, expected.shape, expected.device)
    # The result is rounded to float32 by either: 6e-8 relative. 1e-6 is asked for.
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    for name, state in metrics[0].metric_state.items():
        ours = metrics[1].metric_state[name]
        assert (ours.dtype, ours.shape) == (state.dtype, state.shape)
        torch.testing.assert_close(ours, state, rtol=1e-5, atol=0)
