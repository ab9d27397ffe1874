"""Metrics of several extractors from one pass over each set: every image is decoded once."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Unpack

from fastfid import _core, mistakes
from fastfid._console import warn
from fastfid._files import FileSet, check_store_folder
from fastfid._progress import ProgressMode
from fastfid.cache import CacheMode
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.evaluate import options_in_effect
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.joint import Part, read_jointly
from fastfid.evaluation.joint_run import JointRun
from fastfid.evaluation.opening import files_of, load_known, load_store, open_images
from fastfid.evaluation.reading import Reading
from fastfid.evaluation.result import EvaluatedSet, Evaluation
from fastfid.evaluation.runs import EngineOption, WorkersOption, opened_run
from fastfid.extractor import FeatureExtractor, check_extractor
from fastfid.features.joint import JointExtractor
from fastfid.metrics import ALL, label_of, make_metrics
from fastfid.metrics.base import Metric, Result, check_gives
from fastfid.metrics.several import Missing, results_of
from fastfid.options import SourceOptions, check_options
from fastfid.provenance import provenance_of
from fastfid.scale import RunDirectory
from fastfid.scale.plan import SIDES
from fastfid.sources import ImageSource
from fastfid.sources.labels import labels_of_side

__all__ = [
    "ExtractorRun",
    "ExtractorsEvaluation",
    "check_extractors",
    "check_found",
    "evaluate_extractors",
    "open_side",
]


@dataclass(frozen=True)
class ExtractorsEvaluation(Mapping[str, Evaluation]):
    """What :func:`evaluate_extractors` has found: a mapping from the extractors' names to their evaluations.

    Attributes
    ----------
    evaluations : dict of str to Evaluation
        In the given order. ``seconds`` of each are those of the whole run.

    Examples
    --------
    >>> import fastfid, numpy as np
    >>> class Means(fastfid.FeatureExtractor):
    ...     dims, identity, protocol, precision, device, batch_size = 3, "means", "none", "float32", "cpu", 8
    ...     input_shape = (3,)
    ...
    ...     def prepare(self, image):
    ...         return image.mean(axis=(0, 1), dtype=np.float32)
    ...
    ...     def forward(self, batch):
    ...         return batch
    >>> found = evaluate_extractors("real", "fake", {"a": Means(), "b": Means()})  # two folders of four pictures
    >>> found["a"]["fid"].value == found["b"]["fid"].value > 0
    True
    >>> [row["extractor"] for row in found.to_dict()["metrics"]]
    ['means', 'means']
    """

    evaluations: Mapping[str, Evaluation]

    def __getitem__(self, name: str) -> Evaluation:
        return self.evaluations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    def to_dict(self, *, command: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the record of the first extractor, with the rows of all in ``metrics`` and a list ``extractors``.

        Parameters
        ----------
        command : list of str, optional
            The command line that asked for it, for the record.
        """
        records = [one.to_dict(command=command) for one in self.evaluations.values()]
        extractors = [
            {
                "name": name,
                **{key: record[key]["real"] for key in ("extractor", "protocol", "precision")},
                "dims": record["dims"],
            }
            for name, record in zip(self.evaluations, records, strict=True)
        ]
        return {**records[0], "metrics": [row for one in records for row in one["metrics"]], "extractors": extractors}

    def table(self) -> str:
        """Return the table that the command line prints: extractor, metric, value and standard error."""
        rows = [["extractor", "metric", "value", "standard error"]]
        for name, one in self.evaluations.items():
            networks = [side.meta.get("extractor") for side in (one.real, one.fake)]
            for key, result in one.items():
                error = "none" if result.standard_error is None else f"{result.standard_error:.2g}"
                rows.append([name, label_of(key, networks), f"{result.value:.8g}", error])
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows
        )


