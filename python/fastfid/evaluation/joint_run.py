"""Several extractors in the tasks of one run directory: each task decodes its images once for all of them."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.image_set import ImageSet, kept_labels, skipped_of
from fastfid.evaluation.joint import Part
from fastfid.evaluation.reading import Reading, check_has_rows
from fastfid.extractor import FEATURES
from fastfid.features.joint import JointExtractor
from fastfid.metrics.base import Accumulator, IndexedAccumulator, Metric, Result, Sample, outputs_needed
from fastfid.provenance import provenance_of
from fastfid.scale import RunDirectory
from fastfid.scale.part import RowsAfter
from fastfid.sources import ImageSource
from fastfid.store import StoreWriter

__all__ = ["JointRun", "joint_reading"]


def joint_reading(readings: Mapping[str, Reading], run: RunDirectory | None = None) -> Reading:
    """Return the reading of several extractors as one: what a task does for all of them.

    The order of the extractors does not matter: extractors in another order are the same run.

    Parameters
    ----------
    readings : dict of str to Reading
        How each extractor reads, by its name: all alike, each for metrics of its own.
    run : RunDirectory, optional
        Where the Parts of the tasks are.
    """
    # What a run directory keeps of an extractor has the extractor's number in its name, and a caller who goes on with a
    # run may name the extractors in another order.
    ordered = sorted(readings.items(), key=lambda item: tuple(map(str, provenance_of(item[1].extractor).values())))
    joint = JointExtractor({name: one.extractor for name, one in ordered})
    metrics: dict[str, Metric] = {
        _key(name, key): _OfOne(metric, joint, number)
        for number, (name, one) in enumerate(ordered)
        for key, metric in one.metrics.items()
    }
    one = ordered[0][1]
    how = (one.num_workers, one.on_error, one.max_errors, one.progress, False, one.opened_at, one.options)
    return Reading(joint, metrics, *how, run=run)


def _key(name: str, metric: str) -> str:
    return f"{name}: {metric}"


class JointRun:
    """The reading of both sides through a run directory, for several extractors.

    Parameters
    ----------
    parts : sequence of Part
        What each extractor has to do with the first side.
    run : RunDirectory
    """

    def __init__(self, parts: Sequence[Part], run: RunDirectory):
        self._run = run
        self._reading = joint_reading({part.name: part.reading for part in parts}, run)
        self._sets: dict[str, ImageSet] = {}

    def begin(self, sources: Mapping[str, ImageSource]) -> None:
        """Take the plan of the run directory, or make it, for the sources by side.

        Raises
        ------
        ValueError
            See :meth:`fastfid.scale.RunDirectory.begin`; also where the rows of all images do not fit into the memory.
        """
        self._sets = {side: ImageSet(None, source, name=source.name) for side, source in sources.items()}
        if self._run.needs_rows:  # for stores, so that the memory does not have them
            self._run.begin(sources, self._reading.decides(sources))
        else:
            self._reading.prepare(list(self._sets.values()))

    def fill(self, side: str, parts: Sequence[Part]) -> None:
        """Read a side in tasks, or take the Parts that are there, and fill the set of each extractor."""
        images = self._sets[side]
        assert images.source is not None
        if parts[0].images.keeper is not None:
            self._into_stores(side, images.source, parts)
            return
        self._reading.fill(images, images.source, side)
        for part in parts:
            part.reading.describe(part.images, images.source)
            part.images.report = images.report
            part.images.read_labels = images.read_labels
            there = self._reading.metrics
            part.images.seen = {
                metric.accumulates: cast(_Named, images.seen[there[_key(part.name, key)].accumulates]).own
                for key, metric in part.reading.metrics.items()
            }

    def _into_stores(self, side: str, source: ImageSource, parts: Sequence[Part]) -> None:
        """Put the rows of the Parts into the stores that are not complete, and take all stores."""
        waiting = [part for part in parts if not part.reading.take_kept(part.images, source)]
        if not waiting:
            return
        check_has_rows(self._run, side)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(cast(StoreWriter, part.images.keeper)) for part in waiting]
            rows = _RowsOfEach(
                (self._names(part), RowsAfter(writer.done, writer.add))
                for part, writer in zip(waiting, writers, strict=True)
            )
            report = self._reading.through_run(source, side, self._run, rows)
            labels, names = kept_labels(report.labels, source), [item.name for item in source]
            for part, writer in zip(waiting, writers, strict=True):
                skipped, census = skipped_of(report), report.census.remarks()
                store = writer.finish(skipped, report.skipped_at, labels, census, names)
                part.images.report = report
                part.reading.take_written(part.images, source, store)

    def _names(self, part: Part) -> Mapping[str, str]:
        """Return what the outputs of an extractor that its store has are called in the tasks, by their own names."""
        of_joint = [self._reading.metrics[_key(part.name, key)] for key in part.reading.metrics]
        names = cast(_OfOne, of_joint[0]).names
        needed = outputs_needed(of_joint)
        return {name: there for name, there in names.items() if there in needed}


class _RowsOfEach(RowsAfter):
    """Takes the rows of Parts for several extractors, each from its first image on that is not in its store."""

    def __init__(self, each: Iterable[tuple[Mapping[str, str], RowsAfter]]):
        self._each = list(each)

    def update(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Take the rows of images, in the order of their source."""
        for names, rows in self._each:
            rows.update({name: outputs[there] for name, there in names.items()}, indices)


