"""An evaluation in three steps, for any scheduler: plan, part, reduce.

One process makes the plan. Any number of processes do the tasks, each those of its index. One process reduces the Parts
to the result that :func:`fastfid.evaluate` has, bit for bit. All see one run directory and the same files.
"""

import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from fastfid._progress import ProgressMode, show_progress
from fastfid.evaluation.classes import check_labels
from fastfid.evaluation.evaluate import evaluate, open_both
from fastfid.evaluation.image_set import sources_of
from fastfid.evaluation.joint_steps import reading_of_all
from fastfid.evaluation.networks import extractor_beside_all
from fastfid.evaluation.opening import check_given, open_images
from fastfid.evaluation.planned import (
    Planned,
    PlannedSource,
    network_in_request,
    new_request,
    opened_networks,
    options_of,
    options_of_side,
    paths_of,
    request_of,
)
from fastfid.evaluation.reading import Reading
from fastfid.evaluation.result import Evaluation
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor
from fastfid.metrics import ALL, make_metrics
from fastfid.metrics.base import Metric, check_gives
from fastfid.metrics.several import Missing
from fastfid.scale import RunDirectory
from fastfid.scale.engine import Work
from fastfid.scale.plan import SIDES

__all__ = ["are_several", "metrics_of", "part", "plan", "reduce", "work_where_planned"]


