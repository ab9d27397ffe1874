"""Whole feature rows: their accumulator, and the base class of metrics that compare individual images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import expect_unmasked
from fastfid.errors import NumericalError
from fastfid.extractor import FEATURES
from fastfid.metrics.base import Metric, Result, Sample

__all__ = ["FeatureRows", "KeptRows", "RowMetric", "with_rows"]


class FeatureRows:
    """All rows of one output of the extractor, float32, in the order in which they were added.

    The rows take 4 n d bytes, and twice as much while :meth:`rows` concatenates them.

    Parameters
    ----------
    d : int
        Number of features in a row.
    output : str
        Name of the extractor's output.
    """

    def __init__(self, d: int, *, output: str = FEATURES):
        self.d = d
        self.output = output
        self._parts: list[NDArray[np.float32]] = []
        self._n = 0

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._n

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add copies of the rows of one output: (m, d), float32, on the host or a ``_core.CudaArray``.

        Raises
        ------
        ValueError
            The rows have another length.
        TypeError
            The rows are not float32.
        fastfid.NumericalError
            A row has NaN or infinite values. No row has been added.
        """
        rows = outputs[self.output]
        self._add(rows.copy() if isinstance(rows, np.ndarray) else rows.numpy())

    def _add(self, rows: NDArray[np.float32]) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.d:
            raise ValueError(f"rows: expected shape (n, {self.d}), got {rows.shape}")
        if rows.dtype != np.float32:
            raise TypeError(f"rows: expected float32, got {rows.dtype}; the extractor's forward returns them")
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise NumericalError(f"rows: row {int(np.argmax(bad)) + self._n} has NaN or infinite values")
        self._parts.append(rows)
        self._n += len(rows)

    def rows(self) -> NDArray[np.float32]:
        """Return all rows as one read-only, C-contiguous array (n, d)."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.empty((0, self.d), np.float32), *self._parts])]
        self._parts[0].flags.writeable = False
        return self._parts[0]

    def merge(self, other: Self) -> None:
        """Append the rows of `other`. Raises ValueError if they have another length."""
        self._add(other.rows().copy())

    def reset(self) -> None:
        """Remove all rows."""
        self._parts = []
        self._n = 0

    def state(self) -> dict[str, Any]:
        """Return ``d`` and a copy of the ``rows``."""
        return {"d": self.d, "rows": self.rows().copy()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, output: str = FEATURES) -> Self:
        """Return an accumulator that continues from a state.

        Raises
        ------
        TypeError, ValueError
            An entry is missing or invalid.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, got {type(state).__name__}")
        missing = {"d", "rows"} - set(state)
        if missing:
            raise ValueError(f"state: the keys {', '.join(sorted(missing))} are missing")
        rows = state["rows"]
        if not isinstance(rows, np.ndarray):
            raise TypeError(f"state['rows']: expected a NumPy array, got {type(rows).__name__}")
        expect_unmasked(rows, "state['rows']")
        d = state["d"]
        if not isinstance(d, int | np.integer) or isinstance(d, bool) or d < 1:
            raise ValueError(f"state['d']: expected a positive integer, got {d!r}")
        self = cls(int(d), output=output)
        self._add(np.array(rows, order="C"))
        return self


@dataclass(frozen=True)
class KeptRows(Metric):
    """Stands for no value. It makes an accumulator of all rows of one output, which metrics of whole rows share."""

    name: ClassVar[str] = "rows"
    needs: ClassVar[frozenset[str]] = frozenset()  # the metrics for which the rows are kept need the output

    output: str = FEATURES

    @property
    def accumulates(self) -> tuple[str, ...]:
        """Rows of the output."""
        return ("rows", self.output)

    def accumulator(self, lengths: Mapping[str, int]) -> FeatureRows:
        """Return an empty accumulator of the rows."""
        return FeatureRows(lengths[self.output], output=self.output)

    def restored(self, state: Mapping[str, Any]) -> FeatureRows:
        """Return rows that continue from a state."""
        return FeatureRows.from_state(state, output=self.output)

    def result(self, real: Sample, fake: Sample) -> Result:
        """Raise TypeError, as there is nothing to compute."""
        raise TypeError("rows: is no metric")


def with_rows(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics, and what keeps the rows of every output that they need."""
    outputs = sorted(frozenset().union(*(metric.needs for metric in metrics.values())))
    return {**metrics, **{f"rows/{output}": KeptRows(output) for output in outputs}}


class RowMetric(Metric):
    """Base class of metrics of the features of all images. Those of one run share their rows.

    Attributes
    ----------
    least : int
        Number of images that a set must have.
    """

    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})
    least: ClassVar[int] = 2

    @property
    def accumulates(self) -> tuple[str, ...]:
        """Rows of the features."""
        return ("rows", FEATURES)

    def accumulator(self, lengths: Mapping[str, int]) -> FeatureRows:
        """Return an empty accumulator of whole rows."""
        return FeatureRows(lengths[FEATURES])

    def restored(self, state: Mapping[str, Any]) -> FeatureRows:
        """Return rows that continue from a state."""
        return FeatureRows.from_state(state)

    def rows_of(self, *sides: Sample) -> list[NDArray[np.float32]]:
        """Return the rows of each set. Raises ValueError if a set has fewer than `least`."""
        for side in sides:
            if side.seen.n < self.least:
                raise ValueError(
                    f"{side.name}: the metric {self.key} needs at least {self.least} images, got {side.seen.n}"
                )
        return [side.seen.rows() for side in sides]
