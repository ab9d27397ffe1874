"""What the Kernel Inception Distance is made of (Binkowski et al. 2018, "Demystifying MMD GANs").

The metric and the function for features of one's own are in kernel.py.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.metrics import second_order
from fastfid.metrics.given import blocks

__all__ = [
    "OneSample",
    "Polynomial",
    "numpy_draws",
    "subset_values",
    "unbiased_mmd2",
    "unbiased_mmd2_under",
]

# Rows that one call of the core compares with all other rows, using all threads. Python handles Ctrl-C between calls:
# every few seconds for 50,000 rows of 2048. A quarter of this size takes 30 % longer; one call for all rows takes a
# tenth less time.
_BLOCK = 1536
# Rows of a subset whose kernel is computed at a time: with 1,000 columns 256 KiB, which stay in the cache.
_ROWS_IN_CACHE = 32


def unbiased_mmd2(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float | None]:
    """Return the unbiased squared MMD of two samples under ``k(a, b) = (a . b / d + 1)^3``, and its standard error.

    The U-statistic over all pairs (Gretton et al. 2012, lemma 6)::

        sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum k(x_i, y_j) / (m n)

    The standard error is the root of the estimated variance of this value, with both terms of Hoeffding's
    decomposition: docs/numerics.md. The estimate of the variance is unbiased, except that the first-order term counts
    as no less than minus a third of the second-order one.

    Parameters
    ----------
    x, y : ndarray of float32, shape (m, d) and (n, d)
        C-contiguous, with m and n at least 2.

    Returns
    -------
    value : float
        The value may be negative.
    standard_error : float or None
        None if a set has fewer than 4 rows.
    """
    shift = _shift(Polynomial(3, 1 / x.shape[1], 1.0), x, y)
    return _from_sums(_sums_within(x, shift), _sums_within(y, shift), _sums_across(x, y, shift))


class OneSample:
    """A sample with which several others are compared. The sums over its own pairs are computed once.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        C-contiguous, n at least 2.
    """

    def __init__(self, rows: NDArray[np.float32]):
        self.rows = rows
        with np.errstate(over="ignore", invalid="ignore"):  # a value that is not finite is reported
            self._shift = _shift(Polynomial(3, 1 / rows.shape[1], 1.0), rows, rows)
            self._within = _sums_within(rows, self._shift)

    def unbiased_mmd2(self, x: NDArray[np.float32]) -> tuple[float, float | None]:
        """Return what :func:`unbiased_mmd2` returns for `x` and this sample, up to rounding."""
        return _from_sums(_sums_within(x, self._shift), self._within, _sums_across(x, self.rows, self._shift))


# Sums of k - shift, which has the value and the variance of k. Within a set: for every row over its pairs with the
# other rows; and of the squares. Across: for every row of x, for every row of y; and of the squares.
_Within = tuple[NDArray[np.float64], float]
_Across = tuple[NDArray[np.float64], NDArray[np.float64], float]


def _shift(kernel: "Polynomial", x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the kernel of the mean rows, around which the kernel's values lie.

    Variances are differences of sums of squares, which a large mean would leave few digits.
    """
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (x, y)]
    return float(kernel((means[0] * means[1]).sum()))


def _from_sums(within_x: _Within, within_y: _Within, across: _Across) -> tuple[float, float | None]:
    """Return the value and the standard error."""
    (of_x, _), (of_y, _), (across_x, _, _) = within_x, within_y, across
    m, n = len(of_x), len(of_y)
    value = float(of_x.sum() / (m * (m - 1)) + of_y.sum() / (n * (n - 1)) - 2 * across_x.sum() / (m * n))
    if min(m, n) < 4:
        return value, None
    with np.errstate(over="ignore", invalid="ignore"):  # the caller reports it
        return value, math.sqrt(second_order.variance(*_variance(within_x, within_y, across)))


