"""Metrics of features by balls around their nearest neighbours."""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._checks import check_count
from fastfid.metrics import subsamples
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import blocks, rows_of, same_length
from fastfid.metrics.rows import RowMetric
from fastfid.metrics.subsamples import SubsetCounts, Subsets, least_rows, neighbours_needed

__all__ = ["PRDC_PROTOCOLS", "PRDCResult", "PrecisionRecall", "prdc", "search"]

# The tools' k, and whether a ball leaves out what is exactly as far as its radius.
PRDC_PROTOCOLS = {"prdc": (5, True), "adm": (3, False), "torch-fidelity": (3, False)}

# One call of the core compares rows with one panel of csrc/core/distances.cpp, and multiplies about as many pairs of
# numbers as a step of its search: a second or two of one core. Python handles Ctrl-C between calls.
_PANEL = 4096
_PAIRS = 2**36

_NAMES = ("precision", "recall", "density", "coverage")
_SEEDS = (0, 1)  # of the subsets of the real and of the generated set


@dataclass(frozen=True)
class PRDCResult:
    """Precision, recall, density and coverage, and what determined them.

    Attributes
    ----------
    precision : float
        Share of the generated rows that are in at least one ball of a real row.
    recall : float
        Share of the real rows that are in at least one ball of a generated row.
    density : float
        Mean number of real balls that hold a generated row, divided by k. May be greater than 1.
    coverage : float
        Share of the real rows whose ball holds at least one generated row.
    k : int
        The radius of a ball is the distance to the k-th nearest other row of its set.
    strict : bool
        True if a ball holds only rows that are nearer than its radius, False if it also holds those that are as near.
    n_real, n_generated : int
        Numbers of rows. Precision and recall depend strongly on them.
    undecided : int
        Number of pairs of a real and a generated row that were compared in float64, since float32 did not decide.
    precision_standard_error, recall_standard_error, density_standard_error, coverage_standard_error : float or None
        By how much a value differs between samples of these sizes, of both sets. None: `no_standard_error` says why.
    no_standard_error : str
        Why a standard error is None; empty if none is.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfid.metrics import prdc
    >>> real = np.arange(8, dtype=np.float32)[:, None]
    >>> prdc(real, real + 3, k=2).to_dict()["recall"]
    0.75
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    strict: bool
    n_real: int
    n_generated: int
    undecided: int
    precision_standard_error: float | None = None
    recall_standard_error: float | None = None
    density_standard_error: float | None = None
    coverage_standard_error: float | None = None
    no_standard_error: str = ""

    def __repr__(self) -> str:
        """Return one line with the four values and k."""
        values = ", ".join(f"{name}={getattr(self, name):.6g}" for name in _NAMES)
        sign = "<" if self.strict else "<="
        return f"PRDCResult({values}, k={self.k}, {sign}, real={self.n_real}, generated={self.n_generated})"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)

    def interval(
        self, name: Literal["precision", "recall", "density", "coverage"], level: float = 0.95
    ) -> tuple[float, float] | None:
        """Return an interval that holds the mean of a value over samples of these sizes; None without standard error.

        The interval of a share is Wilson's, for as many independent rows as would have its standard error: near 0 and
        1, value +- 1.96 standard errors holds the mean too seldom. The interval of the density is symmetric.

        Parameters
        ----------
        name : {"precision", "recall", "density", "coverage"}
        level : float
            Probability, between 0 and 1.

        Examples
        --------
        >>> result = PRDCResult(0.98, 0.9, 1.0, 0.95, 5, True, 100, 100, 0, precision_standard_error=0.014)
        >>> low, high = result.interval("precision")
        >>> print(f"{low:.3f} {high:.3f}")
        0.937 0.994
        """
        if name not in _NAMES:
            raise ValueError(f"name: expected one of {', '.join(_NAMES)}; got {name!r}")
        if not 0 < level < 1:
            raise ValueError(f"level: expected a probability between 0 and 1, got {level!r}")
        value, error = getattr(self, name), getattr(self, f"{name}_standard_error")
        if error is None:
            return None
        z = NormalDist().inv_cdf(0.5 + level / 2)
        if name == "density":
            return value - z * error, value + z * error
        n = self.n_generated if name == "precision" else self.n_real
        square = z**2 / (subsamples.spread_of_share(value, n) / error**2)  # over the number of independent rows
        half = math.sqrt(square * value * (1 - value) + square**2 / 4)
        return (value + square / 2 - half) / (1 + square), (value + square / 2 + half) / (1 + square)


def prdc(
    real: NDArray[Any],
    fake: NDArray[Any],
    *,
    k: int = 5,
    strict: bool = True,
    protocol: Literal["prdc", "adm", "torch-fidelity"] | None = None,
    standard_errors: bool = True,
) -> PRDCResult:
    """Return precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of features.

    Every row has a ball, whose radius is the distance to the k-th nearest other row of its set. Duplicates count as
    other rows. All comparisons are those of squared distances in float64, summed feature by feature: float32 products
    with proven bounds decide nearly all, and float64 the rest. The values do not depend on threads or on the order of
    the rows. The order of the arguments matters: precision is of `fake`, recall of `real`.

    If all rows are equal, every radius is 0: all four values are 0 with `strict`; without it, precision, recall and
    coverage are 1, and density is ``n_real / k``.

    The standard errors are those of both samples: a real and a generated set drawn again. They come from 64 random cuts
    of both sets into halves, and from these sets and halves without a random sixteenth of their rows, always the same.
    Rows near the edge of a ball of such a part are in it as float32 decides. The standard errors depend on the order of
    the rows, since the cuts do. They suppose that the rows of a set are independent draws, and the sets of each other.
    In simulations (docs/metrics.md) they are within 15 % of the spread, but up to 1.3 times the spread where the sets
    have modes of about k rows each, and up to 1.2 times where fewer than 3 rows decide.

    The call takes ``(m + n)^2 d`` float32 multiplications and additions. It hears Ctrl-C every second or two.

    Parameters
    ----------
    real, fake : array_like, shape (m, d) and (n, d)
        float32 or float16; float64 and integers are rounded to float32 first, with a SuspiciousInputWarning where that
        moves rows by more than 0.1 % of their spread. At least k + 1 rows each.
    k : int
        At least 1.
    strict : bool
        Whether a ball leaves out rows that are exactly as far as its radius.
    protocol : {"prdc", "adm", "torch-fidelity"}, optional
        The tool whose `k` and `strict` are used: 5 and True for prdc, 3 and False for the other two.
    standard_errors : bool
        Whether the result has standard errors; each set needs at least ``8 k`` rows for them. At 2048 features they
        cost less than a fifth of the time, and up to nine tenths of it where most balls hold most rows of the other
        set, as with a collapsed generator.

    Raises
    ------
    TypeError
        A set is no array of real numbers, or an option has another type.
    ValueError
        A set has another number of dimensions or too few rows, the numbers of features differ, or `k` or `protocol` is
        none of the above.
    fastfid.NumericalError
        A row has values that are NaN or infinite in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfid.metrics import prdc
    >>> rng = np.random.default_rng(0)
    >>> real = rng.standard_normal((500, 16), dtype=np.float32)
    >>> prdc(real, real[:250] * np.float32(0.5))
    PRDCResult(precision=..., recall=..., density=..., coverage=..., k=5, <, real=500, generated=250)
    """
    k, strict = _options(k, strict, protocol)
    if not isinstance(standard_errors, bool | np.bool_):
        raise TypeError(f"standard_errors: expected True or False, got {standard_errors!r}")
    x, y = rows_of(real, "real", 1, in_float32=True), rows_of(fake, "fake", 1, in_float32=True)
    same_length(x, y, ("real", "fake"))
    for name, rows in (("real", x), ("fake", y)):
        if len(rows) < k + 1:
            raise ValueError(f"{name}: k = {k} needs at least {k + 1} rows, got {len(rows)}")
    x, y = _without_underflow(x, y)
    missing = _no_standard_errors(standard_errors, k, len(x), len(y))
    (radii_x, subsets_x), (radii_y, subsets_y) = (
        _balls(rows, k, None if missing else seed) for rows, seed in zip((x, y), _SEEDS, strict=True)
    )
    counts = _Counts(len(x), len(y))
    for of_y in blocks(len(y), _PANEL):
        for of_x in blocks(len(x), max(_PAIRS // (_PANEL * x.shape[1]), 1024)):
            balls = x[of_x], radii_x[of_x], y[of_y], radii_y[of_y]
            if subsets_x is None or subsets_y is None:
                counts.add(of_x, of_y, _core.count_in_balls(*balls, strict))
            else:
                found, of_subsets = _core.count_in_balls(*balls, strict, subsets_x.rows(of_x), subsets_y.rows(of_y))
                counts.add(of_x, of_y, found)
                counts.subsets.add(of_x, of_y, of_subsets)
    values = counts.values(k)
    errors: dict[str, float | None] = {}
    if subsets_x is not None and subsets_y is not None:
        errors = subsamples.standard_errors(values, subsets_x, subsets_y, counts.subsets, k)
        constant = [name for name in _NAMES if errors[name] is None]
        if constant:
            missing = f"{', '.join(constant)}: equal in all halves of the sets"
    shown: dict[str, Any] = {f"{name}_standard_error": errors.get(name) for name in _NAMES}
    return PRDCResult(
        **values,
        k=k,
        strict=strict,
        n_real=len(x),
        n_generated=len(y),
        undecided=counts.undecided,
        **shown,
        no_standard_error=missing,
    )


def _without_underflow(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Return both sets, times a power of two if the float32 products of small features would vanish.

    Without products, float64 would decide all, and balls of parts, which have no other distances, would hold nothing.
    """
    largest = max(float(edge) for rows in (x, y) for edge in (rows.max(), -rows.min()))
    if not 0 < largest < 2.0**-40:
        return x, y
    exponent = -math.frexp(largest)[1]
    return np.ldexp(x, exponent), np.ldexp(y, exponent)


