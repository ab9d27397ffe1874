"""Which of several distances to one reference is smaller, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

from fastfid import _core
from fastfid.errors import NumericalError
from fastfid.metrics.fid import distance
from fastfid.metrics.standard_error import AGAIN, Variance, influence, standard_error_from, why_none
from fastfid.statistics import Statistics, gaussian

__all__ = ["Candidate", "Difference", "Measured", "compare_measured", "measure", "student_quantile"]

# Two equal distances are told apart with this probability, by one comparison.
FALSE_ALARM = 0.01
# With the number of images that a verdict names, a difference as large as the measured one is found so often.
POWER = 0.9
# Fewer rows say too little of their own variance.
LEAST_IMAGES = 20
# The plug-in bias is too small, by less than this times d / n of itself (docs/numerics.md).
BIAS_ERROR = 0.4


@dataclass(frozen=True)
class Candidate:
    """One of the sets that are compared.

    Attributes
    ----------
    name : str
    value : float
        What is compared: the FID; where the candidates differ in n, less the bias that comes from their own n.
    fid : float
    standard_error : float or None
        Of the FID, as ``fastfid`` prints it; None where there is none.
    n : int or None
        Number of images.
    """

    name: str
    value: float
    fid: float
    standard_error: float | None
    n: int | None


@dataclass(frozen=True)
class Difference:
    """How two candidates compare.

    Attributes
    ----------
    a, b : str
        Their names; `a` is the better one.
    difference : float
        The FID of `b` less that of `a`; where their n differ and both have a bias, of the FIDs less the bias that comes
        from their own n.
    standard_error : float or None
        Of the difference; None where there is none.
    verdict : str
        A sentence.
    """

    a: str
    b: str
    difference: float
    standard_error: float | None
    verdict: str


@dataclass(frozen=True)
class Measured:
    """A candidate and what its differences to others need.

    Attributes
    ----------
    name, fid, standard_error, n, d
        See :class:`Candidate`; d is the number of features.
    bias : float or None
        The part of the expected excess of the FID that comes from the candidate's own n; None for n <= d.
    own : Variance or None
        Of the FID, from the candidate's own sampling.
    shared : array or None, shape (k,)
        The influence function at the sample of the reference; None where the reference counts as fixed.
    second_order : float
        See ``_core.Influence``.
    why_none : str or None
        Why there is no variance.
    """

    name: str
    fid: float
    standard_error: float | None
    n: int | None
    d: int
    bias: float | None
    own: Variance | None
    shared: Any
    second_order: float
    why_none: str | None


def measure(reference: Statistics, candidate: Statistics) -> Measured:
    """Return the distance of a candidate to the reference with all that comparisons need."""
    reason = why_none(reference, candidate)
    # The bias that comes from the n of the reference is the same for all candidates: as if there were no end of it.
    endless = _core.Gaussian(reference.mu, reference.sigma, n=1 << 62)
    bias = None
    if candidate.n is not None and candidate.n > candidate.d:
        bias = _core.frechet_distance(endless, gaussian(candidate, candidate.name)).bias
    fid = distance(reference, candidate, force=True).value
    if candidate.n is None:
        reason = f"{candidate.name}: its number of images is unknown; {AGAIN}"
    if reason is not None:
        return Measured(candidate.name, fid, None, candidate.n, candidate.d, bias, None, None, 0.0, reason)
    assert candidate.n is not None
    try:
        found = influence(reference, candidate)
        error = standard_error_from(found, reference, candidate).value
    except NumericalError as failure:
        return Measured(candidate.name, fid, None, candidate.n, candidate.d, bias, None, None, 0.0, str(failure))
    return Measured(
        candidate.name,
        fid,
        error,
        candidate.n,
        candidate.d,
        bias,
        Variance.of_mean(found.of_b, candidate.n),
        found.of_a if reference.reservoir is not None else None,
        found.second_order,
        None,
    )


def compare_measured(
    measured: Sequence[Measured], n_reference: int | None
) -> tuple[tuple[Candidate, ...], tuple[Difference, ...]]:
    """Return the candidates by rising value, and the difference of every two of them.

    The noise of the reference is the same in all distances: of a difference only the part counts by which its influence
    on the two differs.
    """
    is_corrected = len({one.n for one in measured}) > 1 and all(one.bias is not None for one in measured)
    by_value = sorted(measured, key=lambda one: _value(one, is_corrected))
    candidates = tuple(
        Candidate(one.name, _value(one, is_corrected), one.fid, one.standard_error, one.n) for one in by_value
    )
    differences = tuple(_difference(a, b, n_reference) for a, b in combinations(by_value, 2))
    return candidates, differences


def _value(one: Measured, is_corrected: bool) -> float:
    return one.fid - (one.bias or 0.0) if is_corrected else one.fid


def _difference(a: Measured, b: Measured, n_reference: int | None) -> Difference:
    if a.n is None or b.n is None:
        return Difference(a.name, b.name, b.fid - a.fid, None, f"no verdict: {a.why_none or b.why_none}")
    if min(a.n, b.n) < LEAST_IMAGES:
        few = a if a.n <= b.n else b
        reason = f"{few.name}: {few.n} images are too few for one; {LEAST_IMAGES} are the least"
        return Difference(a.name, b.name, b.fid - a.fid, None, f"no verdict: {reason}")
    correct = a.n != b.n
    if correct and (a.bias is None or b.bias is None):
        small = " and ".join(f"{one.name}: n = {one.n}" for one in (a, b) if one.bias is None)
        reason = f"the numbers of images differ, and the bias cannot be taken off ({small}, d = {a.d})"
        return Difference(a.name, b.name, b.fid - a.fid, None, f"no verdict: {reason}")
    a_value, b_value = (_value(one, correct) for one in (a, b))
    if a_value > b_value:
        a, b, a_value, b_value = b, a, b_value, a_value
    difference = b_value - a_value
    if a.own is None or b.own is None:
        return Difference(a.name, b.name, difference, None, f"no verdict: {a.why_none or b.why_none}")
    shared = Variance()
    if a.shared is not None and b.shared is not None and n_reference is not None:
        shared = Variance.of_mean(b.shared - a.shared, n_reference)
    systematic = max(_bias_error(a), _bias_error(b)) if correct else 0.0
    sampling = a.own + b.own + shared
    second = _second_order(a, b, n_reference if a.shared is not None else None)
    error = math.sqrt(max(sampling.value - second, second) + systematic**2)
    note = " (numbers of images differ: compared without the bias)" if correct else ""
    needed = student_quantile(1 - FALSE_ALARM / 2, sampling.degrees_of_freedom)
    if difference > needed * error:
        by = f"{difference / error:.1f} standard errors" if error > 0 else f"{difference:.4g}, and there is no noise"
        verdict = f"{a.name} is better by {by}"
    elif correct:
        verdict = "cannot be told apart with these n; equal numbers of images would be compared more sharply"
    else:
        verdict = f"cannot be told apart with these n{_images_needed(a, b, difference, shared.value, needed)}"
    return Difference(a.name, b.name, difference, error, verdict + note)


def _second_order(a: Measured, b: Measured, n_reference: int | None) -> float:
    """Return the variance of the second-order part of the difference, which the first-order estimate contains twice.

    That part is quadratic in the noise of candidate and reference; the square of the reference's noise cancels.
    """
    assert a.n is not None
    assert b.n is not None
    of_reference = 2 / n_reference if n_reference is not None else 0.0
    weights = 1 / a.n**2 + 1 / b.n**2 + of_reference * (1 / a.n + 1 / b.n)
    return weights * (a.second_order + b.second_order) / 2


def _bias_error(one: Measured) -> float:
    assert one.bias is not None
    assert one.n is not None
    return BIAS_ERROR * one.d / one.n * one.bias


def _images_needed(a: Measured, b: Measured, difference: float, fixed: float, needed: float) -> str:
    """Return how many images of each candidate would tell, if the difference is what it seems to be.

    `fixed` is the part of the variance that more images of the candidates do not lessen.
    """
    assert a.own is not None
    assert b.own is not None
    assert a.n is not None
    assert b.n is not None
    allowed = (difference / (needed + NormalDist().inv_cdf(POWER))) ** 2 - fixed
    if allowed <= 0:
        return "" if difference == 0 or fixed == 0 else "; more images of the reference would be needed"
    images = (a.own.value * a.n + b.own.value * b.n) / allowed
    if images > 1e9:
        return ""
    return f"; about {_two_digits(images):,} images each would tell"


def _two_digits(x: float) -> int:
    unit: int = 10 ** max(0, math.floor(math.log10(max(x, 1))) - 1)
    return math.ceil(x / unit) * unit


def student_quantile(p: float, freedom: float) -> float:
    """Return the quantile of Student's t distribution for 0.5 < p < 1, to 1e-7 relative; `freedom` may be infinite.

    By bisection of the tail probability, half the regularised incomplete beta function of freedom / (freedom + t^2).
    """
    if math.isinf(freedom):
        return NormalDist().inv_cdf(p)
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > 1 - p:
        low, high = high, 2 * high
    while high - low > 1e-11 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - p else (low, middle)
    return high


def _student_tail(t: float, freedom: float) -> float:
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b) by the continued fraction of the Digital Library of Mathematical Functions, 8.17.22."""
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where it converges slowly
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    fraction = 0.0  # from its end
    for m in range(200, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = even / (1 + odd / (1 + fraction))
    first = -(a + b) * x / (a + 1)
    return math.exp(logarithm) / a / (1 + first / (1 + fraction))
