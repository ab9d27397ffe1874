"""What a plan says for processes that have nothing but its run directory: paths, options, and the networks."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._remote import is_url
from fastfid.errors import WeightsError
from fastfid.extractor import FeatureExtractor, outputs_of
from fastfid.features.make import classifier_of, make_extractor, outputs_of_inception
from fastfid.input_spec import InputSpec
from fastfid.metrics.base import Metric
from fastfid.scale import RunDirectory
from fastfid.scale.plan import SIDES, Plan
from fastfid.sources import ImageSource
from fastfid.sources.labels import labels_of_side

__all__ = [
    "Planned",
    "PlannedSource",
    "network_in_request",
    "new_request",
    "opened_networks",
    "options_of",
    "options_of_side",
    "paths_of",
    "request_of",
]

# Types of what the request of a plan has, and of what it says of a network.
_REQUEST = {
    **dict.fromkeys(("paths", "missing", "networks"), list),
    **dict.fromkeys(("options", "labels"), dict),
    **dict.fromkeys(("folder", "on_error"), str),
    **dict.fromkeys(("force", "per_class", "are_several"), bool),
}
_NETWORK = {
    **dict.fromkeys(("name", "extractor", "protocol", "precision", "device", "runtime"), str),
    "is_inception": bool,
    "dims": int,
    "outputs": dict,
}


def request_of(run: RunDirectory) -> Mapping[str, Any]:
    """Return what was asked for when the plan was made.

    Raises
    ------
    ValueError
        ``fastfid plan`` has not made the plan, or it is damaged.
    """
    if run.plan.request is None:
        raise ValueError(f"{run.path}: was not made by fastfid plan; run that with the same sets and options")
    request = run.plan.request
    if not _has(request, _REQUEST) or not _has_networks(request, run.plan):
        raise ValueError(f"{run.path}: its plan is damaged; make it again: fastfid plan --fresh")
    return request


def _has(found: Any, types: Mapping[str, type]) -> bool:
    return isinstance(found, Mapping) and types.items() <= {key: type(one) for key, one in found.items()}.items()


def _has_networks(request: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a request has one network, or several, each with a name of its own, and a plan of both sides."""
    networks = request["networks"]
    if not networks or not all(map(_is_network, networks)):
        return False
    if not request["are_several"]:
        return len(networks) == 1
    return len(networks) == len({one["name"] for one in networks}) and set(plan.sides) == set(SIDES)


def _is_network(found: Any) -> bool:
    if not _has(found, _NETWORK):
        return False
    shape = found.get("input_shape") or []
    return isinstance(shape, list) and all(type(one) is int and one > 0 for one in (*shape, *found["outputs"].values()))


