"""The Fréchet distance of two Gaussians, and what is known of it."""

import re
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import _core
from fastfid._console import warn
from fastfid._core import DeviceMoments, FrechetResult
from fastfid._version import __version__
from fastfid.cache import package_versions
from fastfid.errors import NumericalError
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics, check_compatible

__all__ = ["distance", "distance_record", "frechet_distance"]

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

    def side(s: AnyStatistics) -> tuple[NDArray[np.float64] | DeviceMoments, NDArray[Any] | None, NDArray[Any] | None]:
        if isinstance(s, DeviceStatistics):
            return s.moments, None, None
        return (s.mu, s.sigma, None) if s.rows is None else (s.mu, None, s.rows)

    try:
        # The bias takes singular values, which the fastest route does not need.
        n1, n2 = (a.n, b.n) if needs_bias else (None, None)
        result = _core.frechet_distance(*side(a), *side(b), n1=n1, n2=n2, method=method, tol=tol, device=device)
    except ValueError as error:  # NumericalError is one
        if a.name == b.name == Statistics.name or not re.search(r"(sigma|rows|mu|side )[12]\b", str(error)):
            raise
        # The core calls the sides sigma1 and sigma2; the user knows them by their names.
        kind = NumericalError if isinstance(error, NumericalError) else ValueError
        raise kind(f"{error} (sigma1: {a.name}; sigma2: {b.name})") from None
    if result.trace.float32_rounding > 0:
        warn(
            f"{a.name}, {b.name}: {result.trace.note}. The distance is {result.value:g}, its numerical bounds are "
            f"{result.lower:g} and {result.upper:g}."
        )
    return result


def distance_record(a: AnyStatistics, b: AnyStatistics, result: FrechetResult) -> dict[str, Any]:
    """Return what is known of a distance, as plain JSON types."""
    return {
        "fid": result.value,
        "numerical_lower": result.lower,
        "numerical_upper": result.upper,
        "mean_term": result.mean_term,
        "trace1": result.trace1,
        "trace2": result.trace2,
        "trace_sqrt_product": result.trace.value,
        "method": result.trace.method,
        "note": result.trace.note,
        "factor_residual": result.trace.factor_residual,
        "bias": result.bias,
        "n": {"real": a.n, "fake": b.n},
        "dims": a.d,
        "real": a.name,
        "fake": b.name,
        **{key: {"real": a.meta.get(key), "fake": b.meta.get(key)} for key in ("protocol", "extractor", "precision")},
        "versions": {"fastfid": __version__, **package_versions()},
    }


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
) -> dict[str, Any]: ...
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = "auto",
    tol: float | None = None,
    device: str = "cpu",
    force: bool = False,
    return_info: bool = False,
) -> float | dict[str, Any]:
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
        Return a dict with the value, its numerical bounds and how it was found.

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
    return distance_record(left, right, result) if return_info else result.value
