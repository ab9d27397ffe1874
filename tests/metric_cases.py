"""Reference values of every metric of METRICS: one row per metric, with a reference that does not use its code."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from tolerances import KERNEL_MEANS, SCIPYS_ROOT_SMALL


@dataclass(frozen=True)
class MetricCase:
    """The reference of a metric for features (n, d) of two sets, float64, and the tolerance."""

    truth: Callable[[np.ndarray, np.ndarray], float]
    relative: float  # one of tests/tolerances.py
    is_symmetric: bool
    fewest: int  # images of each set
    has_standard_error: bool = False  # without asking


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) by SciPy."""
    covariances = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * np.trace(root))


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared MMD by three whole kernel matrices."""
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(sum(means) - 2 * xy.mean())


METRIC_CASES = {
    "fid": MetricCase(frechet, SCIPYS_ROOT_SMALL, is_symmetric=True, fewest=2, has_standard_error=True),
    "kid": MetricCase(mmd2, KERNEL_MEANS, is_symmetric=True, fewest=2, has_standard_error=True),
}
