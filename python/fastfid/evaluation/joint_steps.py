"""Plan, part, reduce for several extractors: each task decodes its images once for all of them."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fastfid.evaluation.extractors import (
    ExtractorRun,
    ExtractorsEvaluation,
    check_extractors,
    check_found,
    evaluate_extractors,
    open_side,
)
from fastfid.evaluation.joint_run import joint_reading
from fastfid.evaluation.planned import Planned, PlannedSource, network_in_request, new_request, options_of, request_of
from fastfid.evaluation.reading import Reading
from fastfid.extractor import FeatureExtractor
from fastfid.metrics import ALL, make_metrics
from fastfid.scale import RunDirectory
from fastfid.scale.plan import SIDES

__all__ = ["plan_extractors", "reading_of_all", "reduce_extractors"]


def plan_extractors(
    real: str | os.PathLike[str],
    fake: str | os.PathLike[str],
    extractors: Mapping[str, FeatureExtractor],
    run: RunDirectory | str | os.PathLike[str],
    *,
    metrics: Literal["all"] | Iterable[str] = ("fid",),
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    **options: Any,
) -> int:
    """Write the plan of an evaluation of several extractors into a run directory, for :func:`part`.

    Parameters
    ----------
    real, fake : path
        The two sets of images.
    extractors : dict of str to FeatureExtractor
        See :func:`fastfid.evaluate_extractors`. :func:`part` opens :class:`fastfid.InceptionV3` and
        :class:`fastfid.OnnxExtractor` itself; where there are others it needs the dict.
    run : path or RunDirectory
        See :func:`plan`.
    metrics : "all" or list of str
        Names of metrics. The other keywords are those of :func:`fastfid.evaluate_extractors`.

    Returns
    -------
    int
        Number of tasks.

    Raises
    ------
    ValueError
        The directory has the plan of something else, or a set does not come from files. Also the errors of
        :func:`fastfid.evaluate_extractors`.

    Examples
    --------
    >>> import fastfid
    >>> both = {name: fastfid.InceptionV3(64, protocol=name, device="cpu") for name in ("pytorch-fid", "tensorflow")}
    >>> plan_extractors("real", "fake", both, "run"), fastfid.part("run")  # two folders of four pictures
    (2, 2)
    >>> found = reduce_extractors("run")
    >>> found["tensorflow"]["fid"].value == evaluate_extractors("real", "fake", both)["tensorflow"]["fid"].value
    True
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    check_extractors(extractors)
    names = metrics if metrics == ALL else list(metrics)
    reading = reading_of_all(extractors, names, None, on_error, max_errors, options)
    paths = dict(zip(SIDES, (real, fake), strict=True))
    sources = {side: open_side(path, side, {**options, "on_error": on_error}) for side, path in paths.items()}
    asked = make_metrics(names).values()
    networks = [network_in_request(name, one, asked) for name, one in extractors.items()]
    request = new_request(
        paths.values(), names, options, sources, networks, on_error=on_error, max_errors=max_errors, are_several=True
    )
    run.begin(sources, reading.decides(sources), request)
    return len(run.plan.tasks)


def reading_of_all(
    extractors: Mapping[str, FeatureExtractor],
    metrics: str | list[str],
    num_workers: int | None,
    on_error: Literal["raise", "skip"],
    max_errors: int | None,
    options: Mapping[str, Any],
) -> Reading:
    """Return how a task reads for all extractors that have one of the metrics.

    Raises
    ------
    ValueError
        None of the extractors has a metric that was asked for by name.
    """
    runs = [ExtractorRun(name, one, metrics) for name, one in extractors.items()]
    check_found(runs, metrics)
    how = (num_workers, on_error, max_errors, False, False, time.time(), options)
    return joint_reading({run.name: Reading(run.extractor, run.asked, *how) for run in runs if run.asked})


def reduce_extractors(
    run_dir: str | os.PathLike[str], *, metrics: Any = None, weights: str | os.PathLike[str] | None = None
) -> ExtractorsEvaluation:
    """Return the evaluations of a plan of several extractors whose tasks are done. No image is read.

    Parameters
    ----------
    run_dir : path
        The directory of :func:`plan_extractors`.
    metrics, weights
        See :func:`reduce`.

    Returns
    -------
    ExtractorsEvaluation
        That of :func:`fastfid.evaluate_extractors` of the two sets, bit for bit.

    Raises
    ------
    ValueError
        Parts are missing or damaged. The message has the command that makes them. Or the plan is of one network alone.

    Examples
    --------
    >>> import fastfid
    >>> both = {name: fastfid.InceptionV3(64, protocol=name, device="cpu") for name in ("pytorch-fid", "tensorflow")}
    >>> plan_extractors("real", "fake", both, "run"), fastfid.part("run")  # two folders of four pictures
    (2, 2)
    >>> list(reduce_extractors("run"))
    ['pytorch-fid', 'tensorflow']
    """
    run = RunDirectory(run_dir, reads_images=False)
    request = request_of(run)
    if not request["are_several"]:
        raise ValueError(f"{run.path}: is the plan of one network; reduce it by fastfid.reduce")
    real, fake = (PlannedSource(side, run.plan) for side in SIDES)
    return evaluate_extractors(
        real,
        fake,
        {one["name"]: Planned(one, weights) for one in request["networks"]},
        metrics=request["metrics"] if metrics is None else metrics,
        on_error=request["on_error"],
        max_errors=request["max_errors"],
        run_dir=run,
        **options_of(request),
    )
