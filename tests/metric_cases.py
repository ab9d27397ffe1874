"""Reference values of every metric of METRICS: one row per metric, with a reference that does not use its code."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats
from scipy.spatial.distance import cdist
from tolerances import (
    ANOTHER_ORDER,
    CMMDS,
    FEW_ROUNDINGS,
    KERNEL_MEANS,
    SCIPYS_ROOT_SMALL,
    SCORE_FLOAT32,
    SINGULAR_VALUES,
)


@dataclass(frozen=True)
class MetricCase:
    """The reference of a metric for features (n, d) of two sets, float64, and the tolerance."""

    truth: Callable[[np.ndarray, np.ndarray], float | dict[str, float]]  # of several values: by name
    relative: float  # one of tests/tolerances.py
    is_symmetric: bool
    fewest: int  # images of each set, or of the generated one
    has_standard_error: bool = False  # without asking
    of_generated: bool = False  # alone


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) by SciPy."""
    covariances = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * np.trace(root))


def frechet_less_bias(x: np.ndarray, y: np.ndarray) -> float:
    """The Fréchet distance less its bias, by the formula of docs/numerics.md with SciPy's eigenvalues of S1 S2."""
    covariances = np.cov(x.T), np.cov(y.T)
    s = np.sqrt(scipy.linalg.eigvals(covariances[0] @ covariances[1]).real)
    noise = (1 / len(x) + 1 / len(y)) / 2 * ((np.outer(s, s) / np.add.outer(s, s)).sum() + s.sum() / 2)
    return frechet(x, y) - float(
        noise + sum(np.trace(c) / n for c, n in zip(covariances, (len(x), len(y)), strict=True))
    )


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared MMD by three whole kernel matrices."""
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(sum(means) - 2 * xy.mean())


CLASSIFIER = np.random.default_rng(9).standard_normal((7, 12)).astype(np.float32)  # of 7 classes and d = 12


def inception_score(_: np.ndarray, y: np.ndarray) -> float:
    """The mean over 10 consecutive blocks of exp of the mean of KL(p || mean p), by SciPy's functions."""
    p = scipy.special.softmax(y @ CLASSIFIER.astype(float).T, axis=1)
    blocks = [p[i * len(p) // 10 : (i + 1) * len(p) // 10] for i in range(10)]
    return float(np.mean([np.exp(scipy.special.rel_entr(b, b.mean(0)).sum(1).mean()) for b in blocks]))


def balls(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage by whole distance matrices, k = 5."""
    radii = [np.sort(cdist(a, a), axis=1)[:, 5] for a in (x, y)]
    across = cdist(x, y)
    inside = across < radii[0][:, None]
    return {
        "precision": inside.any(0).mean(),
        "recall": (across < radii[1]).any(1).mean(),
        "density": inside.sum() / (5 * len(y)),
        "coverage": inside.any(1).mean(),
    }


def sliced(x: np.ndarray, y: np.ndarray) -> float:
    """3 d times the mean squared 2-Wasserstein distance over the directions; rows repeated to sets of one size."""
    directions = np.random.default_rng(2020).standard_normal((1000, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    size = math.lcm(len(x), len(y))
    a, b = (np.repeat(np.sort(z @ directions.T, axis=0), size // len(z), axis=0) for z in (x, y))
    return float(3 * x.shape[1] * ((a - b) ** 2).mean())


def memorised(x: np.ndarray, y: np.ndarray) -> float:
    """The Fréchet distance over the mean of 1 - |cosine| of real rows and the nearest generated ones, if below 0.1."""
    distance = (1 - np.abs(1 - cdist(x, y, "cosine"))).min(1).mean()
    return frechet(x, y) / (distance if distance < 0.1 else 1.0)


def directions(_: np.ndarray, y: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of the matrix of cosines over n."""
    values = scipy.linalg.eigvalsh((1 - cdist(y, y, "cosine")) / len(y))
    return float(np.exp(scipy.stats.entropy(values.clip(0))))


def gaussian_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """1,000 times the squared MMD of directions with diagonals, by three whole kernel matrices."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    xx, yy, xy = (np.exp(-cdist(a, b, "sqeuclidean") / 200).mean() for a, b in ((x, x), (y, y), (x, y)))
    return float(1000 * (xx + yy - 2 * xy))


METRIC_CASES = {
    "fid": MetricCase(frechet, SCIPYS_ROOT_SMALL, is_symmetric=True, fewest=2, has_standard_error=True),
    "sfid": MetricCase(frechet, SCIPYS_ROOT_SMALL, is_symmetric=True, fewest=2, has_standard_error=True),
    "fid-infinity": MetricCase(
        frechet_less_bias, SCIPYS_ROOT_SMALL, is_symmetric=True, fewest=13, has_standard_error=True
    ),
    "kid": MetricCase(mmd2, KERNEL_MEANS, is_symmetric=True, fewest=2, has_standard_error=True),
    "is": MetricCase(inception_score, SCORE_FLOAT32, is_symmetric=False, fewest=10, of_generated=True),
    "prdc": MetricCase(balls, FEW_ROUNDINGS, is_symmetric=False, fewest=6, has_standard_error=True),
    "mind": MetricCase(sliced, ANOTHER_ORDER, is_symmetric=True, fewest=2),
    # Symmetric where no memorisation distance is below the threshold, as here.
    "mifid": MetricCase(memorised, SCIPYS_ROOT_SMALL, is_symmetric=True, fewest=2),
    "vendi": MetricCase(directions, SINGULAR_VALUES, is_symmetric=False, fewest=1),
    "cmmd": MetricCase(gaussian_mmd2, CMMDS, is_symmetric=True, fewest=1),
}
