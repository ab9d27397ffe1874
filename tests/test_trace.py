"""tr((Sigma1 Sigma2)^(1/2)) and its bounds against closed forms, mpmath in 50 digits, and SciPy."""

import math
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.linalg
from stubs import counts_during
from tolerances import (
    ANOTHER_SCALE,
    CERTIFICATE,
    DEFAULT_TOL,
    FACTOR_RESIDUAL,
    FEW_ROUNDINGS,
    FREE_BRACKET,
    LOST_ROOTS,
    NEWTON_SCHULZ,
    RANK_ONE,
    ROUNDED_ROOTS,
    SCIPYS_ROOT_SMALL,
    TWO_ROUTES,
)
from trace_adversaries import Pair, truth, violation

from fastfid import _core

METHODS = ["auto", "eigen", "newton-schulz"]


def covariance(rng, n, d, decay=0.0):
    """The covariance of n samples of d features whose standard deviations fall from 1 to 10^-decay."""
    x = rng.standard_normal((n, d)) * np.logspace(0, -decay, d)
    return np.atleast_2d(np.cov(x, rowvar=False))


def rotated(rng, values):
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    s = (q * values) @ q.T
    return (s + s.T) / 2


def with_simd(simd, code, *arguments):
    """Run Python code in a process of its own, FASTFID_SIMD set."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "FASTFID_SIMD": simd},
        capture_output=True,
        text=True,
        check=False,
    )


def make_cases():
    """Name -> (sigma1, sigma2)."""
    rng = np.random.default_rng(7)
    d = 8
    a = covariance(rng, 40, d, 1)
    b = covariance(rng, 50, d, 2)
    v = rng.standard_normal(d)
    constant = covariance(rng, 40, d)
    constant[3, :] = constant[:, 3] = 0.0
    eye = np.eye(d)
    return {
        "full rank": (a, b),
        "identical": (a, a),
        "nearly identical": (a, a + 1e-9 * rotated(rng, rng.random(d))),
        "rank one": (np.outer(v, v), b),
        "rank one, both": (np.outer(v, v), 4 * np.outer(v, v)),
        "rank one, orthogonal": (np.diag([1.0] + [0.0] * (d - 1)), np.diag([0.0] * (d - 1) + [1.0])),
        "zero": (np.zeros((d, d)), b),
        "zero, both": (np.zeros((d, d)), np.zeros((d, d))),
        "diagonal, condition 1e12": (np.diag(np.logspace(0, -12, d)), np.diag(np.logspace(-12, 0, d))),
        "rotated, condition 1e12": (rotated(rng, np.logspace(0, -12, d)), rotated(rng, np.logspace(0, -12, d))),
        "diagonal, condition 1e300": (np.diag(np.logspace(0, -300, d)), eye),
        "one constant feature": (constant, b),
        "n = 2": (covariance(rng, 2, d), covariance(rng, 2, d)),
        "n = 5 of d = 8": (covariance(rng, 5, d), covariance(rng, 6, d)),
        "1e-200": (1e-200 * a, 1e-200 * b),
        "1e200": (1e200 * a, 1e200 * b),
        "1e-300 and 1e300": (1e-300 * a, 1e300 * b),
        "subnormal": (5e-324 * eye, eye),
        "d = 1": (np.array([[4.0]]), np.array([[9.0]])),
        "d = 2": (covariance(rng, 9, 2), covariance(rng, 9, 2)),
    }


CASES = make_cases()


def factors_trace(sigma1, sigma2):
    """The nuclear norm of F1 F2^T in 50 digits, for the factors that the core computed: what the routes compute."""
    (f1, e1), (f2, e2) = _core._testing.factor(sigma1), _core._testing.factor(sigma2)
    if f1.shape[0] == 0 or f2.shape[0] == 0:
        return mpmath.mpf(0)
    with mpmath.workdps(50):
        m = mpmath.matrix(f1.tolist()) * mpmath.matrix(f2.tolist()).T
        return mpmath.fsum(mpmath.svd_r(m, compute_uv=False)) * mpmath.mpf(2) ** (e1 + e2)


@pytest.mark.parametrize("tol", [None, 1e-9], ids=["free", "tol"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_and_value_is_exact(name, method, tol):
    sigma1, sigma2 = CASES[name]
    result = _core.trace_sqrt_product(sigma1, sigma2, method=method, tol=tol)
    assert violation(result, truth(Pair(name, (sigma1, sigma2))).trace) == 0
    assert result.lower <= result.value <= result.upper
    # Forming M and its decomposition are backward stable: the error is relative to the product of the traces.
    scale = math.sqrt(np.trace(sigma1)) * math.sqrt(np.trace(sigma2))
    error = (tol or DEFAULT_TOL) if result.method == "newton-schulz" else ROUNDED_ROOTS
    assert abs(mpmath.mpf(result.value) - factors_trace(sigma1, sigma2)) <= error * scale
    if tol is not None and "wider" not in result.note:
        assert result.upper - result.lower <= tol * result.upper


@pytest.mark.parametrize("d", [2, 3, 5, 8])
def test_margin_of_the_eigen_bracket(d):
    # Its share for the eigensolver is LAPACK's documented form, not a theorem: docs/numerics.md.
    for seed in range(12):
        rng = np.random.default_rng(100 * d + seed)
        pair = [covariance(rng, int(rng.integers(2 * d, 6 * d)), d, rng.uniform(0, 2.5)) for _ in range(2)]
        result = _core.trace_sqrt_product(*pair, method="eigen")
        assert result.method == "eigen"
        half = (result.upper - result.lower) / 2
        assert 5 * abs(mpmath.mpf(result.value) - factors_trace(*pair)) <= half <= FREE_BRACKET * result.value


@pytest.mark.parametrize("method", METHODS)
def test_closed_forms(method):
    assert _core.trace_sqrt_product(*CASES["d = 1"], method=method).value == pytest.approx(6, rel=FEW_ROUNDINGS)
    # (v v^T)(4 v v^T) has the root 2 |v|^2 v v^T / |v|^2, of trace 2 |v|^2.
    one, four = CASES["rank one, both"]
    sigma = CASES["full rank"][0]
    off = NEWTON_SCHULZ if method == "newton-schulz" else ROUNDED_ROOTS
    assert _core.trace_sqrt_product(one, four, method=method).value == pytest.approx(2 * np.trace(one), rel=RANK_ONE)
    assert _core.trace_sqrt_product(sigma, sigma, method=method).value == pytest.approx(np.trace(sigma), rel=off)
    for name in ["1e-200", "1e200"]:
        expected = _core.trace_sqrt_product(*CASES["full rank"], method=method).value * float(name)
        assert _core.trace_sqrt_product(*CASES[name], method=method).value == pytest.approx(
            expected, rel=ANOTHER_SCALE, abs=0
        )


@pytest.mark.parametrize("d", [3, 64, 300, 600])
def test_full_rank_agrees_with_scipy(d):
    rng = np.random.default_rng(d)
    sigma1, sigma2 = covariance(rng, 3 * d, d, 1), covariance(rng, 2 * d, d, 1)
    expected = np.trace(scipy.linalg.sqrtm(sigma1 @ sigma2)).real
    tol = 1e-8
    for method in METHODS:
        result = _core.trace_sqrt_product(sigma1, sigma2, method=method, tol=tol)
        off = NEWTON_SCHULZ if method == "newton-schulz" else SCIPYS_ROOT_SMALL
        assert result.value == pytest.approx(expected, rel=off)
        assert result.lower <= expected * (1 + SCIPYS_ROOT_SMALL)
        assert result.upper >= expected * (1 - SCIPYS_ROOT_SMALL)
        assert result.upper - result.lower <= tol * result.upper


def test_symmetric_part_is_used():
    # 70 is more than two squares of 32.
    rng = np.random.default_rng(70)
    sigma, other = covariance(rng, 200, 70), covariance(rng, 200, 70)
    crooked = sigma + 1e-9 * np.triu(rng.standard_normal((70, 70)), 1)
    expected = _core.trace_sqrt_product((crooked + crooked.T) / 2, other).value
    assert _core.trace_sqrt_product(crooked, other).value == expected
    assert _core.trace_sqrt_product(crooked.T.copy(), other).value == expected


def test_thread_count_does_not_change_a_bit():
    rng = np.random.default_rng(3)
    sigma1, sigma2 = covariance(rng, 900, 600, 1), covariance(rng, 700, 600, 1)
    seen = set()
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            for method in METHODS:
                result = _core.trace_sqrt_product(sigma1, sigma2, method=method)
                seen.add((method, result.value, result.lower, result.upper, result.factor_residual))
    finally:
        _core.set_num_threads(0)
    assert len(seen) == len(METHODS)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (900, 300), (100, 300)])
def test_factor_residual_is_the_distance_from_the_covariance(n, d):
    sigma = covariance(np.random.default_rng(d), n, d, 1)
    f, exponent = _core._testing.factor(sigma)
    expected = np.linalg.norm(sigma - 4.0**exponent * (f.T @ f)) / np.trace(sigma)
    got = _core.trace_sqrt_product(sigma, np.eye(d)).factor_residual
    assert got <= FACTOR_RESIDUAL
    assert expected / 2 <= got <= 2 * expected


def reflected(values, vectors):
    """H diag(values) H^T with H the product of the Householder reflectors of `vectors`: O(d^2) work."""
    sigma = np.diag(values)
    for v in vectors:
        w = sigma @ v
        w -= (v @ w) * v
        sigma -= 2 * np.stack([v, w], axis=1) @ np.stack([w, v])
    return sigma


def test_largest_dimension():
    # Commuting covariances: T is the sum of the roots of the products of their eigenvalues.
    d = 4096
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((2, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.logspace(0, -4, d), rng.permutation(np.logspace(0, -3, d))
    result = _core.trace_sqrt_product(*(reflected(v, vectors) for v in values))
    expected = np.sqrt(values[0] * values[1]).sum()
    assert result.value == pytest.approx(expected, rel=ROUNDED_ROOTS)
    assert result.lower <= expected <= result.upper
    assert result.upper - result.lower <= FREE_BRACKET * expected


def commuting(d, conditions, seed=0):
    """Covariances with common eigenvectors, and T: the sum of the roots of the products of their eigenvalues."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = [rng.permutation(np.logspace(0, -math.log10(condition), d)) for condition in conditions]
    return [reflected(v, vectors) for v in values], math.fsum(np.sqrt(values[0]) * np.sqrt(values[1]))


