"""The Fréchet distance against closed forms, peers' published values and its own invariances."""

import gc
import math

import numpy as np
import pytest
import scipy.linalg
from tolerances import (
    ANOTHER_ORDER,
    ANOTHER_SCALE,
    FEW_ROUNDINGS,
    FLOAT32_BOUNDS,
    FLOAT32_STATISTICS,
    FREE_BRACKET,
    INDEFINITE,
    LOST_ROOTS,
    OFFSET_OF_A_MILLION,
    ROUNDED_TO_FLOAT32,
    SINGULAR_FROM_FILE,
    TWO_ROUTES,
)

import fastfid
from fastfid import _core
from fastfid._core import Gaussian
from fastfid.errors import FastfidWarning


def of_covariances(x, y, **keywords):
    return _core.frechet_distance(by_covariance(x), by_covariance(y), **keywords)


def of_rows(x, y, **keywords):
    return _core.frechet_distance(by_rows(x), by_rows(y), **keywords)


def by_covariance(x):
    return Gaussian(x.mean(axis=0), cov(x))


def by_rows(x):
    return Gaussian(x.mean(axis=0, dtype=np.float64), rows=x)


def cov(x):
    return np.atleast_2d(np.cov(x, rowvar=False))


# torch-fidelity's recipe make_stat. Full rank: by the symmetric form, by eigvals and by sqrtm of SciPy 1.17.1, which
# agree. Rank-deficient (n <= d): the nuclear norm of X Y^T for the centred rows in 50 digits (mpmath); the float64
# forms from covariances miss it by up to 1e-5, the square root of their rounding noise.
GOLDEN = [
    (4, 4, 1, 4.75383761747201323),
    (1024, 64, 2023, 2.216407743191),
    (64, 64, 2023, 34.715915577533),
    (32, 256, 2023, 375.502577769781562),
    (4096, 256, 2023, 8.158484959374),
]


@pytest.mark.parametrize(("n", "d", "seed", "expected"), GOLDEN)
@pytest.mark.parametrize("method", ["auto", "newton-schulz"])
def test_golden_values(n, d, seed, expected, method):
    rng = np.random.RandomState(seed)
    x, y = rng.randn(n, d), rng.randn(n, d)
    sides = [of_covariances] + ([of_rows] if n <= d else [])
    tol = 1e-11
    for distance in sides:
        result = distance(x, y, method=method, tol=tol)
        if method == "newton-schulz":  # stops where its bracket is tol T; the distance has 2 T
            off = 2 * tol * result.trace.value
        elif n <= d and distance is of_covariances:
            off = SINGULAR_FROM_FILE
        else:
            off = ANOTHER_ORDER * (result.trace1 + result.trace2)
        assert result.value == pytest.approx(expected, rel=0, abs=off)
        assert result.lower <= expected <= result.upper


def test_unit_gaussians_apart():
    # pytorch-fid's own test: mu 0 and 1, sigma I, d = 2048: exactly 2048.
    d = 2048
    eye = np.eye(d)
    result = _core.frechet_distance(Gaussian(np.zeros(d), eye), Gaussian(np.ones(d), eye))
    assert result.value == pytest.approx(2048, rel=ANOTHER_ORDER)
    assert result.mean_term == 2048
    assert result.trace1 == result.trace2 == 2048


def test_one_dimension():
    one = np.array([[4.0]]), np.array([[9.0]])
    result = _core.frechet_distance(Gaussian(np.array([1.0]), one[0]), Gaussian(np.array([3.0]), one[1]))
    assert result.value == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2, rel=FEW_ROUNDINGS)


def test_equal_rows_have_no_covariance():
    """Few rows are factored as they are, and their mean leaves nothing: ||mu1 - mu2||^2 + tr S2."""
    y = np.random.default_rng(0).normal(size=(30, 8))
    one, other = (fastfid.Statistics.from_features(x) for x in (np.full((3, 8), 1.1), y))
    expected = np.sum((1.1 - y.mean(0)) ** 2) + np.trace(np.cov(y.T))
    assert fastfid.frechet_distance(one, other) == pytest.approx(expected, rel=FEW_ROUNDINGS)