def _variance(within_x: _Within, within_y: _Within, across: _Across) -> tuple[float, float]:
    """Return unbiased estimates of the first-order and the second-order term of the value's variance.

    docs/numerics.md, "The variance of the KID", derives them. The second one is not negative.
    """
    (of_x, squares_x), (of_y, squares_y), (across_x, across_y, squares) = within_x, within_y, across
    m, n = len(of_x), len(of_y)
    second_x, second_y = _second_order(of_x, squares_x), _second_order(of_y, squares_y)
    about_the_means = squares - across_x.sum() ** 2 / (m * n) - m * across_x.var() / n - n * across_y.var() / m
    # A sum of squares, of the doubly centred kernel: negative only by rounding.
    second_xy = np.maximum(about_the_means / ((m - 1) * (n - 1)), 0)
    first_x = (of_x / (m - 2) - across_x / n).var(ddof=1) - second_x / (m - 2) - second_xy / n
    first_y = (of_y / (n - 2) - across_y / m).var(ddof=1) - second_y / (n - 2) - second_xy / m
    second = 2 * second_x / (m * (m - 1)) + 2 * second_y / (n * (n - 1)) + 4 * second_xy / (m * n)
    return float(4 * first_x / m + 4 * first_y / n), float(second)


def _second_order(of_rows: NDArray[np.float64], squares: float) -> float:
    """Return the unbiased estimate of the variance of the doubly centred kernel within a set."""
    n = len(of_rows)
    about_the_mean = squares - of_rows.sum() ** 2 / (n * (n - 1))
    # A sum of squares, of the U-centred kernel: negative only by rounding.
    return float(np.maximum((about_the_mean - 2 * n * of_rows.var() / (n - 2)) / (n * (n - 3)), 0))


def _sums_across(x: NDArray[np.float32], y: NDArray[np.float32], shift: float) -> _Across:
    """Return the result of ``_core.kernel_sums``, computed block by block."""
    of_x, of_y, squares = np.zeros(len(x)), np.empty(len(y)), 0.0
    for block in blocks(len(y), _BLOCK):
        part, of_y[block], of_squares = _core.kernel_sums(x, y[block], shift)
        of_x += part
        squares += of_squares
    return of_x, of_y, squares


def _sums_within(x: NDArray[np.float32], shift: float) -> _Within:
    """Return the result of ``_core.kernel_sums_within``, computed block by block."""
    sums, squares = np.zeros(len(x)), 0.0
    for block in blocks(len(x), _BLOCK):
        of_rest, of_block, squares_across = _core.kernel_sums(x[block.stop :], x[block], shift)
        inside, squares_inside = _core.kernel_sums_within(x[block], shift)
        sums[block] += inside + of_block
        sums[block.stop :] += of_rest
        squares += squares_inside + 2 * squares_across
    return sums, squares


@dataclass(frozen=True)
class Polynomial:
    """The kernel ``(gamma a . b + coef0)^degree``.

    Attributes
    ----------
    degree : int
        At least 1.
    gamma : float
        1 / d in the KID.
    coef0 : float
    """

    degree: int
    gamma: float
    coef0: float

    def __call__(self, products: NDArray[Any]) -> NDArray[np.float64]:
        """Return the kernel of pairs of rows, in float64, from their products."""
        base = products * np.float64(self.gamma) + self.coef0
        value = base
        for digit in f"{self.degree:b}"[1:]:  # NumPy's powers of arrays take ten times as long
            value = value * value
            if digit == "1":
                value *= base
        return value


def unbiased_mmd2_under(kernel: Polynomial, x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float | None]:
    """Return what :func:`unbiased_mmd2` does, under another kernel and for rows of any float dtype, in float64."""
    shift = _shift(kernel, x, y)
    within_x, within_y = _numpy_sums_within(kernel, x, shift), _numpy_sums_within(kernel, y, shift)
    across_x, across_y, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
    for one in blocks(len(x)):
        rows = x[one].astype(np.float64)
        for other in blocks(len(y)):
            values = kernel(rows @ y[other].astype(np.float64).T) - shift
            across_x[one] += values.sum(axis=1)
            across_y[other] += values.sum(axis=0)
            squares += float(np.vdot(values, values))
    return _from_sums(within_x, within_y, (across_x, across_y, squares))


def _numpy_sums_within(kernel: Polynomial, x: NDArray[Any], shift: float) -> _Within:
    """Return, for every row, the sum over its pairs with the other rows, and the sum of squares over all pairs."""
    sums, squares = np.zeros(len(x)), 0.0
    tiles = blocks(len(x))
    for i, one in enumerate(tiles):
        rows = x[one].astype(np.float64)
        values = kernel(rows @ rows.T) - shift
        np.fill_diagonal(values, 0)
        sums[one] += values.sum(axis=1)
        squares += float(np.vdot(values, values))
        for other in tiles[i + 1 :]:
            values = kernel(rows @ x[other].astype(np.float64).T) - shift
            sums[one] += values.sum(axis=1)
            sums[other] += values.sum(axis=0)
            squares += 2 * float(np.vdot(values, values))
    return sums, squares


