"""The five numbers of guided-diffusion's evaluator ("ADM", Dhariwal & Nichol 2021) of a reference and samples.

The evaluator is https://github.com/openai/guided-diffusion/tree/main/evaluations, in TensorFlow. docs/adm.md says what
it computes, and what differs here.
"""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from fastfid import mistakes
from fastfid._console import remark, warn
from fastfid._files import check_store_folder
from fastfid._progress import ProgressMode
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.evaluate import evaluate_sets
from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.opening import load_known, load_store, open_images
from fastfid.evaluation.result import Evaluation
from fastfid.extractor import FeatureExtractor
from fastfid.metrics.base import Metric, part_for
from fastfid.metrics.fid import FrechetInceptionDistance, SpatialFID
from fastfid.metrics.logits import InceptionScoreMetric
from fastfid.metrics.nearest import PrecisionRecall
from fastfid.metrics.several import Missing
from fastfid.options import DEFAULT_DIMS, PrecisionName, ProtocolName, SourceOptions, check_keywords
from fastfid.sources import is_statistics_file
from fastfid.statistics import Statistics

__all__ = ["LABELS", "evaluate_adm"]

# What the evaluator prints before each number, in its order, by the name that an evaluation has for the number.
LABELS = {
    "is:adm": "Inception Score",
    "fid": "FID",
    "sfid": "sFID",
    "precision:adm": "Precision",
    "recall:adm": "Recall",
}


def evaluate_adm(
    reference: Any,
    samples: Any,
    *,
    protocol: ProtocolName = "tensorflow",
    device: str | int = "auto",
    precision: PrecisionName = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
    force: bool = False,
    store: str | os.PathLike[str] | None = None,
    needs_standard_error: bool = True,
    **options: Unpack[SourceOptions],
) -> Evaluation:
    """Return the Inception Score, FID, sFID, precision and recall as guided-diffusion's evaluator defines them.

    Every image is read once and goes through the network once. FID and sFID take the statistics of a file (``mu``,
    ``sigma``; ``mu_s``, ``sigma_s``) where it has them, else those of its images. The Inception Score is that of blocks
    of 5,000 samples in their order. Precision and recall compare the images of both files, with k = 3.

    Parameters
    ----------
    reference, samples : path, array, Statistics, ...
        An ``.npz`` with images under ``arr_0``, statistics, or both, or any other source of :func:`fastfid.evaluate`.
    protocol : str
        Preprocessing of images. The evaluator's is "tensorflow".
    needs_standard_error : bool
        Whether to estimate the standard errors and biases of FID and sFID, which takes seconds.
    others
        See :func:`fastfid.evaluate`.

    Returns
    -------
    Evaluation
        The values under the names of :data:`LABELS`. Those that cannot be computed are in ``missing``, with the reason:
        the Inception Score without the network's classifier, precision and recall without the images of both sides, the
        sFID without spatial statistics and images.

    Raises
    ------
    ValueError
        The FID cannot be computed, or an argument is invalid. The other exceptions of :func:`fastfid.evaluate` are
        raised too.

    Examples
    --------
    >>> found = evaluate_adm("real", "fake")  # two folders of four pictures
    >>> "is:adm" in found.missing or found["is:adm"].value >= 1
    True
    >>> found["fid"].value > 0, found["recall:adm"].value
    (True, ...)
    """
    check_keywords(options)
    started, opened_at = time.perf_counter(), time.time()
    how = How(
        dims=DEFAULT_DIMS,
        protocol=protocol,
        device=device,
        precision=precision,
        weights=weights,
        extractor=extractor,
        num_workers=num_workers,
        on_error=on_error,
        max_errors=max_errors,
        progress=progress,
        force=force,
        store=store,
        options=options,
    )
    check_store_folder(store)
    if same := mistakes.same_place(reference, samples, recursive=options.get("recursive", False)):
        warn(same, SuspiciousInputWarning)
    gaussians = {"needs_bias": needs_standard_error, "needs_standard_error": needs_standard_error}
    metrics: tuple[Metric, ...] = (
        FrechetInceptionDistance(**gaussians),
        SpatialFID(**gaussians),
        InceptionScoreMetric(convention="adm"),
        PrecisionRecall(convention="adm"),
    )
    asked = {metric.key: metric for metric in metrics}
    opening = {**options, "on_error": on_error}
    sets = (_open(reference, opening, max_errors), _open(samples, opening, max_errors))
    runs_inception = extractor is None and any(one.source is not None for one in sets)
    for one in sets:
        if runs_inception and one.given is not None and one.given.d != DEFAULT_DIMS:
            raise ValueError(f"{one.given.name} has {one.given.d} dims, and these numbers are of {DEFAULT_DIMS}")
        _check_protocol(one, protocol, force)
    missing = Missing(lenient=True, essential="fid")
    found = evaluate_sets(sets, asked, missing, how, started, opened_at, may_overlap=not same)
    return _in_order(found)


def _open(source: Any, options: Mapping[str, Any], max_errors: int | None) -> ImageSet:
    """Return one side, with the statistics and the images that it has."""
    if (store := load_store(source, max_errors)) is not None:
        return ImageSet(None, store=store)
    known = load_known(source, spatial=True)
    key = options.get("key") or "arr_0"
    if known is not None and (isinstance(source, Statistics) or is_statistics_file(source, key)):
        return ImageSet(known)
    images = open_images(source, options)
    if known is not None:
        stored = "FID and sFID" if part_for(SpatialFID(), known) is not None else "FID"
        remark(f"{images.name}: {stored} of its statistics, the other numbers of its {len(images):,} images")
    return ImageSet(known, images)


def _check_protocol(one: ImageSet, protocol: str, force: bool) -> None:
    """Refuse features or statistics of another protocol, also where both sides are given and have the same."""
    stated = one.given.meta.get("protocol") if one.given is not None else None
    if one.given is not None and stated not in (None, protocol) and not force:
        raise ValueError(
            f"{one.given.name} was made with protocol {stated}, and these numbers are of {protocol}: make it again with"
            f" --protocol {protocol}, or pass --protocol {stated}, whose numbers are not the evaluator's"
        )


def _in_order(found: Evaluation) -> Evaluation:
    """Return the evaluation with the evaluator's numbers alone, in its order."""
    missing = dict(found.missing)
    if (why := missing.pop("prdc:adm", None)) is not None:
        missing |= {"precision:adm": why, "recall:adm": why}
    return dataclasses.replace(
        found,
        results={name: found.results[name] for name in LABELS if name in found.results},
        missing={name: missing[name] for name in LABELS if name in missing},
    )
