"""The distance at d = 2048 on real Inception features, full rank and thin, against SciPy."""

import numpy as np
import pytest
import scipy.linalg
from tolerances import COVARIANCE, EQUAL_SETS, SCIPYS_ROOT, SINGULAR_FROM_FILE, SINGULAR_VALUES

from fastfid import InceptionV3, Moments, Statistics, demo, frechet_distance

N = 2100  # more than d = 2048


@pytest.fixture(scope="module")
def features(weights):
    """Features of 2,100 crops of 64 x 64 pixels out of the demo's photographs."""
    rng = np.random.default_rng(0)
    crops = demo.clean_crops()
    tops = rng.integers(0, demo.CROP_SIZE - 64, (N, 2))
    images = np.stack([crops[i % len(crops)][y : y + 64, x : x + 64] for i, (y, x) in enumerate(tops)])
    return InceptionV3(2048, device="cpu")(images).astype(np.float64)


@pytest.fixture(scope="module")
def sides(features):
    # The other side: the same photographs, features stretched and shifted at random, so that nothing commutes.
    rng = np.random.default_rng(1)
    other = features[rng.permutation(N)] * rng.uniform(0.7, 1.3, 2048) + rng.normal(0, 0.02, (N, 2048))
    return features, other


def test_full_rank_agrees_with_scipy(sides):
    x, y = sides
    (mu1, sigma1), (mu2, sigma2) = [(z.mean(0), np.cov(z.T)) for z in (x, y)]
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    truth = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root.real)
    for method in ("eigen", "newton-schulz"):
        info = frechet_distance((mu1, sigma1), (mu2, sigma2), method=method, tol=1e-6, return_info=True)
        assert info["fid"] == pytest.approx(truth, rel=SCIPYS_ROOT)
        assert info["numerical_lower"] <= info["fid"] <= info["numerical_upper"]
    moments = []
    for z in (x, y):
        moments.append(Moments(2048))
        moments[-1].update(z)
        covariance = np.cov(z.T)
        limit = COVARIANCE * np.abs(covariance).max()
        np.testing.assert_allclose(moments[-1].covariance(), covariance, rtol=0, atol=limit)
    ours = frechet_distance(*[Statistics.from_moments(m) for m in moments])
    assert ours == pytest.approx(truth, rel=SCIPYS_ROOT)


def test_thin_sides_agree_with_singular_values(sides):
    x, y = (z[:400] for z in sides)
    xc, yc = x - x.mean(0), y - y.mean(0)
    nuclear = np.linalg.svd(xc @ yc.T, compute_uv=False).sum() / 399
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + ((xc**2).sum() + (yc**2).sum()) / 399 - 2 * nuclear
    statistics = []
    for z in (x, y):
        moments = Moments(2048)
        moments.update(z)
        statistics.append(Statistics.from_moments(moments))
    assert frechet_distance(*statistics) == pytest.approx(truth, rel=SINGULAR_VALUES)
    assert abs(frechet_distance(statistics[0], statistics[0])) < EQUAL_SETS
    # Through a file, which holds the moments only.
    loaded = [Statistics(s.mu, s.sigma, s.n) for s in statistics]
    assert frechet_distance(*loaded) == pytest.approx(truth, abs=SINGULAR_FROM_FILE)
