"""Standard errors of a distance near equality by a model of few numbers, and how well a simulated spread is known.

Between distributions that are nearly equal, the KID and the FID are, to second order, a sum over eigenvalues w of
w (z^2 - 1) with normal z: of mean 0 where the distributions are equal, of mean delta where they differ. An unbiased
estimate of the variance is then itself random, however many rows there are: it is second (2 Q - 1), with second the
variance at equality and Q the mean of z^2 with the weights w^2. docs/numerics.md, "Near equality".
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics import second_order

__all__ = ["NEAR", "expected", "kernel_eigenvalues", "noise", "print_model"]

# What is asked of a standard error: to be within 15 % of the spread over draws.
NEAR = 0.15
_BLOCK = 1000  # draws at a time


def noise(values: NDArray[np.float64]) -> float:
    """Return the relative error of the standard deviation of some draws, from their fourth moment."""
    deviations = values - values.mean()
    kurtosis = float((deviations**4).mean() / (deviations**2).mean() ** 2)
    return math.sqrt((kurtosis - 1) / len(values)) / 2


def expected(eigenvalues: NDArray[Any], first: float = 0.0, draws: int = 50_000) -> tuple[float, float]:
    """Return the standard error (root mean square) over the spread, and the share that intervals of 95 % hold.

    Parameters
    ----------
    eigenvalues : ndarray, shape (k,)
        The w; their scale does not matter.
    first : float
        First order of the variance over its second order; 0 at equality. All z have one mean.
    draws : int
    """
    w = np.asarray(eigenvalues, np.float64)
    w = w / math.sqrt(2 * float(w @ w))
    rng, values, variances = np.random.default_rng(0), [], []
    for _ in range(draws // _BLOCK):
        squares = (rng.standard_normal((_BLOCK, len(w))) + math.sqrt(first / 2)) ** 2
        values.append(squares @ w)
        variances.append(second_order.variance(2 * (squares @ w**2) / float(w @ w) - 2, 1.0))
    value, variance = np.concatenate(values), np.concatenate(variances)
    true = float(w.sum()) * (1 + first / 2)
    held = np.abs(value - true) <= NormalDist().inv_cdf(0.975) * np.sqrt(variance)
    return math.sqrt(variance.mean() / (1 + first)), float(held.mean())


def kernel_eigenvalues(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the eigenvalues of the centred kernel of the KID, of a sample of rows."""
    kernel = (rows @ rows.T / rows.shape[1] + 1) ** 3
    kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    values: NDArray[np.float64] = np.linalg.eigvalsh(kernel)
    return values[values > values[-1] * 1e-6]


def print_model() -> None:
    """Print what the model says of k equal eigenvalues."""
    orders = (0.0, 0.5, 1.0, 2.0, 8.0)
    print("| equal eigenvalues |", " | ".join(f"first order {order:g} x second" for order in orders), "|")
    print(f"|{'---|' * (len(orders) + 1)}")
    for count in (1, 2, 4, 5, 8, 16, 64, 256):
        found = [expected(np.ones(count), order) for order in orders]
        print(f"| {count} |", " | ".join(f"{ratio:.2f}, {held:.0%}" for ratio, held in found), "|", flush=True)
