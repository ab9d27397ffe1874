"""The Vendi score and RKE of features of one's own: how many different ones there are, in effect."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import NumericalError
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import Score, blocks, rows_of, unit_moments, unit_rows
from fastfid.metrics.rows import RowMetric
from fastfid.statistics import Statistics

__all__ = ["RKE", "Vendi", "VendiScore", "rke", "vendi"]


_NEAR_1 = 0.1  # orders for which the Rényi entropy loses a digit and more


@dataclass(frozen=True, repr=False)
class VendiScore(Score):
    """The Vendi score of a set of features.

    Attributes
    ----------
    value : float
        From 1 (one direction) to the number of rows, or of features if that is less.
    q : float
        Its order.
    """

    q: float = 1.0


def vendi(x: Any, q: float = 1) -> VendiScore:
    """Return the Vendi score: the effective number of directions in a set of features.

    Rows are divided by their norm, so that the kernel is the cosine. The score is the exponential of the Rényi entropy
    of order `q` of the eigenvalues of K / n, K the (n, n) matrix of cosines (Friedman and Dieng 2023, "The Vendi
    score"; for other orders Pasarkar and Dieng 2024; both as in the package vendi-score). Of order 2 it is RKE (Jalali
    et al. 2023) with this kernel. The eigenvalues are those of the smaller of the Gram matrices (n, n) and (d, d).

    Parameters
    ----------
    x : array_like, shape (n, d), or Statistics
        float16, float32, float64 or integers; at least 1 row, none of zeros. Computed in float64. Statistics are those
        of unit vectors, whose second moment has the eigenvalues of K / n.
    q : float
        At least 0; ``math.inf`` is allowed. Of order 0 it is the rank, of order infinity 1 over the largest eigenvalue.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        `x` has another shape or a row of zeros; or is statistics of vectors whose mean squared length is not 1 to 1e-5,
        or any of whose sample is not, or that do not say their n. `q` is negative or NaN.
    fastfid.NumericalError
        A row has NaN or infinite values.

    Notes
    -----
    O(n d min(n, d)) operations and an eigendecomposition of min(n, d)^3, which order 2 does without. Eigenvalues up to
    min(n, d) 2^-52 of the largest are roundings of 0, and count as 0; the package has no such limit, which matters for
    orders near 0. So does the rounding of statistics of n <= d rows that a file has.

    Examples
    --------
    >>> import numpy as np
    >>> vendi(np.eye(5))
    VendiScore(value=5.0..., q=1.0)
    >>> round(vendi([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]], q=2).value, 12)
    1.8
    """
    if isinstance(q, bool) or not isinstance(q, int | float | np.integer | np.floating):
        raise TypeError(f"q: expected a number, got {q!r}")
    if not q >= 0:
        raise ValueError(f"q: expected 0 or more; got {q!r}")
    return _vendi_of(_gram(x, "x"), q)


def _vendi_of(gram: NDArray[np.float64], q: float) -> VendiScore:
    """Return the score from a matrix with the eigenvalues of K / n."""
    if q == 2:
        return VendiScore(1 / float(np.vdot(gram, gram)), q=2.0)
    values = np.linalg.eigvalsh(gram)
    values = values[values > len(values) * np.finfo(np.float64).eps * values[-1]]
    if q == 1:
        score = math.exp(-float(values @ np.log(values)))
    elif q == math.inf:
        score = 1 / float(values[-1])
    elif abs(q - 1) < _NEAR_1:
        # sum p^q - 1, as the logarithm of the sum itself is a rounding over 1 - q.
        values /= values.sum()
        power = float(values @ np.expm1((q - 1) * np.log(values)))
        score = math.exp(math.log1p(power) / (1 - q))
    else:
        # Relative to the largest, as high powers of values below 1 vanish.
        largest = float(values[-1])
        power = float(np.sum((values / largest) ** q))
        score = math.exp(math.log(power) / (1 - q) + math.log(largest) * (q / (1 - q)))
    return VendiScore(score, q=float(q))


def _gram(x: Any, name: str) -> NDArray[np.float64]:
    """Return a matrix that has the eigenvalues of K / n that are not 0; of rows the smaller of the two."""
    if isinstance(x, Statistics):
        second = unit_moments(x, name)[1]
        if x.rows is None:
            return second
        x = x.rows
    unit = unit_rows(rows_of(x, name, 1), name)
    n, d = unit.shape
    gram: NDArray[np.float64] = (unit.T @ unit if d < n else unit @ unit.T) / n
    return gram


@dataclass(frozen=True)
class Vendi(RowMetric):
    """The Vendi score of the generated set, with that of the real set beside; see :func:`fastfid.metrics.vendi`.

    Parameters
    ----------
    q : float
        The order.
    """

    name: ClassVar[str] = "vendi"
    least: ClassVar[int] = 1

    q: float = 1

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the score. Raises ValueError if the features of an image are all 0."""
        x, y = self.rows_of(real, fake)
        of_real, of_fake = (_vendi_of(_gram(z, side.name), self.q) for z, side in ((x, real), (y, fake)))
        return Result(of_fake.value, details={"q": of_fake.q, "of_real": of_real.value})


