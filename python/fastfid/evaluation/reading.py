"""Reading of image sets for the metrics: open a set, read it once by one network, or load it from the cache."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fastfid import references
from fastfid._console import remark, warn
from fastfid._files import FileSet
from fastfid._progress import ProgressMode
from fastfid.cache import CacheMode, StatisticsCache
from fastfid.errors import ImageError, NumericalError, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.evaluation.how import How
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor, outputs_of
from fastfid.metrics.base import (
    Accumulator,
    IndexedAccumulator,
    Metric,
    Sample,
    check_gives,
    check_takes,
    outputs_needed,
    part_for,
    statistics_output,
)
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.rows import FeatureRows, with_rows
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.pipeline import DeviceFeed, Report, extract
from fastfid.provenance import provenance_of
from fastfid.scale import RunDirectory
from fastfid.scale.part import RowsAfter
from fastfid.scale.plan import decisions
from fastfid.sources import ImageSource, is_statistics_file, open_source
from fastfid.sources.base import Label
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.sources.kept import KeptLabels
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore, StoredRows, StoreWriter, is_store, writer_for
from fastfid.tally import Tally

__all__ = [
    "SIDES",
    "ImageSet",
    "Reading",
    "check_given",
    "check_memory",
    "effective_options",
    "files_of",
    "kept_labels",
    "load_known",
    "load_statistics",
    "load_store",
    "make_run",
    "open_images",
    "skipped_of",
    "sources_of",
    "statistics_of_store",
]

# What the two sets of an evaluation are called in its records and its run directory.
SIDES = ("real", "fake")
# The parts of a cache entry, by the output whose statistics they are.
_PARTS = {FEATURES: "", SPATIAL: "spatial"}


def load_known(source: Any, key: str | None = None, *, spatial: bool = False) -> Statistics | None:
    """Return the statistics that `source` is or names, or None if images must be read.

    Parameters
    ----------
    source, key
        See :func:`open_source`.
    spatial : bool
        Load the spatial part of a file too, where it has one.

    Raises
    ------
    ValueError
        `source` is an invalid statistics file.
    """
    if isinstance(source, Statistics):
        return source
    return Statistics.load(source, spatial=spatial) if is_known(source, key) else None


def load_store(source: Any, max_errors: int | None = None) -> FeatureStore | None:
    """Return the store of features that `source` names, and say what was said when it was made; None: it names none.

    Raises
    ------
    ValueError
        The store is not complete or damaged.
    fastfid.ImageError
        More than `max_errors` images were left out.
    """
    store = FeatureStore(source) if is_store(source) else None
    if store is not None:
        _say_again(store, store.name, max_errors)
    return store


def _say_again(store: FeatureStore, name: str, max_errors: int | None) -> None:
    if max_errors is not None and len(store.skipped) > max_errors:
        first = store.skipped[0]
        raise ImageError(
            f"{first['name']}: {first['reason']}; {len(store.skipped)} images of the store {store.name} were left out,"
            f" more than the {max_errors} allowed (max_errors)"
        )
    _say(name, store.skipped, store.remarks)


def _say(name: str, skipped: Sequence[Mapping[str, str]], remarks: Sequence[str]) -> None:
    """Issue warnings about the images that were left out, and about likely mistakes."""
    if skipped:
        shown = ", ".join(f"{one['name']} ({one['reason']})" for one in skipped[:5])
        more = ", ..." if len(skipped) > 5 else ""
        warn(f"{name}: skipped {len(skipped)} unreadable images: {shown}{more}", SkippedImagesWarning)
    for text in remarks:
        warn(f"{name}: {text}", SuspiciousInputWarning)


def load_statistics(source: Any, key: str | None = None) -> Statistics | None:
    """Return the statistics that `source` is or names, or those of the features of a store; None: they are images.

    Raises
    ------
    ValueError
        `source` is an invalid statistics file, or a store that is not complete or damaged.
    """
    store = load_store(source)
    return load_known(source, key) if store is None else statistics_of_store(store)


def statistics_of_store(store: FeatureStore) -> Statistics:
    """Return the statistics of the features of a store. ValueError if they are damaged."""
    metric = FrechetInceptionDistance()
    images = ImageSet(None, store=store)
    images.take(store, {metric.key: metric})
    return metric.statistics(images.sample(metric))


def check_given(given: Statistics | FeatureStore | None, metric: Metric, *, is_real: bool = False) -> None:
    """Raise ValueError if the metric cannot be computed from what was given instead of the images of a set."""
    if is_real and metric.is_of_generated:
        return
    if isinstance(given, Statistics):
        check_takes(metric, given)
    if isinstance(given, FeatureStore) and (missing := set(metric.needs) - set(given.outputs)):
        raise ValueError(
            f"{metric.key}: needs the output {', '.join(sorted(missing))}; the store {given.name} has"
            f" {', '.join(given.outputs)}"
        )


def is_known(source: Any, key: str | None = None) -> bool:
    """Whether `source` is or names statistics, so that no image must be read."""
    return isinstance(source, Statistics) or (isinstance(source, str | os.PathLike) and is_statistics_file(source, key))


def open_images(source: Any, options: Mapping[str, Any]) -> ImageSource:
    """Open a source and issue its notes as warnings. Raises ValueError if it is known to have fewer than two images."""
    if isinstance(source, ImageSource):  # opened before
        return source
    opened = open_source(source, **options)
    for note in opened.notes:
        warn(note)
    try:
        found = len(opened)
    except TypeError:  # a stream, whose images are counted while they are read
        return opened
    if found < 2:
        raise ValueError(f"{opened.name}: a covariance needs at least 2 images, got {found}")
    return opened


def files_of(source: Any, opened: ImageSource | None) -> FileSet | None:
    """Return the files of a source, which was opened, or of statistics; None where it is not made of files."""
    if opened is None:
        if is_store(source):
            return FileSet(FeatureStore(source).files())
        return FileSet([os.fsdecode(source)]) if isinstance(source, str | os.PathLike) else None
    try:
        return FileSet(opened.files())
    except ValueError:  # arrays and iterables
        return None


def effective_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of how a source is read: as given, else what it is without being given."""
    parameters = inspect.signature(open_source).parameters.values()
    return {p.name: options.get(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


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

    def known_as(self) -> str | None:
        """Return the name of the reference that the given statistics are; None where they are none that is known."""
        return None if self.known is None else references.known_as(self.known)

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


def make_run(
    run_dir: str | os.PathLike[str] | RunDirectory | None, store: object, cache: CacheMode
) -> RunDirectory | None:
    """Return the run directory that is meant; None: none.

    Raises
    ------
    ValueError
        It does not go with the cache.
    """
    if run_dir is None:
        return None
    if cache:
        raise ValueError("run_dir: does not go with cache; take one of the two")
    run = run_dir if isinstance(run_dir, RunDirectory) else RunDirectory(run_dir)
    run.needs_rows = store is not None
    return run


def sources_of(sets: Sequence[ImageSet]) -> dict[str, ImageSource]:
    """Return the sources that are to be read, by the name of their side. A set alone is the first side."""
    return {side: one.source for side, one in zip(SIDES, sets, strict=False) if one.source is not None}


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
                    _say_again(one.keeper, one.source.name, self.max_errors)
        if self.run is not None:
            self.run.begin(sources_of(sets), self.decides(sources_of(sets)))
        if self.store is None:
            check_memory((one.source, self._d_of_rows(one, one.source)) for one in sets if one.source is not None)

    def decides(self, sources: Mapping[str, ImageSource]) -> dict[str, Any]:
        """Return what decides the outcome of every task of a run directory."""
        options = {name: value for name, value in effective_options(self.options).items() if name != "on_error"}
        more = {
            "metrics": sorted("/".join(metric.accumulates) for metric in self.metrics.values()),
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
        how = (side, source, self.extractor, metrics)
        options = {name: getattr(self, name) for name in ("num_workers", "on_error", "max_errors", "progress")}
        if not isinstance(images.keeper, StoreWriter):
            images.seen = accumulators = Accumulators(metrics, outputs_of(self.extractor))
            images.report = run.read(*how, accumulators, **options)
            images.read_labels = kept_labels(images.report.labels, source)
            _say(source.name, skipped_of(images.report), images.report.census.remarks())
            return
        if run.plan.sides[side].sizing.level is not None:
            raise ValueError(
                f"{run.path}: its Parts have not the features of each image, as a store; --fresh starts over"
            )
        store = images.keeper.complete_store()  # of the other side, now
        if store is None:
            with images.keeper as writer:
                images.report = report = run.read(*how, RowsAfter(writer.done, writer.add), **options)
                census, labels = report.census.remarks(), kept_labels(report.labels, source)
                store = writer.finish(skipped_of(report), report.skipped_at, labels, census)
            _say(source.name, skipped_of(report), census)
            remark(f"{source.name}: features kept in {store.name}")
        images.take(store, metrics)

    def _stored_outputs(self) -> dict[str, int]:
        needed = outputs_needed(self.metrics.values())
        return {name: length for name, length in outputs_of(self.extractor).items() if name in needed}

    def _write(self, writer: StoreWriter, images: ImageSet, source: ImageSource) -> FeatureStore:
        """Read the images that are not in the store yet."""
        if writer.done:
            remark(f"{source.name}: goes on after the {writer.done:,} images of an interrupted run")
        census, passed = Census(), []
        for item in source.slice(0, writer.done):
            if item.label is not None:
                passed.append(item.label)
            if not census.has_levels:  # mostly of the first image
                census.see(item.load())
        for features in writer.features():  # so that repeats are counted over all images
            census.add(features)
        images.report = self.extract(source.slice(writer.done), writer.add, census)
        labels = kept_labels(passed + images.report.labels, source)
        return writer.finish(skipped_of(images.report), images.report.skipped_at, labels, census.remarks())

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
        _say(source.name, skipped_of(report), report.census.remarks())
        return report
