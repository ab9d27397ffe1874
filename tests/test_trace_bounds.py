"""The bounds of the trace hold for the matrices as given: adversarial pairs, compared with values of 60 digits."""

import math

import mpmath
import numpy as np
import pytest
from tolerances import (
    DEFAULT_TOL,
    FACTOR_RESIDUAL,
    FEW_ROUNDINGS,
    FREE_BRACKET,
    MEASURED_RESIDUAL,
    PRINTED_6,
    ROUNDED_ROOTS,
)
from trace_adversaries import COVARIANCES, DIGITS, Pair, fractions, pairs, solve, truth, violation

from fastfid import _core

# A matrix and its adjugate: nearly singular, and large where the other is small.
ADJUGATES = (
    np.array([[4.34056206406497, 4.230008334496388], [4.230008334496388, 4.122270398583359]]),
    np.array([[4122270399.583359, -4230008334.4963875], [-4230008334.4963875, 4340562065.06497]]),
)
ROUTES = [("auto", None), ("newton-schulz", None), ("auto", 1e-9)]


def covariance_trace(a, b):
    return truth(Pair("", (a, b))).trace


class TestTruth:
    """What the bounds are compared with."""

    def test_two_by_two(self):
        # T^2 = tr(S1 S2) + 2 (det S1 det S2)^(1/2), in rational numbers up to the roots.
        for pair in pairs(300, 5):
            if any(pair.are_rows) or len(pair.sides[0]) != 2:
                continue
            a, b = (fractions(side, are_rows=False) for side in pair.sides)
            determinants = [s[0][0] * s[1][1] - s[0][1] * s[1][0] for s in (a, b)]
            if min(determinants) < 0:
                continue
            with mpmath.workdps(DIGITS):
                product = sum(a[i][j] * b[j][i] for i in range(2) for j in range(2))
                both = determinants[0] * determinants[1]
                root = mpmath.sqrt(mpmath.mpf(both.numerator) / both.denominator)
                square = mpmath.mpf(product.numerator) / product.denominator + 2 * root
                assert abs(truth(pair).trace - mpmath.sqrt(square)) <= mpmath.mpf(10) ** -25 * mpmath.sqrt(square)

    def test_the_positive_part_counts(self):
        turn = np.array([[0.6, 0.8], [-0.8, 0.6]])  # both columns, up to rounding, eigenvectors
        negative = turn @ np.diag([4.0, -1e-12]) @ turn.T
        negative = (negative + negative.T) / 2
        assert float(covariance_trace(negative, np.eye(2))) == pytest.approx(2, rel=FEW_ROUNDINGS)

    def test_rows_are_their_covariance(self):
        x, y = np.random.default_rng(0).standard_normal((2, 4, 3))
        of_rows = truth(Pair("", (x, y), (True, True)))
        sigma1, sigma2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        assert float(of_rows.trace) == pytest.approx(float(covariance_trace(sigma1, sigma2)), rel=ROUNDED_ROOTS)
        assert float(of_rows.traces[0]) == pytest.approx(np.trace(sigma1), rel=FEW_ROUNDINGS)

    def test_families_are_what_they_say(self):
        """Conditions up to 1e15, scales from 1e-9 to 1e9, ranks below d, indefinite by rounding, rows thin and not."""
        drawn = list(pairs(600, 0))
        assert {pair.family for pair in drawn} == {*COVARIANCES, "rows", "rows and covariance"}
        sides = [side for pair in drawn for side, rows in zip(pair.sides, pair.are_rows, strict=True) if not rows]
        rows = [side for pair in drawn for side, rows in zip(pair.sides, pair.are_rows, strict=True) if rows]
        values = [np.linalg.eigvalsh((s + s.T) / 2) for s in sides]
        conditions = np.array([v[-1] / v[0] if v[0] > 0 else math.inf for v in values])
        assert (conditions < 10).sum() > 20
        assert (conditions > 1e14).sum() > 100
        assert sum(v[0] < 0 for v in values) > 50
        assert sum(1e6 * np.trace(s) < 1 for s in sides) > 50
        assert sum(np.trace(s) > 1e6 for s in sides) > 50
        assert {len(s) for s in sides} == {2, 3, 4, 5, 6}
        assert sum(len(x) <= x.shape[1] for x in rows) > 20
        assert sum(len(x) > x.shape[1] for x in rows) > 20

    def test_the_same_seed_gives_the_same_pairs(self):
        for one, other in zip(pairs(40, 3), pairs(40, 3), strict=True):
            np.testing.assert_array_equal(one.sides[0], other.sides[0])


@pytest.fixture(scope="module")
def adversaries():
    """600 pairs and their truths; `python -m tools.trace_bounds` takes thousands."""
    return [(pair, truth(pair)) for pair in pairs(600, 0)]


