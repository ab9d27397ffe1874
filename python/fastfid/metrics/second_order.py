"""Variances of statistics whose first order vanishes near equality: the FID, FID-infinity and the KID."""

from typing import Any

import numpy as np

__all__ = ["LOWEST", "variance"]

# The estimate of the first order counts as no less than minus this share of the second order. Where the distributions
# are equal it is negative in about half of all samples. A larger share would leave intervals of 95 % that hold less,
# for statistics of many equal eigenvalues; a smaller one standard errors that are larger yet (docs/numerics.md).
LOWEST = 1 / 3


def variance(first: Any, second: Any) -> Any:
    """Return a variance from an unbiased estimate of its first order, which may be negative, and its second order."""
    return np.maximum(first, -LOWEST * second) + second