@pytest.mark.parametrize(("n", "d"), [(2, 8), (5, 64), (64, 64), (65, 64), (300, 64), (40, 512)])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distance_to_itself_is_zero(n, d, offset):
    x = np.random.default_rng(n).standard_normal((n, d)) + offset
    for distance in (of_rows, of_covariances):
        result = distance(x, x)
        assert 0 <= result.value <= ANOTHER_ORDER * result.trace1
        assert result.lower == 0
        assert result.upper >= result.value


def test_rows_and_covariance_agree():
    rng = np.random.default_rng(2)
    for n1, n2, d in [(30, 20, 64), (30, 200, 64), (200, 30, 64), (200, 100, 64)]:
        x, y = rng.standard_normal((n1, d)), 0.3 + rng.standard_normal((n2, d)) * 1.2
        both = of_rows(x, y)
        mixed = _core.frechet_distance(by_rows(x), by_covariance(y))
        full = of_covariances(x, y)
        assert mixed.value == pytest.approx(both.value, rel=0, abs=SINGULAR_FROM_FILE)
        assert full.value == pytest.approx(both.value, rel=0, abs=SINGULAR_FROM_FILE)
        for result in (both, mixed, full):
            assert result.lower <= both.value <= result.upper
            assert result.trace1 == pytest.approx(np.trace(cov(x)), rel=ANOTHER_ORDER)


def test_float32_rows_are_read_exactly():
    x = np.random.default_rng(4).standard_normal((9, 16)).astype(np.float32)
    y = np.random.default_rng(5).standard_normal((7, 16)).astype(np.float32)
    a = of_rows(x, y)
    b = of_rows(x.astype(np.float64), y.astype(np.float64))
    assert a.value == b.value


@pytest.mark.parametrize(
    ("weak", "size", "method"),
    [(0, 1, "eigen"), (1, 1e-7, "eigen"), (1, 1e-9, "eigen"), (2, 0, "svd"), (30, 1e-9, "svd"), (30, 0, "svd")],
)
def test_few_lost_singular_values_are_left_to_the_eigenvalues(weak, size, method):
    # Rows nearly as many as features have one by chance; the error of its root is nothing beside the trace.
    n, d = 240, 256
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, n, d))
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    directions = np.linalg.qr(xc[:weak].T)[0]  # seen through them, M is `size` as large
    yc -= (1 - size) * (yc @ directions) @ directions.T
    result = of_rows(xc, yc)
    truth = np.linalg.svd(xc @ yc.T, compute_uv=False).sum() / (n - 1)
    assert result.trace.method == method
    off = LOST_ROOTS if method == "eigen" else TWO_ROUTES
    assert result.trace.value == pytest.approx(truth, rel=off)
    assert result.trace.lower <= truth <= result.trace.upper
    assert result.trace.upper - result.trace.lower <= FREE_BRACKET * truth


@pytest.mark.parametrize("offset", [1e6, -(2.0**20)])
def test_offset_of_a_million_costs_nothing(offset):
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((10, 32)) + offset, rng.standard_normal((12, 32)) + offset
    near = of_rows(x - offset, y - offset)  # these subtractions are exact
    for distance in (of_rows, of_covariances):
        assert distance(x, y).value == pytest.approx(near.value, rel=OFFSET_OF_A_MILLION)


