"""torch-fidelity's precision and recall of the same features."""

import importlib

import numpy as np
import pytest
from tolerances import U_FLOAT32

from fastfid import _core
from fastfid.metrics import prdc


@pytest.fixture
def peer(environment):
    return importlib.import_module("torch_fidelity.metric_prc").prc_features_to_metric


def features(n, d, seed, scale=1.0):
    return (np.abs(np.random.default_rng(seed).standard_normal((n, d))) * scale).astype(np.float32)


def counts(peer, real, fake):
    """Generated rows in a real ball, real rows in a generated ball. torch-fidelity's first side is the generated."""
    import torch

    found = peer(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
    return round(found["precision"] * len(fake)), round(found["recall"] * len(real))


def undecided(real, fake, k):
    """Pairs that the rounding of float32 squares and products leaves undecided, in a distance or a radius."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)
    between = squares - 2 * x @ y.T
    error = 2 * (x.shape[1] + 2) * U_FLOAT32 * squares.max()
    radii = _core.kth_squared_distances(real, k)[:, None], _core.kth_squared_distances(fake, k)
    return [np.count_nonzero(np.abs(between - radius) <= 2 * error) for radius in radii]


@pytest.mark.parametrize(("m", "n", "d"), [(500, 400, 64), (900, 1100, 512)])
def test_precision_and_recall(peer, m, n, d):
    real, fake = features(m, d, 1), features(n, d, 2, scale=0.97)
    ours = prdc(real, fake, protocol="torch-fidelity")
    found = round(ours.precision * n), round(ours.recall * m)
    assert 0 < found[0] < n
    assert 0 < found[1] < m
    assert counts(peer, real.astype(np.float64), fake.astype(np.float64)) == found
    for theirs, mine, open_pairs in zip(counts(peer, real, fake), found, undecided(real, fake, 3), strict=True):
        assert abs(theirs - mine) <= open_pairs < m * n // 50
