"""The CMMD (Jayasumana et al. 2024) of features of one's own, exactly or from second moments."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import Score, blocks, rows_of, same_length, unit_moments, unit_rows
from fastfid.metrics.rows import RowMetric
from fastfid.statistics import Statistics, check_compatible

__all__ = ["CMMD", "DirectionalMMD", "cmmd"]

# The kernel of unit vectors a and b is exp(-|a - b|^2 / (2 sigma^2)) = exp((a . b - 1) / sigma^2), sigma = 10.
_SIGMA_SQUARED = 100.0
_SCALE = 1000.0


@dataclass(frozen=True, repr=False)
class CMMD(Score):
    """The CMMD of two sets of features.

    Attributes
    ----------
    value : float
        Exact, but for rounding, or `lower`.
    lower, upper : float or None
        From second moments: what the exact value is between. None where the value is exact.
    """

    lower: float | None = None
    upper: float | None = None


def _mean_of_rest(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the mean of 1 - kernel over all pairs. As the kernel is nearly 1, this has 2 digits more."""
    total = 0.0
    for i, one in enumerate(blocks(len(x))):
        for j, other in enumerate(blocks(len(y))):
            if x is y and j < i:  # the pairs of blocks of one set come twice
                continue
            products = x[one] @ y[other].T
            products -= 1
            products /= _SIGMA_SQUARED
            found = float(np.expm1(products, out=products).sum())
            total -= 2 * found if x is y and j > i else found
    return total / (len(x) * len(y))


_Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def _moments(side: NDArray[Any] | Statistics, name: str) -> _Moments:
    """Return the mean and the second moment of the directions of one side."""
    if isinstance(side, Statistics):
        return unit_moments(side, name)
    unit = unit_rows(side, name)
    return unit.mean(axis=0), unit.T @ unit / len(unit)


def _from_moments(x: _Moments, y: _Moments) -> CMMD:
    (mean_x, second_x), (mean_y, second_y) = x, y
    first = float(np.sum((mean_x - mean_y) ** 2)) / _SIGMA_SQUARED
    second = float(np.sum((second_x - second_y) ** 2)) / (2 * _SIGMA_SQUARED**2)
    step = 1 / _SIGMA_SQUARED
    # exp(1 / sigma^2) - 1 - 1 / sigma^2 - 1 / (2 sigma^4), without cancellation.
    rest = math.fsum(step**order / math.factorial(order) for order in range(3, 12))
    factor = _SCALE * math.exp(-step)
    lower = factor * (first + second)
    return CMMD(lower, lower=lower, upper=lower + factor * 4 * rest)


def cmmd(x: Any, y: Any, *, moments: bool = False) -> CMMD:
    """Return the CMMD of two sets of features: 1,000 times a squared MMD of their directions.

    Rows are divided by their norm. The kernel is Gaussian with sigma = 10, and the estimate is the V-statistic of
    Jayasumana et al. 2024, "Rethinking FID", and of their code (google-research/cmmd)::

        1000 (mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j)),  k(a, b) = exp(-|a - b|^2 / 200)

    Means are over all pairs, each row with itself too, which makes it about 4 / m + 4 / n larger than unbiased. It is
    the CMMD of papers if the features are the projected embeddings of OpenAI's CLIP ViT-L/14 at 336 pixels. All is
    float64; their code's float32 is off by about 1e-4.

    Parameters
    ----------
    x, y : array_like, shape (m, d) and (n, d), or Statistics
        float16, float32, float64 or integers; at least 1 row, none of zeros. With ``moments=True`` each may be
        statistics of unit vectors: an extractor that divides by the norm, or ``Statistics.from_features`` of such rows.
    moments : bool
        Compute it from means and second moments: O((m + n) d^2) operations, whatever the number of pairs. With
        M_p the mean of the p-th tensor power of the rows, the squared MMD is ``exp(-1/100) sum_p |M_p(x) - M_p(y)|^2 /
        (100^p p!)``. The terms of p = 1, 2 are computed. Each other norm is at most 2, so the rest is between 0 and
        6.7e-4 of the value's unit: `lower` and `upper`.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        Shapes or provenance do not fit, or a row is 0. Statistics are of vectors whose mean squared length is not 1 to
        1e-5, or any of whose sample is not, or they do not say their n; or `moments` is False.
    fastfid.NumericalError
        A row has NaN or infinite values.

    Notes
    -----
    O((m + n)^2 d) operations exactly; memory for float64 copies of the rows, no (m, n) matrix. Statistics without a
    sample show the mean squared length only: that each vector has length 1 is then the caller's word.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((300, 16)), rng.standard_normal((200, 16)) + 0.2
    >>> cmmd(x, y)
    CMMD(value=0.46...)
    >>> cmmd(x, y, moments=True)
    CMMD(value=0.46..., lower=0.46..., upper=0.46...)
    """
    if not isinstance(moments, bool | np.bool_):
        raise TypeError(f"moments: expected True or False, got {moments!r}")
    for name, side in (("x", x), ("y", y)):
        if isinstance(side, Statistics) and not moments:
            raise ValueError(f"{name}: statistics give bounds of the CMMD only; pass moments=True, or the rows")
    x, y = (side if isinstance(side, Statistics) else rows_of(side, name, 1) for name, side in (("x", x), ("y", y)))
    if isinstance(x, Statistics) and isinstance(y, Statistics):
        check_compatible(x, y, hint="")
    a, b = (side.mu[None] if isinstance(side, Statistics) else side for side in (x, y))
    same_length(a, b)
    if moments:
        return _from_moments(_moments(x, "x"), _moments(y, "y"))
    return CMMD(_exact(unit_rows(x, "x"), unit_rows(y, "y")))


def _exact(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the CMMD of unit vectors."""
    return _SCALE * (2 * _mean_of_rest(x, y) - _mean_of_rest(x, x) - _mean_of_rest(y, y))


@dataclass(frozen=True)
class DirectionalMMD(RowMetric):
    """The CMMD of the features of all images, exactly; see :func:`fastfid.metrics.cmmd`.

    It is the CMMD of papers if the extractor is the image tower of OpenAI's CLIP ViT-L/14 at 336 pixels.
    """

    name: ClassVar[str] = "cmmd"
    least: ClassVar[int] = 1

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the distance. Raises ValueError if the features of an image are all 0."""
        x, y = self.rows_of(real, fake)
        value = _exact(unit_rows(x, real.name), unit_rows(y, fake.name))
        note = ""
        if str(fake.meta.get("extractor", "")).startswith("inception"):
            note = "of Inception features: the CMMD of papers is of CLIP features"
        return Result(value, note=note)
