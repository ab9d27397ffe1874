"""Precision, recall, density and coverage, beside distances in float64 that are summed feature by feature."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from tolerances import FEW_NEIGHBOURS, FEW_ROUNDINGS, MEAN_OF_60_VARIANCES, SPREAD_OF_BALLS

from fastfid import _core
from fastfid.errors import NumericalError, SuspiciousInputWarning
from fastfid.metrics import nearest, prdc, subsamples
from fastfid.metrics.nearest import PRDCResult, search


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
    of_x, of_y = (search(rows, None, k).kth_squared_distances() for rows in (x, y))
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


def collapsed(n, seed):
    return rows(n, 24, seed, scale=0.01 if seed == 1 else 1.0)  # one side in most balls of the other


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
    for panel, pairs in ((1, 1), (130, 1), (1025, 2**30)):
        if panel == 1:
            y = y[:8]
        whole = values(prdc(x, y))
        monkeypatch.setattr(nearest, "_PANEL", panel)
        monkeypatch.setattr(nearest, "_PAIRS", pairs)  # at least 1024 rows
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
    assert all(type(value) in (float, int, bool, str) for value in result.to_dict().values())


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
        (X, X[:, :3], {}, ValueError, "real, fake: expected rows of the same length, got shapes (9, 4) and (9, 3)"),
        (X[:, :0], X[:, :0], {}, ValueError, "real: expected features of shape (n, d), got (9, 0)"),
        (X, X[0], {}, ValueError, "fake: expected features of shape (n, d), got (4,)"),
        (X.astype(complex), X, {}, TypeError, "real: expected an array (n, d) of features, float16 to float64 or"),
        (np.ma.masked_array(X), X, {}, TypeError, "real: expected an array without a mask"),
        (X, np.where(X[4, 1] == X, np.nan, X), {}, NumericalError, "fake: row 4 has NaN or infinite values in float32"),
        (X, X.astype(float) * 1e39, {}, NumericalError, "fake: row 0 has NaN or infinite values in float32"),
        (X, X, {"standard_errors": 1}, TypeError, "standard_errors: expected True or False, got 1"),
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
    ("x", "others", "k", "rough", "kind", "text"),
    [
        (X, None, 0, 0, ValueError, "k: expected 1 or more, got 0"),
        (X, None, -1, 0, ValueError, "k: expected 1 or more, got -1"),
        (X, None, 9, 0, ValueError, "x: expected at least k + 1 = 9 + 1 rows, got 9"),
        (X, None, 2**62, 0, ValueError, "x: expected at least k + 1"),
        (X, None, 1, 9, ValueError, "rough: expected at most 8, got 9"),
        (X, None, 1, -1, ValueError, "rough: expected 0 or more, got -1"),
        (X, X[:3], 4, 0, ValueError, "others: expected at least k = 4 rows, got 3"),
        (X, X[:3], 3, 4, ValueError, "rough: expected at most 3, got 4"),
        (X, X[:, :3].copy(), 1, 0, ValueError, "others: expected shape (n, 4), as x has"),
        (X, None, 1.5, 0, TypeError, "k: expected an integer"),
        (np.where(X[7, 0] == X, -np.inf, X).astype(np.float32), None, 1, 0, NumericalError, "x: row 7 has NaN or inf"),
        (X, np.where(X[7, 0] == X, -np.inf, X).astype(np.float32), 1, 0, NumericalError, "others: row 7 has NaN or"),
        (X[:, :0].copy(), None, 1, 0, ValueError, "rows: expected 1 to 2^30 columns, got 0"),
    ],
)
def test_what_has_no_neighbours(x, others, k, rough, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        _core.NeighbourSearch(x, others, k, rough)


def test_a_search_that_has_not_ended_has_no_result():
    unfinished = _core.NeighbourSearch(X, None, 1, 1)
    for result in (unfinished.kth_squared_distances, unfinished.nearest, unfinished.rough):
        with pytest.raises(ValueError, match="call step"):
            result()


@pytest.mark.parametrize("make", [grid, duplicates, nearly_equal, overflowing, of_all_sizes, offset])
def test_nearest_rows_are_those_of_float64_and_equal_ones_are_in_order(make):
    x, y = make(700, 0), make(340, 1)
    within = distances(x, x)
    np.fill_diagonal(within, np.inf)
    for found, all_distances in ((search(x, y, 4), distances(x, y)), (search(x, None, 4), within)):
        order = np.argsort(all_distances, axis=1, kind="stable")[:, :4]
        indices, squares = found.nearest()
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_array_equal(squares, np.take_along_axis(all_distances, order, axis=1))


def test_a_search_goes_on_in_steps():
    """Ctrl-C is heard between them. A step is 2^36 pairs of numbers, or one strip of 1,024 rows."""
    x = np.random.default_rng(1).random((1100, 16384), np.float32)
    found, steps = _core.NeighbourSearch(x, None, 2), 1
    while found.step():
        steps += 1
    assert steps == 2


def test_no_rows_are_in_no_ball():
    *counts, undecided = _core.count_in_balls(X[:0], RADII[:0], X, RADII, True)
    assert [c.tolist() for c in counts] == [[0] * 9, [], [], [0] * 9]
    assert undecided == 0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1e9), (1e-60, 0.0), (1.0, 1e5)])
def test_rows_that_float32_cannot_tell_apart_are_said(scale, shift):
    x, y = (rows(60, 4, seed).astype(np.float64) * scale + shift for seed in (1, 2))
    with pytest.warns(SuspiciousInputWarning) as said:
        prdc(x, y)
    for name, one in zip(("real", "fake"), said, strict=True):
        assert str(one.message).startswith(f"{name}: rows are compared in float32, and rounding to it moves them by")


@pytest.mark.parametrize(("scale", "shift"), [(1e30, 0.0), (1e-30, 0.0), (1.0, 10.0), (0.0, 0.1)])
def test_other_roundings_are_not(scale, shift):
    x = rows(60, 4, 1).astype(np.float64) * scale + shift
    prdc(x, x)  # a warning is an error here


# Standard errors.


def parts_of(rows, seed, scheme):
    """The rows of the parts in each draw: halves, thinned halves, or the thinned whole."""
    members = subsamples._random_parts(len(rows), seed)
    for draw in range(subsamples.DRAWS):
        inside = (members >> np.uint64(draw) & np.uint64(1)).astype(bool)
        first, second = inside[:, 0].T
        assert (first ^ second).all()
        assert abs(2 * first.sum() - len(rows)) <= 1
        for half, thinned in zip((first, second), inside[:, 1].T, strict=True):
            assert (thinned <= half).all()
            assert half.sum() - thinned.sum() == max(1, round(half.sum() / 16))
        np.testing.assert_array_equal(inside[:, 2].T, [inside[:, 1].any(axis=1), np.zeros(len(rows), bool)])
        yield [rows[part] for part in inside[:, scheme].T if part.any()]


@pytest.mark.parametrize("scheme", range(3))
@pytest.mark.parametrize("make", [None, grid, overflowing, collapsed])
@pytest.mark.parametrize(("m", "n", "k", "strict"), [(60, 41, 2, True), (90, 130, 5, False), (33, 24, 3, True)])
def test_values_of_parts_are_those_of_the_rows_in_them(m, n, k, strict, make, scheme, monkeypatch):
    x, y = (make(m, 0), make(n, 1)) if make else (rows(m, 4, 1), rows(n, 4, 2, shift=0.4))
    monkeypatch.setattr(nearest, "neighbours_needed", lambda k, n: n - 1)
    (radii_x, subsets_x), (radii_y, subsets_y) = nearest._balls(x, k, 0), nearest._balls(y, k, 1)
    counts, whole = subsamples.SubsetCounts(m, n), slice(None)
    balls = x, radii_x, y, radii_y, strict, subsets_x.rows(whole), subsets_y.rows(whole)
    of_all, of_subsets = _core.count_in_balls(*balls)
    counts.add(whole, whole, of_subsets)
    for with_subsets, without in zip(of_all, _core.count_in_balls(*balls[:5]), strict=True):
        np.testing.assert_array_equal(with_subsets, without)
    found = subsamples.values_of_parts(subsets_x, subsets_y, counts, k, scheme)
    assert list(found) == ["precision", "recall", "density", "coverage"]
    parts = 1 if subsamples.SCHEMES[scheme] == "thinned whole" else 2
    assert {values.shape for values in found.values()} == {(parts, parts, 64)}
    for draw, (some_x, some_y) in enumerate(zip(parts_of(x, 0, scheme), parts_of(y, 1, scheme), strict=True)):
        for a, b in np.ndindex(parts, parts):
            expected = oracle(some_x[a], some_y[b], k, strict)[0]
            assert tuple(values[a, b, draw] for values in found.values()) == expected


def test_the_jackknife_of_a_mean_is_its_variance():
    """Where rows matter one by one, no subset knows more than the rows: all estimates are sigma^2 / n."""
    rng = np.random.default_rng(3)
    kept = subsamples._random_parts(400, 0) >> np.arange(64, dtype=np.uint64)[:, None, None, None] & np.uint64(1)
    parts = kept.astype(float)  # (draws, rows, schemes, 2)
    estimates = []
    for _ in range(60):
        row = rng.standard_normal(400)
        means = np.einsum("dnsp,n->sdp", parts, row) / np.maximum(parts.sum(axis=1), 1).swapaxes(0, 1)
        subsets = subsamples.Subsets(np.zeros((400, 3, 2), np.uint64), np.zeros((400, 1)), np.zeros((400, 1, 3)))
        scale = subsamples._over_variance_of_rows(subsets, subsets)
        halves = (means[0, :, 0] - means[0, :, 1]).var() / 4
        of_halves = (means[1] - means[0]).var()
        of_whole = (means[2, :, 0] - row.mean()).var()
        estimates.append((halves, scale * of_halves / 2, scale * of_whole))
    np.testing.assert_allclose(np.mean(estimates, axis=0) * 400, 1, rtol=MEAN_OF_60_VARIANCES)


def test_few_neighbours_determine_the_balls_of_halves():
    x, y = rows(900, 6, 1), rows(700, 6, 2, shift=0.3)
    few = prdc(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "neighbours_needed", lambda k, n: n - 1)
        every = prdc(x, y)
    for name in ("precision", "recall", "density", "coverage"):
        of_few, of_every = (getattr(result, f"{name}_standard_error") for result in (few, every))
        assert of_few == pytest.approx(of_every, rel=FEW_NEIGHBOURS)


@pytest.mark.parametrize("shift", [0.0, 0.125])
def test_standard_errors_are_the_spread_of_the_values(shift):
    """tools/sampling_neighbours.py has more populations, and more of each."""
    found = [prdc(rows(120, 8, i), rows(160, 8, 1000 + i, shift=shift), k=3) for i in range(250)]
    for name in ("precision", "recall", "density", "coverage"):
        drawn = np.array([getattr(result, name) for result in found])
        errors = np.array([getattr(result, f"{name}_standard_error") for result in found])
        assert np.sqrt((errors**2).mean()) == pytest.approx(drawn.std(ddof=1), rel=SPREAD_OF_BALLS)
        held = [low <= drawn.mean() <= high for low, high in (result.interval(name) for result in found)]
        assert 0.88 < np.mean(held) < 0.99  # 95 % in 250


def test_the_interval_of_a_share_stays_within_0_and_1():
    x = rows(200, 2, 1)
    result = prdc(x, rows(200, 2, 2))
    low, high = result.interval("precision")
    assert 0.9 < low < result.precision < high <= 1
    narrow = result.interval("density", 0.5)
    assert result.interval("density")[0] < narrow[0] < result.density < narrow[1]
    # Wilson's for 200 independent rows: Brown, Cai and DasGupta 2001, (4).
    error = math.sqrt(subsamples.spread_of_share(0.9, 200) / 200)
    share = PRDCResult(0.9, 0, 0, 0, 5, True, 9, 200, 0, precision_standard_error=error)
    z = 1.959963984540054
    centre, half = (180 + z**2 / 2) / (200 + z**2), z * math.sqrt(200) / (200 + z**2) * math.sqrt(0.09 + z**2 / 800)
    assert share.interval("precision") == pytest.approx((centre - half, centre + half), rel=FEW_ROUNDINGS)
    assert share.interval("recall") is None
    for options, text in (("recal",), "name: expected one of"), (("recall", 1.0), "level: expected a probability"):
        with pytest.raises(ValueError, match=text):
            share.interval(*options)


@pytest.mark.parametrize("exponent", [-120, -100, -41, -39, 60])
def test_a_power_of_two_changes_nothing(exponent):
    """Not even standard errors, where squares of features vanish in float32. At 2^-120 the products are subnormal."""
    x, y = rows(120, 6, 1), rows(90, 6, 2, shift=0.3)
    x, y = x.astype(np.float16).astype(np.float32), y.astype(np.float16).astype(np.float32)  # digits to spare
    assert prdc(np.ldexp(x, exponent), np.ldexp(y, exponent)) == prdc(x, y)


def test_why_there_is_no_standard_error():
    x, y = rows(90, 4, 1), rows(39, 4, 2)
    names = [f"{name}_standard_error" for name in ("precision", "recall", "density", "coverage")]
    found = prdc(x, y)
    assert [getattr(found, name) for name in names] == [None] * 4
    assert found.no_standard_error == "k = 5 needs at least 40 rows in each set, got 90 and 39"
    assert prdc(x, x, standard_errors=False).no_standard_error == "not asked for"
    apart = prdc(x, x + np.float32(1e3))
    assert [getattr(apart, name) for name in names] == [None] * 4
    assert apart.no_standard_error == "precision, recall, density, coverage: equal in all halves of the sets"
    assert prdc(x, y, k=4).no_standard_error == ""


SUBSETS = np.ones((9, 2, 2), np.uint64), np.ones((9, 3)), np.ones((9, 3, 2), np.uint64)


@pytest.mark.parametrize(
    ("part", "value", "kind", "text"),
    [
        (0, np.ones((9, 2, 2)), TypeError, "subsets_x[0]: expected a C-contiguous uint64 array"),
        (0, np.ones((8, 2, 2), np.uint64), ValueError, "subsets_x[0]: expected shape (9, ...)"),
        (0, np.ones((9, 2, 1), np.uint64), ValueError, "subsets_x[0]: expected shape (n, s, 2)"),
        (1, np.ones((8, 3)), ValueError, "subsets_x[1]: expected shape (9, ...)"),
        (1, np.ones((9, 0)), ValueError, "subsets_x[2]: expected shape (n, 0, 2)"),
        (2, np.ones((9, 2, 2), np.uint64), ValueError, "subsets_x[2]: expected shape (n, 3, 2)"),
        (2, np.ones((9, 3, 1), np.uint64), ValueError, "subsets_x[2]: expected shape (n, 3, 2)"),
    ],
)
def test_what_describes_no_subsets(part, value, kind, text):
    _core.count_in_balls(X, RADII, X, RADII, True, SUBSETS, SUBSETS)
    wrong = [*SUBSETS[:part], value, *SUBSETS[part + 1 :]]
    with pytest.raises(kind, match=re.escape(text)):
        _core.count_in_balls(X, RADII, X, RADII, True, tuple(wrong), SUBSETS)


def test_subsets_of_both_sets_go_together():
    with pytest.raises(ValueError, match="expected both or neither"):
        _core.count_in_balls(X, RADII, X, RADII, True, SUBSETS)
    with pytest.raises(TypeError, match=r"subsets_y: expected a tuple of three arrays"):
        _core.count_in_balls(X, RADII, X, RADII, True, SUBSETS, list(SUBSETS))
    fewer = SUBSETS[0][:, :1].copy(), SUBSETS[1], SUBSETS[2][:, :, :1].copy()
    with pytest.raises(ValueError, match="subsets_y: expected 2 schemes, as subsets_x has; got 1"):
        _core.count_in_balls(X, RADII, X, RADII, True, SUBSETS, fewer)
    none = SUBSETS[0], np.ones((9, 0)), np.ones((9, 0, 2), np.uint64)
    with pytest.raises(ValueError, match="subsets_x: expected at least 1 neighbour, got 0"):
        _core.count_in_balls(X, RADII, X, RADII, True, none, SUBSETS)
