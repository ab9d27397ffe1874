"""Any metrics of several sets of images against one reference, from one reading of each."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

from fastfid._console import escaped
from fastfid._files import check_store_folder
from fastfid.assumptions import assume_protocols
from fastfid.evaluation.comparison import check_candidates, numbered
from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.networks import extractor_beside_all
from fastfid.evaluation.opening import check_given, load_known, load_store, open_images
from fastfid.evaluation.reading import Reading
from fastfid.extractor import SPATIAL
from fastfid.features.make import classifier_of
from fastfid.metrics import ALL, label_of, make_metrics
from fastfid.metrics.base import Metric, Result, check_gives, outputs_needed
from fastfid.metrics.differences import Difference, compare_measured, measure
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.several import Missing, results_of
from fastfid.options import StatisticsOptions, check_keywords
from fastfid.record import SCHEMA, metric_rows
from fastfid.statistics import check_compatible

__all__ = ["CandidateMetrics", "MetricsComparison", "compare_metrics"]


@dataclass(frozen=True)
class CandidateMetrics:
    """The metrics of one candidate.

    Attributes
    ----------
    name : str
    n : int or None
        Number of images; None where its statistics do not say.
    results : dict of str to Result
        By name, in the order in which they were asked for.
    meta : dict
        Provenance of the features.
    """

    name: str
    n: int | None
    results: Mapping[str, Result]
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class MetricsComparison:
    """What :func:`compare_metrics` has found.

    Attributes
    ----------
    reference : str
        Name of the reference.
    candidates : tuple of CandidateMetrics
        In the order in which they were given: some metrics are better where they are large.
    differences : tuple of Difference
        Of the FIDs of every two candidates; empty where the FID was not asked for.
    missing : dict of str to str
        With ``metrics="all"``: the metrics that could not be computed of every candidate, and why.
    n : int or None
        Number of images of the reference.
    meta : dict
        Provenance of the reference's features.
    """

    reference: str
    candidates: tuple[CandidateMetrics, ...]
    differences: tuple[Difference, ...]
    missing: Mapping[str, str]
    n: int | None
    meta: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: the object of ``fastfid compare --metrics --json`` (docs/json.md)."""
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "candidates": [
                {"name": one.name, "n": one.n, "metrics": metric_rows(one.results, self, one)}
                for one in self.candidates
            ],
            "differences": [vars(one) for one in self.differences],
            "missing": dict(self.missing),
            "extractor": self.meta.get("extractor"),
        }

    def table(self) -> str:
        """Return the table and the sentences that ``fastfid compare --metrics`` prints."""
        names = list(self.candidates[0].results)
        labels = [label_of(name, [self.meta.get("extractor")]) for name in names]
        rows = [["candidate", *labels, "n"]]
        for one in self.candidates:
            cells = [_cell(one.results[name]) for name in names]
            rows.append([escaped(one.name), *cells, "unknown" if one.n is None else str(one.n)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        for pair in self.differences:
            error = "" if pair.standard_error is None else f" +- {pair.standard_error:.2g}"
            lines.append(
                f"{escaped(pair.a)} and {escaped(pair.b)}, FID: {pair.verdict}; difference {pair.difference:.4g}{error}"
            )
        return "\n".join(lines)


def _cell(result: Result) -> str:
    error = "" if result.standard_error is None else f" +- {result.standard_error:.2g}"
    return f"{result.value:.6g}{error}"


def compare_metrics(
    reference: Any,
    candidates: Sequence[Any],
    *,
    metrics: str | Sequence[str | Metric],
    names: Sequence[str] | None = None,
    force: bool = False,
    store: str | os.PathLike[str] | None = None,
    **keywords: Unpack[StatisticsOptions],
) -> MetricsComparison:
    """Return metrics of several sets of images beside one reference. Every set is read once.

    Parameters
    ----------
    reference, candidates, names, force
        See :func:`fastfid.compare`. The reference is the real side.
    metrics : list of str or of Metric, or "all"
        See :func:`fastfid.evaluate`.
    store : path, optional
        Keep the features of each set in a folder below this one, as :func:`fastfid.evaluate` does. Without it, metrics
        of whole rows hold the features of all sets in memory.
    **keywords
        See :func:`fastfid.compute_statistics`.

    Raises
    ------
    TypeError, ValueError
        Whatever :func:`fastfid.compare` and :func:`fastfid.evaluate` raise.

    Examples
    --------
    >>> found = compare_metrics("real", ["fake", "real"], metrics=["fid", "mind"], dims=64)  # folders of four pictures
    >>> [one.name for one in found.candidates], found.candidates[1].results["fid"].value < 1e-3
    (['fake', 'real'], True)
    """
    opened_at, options = time.time(), dict(keywords)
    how = _how(options, force, store)
    check_store_folder(store)
    asked, missing = make_metrics(metrics), Missing(lenient=metrics == ALL)
    spatial = any(SPATIAL in metric.needs for metric in asked.values())
    sources = [reference, *check_candidates(candidates, names)]
    sets = [_open(source, how, spatial) for source in sources]
    for place, one in enumerate(sets):
        if one.source is None:
            missing.check(asked, partial(check_given, one.given, is_real=place == 0))
    _read(sets, asked, missing, how, opened_at)
    real, *others = sets
    called = numbered([_name(one) for one in others] if names is None else list(names))
    found = [results_of(asked, missing, real, one) for one in others]
    first = next(iter(asked.values()))
    samples = [one.sample(first) for one in sets]
    compared = tuple(
        CandidateMetrics(name, sample.n, {key: results[key] for key in found[-1]}, sample.meta)
        for name, sample, results in zip(called, samples[1:], found, strict=True)
    )
    differences = _differences(asked, real, others, called)
    return MetricsComparison(_name(real), compared, differences, dict(missing), samples[0].n, samples[0].meta)


def _how(options: dict[str, Any], force: bool, store: str | os.PathLike[str] | None) -> How:
    """Return the keywords as one object; what is of a source stays in `options`."""
    defaults: dict[str, Any] = {"dims": None, "protocol": None, "device": "auto", "precision": "float32"}
    defaults |= {"weights": None, "extractor": None, "batch_size": None, "num_workers": None, "on_error": "raise"}
    defaults |= {"max_errors": None, "progress": False, "cache": False}
    network = {name: options.pop(name, default) for name, default in defaults.items()}
    check_keywords(options)
    return How(**network, force=force, store=store, options=options)


def _open(source: Any, how: How, spatial: bool) -> ImageSet:
    known = load_known(source, how.options.get("key"), spatial=spatial)
    one = ImageSet(known, store=None if known is not None else load_store(source, how.max_errors))
    if one.given is None:
        one.source = open_images(source, {**how.options, "on_error": how.on_error})
    return one


def _name(one: ImageSet) -> str:
    return one.known.name if one.known is not None else one.name


def _read(sets: Sequence[ImageSet], asked: dict[str, Metric], missing: Missing, how: How, opened_at: float) -> None:
    """Read the sets that are images; check that all were made alike."""
    given = [one.given for one in sets if one.given is not None]
    reading = None
    if len(given) < len(sets):
        extractor = extractor_beside_all(given, {**how.network(), "outputs": outputs_needed(asked.values())})
        missing.check(asked, partial(check_gives, extractor))
        reading = Reading.of(extractor, asked, how, opened_at)
        reading.prepare(sets)
    protocol = None if reading is None else reading.extractor.protocol
    for one in sets[1:]:
        assume_protocols([sets[0].given, one.given], protocol)
        if sets[0].given is not None and one.given is not None:
            check_compatible(sets[0].given, one.given, force=how.force)
    for one in sets:
        if reading is not None and one.source is not None:
            reading.fill(one, one.source)
        elif one.store is not None:
            one.take(one.store, asked)
            one.classifier = partial(classifier_of, one.meta, how.weights)


def _differences(
    asked: Mapping[str, Metric], real: ImageSet, others: Sequence[ImageSet], names: Sequence[str]
) -> tuple[Difference, ...]:
    """Return the differences of the FIDs, whose reference is the same: its noise cancels."""
    metric = next((one for one in asked.values() if isinstance(one, FrechetInceptionDistance)), None)
    if metric is None:
        return ()
    reference = metric.statistics(real.sample(metric))
    fitted = [
        replace(metric.statistics(one.sample(metric)), name=name) for one, name in zip(others, names, strict=True)
    ]
    return compare_measured([measure(reference, one) for one in fitted], reference.n)[1]