def search(x: NDArray[np.float32], others: NDArray[np.float32] | None, k: int, rough: int = 0) -> _core.NeighbourSearch:
    """Return a finished search for the `k` nearest rows of each row of `x` among `others`, or in its own set.

    Between its steps, a second or two each, Python handles Ctrl-C.
    """
    found = _core.NeighbourSearch(x, others, k, rough)
    while found.step():
        pass
    return found


def _no_standard_errors(wanted: bool, k: int, m: int, n: int) -> str:
    """Return why there are none, empty if there are."""
    if not wanted:
        return "not asked for"
    if min(m, n) < least_rows(k):
        return f"k = {k} needs at least {least_rows(k)} rows in each set, got {m} and {n}"
    return ""


def _balls(rows: NDArray[np.float32], k: int, seed: int | None) -> tuple[NDArray[np.float64], Subsets | None]:
    """Return the squared radii of the balls around rows, and with a seed the balls of random subsets."""
    if seed is None:
        return search(rows, None, k).kth_squared_distances(), None
    found = search(rows, None, k, neighbours_needed(k, len(rows)))
    return found.kth_squared_distances(), Subsets.of(*found.rough(), k, seed)


class _Counts:
    """What the balls of both sets hold, gathered over blocks."""

    def __init__(self, m: int, n: int) -> None:
        self.balls_of_real = np.zeros(n, np.int64)  # that hold a generated row
        self.rows_of_fake = np.zeros(m, np.int64)  # in the ball of a real row
        self.balls_of_fake = np.zeros(m, np.int64)  # that hold a real row
        self.undecided = 0
        self.subsets = SubsetCounts(m, n)

    def add(self, of_real: slice, of_fake: slice, found: Any) -> None:
        """Add what ``_core.count_in_balls`` found in a block."""
        self.balls_of_real[of_fake] += found[0]
        self.rows_of_fake[of_real] += found[1]
        self.balls_of_fake[of_real] += found[2]
        self.undecided += found[4]

    def values(self, k: int) -> dict[str, float]:
        return {
            "precision": _share(self.balls_of_real),
            "recall": _share(self.balls_of_fake),
            "density": int(self.balls_of_real.sum()) / (k * len(self.balls_of_real)),
            "coverage": _share(self.rows_of_fake),
        }