def plan(
    real: str | os.PathLike[str],
    fake: str | os.PathLike[str],
    run: RunDirectory | str | os.PathLike[str],
    *,
    metrics: Literal["all"] | Iterable[str] = ("fid",),
    dims: Any = None,
    protocol: Any = None,
    device: str | int = "auto",
    precision: Any = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    force: bool = False,
    per_class: bool = False,
    **options: Any,
) -> int:
    """Write the plan of an evaluation into a run directory: the tasks that :func:`part` does.

    Parameters
    ----------
    real, fake : path
        The two sets, or statistics.
    run : path or RunDirectory
        The directory, a folder or a URL to which fsspec can write, and how the sets are cut into tasks.
    metrics : "all" or list of str
        Names of metrics.
    extractor : FeatureExtractor, optional
        Another network. :func:`part` then needs it too, unless it is an :class:`fastfid.OnnxExtractor`, which `part`
        opens from its file. The other keywords are those of :func:`fastfid.evaluate`.

    Returns
    -------
    int
        Number of tasks.

    Raises
    ------
    ValueError
        The directory has the plan of something else, or a set does not come from files. Also the errors of
        :func:`fastfid.evaluate`.

    Examples
    --------
    >>> plan("real", "fake", "run", dims=64)  # two folders of four pictures
    2
    >>> part("run")
    2
    >>> reduce("run")["fid"].value == evaluate("real", "fake", dims=64)["fid"].value
    True
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    names = metrics if metrics == ALL else list(metrics)
    asked = make_metrics(names)
    spatial = any(SPATIAL in metric.needs for metric in asked.values())
    sets = open_both(real, fake, {**options, "on_error": on_error}, False, spatial, max_errors)
    check_labels(*sets, per_class=per_class)
    if not sources_of(sets):
        raise ValueError(
            "both sets are statistics or stores: there are no images to read, and no tasks; compare them by fastfid A B"
        )
    missing = Missing(lenient=metrics == ALL)
    for one in sets:
        if one.source is None:
            missing.check(asked, partial(check_given, one.given, is_real=one is sets[0]))
    outputs = frozenset({FEATURES}).union(*(metric.needs for metric in asked.values()))
    wanted: dict[str, Any] = {"dims": dims, "protocol": protocol, "device": device, "weights": weights}
    wanted |= {"extractor": extractor, "precision": precision, "force": force, "outputs": outputs}
    network = extractor_beside_all([one.given for one in sets if one.given is not None], wanted)
    described = network_in_request("", network, asked.values())
    missing.check(asked, partial(check_gives, network))
    how = (on_error, max_errors, False, False, time.time(), options)
    reading = Reading(network, asked, None, *how, per_class=per_class)
    sources = sources_of(sets)
    request = new_request(
        (real, fake),
        names,
        options,
        sources,
        [described],
        missing=missing,
        on_error=on_error,
        max_errors=max_errors,
        force=force,
        per_class=per_class,
    )
    run.begin(sources, reading.decides(sources), request)
    return len(run.plan.tasks)


def part(
    run_dir: str | os.PathLike[str],
    index: int = 0,
    of: int = 1,
    *,
    extractor: FeatureExtractor | Mapping[str, FeatureExtractor] | None = None,
    device: str | int = "auto",
    weights: str | os.PathLike[str] | None = None,
    num_workers: int | None = None,
    progress: ProgressMode = False,
) -> int:
    """Do the tasks `index`, ``index + of``, ... of a plan, but for those that are done.

    Parameters
    ----------
    run_dir : path
        The directory of :func:`plan` or :func:`plan_extractors`.
    index, of : int
        Which of how many processes this is, ``0 <= index < of``.
    extractor : FeatureExtractor, or dict of str to FeatureExtractor, optional
        The network that the plan was made with, or the networks. Default: those are opened, which can be done of
        Inception and of ONNX files.
    device, weights, num_workers, progress
        See :func:`fastfid.compute_statistics`.

    Returns
    -------
    int
        How many tasks were done here.

    Raises
    ------
    ValueError
        The images, the network or the versions are others than those of the plan.

    Examples
    --------
    >>> plan("real", "fake", "run", dims=64)  # two folders of four pictures
    2
    >>> [part("run", index, 2) for index in (0, 1)]  # in two processes, at once
    [1, 1]
    """
    if not 0 <= index < of:
        raise ValueError(f"index: expected 0 to {of - 1}, as there are {of} processes; got {index}")
    run = RunDirectory(run_dir)
    request = request_of(run)
    networks = _as_planned(run, extractor) if extractor is not None else opened_networks(run, device, weights)
    reading = _reading(request, networks, num_workers)
    sources = {
        side: open_images(path, options_of_side(request, side))
        for side, path in zip(SIDES, paths_of(request), strict=True)
        if side in run.plan.sides
    }
    run.begin(sources, reading.decides(sources))
    tasks = run.plan.tasks[index::of]
    options = {"num_workers": num_workers, "on_error": request["on_error"], "max_errors": request["max_errors"]}
    with show_progress(sum(task.count for task in tasks), progress, f"part {index} of {of}") as bar:
        for task in tasks:
            source = sources[task.side]
            for _ in run.parts([task], Work(source, reading.extractor, reading.metrics_of(source), options)):
                pass
            bar.update(task.count)
    return run.done


def _as_planned(run: RunDirectory, given: Any) -> Mapping[str, FeatureExtractor]:
    """Return the networks that a caller gives, by the names that the plan has."""
    request = request_of(run)
    names = [one["name"] for one in request["networks"]]
    if not request["are_several"]:
        return {names[0]: given}
    if not isinstance(given, Mapping) or set(given) != set(names):
        got = ", ".join(given) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"extractor: expected a dict of {', '.join(names)}, which the plan names; got {got}")
    return {name: given[name] for name in names}


def _reading(request: Mapping[str, Any], networks: Mapping[str, FeatureExtractor], num_workers: int | None) -> Reading:
    """Return how the tasks of a plan read."""
    on_error, max_errors, options = request["on_error"], request["max_errors"], options_of(request)
    if request["are_several"]:
        return reading_of_all(networks, request["metrics"], num_workers, on_error, max_errors, options)
    (network,) = networks.values()
    how = (num_workers, on_error, max_errors, False, False, time.time(), options)
    return Reading(network, _metrics(request), *how, per_class=request["per_class"])


def reduce(
    run_dir: str | os.PathLike[str], *, metrics: Any = None, weights: str | os.PathLike[str] | None = None
) -> Evaluation:
    """Return the evaluation of a plan whose tasks are done. No image is read, and no network is loaded.

    Parameters
    ----------
    run_dir : path
        The directory of :func:`plan`.
    metrics : list of Metric, optional
        The metrics of the plan as objects with options. Default: by their names.
    weights : path, optional
        Inception weights, for metrics that need the network's classifier.

    Returns
    -------
    Evaluation
        That of :func:`fastfid.evaluate` of the two sets, bit for bit.

    Raises
    ------
    ValueError
        Parts are missing or damaged. The message has the command that makes them.

    Examples
    --------
    >>> plan("real", "fake", "run", dims=64), part("run")  # two folders of four pictures
    (2, 2)
    >>> reduce("run")["fid"].value == evaluate("real", "fake", dims=64)["fid"].value
    True
    """
    run = RunDirectory(run_dir, reads_images=False)
    request, sides = request_of(run), run.plan.sides
    if request["are_several"]:
        raise ValueError(f"{run.path}: is the plan of several networks; reduce it by fastfid.reduce_extractors")
    network = Planned(request["networks"][0], weights)
    both = [
        PlannedSource(side, run.plan) if side in sides else path
        for side, path in zip(SIDES, paths_of(request), strict=True)
    ]
    return evaluate(
        *both,
        metrics=request["metrics"] if metrics is None else metrics,
        extractor=network,
        on_error=request["on_error"],
        max_errors=request["max_errors"],
        force=request["force"],
        per_class=request["per_class"],
        run_dir=run,
        **options_of(request),
    )


def are_several(run_dir: str | os.PathLike[str]) -> bool:
    """Return whether the plan is of several networks."""
    return bool(request_of(RunDirectory(run_dir))["are_several"])


def metrics_of(run_dir: str | os.PathLike[str]) -> Any:
    """Return the names of the metrics that the plan asks for; None: the FID alone."""
    names = request_of(RunDirectory(run_dir))["metrics"]
    return None if names == ["fid"] else names


def work_where_planned(run_dir: str) -> str:
    """Change to the folder in which a plan was made, if it is there, so that paths mean what they meant.

    Return the path of the run directory from the root on.
    """
    run = RunDirectory(run_dir)
    folder = request_of(run)["folder"]
    if os.path.isdir(folder):
        os.chdir(folder)
    return str(run.path)


def _metrics(request: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics of a plan that can be computed."""
    return {key: metric for key, metric in make_metrics(request["metrics"]).items() if key not in request["missing"]}
