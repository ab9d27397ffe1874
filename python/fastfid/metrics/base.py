"""The interfaces of a metric: it accumulates the outputs of a network for each set and compares two sets."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import WeightsError
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor, outputs_of
from fastfid.statistics import Statistics

__all__ = [
    "Accumulator",
    "IndexedAccumulator",
    "Metric",
    "Result",
    "Sample",
    "check_gives",
    "check_outputs",
    "check_takes",
    "outputs_needed",
    "part_for",
    "statistics_output",
]


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


@runtime_checkable
class IndexedAccumulator(Accumulator, Protocol):
    """An accumulator whose bits would depend on how the images of a source are divided among updates and parts.

    Accumulators without these methods get ``update`` and ``merge``, in the source's order.
    """

    def update_at(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Add images as :meth:`update` does. `indices` (m,), ascending, are those of the images in their source."""

    def join(self, other: Any, index: int, level: int) -> None:
        """Add what `other` has seen, the images of node `index` of a level of the tree (:mod:`fastfid.segments`)."""

    def state_below(self, key: int) -> dict[str, Any]:
        """Return the state of a part of a source, of whose sample rows with keys from `key` on are no part."""


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
    classifier : callable or None
        Returns the matrix of the network's classifier, float32 (classes, d), for metrics with `needs_classifier`.
    """

    name: str
    meta: Mapping[str, Any]
    seen: Any
    classifier: Callable[[], NDArray[np.float32]] | None = None

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
    details : dict
        What else the metric found, by name. A subclass may have attributes for it instead.
    """

    value: float
    numerical_lower: float | None = None
    numerical_upper: float | None = None
    standard_error: float | None = None
    note: str = ""
    relative_error_of_standard_error: float | None = None
    standard_error_of: str | None = None
    no_standard_error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        """Return one line: the value, and its standard error where it is known."""
        error = f", standard_error={self.standard_error:.3g}" if self.standard_error is not None else ""
        return f"{type(self).__name__}(value={self.value:.6g}{error})"

    @property
    def remark(self) -> str:
        """The note, where a reader of the value needs it."""
        return self.note

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types; those of `details` stand beside the others."""
        found = dataclasses.asdict(self)
        found |= found.pop("details")
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in found.items()}


class Metric(ABC):
    """Base class of metrics of two sets of images. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        Name of the metric on the command line and in records.
    needs : frozenset of str
        Names of the extractor's outputs that the metric uses.
    needs_classifier : bool
        Whether the metric uses the network's classifier.
    is_of_generated : bool
        Whether the metric is one of the generated set alone, so that the real set may be any statistics.
    convention : str or None
        The tool whose convention the metric follows. None: the metric has one convention, or it is fastfid's own.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    needs_classifier: ClassVar[bool] = False
    is_of_generated: ClassVar[bool] = False
    convention: str | None = None

    @property
    def key(self) -> str:
        """The name with the convention, as ``kid:torch-fidelity``, which tells the metrics of one run apart."""
        return f"{self.name}:{self.convention}" if self.convention else self.name

    @property
    def accumulates(self) -> tuple[str, ...]:
        """What the accumulator holds. Metrics of one run that return equal tuples share one accumulator."""
        return (self.key,)

    @abstractmethod
    def accumulator(self, lengths: Mapping[str, int]) -> Accumulator:
        """Return an empty accumulator. `lengths` are the lengths of the extractor's outputs by name."""

    @abstractmethod
    def restored(self, state: Mapping[str, Any]) -> Accumulator:
        """Return an accumulator that continues from the result of the accumulator's ``state()``.

        Raises
        ------
        TypeError, ValueError
            `state` is not a valid state. The message names the invalid entry.
        """

    @abstractmethod
    def result(self, real: Sample, fake: Sample) -> Result | Mapping[str, Result]:
        """Compare two sets. A metric of several values returns their results by name.

        Raises
        ------
        ValueError
            A set is too small, or the two sets cannot be compared. The message names the set.
        """

    @property
    def is_of_statistics(self) -> bool:
        """Whether statistics of its one output are all that the metric needs of a set; they may be cached."""
        return False

    def statistics(self, sample: Sample) -> Statistics | None:
        """Return the statistics of the output of a set, if the metric has accumulated them."""
        return None


def check_gives(extractor: FeatureExtractor, metric: Metric) -> None:
    """Raise ValueError or WeightsError if the metric needs what the extractor does not give."""
    check_outputs(outputs_of(extractor), extractor.dims, metric)
    if metric.needs_classifier:
        try:
            extractor.classifier()
        except (ValueError, WeightsError) as error:
            raise type(error)(f"{metric.key}: {error.args[0]}", *error.args[1:]) from None


def outputs_needed(metrics: Iterable[Metric]) -> frozenset[str]:
    """Return the outputs that an extractor is asked for: the features, which it always gives, and the metrics' own."""
    return frozenset({FEATURES}).union(*(metric.needs for metric in metrics))


def check_outputs(outputs: Collection[str], dims: int, metric: Metric) -> None:
    """Raise ValueError if the metric needs an output that is not among these of an extractor."""
    if missing := set(metric.needs) - set(outputs):
        raise ValueError(
            f"{metric.key}: needs the output {', '.join(sorted(missing))}; the extractor gives"
            f" {', '.join(sorted(outputs))} at {dims} dims"
        )


def statistics_output(metric: Metric) -> str | None:
    """Return the output whose statistics are all that the metric needs of a set; None if it needs more."""
    if not metric.is_of_statistics or len(metric.needs) != 1:
        return None
    (output,) = metric.needs
    return output if output in (FEATURES, SPATIAL) else None


def part_for(metric: Metric, statistics: Statistics) -> Statistics | None:
    """Return the part of the statistics from which the metric is computed; None if it needs more than they have."""
    output = statistics_output(metric)
    if output is None:
        return None
    return statistics if output == FEATURES else statistics.spatial


def check_takes(metric: Metric, statistics: Statistics) -> None:
    """Raise ValueError if the metric needs more of a set than `statistics`, which are given in place of its images."""
    if part_for(metric, statistics) is not None:
        return
    if statistics_output(metric) == SPATIAL:
        raise ValueError(
            f"{metric.key}: {statistics.name} holds no statistics of the spatial features (mu_s, sigma_s); make it"
            " again with fastfid stats IMAGES -o FILE.npz --spatial, or compute_statistics(images, spatial=True)"
        )
    whose = "the generated side" if metric.is_of_generated else "both sides"
    raise ValueError(f"{metric.key}: needs the images of {whose}; {statistics.name} holds statistics only")