@pytest.mark.parametrize(("method", "tol"), ROUTES)
def test_the_exact_trace_is_between_the_bounds(adversaries, method, tol):
    for index, (pair, exact) in enumerate(adversaries):
        result = solve(pair, method, tol)
        assert violation(result.trace, exact.trace) == 0, (index, pair.family)
        assert violation(result, exact.distance) == 0, (index, pair.family)
        assert result.trace.lower <= result.trace.value <= result.trace.upper
        if result.trace.upper - result.trace.lower > 2 * DEFAULT_TOL * result.trace.upper:
            assert result.trace.note, (index, pair.family)


@pytest.mark.parametrize("method", ["auto", "eigen", "newton-schulz"])
def test_a_nearly_singular_matrix_and_its_adjugate(method):
    exact = covariance_trace(*ADJUGATES)
    assert float(exact) == pytest.approx(2.911185, rel=0, abs=PRINTED_6)
    for pair in (ADJUGATES, ADJUGATES[::-1]):
        result = _core.trace_sqrt_product(*pair, method=method)
        assert violation(result, exact) == 0
        assert "rounding may do in the factors" in result.note


@pytest.mark.parametrize("exponent", [-320, -150, -9, 0, 9, 150])
def test_any_scale(exponent):
    """Down to subnormal numbers, where bounds are rounded themselves."""
    rng = np.random.default_rng(1)
    for d in (1, 2, 5):
        a, b = (x.T @ x for x in rng.standard_normal((2, 3 * d, d)))
        pair = a * 10.0**exponent, b * 10.0**exponent
        assert violation(_core.trace_sqrt_product(*pair), covariance_trace(*pair)) == 0


def direct_sum(parts, order):
    """A block-diagonal matrix, its features in another order."""
    out = np.zeros((len(order), len(order)))
    at = 0
    for part in parts:
        out[at : at + len(part), at : at + len(part)] = part
        at += len(part)
    return np.ascontiguousarray(out[np.ix_(order, order)])


@pytest.mark.parametrize("power", [0, 2, 4])
def test_large_matrices_of_small_ones(power):
    """The routes of many features: T of a direct sum is the sum of its parts'."""
    for seed in range(6):
        rng = np.random.default_rng([power, seed])
        kinds = []
        for _ in range(5):
            q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
            values = np.logspace(0, -power, 4)
            part = [(q * v) @ q.T for v in (values, values[::-1] if seed % 2 else rng.permutation(values))]
            kinds.append([(s + s.T) / 2 * rng.uniform(0.5, 2) for s in part])
        chosen = rng.integers(5, size=50)
        order = rng.permutation(200)
        pair = [direct_sum([kinds[k][side] for k in chosen], order) for side in range(2)]
        with mpmath.workdps(DIGITS):
            exact = mpmath.fsum(covariance_trace(*kinds[k]) for k in chosen)
        for method in ("auto", "eigen", "newton-schulz"):
            result = _core.trace_sqrt_product(*pair, method=method)
            assert result.method == {"auto": "rational"}.get(method, method)
            assert violation(result, exact) == 0
            assert not result.note


@pytest.mark.parametrize("d", [2, 3, 8, 40, 150, 200])
@pytest.mark.parametrize("decay", [0, 2, 3.5])
def test_well_conditioned_pairs_have_narrow_bounds_and_no_note(d, decay):
    rng = np.random.default_rng([d, int(10 * decay)])
    q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    rows = [rng.standard_normal((n, d)) * np.logspace(0, -decay, d) for n in (3 * d + 3, 4 * d)]
    for turn in (np.eye(d), q):
        pair = [np.cov(x @ turn, rowvar=False) for x in rows]
        assert max(np.linalg.cond(s) for s in pair) < 1e8
        for method, tol in (("auto", None), ("newton-schulz", 1e-9), ("auto", 1e-9)):
            result = _core.trace_sqrt_product(*pair, method=method, tol=tol)
            assert result.note.replace("taken from the singular values of M, the slowest route, as ", "") in (
                "",
                "the covariances' product is singular to working precision",
            )
            assert result.upper - result.lower <= (tol or FREE_BRACKET) * result.upper


def test_the_measured_residual_is_exact():
    """That of a singular covariance, beside rational numbers: 1e-17 of the trace, below the rounding of one product."""
    rng = np.random.default_rng(8)
    sigma = np.cov(rng.standard_normal((9, 12)) * np.logspace(0, -3, 12), rowvar=False)
    f, exponent = _core._testing.factor(sigma)
    assert f.shape == (8, 12)
    with mpmath.workdps(DIGITS):
        factor = mpmath.matrix(f.tolist())
        rest = mpmath.matrix(sigma.tolist()) - mpmath.mpf(4) ** exponent * (factor.T * factor)
        exact = mpmath.sqrt(mpmath.fsum(x * x for x in rest)) / mpmath.fsum(np.diag(sigma).tolist())
    assert 0 < exact < FACTOR_RESIDUAL
    assert _core.trace_sqrt_product(sigma, np.eye(12)).factor_residual == pytest.approx(
        float(exact), rel=MEASURED_RESIDUAL
    )
