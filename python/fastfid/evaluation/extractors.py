"""Metrics of several extractors from one pass over each set: every image is decoded once."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from fastfid import _core, mistakes
from fastfid._console import warn
from fastfid._progress import ProgressMode
from fastfid.errors import NumericalError, SuspiciousInputWarning
from fastfid.evaluation.evaluate import options_in_effect
from fastfid.evaluation.reading import ImageSet, Reading, check_memory, load_known, load_store, open_images
from fastfid.evaluation.result import EvaluatedSet, Evaluation
from fastfid.extractor import FeatureExtractor, check_extractor, outputs_of
from fastfid.features.joint import JointExtractor
from fastfid.metrics import ALL, label_of, make_metrics
from fastfid.metrics.base import Metric, check_gives
from fastfid.metrics.rows import FeatureRows
from fastfid.metrics.several import Accumulators, Missing, results_of
from fastfid.options import SourceOptions, check_options
from fastfid.pipeline import Report
from fastfid.provenance import provenance_of
from fastfid.sources import ImageSource

__all__ = ["ExtractorsEvaluation", "evaluate_extractors"]


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
    **options: Unpack[SourceOptions],
) -> ExtractorsEvaluation:
    """Return metrics of two sets of images for each of several extractors, from one pass over each set.

    Every image is decoded once and prepared for each extractor. The values are those of :func:`evaluate` with each
    extractor alone, bit for bit.

    Parameters
    ----------
    real, fake : path, array, tensor, iterable, Dataset, generator or list of paths
        Images; see :func:`compute_statistics`, also for the other keywords. Statistics and stores of features belong to
        one extractor and are refused.
    extractors : dict of str to FeatureExtractor
        By what they are called in the result. Each needs inputs of one size (its `input_shape`).
    metrics : list of str or Metric, or "all"
        See :func:`evaluate`. A metric that one of the extractors does not give what it needs is in ``missing`` of its
        evaluation; one that none gives what it needs is an error.

    Returns
    -------
    ExtractorsEvaluation

    Raises
    ------
    TypeError
        `extractors` is not a dict of extractors.
    ValueError
        There is no extractor, one has no fixed size of inputs, or a side is no images. The exceptions of
        :func:`evaluate` are raised too.

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
    check_options(None, num_workers, on_error, max_errors, None, "cpu", "float32", None, progress, options)
    joint = _joined(extractors)
    asked = metrics if isinstance(metrics, str) else list(metrics)
    runs = [_Run(name, one, asked) for name, one in extractors.items()]
    _check_found(runs, asked)
    if remark := mistakes.same_place(real, fake, recursive=options.get("recursive", False)):
        warn(remark, SuspiciousInputWarning)
    sources = [_images(source, options) for source in (real, fake)]
    reading = Reading(joint, {}, num_workers, on_error, max_errors, progress, False, opened_at, options)
    loaded = time.perf_counter()
    reports = [_read(reading, joint, runs, source) for source in sources]
    if not remark and (shared := mistakes.overlap(reports[0].census, reports[1].census)):
        warn(shared, SuspiciousInputWarning)
    extracted = time.perf_counter()
    results = [results_of(run.asked, run.missing, *run.sets) for run in runs]
    _check_found(runs, asked)
    finished = time.perf_counter()
    seconds = {
        "load": loaded - started,
        "features": extracted - loaded,
        "distance": finished - extracted,
        "total": finished - started,
    }
    date = datetime.fromtimestamp(opened_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ExtractorsEvaluation(
        {
            run.name: run.evaluation(found, options_in_effect(options, run.asked, on_error=on_error), seconds, date)
            for run, found in zip(runs, results, strict=True)
        }
    )


class _Run:
    """One extractor with its metrics, and the two sets as it saw them."""

    def __init__(self, name: str, extractor: FeatureExtractor, metrics: str | Sequence[str | Metric]):
        self.name = name
        self.extractor = extractor
        self.asked = make_metrics(metrics)
        self.missing = Missing(lenient=True)
        self.missing.check(self.asked, partial(check_gives, extractor))
        self.sets: list[ImageSet] = []

    def begin(self, source: ImageSource) -> Accumulators:
        """Return empty accumulators for another set."""
        accumulators = Accumulators(self.asked, outputs_of(self.extractor))
        meta = {**provenance_of(self.extractor), "source": source.name}
        self.sets.append(
            ImageSet(None, source, name=source.name, meta=meta, seen=accumulators, classifier=self.extractor.classifier)
        )
        return accumulators

    def evaluation(
        self, results: Mapping[str, Any], options: Mapping[str, Any], seconds: Mapping[str, float], date: str
    ) -> Evaluation:
        a, b = self.sets
        first = next(iter(self.asked.values()))
        return Evaluation(
            results,
            EvaluatedSet.of(a.sample(first)),
            EvaluatedSet.of(b.sample(first)),
            self.extractor.dims,
            assumed_protocol={"real": None, "fake": None},
            skipped={"real": a.skipped, "fake": b.skipped},
            cached={"real": False, "fake": False},
            device=self.extractor.device,
            seconds=seconds,
            date=date,
            host=os.uname().nodename,
            threads=_core.num_threads(),
            options=options,
            missing=dict(self.missing),
            sources={"real": a.found(), "fake": b.found()},
        )


def _joined(extractors: Mapping[str, FeatureExtractor]) -> JointExtractor:
    if not isinstance(extractors, Mapping) or not all(isinstance(name, str) for name in extractors):
        raise TypeError(f"extractors: expected a dict of names and extractors, got {type(extractors).__name__}")
    if not extractors:
        raise ValueError("extractors: expected at least one, got none")
    for one in extractors.values():
        check_extractor(one)
    return JointExtractor(extractors)


def _check_found(runs: Sequence[_Run], metrics: str | Sequence[str | Metric]) -> None:
    """Raise ValueError for a metric that was asked for by name and that no extractor has."""
    for key, reason in runs[0].missing.items() if metrics != ALL else ():
        if all(key in run.missing for run in runs):
            raise ValueError(f"{key}: {reason}")


def _images(source: Any, options: Mapping[str, Any]) -> ImageSource:
    given = load_known(source, options.get("key")) or load_store(source)
    if given is not None:
        raise ValueError(
            f"{given.name}: has the features of one extractor; several extractors need the images of both sides"
        )
    return open_images(source, options)


def _read(reading: Reading, joint: JointExtractor, runs: Sequence[_Run], source: ImageSource) -> Report:
    """Read a set once, for all runs; return the report."""
    accumulators = [run.begin(source) for run in runs]
    rows = [one for of_one in accumulators for one in of_one.values() if isinstance(one, FeatureRows)]
    check_memory([(source, sum(one.d for one in rows))])

    def consume(outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        for number, (run, one) in enumerate(zip(runs, accumulators, strict=True)):
            try:
                one.update(joint.of(number, outputs), indices)
            except NumericalError as error:
                raise NumericalError(f"{source.name}: {run.name}: {error}") from None

    report = reading.extract(source, consume)
    for run in runs:
        run.sets[-1] = replace(run.sets[-1], report=report)
    return report
