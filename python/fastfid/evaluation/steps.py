"""An evaluation in three steps, for any scheduler: plan, part, reduce.

One process makes the plan. Any number of processes do the tasks, each those of its index. One process reduces the Parts
to the result that :func:`fastfid.evaluate` has, bit for bit. All see one run directory and the same files.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid._progress import ProgressMode, show_progress
from fastfid._remote import is_url
from fastfid.errors import WeightsError
from fastfid.evaluation.classes import check_labels
from fastfid.evaluation.evaluate import evaluate, open_both
from fastfid.evaluation.image_set import sources_of
from fastfid.evaluation.networks import extractor_beside_all
from fastfid.evaluation.opening import check_given, open_images
from fastfid.evaluation.reading import Reading
from fastfid.evaluation.result import Evaluation
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor
from fastfid.features.make import classifier_of, make_extractor, outputs_of_inception
from fastfid.metrics import ALL, make_metrics
from fastfid.metrics.base import Metric, check_gives
from fastfid.metrics.several import Missing
from fastfid.scale import RunDirectory
from fastfid.scale.engine import Work
from fastfid.scale.plan import SIDES, Plan
from fastfid.sources import ImageSource
from fastfid.sources.labels import labels_of_side

# Types of what the request of a plan has.
_REQUEST = {
    **dict.fromkeys(("paths", "missing"), list),
    **dict.fromkeys(("options", "labels", "outputs"), dict),
    **dict.fromkeys(("folder", "on_error", "device", "runtime"), str),
    **dict.fromkeys(("force", "per_class", "is_inception"), bool),
    "dims": int,
}

__all__ = ["metrics_of", "part", "plan", "reduce", "work_where_planned"]


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
        Another network, which :func:`part` then needs too. The other keywords are those of :func:`fastfid.evaluate`.

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
    no_classifier = _why_no_classifier(network, asked.values())
    missing.check(asked, partial(check_gives, network))
    how = (on_error, max_errors, False, False, time.time(), options)
    reading = Reading(network, asked, None, *how, per_class=per_class)
    sources = sources_of(sets)
    request = {
        "paths": [os.fsdecode(path) for path in (real, fake)],
        "folder": os.getcwd(),
        "metrics": names,
        "missing": list(missing),
        "no_classifier": no_classifier,
        "options": {name: _plain(value) for name, value in options.items()},
        "on_error": on_error,
        "max_errors": max_errors,
        "force": force,
        "per_class": per_class,
        "labels": {side: [one.labels_from, one.class_names] for side, one in sources.items() if one.has_labels},
        "is_inception": extractor is None,
        "device": network.device,
        "dims": network.dims,
        "outputs": dict(network.outputs or {"features": network.dims}),
        "runtime": network.runtime,
    }
    run.begin(sources, reading.decides(sources), request)
    return len(run.plan.tasks)


def part(
    run_dir: str | os.PathLike[str],
    index: int = 0,
    of: int = 1,
    *,
    extractor: FeatureExtractor | None = None,
    device: str | int = "auto",
    weights: str | os.PathLike[str] | None = None,
    num_workers: int | None = None,
    progress: ProgressMode = False,
) -> int:
    """Do the tasks `index`, ``index + of``, ... of a plan, but for those that are done.

    Parameters
    ----------
    run_dir : path
        The directory of :func:`plan`.
    index, of : int
        Which of how many processes this is, ``0 <= index < of``.
    extractor : FeatureExtractor, optional
        The network that the plan was made with. Default: Inception.
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
    request, decides = _request(run), run.plan.decides
    asked = _metrics(request)
    if extractor is None:
        _check_inception(run, request)
        outputs = frozenset(request["outputs"]) & outputs_of_inception(request["dims"], decides["protocol"])
        extractor = make_extractor(request["dims"], decides["protocol"], device, weights, decides["precision"], outputs)
    reading = Reading(
        extractor,
        asked,
        num_workers,
        request["on_error"],
        request["max_errors"],
        False,
        False,
        time.time(),
        _options(request),
        per_class=request["per_class"],
    )
    sources = {
        side: open_images(path, {**_options_of_side(request, side), "on_error": request["on_error"]})
        for side, path in zip(SIDES, _paths(request), strict=True)
        if side in run.plan.sides
    }
    run.begin(sources, reading.decides(sources))
    tasks = run.plan.tasks[index::of]
    options = {"num_workers": num_workers, "on_error": request["on_error"], "max_errors": request["max_errors"]}
    with show_progress(sum(task.count for task in tasks), progress, f"part {index} of {of}") as bar:
        for task in tasks:
            source = sources[task.side]
            for _ in run.parts([task], Work(source, extractor, reading.metrics_of(source), options)):
                pass
            bar.update(task.count)
    return run.done


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
    request, sides = _request(run), run.plan.sides
    network = _Planned(run.plan.decides, request, weights)
    both = [
        _PlannedSource(side, run.plan) if side in sides else path
        for side, path in zip(SIDES, _paths(request), strict=True)
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
        **_options(request),
    )


