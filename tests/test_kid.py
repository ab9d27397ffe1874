"""The KID in several blocks, its standard error, and edge cases. tests/peers/test_cleanfid.py tests clean-fid's KID."""

import itertools

import numpy as np
import pytest
from tolerances import KERNEL_MEANS, KID_FLOAT32, SPREAD_OF_1000_KIDS

from fastfid import NumericalError, _core
from fastfid.metrics import kid, mmd
from fastfid.metrics.base import Sample
from fastfid.metrics.kernel import KernelInceptionDistance, KernelInceptionDistanceToOne
from fastfid.metrics.rows import FeatureRows


def rows(n, d, seed, shift=0.0):
    return (np.random.default_rng((seed, n, d)).standard_normal((n, d)) + shift).astype(np.float32)


def test_blocks_are_the_whole(monkeypatch):
    x, y = rows(1000, 8, 1), rows(700, 8, 2)
    monkeypatch.setattr(mmd, "_BLOCK", 300)
    for ours, whole in (
        (mmd._sums_within(x, 1.5), _core.kernel_sums_within(x, 1.5)),
        (mmd._sums_across(x, y, 1.5), _core.kernel_sums(x, y, 1.5)),
    ):
        for a, b in zip(ours, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=KERNEL_MEANS * np.abs(b).max())


def kernel(x, y):
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3


def mean_kernel(a, b):
    """E (x y / d + 1)^3 of x from N(a, I) and y from N(b, I), from Gaussian moments (Isserlis 1918)."""
    d, dot = len(a), a @ b
    second = dot**2 + a @ a + b @ b + d
    third = dot**3 + 3 * dot * (a @ a + b @ b + d + 2)
    return third / d**3 + 3 * second / d**2 + 3 * dot / d + 1


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_mean_kid_is_that_of_the_populations(shift):
    d, draws = 6, 200
    origin, moved = np.zeros(d), np.full(d, shift)
    squared = mean_kernel(origin, origin) + mean_kernel(moved, moved) - 2 * mean_kernel(origin, moved)
    found = [kid(rows(60, d, i), rows(50, d, 1000 + i, shift)).value for i in range(draws)]
    assert abs(np.mean(found) - squared) <= 3 * np.std(found, ddof=1) / draws**0.5
    assert squared == 0 if shift == 0 else squared > 5 * np.std(found, ddof=1) / draws**0.5


def over_different_rows(*sizes):
    """All tuples of that many different rows of x and of y."""
    return itertools.product(*(itertools.permutations(range(size), many) for size, many in sizes))


def variance_from_tuples(x, y):
    """The terms of the variance from means over all tuples of different rows, each the unbiased one of its moment."""
    kx, ky, k = kernel(x, x), kernel(y, y), kernel(x, y)
    m, n = len(x), len(y)

    def mean(many_x, many_y, term):
        return np.mean([term(i, j) for i, j in over_different_rows((m, many_x), (n, many_y))])

    def second_within(k, size):
        moment = [
            np.mean([term(i) for i in itertools.permutations(range(size), many)])
            for many, term in (
                (2, lambda i: k[i[0], i[1]] ** 2),
                (3, lambda i: k[i[0], i[1]] * k[i[0], i[2]]),
                (4, lambda i: k[i[0], i[1]] * k[i[2], i[3]]),
            )
        ]
        return moment[0] - 2 * moment[1] + moment[2], moment[1], moment[2]

    (second_x, chain_x, square_x), (second_y, chain_y, square_y) = second_within(kx, m), second_within(ky, n)
    of_one_x = mean(1, 2, lambda i, j: k[i[0], j[0]] * k[i[0], j[1]])
    of_one_y = mean(2, 1, lambda i, j: k[i[0], j[0]] * k[i[1], j[0]])
    square = mean(2, 2, lambda i, j: k[i[0], j[0]] * k[i[1], j[1]])
    second_xy = mean(1, 1, lambda i, j: k[i[0], j[0]] ** 2) - of_one_x - of_one_y + square
    first_x = chain_x - square_x + of_one_x - square
    first_x -= 2 * mean(2, 1, lambda i, j: kx[i[0], i[1]] * k[i[0], j[0]])
    first_x += 2 * mean(3, 1, lambda i, j: kx[i[0], i[1]] * k[i[2], j[0]])
    first_y = chain_y - square_y + of_one_y - square
    first_y -= 2 * mean(1, 2, lambda i, j: ky[j[0], j[1]] * k[i[0], j[0]])
    first_y += 2 * mean(1, 3, lambda i, j: ky[j[0], j[1]] * k[i[0], j[2]])
    second = 2 * second_x / (m * (m - 1)) + 2 * second_y / (n * (n - 1)) + 4 * second_xy / (m * n)
    return 4 * first_x / m + 4 * first_y / n, second


