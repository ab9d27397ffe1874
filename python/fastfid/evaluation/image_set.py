"""One of the two sets of an evaluation, and what is known of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._console import warn
from fastfid._files import FileSet
from fastfid.cache import StatisticsCache
from fastfid.extractor import FEATURES
from fastfid.metrics.base import (
    Accumulator,
    IndexedAccumulator,
    Metric,
    Sample,
    outputs_needed,
    part_for,
)
from fastfid.metrics.rows import FeatureRows
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.pipeline import Report
from fastfid.scale.plan import SIDES
from fastfid.sources import ImageSource
from fastfid.sources.base import Label
from fastfid.sources.kept import KeptLabels
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore, StoredRows, StoreWriter
from fastfid.tally import Tally

__all__ = ["ImageSet", "kept_labels", "skipped_of", "sources_of"]


@dataclass
class ImageSet:
    """One of the sets: given statistics, a source to be read, or both: then what the statistics do not have is read."""

    known: Statistics | None
    source: ImageSource | None = None  # the source to be read; None: only features or statistics were given
    entry: StatisticsCache | None = None
    report: Report | None = None  # None: no image was read
    files: FileSet | None = None  # to be known by their content
    store: FeatureStore | None = None  # features of an earlier run, or of this one
    keeper: StoreWriter | FeatureStore | None = None  # the store of the source, to be written or complete
    # By what the metrics accumulate.
    seen: Mapping[tuple[str, ...], Accumulator | Statistics | StoredRows] = field(default_factory=dict)
    name: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    classifier: Callable[[], NDArray[np.float32]] | None = None
    read_labels: KeptLabels | None = None
    stored_census: Census | None = None  # of the features of a store

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels. Known before they are read."""
        return self.source.has_labels if self.source is not None else self.store is not None and self.store.has_labels

    def labels(self) -> KeptLabels | None:
        """Return the labels of the images whose features are there; ValueError if those of a store are damaged."""
        return self.store.labels() if self.store is not None else self.read_labels

    def sample(self, metric: Metric) -> Sample:
        """Return the sample of this set for the metric."""
        if self.known is not None:
            part = part_for(metric, self.known)
            if part is not None or metric.accumulates not in self.seen:
                return Sample(self.known.name, self.known.meta, part or self.known)
        return Sample(self.name, self.meta, self.seen[metric.accumulates], self.classifier)

    def found(self) -> dict[str, Any] | None:
        """Return what the source holds; None where no source was given. Sizes, modes and formats are of this run."""
        if self.source is None:
            return None
        tally = self.report.census.tally if self.report is not None else Tally()
        notes = [str(note).removeprefix(f"{self.source.name}: ") for note in self.source.notes]
        return {"images": self._number(), **tally.to_dict(), "notes": notes}

    def _number(self) -> int | None:
        try:
            return len(self.source)  # type: ignore[arg-type]  # None, too, has no length
        except TypeError:  # a stream
            return None if self.report is None else self.report.n + len(self.report.skipped)

    def identity(self) -> dict[str, Any] | None:
        """Return what the files are; None, and a warning, where they changed since they were opened."""
        if self.files is None:
            return None
        found = self.files.identity()
        if found is None:
            warn(f"{self.known.name if self.known else self.name}: not identified: its files changed meanwhile")
        return found

    @property
    def given(self) -> Statistics | FeatureStore | None:
        """What was given instead of images."""
        return self.known or (self.store if self.source is None else None)

    @property
    def is_cached(self) -> bool:
        """Whether the statistics of the source came from the cache, or its features from a store."""
        return self.source is not None and self.report is None

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Name and reason of each image left out."""
        if self.report is None:
            return self.store.skipped if self.store is not None else []
        return skipped_of(self.report)

    @property
    def census(self) -> Census | None:
        """The census of the images or of their features; None where only statistics are there."""
        return self.report.census if self.report is not None else self.stored_census

    def take(self, store: FeatureStore, metrics: Mapping[str, Metric]) -> None:
        """Accumulate what the metrics need from a store. ValueError if its features are not finite."""
        self.store, self.name = store, self.name or store.name
        self.meta = {**store.meta, "source": self.name}
        empty = Accumulators(metrics, store.outputs)
        others = {what: one for what, one in empty.items() if not isinstance(one, FeatureRows)}
        needed = outputs_needed(metrics.values()) & set(store.outputs)
        if self.report is None:
            self.stored_census = Census()
        for outputs, indices in store.blocks(needed):
            if self.stored_census is not None:
                self.stored_census.add(outputs[FEATURES])
            for accumulator in others.values():
                if isinstance(accumulator, IndexedAccumulator):
                    accumulator.update_at(outputs, indices)
                else:
                    accumulator.update(outputs)
        rows = {what: StoredRows(store.rows(one.output)) for what, one in empty.items() if isinstance(one, FeatureRows)}
        self.seen = {**others, **rows}


def skipped_of(report: Report) -> list[dict[str, str]]:
    """Return name and reason of each image that was left out."""
    return [{"name": name, "reason": why} for name, why in report.skipped]


def kept_labels(labels: list[Label], source: ImageSource) -> KeptLabels | None:
    """Return the labels of images that were read, or None where they have none."""
    return KeptLabels.of(labels, source.class_names) if source.has_labels and labels else None


def sources_of(sets: Sequence[ImageSet]) -> dict[str, ImageSource]:
    """Return the sources that are to be read, by the name of their side. A set alone is the first side."""
    return {side: one.source for side, one in zip(SIDES, sets, strict=False) if one.source is not None}