def new_request(
    paths: Iterable[str | os.PathLike[str]],
    metrics: str | Sequence[str],
    options: Mapping[str, Any],
    sources: Mapping[str, ImageSource],
    networks: Sequence[Mapping[str, Any]],
    *,
    on_error: str,
    max_errors: int | None,
    missing: Iterable[str] = (),
    force: bool = False,
    per_class: bool = False,
    are_several: bool = False,
) -> dict[str, Any]:
    """Return a request, in JSON's types: what :func:`request_of` returns in other processes.

    Parameters
    ----------
    sources : dict of str to ImageSource
        The sources by side that are read.
    networks : list of dict
        See :func:`network_in_request`.
    missing : names of metrics
        Those that cannot be computed of one network.
    are_several : bool
        Whether each of the networks has results of its own, by its name.
    others
        See :func:`fastfid.evaluate`.
    """
    return {
        "paths": [os.fsdecode(path) for path in paths],
        "folder": os.getcwd(),
        "metrics": metrics,
        "missing": list(missing),
        "options": {name: _plain(value) for name, value in options.items()},
        "on_error": on_error,
        "max_errors": max_errors,
        "force": force,
        "per_class": per_class,
        "labels": {side: [one.labels_from, one.class_names] for side, one in sources.items() if one.has_labels},
        "networks": networks,
        "are_several": are_several,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def options_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the sources."""
    return {name: tuple(x) if name == "value_range" and x else x for name, x in request["options"].items()}


def options_of_side(request: Mapping[str, Any], side: str) -> dict[str, Any]:
    """Return the options of the source of a side, with which it is opened."""
    options = options_of(request)
    return {**options, "labels": labels_of_side(options.get("labels"), side), "on_error": request["on_error"]}


def paths_of(request: Mapping[str, Any]) -> list[str]:
    """Return the paths of the two sets, as they were given, or from the root on if this is another folder."""
    folder = request["folder"]
    if folder == os.getcwd():
        return list(request["paths"])
    return [path if is_url(path) else os.path.join(folder, path) for path in request["paths"]]


def network_in_request(name: str, network: FeatureExtractor, metrics: Iterable[Metric]) -> dict[str, Any]:
    """Return what a plan says of a network, in JSON's types: what it gives, and how it is opened again."""
    from fastfid.features.inception import InceptionV3  # these load ONNX Runtime
    from fastfid.features.onnx_model import OnnxExtractor

    return {
        "name": name,
        "extractor": network.identity,
        "protocol": network.protocol,
        "precision": network.precision,
        "dims": network.dims,
        "device": network.device,
        "runtime": network.runtime,
        "outputs": dict(outputs_of(network)),
        "input_shape": network.input_shape,
        "no_classifier": _why_no_classifier(network, metrics),
        # Of a subclass nothing is known.
        "is_inception": type(network) is InceptionV3,
        "file": network.opened_by() if type(network) is OnnxExtractor else None,
    }


def _why_no_classifier(network: FeatureExtractor, metrics: Iterable[Metric]) -> str | None:
    """Return why the network has no classifier; None: it has one, or no metric needs one."""
    if any(metric.needs_classifier for metric in metrics):
        try:
            network.classifier()
        except (ValueError, WeightsError) as error:
            return str(error.args[0])
    return None


def opened_networks(
    run: RunDirectory, device: str | int, weights: str | os.PathLike[str] | None
) -> dict[str, FeatureExtractor]:
    """Return the networks of a plan by their names: the Inception network, and those of ONNX files.

    Raises
    ------
    ValueError
        A network is neither, or its file is no longer what it was. Also the errors of the two classes.
    """
    return {one["name"]: _opened(run, one, device, weights) for one in request_of(run)["networks"]}


def _opened(run: RunDirectory, one: Mapping[str, Any], device: str | int, weights: Any) -> FeatureExtractor:
    if one["is_inception"]:
        outputs = frozenset(one["outputs"]) & outputs_of_inception(one["dims"], one["protocol"])
        return make_extractor(one["dims"], one["protocol"], device, weights, one["precision"], outputs)
    if one.get("file") is None:
        raise ValueError(f"{run.path}: was made with the network {one['extractor']}; pass it: part(..., extractor=)")
    from fastfid.features.onnx_model import OnnxExtractor

    try:
        path, spec, name = str(one["file"]["path"]), InputSpec(**one["file"]["input"]), one["file"]["name"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{run.path}: its plan is damaged; make it again: fastfid plan --fresh") from None
    return OnnxExtractor(path, spec, name=name, device=device, precision=one["precision"])


class Planned(FeatureExtractor):
    """Says of itself what a network of a plan said, and runs no image."""

    batch_size = 1

    def __init__(self, said: Mapping[str, Any], weights: Any):
        self.dims, self.identity = said["dims"], said["extractor"]
        self.protocol, self.precision = said["protocol"], said["precision"]
        self.device, self.runtime, self.outputs = said["device"], said["runtime"], said["outputs"]
        self.input_shape = said.get("input_shape") and tuple(said["input_shape"])
        self._no_classifier: str | None = said.get("no_classifier")
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


class PlannedSource(ImageSource):
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