class TestFloat32Statistics:
    """Statistics files of other tools that were saved as float32: singular covariances have become indefinite."""

    @staticmethod
    def rounded(x):
        return cov(x).astype(np.float32).astype(np.float64)

    @pytest.mark.parametrize(("n1", "n2", "d"), [(10, 200, 64), (10, 7, 64), (40, 64, 64), (30, 8, 256)])
    @pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
    def test_the_unrounded_distance_is_within_the_bounds(self, n1, n2, d, scale):
        rng = np.random.default_rng(n1)
        deviations = np.logspace(0, -1.5, d) * scale
        x, y = rng.standard_normal((n1, d)) * deviations, rng.standard_normal((n2, d)) * 1.2 * deviations
        truth = of_rows(x, y)
        sigma1, sigma2 = self.rounded(x), self.rounded(y)
        assert np.linalg.eigvalsh(sigma1)[0] < -INDEFINITE * scale**2
        result = _core.frechet_distance(Gaussian(x.mean(axis=0), sigma1), Gaussian(y.mean(axis=0), sigma2))
        assert result.lower <= truth.value <= result.upper
        assert "float32" in result.trace.note
        assert 0 < result.trace.float32_rounding <= FLOAT32_BOUNDS * (result.trace1 + result.trace2)
        # The bounds are for the worst case; the value itself is as good as the rounding noise allows.
        assert result.value == pytest.approx(truth.value, rel=0, abs=FLOAT32_STATISTICS * result.trace1)
        root = scipy.linalg.sqrtm(sigma1 / scale**2 @ (sigma2 / scale**2)).real * scale**2
        of_scipy = result.mean_term + result.trace1 + result.trace2 - 2 * np.trace(root)
        assert abs(result.value - truth.value) <= abs(of_scipy - truth.value)

    def test_rank_one(self):
        v = np.linspace(0.1, 1, 100)
        sigma = np.outer(v, v).astype(np.float32).astype(np.float64)
        result = _core.trace_sqrt_product(sigma, np.eye(100))
        assert result.lower <= np.linalg.norm(v) <= result.upper
        assert result.value == pytest.approx(np.linalg.norm(v), rel=ROUNDED_TO_FLOAT32)

    def test_more_than_float32_explains_is_an_error(self):
        sigma = np.diag(np.append(np.ones(15), -(2.0**-20))).astype(np.float32).astype(np.float64)
        with pytest.raises(_core.NumericalError, match=r"^Imaginary component.*rounding does not explain it"):
            _core.trace_sqrt_product(sigma, np.eye(16))

    @pytest.mark.parametrize(
        "sigma",
        [
            np.diag([2.0**30, -1.0]),
            np.diag([1.0, -(2.0**-25)]),
            np.array([[2.0**30, 0, 0], [0, 0, 1], [0, 1, 0]]),
            np.array([[2.0**30, 0, 0], [0, 1, 1 + 2.0**-20], [0, 1 + 2.0**-20, 1]]),
        ],
    )
    def test_what_no_covariance_rounds_to_is_an_error(self, sigma):
        """No eigenvalue is below -2^-24 ||Sigma||_F, but a variance is negative, or a correlation exceeds 1."""
        assert np.linalg.eigvalsh(sigma)[0] >= -(2.0**-24) * np.linalg.norm(sigma)
        with pytest.raises(_core.NumericalError, match=r"^Imaginary component.*rounding does not explain it"):
            _core.trace_sqrt_product(sigma, np.eye(len(sigma)))

    @pytest.mark.parametrize("scale", [1.0, 2.0**-70, 2.0**-73, 2.0**60])
    def test_correlations_of_one_are_accepted_also_where_float32_is_subnormal(self, scale):
        v = np.array([3.0, 5.0, 7.0, 11.0, 13.0]) / 9 * scale
        sigma = np.outer(v, v).astype(np.float32).astype(np.float64)
        assert np.linalg.eigvalsh(sigma / scale**2)[0] < -INDEFINITE
        result = _core.trace_sqrt_product(sigma, np.eye(5) * scale**2)
        assert "float32" in result.note
        assert result.lower <= np.linalg.norm(v) * scale <= result.upper

    def test_float64_statistics_have_no_such_excuse(self):
        sigma = np.diag([1.0, -1e-9])
        assert float(np.float32(-1e-9)) != -1e-9
        with pytest.raises(_core.NumericalError, match=r"^Imaginary component"):
            _core.trace_sqrt_product(sigma, np.eye(2))

    def test_users_are_warned(self):
        x = np.random.default_rng(1).standard_normal((10, 64))
        sides = [(side.mean(axis=0), self.rounded(side)) for side in (x, 2 * x)]
        with pytest.warns(FastfidWarning, match=r"float32.*its numerical bounds are"):
            fastfid.frechet_distance(*sides)


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e150])
def test_scaling(scale):
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((10, 16)), rng.standard_normal((50, 16))
    for distance in (of_rows, of_covariances):
        expected = distance(x, y).value * scale**2
        assert distance(x * scale, y * scale).value == pytest.approx(expected, rel=ANOTHER_SCALE, abs=0)


def test_symmetry():
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((100, 16)), 2 * rng.standard_normal((50, 16))
    for distance in (of_rows, of_covariances):
        assert distance(x, y).value == pytest.approx(distance(y, x).value, rel=ANOTHER_ORDER)