def metrics_of(run_dir: str | os.PathLike[str]) -> Any:
    """Return the names of the metrics that the plan asks for; None: the FID alone."""
    names = _request(RunDirectory(run_dir))["metrics"]
    return None if names == ["fid"] else names


def work_where_planned(run_dir: str) -> str:
    """Change to the folder in which a plan was made, if it is there, so that paths mean what they meant.

    Return the path of the run directory from the root on.
    """
    run = RunDirectory(run_dir)
    folder = _request(run)["folder"]
    if os.path.isdir(folder):
        os.chdir(folder)
    return str(run.path)


def _request(run: RunDirectory) -> Mapping[str, Any]:
    if run.plan.request is None:
        raise ValueError(f"{run.path}: was not made by fastfid plan; run that with the same sets and options")
    request = run.plan.request
    if not isinstance(request, Mapping) or not _REQUEST.items() <= {k: type(v) for k, v in request.items()}.items():
        raise ValueError(f"{run.path}: its plan is damaged; make it again: fastfid plan --fresh")
    return request


def _options(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(x) if name == "value_range" and x else x for name, x in request["options"].items()}


def _options_of_side(request: Mapping[str, Any], side: str) -> dict[str, Any]:
    options = _options(request)
    return {**options, "labels": labels_of_side(options.get("labels"), side)}


def _metrics(request: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics of a plan that can be computed."""
    return {key: metric for key, metric in make_metrics(request["metrics"]).items() if key not in request["missing"]}


def _paths(request: Mapping[str, Any]) -> list[str]:
    """Return the paths of the two sets, as they were given, or from the root on if this is another folder."""
    folder = request["folder"]
    if folder == os.getcwd():
        return list(request["paths"])
    return [path if is_url(path) else os.path.join(folder, path) for path in request["paths"]]


def _check_inception(run: RunDirectory, request: Mapping[str, Any]) -> None:
    if not request["is_inception"]:
        raise ValueError(
            f"{run.path}: was made with the network {run.plan.decides['extractor']}; pass it: part(..., extractor=)"
        )


def _why_no_classifier(network: FeatureExtractor, metrics: Iterable[Metric]) -> str | None:
    """Return why the network has no classifier; None: it has one, or no metric needs one."""
    if any(metric.needs_classifier for metric in metrics):
        try:
            network.classifier()
        except (ValueError, WeightsError) as error:
            return str(error.args[0])
    return None


def _plain(value: Any) -> Any:
    """Return an option in JSON's types."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


class _Planned(FeatureExtractor):
    """Says of itself what the network of a plan said, and runs no image."""

    batch_size = 1

    def __init__(self, decides: Mapping[str, Any], request: Mapping[str, Any], weights: Any):
        self.dims, self.identity = decides["dims"], decides["extractor"]
        self.protocol, self.precision = decides["protocol"], decides["precision"]
        self.device, self.runtime, self.outputs = request["device"], request["runtime"], request["outputs"]
        self._no_classifier: str | None = request["no_classifier"]
        self._classifier: Callable[[], NDArray[np.float32]] = partial(
            classifier_of, {"extractor": self.identity, "dims": self.dims, "source": "the run"}, weights
        )

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Raise an error."""
        raise RuntimeError("a reduction reads no image")

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Raise an error."""
        raise RuntimeError("a reduction reads no image")

    def classifier(self) -> NDArray[np.float32]:
        """Return the matrix of the Inception network; ValueError if the plan's network had none."""
        if self._no_classifier is not None:
            raise ValueError(self._no_classifier)
        return self._classifier()


class _PlannedSource(ImageSource):
    """A source of a plan, of which only the name, the length and what labels there are are known."""

    def __init__(self, side: str, plan: Plan):
        self.name = plan.sides[side].name
        self.notes = []
        self._n = plan.sides[side].n
        self.labels_from, names = (plan.request or {})["labels"].get(side, (None, None))
        self.class_names = names and tuple(names)
        self._digest: str | None = plan.decides.get("labels", {}).get(side)

    def __len__(self) -> int:
        return self._n

    def labels_digest(self) -> str | None:
        """Return the hash of the labels when the plan was made."""
        return self._digest

    def __iter__(self) -> Any:
        raise RuntimeError(f"{self.name}: a reduction reads no image")
