"""Standard error and sampling bias of the distance, against simulation on Gaussians whose distance is known."""

import numpy as np
import pytest
import scipy.linalg

from fastfid import _core

D = 24


class Pair:
    """Two Gaussians with different means and covariances that do not commute."""

    rng = np.random.default_rng(0)
    root1 = np.diag(np.exp(-3 * np.arange(D) / D))
    q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    root2 = (q * np.exp(-2 * np.arange(D) / D)) @ q.T
    mu2 = np.full(D, 0.05)
    sigma1, sigma2 = root1 @ root1, root2 @ root2
    distance = float(mu2 @ mu2 + np.trace(sigma1 + sigma2) - 2 * np.trace(scipy.linalg.sqrtm(sigma1 @ sigma2).real))

    def sample(self, rng, n, groups):
        sides = []
        for root, mu in [(self.root1, np.zeros(D)), (self.root2, self.mu2)]:
            moments = _core.Moments(D, groups=groups)
            moments.update(rng.standard_normal((n, D)) @ root + mu)
            sides.append(moments)
        return sides


def distance(a, b, **keywords):
    return _core.frechet_distance(gaussian(a, a.n), gaussian(b, b.n), **keywords)


def gaussian(moments, n):
    return _core.Gaussian(moments.mean, moments.covariance(), n=n)


@pytest.mark.parametrize(("multiple", "bias_tolerance"), [(1.25, 0.30), (2, 0.20), (3, 0.15), (5, 0.12), (20, 0.12)])
def test_standard_error_and_bias_on_gaussians(multiple, bias_tolerance):
    pair, n, draws, groups = Pair(), int(multiple * D), 250, 10
    rng = np.random.default_rng(n)
    values, errors, relative_errors, biases = [], [], [], []
    for _ in range(draws):
        a, b = pair.sample(rng, n, groups)
        error, relative_error = _core.influence_standard_error(a, b)
        result = distance(a, b)
        values.append(result.value)
        biases.append(result.bias)
        errors.append(error)
        relative_errors.append(relative_error)
    # 250 draws: the Monte Carlo standard deviation is itself good to 4.5 %, and the mean of the bias to the SE / 16.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.2)
    assert np.std(errors) / np.mean(errors) == pytest.approx(np.mean(relative_errors), rel=0.3)
    assert np.mean(relative_errors) <= 1 / np.sqrt(2 * (groups - 1)) + 1e-12
    # The plug-in form under-corrects more the fewer the samples; where n is large it is the bias.
    true_bias = np.mean(values) - pair.distance
    assert np.mean(biases) == pytest.approx(true_bias, rel=bias_tolerance, abs=3 * np.std(values) / np.sqrt(draws))
    assert np.mean(biases) > 0


def test_bias_is_absent_where_it_means_nothing():
    pair = Pair()
    a, b = pair.sample(np.random.default_rng(1), 3 * D, 0)
    assert distance(a, b).bias > 0
    assert distance(a, b, needs_bias=False).bias is None
    assert distance(a, b, method="newton-schulz").bias is None
    assert _core.frechet_distance(gaussian(a, None), gaussian(b, 3 * D)).bias is None
    assert _core.frechet_distance(gaussian(a, D), gaussian(b, 3 * D)).bias is None


def test_scale_carries_over():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((200, 5)), rng.standard_normal((150, 5)) * [1, 2, 3, 1, 1]

    def error(scale):
        sides = []
        for rows in (x, y):
            moments = _core.Moments(5, groups=4)
            moments.update(rows * scale)
            sides.append(moments)
        return _core.influence_standard_error(*sides)

    for scale in (1e-60, 3.0, 1e60):
        assert error(scale)[0] == pytest.approx(scale**2 * error(1.0)[0], rel=1e-10, abs=0)
        assert error(scale)[1] == pytest.approx(error(1.0)[1], rel=1e-10)


class TestErrors:
    rng = np.random.default_rng(3)

    def moments(self, n, d=4, groups=4, zero=False):
        out = _core.Moments(d, groups=groups)
        x = self.rng.standard_normal((n, d))
        if zero:
            x[:, 0] = 0
        out.update(x)
        return out

    def test_refusals(self):
        good = self.moments(50)
        with pytest.raises(ValueError, match="differ in dimension: 4 and 3"):
            _core.influence_standard_error(good, self.moments(50, d=3))
        with pytest.raises(ValueError, match="moments2: expected at least 2 groups, got 0"):
            _core.influence_standard_error(good, self.moments(50, groups=0))
        with pytest.raises(ValueError, match="moments1: the influence function needs more samples than features"):
            _core.influence_standard_error(self.moments(4), good)
        with pytest.raises(_core.NumericalError, match="moments2: its covariance is singular"):
            _core.influence_standard_error(good, self.moments(50, zero=True))
