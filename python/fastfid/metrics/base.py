"""The contracts of a metric: it accumulates outputs of a network, set by set, and compares two sets."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from fastfid.extractor import FEATURES
from fastfid.statistics import Statistics

__all__ = ["Accumulator", "Metric", "Result", "Sample", "beside_statistics", "takes_statistics"]


class Accumulator(Protocol):
    """What a metric keeps of one set of images, in one pass over them."""

    @property
    def n(self) -> int:
        """Number of images."""

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add images: outputs of the extractor by name, float32 (m, length), as NumPy or ``_core.CudaArray`` arrays.

        The arrays are the pipeline's and are overwritten afterwards.
        """

    def merge(self, other: Self) -> None:
        """Add what `other` has seen, another part of the set; ValueError if the two do not belong together."""

    def reset(self) -> None:
        """Forget all images."""

    def state(self) -> dict[str, Any]:
        """Return all that was accumulated, as integers and arrays, for :meth:`Metric.restored`."""


@dataclass(frozen=True)
class Sample:
    """One of the two sets that a metric compares.

    Attributes
    ----------
    name : str
        What messages call the set: a path, or what its source calls itself.
    meta : dict
        The provenance of its features.
    seen : Accumulator or Statistics
        What the metric has accumulated, or the statistics that were given instead of images.
    """

    name: str
    meta: Mapping[str, Any]
    seen: Any

    @property
    def n(self) -> int | None:
        """Number of images; None where statistics do not say."""
        n: int | None = self.seen.n
        return n


@dataclass(frozen=True)
class Result:
    """A metric's value for two sets, and how far it can be trusted.

    Attributes
    ----------
    value : float
    numerical_lower, numerical_upper : float or None
        Bounds of what rounding can do to `value`; None where the metric has none. They say nothing of other samples.
    standard_error : float or None
        Of `value`, if both sets were drawn again with the same n; None where it is unknown or was not asked for.
    note : str
        What there is to know about the value; mostly empty.
    """

    value: float
    numerical_lower: float | None = None
    numerical_upper: float | None = None
    standard_error: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return {
            key: float(value) if isinstance(value, np.floating) else value
            for key, value in dataclasses.asdict(self).items()
        }


class Metric(ABC):
    """A number for two sets of images. A subclass is a frozen dataclass whose fields are the metric's options.

    Attributes
    ----------
    name : str
        The word of the command line, and the key in records.
    needs : frozenset of str
        The outputs of the extractor that it takes.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    @abstractmethod
    def accumulator(self, lengths: Mapping[str, int]) -> Accumulator:
        """Return an empty accumulator for outputs of these lengths, which are the extractor's."""

    @abstractmethod
    def restored(self, state: Mapping[str, Any]) -> Accumulator:
        """Return an accumulator that continues from a :meth:`Accumulator.state`.

        Raises
        ------
        TypeError, ValueError
            It is no such state. The message names the entry.
        """

    @abstractmethod
    def result(self, real: Sample, fake: Sample) -> Result:
        """Compare two sets.

        Raises
        ------
        ValueError
            A set is too small, or the two do not fit together. The message names it.
        """

    @property
    def is_of_statistics(self) -> bool:
        """Whether :class:`Statistics` of the features hold all that the metric needs of a set: they may be cached."""
        return False

    def without_images(self) -> "Metric":
        """Return the metric for a comparison in which one set is given as statistics, if it :attr:`is_of_statistics`.

        What it takes of images beyond their statistics is then of no use.
        """
        return self

    def statistics(self, sample: Sample) -> Statistics | None:
        """Return the statistics of the features of a set, if the metric has accumulated them."""
        return None


def beside_statistics(metric: Metric, statistics: Statistics) -> Metric:
    """Return the metric for a comparison with a set that is given as statistics.

    Raises
    ------
    ValueError
        The metric needs the images of both sets.
    """
    alone = metric.without_images()
    if not takes_statistics(alone):
        raise ValueError(f"{metric.name}: needs the images of both sides; {statistics.name} holds statistics only")
    return alone


def takes_statistics(metric: Metric) -> bool:
    """Whether statistics, which are those of the features, serve the metric."""
    return metric.is_of_statistics and set(metric.needs) == {FEATURES}
