"""Precision, recall, density and coverage, beside distances in float64 that are summed feature by feature."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from fastfid import _core
from fastfid.errors import NumericalError
from fastfid.metrics import nearest, prdc
from fastfid.metrics.nearest import PRDCResult


def rows(n, d, seed, *, scale=1.0, shift=0.0):
    return (np.random.default_rng((seed, n, d)).standard_normal((n, d)) * scale + shift).astype(np.float32)


def distances(x, y):
    """The oracle: (n_x, n_y), float64."""
    total = np.zeros((len(x), len(y)))
    for a, b in zip(x.astype(np.float64).T, y.astype(np.float64).T, strict=True):
        total += np.subtract.outer(a, b) ** 2
    return total


def radii(x, k):
    found = distances(x, x)
    np.fill_diagonal(found, np.inf)
    return np.sort(found, axis=1)[:, k - 1]


def oracle(x, y, k, strict):
    """The values of prdc(), and the four counts of count_in_balls."""
    between, of_x, of_y = distances(x, y), radii(x, k), radii(y, k)
    compare = np.less if strict else np.less_equal
    in_x, in_y = compare(between, of_x[:, None]), compare(between, of_y)
    values = in_x.any(0).mean(), in_y.any(1).mean(), in_x.sum() / (k * len(y)), in_x.any(1).mean()
    return values, (in_x.sum(0), in_x.sum(1), in_y.sum(1), in_y.sum(0))


def values(result):
    return result.precision, result.recall, result.density, result.coverage


def assert_oracles(x, y, k, strict):
    expected, counts = oracle(x, y, k, strict)
    of_x, of_y = _core.kth_squared_distances(x, k), _core.kth_squared_distances(y, k)
    np.testing.assert_array_equal(of_x, radii(x, k))
    np.testing.assert_array_equal(of_y, radii(y, k))
    *found, undecided = _core.count_in_balls(x, of_x, y, of_y, strict)
    for ours, theirs in zip(found, counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 0 <= undecided <= len(x) * len(y)
    assert values(prdc(x, y, k=k, strict=strict)) == expected


def golden():
    a = np.random.RandomState(1).randn(2000, 64).astype(np.float32)
    b = (np.random.RandomState(2).randn(1500, 64) * 1.1 + 0.1).astype(np.float32)
    return a[:1000], b[:800]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("k", "expected"), [(3, (0.31125, 0.876, 0.2833333333333333, 0.461)), (5, (0.39, 0.939, 0.27575, 0.621))]
)
def test_golden_numbers(k, strict, expected):
    assert values(prdc(*golden(), k=k, strict=strict)) == expected


@pytest.mark.parametrize("dtype", [np.float64, ">f4"])
def test_other_types_and_strides_have_the_same_values(dtype):
    real, fake = golden()
    wide = np.asfortranarray(real.astype(dtype))
    assert prdc(wide, fake) == prdc(real, fake)
    assert prdc(real[::-1], fake[::-1]) == prdc(real[::-1].copy(), fake[::-1].copy())
    half = fake.astype(np.float16)
    assert prdc(real, half) == prdc(real, half.astype(np.float32))


# Strips have 1024 rows, tiles 512 columns, diagonal blocks 256, groups 128, panels 4096.
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("m", "n", "d", "k"),
    [
        *[(2, 2, 1, 1), (6, 9, 1, 5), (2, 130, 3, 1), (40, 30, 17, 29)],  # n = k + 1
        *[(511, 513, 2, 3), (1024, 1025, 16, 5), (1300, 1537, 5, 100)],
    ],
)
def test_random_rows(m, n, d, k, strict):
    assert_oracles(rows(m, d, 1), rows(n, d, 2, scale=0.9), k, strict)


def test_two_panels():
    assert_oracles(rows(4100, 2, 1), rows(200, 2, 2), 4, True)
    assert_oracles(rows(300, 2, 1), rows(4100, 2, 2), 4, True)


def offset(n, seed):
    return rows(n, 24, seed, shift=1e4)


def far_from_each_other(n, seed):
    return rows(n, 24, seed, shift=1e4 * (1 - 2 * seed))


def grid(n, seed):
    return np.random.default_rng(seed).integers(0, 3, (n, 5)).astype(np.float32)  # mostly ties


def offset_grid(n, seed):
    return grid(n, seed) + np.float32(12345.67)


def duplicates(n, seed):
    return np.repeat(rows(n // 20, 24, 1), 20, axis=0) + np.float32(0.1)  # each row 20 times, on both sides


def two_points(n, seed):
    return np.repeat(rows(2, 24, 1), n // 2, axis=0)


def nearly_equal(n, seed):
    return np.float32(100) + rows(n, 24, seed, scale=1e-5)  # differences of an ulp or two


def overflowing(n, seed):
    return rows(n, 24, seed, scale=3e37)  # squares, and sums of differences, overflow in float32


def of_largest_numbers(n, seed):
    signs = np.random.default_rng(seed).choice([-1, 1], (n, 3)).astype(np.float32)
    return signs * np.float32(3.4e38)  # x - m overflows


def underflowing(n, seed):
    return rows(n, 24, seed, scale=1e-22)  # products are subnormal


def subnormal(n, seed):
    return rows(n, 4, seed, scale=1e-42)


def of_all_sizes(n, seed):
    size = 10.0 ** np.random.default_rng(seed).uniform(-30, 30, (n, 1))
    return (rows(n, 24, seed) * size).astype(np.float32)


CASES = [offset, far_from_each_other, grid, offset_grid, duplicates, two_points, nearly_equal]
CASES += [overflowing, of_largest_numbers, underflowing, subnormal, of_all_sizes]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("make", CASES)
def test_rows_that_are_hard_for_float32(make, strict):
    assert_oracles(make(600, 0), make(340, 1), 3, strict)


@pytest.mark.parametrize("make", [grid, nearly_equal, offset])
def test_threads_and_blocks_change_nothing(make, monkeypatch):
    x, y = make(1600, 0), make(1300, 1)
    before, found = _core.num_threads(), []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            found.append(prdc(x, y))
    finally:
        _core.set_num_threads(before)
    assert found[1:] == found[:1] * 2  # the number of undecided pairs, too
    for block in (1, 130, 1025):
        if block == 1:
            y = y[:8]
        whole = values(prdc(x, y))
        monkeypatch.setattr(nearest, "_BLOCK", block)
        assert values(prdc(x, y)) == whole
        monkeypatch.undo()


def test_the_order_of_rows_does_not_matter():
    x, y = grid(300, 0), grid(200, 1)
    rng = np.random.default_rng(5)
    assert values(prdc(rng.permutation(x), rng.permutation(y))) == values(prdc(x, y))


@pytest.mark.parametrize("strict", [True, False])
def test_a_set_beside_itself(strict):
    x = rows(200, 8, 1)
    result = prdc(x, x.copy(), strict=strict)
    # Each ball holds its own row and k - 1 others, and the k-th unless that is left out.
    assert values(result) == (1, 1, (5 if strict else 6) / 5, 1)


def test_sets_of_equal_points():
    x, y = np.full((9, 4), 0.3, np.float32), np.full((7, 4), 0.3, np.float32)
    assert values(prdc(x, y)) == (0, 0, 0, 0)
    assert values(prdc(x, y, strict=False)) == (1, 1, 9 / 5, 1)
    assert prdc(x, y).undecided == 0


def test_rows_that_are_far_apart():
    assert values(prdc(rows(50, 4, 1), rows(50, 4, 2, shift=1e3))) == (0, 0, 0, 0)


def test_the_coverage_of_equal_distributions():
    """Naeem et al. 2020, whatever the distribution: no generated row is among the k nearest; the density is 1."""
    n, m, k, draws = 100, 150, 3, 400
    expected = 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    found = [prdc(rows(n, 3, i), rows(m, 3, draws + i), k=k) for i in range(draws)]
    for name, value in (("coverage", expected), ("density", 1.0)):
        drawn = np.array([getattr(result, name) for result in found])
        assert abs(drawn.mean() - value) < 4 * drawn.std() / math.sqrt(draws)


def test_few_pairs_of_ordinary_features_are_undecided():
    x, y = rows(1000, 512, 1), rows(1000, 512, 2)
    assert prdc(x, y).undecided < 1000  # of 1,000,000
    assert prdc(np.abs(x), np.abs(y)).undecided < 1000


def test_protocols():
    real, fake = golden()
    assert prdc(real, fake, protocol="prdc") == prdc(real, fake)
    for name in ("adm", "torch-fidelity"):
        assert prdc(real, fake, protocol=name) == prdc(real, fake, k=3, strict=False)
        assert prdc(real, fake, k=3, strict=False, protocol=name).k == 3


def test_the_result_is_one_line_and_a_dict():
    result = prdc(*golden(), k=3)
    numbers = "precision=0.31125, recall=0.876, density=0.283333, coverage=0.461"
    assert repr(result) == f"PRDCResult({numbers}, k=3, <, real=1000, generated=800)"
    assert PRDCResult(**result.to_dict()) == result
    assert result.to_dict()["n_generated"] == 800
    assert all(type(value) in (float, int, bool) for value in result.to_dict().values())


def test_the_table_of_metrics_loads_no_numpy():
    code = (
        "import sys, fastfid.metrics as m; assert 'numpy' not in sys.modules; m.prdc; from fastfid.metrics import prdc"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


X = rows(9, 4, 1)


@pytest.mark.parametrize(
    ("real", "fake", "options", "kind", "text"),
    [
        (X[:5], X, {}, ValueError, "real: k = 5 needs at least 6 rows, got 5"),
        (X, X[:3], {"k": 3}, ValueError, "fake: k = 3 needs at least 4 rows, got 3"),
        (X, X[:, :3], {}, ValueError, "fake: expected 4 features, as real has; got 3"),
        (X[:, :0], X[:, :0], {}, ValueError, "real: expected at least 1 feature, got shape (9, 0)"),
        (X.tolist(), X, {}, TypeError, "real: expected an array of floats of shape (n, d), got list"),
        (X, X[0], {}, TypeError, "fake: expected an array of floats of shape (n, d), got float32 of shape (4,)"),
        (X.astype(int), X, {}, TypeError, "real: expected an array of floats of shape (n, d), got int64"),
        (np.ma.masked_array(X), X, {}, TypeError, "real: expected an array without a mask"),
        (X, np.where(X[4, 1] == X, np.nan, X), {}, NumericalError, "fake: row 4 has values that are NaN or infinite"),
        (X, X.astype(float) * 1e39, {}, NumericalError, "fake: row 0 has values that are NaN or infinite in float32"),
        (X, X, {"k": 0}, ValueError, "k: expected 1 or more; got 0"),
        (X, X, {"k": 2.0}, TypeError, "k: expected an integer, got 2.0"),
        (X, X, {"k": True}, TypeError, "k: expected an integer, got True"),
        (X, X, {"strict": "no"}, TypeError, "strict: expected True or False, got 'no'"),
        (X, X, {"protocol": "piq"}, ValueError, "protocol: expected one of prdc, adm, torch-fidelity; got 'piq'"),
        (X, X, {"protocol": "adm", "k": 4}, ValueError, "protocol: adm has k = 3 and strict = False; leave both out"),
    ],
)
def test_what_has_no_precision(real, fake, options, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        prdc(real, fake, **options)


RADII = np.ones(9)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((X, RADII, X[:, :3].copy(), RADII, True), ValueError, "y: expected shape (n, 4), as x has"),
        ((X, RADII[:8], X, RADII, True), ValueError, "radii_x: expected shape (9,), one for each row"),
        ((X, RADII, X, -RADII, True), ValueError, "radii_y: expected finite numbers from 0 on, got -1 for row 0"),
        ((X, RADII * np.nan, X, RADII, True), ValueError, "radii_x: expected finite numbers from 0 on, got nan"),
        ((X, RADII, X.astype(float), RADII, True), TypeError, "y: expected a C-contiguous float32 array"),
        ((X, RADII, X * np.float32(np.inf), RADII, True), NumericalError, "y: row 0 has NaN or infinite values"),
        ((X[:, :0].copy(), RADII, X[:, :0].copy(), RADII, True), ValueError, "rows: expected 1 to 2^30 columns"),
    ],
)
def test_what_has_no_counts(arguments, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        _core.count_in_balls(*arguments)


@pytest.mark.parametrize(
    ("x", "k", "kind", "text"),
    [
        (X, 0, ValueError, "k: expected 1 or more, got 0"),
        (X, -1, ValueError, "k: expected 1 or more, got -1"),
        (X, 9, ValueError, "x: expected at least k + 1 = 9 + 1 rows, got 9"),
        (X, 2**62, ValueError, "x: expected at least k + 1"),
        (X, 1.5, TypeError, "k: expected an integer"),
        (np.where(X[7, 0] == X, -np.inf, X).astype(np.float32), 1, NumericalError, "x: row 7 has NaN or infinite"),
        (X[:, :0].copy(), 1, ValueError, "rows: expected 1 to 2^30 columns, got 0"),
    ],
)
def test_what_has_no_kth_distance(x, k, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        _core.kth_squared_distances(x, k)


def test_no_rows_are_in_no_ball():
    *counts, undecided = _core.count_in_balls(X[:0], RADII[:0], X, RADII, True)
    assert [c.tolist() for c in counts] == [[0] * 9, [], [], [0] * 9]
    assert undecided == 0
