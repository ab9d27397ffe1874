"""MIFID: the Fréchet distance over how far images are from the nearest of the other set."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics.base import Result, Sample
from fastfid.metrics.fid import distance
from fastfid.metrics.given import Score, blocks, rows_of, same_length, unit_rows
from fastfid.metrics.rows import RowMetric
from fastfid.statistics import Statistics

__all__ = ["MIFID", "MemorisationInformedFID", "mifid"]


@dataclass(frozen=True, repr=False)
class MIFID(Score):
    """The MIFID of two sets of features.

    Attributes
    ----------
    value : float
        `fid` over `memorisation_distance`, or `fid` if that distance is not below the threshold.
    fid : float
        The Fréchet distance.
    memorisation_distance : float
        Mean of 1 - abs(cosine) of rows and the nearest row of the other set.
    direction : {"real", "generated"}
        Whose rows the mean is over.
    """

    fid: float = 0.0
    memorisation_distance: float = 0.0
    direction: str = "real"


def _mean_distance_to_nearest(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    total = 0.0
    for one in blocks(len(x)):
        nearest = np.zeros(one.stop - one.start)
        for other in blocks(len(y)):
            np.maximum(nearest, np.abs(x[one] @ y[other].T).max(axis=1), out=nearest)
        total += float((1 - np.minimum(nearest, 1)).sum())  # a cosine of 1 + 2^-52 is one of 1
    return total / len(x)


def mifid(real: Any, fake: Any, *, direction: str = "real", threshold: float = 0.1) -> MIFID:
    """Return the memorisation-informed FID of two sets of features.

    It is the FID over the memorisation distance (Bai et al. 2021, "On training sample memorization"), so copies of
    real images make it larger. As in torchmetrics, whose number is that of the default options: a memorisation
    distance of `threshold` or more counts as 1, 1e-14 is added to it, and the value is 0 if the FID is at most 1e-8.

    Parameters
    ----------
    real, fake : array_like, shape (m, d) and (n, d)
        float16, float32, float64 or integers; at least 2 rows, none of zeros. Cosines are computed in float64.
    direction : {"real", "generated"}
        Whether the mean is over real rows, of the distance to the nearest generated one, as in torchmetrics; or over
        generated rows, of the distance to the nearest real one, which says how much of what was generated is copied.
    threshold : float
        From 0 to 1.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        Shapes do not fit, a row is 0, or an option has another value.
    fastfid.NumericalError
        A row has NaN or infinite values, or is too large.

    Notes
    -----
    2 m n d operations for the cosines, and the Fréchet distance; memory for float64 copies of the rows, no (m, n)
    matrix.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.random((200, 8)), rng.random((300, 8)) + 0.1
    >>> mifid(real, fake)
    MIFID(value=..., fid=0.0..., memorisation_distance=0.0..., direction='real')
    """
    if direction not in ("real", "generated"):
        raise ValueError(f"direction: expected 'real' or 'generated'; got {direction!r}")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.integer | np.floating):
        raise TypeError(f"threshold: expected a number, got {threshold!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0 to 1; got {threshold!r}")
    real, fake = rows_of(real, "real"), rows_of(fake, "fake")
    same_length(real, fake, ("real", "fake"))
    sides = [unit_rows(real, "real"), unit_rows(fake, "fake")]
    memorised = _mean_distance_to_nearest(*(sides if direction == "real" else sides[::-1]))
    fid = distance(Statistics.from_features(real, name="real"), Statistics.from_features(fake, name="fake")).value
    value = fid / ((memorised if memorised < threshold else 1.0) + 1e-14) if fid > 1e-8 else 0.0
    return MIFID(value, fid=fid, memorisation_distance=memorised, direction=direction)


@dataclass(frozen=True)
class MemorisationInformedFID(RowMetric):
    """MIFID of the features of all images; see :func:`fastfid.metrics.mifid`.

    Parameters
    ----------
    direction : {"real", "generated"}
    threshold : float
    """

    name: ClassVar[str] = "mifid"

    direction: str = "real"
    threshold: float = 0.1

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the distance. Raises ValueError if a set has fewer than two images, or features of zeros."""
        x, y = self.rows_of(real, fake)
        found = mifid(x, y, direction=self.direction, threshold=self.threshold)
        memorised = found.memorisation_distance
        details = {"fid": found.fid, "memorisation_distance": memorised, "direction": found.direction}
        return Result(found.value, details=details)