def variance(x, y, shift=1.0):
    """Both terms by the core, and by NumPy."""
    cubic = mmd.Polynomial(3, 1 / x.shape[1], 1.0)
    across = kernel(x, y) - shift
    return [
        mmd._variance(mmd._sums_within(x, shift), mmd._sums_within(y, shift), mmd._sums_across(x, y, shift)),
        mmd._variance(
            mmd._numpy_sums_within(cubic, x, shift),
            mmd._numpy_sums_within(cubic, y, shift),
            (across.sum(1), across.sum(0), (across**2).sum()),
        ),
    ]


@pytest.mark.parametrize(("m", "n"), [(4, 4), (4, 7), (6, 5)])
def test_the_variance_is_that_of_means_over_tuples(m, n):
    x, y = rows(m, 6, 1), rows(n, 6, 2, 0.3)
    first, second = variance_from_tuples(x, y)
    for found in variance(x, y):
        np.testing.assert_allclose(found, (first, second), rtol=0, atol=KERNEL_MEANS * (abs(first) + second))
    expected = np.sqrt(max(first, -second / 3) + second)
    assert mmd.unbiased_mmd2(x, y)[1] == pytest.approx(expected, rel=KERNEL_MEANS)
    cubic = mmd.Polynomial(3, 1 / 6, 1.0)
    assert mmd.unbiased_mmd2_under(cubic, x, y)[1] == pytest.approx(expected, rel=KERNEL_MEANS)


@pytest.mark.parametrize(
    ("of_x", "of_y"), [(rows(3, 2, 5), rows(2, 2, 6, 0.8)), (rows(2, 2, 5), rows(2, 2, 5))], ids=["unequal", "equal"]
)
def test_the_variance_is_unbiased_over_all_samples(of_x, of_y):
    """All sets of 4 and 5 rows from populations of a few equally likely rows."""
    values, variances = [], []
    for i in itertools.product(range(len(of_x)), repeat=4):
        for j in itertools.product(range(len(of_y)), repeat=5):
            x, y = of_x[list(i)], of_y[list(j)]
            values.append(mmd.unbiased_mmd2(x, y)[0])
            variances.append(sum(variance(x, y)[0]))
    assert np.mean(variances) == pytest.approx(np.var(values), rel=KERNEL_MEANS)


POPULATIONS = {
    "equal": (64, 0.0, 120, 120),
    "shifted": (64, 0.2, 120, 120),
    "of unequal size": (64, 0.1, 70, 200),
}


@pytest.mark.parametrize("case", POPULATIONS)
def test_the_standard_error_is_the_spread_of_the_values(case):
    d, shift, m, n = POPULATIONS[case]
    rng = np.random.default_rng(4)
    found = np.array(
        [
            mmd.unbiased_mmd2(
                rng.standard_normal((m, d), np.float32), rng.standard_normal((n, d), np.float32) + np.float32(shift)
            )
            for _ in range(1000)
        ]
    )
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(ddof=1), rel=SPREAD_OF_1000_KIDS)


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_than_four_rows_have_no_standard_error(n):
    """Of fewer there are no two pairs without a common row, from which the squared mean of the kernel is estimated."""
    assert mmd.unbiased_mmd2(rows(n, 4, 1), rows(9, 4, 2))[1] is None
    assert mmd.unbiased_mmd2(rows(9, 4, 2), rows(n, 4, 1))[1] is None