class _OfOne(Metric):
    """A metric of one of the extractors, by the names that its outputs have in the joint one."""

    name: ClassVar[str] = "of one extractor"
    # Of the metric, by other names; other metrics have it for the class.
    needs: frozenset[str]  # type: ignore[misc]

    def __init__(self, metric: Metric, joint: JointExtractor, number: int):
        self._metric = metric
        self.names = {name: joint.name_of(number, name) for name in joint.outputs_of_one(number)}
        # A store always has the features.
        self.needs = frozenset(self.names[name] for name in (FEATURES, *metric.needs))
        kind, *rest = metric.accumulates
        output = "/".join(rest)
        self._accumulates = (kind, self.names.get(output, f"{number}/{output}"))

    @property
    def accumulates(self) -> tuple[str, ...]:
        """What the metric accumulates, of its extractor."""
        return self._accumulates

    def accumulator(self, lengths: Mapping[str, int]) -> Accumulator:
        """Return that of the metric, which gets the outputs of its extractor."""
        own = {name: lengths[there] for name, there in self.names.items() if there in lengths}
        return _named(self._metric.accumulator(own), self.names)

    def restored(self, state: Mapping[str, Any]) -> Accumulator:
        """Return an accumulator that continues from a state of the metric's."""
        return _named(self._metric.restored(state), self.names)

    def result(self, real: Sample, fake: Sample) -> Result:
        """Raise TypeError: the metric itself compares the two sets."""
        raise TypeError(f"{self._metric.key}: is computed for its extractor alone")


class _Named:
    """An accumulator whose outputs have other names."""

    def __init__(self, own: Any, names: Mapping[str, str]):
        self.own = own
        self._names = names

    @property
    def n(self) -> int:
        """Number of images."""
        return int(self.own.n)

    def _renamed(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: outputs[there] for name, there in self._names.items() if there in outputs}

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add images."""
        self.own.update(self._renamed(outputs))

    def merge(self, other: "_Named") -> None:
        """Add the images of `other`."""
        self.own.merge(other.own)

    def reset(self) -> None:
        """Remove all images."""
        self.own.reset()

    def state(self) -> dict[str, Any]:
        """Return the state, without the names."""
        found: dict[str, Any] = self.own.state()
        return found


class _NamedByIndex(_Named):
    """The same for an accumulator that knows the indices of its images."""

    def update_at(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Add images, with their indices."""
        self.own.update_at(self._renamed(outputs), indices)

    def join(self, other: "_NamedByIndex", index: int, level: int) -> None:
        """Add a node of the tree."""
        self.own.join(other.own, index, level)

    def state_below(self, key: int) -> dict[str, Any]:
        """Return the state of a part of a source."""
        found: dict[str, Any] = self.own.state_below(key)
        return found


def _named(own: Accumulator, names: Mapping[str, str]) -> _Named:
    return _NamedByIndex(own, names) if isinstance(own, IndexedAccumulator) else _Named(own, names)
