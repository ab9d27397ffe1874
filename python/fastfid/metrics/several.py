"""Several metrics of the same two sets: their accumulators, their results, and those that cannot be computed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import BackendUnavailable, NumericalError, WeightsError
from fastfid.extractor import FEATURES
from fastfid.metrics.base import Accumulator, IndexedAccumulator, Metric, Result, Sample

__all__ = ["Accumulators", "Missing", "NamedResults", "SampledSet", "by_name", "name_of", "result_of", "results_of"]


def name_of(accumulates: tuple[str, ...]) -> str:
    """Return what an accumulator is called in a state, by what it accumulates.

    >>> name_of(("rows", "features"))
    'rows/features'
    """
    return "/".join(accumulates)


class Accumulators(Mapping[tuple[str, ...], Accumulator]):
    """The accumulators of several metrics for one set, by what they accumulate: metrics of the same share one.

    Parameters
    ----------
    metrics : dict of str to Metric
        By key.
    lengths : dict of str to int, optional
        Lengths of the extractor's outputs by name. Default: those of the first update, before which there are no
        accumulators.
    """

    def __init__(self, metrics: Mapping[str, Metric], lengths: Mapping[str, int] | None = None):
        self._metrics = metrics
        self._by_what: dict[tuple[str, ...], Accumulator] = {}
        if lengths is not None:
            self.make(lengths)

    def make(self, lengths: Mapping[str, int]) -> None:
        """Make the accumulators that are not there yet, empty."""
        for metric in self._metrics.values():
            if metric.accumulates not in self._by_what:
                self._by_what[metric.accumulates] = metric.accumulator(lengths)

    def __getitem__(self, accumulates: tuple[str, ...]) -> Accumulator:
        return self._by_what[accumulates]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self._by_what)

    def __len__(self) -> int:
        return len(self._by_what)

    @property
    def n(self) -> int:
        """Number of images that every accumulator has."""
        return min((one.n for one in self._by_what.values()), default=0)

    @property
    def d(self) -> int | None:
        """Number of features in a row; None before the first update."""
        found = (one for one in self._by_what.values() if getattr(one, "output", None) == FEATURES)
        return next((getattr(one, "d", None) for one in found), None)

    def update(self, outputs: Mapping[str, Any], indices: NDArray[np.int64] | None = None) -> None:
        """Add images; see :meth:`Accumulator.update`. `indices` (m,) are those of the images in their source.

        Raises
        ------
        fastfid.NumericalError
            Features are not finite. The message names a metric and the images.
        """
        if not self._by_what:
            self.make({name: rows.shape[1] for name, rows in outputs.items()})
        for what, one in self._by_what.items():
            first = one.n if indices is None else indices[0]
            try:
                if indices is not None and isinstance(one, IndexedAccumulator):
                    one.update_at(outputs, indices)
                else:
                    one.update(outputs)
            except NumericalError as error:
                # The accumulator knows the row, but not the image.
                where = f"{self._asked_by(what)}: images from number {first} on, counted from 0"
                raise NumericalError(f"{where}: {error}") from None

    def _asked_by(self, what: tuple[str, ...]) -> str:
        return next((key for key, metric in self._metrics.items() if metric.accumulates == what), name_of(what))

    def check_whole(self, name: str) -> None:
        """Raise ValueError if an update was interrupted, so that some accumulators have more images than others."""
        if len({one.n for one in self._by_what.values()}) > 1:
            found = ", ".join(f"{one.n} for {self._asked_by(what)}" for what, one in self._by_what.items())
            raise ValueError(
                f"{name}: an update was interrupted, and the metrics have seen different images ({found}):"
                " reset() this side, or load a state from before"
            )

    def merge(self, other: Self) -> None:
        """Add the images of `other`, of the same metrics. An accumulator that is not here yet is taken over."""
        for what, one in other.items():
            if what in self._by_what:
                self._by_what[what].merge(one)
            else:
                self._by_what[what] = one

    def join(self, other: Self, index: int, level: int) -> None:
        """Add the images of `other`, node `index` of a level of the tree of one source (:mod:`fastfid.segments`).

        Nodes come in the source's order.
        """
        for what, one in other.items():
            here = self._by_what[what]
            if isinstance(here, IndexedAccumulator):
                here.join(one, index, level)
            else:
                here.merge(one)

    def reset(self) -> None:
        """Remove all images."""
        for one in self._by_what.values():
            one.reset()

    def state(self) -> dict[str, Any]:
        """Return the state of every accumulator by its name; nothing before the first update."""
        return {name_of(what): one.state() for what, one in self._by_what.items()}

    def state_below(self, key: int) -> dict[str, Any]:
        """Return the state of a part of a source; see :meth:`IndexedAccumulator.state_below`."""
        return {
            name_of(what): one.state_below(key) if isinstance(one, IndexedAccumulator) else one.state()
            for what, one in self._by_what.items()
        }

    @classmethod
    def restored(cls, metrics: Mapping[str, Metric], state: Mapping[str, Any]) -> Self:
        """Return accumulators that continue from a state. It may hold more than the metrics need.

        Raises
        ------
        TypeError, ValueError
            `state` is not a valid state, or has not what a metric needs. The message names the entry.
        """
        self = cls(metrics)
        for key, metric in metrics.items() if state else ():
            name = name_of(metric.accumulates)
            if name not in state:
                raise ValueError(f"state: the key {name!r} is missing, which {key} needs")
            if not isinstance(state[name], Mapping):
                raise TypeError(f"state[{name!r}]: expected a mapping, got {type(state[name]).__name__}")
            if metric.accumulates not in self._by_what:
                try:
                    self._by_what[metric.accumulates] = metric.restored(state[name])
                except (TypeError, ValueError) as error:  # NumericalError too
                    raise type(error)(f"{name}: {error}") from None
        return self


class Missing(dict[str, str]):
    """The metrics of a run that cannot be computed, with the reasons.

    Parameters
    ----------
    lenient : bool
        Whether such metrics are left out. Else the reason is raised as the error that it is.
    essential : str, optional
        A metric whose reason is raised all the same.
    may_be_all : bool
        Whether the reason of the last one is not raised either, as others may have what this run has not.
    """

    def __init__(self, *, lenient: bool, essential: str | None = None, may_be_all: bool = False):
        super().__init__()
        self.lenient = lenient
        self._essential = essential
        self._may_be_all = may_be_all

    def check(self, asked: dict[str, Metric], step: Callable[[Metric], object]) -> None:
        """Take a step for every metric. Metrics for which it raises an error are removed from `asked`."""
        for key, metric in list(asked.items()):
            try:
                step(metric)
            except (ValueError, NumericalError, WeightsError, BackendUnavailable) as error:
                is_last = len(asked) == 1 and not self._may_be_all
                if not self.lenient or is_last or key == self._essential:
                    raise
                self[key] = str(error.args[0]).removeprefix(f"{key}: ")
                del asked[key]


class NamedResults(Mapping[str, Result]):
    """Results by name. `missing` has the metrics that could not be computed, with the reasons."""

    results: Mapping[str, Result]
    missing: Mapping[str, str]

    def __getitem__(self, name: str) -> Result:
        if name in self.missing:
            raise KeyError(f"{name} could not be computed: {self.missing[name]}")
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


class SampledSet(Protocol):
    """A set of images, or its statistics."""

    def sample(self, metric: Metric) -> Sample:
        """Return what a metric compares."""


def by_name(metric: Metric, found: Result | Mapping[str, Result]) -> dict[str, Result]:
    """Return what a metric found by the names under which an evaluation has it."""
    if isinstance(found, Result):
        return {metric.key: found}
    suffix = metric.key.removeprefix(metric.name)  # the convention
    return {f"{name}{suffix}": result for name, result in found.items()}


def results_of(asked: dict[str, Metric], missing: Missing, real: SampledSet, fake: SampledSet) -> dict[str, Result]:
    """Return the results by the names under which an evaluation has them.

    Metrics that cannot be computed move from `asked` to `missing`, if that is lenient.
    """
    results: dict[str, Result] = {}

    def compute(metric: Metric) -> None:
        results.update(result_of(metric, real, fake))

    missing.check(asked, compute)
    return results


def result_of(metric: Metric, real: SampledSet, fake: SampledSet) -> dict[str, Result]:
    """Return the results of one metric by the names under which an evaluation has them."""
    return by_name(metric, metric.result(real.sample(metric), fake.sample(metric)))