def _share(counts: NDArray[np.int64]) -> float:
    return int(np.count_nonzero(counts)) / len(counts)


def _options(k: Any, strict: Any, protocol: Any) -> tuple[int, bool]:
    if not isinstance(strict, bool | np.bool_):
        raise TypeError(f"strict: expected True or False, got {strict!r}")
    given = check_count("k", k, 1), bool(strict)
    if protocol is None:
        return given
    if protocol not in list(PRDC_PROTOCOLS):  # a list, as it may be unhashable
        raise ValueError(f"protocol: expected one of {', '.join(PRDC_PROTOCOLS)}; got {protocol!r}")
    preset = PRDC_PROTOCOLS[protocol]
    if given not in ((5, True), preset):
        raise ValueError(f"protocol: {protocol} has k = {preset[0]} and strict = {preset[1]}; leave both out")
    return preset


@dataclass(frozen=True)
class PrecisionRecall(RowMetric):
    """Precision, recall, density and coverage; see :func:`fastfid.metrics.prdc`.

    Parameters
    ----------
    k : int
    strict : bool
    convention : str, optional
        A protocol of :func:`fastfid.metrics.prdc`, whose `k` and `strict` are used.
    """

    name: ClassVar[str] = "prdc"

    k: int = 5
    strict: bool = True
    convention: Literal["prdc", "adm", "torch-fidelity"] | None = None

    def __post_init__(self) -> None:
        _options(self.k, self.strict, self.convention)

    def result(self, real: Sample, fake: Sample) -> dict[str, Result]:
        """Return the four values. Raises ValueError if a set has fewer than k + 1 images."""
        x, y = self.rows_of(real, fake)
        k, _ = _options(self.k, self.strict, self.convention)
        for side, rows in ((real, x), (fake, y)):
            if len(rows) < k + 1:
                raise ValueError(f"{side.name}: {self.key} with k = {k} needs at least {k + 1} images, got {len(rows)}")
        found = prdc(x, y, k=self.k, strict=self.strict, protocol=self.convention)
        details = {"k": found.k, "strict": found.strict, "undecided": found.undecided}
        return {name: self._result(found, name, details) for name in _NAMES}

    def _result(self, found: PRDCResult, name: str, details: dict[str, Any]) -> Result:
        error = getattr(found, f"{name}_standard_error")
        if error is None:
            return Result(getattr(found, name), no_standard_error=found.no_standard_error, details=details)
        return Result(getattr(found, name), standard_error=error, standard_error_of="both", details=details)
