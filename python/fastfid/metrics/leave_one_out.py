"""By how much each generated image moves the FID: the distance without it, for every image, exactly."""

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics.given import blocks
from fastfid.statistics import Statistics

__all__ = ["leave_one_out"]

# The trapezoidal rule in u = log t, with this step, for an integrand that is analytic for |Im u| < pi / 2: its error is
# about exp(-pi^2 / step) = 5e-15 of the integral. Beyond these u the integrand adds less than exp(-28) = 7e-13.
_STEP = 0.3
_LARGEST = 28.0
# Eigenvalues below this share of the largest are rounding errors of the others.
_NOISE = 1e-14


def leave_one_out(real: Statistics, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the FID of the rows without each one of them, less the FID of all.

    Parameters
    ----------
    real : Statistics
        Of the d features of the real set.
    rows : ndarray, shape (n, d)
        The features of the generated set, at least 3 rows, for any n: also n <= d.

    Returns
    -------
    ndarray of float64, shape (n,)
        Negative where the FID falls without the image, which then raises it.

    Notes
    -----
    With F^T F = S_real, without the row x the scatter of the n rows loses n / (n - 1) (x - mu)(x - mu)^T, and
    K = F scatter F^T loses c c^T, with c = sqrt(n / (n - 1)) F (x - mu). The trace of the root of K falls by

        tr K^(1/2) - tr (K - c c^T)^(1/2) = -1/pi int_0^inf log(1 - c^T (K + t^2)^(-1) c) dt,

    as sqrt(k) = 1/pi int_0^inf log(1 + k / t^2) dt and det(K - c c^T + t^2) = det(K + t^2) (1 - c^T (K + t^2)^(-1) c).
    Two problems of eigenvalues, and one product of (n, d) and (d, 188). To first order in 1 / n the result is the
    influence function of the FID at the row, over 1 - n (``_core.influence``), which the tests compare.

    Examples
    --------
    >>> real = Statistics.from_features(np.array([[0.0], [1.0], [2.0]]))
    >>> rows = np.array([[0.0], [1.0], [2.0], [9.0]], np.float32)
    >>> leave_one_out(real, rows).argmin()  # the FID is the smallest without 9
    np.int64(3)
    """
    n = len(rows)
    if n < 3:
        raise ValueError(f"rows: expected 3 rows or more, as 2 must be left, got {n}")
    factor, mean = _factor(real), _mean(rows)
    projected = np.empty((n, len(factor)))
    lengths, shifts = np.empty(n), np.empty(n)
    offset = mean - real.mu
    for block in blocks(n):
        centred = rows[block] - mean
        projected[block] = centred @ factor.T
        lengths[block] = np.einsum("ij,ij->i", centred, centred)
        shifts[block] = centred @ offset
    values, vectors = np.linalg.eigh(_scatter(projected))
    kept = values > _NOISE * values.max(initial=0)
    roots = np.sqrt(values[kept])
    lost = np.zeros(n)
    if roots.size:
        for block in blocks(n):
            turned = projected[block] @ vectors[:, kept]
            lost[block] = _lost(roots, turned * turned * (n / (n - 1)))
    total = roots.sum()
    trace = (lengths.sum() - lengths * (n / (n - 1))) / (n - 2) - lengths.sum() / (n - 1)
    of_mean = lengths / (n - 1) ** 2 - 2 * shifts / (n - 1)
    changes: NDArray[np.float64] = of_mean + trace - 2 * ((total - lost) / np.sqrt(n - 2) - total / np.sqrt(n - 1))
    return changes


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    total = np.zeros(rows.shape[1])
    for block in blocks(len(rows)):
        total += rows[block].sum(axis=0, dtype=np.float64)
    return total / len(rows)


def _scatter(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of x x^T over the rows, in calls of seconds between which Ctrl-C is heard."""
    found = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks(len(rows)):
        found += rows[block].T @ rows[block]
    return found


def _factor(real: Statistics) -> NDArray[np.float64]:
    """Return F (r, d) with F^T F the covariance."""
    if real.rows is not None and real.n is not None:
        centred: NDArray[np.float64] = (real.rows - real.mu) / np.sqrt(real.n - 1)
        return centred
    values, vectors = np.linalg.eigh(real.sigma)
    kept = values > 0
    found: NDArray[np.float64] = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    return found


def _lost(roots: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much the trace of the root falls; `squares` (m, r) are those of c in the eigenvectors of K."""
    t = roots.max() * np.exp(np.arange(-_LARGEST, _LARGEST, _STEP))
    weights = 1 / (roots[:, None] ** 2 + t**2)
    share = np.minimum(squares @ weights, 1 - np.finfo(np.float64).eps)  # 1 where a rank is lost
    found: NDArray[np.float64] = -(np.log1p(-share) @ t) * (_STEP / np.pi)
    return found
