"""The standard error of a Fréchet distance, from the influence function at random samples of the features."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.errors import NumericalError
from fastfid.metrics import second_order
from fastfid.statistics import Statistics, gaussian

__all__ = [
    "AGAIN",
    "Parts",
    "StandardError",
    "Variance",
    "influence",
    "standard_error",
    "standard_error_from",
    "why_none",
]

# The remedy for statistics that say too little.
AGAIN = "compute the statistics again with: fastfid stats"
_LEAST_DISTINCT = 0.9


@dataclass(frozen=True)
class Variance:
    """A variance, and how far it can be trusted.

    Attributes
    ----------
    value : float
    relative_error : float
        Standard deviation of `value` over `value`.
    """

    value: float = 0.0
    relative_error: float = 0.0

    def __add__(self, other: "Variance") -> "Variance":
        total = self.value + other.value
        error = math.hypot(self.value * self.relative_error, other.value * other.relative_error)
        return Variance(total, error / total if total > 0 else 0.0)

    @property
    def degrees_of_freedom(self) -> float:
        """Those of the chi-squared distribution with this relative error (Satterthwaite 1946)."""
        # With more of them the quantiles are the normal ones to 1e-7, and lgamma's digits no longer suffice for theirs.
        return 2 / self.relative_error**2 if self.relative_error > 1e-4 else math.inf

    @classmethod
    def of_mean(cls, values: NDArray[np.float64], n: int) -> "Variance":
        """Return the variance of the mean of `n` draws, of which `values` (k,) are a random sample."""
        k = values.size
        deviations = values - values.mean()
        largest = float(np.abs(deviations).max())
        if largest == 0:
            return cls()
        squares = (deviations / largest) ** 2  # no power leaves the range of float64
        variance = float(squares.sum()) / (k - 1)
        fourth = float((squares**2).mean())
        # Var(s^2) = (m4 - s^4 (k - 3) / (k - 1)) / k.
        relative = (fourth / variance**2 - (k - 3) / (k - 1)) / k
        # A product of floats may be infinite, which callers report; a power would raise OverflowError.
        return cls(variance * largest * largest / n, math.sqrt(max(relative, 2 / k**2)))


@dataclass(frozen=True)
class StandardError:
    """The standard error of a distance.

    Attributes
    ----------
    value : float
        If both sets, or the second alone, were drawn again with the same n.
    relative_error : float
        How far `value` itself can be trusted: 0.02 is 2 %.
    of : {"both", "generated"}
        Whose sampling it covers. "generated": the first set is given without a sample of its features, and counts as
        fixed.
    """

    value: float
    relative_error: float
    of: str


def why_none(real: Statistics, generated: Statistics) -> str | None:
    """Return why there is no standard error of a distance; None if there is one."""
    for side in (generated, real):
        if side.n is not None and side.n <= side.d:
            return f"{side.name}: n = {side.n} <= d = {side.d}; sampling bias dominates"
    if generated.reservoir is None:
        return f"{generated.name}: holds no sample of its features; {AGAIN}"
    return _unfit(generated) or _unfit(real)


def _unfit(side: Statistics) -> str | None:
    """Return why the sample of a side is of no use; None if it may be used, or if there is none."""
    if side.reservoir is None:
        return None
    rows = side.reservoir.rows.astype(np.float64)
    k = len(rows)
    distinct = len(np.unique(np.ascontiguousarray(side.reservoir.rows).view(np.dtype((np.void, rows.shape[1] * 4)))))
    if distinct < _LEAST_DISTINCT * k:
        return f"{side.name}: only {distinct} of {k} rows in the sample of its features differ; images are repeated"
    variance = side.sigma.diagonal()
    ratio = rows.var(axis=0, ddof=1).sum() / variance.sum() if variance.sum() > 0 else 1.0
    off = (rows.mean(axis=0) - side.mu) ** 2 * k
    distance = float(off[variance > 0] @ (1 / variance[variance > 0])) / max(1, int((variance > 0).sum()))
    # The sample of a small set is the set itself, rounded to float32; else it is one sample of many.
    is_whole = k == side.n
    fits = abs(ratio - 1) < 1e-3 and distance < 1e-3 * k if is_whole else 0.5 < ratio < 2 and distance < 25
    if not fits:
        return f"{side.name}: the sample of its features does not go with its mean and covariance; {AGAIN}"
    return None


def standard_error(real: Statistics, generated: Statistics) -> StandardError:
    """Return the standard error of the distance of two statistics for which :func:`why_none` returns None.

    Notes
    -----
    To first order the variance is ``var(i) / n``, summed over the two sets, with i the influence function (see
    ``_core.influence``), each variance from the sample of the rows. Where the two distributions are nearly equal the
    first order vanishes, and this estimate contains the second order twice: so that is taken off once, by its closed
    form for Gaussians. What is left of the first order counts as no less than minus a third of the second
    (docs/numerics.md).

    Raises
    ------
    fastfid.NumericalError
        NaN or infinity.
    """
    return standard_error_from(influence(real, generated), real, generated)


def influence(real: Statistics, generated: Statistics) -> _core.Influence:
    """Return the influence function of the distance at the samples of the two sets, as far as they have one."""
    a, b = (gaussian(side, side.name) for side in (real, generated))
    rows = {name: side.reservoir.rows for name, side in (("rows_a", real), ("rows_b", generated)) if side.reservoir}
    return _core.influence(a, b, **rows)


class Parts(NamedTuple):
    """Influence functions at the samples of two sets, and the second order, as ``_core.influence`` returns them."""

    of_a: NDArray[np.float64]
    of_b: NDArray[np.float64]
    second_order: float


def standard_error_from(found: _core.Influence | Parts, real: Statistics, generated: Statistics) -> StandardError:
    """Return the standard error from the influence function; see :func:`standard_error`."""
    parts = [
        Variance.of_mean(values, n)
        for values, n in zip((found.of_a, found.of_b), (real.n, generated.n), strict=True)
        if values.size and n is not None
    ]
    total = sum(parts, Variance())
    r = sum(1 / side.n for side in (real, generated) if side.reservoir is not None and side.n is not None)
    second = r * r * found.second_order
    value = math.sqrt(second_order.variance(total.value - 2 * second, second))
    if not math.isfinite(value):
        raise NumericalError("the standard error exceeds the range of float64")
    return StandardError(value, total.relative_error / 2, "both" if real.reservoir is not None else "generated")