class TestErrors:
    mu = np.zeros(2)
    eye = np.eye(2)

    def unit(self, name="unit"):
        return Gaussian(self.mu, self.eye, name=name)

    def test_exactly_one_of_sigma_and_rows(self):
        with pytest.raises(ValueError, match=r"^expected exactly one of sigma and rows, got neither"):
            Gaussian(self.mu)
        with pytest.raises(ValueError, match=r"^a.npz: expected exactly one of sigma and rows, got both"):
            Gaussian(self.mu, self.eye, rows=self.eye, name="a.npz")

    def test_shapes(self):
        with pytest.raises(ValueError, match="of different dimension: unit: d = 2, b: d = 3"):
            _core.frechet_distance(self.unit(), Gaussian(np.zeros(3), np.eye(3), name="b"))
        with pytest.raises(
            ValueError, match=r"^b: sigma: expected as many features as mu, which has 2, got .*\(3, 3\)"
        ):
            Gaussian(self.mu, np.eye(3), name="b")
        with pytest.raises(ValueError, match=r"^sigma: expected shape \(d, d\)"):
            Gaussian(self.mu, np.ones((2, 3)))
        with pytest.raises(ValueError, match=r"^rows: expected as many features as mu, which has 2"):
            Gaussian(self.mu, rows=np.ones((4, 3)))
        with pytest.raises(ValueError, match=r"^a: rows: expected at least 2 samples, got 1"):
            _core.frechet_distance(Gaussian(self.mu, rows=np.ones((1, 2)), name="a"), self.unit())
        with pytest.raises(ValueError, match=r"^a: n: expected the 3 of rows or None, got 4"):
            Gaussian(self.mu, rows=np.ones((3, 2)), n=4, name="a")
        with pytest.raises(ValueError, match=r"^n: expected at most 2\^62 samples"):
            Gaussian(self.mu, self.eye, n=2**62 + 1)
        with pytest.raises(ValueError, match="expected d >= 1"):
            _core.frechet_distance(Gaussian(np.zeros(0), np.ones((0, 0))), Gaussian(np.zeros(0), np.ones((0, 0))))

    def test_types(self):
        with pytest.raises(TypeError, match=r"^b: mu: "):
            Gaussian(self.mu.astype(np.float32), self.eye, name="b")
        with pytest.raises(TypeError, match=r"^rows: "):
            Gaussian(self.mu, rows=np.ones((3, 2), dtype=np.int64))
        with pytest.raises(TypeError, match=r"^sigma: "):
            Gaussian(self.mu, self.eye.tolist())
        with pytest.raises(TypeError):
            _core.frechet_distance((self.mu, self.eye), self.unit())

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_not_finite(self, bad):
        with pytest.raises(_core.NumericalError, match=r"^b: mu: contains NaN"):
            _core.frechet_distance(self.unit(), Gaussian(np.array([0, bad]), self.eye, name="b"))
        rows = np.ones((3, 2))
        rows[2, 1] = bad
        with pytest.raises(_core.NumericalError, match=r"^a: rows: contains NaN"):
            _core.frechet_distance(Gaussian(self.mu, rows=rows, name="a"), self.unit())

    def test_beyond_float64(self):
        with pytest.raises(_core.NumericalError, match="range of float64"):
            _core.frechet_distance(Gaussian(np.array([1e200, 0]), self.eye), self.unit())

    def test_a_gaussian_keeps_its_arrays_alive(self):
        a, b = (Gaussian(np.zeros(300), np.eye(300) * scale, name="x", n=9) for scale in (1.0, 4.0))
        assert repr(a) == "Gaussian(d=300, n=9, name='x')"
        assert (a.name, a.d, a.n) == ("x", 300, 9)
        assert Gaussian(self.mu, self.eye).n is None
        gc.collect()
        np.zeros((300, 300))
        assert _core.frechet_distance(a, b).value == pytest.approx(300, rel=ANOTHER_ORDER)

    def test_messages_of_the_public_function_name_the_side(self):
        bad = np.diag([1.0, -1.0])
        with pytest.raises(fastfid.NumericalError, match=r"^Imaginary component 1: b: sigma is not positive"):
            fastfid.frechet_distance((self.mu, self.eye), (self.mu, bad))
        named = fastfid.Statistics(self.mu, bad, name="dir/x.npz")
        with pytest.raises(fastfid.NumericalError, match=r"^Imaginary component 1: dir/x\.npz: sigma is not positive"):
            fastfid.frechet_distance(named, (self.mu, self.eye))