@dataclass(frozen=True, repr=False)
class RKE(Score):
    """The Rényi kernel entropy score of a set of features.

    Attributes
    ----------
    value : float
        From 1 (one mode) to the number of rows.
    sigma : float or None
        Bandwidth of the Gaussian kernel. None: the kernel is the cosine.
    """

    sigma: float | None = None


def rke(x: Any, *, sigma: float | None = None) -> RKE:
    """Return RKE: the effective number of modes of a set of features, from the Rényi entropy of order 2.

    It is ``1 / mean k(x_i, x_j)^2`` over all pairs, each row with itself too: the exponential of the entropy of order 2
    of the eigenvalues of K / n (Jalali et al. 2023, "An information-theoretic evaluation of generative models in
    learning multi-modal distributions"; their RKE-MC, exactly rather than from random pairs). With the cosine as kernel
    it is ``vendi(x, q=2)``.

    Parameters
    ----------
    x : array_like, shape (n, d), or Statistics
        float16, float32, float64 or integers; at least 1 row, for the cosine none of zeros. Computed in float64. For
        the cosine it may be statistics of unit vectors; see :func:`fastfid.metrics.vendi`.
    sigma : float, optional
        Take the Gaussian kernel ``exp(-|a - b|^2 / (2 sigma^2))`` of the rows as they are, as Jalali et al. do.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        `x` has another shape or, for the cosine, a row of zeros; or `sigma` is not positive and finite.
    fastfid.NumericalError
        A row has NaN or infinite values, or is too large for `sigma`.

    Notes
    -----
    Cosine: O(n d min(n, d)) operations. Gaussian: n^2 d operations, in blocks; memory for a float64 copy of the rows,
    no (n, n) matrix. Squared distances are taken from products, after the mean has been subtracted: they are off by
    about 1e-16 of the largest squared norm.

    Examples
    --------
    >>> import numpy as np
    >>> three = np.repeat(np.eye(3), 10, axis=0)  # three modes
    >>> rke(three).value, rke(three, sigma=0.1).value
    (3.0..., 3.0...)
    """
    if sigma is None:
        return RKE(vendi(x, q=2).value)
    if isinstance(sigma, bool) or not isinstance(sigma, int | float | np.integer | np.floating):
        raise TypeError(f"sigma: expected a number, got {sigma!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma: expected a positive, finite number; got {sigma!r}")
    if isinstance(x, Statistics):
        raise TypeError("x: a Gaussian kernel needs rows, got Statistics; pass the rows, or leave sigma out")
    rows = rows_of(x, "x", 1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rows -= rows.mean(axis=0)
        rows /= sigma
        pairs = _sum_over_pairs(rows)
    if not math.isfinite(pairs):
        raise NumericalError(f"x: the features are too large for a kernel of sigma = {sigma:g}")
    n = len(rows)
    return RKE(n * n / (n + 2 * pairs), sigma=float(sigma))


def _sum_over_pairs(rows: NDArray[np.float64]) -> float:
    """Return the sum of exp(-|a - b|^2) over all pairs of different rows, each pair once."""
    squares = np.einsum("ij,ij->i", rows, rows)
    total = 0.0
    for one in blocks(len(rows)):
        for other in blocks(len(rows)):
            if other.start < one.start:
                continue
            exponents = rows[one] @ rows[other].T
            exponents *= 2
            exponents -= squares[one, None]
            exponents -= squares[other]
            kernel = np.exp(np.minimum(exponents, 0, out=exponents), out=exponents)
            total += float(np.triu(kernel, 1).sum() if one == other else kernel.sum())
    return total