Draws = Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]
_Pairs = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def numpy_draws(rng: np.random.RandomState, m: int, n: int, subsets: int, size: int) -> Draws:
    """Yield the row numbers of random subsets of m and of n rows, drawn alternately, the first side first."""
    for _ in range(subsets):
        yield rng.choice(m, size, replace=False), rng.choice(n, size, replace=False)


def subset_values(
    kernel: Polynomial, x: NDArray[Any], y: NDArray[Any], draws: Draws, dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """Return the unbiased squared MMD of each pair of subsets.

    Where the subsets hold most pairs of rows several times, the kernel of each pair is computed once.

    Parameters
    ----------
    kernel : Polynomial
    x, y : ndarray, shape (m, d) and (n, d)
        Any float dtype.
    draws : iterable of (ndarray of int, ndarray of int)
        Row numbers of `x` and of `y`: as many of both, at least 2.
    dtype : numpy.dtype
        In which products of rows are computed. All else is float64.
    """
    pairs = list(draws)
    # The work of a product of two rows, or of one value with the subsets in float64, which takes twice as long as
    # float32. Within a set, half of the pairs.
    d, size = x.shape[1], len(pairs[0][0])
    of_all = (len(x) + len(y)) ** 2 / 2 * (d + 2 * len(pairs))
    of_subsets = len(pairs) * 2 * size**2 * d
    route = _subset_values_by_sweep if of_all < of_subsets else _subset_values_one_by_one
    return route(kernel, x, y, pairs, dtype)


def _subset_values_one_by_one(
    kernel: Polynomial, x: NDArray[Any], y: NDArray[Any], pairs: _Pairs, dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """Return what :func:`subset_values` does, from the products of each subset."""
    values = []
    for of_x, of_y in pairs:
        a, b = x[of_x].astype(dtype, copy=False), y[of_y].astype(dtype, copy=False)
        within = 0.0
        for products in (a @ a.T, b @ b.T):  # of which NumPy computes half, and mirrors it
            within += _sum_of_kernel(kernel, products) - float(kernel(products.diagonal()).sum())
        values.append(_of_subset(within, _sum_of_kernel(kernel, a @ b.T), len(a)))
    return np.array(values)


def _sum_of_kernel(kernel: Polynomial, products: NDArray[Any]) -> float:
    """Return the sum of the kernel over pairs, a few rows at a time, whose values stay in the processor's cache."""
    return sum(float(kernel(products[block]).sum()) for block in blocks(len(products), _ROWS_IN_CACHE))


def _of_subset(within: Any, across: Any, size: int) -> Any:
    """Return the unbiased squared MMD of two sets of `size` rows from the sums of the kernel over their pairs."""
    return (within / (size - 1) - 2 * across / size) / size


def _subset_values_by_sweep(
    kernel: Polynomial, x: NDArray[Any], y: NDArray[Any], pairs: _Pairs, dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """Return what :func:`subset_values` does, from one sweep over the pairs of all rows.

    A value of the kernel is computed once for all subsets that hold its pair. The sum over a subset's pairs is
    ``a^T K b`` for the vectors a and b that are 1 at its rows of either side.
    """
    held = []
    for rows, side in ((x, 0), (y, 1)):
        held.append(np.zeros((len(rows), len(pairs)), np.bool_))
        for subset, drawn in enumerate(pairs):
            held[side][drawn[side], subset] = True

    def sums(a: NDArray[Any], of_a: NDArray[np.bool_], b: NDArray[Any], of_b: NDArray[np.bool_]) -> NDArray[np.float64]:
        total = np.zeros(len(pairs))
        within = a is b
        for one in blocks(len(a)):
            rows = a[one].astype(dtype, copy=False)
            for other in blocks(len(b)):
                if within and other.start < one.start:  # its mirror image counts twice
                    continue
                same = within and other.start == one.start
                values = kernel(rows @ (rows if same else b[other].astype(dtype, copy=False)).T)
                if same:
                    np.fill_diagonal(values, 0)
                of_tile = np.einsum("is,is->s", of_a[one].astype(np.float64), values @ of_b[other].astype(np.float64))
                total += 2 * of_tile if within and not same else of_tile
        return total

    within = sums(x, held[0], x, held[0]) + sums(y, held[1], y, held[1])
    values: NDArray[np.float64] = _of_subset(within, sums(x, held[0], y, held[1]), len(pairs[0][0]))
    return values
