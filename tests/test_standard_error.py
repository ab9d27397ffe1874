"""Standard error and sampling bias of the distance, against simulation on distributions whose distance is known."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from tolerances import (
    ANOTHER_ORDER,
    ANOTHER_SCALE,
    DERIVATIVE,
    DEVIATIONS,
    FEW_ROUNDINGS,
    FREEDOM_OF_200,
    INFLUENCE_FLOAT32,
    MEAN_OF_2000,
    PLUG_IN_BIAS,
    RELATIVE_ERROR_OF_2000,
    SPREAD_OF_250,
)

import fastfid
from fastfid import Statistics, _core
from fastfid._core import Gaussian
from fastfid.metrics import second_order
from fastfid.metrics.moments import FeatureMoments
from fastfid.metrics.standard_error import Variance, standard_error, why_none

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

    def sample(self, rng, n):
        return [
            rng.standard_normal((n, D)) @ root + mu for root, mu in ((self.root1, np.zeros(D)), (self.root2, self.mu2))
        ]


def statistics(rows, **keywords):
    moments = FeatureMoments(rows.shape[1])
    moments.update({"features": rows.astype(np.float32)})
    return moments.statistics({}, **{"name": "x", **keywords})


def distance(a, b, **keywords):
    return _core.frechet_distance(gaussian(a), gaussian(b), **keywords)


def gaussian(side, n=-1):
    return Gaussian(side.mu, side.sigma, n=side.n if n == -1 else n)


def spread_and_error(draw, draws, seed=1):
    """The spread of the distances of pairs of sets, and the root mean square of their standard errors."""
    rng = np.random.default_rng(seed)
    values, errors = [], []
    for _ in range(draws):
        a, b = map(statistics, draw(rng))
        values.append(distance(a, b, needs_bias=False).value)
        errors.append(standard_error(a, b))
    mean_square = np.mean([error.value**2 for error in errors])
    return float(np.std(values, ddof=1)), math.sqrt(mean_square), errors


@pytest.mark.parametrize("multiple", PLUG_IN_BIAS)
def test_standard_error_and_bias_on_gaussians(multiple):
    pair, n, draws = Pair(), int(multiple * D), 250
    rng = np.random.default_rng(n)
    values, errors, biases = [], [], []
    for _ in range(draws):
        a, b = map(statistics, pair.sample(rng, n))
        result = distance(a, b)
        values.append(result.value)
        biases.append(result.bias)
        errors.append(standard_error(a, b))
    assert np.sqrt(np.mean([e.value**2 for e in errors])) == pytest.approx(np.std(values), rel=SPREAD_OF_250)
    assert {e.of for e in errors} == {"both"}
    true_bias = np.mean(values) - pair.distance
    noise = np.std(values) / np.sqrt(draws)
    assert np.mean(biases) == pytest.approx(true_bias, rel=PLUG_IN_BIAS[multiple], abs=3 * noise)
    assert np.mean(biases) > 0


def test_of_equal_distributions():
    """The first order vanishes; the error is that of the second order, within 15 %, and rather too large."""
    scales = np.logspace(0, -1, 48)
    spread, error, _ = spread_and_error(lambda rng: rng.standard_normal((2, 240, 48)) * scales, 300)
    assert 0.95 * spread <= error <= 1.15 * spread


@pytest.mark.parametrize(("first", "expected"), [(2.0, 3.0), (-0.2, 0.8), (-0.5, 2 / 3), (-2.0, 2 / 3)])
def test_the_first_order_counts_as_no_less_than_minus_a_third_of_the_second(first, expected):
    assert second_order.variance(first, 1.0) == pytest.approx(expected, rel=FEW_ROUNDINGS)


@pytest.mark.parametrize(("eigenvalues", "ratio"), [(5, 1.15), (16, 1.07), (256, 1.01)])
def test_near_equality_errors_are_at_most_so_much_too_large(eigenvalues, ratio):
    """The estimate of the variance is 2 Q - 1 times the true one, with Q a chi-squared number over its mean."""
    q = np.linspace(0, 12, 200_001)
    density = scipy.stats.chi2.pdf(q * eigenvalues, eigenvalues) * eigenvalues
    mean = scipy.integrate.trapezoid(second_order.variance(2 * (q - 1), 1.0) * density, q)
    assert 1 < math.sqrt(mean) < ratio


def test_of_a_fixed_reference():
    """Without a sample of the first set its noise does not count."""
    rng = np.random.default_rng(3)
    root = np.linalg.qr(rng.standard_normal((D, D)))[0] * np.logspace(0, -1, D)
    reference = Statistics(np.full(D, 0.3), root.T @ root * 1.5, n=None)
    values, errors = [], []
    for _ in range(300):
        side = statistics(rng.standard_normal((150, D)) @ root)
        values.append(distance(reference, side).value)
        errors.append(standard_error(reference, side))
    assert {error.of for error in errors} == {"generated"}
    assert np.sqrt(np.mean([e.value**2 for e in errors])) == pytest.approx(np.std(values), rel=SPREAD_OF_250)


def _dependent(rng):
    mix = np.random.default_rng(1).standard_normal((16, 32))
    a, b = (rng.standard_normal((200, 16)) * np.logspace(0, -1, 16) * s for s in (1, 1.3))
    return a @ mix, (b + 0.1) @ mix


def _constant(rng):
    a, b = _dependent(rng)
    a[:, :5] = b[:, :5] = 0
    a[:, 5], b[:, 6] = 3, 0
    return a, b


def _of_different_ranges(rng):
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((32, 32)))[0]
    a, b = np.zeros((2, 200, 32))
    a[:, :20], b[:, 12:] = rng.standard_normal((2, 200, 20))
    return a @ turn, b @ turn


def _seldom_active(rng):
    """As features of first layers are: cut off at zero, many of them for most images."""
    a, b = rng.standard_normal((2, 200, 32))
    return (np.maximum(x - np.linspace(0, 3.3, 32), 0) for x in (a, 1.2 * b))


@pytest.mark.parametrize("draw", [_dependent, _constant, _of_different_ranges, _seldom_active])
def test_of_singular_covariances(draw):
    """On the range of the covariances."""
    spread, error, _ = spread_and_error(draw, 300)
    assert error == pytest.approx(spread, rel=SPREAD_OF_250)


def test_the_error_of_the_error():
    """From a sample of all rows, as from a few of them."""
    rng = np.random.default_rng(5)
    draws = [Variance.of_mean(rng.standard_t(9, 300), 300) for _ in range(2000)]
    values = [draw.value for draw in draws]
    assert np.mean(values) == pytest.approx(9 / 7 / 300, rel=MEAN_OF_2000)
    relative = np.std(values) / np.mean(values)
    assert np.mean([draw.relative_error for draw in draws]) == pytest.approx(relative, rel=RELATIVE_ERROR_OF_2000)
    both = draws[0] + draws[1]
    assert both.value == draws[0].value + draws[1].value
    assert both.relative_error < max(draws[0].relative_error, draws[1].relative_error)
    # A normal sample of k values has k - 1 degrees of freedom.
    normal = [Variance.of_mean(rng.standard_normal(200), 1).degrees_of_freedom for _ in range(500)]
    assert np.median(normal) == pytest.approx(199, rel=FREEDOM_OF_200)
    assert Variance.of_mean(np.ones(9), 9) == Variance(0.0, 0.0)
    assert Variance().degrees_of_freedom == math.inf


def test_a_sample_of_many_rows_gives_the_error_of_all():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, 40_000, 8)) * np.logspace(0, -1, 8) + rng.standard_normal((2, 1, 8))
    a, b = statistics(x), statistics(y)
    assert len(a.reservoir.rows) == 2048
    whole = _core.influence(gaussian(a), gaussian(b), rows_a=x, rows_b=y)
    expected = math.sqrt(whole.of_a.var() / 40_000 + whole.of_b.var() / 40_000)
    found = standard_error(a, b)
    assert found.value == pytest.approx(expected, rel=DEVIATIONS * found.relative_error)
    assert 0.01 < found.relative_error < 0.03


def test_the_influence_is_the_derivative():
    """Of the distance, as the weight of one row grows: central differences."""
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((30, 6)) * np.linspace(0.5, 2, 6) + 0.3

    def weighted(rows, k=0, h=0.0):
        weights = np.full(len(rows), (1 - h) / len(rows))
        weights[k] += h
        mu = weights @ rows
        return Gaussian(mu, ((rows - mu) * weights[:, None]).T @ (rows - mu))

    def of(a, b):
        return _core.frechet_distance(a, b, method="eigen").value

    found = _core.influence(weighted(x), weighted(y), rows_a=x, rows_b=y)
    h = 5e-6  # what h^2 leaves out is as small as the rounding of the distances over h
    for k in (0, 17):
        of_a = (of(weighted(x, k, h), weighted(y)) - of(weighted(x, k, -h), weighted(y))) / (2 * h)
        of_b = (of(weighted(x), weighted(y, k, h)) - of(weighted(x), weighted(y, k, -h))) / (2 * h)
        assert found.of_a[k] == pytest.approx(of_a, rel=DERIVATIVE)
        assert found.of_b[k] == pytest.approx(of_b, rel=DERIVATIVE)
    for values in (found.of_a, found.of_b):
        assert abs(values.mean()) <= ANOTHER_ORDER * np.abs(values).mean()
    only = _core.influence(weighted(x), weighted(y), rows_b=y.astype(np.float32))
    assert only.of_a.size == 0
    np.testing.assert_allclose(only.of_b, found.of_b, rtol=0, atol=INFLUENCE_FLOAT32 * np.abs(found.of_b).max())


def test_scale_carries_over():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((200, 5)), rng.standard_normal((150, 5)) * [1, 2, 3, 1, 1]

    def found(scale):
        sides = [Gaussian(rows.mean(0) * scale, np.cov(rows.T) * scale**2) for rows in (x, y)]
        return _core.influence(*sides, rows_a=x * scale, rows_b=y * scale)

    one = found(1.0)
    for scale in (1e-60, 3.0, 1e60):
        off = ANOTHER_SCALE * np.abs(one.of_a).max() * scale**2
        np.testing.assert_allclose(found(scale).of_a, one.of_a * scale**2, rtol=0, atol=off)
        assert found(scale).second_order == pytest.approx(one.second_order * scale**4, rel=ANOTHER_SCALE, abs=0)


def test_second_order_is_that_of_equal_gaussians():
    """5/2 sum s^2 + sum (s_i s_j / (s_i + s_j))^2, with s the eigenvalues of the common covariance."""
    s = np.array([4.0, 1.0, 0.25])
    sides = [Gaussian(np.zeros(3), np.diag(s))] * 2
    means = np.outer(s, s) / np.add.outer(s, s)
    expected = 2.5 * (s**2).sum() + (means**2).sum() - (np.diag(means) ** 2).sum()
    assert _core.influence(*sides).second_order == pytest.approx(expected, rel=ANOTHER_ORDER)


def test_bias_is_absent_where_it_means_nothing():
    a, b = map(statistics, Pair().sample(np.random.default_rng(1), 3 * D))
    assert distance(a, b).bias > 0
    assert distance(a, b, needs_bias=False).bias is None
    assert distance(a, b, method="newton-schulz").bias is None
    assert _core.frechet_distance(gaussian(a, None), gaussian(b)).bias is None
    assert _core.frechet_distance(gaussian(a, D), gaussian(b)).bias is None


def test_reasons_for_none():
    rng = np.random.default_rng(4)
    good, thin = (
        statistics(rng.standard_normal((50, 4)), name="good"),
        statistics(rng.standard_normal((4, 4)), name="t"),
    )
    bare = Statistics(good.mu, good.sigma, 50, name="bare.npz")
    assert why_none(good, good) is why_none(bare, good) is None
    assert why_none(good, bare) == (
        "bare.npz: holds no sample of its features; compute the statistics again with: fastfid stats"
    )
    for sides in ((good, thin), (thin, good)):
        assert why_none(*sides) == "t: n = 4 <= d = 4; sampling bias dominates"


def test_samples_of_no_use():
    rng = np.random.default_rng(4)
    good = Statistics.from_features(rng.standard_normal((200, 4)), name="good")
    repeated = Statistics.from_features(np.repeat(rng.standard_normal((50, 4)), 4, axis=0), name="repeated")
    assert why_none(good, repeated) == (
        "repeated: only 50 of 200 rows in the sample of its features differ; images are repeated"
    )
    exchanged = dataclasses.replace(good, mu=good.mu + 100, sigma=good.sigma * 1e4, name="exchanged")
    lost = Statistics.from_features(1e7 + 0.01 * rng.standard_normal((200, 4)), name="lost")  # in float32
    for bad in (exchanged, lost):
        for sides in ((good, bad), (bad, good)):
            reason = why_none(*sides)
            assert reason.startswith(f"{bad.name}: ")
            assert "does not go with its mean and covariance" in reason or "differ" in reason
    large = Statistics.from_features(rng.standard_normal((9000, 4)), name="large")
    assert why_none(good, large) is None
    assert "does not go with" in why_none(good, dataclasses.replace(large, mu=large.mu + 1))


class TestErrors:
    mu, eye = np.zeros(2), np.eye(2)

    def test_arguments(self):
        unit = Gaussian(self.mu, self.eye, name="unit")
        with pytest.raises(ValueError, match="of different dimension: unit: d = 2, d = 3"):
            _core.influence(unit, Gaussian(np.zeros(3), np.eye(3)))
        with pytest.raises(ValueError, match=r"rows_b: expected shape \(n, 2\), got an array of float64 \(4, 3\)"):
            _core.influence(unit, unit, rows_b=np.zeros((4, 3)))
        with pytest.raises(TypeError, match="rows_a: expected a NumPy array with 2 dimensions"):
            _core.influence(unit, unit, rows_a=[[1.0, 2.0]])
        with pytest.raises(TypeError, match="rows_a: expected a C-contiguous"):
            _core.influence(unit, unit, rows_a=np.zeros((2, 4)).T)
        with pytest.raises(fastfid.NumericalError, match="unit: rows: contains NaN"):
            _core.influence(unit, unit, rows_a=np.full((1, 2), math.nan))
        with pytest.raises(fastfid.NumericalError, match=r"^Imaginary component 1: bad: sigma is not positive"):
            _core.influence(unit, Gaussian(self.mu, np.diag([1.0, -1.0]), name="bad"))

    def test_of_zero_covariances(self):
        none = Gaussian(self.mu, np.zeros((2, 2)))
        found = _core.influence(none, none, rows_a=np.zeros((3, 2)), rows_b=np.zeros((3, 2)))
        np.testing.assert_array_equal(found.of_a, 0)
        assert found.second_order == 0