class TestRational:
    """The route that "auto" takes from d = 192 on."""

    def test_table_is_as_good_as_it_says(self):
        lower_end, error, linear, poles, weights = _core._testing.root_table()

        def ratio(x):  # to the square root
            return mpmath.sqrt(x) * (linear + mpmath.fsum(w / (x + p) for p, w in zip(poles, weights, strict=True)))

        assert all(w > 0 for w in weights)  # so sums of positive definite terms
        with mpmath.workdps(40):
            for x in np.logspace(math.log10(lower_end), 0, 400):
                # The constants are rounded to float64.
                assert abs(ratio(mpmath.mpf(x)) - 1) <= error + 2.0**-52
            for x in np.logspace(-300, math.log10(lower_end), 100):
                assert 0 <= ratio(mpmath.mpf(x)) <= 1 + error + 2.0**-52

    @pytest.mark.parametrize("d", [192, 193, 223, 256, 300])  # the last band is of every width
    @pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
    def test_bounds_hold_with_a_margin(self, d, condition):
        # A part of the bracket rests on LAPACK's documented form: docs/numerics.md.
        for seed, conditions in enumerate([(condition, condition), (condition, 10.0), (1.0, condition)]):
            sigmas, truth = commuting(d, conditions, seed)
            result = _core.trace_sqrt_product(*sigmas)
            assert result.method == "rational"
            assert result.value == pytest.approx(truth, rel=ROUNDED_ROOTS)
            half = (result.upper - result.lower) / 2
            assert 5 * abs(result.value - truth) <= half <= FREE_BRACKET * truth
            assert result.rank == d

    @pytest.mark.parametrize("power", [-200, 0, 200])
    def test_any_scale(self, power):
        sigmas, truth = commuting(200, (1e3, 1e3))
        result = _core.trace_sqrt_product(sigmas[0] * 10.0**power, sigmas[1] * 10.0**-power)
        assert result.method == "rational"
        assert result.lower <= truth * (1 + ROUNDED_ROOTS)
        assert result.upper >= truth * (1 - ROUNDED_ROOTS)
        assert result.value == pytest.approx(truth, rel=ROUNDED_ROOTS)

    def test_every_instruction_set(self, tmp_path):
        """The products of csrc/core/tiles.cpp are compiled for several: each, beside LAPACK's eigenvalues."""
        truths = []
        names = []
        for d in [*range(193, 420, 17), 420]:  # strips, tiles and panels end in many ways
            rng = np.random.default_rng(d)
            sigma1, sigma2 = covariance(rng, 3 * d, d, 1), covariance(rng, 2 * d, d)
            factor = np.linalg.cholesky(sigma1)
            truths.append(np.sqrt(np.linalg.eigvalsh(factor.T @ sigma2 @ factor)).sum())
            names.append(str(tmp_path / f"{d}.npz"))
            np.savez(names[-1], a=sigma1, b=sigma2)
        code = """
import sys, numpy as np
from fastfid import _core
for name in sys.argv[1:]:
    with np.load(name) as pair:
        print(_core.trace_sqrt_product(pair["a"], pair["b"]).value.hex())
print(_core.build_info()["blas"])
"""
        flags = Path("/proc/cpuinfo").read_text().split()
        has = {"none": True, "avx2": {"avx2", "fma"} <= set(flags), "avx512": "avx512f" in flags}
        values = {}
        for simd in has:
            done = with_simd(simd, code, *names)
            if not has[simd]:
                assert f"FASTFID_SIMD: this processor has no {simd}" in done.stderr
                continue
            assert done.returncode == 0, done.stderr
            *found, blas = done.stdout.splitlines()
            assert blas.endswith({"none": "for Any", "avx2": "for Avx2", "avx512": "for Avx512"}[simd])
            values[simd] = [float.fromhex(value) for value in found]
            assert values[simd] == pytest.approx(truths, rel=TWO_ROUTES)
        # Without fused multiply-adds some bits differ: another code did run. (-O1, of the sanitizers, fuses none.)
        if len(values) > 1 and not _core.build_info()["sanitizers"]:
            assert values["none"] != values["avx2"]

    def test_unknown_instruction_set(self):
        done = with_simd(
            "sse9", "import numpy; from fastfid import _core; _core.trace_sqrt_product(*[numpy.eye(200)] * 2)"
        )
        assert done.returncode != 0
        assert "FASTFID_SIMD: expected avx512, avx2 or none; got sse9" in done.stderr

    def test_small_stack(self):
        """A thread with a stack of 64 KiB, as embedded interpreters give: tiles are not kept on it."""
        code = """
import threading, numpy
from fastfid import _core
threading.stack_size(64 * 1024)
values = []
thread = threading.Thread(target=lambda: values.append(_core.trace_sqrt_product(*[numpy.eye(200)] * 2).value))
thread.start()
thread.join()
print(values[0])
"""
        done = with_simd("", code)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == 200

    def test_agrees_with_the_other_routes(self):
        rng = np.random.default_rng(1)
        for d in (192, 500):
            sigmas = covariance(rng, 3 * d, d, 1.6), covariance(rng, 4 * d, d, 1.6)
            results = [_core.trace_sqrt_product(*sigmas, method=method) for method in METHODS]
            assert [result.method for result in results] == ["rational", "eigen", "newton-schulz"]
            certified = _core.trace_sqrt_product(*sigmas, tol=1e-9)
            assert results[0].value == pytest.approx(results[1].value, rel=TWO_ROUTES)
            assert results[0].lower <= certified.lower <= certified.upper <= results[0].upper

    @pytest.mark.parametrize("conditions", [(1e9, 1e9), (1e12, 1.0), (1e16, 1e16)])
    def test_what_it_cannot_resolve_goes_elsewhere(self, conditions):
        sigmas, truth = commuting(200, conditions)
        result = _core.trace_sqrt_product(*sigmas)
        assert result.method in ("eigen", "svd")
        assert result.lower <= truth * (1 + LOST_ROOTS)
        assert result.upper >= truth * (1 - LOST_ROOTS)
        assert result.value == pytest.approx(truth, rel=LOST_ROOTS)

    def test_singular_sides_go_elsewhere(self):
        rng = np.random.default_rng(2)
        full, thin = covariance(rng, 900, 200), covariance(rng, 90, 200)
        for pair in [(full, thin), (thin, full), (thin, thin)]:
            result = _core.trace_sqrt_product(*pair)
            assert result.method != "rational"
            assert result.rank == 89

    @pytest.mark.parametrize("depth", [1e-9, 1e-5, 1e-2])
    def test_an_indefinite_second_covariance_is_found(self, depth):
        # It is not factored on this route: the signs of F1 Sigma2 F1^T tell.
        rng = np.random.default_rng(3)
        values = np.logspace(0, -3, 200)
        values[100] = -depth
        bad, good = rotated(rng, values), covariance(rng, 900, 200)
        for pair in [(good, bad), (bad, good)]:
            with pytest.raises(_core.NumericalError, match=r"^Imaginary component.*not positive semi-definite"):
                _core.trace_sqrt_product(*pair)

    def test_the_order_of_the_sides_changes_no_bit(self):
        rng = np.random.default_rng(6)
        sigma1, sigma2 = covariance(rng, 900, 250, 1), covariance(rng, 700, 250, 2)
        one, other = _core.trace_sqrt_product(sigma1, sigma2), _core.trace_sqrt_product(sigma2, sigma1)
        assert one.method == "rational"
        assert (one.value, one.lower, one.upper) == (other.value, other.lower, other.upper)

    @pytest.mark.parametrize("spectrum", [np.r_[1.0, np.full(191, 1e-9)], np.logspace(0, -6, 192)])
    def test_unlike_spectra(self, spectrum):
        # Diagonal, so that T is known to the last digits.
        for pair in [(np.eye(192), np.diag(spectrum)), (np.diag(spectrum), np.diag(spectrum[::-1]))]:
            truth = math.fsum(np.sqrt(pair[0].diagonal() * pair[1].diagonal()))
            result = _core.trace_sqrt_product(*pair)
            assert result.lower <= truth <= result.upper
            assert result.value == pytest.approx(truth, rel=ROUNDED_ROOTS)
            assert result.upper - result.lower <= 2 * DEFAULT_TOL * truth  # wider ones have a note

    def test_bias_costs_no_bit_of_the_value(self):
        rng = np.random.default_rng(4)
        d = 200
        sigmas = covariance(rng, 3 * d, d, 1), covariance(rng, 4 * d, d, 1)
        sides = [
            _core.Gaussian(np.full(d, mean), sigma, n=n)
            for mean, sigma, n in zip((0.0, 1.0), sigmas, (3 * d, 4 * d), strict=True)
        ]
        plain = _core.frechet_distance(*sides, needs_bias=False)
        with_bias = _core.frechet_distance(*sides)
        assert plain.bias is None
        assert (with_bias.value, with_bias.lower, with_bias.upper) == (plain.value, plain.lower, plain.upper)
        eigen = _core.frechet_distance(*sides, method="eigen")
        assert with_bias.bias == pytest.approx(eigen.bias, rel=TWO_ROUTES)


