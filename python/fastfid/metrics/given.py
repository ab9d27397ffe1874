"""Features that a caller hands over, checked, and what the functions of them return."""

from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import expect_unmasked
from fastfid._console import warn
from fastfid._core import Moments
from fastfid.errors import BackendUnavailable, NumericalError, SuspiciousInputWarning
from fastfid.reservoir import RowReservoir
from fastfid.statistics import Statistics

__all__ = [
    "Score",
    "blocks",
    "gaussian_of",
    "rows_of",
    "same_length",
    "statistics_of",
    "torch_for",
    "unit_moments",
    "unit_rows",
]

BLOCK = 1024  # rows that are converted or multiplied at a time; a square of so many values takes 8 MiB of float64

# How far the squared length of a unit vector in float32 may be from 1: the norm is the root of a float32 sum of up to
# some 4,000 squares, whose roundings of 6e-8 have either sign, and each feature is rounded once more: 5e-7 in all. In
# float16 it is 1e-4: such rows are to be divided by their norms again.
UNIT_LENGTH = 1e-5

# A rounding to float32 that moves rows by more of their spread than this is said. It moves those of a network by 1e-7.
MOVED = 1e-3


@dataclass(frozen=True, repr=False)
class Score:
    """The value of a metric, with what else its function found.

    Attributes
    ----------
    value : float
    """

    value: float

    def __repr__(self) -> str:
        """Return one line, without what is None."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in found if v is not None)})"

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def rows_of(values: Any, name: str, least: int = 2, of: str = "features", *, in_float32: bool = False) -> NDArray[Any]:
    """Return rows of features as a C-contiguous array (n, d), float32 or float64.

    float16 becomes float32, integers become float64, which have all their values up to 2^53. With `in_float32`,
    everything is rounded to float32; a SuspiciousInputWarning says where that moves rows by more than 0.1 % of their
    spread.

    Parameters
    ----------
    values : array_like
        An array, or a tensor on the host.
    name : str
        What messages call it.
    least : int
        Number of rows that the metric needs.
    of : str
        What is in a row, for messages.

    Raises
    ------
    TypeError
        It is no array of real numbers, or it is masked.
    ValueError
        It has another number of dimensions, no columns, or too few rows.
    fastfid.NumericalError
        A row has NaN or infinite values, with `in_float32` after rounding.
    """
    expect_unmasked(values, name)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array (n, d) of {of} on the host; {error}") from None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected an array (n, d) of {of}, float16 to float64 or integers; got {array.dtype}")
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"{name}: expected {of} of shape (n, d), got {array.shape}")
    if len(array) < least:
        raise ValueError(f"{name}: expected at least {least} row{'s'[: least > 1]} of {of}, got {len(array)}")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    elif array.dtype.itemsize < 8:
        array = array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # said below
        dtype = np.dtype(np.float32) if in_float32 else array.dtype.newbyteorder("=")
        wide, array = array, np.require(array, dtype, ["C", "A"])  # the core needs aligned rows
    for block in blocks(len(array)):
        finite = np.isfinite(array[block]).all(axis=1)
        if not finite.all():
            where = f"{name}: row {block.start + int(np.argmin(finite))}"
            raise NumericalError(f"{where} has NaN or infinite values{' in float32' if in_float32 else ''}")
    if array.dtype != wide.dtype.newbyteorder("="):
        _say_what_rounding_moves(wide, array, name)
    return array


def _say_what_rounding_moves(wide: NDArray[Any], rounded: NDArray[Any], name: str) -> None:
    """Warn if rounding moves rows by a share of their spread that matters to their distances."""
    largest = max(float(np.abs(wide[block]).max()) for block in blocks(len(wide))) or 1.0
    moved = squares = 0.0
    sums = np.zeros(wide.shape[1])
    for block in blocks(len(wide)):  # divided by the largest, no square overflows or vanishes
        moved += float((((wide[block] - rounded[block]) / largest) ** 2).sum())
        from_first = (wide[block] - wide[0]) / largest  # exactly 0 where all rows are equal
        squares += float((from_first**2).sum())
        sums += from_first.sum(axis=0)
    spread = squares - float((sums**2).sum()) / len(wide)
    if 0 < MOVED**2 * spread < moved:
        warn(
            f"{name}: rows are compared in float32, and rounding to it moves them by {(moved / spread) ** 0.5:.1g} of "
            "their spread: subtract the mean of both sets, or scale both",
            SuspiciousInputWarning,
        )


def same_length(x: NDArray[Any], y: NDArray[Any], names: tuple[str, str] = ("x", "y")) -> None:
    """Raise ValueError unless the rows of both have the same length."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]}, {names[1]}: expected rows of the same length, got shapes {x.shape} and {y.shape}"
        )


