"""MIND, the sliced Wasserstein distance of two sets of features."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid.errors import NumericalError
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import Score, rows_of, same_length, unit_rows
from fastfid.metrics.rows import RowMetric

__all__ = ["MIND", "SlicedDistance", "mind"]

_DIRECTIONS = 32  # that are projected and sorted at a time


@dataclass(frozen=True, repr=False)
class MIND(Score):
    """The MIND of two sets of features.

    Attributes
    ----------
    value : float
    directions_error : float or None
        Standard error of the value over random directions, for these rows. Other rows would differ too: it is no error
        bar of a comparison of two models. None for one direction.
    directions : int
    """

    directions_error: float | None = None
    directions: int = 0


def _weights(m: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of ranks that two sorted sets are coupled by, and their shares of the whole."""
    ends = np.unique(np.concatenate([np.arange(1, m + 1) * n, np.arange(1, n + 1) * m]))  # times m n: exact
    starts = np.concatenate([[0], ends[:-1]])
    return starts // n, starts // m, (ends - starts) / (m * n)


def mind(x: Any, y: Any, *, directions: Any = 1000, seed: int = 2020) -> MIND:
    """Return the MIND of two sets of features: 3 d times the mean of squared 2-Wasserstein distances in one dimension.

    The rows are projected on random directions, and the projections of both sets are compared in sorted order
    (arXiv:2605.06797; sliced Wasserstein distance: Bonneel et al. 2015). It is 0 for equal sets, ``3 |shift|^2`` in the
    mean for a shift, and three times the Fréchet distance for isotropic Gaussians. Sets of different sizes are coupled
    by all their quantiles; torch-fidelity leaves rows of the larger set out.

    Parameters
    ----------
    x, y : array_like, shape (m, d) and (n, d)
        float16, float32, float64 or integers; at least 1 row. Computed in float64.
    directions : int or array_like, shape (k, d)
        Their number, or the directions, which are divided by their norm.
    seed : int
        Seed of the directions: normal numbers of ``numpy.random.default_rng(seed)``. Those of torch-fidelity are
        torch's; as an array they can be given.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        Shapes do not fit, or a direction is 0.
    fastfid.NumericalError
        A row has NaN or infinite values, or squares of the features are too large.

    Notes
    -----
    O(k (m + n) (d + log(m + n))) operations for k directions; memory for 32 projections of all rows.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((300, 8))
    >>> mind(x, x)
    MIND(value=0.0, directions_error=0.0, directions=1000)
    >>> mind(x, x + 1)  # 24, but for the directions
    MIND(value=2..., directions_error=..., directions=1000)
    """
    x, y = rows_of(x, "x", 1), rows_of(y, "y", 1)
    same_length(x, y)
    d = x.shape[1]
    if isinstance(directions, int | np.integer):
        count = check_count("directions", directions, 1)
        lines = np.random.default_rng(check_count("seed", seed, 0)).standard_normal((count, d))
    else:
        lines = rows_of(directions, "directions", 1, "directions")
        same_length(lines, x, ("directions", "x"))
    lines = unit_rows(lines, "directions")
    x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
    of_x, of_y, shares = _weights(len(x), len(y))
    squares = np.empty(len(lines))
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        for start in range(0, len(lines), _DIRECTIONS):
            part = lines[start : start + _DIRECTIONS]
            left, right = np.sort(part @ x.T, axis=1), np.sort(part @ y.T, axis=1)
            squares[start : start + len(part)] = (left[:, of_x] - right[:, of_y]) ** 2 @ shares
        squares *= 3 * d
        value = float(squares.mean())
        error = float(squares.std(ddof=1)) / math.sqrt(len(lines)) if len(lines) > 1 else None
    if not math.isfinite(value) or not math.isfinite(error or 0):
        raise NumericalError("x, y: the features are too large for squares of their differences")
    return MIND(value, directions_error=error, directions=len(lines))


@dataclass(frozen=True)
class SlicedDistance(RowMetric):
    """MIND of the features of all images; see :func:`fastfid.metrics.mind`.

    Parameters
    ----------
    directions, seed : int
    """

    name: ClassVar[str] = "mind"

    directions: int = 1000
    seed: int = 2020

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the distance. Raises ValueError if a set has fewer than two images."""
        found = mind(*self.rows_of(real, fake), directions=self.directions, seed=self.seed)
        return Result(
            found.value,
            no_standard_error="details.directions_error is the error of the random directions, not of the images",
            details={"directions_error": found.directions_error, "directions": found.directions, "seed": self.seed},
        )