@pytest.mark.parametrize("method", METHODS)
def test_other_python_threads_run_meanwhile(method):
    rng = np.random.default_rng(5)
    sigma1, sigma2 = covariance(rng, 900, 600, 1), covariance(rng, 700, 600, 1)
    assert counts_during(lambda: _core.trace_sqrt_product(sigma1, sigma2, method=method)) > 100


def test_inputs_are_not_modified():
    sigma1, sigma2 = (s.copy() for s in CASES["n = 5 of d = 8"])
    for method in METHODS:
        _core.trace_sqrt_product(sigma1, sigma2, method=method)
    np.testing.assert_array_equal(sigma1, CASES["n = 5 of d = 8"][0])
    np.testing.assert_array_equal(sigma2, CASES["n = 5 of d = 8"][1])


class TestErrors:
    eye = np.eye(2)

    def test_indefinite_has_the_text_that_pytorch_fid_users_know(self):
        indefinite = np.array([[-1.0, 1.0], [1.0, 1.0]])
        for args in [(indefinite, self.eye), (self.eye, indefinite)]:
            with pytest.raises(_core.NumericalError, match=r"^Imaginary component 1\.189.*not positive semi-definite"):
                _core.trace_sqrt_product(*args)

    @pytest.mark.parametrize(
        "sigma",
        [
            np.array([[0.0, 1.0], [1.0, 0.0]]),
            np.diag([1.0, -1e-6]),
            np.diag([-1.0, -1.0]),
            np.array([[1.0, 1.001], [1.001, 1.0]]),
            -1e-250 * np.eye(2),
        ],
    )
    def test_indefinite(self, sigma):
        with pytest.raises(_core.NumericalError, match=r"^Imaginary component"):
            _core.trace_sqrt_product(sigma, self.eye)

    @pytest.mark.parametrize("method", METHODS)
    def test_indefinite_by_an_element_that_overflows_once_the_trace_is_one(self, method):
        sigma = 1e-10 * np.eye(192)
        sigma[3, 5] = sigma[5, 3] = 1e308
        for args in [(sigma, np.eye(192)), (np.eye(192), sigma)]:
            with pytest.raises(_core.NumericalError, match=r"^Imaginary component.*not positive semi-definite"):
                _core.trace_sqrt_product(*args, method=method)

    def test_rounding_below_zero_is_no_error(self):
        result = _core.trace_sqrt_product(np.diag([1.0, -1e-17]), self.eye)
        assert result.value == pytest.approx(1, rel=FEW_ROUNDINGS)
        assert result.rank == 1
        assert "singular" in result.note

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("place", [(0, 0), (0, 1)])
    def test_not_finite(self, bad, place):
        sigma = np.eye(2)
        sigma[place] = sigma[place[::-1]] = bad
        with pytest.raises(_core.NumericalError, match="sigma2: contains NaN or infinity"):
            _core.trace_sqrt_product(self.eye, sigma)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("place", [(0, 39), (39, 0), (35, 35)])
    def test_not_finite_on_one_side_of_the_diagonal(self, bad, place):
        sigma = np.eye(40)
        sigma[place] = bad
        with pytest.raises(_core.NumericalError, match="sigma1: contains NaN or infinity"):
            _core.trace_sqrt_product(sigma, np.eye(40))

    def test_asymmetric(self):
        with pytest.raises(ValueError, match="sigma1: expected a symmetric matrix"):
            _core.trace_sqrt_product(np.array([[1.0, 0.5], [0.4, 1.0]]), self.eye)

    def test_shapes_and_types(self):
        with pytest.raises(ValueError, match=r"sigma1: expected shape \(d, d\)"):
            _core.trace_sqrt_product(np.ones((2, 3)), self.eye)
        with pytest.raises(ValueError, match="differ in dimension: 3 and 2"):
            _core.trace_sqrt_product(np.eye(3), self.eye)
        with pytest.raises(ValueError, match="d = 0"):
            _core.trace_sqrt_product(np.ones((0, 0)), np.ones((0, 0)))
        with pytest.raises(TypeError, match="sigma1"):
            _core.trace_sqrt_product(np.eye(2, dtype=np.float32), self.eye)
        with pytest.raises(TypeError, match="sigma2"):
            _core.trace_sqrt_product(self.eye, [[1.0, 0.0], [0.0, 1.0]])
        with pytest.raises(ValueError, match="method"):
            _core.trace_sqrt_product(self.eye, self.eye, method="sqrtm")
        for tol in [0.0, -1.0, math.nan, math.inf]:
            with pytest.raises(ValueError, match="tol"):
                _core.trace_sqrt_product(self.eye, self.eye, tol=tol)

    def test_beyond_float64(self):
        huge = 1e308 * np.eye(64)
        with pytest.raises(_core.NumericalError, match="range of float64"):
            _core.trace_sqrt_product(huge, huge)