def evaluate_extractors(
    real: Any,
    fake: Any,
    extractors: Mapping[str, FeatureExtractor],
    *,
    metrics: Literal["all"] | Iterable[str | Metric] = ("fid",),
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
    cache: CacheMode = False,
    hash_inputs: bool = False,
    store: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | RunDirectory | None = None,
    engine: EngineOption = None,
    workers: WorkersOption = None,
    **options: Unpack[SourceOptions],
) -> ExtractorsEvaluation:
    """Return metrics of two sets of images for each of several extractors, from one pass over each set.

    Every image is decoded once and prepared for each extractor. The values are those of :func:`evaluate` with each
    extractor alone, bit for bit.

    With `store` and `cache` each extractor has a store and a cache entry of its own, those that it has alone. What is
    complete there is taken from there; one pass makes what is missing, and runs the extractors that miss something.

    Parameters
    ----------
    real, fake : path, array, tensor, iterable, Dataset, generator or list of paths
        Images; see :func:`compute_statistics`, also for the other keywords. Statistics and stores of features belong to
        one extractor and are refused.
    extractors : dict of str to FeatureExtractor
        By what they are called in the result. Each needs inputs of one size (its `input_shape`).
    metrics : list of str or Metric, or "all"
        See :func:`evaluate`. A metric that cannot be computed for one of the extractors, as it lacks an output, is in
        ``missing`` of its evaluation, with the reason; a metric named here that none of them has is an error. An
        extractor that has none of the metrics does not run; all of its evaluation is in ``missing``.
    cache, hash_inputs, store, run_dir, engine, workers
        See :func:`evaluate`. The tasks of a run directory run all extractors over one decoding of their images, and
        fill the stores at the end. :func:`plan_extractors` makes a run directory for any scheduler.

    Returns
    -------
    ExtractorsEvaluation

    Raises
    ------
    TypeError
        `extractors` is not a dict of extractors.
    ValueError
        There is no extractor, one has no fixed size of inputs, with `store` two are the same, or a side is no images.
        The exceptions of :func:`evaluate` are raised too.

    Examples
    --------
    >>> import fastfid
    >>> inception = fastfid.InceptionV3(64, device="cpu")
    >>> tensorflow = fastfid.InceptionV3(64, protocol="tensorflow", device="cpu")
    >>> both = evaluate_extractors("real", "fake", {"pytorch-fid": inception, "ttur": tensorflow})
    >>> both["ttur"]["fid"].value == fastfid.compute_fid("real", "fake", dims=64, protocol="tensorflow", device="cpu")
    True
    """
    started, opened_at = time.perf_counter(), time.time()
    check_options(
        batch_size=None,
        num_workers=num_workers,
        on_error=on_error,
        max_errors=max_errors,
        protocol=None,
        device="cpu",
        precision="float32",
        extractor=None,
        progress=progress,
        options=options,
    )
    check_store_folder(store)
    check_extractors(extractors)
    if store is not None:
        _check_stores(extractors)
    asked = metrics if isinstance(metrics, str) else list(metrics)
    runs = [ExtractorRun(name, one, asked) for name, one in extractors.items()]
    check_found(runs, asked)
    if remark := mistakes.same_place(real, fake, recursive=options.get("recursive", False)):
        warn(remark, SuspiciousInputWarning)
    opening = {**options, "on_error": on_error}
    sources = [open_side(source, side, opening) for side, source in zip(SIDES, (real, fake), strict=True)]
    both = list(zip((real, fake), sources, strict=True))
    files = [files_of(source, opened) if hash_inputs else None for source, opened in both]
    reading = [run for run in runs if run.asked]
    for run in reading:
        run.prepare(sources, files, num_workers, on_error, max_errors, progress, cache, opened_at, options, store)
    loaded = time.perf_counter()
    with opened_run(run_dir, engine, workers, store, cache) as directory:
        _read(reading, sources, directory)
    census_a, census_b = (next((one.census for one in sets if one.census), None) for sets in _by_side(reading))
    if not remark and census_a and census_b and (shared := mistakes.overlap(census_a, census_b)):
        warn(shared, SuspiciousInputWarning)
    extracted = time.perf_counter()
    for run in reading:
        run.compare()
    check_found(runs, asked)
    finished = time.perf_counter()
    sets = reading[0].sets
    common = {
        "seconds": {
            "load": loaded - started,
            "features": extracted - loaded,
            "distance": finished - extracted,
            "total": finished - started,
        },
        "date": datetime.fromtimestamp(opened_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "inputs": {side: one.identity() for side, one in zip(SIDES, sets, strict=True)} if hash_inputs else None,
        "run": directory.facts if directory is not None else None,
    }
    return ExtractorsEvaluation(
        {
            run.name: run.evaluation(options_in_effect(options, run.asked, on_error=on_error), common, reading[0])
            for run in runs
        }
    )


class ExtractorRun:
    """One extractor with its metrics, and the two sets as it saw them: none where it has no metric."""

    def __init__(self, name: str, extractor: FeatureExtractor, metrics: str | Sequence[str | Metric]):
        self.name = name
        self.extractor = extractor
        self.asked = make_metrics(metrics)
        self.missing = Missing(lenient=True, may_be_all=True)
        self.missing.check(self.asked, partial(check_gives, extractor))
        self.sets: list[ImageSet] = []
        self._results: Mapping[str, Result] = {}
        self._described: tuple[EvaluatedSet, ...] = ()

    def prepare(self, sources: Sequence[ImageSource], files: Sequence[FileSet | None], *how: Any) -> None:
        """Look for what earlier runs have kept of the sources; `how` is as :class:`Reading` has it."""
        self._reading = Reading(self.extractor, dict(self.asked), *how)
        self.sets = [
            ImageSet(None, source, name=source.name, files=of_source)
            for source, of_source in zip(sources, files, strict=True)
        ]
        self._reading.prepare(self.sets)

    def part(self, side: int) -> Part:
        """Return what this extractor has to do with a side."""
        return Part(self.name, self.extractor, self._reading, self.sets[side])

    def compare(self) -> None:
        """Compute the metrics of the two sets."""
        first = next(iter(self.asked.values()))
        self._described = tuple(EvaluatedSet.of(one.sample(first)) for one in self.sets)
        self._results = results_of(self.asked, self.missing, *self.sets)

    def evaluation(self, options: Mapping[str, Any], common: Mapping[str, Any], reader: "ExtractorRun") -> Evaluation:
        """Return what was found; `reader` says of the images what an extractor that read none cannot say."""
        a, b = self.sets or reader.sets
        made = provenance_of(self.extractor)
        real, fake = self._described or (
            EvaluatedSet(one.name, {**made, "source": one.name}, one.n) for one in reader._described
        )
        return Evaluation(
            self._results,
            real,
            fake,
            self.extractor.dims,
            assumed_protocol={"real": None, "fake": None},
            skipped={"real": a.skipped, "fake": b.skipped},
            cached={"real": bool(self.sets) and a.is_cached, "fake": bool(self.sets) and b.is_cached},
            device=self.extractor.device,
            host=os.uname().nodename,
            threads=_core.num_threads(),
            options=options,
            missing=dict(self.missing),
            sources={"real": a.found(), "fake": b.found()},
            **common,
        )


def _read(runs: Sequence[ExtractorRun], sources: Sequence[ImageSource], directory: RunDirectory | None) -> None:
    """Read both sides, in the tasks of the run directory if there is one."""
    if directory is None:
        for number, source in enumerate(sources):
            read_jointly([run.part(number) for run in runs], source)
        return
    joint = JointRun([run.part(0) for run in runs], directory)
    joint.begin(dict(zip(SIDES, sources, strict=True)))
    for number, side in enumerate(SIDES):
        joint.fill(side, [run.part(number) for run in runs])


def _by_side(runs: Sequence[ExtractorRun]) -> Iterable[tuple[ImageSet, ...]]:
    return zip(*(run.sets for run in runs), strict=True)


def check_extractors(extractors: Mapping[str, FeatureExtractor]) -> None:
    """Raise TypeError or ValueError unless all can be joined."""
    if not isinstance(extractors, Mapping) or not all(isinstance(name, str) for name in extractors):
        raise TypeError(f"extractors: expected a dict of names and extractors, got {type(extractors).__name__}")
    if not extractors:
        raise ValueError("extractors: expected at least one, got none")
    for one in extractors.values():
        check_extractor(one)
    JointExtractor(extractors)


def _check_stores(extractors: Mapping[str, FeatureExtractor]) -> None:
    """Raise ValueError if two extractors would write one store."""
    named: dict[tuple[Any, ...], str] = {}
    for name, one in extractors.items():
        same = named.setdefault(tuple(provenance_of(one).values()), name)
        if same != name:
            raise ValueError(f"store: extractors {same} and {name} are one network, with one InputSpec: leave one out")


def check_found(runs: Sequence[ExtractorRun], metrics: str | Sequence[str | Metric]) -> None:
    """Raise ValueError for a metric that was asked for by name and that no extractor has."""
    for key in runs[0].missing if metrics != ALL else ():
        if all(key in run.missing for run in runs):
            reasons = "; ".join(f"{run.name}: {run.missing[key]}" for run in runs)
            raise ValueError(f"{key}: cannot be computed for any of the extractors: {reasons}")


def open_side(source: Any, side: str, options: Mapping[str, Any]) -> ImageSource:
    """Return the images of a side, with its own labels; ValueError where they are features of one extractor."""
    given = load_known(source, options.get("key")) or load_store(source)
    if given is not None:
        raise ValueError(
            f"{given.name}: has the features of one extractor; several extractors need the images of both sides"
        )
    return open_images(source, {**options, "labels": labels_of_side(options.get("labels"), side)})
