"""The interfaces of a metric: it accumulates the outputs of a network for each set and compares two sets."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from fastfid.extractor import FEATURES
from fastfid.statistics import Statistics

__all__ = ["Accumulator", "Metric", "Result", "Sample", "check_takes", "takes_statistics"]


class Accumulator(Protocol):
    """The data that a metric accumulates for one set of images, in one pass over the images."""

    @property
    def n(self) -> int:
        """Number of images."""

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add images: outputs of the extractor by name, float32 (m, length), as NumPy or ``_core.CudaArray`` arrays.

        The pipeline owns the arrays and overwrites them after the call.
        """

    def merge(self, other: Self) -> None:
        """Add the images of `other`, another part of the set; ValueError if the two cannot be combined."""

    def reset(self) -> None:
        """Remove all images."""

    def state(self) -> dict[str, Any]:
        """Return the accumulated state as integers and arrays, for :meth:`Metric.restored`."""


@dataclass(frozen=True)
class Sample:
    """One of the two sets that a metric compares.

    Attributes
    ----------
    name : str
        Name of the set in messages: a path, or the name of its source.
    meta : dict
        Provenance of the features.
    seen : Accumulator or Statistics
        The accumulator of the metric, or the statistics that were given instead of images.
    """

    name: str
    meta: Mapping[str, Any]
    seen: Any

    @property
    def n(self) -> int | None:
        """Number of images. None if the statistics do not state it."""
        n: int | None = self.seen.n
        return n


@dataclass(frozen=True)
class Result:
    """A metric's value for two sets, with its numerical bounds and standard error.

    A subclass is a dataclass with ``repr=False``, which keeps the short repr of this one.

    Attributes
    ----------
    value : float
    numerical_lower, numerical_upper : float or None
        Bounds of `value` under rounding errors; None if the metric has no bounds. They do not include sampling error.
    standard_error : float or None
        Standard error of `value` if both sets were drawn again with the same n. None if it is unknown or was not
        requested.
    note : str
        What there is to know about the value; mostly empty.
    relative_error_of_standard_error : float or None
        How far the standard error itself can be trusted: 0.02 is 2 %.
    standard_error_of : {"both", "generated"} or None
        Whose sampling the standard error covers. "generated": the real set came as statistics without a sample of the
        features, and counts as fixed.
    no_standard_error : str or None
        Why there is no standard error.
    """

    value: float
    numerical_lower: float | None = None
    numerical_upper: float | None = None
    standard_error: float | None = None
    note: str = ""
    relative_error_of_standard_error: float | None = None
    standard_error_of: str | None = None
    no_standard_error: str | None = None

    def __repr__(self) -> str:
        """Return one line: the value, and its standard error where it is known."""
        error = f", standard_error={self.standard_error:.3g}" if self.standard_error is not None else ""
        return f"{type(self).__name__}(value={self.value:.6g}{error})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return {
            key: float(value) if isinstance(value, np.floating) else value
            for key, value in dataclasses.asdict(self).items()
        }


class Metric(ABC):
    """Base class of metrics of two sets of images. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        Name of the metric on the command line and in records.
    needs : frozenset of str
        Names of the extractor's outputs that the metric uses.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    @abstractmethod
    def accumulator(self, lengths: Mapping[str, int]) -> Accumulator:
        """Return an empty accumulator. `lengths` are the lengths of the extractor's outputs by name."""

    @abstractmethod
    def restored(self, state: Mapping[str, Any]) -> Accumulator:
        """Return an accumulator that continues from the result of :meth:`Accumulator.state`.

        Raises
        ------
        TypeError, ValueError
            `state` is not a valid state. The message names the invalid entry.
        """

    @abstractmethod
    def result(self, real: Sample, fake: Sample) -> Result:
        """Compare two sets.

        Raises
        ------
        ValueError
            A set is too small, or the two sets cannot be compared. The message names the set.
        """

    @property
    def is_of_statistics(self) -> bool:
        """Whether :class:`Statistics` of the features are all that the metric needs of a set; they may be cached."""
        return False

    def statistics(self, sample: Sample) -> Statistics | None:
        """Return the statistics of the features of a set, if the metric has accumulated them."""
        return None


def check_takes(metric: Metric, statistics: Statistics) -> None:
    """Raise ValueError if the metric needs the images of both sets, of which one is given as statistics."""
    if not takes_statistics(metric):
        raise ValueError(f"{metric.name}: needs the images of both sides; {statistics.name} holds statistics only")


def takes_statistics(metric: Metric) -> bool:
    """Return whether the metric can be computed from statistics of the features."""
    return metric.is_of_statistics and set(metric.needs) == {FEATURES}
