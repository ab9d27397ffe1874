"""FID-infinity: the FID of infinitely many images, by the closed form of the bias or by a fit in 1 / N."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid.errors import NumericalError
from fastfid.extractor import FEATURES
from fastfid.metrics import second_order
from fastfid.metrics.base import Metric, Result, Sample
from fastfid.metrics.fid import FIDResult, FrechetInceptionDistance, as_result, distance
from fastfid.metrics.given import gaussian_of, rows_of, same_length, statistics_of
from fastfid.metrics.moments import FeatureMoments
from fastfid.metrics.standard_error import AGAIN, Parts, Variance, influence, standard_error_from, why_none
from fastfid.statistics import Statistics, check_compatible

__all__ = ["FIDInfinity", "FIDInfinityFit", "FIDInfinityResult", "fid_infinity"]

Sides = Literal["both", "generated"]
# The plug-in bias lacks this times d / n of the true one where all features vary alike, half of that where their
# variances decay as those of Inception features do (docs/numerics.md).
BIAS_LEFT = 0.5


@dataclass(frozen=True, repr=False)
class FIDInfinityResult(Result):
    """The FID less its sampling bias.

    Attributes
    ----------
    value : float
        ``fid - bias``. It may be negative near a distance of 0.
    standard_error : float or None
        Of the value: the bias varies with the samples too; see :func:`fastfid.metrics.fid_infinity`.
    fid : float
        The FID itself.
    bias : float
        By how much the FID is expected to exceed that of infinitely many images, for Gaussian features.
    bias_error : float
        How much of the bias is left in `value` at most: 0.5 d / n of the true one, d / n of each side. About half as
        much is left of Inception features. With few images it is far more than the standard error; `note` says so.
    sides : {"both", "generated"}
        Whose finite number of images the bias is of.
    """

    fid: float = math.nan
    bias: float = math.nan
    bias_error: float = math.nan
    sides: str = "both"


@dataclass(frozen=True, repr=False)
class FIDInfinityFit(Result):
    """The intercept of a line through FIDs of subsets.

    Attributes
    ----------
    value : float
        The intercept: the FID at 1 / N = 0.
    standard_error : float or None
        Of the intercept, if both sets were drawn again; see :func:`fastfid.metrics.fid_infinity`.
    fit_error : float
        The standard error of the intercept by least squares. It is no sampling error: the subsets share rows.
    fid : float
        The FID of all rows.
    slope : float
        Of the line: the FID of a subset of N rows is about ``value + slope / N``.
    sizes : tuple of int
        The numbers of rows N.
    fids : tuple of float
        The FIDs of the subsets.
    seed : int
        That of the subsets.
    """

    fit_error: float = math.nan
    fid: float = math.nan
    slope: float = math.nan
    sizes: tuple[int, ...] = ()
    fids: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class FIDInfinity(Metric):
    """The FID less the closed form of its sampling bias.

    Parameters
    ----------
    sides : {"both", "generated"}
        Whose bias is taken off; see :func:`fastfid.metrics.fid_infinity`.

    Raises
    ------
    ValueError
        `sides` has another value.
    """

    name: ClassVar[str] = "fid-infinity"
    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})

    sides: Sides = "both"

    def __post_init__(self) -> None:
        _check_sides(self.sides)

    @property
    def accumulates(self) -> tuple[str, ...]:
        """Moments of the features, as the FID."""
        return FrechetInceptionDistance().accumulates

    def accumulator(self, lengths: Mapping[str, int]) -> FeatureMoments:
        """Return empty moments of the features."""
        return FeatureMoments(lengths[FEATURES])

    def restored(self, state: Mapping[str, Any]) -> FeatureMoments:
        """Return moments that continue from a state; see :meth:`fastfid.Moments.from_state`."""
        return FeatureMoments.from_state(state)

    @property
    def is_of_statistics(self) -> bool:
        """True: mean, covariance and n are all that the bias needs."""
        return True

    def statistics(self, sample: Sample) -> Statistics:
        """Return the Gaussian of a set; ValueError with fewer than two images."""
        return FrechetInceptionDistance().statistics(sample)

    def result(self, real: Sample, fake: Sample) -> FIDInfinityResult:
        """Return the FID less its bias; ValueError if a side has no more images than features, or does not say n."""
        return _less_bias(self.statistics(real), self.statistics(fake), self.sides)


def _check_sides(sides: str) -> None:
    if sides not in ("both", "generated"):
        raise ValueError(f"sides: expected 'both' or 'generated'; got {sides!r}")


def _expect_many(side: Statistics) -> None:
    """Raise ValueError unless the bias that comes from the n of a side has its closed form."""
    if side.n is None:
        raise ValueError(f"{side.name}: its number of images is unknown, on which the bias depends; {AGAIN}")
    if side.n <= side.d:
        raise ValueError(
            f"{side.name}: FID-infinity needs more images than the {side.d} features, got {side.n}: add images, or take"
            " a layer with fewer features"
        )


def _less_bias(real: Statistics, fake: Statistics, sides: Sides) -> FIDInfinityResult:
    for side in (real, fake) if sides == "both" else (fake,):
        _expect_many(side)
    # With sides="generated", as if there were no end of real images.
    known = real if sides == "both" else dataclasses.replace(real, n=1 << 62, rows=None, reservoir=None)
    found = as_result(distance(known, fake, force=True, needs_bias=True))
    assert known.n is not None
    assert fake.n is not None
    of_means = [found.trace1 / known.n, found.trace2 / fake.n]
    # None for a covariance of zeros, which has no singular values: all of the bias is then that of the other's mean.
    bias = sum(of_means) if found.bias is None else found.bias
    of_root = (bias - sum(of_means)) / (1 / known.n + 1 / fake.n)
    left = 0.0
    for of_mean, n in zip(of_means, (known.n, fake.n), strict=True):
        lacking = BIAS_LEFT * fake.d / n  # of the true bias, of which there is the rest
        left += lacking / (1 - lacking) * (of_mean + of_root / n)
    shares = (1 / known.n if sides == "both" else 0.0, 1 / fake.n)
    return _result(_with_own_error(found, real, fake, shares, of_root), bias, left, sides)


def _with_own_error(
    found: FIDResult, real: Statistics, fake: Statistics, shares: tuple[float, float], of_root: float
) -> FIDResult:
    """Return the FID with the standard error of the FID less its bias.

    The bias is ``trace1 / n1 + trace2 / n2 + (1 / n1 + 1 / n2) G``, with the numbers `shares` for 1 / n and `of_root`
    for G. A row x of a side, less the mean, moves the trace of that side by ``|x|^2``, and the trace of the root by
    ``x^T A x / 2``, with A the optimal transport map to the other side. G moves as that trace does, in proportion: that
    is exact where all singular values are alike, and nearly so elsewhere, as G is homogeneous in them.
    """
    reason = why_none(real, fake)
    if reason is None:
        try:
            of = influence(real, fake)
            coefficient = of_root / found.trace_sqrt_product if found.trace_sqrt_product > 0 else 0.0
            per_root = sum(shares) * coefficient / 2
            of_a = _less_influence_of_bias(of.of_a, real, fake, shares[0], per_root)
            of_b = _less_influence_of_bias(of.of_b, fake, real, shares[1], per_root)
            error = standard_error_from(Parts(of_a, of_b, of.second_order), real, fake)
        except NumericalError as failure:
            reason = str(failure)
    if reason is not None:
        return dataclasses.replace(found, no_standard_error=reason)
    return dataclasses.replace(
        found,
        standard_error=error.value,
        relative_error_of_standard_error=error.relative_error,
        standard_error_of=error.of,
    )


def _less_influence_of_bias(
    values: NDArray[np.float64], side: Statistics, other: Statistics, per_trace: float, per_root: float
) -> NDArray[np.float64]:
    """Return the influence of rows on the FID less its bias, from that on the FID, up to a constant."""
    if not values.size or side.reservoir is None:
        return values
    rows = side.reservoir.rows - side.mu
    squares = np.einsum("ij,ij->i", rows, rows)
    of_mean = 2 * (rows @ (side.mu - other.mu))
    through_map = squares - (values - of_mean)  # x^T A x
    less: NDArray[np.float64] = values - per_trace * squares - per_root * through_map
    return less


def _result(found: FIDResult, bias: float, left: float, sides: Sides) -> FIDInfinityResult:
    notes = [found.remark] if found.remark else []
    if found.standard_error is not None and left > found.standard_error:
        notes.append(
            f"up to {left:.2g} of the bias is left in the value, more than its standard error; more images lessen it"
        )
    return FIDInfinityResult(
        found.value - bias,
        standard_error=found.standard_error,
        note="; ".join(notes),
        relative_error_of_standard_error=found.relative_error_of_standard_error,
        standard_error_of=found.standard_error_of,
        no_standard_error=found.no_standard_error,
        fid=found.value,
        bias=bias,
        bias_error=left,
        sides=sides,
    )


def _subsets(n: int, sizes: list[int], seed: int) -> list[NDArray[np.intp]]:
    """Return the numbers of the rows of each subset, as FID_IS_infinity draws them: it shuffles all rows every time."""
    rng = np.random.RandomState(seed)
    order = np.arange(n)
    subsets = []
    for size in sizes:
        rng.shuffle(order)
        subsets.append(order[:size].copy())
    return subsets


def _fit(real: Statistics, rows: NDArray[Any], smallest: int, points: int, seed: int) -> FIDInfinityFit:
    n = len(rows)
    sizes = [int(size) for size in np.linspace(smallest, n, points).astype(np.int64)]
    subsets = _subsets(n, sizes, seed)
    fids = []
    for subset in subsets:
        fake = gaussian_of(rows, "fake", subset)
        fids.append(distance(real, fake, force=True).value)
    # Least squares: with x = 1 / N the intercept is the sum of weights times FIDs.
    x = 1 / np.array(sizes)
    deviations = x - x.mean()
    square = float(deviations @ deviations)
    weights = 1 / points - deviations * (x.mean() / square)
    slope = float(deviations @ fids) / square
    value = float(weights @ fids)
    residuals = np.array(fids) - value - slope * x
    fit_error = math.hypot(*residuals) * math.sqrt(float(weights @ weights) / (points - 2))
    found = FIDInfinityFit(
        value, fit_error=fit_error, fid=fids[-1], slope=slope, sizes=tuple(sizes), fids=tuple(fids), seed=seed
    )
    return _with_standard_error(found, real, fake, weights, _shared(subsets, n))


def _shared(subsets: list[NDArray[np.intp]], n: int) -> NDArray[np.float64]:
    """Return the covariances of the means of the subsets, for rows of variance 1."""
    members = np.zeros((len(subsets), n), bool)
    for member, subset in zip(members, subsets, strict=True):
        member[subset] = True
    return np.array([[np.count_nonzero(a & b) / (a.sum() * b.sum()) for b in members] for a in members])


def _with_standard_error(
    found: FIDInfinityFit,
    real: Statistics,
    fake: Statistics,
    weights: NDArray[np.float64],
    shared: NDArray[np.float64],
) -> FIDInfinityFit:
    """Return the fit with its standard error; see the notes of :func:`fastfid.metrics.fid_infinity`.

    To first order the FID of a subset varies by the mean of the influence function over the subset; to second order by
    a quadratic form, whose covariances are the squares of those of the means. As in :func:`standard_error`, the
    estimate of the first order contains twice what the second order has near a distance of 0.
    """
    reason = why_none(real, fake)
    if reason is None:
        try:
            of = influence(real, fake)
        except NumericalError as failure:
            reason = str(failure)
    if reason is not None:
        return dataclasses.replace(found, no_standard_error=reason)
    assert fake.n is not None
    of_real = 1 / real.n if real.reservoir is not None and real.n is not None else 0.0
    of_fake = float(weights @ shared @ weights)
    first = Variance.of_mean(of.of_b, 1)
    first = Variance(first.value * of_fake, first.relative_error)
    if real.reservoir is not None and real.n is not None:
        first += Variance.of_mean(of.of_a, real.n)
    contained = 2 * of.second_order * (of_real + 1 / fake.n) * (of_real + of_fake)
    second = of.second_order * float(weights @ (of_real + shared) ** 2 @ weights)
    value = math.sqrt(second_order.variance(first.value - contained, second))
    if not math.isfinite(value):
        return dataclasses.replace(found, no_standard_error="the standard error exceeds the range of float64")
    return dataclasses.replace(
        found,
        standard_error=value,
        relative_error_of_standard_error=first.relative_error / 2,
        standard_error_of="both" if of_real else "generated",
    )


@overload
def fid_infinity(
    real: Any, fake: Any, *, method: Literal["bias"] = ..., sides: Sides | None = ...
) -> FIDInfinityResult: ...
@overload
def fid_infinity(
    real: Any,
    fake: Any,
    *,
    method: Literal["fit"],
    smallest: int | None = ...,
    points: int | None = ...,
    seed: int | None = ...,
) -> FIDInfinityFit: ...
def fid_infinity(
    real: Any,
    fake: Any,
    *,
    method: Literal["bias", "fit"] = "bias",
    sides: Sides | None = None,
    smallest: int | None = None,
    points: int | None = None,
    seed: int | None = None,
) -> FIDInfinityResult | FIDInfinityFit:
    """Return FID-infinity: an estimate of the FID of infinitely many images (Chong and Forsyth 2020).

    The FID of n images exceeds that of infinitely many, the more the fewer they are. With method "bias" the closed form
    of this bias for Gaussian features (docs/numerics.md) is taken off. It needs n > d, and 0.25 to 0.5 d / n of the
    bias is left. With method "fit" FIDs of random subsets of the generated rows are extrapolated, as in
    mchong6/FID_IS_infinity: ordinary least squares in 1 / N, whose intercept is the value.

    Parameters
    ----------
    real, fake : array_like, shape (m, d) and (n, d), or Statistics
        float16, float32, float64 or integers; more rows than features. "fit" needs the rows of `fake`.
    method : {"bias", "fit"}
    sides : {"both", "generated"}
        Of "bias": the bias that comes from the finite number of images of both sides (the default), or of the
        generated side alone. The latter is what "fit" estimates: real images count as the whole distribution.
    smallest : int
        Of "fit": rows of the smallest subset, more than d and fewer than n; default 5,000, as in FID_IS_infinity.
    points : int
        Of "fit": number of subsets, at least 3; default 15. Sizes are equally spaced from `smallest` to n.
    seed : int
        Of "fit": default 0. For each size all rows are shuffled again by NumPy's ``RandomState(seed).shuffle``, and the
        first N of them are the subset, without replacement: the draws of FID_IS_infinity after
        ``numpy.random.seed(seed)``.

    Raises
    ------
    TypeError
        An argument has another type; `fake` is Statistics, and the method is "fit".
    ValueError
        Shapes or provenance do not fit, a side has too few rows, statistics do not say their n, or an option has
        another value or is the other method's.
    fastfid.NumericalError
        A row has NaN or infinite values, or the features are too large.

    Notes
    -----
    `standard_error` is that of the value if both sets, or the generated one alone (`standard_error_of`), were drawn
    again with the same n. Method "bias": the influence function of the FID less that of its bias gives the variance.
    Method "fit": the influence function of the FID, and the rows that every two subsets share, give the variance of the
    intercept. In simulations both are within 15 % of the spread of the value, and up to 1.25 times as large near a
    distance of 0 (docs/numerics.md). The error of least squares (`fit_error`) is about half of it, as the subsets share
    rows. No standard error contains what is left of the bias, `bias_error`.

    Cost: "bias" as the FID, two eigenvalue problems, and one for the influence function. "fit" takes `points` FIDs, and
    their moments: 15 times about (5,000 + n) / 2 rows with 2 d^2 operations each.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.standard_normal((400, 16)), rng.standard_normal((300, 16)) + 0.2
    >>> found = fid_infinity(real, fake)  # 16 features that are 0.2 apart: 0.64
    >>> round(found.fid, 1), round(found.value, 1)
    (1.2, 0.7)
    >>> fid_infinity(real, fake, method="fit", smallest=100).slope > 0
    True
    """
    if method not in ("bias", "fit"):
        raise ValueError(f"method: expected 'bias' or 'fit'; got {method!r}")
    of_other = {"sides": sides} if method == "fit" else {"smallest": smallest, "points": points, "seed": seed}
    for name, value in of_other.items():
        if value is not None:
            raise ValueError(f"{name}: is of method {'bias' if method == 'fit' else 'fit'!r}; got {value!r}")
    real = statistics_of(real, "real")
    if method == "bias":
        chosen: Sides = "both" if sides is None else sides
        _check_sides(chosen)
        fake = statistics_of(fake, "fake")
        check_compatible(real, fake, hint="")
        return _less_bias(real, fake, chosen)
    if isinstance(fake, Statistics):
        raise TypeError("fake: method 'fit' draws subsets of rows, got Statistics; pass the rows, or method='bias'")
    smallest = check_count("smallest", 5000 if smallest is None else smallest, 1)
    points = check_count("points", 15 if points is None else points, 3)
    seed = check_count("seed", 0 if seed is None else seed, 0)
    rows = rows_of(fake, "fake")
    n, d = rows.shape
    same_length(real.mu[None], rows, ("real", "fake"))
    if smallest >= n:
        raise ValueError(f"smallest: expected fewer rows than the {n} of fake, got {smallest}")
    if smallest <= d:
        raise ValueError(f"smallest: expected more rows than the {d} features, got {smallest}; fewer are on no line")
    return _fit(real, rows, smallest, points, seed)
