"""The Fréchet distance of two Gaussians, and what is known of it."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from fastfid import _core
from fastfid._console import warn
from fastfid._core import DeviceMoments, FrechetResult
from fastfid.errors import NumericalError
from fastfid.extractor import FEATURES, SPATIAL
from fastfid.metrics.base import Metric, Result, Sample
from fastfid.metrics.moments import FeatureMoments
from fastfid.metrics.standard_error import standard_error, why_none
from fastfid.record import DistanceRecord, distance_record
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics, check_compatible, gaussian

__all__ = [
    "FIDResult",
    "FrechetInceptionDistance",
    "SpatialFID",
    "as_result",
    "distance",
    "frechet_distance",
    "with_standard_error",
]

NARROW = 1e-6  # numerical bounds of this relative width leave the six digits that are shown alone

Side = Statistics | DeviceMoments | tuple[ArrayLike, ArrayLike]


def distance(
    a: AnyStatistics,
    b: AnyStatistics,
    *,
    method: str = "auto",
    tol: float | None = None,
    device: str = "cpu",
    force: bool = False,
    needs_bias: bool = False,
) -> FrechetResult:
    """Return the Fréchet distance of two statistics that belong together; see :func:`frechet_distance`."""
    check_compatible(a, b, force=force)

    # The names of the parameters of frechet_distance() tell apart what has no names.
    names = ("a", "b") if a.name == b.name == Statistics.name else (a.name, b.name)
    result = _core.frechet_distance(
        gaussian(a, names[0]), gaussian(b, names[1]), method=method, tol=tol, device=device, needs_bias=needs_bias
    )
    if result.trace.float32_rounding > 0:
        warn(
            f"{a.name}, {b.name}: {result.trace.note}. The distance is {result.value:g}, its numerical bounds are "
            f"{result.lower:g} and {result.upper:g}."
        )
    return result


@dataclass(frozen=True, repr=False)
class FIDResult(Result):
    """The Fréchet distance of two sets and how it was found.

    Attributes
    ----------
    value : float
        The distance, squared: ``mean_term + trace1 + trace2 - 2 trace_sqrt_product``.
    mean_term : float
        The squared distance of the means.
    trace1, trace2 : float
        The traces of the two covariances.
    trace_sqrt_product : float
        The trace of the square root of their product.
    factor_residual : float
        The largest relative residual of the factors of the covariances.
    method : str
        How the trace of the matrix square root was taken.
    bias : float or None
        By how much the value is expected to exceed that of infinitely many images; None where it is unknown.
    """

    mean_term: float = 0.0
    trace1: float = 0.0
    trace2: float = 0.0
    trace_sqrt_product: float = 0.0
    method: str = ""
    factor_residual: float = 0.0
    bias: float | None = None

    @property
    def remark(self) -> str:
        """The note; empty where it says that the slowest route was taken, and the digits that are shown are certain."""
        low, high = self.numerical_lower, self.numerical_upper
        if self.method != "svd" or low is None or high is None or high - low > NARROW * abs(self.value):
            return self.note
        return ""


def as_result(found: FrechetResult) -> FIDResult:
    """Return what the core has found."""
    return FIDResult(
        found.value,
        found.lower,
        found.upper,
        note=found.trace.note,
        mean_term=found.mean_term,
        trace1=found.trace1,
        trace2=found.trace2,
        trace_sqrt_product=found.trace.value,
        method=found.trace.method,
        factor_residual=found.trace.factor_residual,
        bias=found.bias,
    )


@dataclass(frozen=True)
class FrechetInceptionDistance(Metric):
    """The Fréchet distance of the Gaussians fitted to the features of two sets (Heusel et al. 2017).

    Parameters
    ----------
    tol : float, optional
        Tighten the numerical bounds of the trace term to this width, relative to it.
    needs_bias : bool
        Take the bias too, which costs the singular values of the product of the covariances.
    needs_standard_error : bool
        Estimate the standard error. At 2048 dims that takes a few seconds.

    Raises
    ------
    ValueError
        `tol` is not positive.
    """

    name: ClassVar[str] = "fid"
    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})

    tol: float | None = None
    needs_bias: bool = True
    needs_standard_error: bool = True

    def __post_init__(self) -> None:
        if self.tol is not None and not (isinstance(self.tol, numbers.Real) and 0 < self.tol < math.inf):
            raise ValueError(f"tol: expected None or a positive number, got {self.tol!r}")

    @property
    def output(self) -> str:
        """Name of the only output that the metric needs."""
        (output,) = self.needs
        return output

    @property
    def accumulates(self) -> tuple[str, ...]:
        """Moments of the output."""
        return ("moments", self.output)

    def accumulator(self, lengths: Mapping[str, int]) -> FeatureMoments:
        """Return empty moments of the features."""
        return FeatureMoments(lengths[self.output], output=self.output)

    def restored(self, state: Mapping[str, Any]) -> FeatureMoments:
        """Return moments that continue from a state; see :meth:`fastfid.Moments.from_state`."""
        return FeatureMoments.from_state(state, output=self.output)

    @property
    def is_of_statistics(self) -> bool:
        """True: the sample of the features for the standard error is with them."""
        return True

    def statistics(self, sample: Sample) -> Statistics:
        """Return the Gaussian of a set; ValueError with fewer than two images."""
        if isinstance(sample.seen, Statistics):
            return sample.seen
        statistics: Statistics = sample.seen.statistics(sample.meta, sample.name)
        return statistics

    def result(self, real: Sample, fake: Sample) -> FIDResult:
        """Return the distance."""
        a, b = self.statistics(real), self.statistics(fake)
        # Whether their provenances go together is known to who has asked.
        found = as_result(distance(a, b, tol=self.tol, force=True, needs_bias=self.needs_bias))
        if not self.needs_standard_error:
            return dataclasses.replace(found, no_standard_error="it was not asked for")
        return with_standard_error(found, a, b)


@dataclass(frozen=True)
class SpatialFID(FrechetInceptionDistance):
    """sFID: the Fréchet distance of a spatial feature map (Nash et al. 2021, as guided-diffusion's evaluator has it).

    The vector of an image is the first 7 channels of the branch of 1 x 1 of Mixed_6d, at 17 x 17 places: 2,023 numbers,
    by row, column, channel.
    """

    name: ClassVar[str] = "sfid"
    needs: ClassVar[frozenset[str]] = frozenset({SPATIAL})


def with_standard_error(found: FIDResult, real: Statistics, fake: Statistics) -> FIDResult:
    """Return the result with its standard error, or with the reason why there is none."""
    reason = why_none(real, fake)
    if reason is None:
        try:
            error = standard_error(real, fake)
        except NumericalError as failure:
            reason = str(failure)
        else:
            return dataclasses.replace(
                found,
                standard_error=error.value,
                relative_error_of_standard_error=error.relative_error,
                standard_error_of=error.of,
            )
    return dataclasses.replace(found, no_standard_error=reason)


def _as_side(side: Side, label: str, device: str) -> AnyStatistics:
    if isinstance(side, Statistics):
        return side
    if isinstance(side, DeviceMoments):
        if device == "cpu":
            raise ValueError(
                f"{label}: moments on cuda:{side.device} need device='cuda:{side.device}', got 'cpu'; or pass"
                " Statistics.from_moments(moments.to_host())"
            )
        return DeviceStatistics(side, name=label)
    if isinstance(side, tuple) and len(side) == 2:
        mu, sigma = side
        try:
            return Statistics(np.atleast_1d(mu), np.atleast_2d(sigma))  # a mask is kept, and refused there
        except (TypeError, ValueError) as error:
            raise type(error)(f"{label}: {error}") from None
    raise TypeError(f"{label}: expected Statistics, DeviceMoments or a tuple (mu, sigma), got {type(side).__name__}")


@overload
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = ...,
    tol: float | None = ...,
    device: str = ...,
    force: bool = ...,
    return_info: Literal[False] = ...,
) -> float: ...
@overload
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = ...,
    tol: float | None = ...,
    device: str = ...,
    force: bool = ...,
    return_info: Literal[True],
) -> DistanceRecord: ...
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = "auto",
    tol: float | None = None,
    device: str = "cpu",
    force: bool = False,
    return_info: bool = False,
) -> float | DistanceRecord:
    """Return the squared Fréchet distance of two Gaussians (Dowson & Landau 1982).

    Parameters
    ----------
    a, b : Statistics, DeviceMoments or (mu, sigma)
        mu (d,), sigma (d, d), both float. A :class:`FID`'s sides are its ``real`` and ``fake``. Moments on a CUDA
        device are for a distance that is taken there: they do not come to the host.
    method : {"auto", "eigen", "newton-schulz"}
        How the trace of the matrix square root is taken.
    tol : float, optional
        Tighten the numerical bounds of the trace to this width, relative to it.
    device : {"cpu", "cuda", "cuda:N"}
        Where the trace is taken; see :func:`trace_sqrt_product`. A CUDA device gives no bias.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    return_info : bool
        Return a record with the value, its numerical bounds and how it was found; see docs/json.md.

    Raises
    ------
    ValueError
        Shapes or provenance do not fit together.
    fastfid.NumericalError
        A covariance is not positive semi-definite.
    fastfid.BackendUnavailable
        There is no such device, or no cuBLAS or cuSOLVER for it.

    Examples
    --------
    >>> import numpy as np
    >>> frechet_distance((np.zeros(2048), np.eye(2048)), (np.ones(2048), np.eye(2048)))
    2048.0
    """
    left, right = _as_side(a, "a", device), _as_side(b, "b", device)
    result = distance(left, right, method=method, tol=tol, device=device, force=force, needs_bias=return_info)
    return distance_record(left, right, left.d, as_result(result)) if return_info else result.value