def blocks(n: int, size: int = BLOCK) -> list[slice]:
    """Return slices of `size` rows that cover `n`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def unit_rows(rows: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Return the rows as float64, each divided by its norm.

    Raises
    ------
    ValueError
        A row is 0.
    """
    unit = rows.astype(np.float64)
    largest = np.abs(unit).max(axis=1, keepdims=True)  # squares neither overflow nor vanish
    if not largest.all():
        raise ValueError(f"{name}: row {int(np.argmin(largest))} is 0, which has no direction")
    unit /= largest
    unit /= np.sqrt(np.einsum("ij,ij->i", unit, unit))[:, None]
    return unit


def gaussian_of(rows: NDArray[Any], name: str, order: NDArray[np.intp] | None = None) -> Statistics:
    """Return the Gaussian of rows as :func:`rows_of` returns them, or of those with the numbers `order`.

    Raises
    ------
    ValueError
        There are fewer than two rows.
    fastfid.NumericalError
        The features are too large for a covariance.
    """
    n, d = len(rows) if order is None else len(order), rows.shape[1]
    moments, reservoir = Moments(d), RowReservoir(d)
    for block in blocks(n):  # an interrupt is heard between two
        part = rows[block] if order is None else rows[order[block]]
        moments.update(part)
        reservoir.update(part)
    try:
        return Statistics.from_moments(moments, {}, name, reservoir)
    except NumericalError as error:
        raise NumericalError(f"{name}: {error}") from None


def statistics_of(values: Any, name: str) -> Statistics:
    """Return :class:`Statistics` unchanged, and those of rows; see :func:`rows_of` for the errors."""
    return values if isinstance(values, Statistics) else gaussian_of(rows_of(values, name), name)


def unit_moments(statistics: Statistics, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (d,) and the mean of x x^T (d, d) of unit vectors x, from their statistics.

    That the vectors have length 1 shows in their mean square, the trace of the second moment; and in each row of the
    sample, where the statistics have one.

    Raises
    ------
    ValueError
        The statistics are of other vectors, or do not say their n.
    """
    n = statistics.n
    if n is None:
        raise ValueError(
            f"{name} ({statistics.name}): its number of rows is unknown, on which the second moment depends; give it:"
            " Statistics(..., n=...)"
        )
    mean = statistics.mu
    second = statistics.sigma * ((n - 1) / n)
    second += np.outer(mean, mean)
    squares = {"a mean squared length": float(np.trace(second))}
    if statistics.reservoir is not None:
        rows = statistics.reservoir.rows.astype(np.float64)
        of_rows = np.einsum("ij,ij->i", rows, rows)
        squares["a row of squared length"] = float(of_rows[np.argmax(np.abs(of_rows - 1))])
    for what, square in squares.items():
        if abs(square - 1) > UNIT_LENGTH:
            raise ValueError(
                f"{name} ({statistics.name}): expected statistics of unit vectors, got {what} {square:.6g}; divide each"
                " row by its norm before Statistics.from_features, or pass the rows"
            )
    return mean, second


def torch_for(what: str) -> ModuleType:
    """Return torch. Raises BackendUnavailable, which says what needs it, if it is not installed."""
    try:
        import torch
    except ImportError:
        raise BackendUnavailable(f"{what} needs torch, whose generator it draws from: pip install torch") from None
    return torch