class TestCertificate:
    rng = np.random.default_rng(11)
    m = rng.standard_normal((12, 8))
    u, s, vt = np.linalg.svd(m, full_matrices=False)

    def test_polar_factor_gives_tight_bounds(self):
        lower, upper, is_norm_proven = _core._testing.polar_certificate(self.m, np.ascontiguousarray(self.u @ self.vt))
        assert is_norm_proven
        assert lower <= self.s.sum() <= upper
        assert upper - lower <= CERTIFICATE * upper

    def test_any_iterate_of_norm_below_two_gives_true_bounds(self):
        rng = np.random.default_rng(12)
        for _ in range(200):
            x = rng.standard_normal((12, 8))
            x *= rng.uniform(0, 1.97) / np.linalg.norm(x, 2)
            lower, upper, is_norm_proven = _core._testing.polar_certificate(self.m, x)
            assert is_norm_proven
            assert lower <= self.s.sum() <= upper

    def test_wrong_iterate_is_caught(self):
        # Without the check its "lower bound" is above the nuclear norm: f(-2.5) = 4.06 > 1.
        values = np.full(8, 0.9)
        values[0] = -2.5
        x = (self.u * values) @ self.vt
        y, h = x.T @ x, x.T @ self.m
        assert (3 * np.trace(h) - (y * h).sum()) / 2 > self.s.sum()
        lower, upper, is_norm_proven = _core._testing.polar_certificate(self.m, x)
        assert not is_norm_proven
        assert lower <= self.s.sum() <= upper

    @pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
    def test_broken_iterate_is_caught(self, bad):
        x = np.ascontiguousarray(self.u @ self.vt)
        x[0, 0] = bad
        lower, upper, is_norm_proven = _core._testing.polar_certificate(self.m, x)
        assert not is_norm_proven
        assert lower <= self.s.sum() <= upper

    def test_polynomials_map_the_guarded_interval_into_itself(self):
        guard, stages = _core._testing.polar_table()
        x = np.linspace(0, 1 + guard, 200_001)
        for stage in stages:
            for c0, c1, c2 in stage:
                p = x * (c0 + x**2 * (c1 + x**2 * c2))
                assert p.min() >= 0
                assert p.max() <= 1 + 4 * FEW_ROUNDINGS  # four operations each have their rounding

    def test_stages_reach_one(self):
        _, stages = _core._testing.polar_table()
        for end, count in zip([1e-5, 1e-8, 1e-11, 1e-14], range(1, 5), strict=True):
            x = np.logspace(math.log10(end), 0, 100_001)
            for stage in stages[:count]:
                for c0, c1, c2 in stage:
                    x = x * (c0 + x**2 * (c1 + x**2 * c2))
            assert x.min() > 0.99


def test_the_note_tells_a_singular_product_from_a_narrow_bracket():
    rng = np.random.default_rng(5)
    pair = covariance(rng, 300, 100), covariance(rng, 400, 100)
    narrow = _core.trace_sqrt_product(*pair, tol=1e-15)
    assert "the bracket asked for is narrower" in narrow.note
    assert "singular to working precision" not in narrow.note
    singular = _core.trace_sqrt_product(np.diag(np.logspace(0, -30, 40)), np.eye(40))
    assert singular.method == "svd"
    assert "singular to working precision" in singular.note