@pytest.mark.parametrize("scale", [1, 100])
def test_equal_rows_have_the_standard_error_0(scale):
    same = np.tile(np.abs(rows(1, 300, 1)), (500, 1)) * np.float32(scale)
    size = float(kernel(same[:1], same[:1])[0, 0])
    for value, error in (
        mmd.unbiased_mmd2(same, same[:400]),
        mmd.unbiased_mmd2_under(mmd.Polynomial(3, 1 / 300, 1.0), same, same[:400]),
    ):
        assert [value, error] == pytest.approx([0, 0], rel=0, abs=KERNEL_MEANS * size)


@pytest.mark.parametrize(("dtype", "near"), [(np.float64, KERNEL_MEANS), (np.float32, KID_FLOAT32)])
@pytest.mark.parametrize(("m", "n", "size"), [(1100, 2100, 700), (60, 1030, 60)])
def test_subsets_by_one_sweep_are_subsets_one_by_one(m, n, size, dtype, near):
    """Several blocks of rows on a side, and a side that every subset takes whole."""
    x, y = rows(m, 5, 1).astype(dtype), rows(n, 5, 2, 0.3).astype(dtype)
    draws = list(mmd.numpy_draws(np.random.RandomState(3), m, n, 6, size))
    expected = []
    for of_x, of_y in draws:
        xx, yy, xy = kernel(x[of_x], x[of_x]), kernel(y[of_y], y[of_y]), kernel(x[of_x], y[of_y])
        inside = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k in (xx, yy)]
        expected.append(sum(inside) - 2 * xy.mean())
    for values in (
        mmd._subset_values_by_sweep(mmd.Polynomial(3, 1 / 5, 1.0), x, y, draws, np.dtype(dtype)),
        mmd._subset_values_one_by_one(mmd.Polynomial(3, 1 / 5, 1.0), x, y, draws, np.dtype(dtype)),
    ):
        np.testing.assert_allclose(values, expected, rtol=0, atol=near * kernel(x, y).mean())


def test_features_that_are_too_large():
    def sample(name, scale):
        kept = FeatureRows(2)
        kept.update({"features": rows(9, 2, 1) * np.float32(scale)})
        return Sample(name, {}, kept)

    result = KernelInceptionDistance().result(sample("a", 1e35), sample("b", 1.0))
    assert result.standard_error is None
    assert result.no_standard_error == "the features are too large for a standard error"
    for convention, n in (("clean-fid", 9), ("torch-fidelity", 1000)):
        sides = [sample_of(name, rows(n, 2, 1) * np.float32(1e37)) for name in "ab"]
        with pytest.raises(NumericalError, match="a, b: the features are too large for the kernel of the KID; look"):
            KernelInceptionDistance(convention).result(*sides)


def sample_of(name, values):
    kept = FeatureRows(values.shape[1])
    kept.update({"features": values})
    return Sample(name, {}, kept)


def test_what_a_convention_refuses():
    with pytest.raises(ValueError, match=r"convention: expected one of 'torch-fidelity', .*; got 'x'"):
        KernelInceptionDistance("x")
    with pytest.raises(ValueError, match="seed: nothing is drawn over all images; give a convention"):
        KernelInceptionDistance(seed=1)
    few = [sample_of(name, rows(n, 2, 1)) for name, n in (("a", 1200), ("b", 999))]
    with pytest.raises(ValueError, match="a, b: kid:torch-fidelity needs at least 1000 images, got 1200 and 999"):
        KernelInceptionDistance("torch-fidelity").result(*few)


def test_the_kid_to_one_set_between_two_others():
    one, x, y = (rows(n, 5, n, shift) for n, shift in ((40, 0.0), (50, 0.3), (60, 0.0)))
    to_one = KernelInceptionDistanceToOne(one=mmd.OneSample(one))
    sides = [sample_of(name, values) for name, values in (("x", x), ("y", y))]
    assert to_one.result(*sides) == KernelInceptionDistance().result(*sides)
