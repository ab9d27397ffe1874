"""Reads a set of images once for all metrics by one network, or takes it from the cache or a store."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fastfid._console import remark, warn
from fastfid._progress import ProgressMode
from fastfid.cache import CacheMode, StatisticsCache
from fastfid.errors import NumericalError, SuspiciousInputWarning
from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet, kept_labels, skipped_of, sources_of
from fastfid.evaluation.opening import effective_options, say_again, say_of_images
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor, outputs_of
from fastfid.metrics.base import (
    Metric,
    check_gives,
    outputs_needed,
    part_for,
    statistics_output,
)
from fastfid.metrics.rows import with_rows
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.pipeline import DeviceFeed, Report, extract
from fastfid.provenance import provenance_of
from fastfid.scale import RunDirectory
from fastfid.scale.part import RowsAfter
from fastfid.scale.plan import decisions
from fastfid.sources import ImageSource
from fastfid.sources.base import NamingSource
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore, StoreWriter, writer_for

__all__ = ["Reading", "check_has_rows", "check_memory"]

# The parts of a cache entry, by the output whose statistics they are.
_PARTS = {FEATURES: "", SPATIAL: "spatial"}


def check_memory(sets: Iterable[tuple[ImageSource, int]]) -> None:
    """Refuse rows that the memory cannot hold; `sets` are sources with the number of features in a row of each."""
    needed, what = 0, []
    for source, d in sets:
        try:
            n = len(source)
        except TypeError:  # a stream
            continue
        if d:
            needed += 8 * d * n
            what.append(f"the {n:,} images of {source.name}")
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * there:
        raise ValueError(
            f"the features of {' and '.join(what)} take up to {needed / 2**30:.0f} GiB of memory, of which there"
            f" are {there / 2**30:.0f}: keep them on disk by --store DIR (store=)"
        )


def check_has_rows(run: RunDirectory, side: str) -> None:
    """Refuse a run whose Parts have not what a store needs."""
    if run.plan.sides[side].sizing.level is not None:
        raise ValueError(f"{run.path}: its Parts have not the features of each image, as a store; --fresh starts over")


@dataclass(frozen=True)
class Reading:
    """The extractor, metrics and options with which all sets of one evaluation are read."""

    extractor: FeatureExtractor
    metrics: Mapping[str, Metric]
    num_workers: int | None
    on_error: Literal["raise", "skip"]
    max_errors: int | None
    progress: ProgressMode
    cache: CacheMode
    opened_at: float  # a time before the sources were opened, in seconds since the epoch
    options: Mapping[str, Any]
    store: str | os.PathLike[str] | None = None  # the folder of stores
    per_class: bool = False  # whether the rows of sources with labels are kept
    run: RunDirectory | None = None  # where what was read is kept, task by task

    @classmethod
    def of(cls, extractor: FeatureExtractor, metrics: Mapping[str, Metric], how: How, opened_at: float) -> "Reading":
        """Return the reading that a call of :func:`fastfid.evaluate` asks for."""
        common = (how.num_workers, how.on_error, how.max_errors, how.progress, how.cache, opened_at, how.options)
        return cls(extractor, metrics, *common, how.store, how.per_class, how.run)

    def __post_init__(self) -> None:
        for metric in self.metrics.values():
            check_gives(self.extractor, metric)

    def entry(self, source: ImageSource) -> StatisticsCache | None:
        """Return the cache entry of the source, or None without a cache. ValueError if it is not made of files."""
        if not self.cache:
            return None
        decides = {
            **provenance_of(self.extractor),
            "device": self.extractor.device,
            "runtime": self.extractor.runtime,
            "options": {**self.options, **({"labels": source.labels_from} if source.has_labels else {})},
        }
        return StatisticsCache(source, decides, by_content=self.cache == "hashes", opened_at=self.opened_at)

    def prepare(self, sets: Sequence[ImageSet]) -> None:
        """Look for what earlier runs have kept of the sources. What can be refused is refused before an image is read.

        Raises
        ------
        ValueError
            The features that metrics of rows need are larger than the memory; the images of a source are not in files,
            so that nothing of it can be kept; its store is stale; a run directory is of another run.
        fastfid.ImageError
            A store was made without more than `max_errors` images.
        """
        for one in sets:
            if one.source is None:
                continue
            one.entry = self.entry(one.source)
            if self.store is not None:
                one.keeper = self._keeper(one.source, self.store)
                if isinstance(one.keeper, FeatureStore):
                    say_again(one.keeper, one.source.name, self.max_errors)
        if self.run is not None:
            self.run.begin(sources_of(sets), self.decides(sources_of(sets)))
        if self.store is None:
            check_memory((one.source, self._d_of_rows(one, one.source)) for one in sets if one.source is not None)

    def decides(self, sources: Mapping[str, ImageSource]) -> dict[str, Any]:
        """Return what decides the outcome of every task of a run directory."""
        options = {name: value for name, value in effective_options(self.options).items() if name != "on_error"}
        more = {
            "metrics": sorted({"/".join(metric.accumulates) for metric in self.metrics.values()}),
            "options": options,
            "on_error": self.on_error,
        }
        if self.per_class:
            more["labels"] = {side: one.labels_digest() for side, one in sources.items() if one.has_labels}
        return decisions(provenance_of(self.extractor), more)

    def _d_of_rows(self, images: ImageSet, source: ImageSource) -> int:
        """Return the number of features of an image that are held in memory."""
        lengths = outputs_of(self.extractor)
        held = {one.accumulates for one in self._metrics_to_read(images, source).values()}
        return sum(lengths[what[1]] for what in held if what[0] == "rows")

    def _metrics_to_read(self, images: ImageSet, source: ImageSource) -> dict[str, Metric]:
        """Return the metrics for which the images are read."""
        known, metrics = images.known, self.metrics_of(source)
        return {key: one for key, one in metrics.items() if known is None or part_for(one, known) is None}

    def metrics_of(self, source: ImageSource) -> dict[str, Metric]:
        """Return the metrics, and what keeps the rows of a source whose classes are compared."""
        return with_rows(self.metrics) if self.per_class and source.has_labels else dict(self.metrics)

    def fill(self, images: ImageSet, source: ImageSource, side: str = "real") -> None:
        """Read a source that was prepared, or take what was kept of it. `side` is what a run directory calls it."""
        if self.run is not None and not isinstance(images.keeper, FeatureStore):
            self.describe(images, source)
            self._through_run(images, source, side, self.run)
        elif self.take_kept(images, source):
            return
        elif images.keeper is not None:
            self._through_store(images, source, cast(StoreWriter, images.keeper))
        else:
            self._read(images, source)
            self.keep(images)

    def describe(self, images: ImageSet, source: ImageSource) -> None:
        """Say of a set what its features are."""
        images.name = source.name
        rule = {"to_uint8": self.options["to_uint8"]} if self.options.get("to_uint8") else {}
        images.meta = {**provenance_of(self.extractor), **rule, "source": source.name}
        images.classifier = self.extractor.classifier

    def take_kept(self, images: ImageSet, source: ImageSource) -> bool:
        """Take what a store or the cache has of a source; False where its images must be read for this extractor."""
        self.describe(images, source)
        if (keeper := images.keeper) is not None:
            # A store may have been completed meanwhile, of the other side.
            store = keeper if isinstance(keeper, FeatureStore) else keeper.complete_store()
            if store is not None:
                images.take(store, self.metrics_of(source))
            return store is not None
        if images.entry is None or (cached := self._cached(images.entry, self.metrics_of(source))) is None:
            return False
        meta = dict(next(iter(cached.values())).meta)
        for text in meta.pop("remarks", ()):
            warn(f"{source.name}: {text}", SuspiciousInputWarning)
        # The cached statistics may have been made under another name of the same files.
        images.meta = {**meta, "source": source.name}
        images.seen = {
            what: dataclasses.replace(one, meta=images.meta, name=source.name) for what, one in cached.items()
        }
        return True

    def keep(self, images: ImageSet) -> None:
        """Store the statistics of images that were read in the cache, if there is to be one."""
        if images.entry is not None and (refusal := self._keep(images, images.entry)):
            warn(f"{images.name}: not kept in the cache: {refusal}")

    def _cached(
        self, entry: StatisticsCache, metrics: Mapping[str, Metric]
    ) -> dict[tuple[str, ...], Statistics] | None:
        """Return the cached statistics by what the metrics accumulate; None if a metric needs more than the cache has.

        The cache contains only statistics. For a metric that needs more, the images are read again.
        """
        outputs = {metric.accumulates: statistics_output(metric) for metric in metrics.values()}
        if None in outputs.values():
            return None
        found = {what: entry.load(_PARTS[cast(str, output)]) for what, output in outputs.items()}
        return None if None in found.values() else cast(dict[tuple[str, ...], Statistics], found)

    def _keep(self, images: ImageSet, entry: StatisticsCache) -> str | None:
        """Store the statistics of the images in the cache. Return None, or the reason why they are not stored."""
        report = images.report
        if report is None or report.skipped:
            return "images were skipped"
        found: dict[str, Statistics] = {}
        for metric in self.metrics.values():
            output = statistics_output(metric)
            if output is not None and (statistics := metric.statistics(images.sample(metric))) is not None:
                found.setdefault(_PARTS[output], statistics)
        if not found:
            return "no metric makes statistics"
        refusals = [
            entry.store(dataclasses.replace(one, meta={**one.meta, "remarks": report.census.remarks()}), part)
            for part, one in found.items()
        ]
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _keeper(self, source: ImageSource, root: str | os.PathLike[str]) -> StoreWriter | FeatureStore:
        """Return the store of a source: complete, or to be written."""
        meta = {**provenance_of(self.extractor), "device": self.extractor.device, "runtime": self.extractor.runtime}
        options = {**effective_options(self.options), "on_error": self.on_error, "labels": source.labels_from}
        return writer_for(root, source, meta, self._stored_outputs(), options, can_resume=self.on_error == "raise")

    def _through_store(self, images: ImageSet, source: ImageSource, keeper: StoreWriter) -> None:
        """Read the source into its store."""
        with keeper as writer:
            try:
                store = self._write(writer, images, source)
            except KeyboardInterrupt:
                if self.on_error == "raise":
                    remark(f"{source.name}: {writer.done:,} images are kept; the same command goes on after them")
                raise
        self.take_written(images, source, store)

    def take_written(self, images: ImageSet, source: ImageSource, store: FeatureStore) -> None:
        """Take the features of a source from the store into which they were read."""
        remark(f"{source.name}: features kept in {store.name}")
        images.take(store, self.metrics_of(source))

    def _through_run(self, images: ImageSet, source: ImageSource, side: str, run: RunDirectory) -> None:
        """Read the source in tasks, or take the Parts of tasks that are done; with a store, into the store."""
        metrics = self.metrics_of(source)
        if not isinstance(images.keeper, StoreWriter):
            images.seen = accumulators = Accumulators(metrics, outputs_of(self.extractor))
            images.report = self.through_run(source, side, run, accumulators)
            images.read_labels = kept_labels(images.report.labels, source)
            return
        check_has_rows(run, side)
        store = images.keeper.complete_store()  # of the other side, now
        if store is None:
            with images.keeper as writer:
                images.report = report = self.through_run(source, side, run, RowsAfter(writer.done, writer.add))
                census, labels = report.census.remarks(), kept_labels(report.labels, source)
                names = [item.name for item in source]
                store = writer.finish(skipped_of(report), report.skipped_at, labels, census, names)
            remark(f"{source.name}: features kept in {store.name}")
        images.take(store, metrics)

    def through_run(self, source: ImageSource, side: str, run: RunDirectory, rows: Accumulators | RowsAfter) -> Report:
        """Read the source in tasks, or take the Parts of tasks that are done, and say what there is to say of them."""
        options = {name: getattr(self, name) for name in ("num_workers", "on_error", "max_errors", "progress")}
        report = run.read(side, source, self.extractor, self.metrics_of(source), rows, **options)
        say_of_images(source.name, skipped_of(report), report.census.remarks())
        return report

    def _stored_outputs(self) -> dict[str, int]:
        needed = outputs_needed(self.metrics.values())
        return {name: length for name, length in outputs_of(self.extractor).items() if name in needed}

    def _write(self, writer: StoreWriter, images: ImageSet, source: ImageSource) -> FeatureStore:
        """Read the images that are not in the store yet."""
        if writer.done:
            remark(f"{source.name}: goes on after the {writer.done:,} images of an interrupted run")
        census, passed = Census(), []
        done, rest = NamingSource(source.slice(0, writer.done), 0), NamingSource(source, writer.done)
        for item in done:
            if item.label is not None:
                passed.append(item.label)
            if not census.has_levels:  # mostly of the first image
                census.see(item.load())
        for features in writer.features():  # so that repeats are counted over all images
            census.add(features)
        images.report = self.extract(rest, writer.add, census)
        labels = kept_labels(passed + images.report.labels, source)
        skipped, places, names = skipped_of(images.report), images.report.skipped_at, done.names + rest.names
        return writer.finish(skipped, places, labels, census.remarks(), names)

    def _read(self, images: ImageSet, source: ImageSource) -> None:
        needed = self._metrics_to_read(images, source)
        images.seen = accumulators = Accumulators(needed, outputs_of(self.extractor))

        def consume(outputs: Mapping[str, Any], indices: NDArray[np.int64] | None = None) -> None:
            try:
                accumulators.update(outputs, indices)
            except NumericalError as error:
                raise NumericalError(f"{source.name}: {error}") from None

        if isinstance(source, DeviceImages) and (network := self.extractor.on_device(source.device)) is not None:
            feed = DeviceFeed(network, consume)
            feed.add(source, callers_stream(source.tensor))
            feed.flush()
            images.report = Report(n=len(source))
            return
        images.report = self.extract(source, consume)
        images.read_labels = kept_labels(images.report.labels, source)

    def extract(
        self,
        source: ImageSource,
        consume: Callable[[Mapping[str, Any], NDArray[np.int64]], object],
        census: Census | None = None,
    ) -> Report:
        """Read the images, and say what there is to say of them."""
        report = extract(
            source,
            self.extractor,
            consume,
            num_workers=self.num_workers,
            on_error=self.on_error,
            max_errors=self.max_errors,
            progress=self.progress,
            description=source.name,
            census=census,
        )
        say_of_images(source.name, skipped_of(report), report.census.remarks())
        return report
