"""The Vendi score, and with it RKE, of features of one's own."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import Score, rows_of, unit_rows
from fastfid.metrics.rows import RowMetric

__all__ = ["Vendi", "VendiScore", "vendi"]


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
    x : array_like, shape (n, d)
        float16, float32, float64 or integers; at least 1 row, none of zeros. Computed in float64.
    q : float
        At least 0; ``math.inf`` is allowed. Of order 0 it is the rank, of order infinity 1 over the largest eigenvalue.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        `x` has another shape or a row of zeros, or `q` is negative or NaN.
    fastfid.NumericalError
        A row has NaN or infinite values.

    Notes
    -----
    O(n d min(n, d)) operations and an eigendecomposition of min(n, d)^3, which order 2 does without. Eigenvalues up to
    min(n, d) 2^-52 of the largest are roundings of 0, and count as 0; the package has no such limit, which matters for
    orders near 0.

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
    unit = unit_rows(rows_of(x, "x", 1), "x")
    n, d = unit.shape
    gram = (unit.T @ unit if d < n else unit @ unit.T) / n
    if q == 2:
        return VendiScore(1 / float(np.vdot(gram, gram)), q=2.0)
    values = np.linalg.eigvalsh(gram)
    values = values[values > len(values) * np.finfo(np.float64).eps * values[-1]]
    if q == 1:
        score = math.exp(-float(values @ np.log(values)))
    elif q == math.inf:
        score = 1 / float(values[-1])
    else:
        # Relative to the largest, as high powers of values below 1 vanish.
        largest = float(values[-1])
        power = float(np.sum((values / largest) ** q))
        score = math.exp((math.log(power) + q * math.log(largest)) / (1 - q))
    return VendiScore(score, q=float(q))


@dataclass(frozen=True)
class Vendi(RowMetric):
    """The Vendi score of the generated set, with that of the real set beside; see :func:`vendi`.

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
        found = vendi(y, self.q)
        return Result(found.value, details={"q": found.q, "of_real": vendi(x, self.q).value})
