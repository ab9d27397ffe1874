"""Metrics of features by balls around their nearest neighbours."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._checks import check_count, expect_unmasked
from fastfid.errors import NumericalError
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.rows import RowMetric

__all__ = ["PRDC_PROTOCOLS", "PRDCResult", "PrecisionRecall", "prdc"]

# The tools' k, and whether a ball leaves out what is exactly as far as its radius.
PRDC_PROTOCOLS = {"prdc": (5, True), "adm": (3, False), "torch-fidelity": (3, False)}

# Rows that one call of the core compares with all rows of the other set: one panel of csrc/core/neighbours.cpp. Python
# handles Ctrl-C between calls.
_BLOCK = 4096


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

    def __repr__(self) -> str:
        """Return one line with the four values and k."""
        values = ", ".join(
            f"{name}={getattr(self, name):.6g}" for name in ("precision", "recall", "density", "coverage")
        )
        sign = "<" if self.strict else "<="
        return f"PRDCResult({values}, k={self.k}, {sign}, real={self.n_real}, generated={self.n_generated})"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)


def prdc(
    real: NDArray[Any],
    fake: NDArray[Any],
    *,
    k: int = 5,
    strict: bool = True,
    protocol: Literal["prdc", "adm", "torch-fidelity"] | None = None,
) -> PRDCResult:
    """Return precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of features.

    Every row has a ball, whose radius is the distance to the k-th nearest other row of its set. Duplicates count as
    other rows. All comparisons are those of squared distances in float64, summed feature by feature: float32 products
    with proven bounds decide nearly all, and float64 the rest. The result does not depend on threads or on the order of
    the rows. The order of the arguments matters: precision is of `fake`, recall of `real`.

    If all rows are equal, every radius is 0: all four values are 0 with `strict`; without it, precision, recall and
    coverage are 1, and density is ``n_real / k``.

    The call takes ``(m + n)^2 d`` float32 multiplications and additions. While the radii of a set are computed, Ctrl-C
    waits: 10 seconds for 10,000 rows of 2048 on a slow core.

    Parameters
    ----------
    real, fake : ndarray, shape (m, d) and (n, d)
        float32 or float16; float64 is rounded to float32 first. At least k + 1 rows each.
    k : int
        At least 1.
    strict : bool
        Whether a ball leaves out rows that are exactly as far as its radius.
    protocol : {"prdc", "adm", "torch-fidelity"}, optional
        The tool whose `k` and `strict` are used: 5 and True for prdc, 3 and False for the other two.

    Raises
    ------
    TypeError
        A set is no array of floats with two axes, or `k` is no integer.
    ValueError
        A set has too few rows, the numbers of features differ, or `k` or `protocol` is none of the above.
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
    x, y = _rows(real, "real"), _rows(fake, "fake")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"fake: expected {x.shape[1]} features, as real has; got {y.shape[1]}")
    for name, rows in (("real", x), ("fake", y)):
        if len(rows) < k + 1:
            raise ValueError(f"{name}: k = {k} needs at least {k + 1} rows, got {len(rows)}")
    radii_x, radii_y = _core.kth_squared_distances(x, k), _core.kth_squared_distances(y, k)
    of_y, within_x, around_x = np.empty(len(y), np.int64), np.zeros(len(x), np.int64), np.zeros(len(x), np.int64)
    undecided = 0
    for start in range(0, len(y), _BLOCK):
        block = slice(start, start + _BLOCK)
        of_y[block], within, around, _, more = _core.count_in_balls(x, radii_x, y[block], radii_y[block], strict)
        within_x += within
        around_x += around
        undecided += more
    return PRDCResult(
        precision=_share(of_y),
        recall=_share(around_x),
        density=int(of_y.sum()) / (k * len(y)),
        coverage=_share(within_x),
        k=k,
        strict=strict,
        n_real=len(x),
        n_generated=len(y),
        undecided=undecided,
    )


def _share(counts: NDArray[np.int64]) -> float:
    return int(np.count_nonzero(counts)) / len(counts)


def _options(k: Any, strict: Any, protocol: Any) -> tuple[int, bool]:
    if not isinstance(strict, bool | np.bool_):
        raise TypeError(f"strict: expected True or False, got {strict!r}")
    given = check_count("k", k, 1), bool(strict)
    if protocol is None:
        return given
    if protocol not in PRDC_PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PRDC_PROTOCOLS)}; got {protocol!r}")
    preset = PRDC_PROTOCOLS[protocol]
    if given not in ((5, True), preset):
        raise ValueError(f"protocol: {protocol} has k = {preset[0]} and strict = {preset[1]}; leave both out")
    return preset


def _rows(features: Any, name: str) -> NDArray[np.float32]:
    """Return features as C-contiguous float32 rows, all finite."""
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind != "f":
        got = type(features).__name__
        if isinstance(features, np.ndarray):
            got = f"{features.dtype} of shape {features.shape}"
        raise TypeError(f"{name}: expected an array of floats of shape (n, d), got {got}")
    expect_unmasked(features, name)
    if features.shape[1] < 1:
        raise ValueError(f"{name}: expected at least 1 feature, got shape {features.shape}")
    with np.errstate(over="ignore"):  # reported below
        rows = np.require(features, np.float32, ["C", "A"])
    for start in range(0, len(rows), _BLOCK):
        bad = ~np.isfinite(rows[start : start + _BLOCK]).all(axis=1)
        if bad.any():
            raise NumericalError(
                f"{name}: row {start + int(np.argmax(bad))} has values that are NaN or infinite in float32"
            )
    return rows


@dataclass(frozen=True)
class PrecisionRecall(RowMetric):
    """Precision, recall, density and coverage; see :func:`prdc`.

    Parameters
    ----------
    k : int
    strict : bool
    convention : str, optional
        A protocol of :func:`prdc`, whose `k` and `strict` are used.
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
        return {
            name: Result(getattr(found, name), details=details)
            for name in ("precision", "recall", "density", "coverage")
        }
