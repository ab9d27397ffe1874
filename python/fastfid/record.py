"""What is written down of a comparison: one object for ``--json``, ``return_info=True`` and ``Evaluation.to_dict()``.

docs/json.md explains every key. Later versions add keys, and rows of ``metrics``; none is ever renamed.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar, cast

import numpy as np

from fastfid._version import __version__
from fastfid.cache import package_versions

if TYPE_CHECKING:
    from fastfid.evaluation.class_results import PerClass
    from fastfid.evaluation.result import EvaluatedSet, Evaluation
    from fastfid.metrics.base import Result

__all__ = [
    "SCHEMA",
    "DistanceRecord",
    "EvaluationRecord",
    "FIDRecord",
    "FileIdentity",
    "LeftOutClass",
    "MeanRecord",
    "MetricRecord",
    "PerClassRecord",
    "RecordedOptions",
    "RunRecord",
    "Seconds",
    "Sides",
    "SkippedImage",
    "SourceRecord",
    "distance_record",
    "evaluation_record",
    "metric_rows",
]

SCHEMA = 2

BIAS_MEANING = "fid - bias estimates the distance of infinitely many images, where the two sets are independent"

# Of a Result; what else one of its classes has goes under `details`.
_COMMON = (
    *("value", "numerical_lower", "numerical_upper", "standard_error", "relative_error_of_standard_error"),
    *("standard_error_of", "no_standard_error", "note"),
)

T = TypeVar("T")


class Sides(TypedDict, Generic[T]):
    """One thing of each of the two sets."""

    real: T
    fake: T


class SkippedImage(TypedDict):
    """An image that was left out, and why."""

    name: str
    reason: str


class SourceRecord(TypedDict):
    """What a source holds."""

    images: int | None
    decoded: int
    sizes: int
    smallest: list[int] | None
    largest: list[int] | None
    most_common: list[int] | None
    modes: dict[str, int]
    formats: dict[str, int]
    notes: list[str]


class FileIdentity(TypedDict):
    """What the files of a set are, wherever they lie."""

    files: int
    bytes: int
    sha256: str


class Seconds(TypedDict):
    """How long the parts of a run took."""

    load: float
    features: float
    distance: float
    total: float


class RunRecord(TypedDict):
    """How the tasks of a run were done."""

    engine: str | None
    workers: int
    retries: int
    resumed: int
    runtimes: list[str]


class RecordedOptions(TypedDict):
    """The options that can change the number, as they were in effect."""

    recursive: bool
    any_case: bool
    match: str | None
    key: str | None
    layout: str | None
    value_range: list[float] | None
    alpha: bool
    exif: bool
    max_pixels: int
    labels: "str | Sides[str | None] | None"
    column: str | None
    to_uint8: str | None
    on_error: str
    force: bool
    tol: float | None


_Class = TypedDict("_Class", {"class": str | None})  # a word that Python keeps for itself


class MetricRecord(_Class):
    """One row of ``metrics``."""

    metric: str
    extractor: str | None
    convention: str | None
    value: float | None
    numerical_lower: float | None
    numerical_upper: float | None
    standard_error: float | None
    relative_error_of_standard_error: float | None
    standard_error_of: str | None
    no_standard_error: str | None
    n_real: int | None
    n_generated: int | None
    note: str
    details: dict[str, Any]


_LeftOut = TypedDict("_LeftOut", {"class": str})


class LeftOutClass(_LeftOut):
    """A class with too few images, and why it was left out."""

    reason: str


class MeanRecord(TypedDict):
    """The mean of a value over classes."""

    metric: str
    convention: str | None
    value: float
    standard_error: float | None
    classes: int


class PerClassRecord(TypedDict):
    """What there is to say of the classes beside the rows of ``metrics``."""

    classes_of: str
    means: list[MeanRecord]
    left_out: list[LeftOutClass]


class _Compared(TypedDict):
    """Of every record."""

    schema: int
    value: float
    note: str
    n: Sides[int | None]
    dims: int
    real: str
    fake: str
    protocol: Sides[str | None]
    extractor: Sides[str | None]
    precision: Sides[str | None]
    versions: dict[str, str | None]


class _OfTheFID(TypedDict):
    """Of a record whose first metric is the FID."""

    fid: float
    numerical_lower: float
    numerical_upper: float
    mean_term: float
    trace1: float
    trace2: float
    trace_sqrt_product: float
    method: str
    factor_residual: float
    bias: float | None
    bias_meaning: str


class _OfTheFIDIfAskedFor(TypedDict, total=False):
    fid: float
    mean_term: float
    trace1: float
    trace2: float
    trace_sqrt_product: float
    method: str
    factor_residual: float
    bias: float | None
    bias_meaning: str


class _OfARun(TypedDict):
    standard_error: float | None
    relative_error_of_standard_error: float | None
    standard_error_of: str | None
    no_standard_error: str | None
    metrics: list[MetricRecord]
    per_class: PerClassRecord | None
    assumed_protocol: Sides[str | None]
    skipped: Sides[list[SkippedImage]]
    cached: Sides[bool]
    sources: Sides[SourceRecord | None]
    known_as: Sides[str | None]
    device: str | None
    command: list[str] | None
    date: str
    host: str
    threads: int
    num: int | None
    seed: int
    options: RecordedOptions
    inputs: Sides[FileIdentity | None] | None
    seconds: Seconds
    run: RunRecord | None


class DistanceRecord(_Compared, _OfTheFID):
    """What ``frechet_distance(..., return_info=True)`` returns."""


class FIDRecord(_Compared, _OfTheFID, _OfARun):
    """What ``compute_fid(..., return_info=True)`` returns."""


class EvaluationRecord(_Compared, _OfTheFIDIfAskedFor, _OfARun):
    """What ``Evaluation.to_dict()`` returns, and ``--json`` prints."""

    numerical_lower: float | None
    numerical_upper: float | None


class Described(Protocol):
    """What a record says of a side."""

    @property
    def name(self) -> str: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    @property
    def n(self) -> int | None: ...


def distance_record(real: Described, fake: Described, dims: int, result: "Result") -> DistanceRecord:
    """Return what is known of the distance of two Gaussians, as plain JSON types."""
    record = {
        "schema": SCHEMA,
        "value": result.value,
        **_of_the_fid(result),
        "numerical_lower": result.numerical_lower,
        "numerical_upper": result.numerical_upper,
        "note": result.note,
        **_of_the_sides(real, fake, dims),
        "versions": _versions(),
    }
    return cast(DistanceRecord, _plain(record))


def evaluation_record(evaluation: "Evaluation", command: Sequence[str] | None = None) -> EvaluationRecord:
    """Return all that is known of an evaluation, as plain JSON types; `command`: the command line that asked for it."""
    real, fake = evaluation.real, evaluation.fake
    results = evaluation.results
    rows = [_row(name, result, *evaluation.sides.get(name, (real, fake))) for name, result in results.items()]
    rows += [_row_without_value(name, why, real, fake) for name, why in evaluation.missing.items()]
    if evaluation.per_class is not None:
        rows += _rows_of_classes(evaluation.per_class, real, fake)
    options = {name: value for name, value in evaluation.options.items() if name not in ("num", "seed")}
    options["labels"] = _labels(options["labels"])
    record = {
        "schema": SCHEMA,
        **{name: rows[0][name] for name in _COMMON},
        **(_of_the_fid(results["fid"]) if "fid" in results else {}),
        "metrics": rows,
        "per_class": None if evaluation.per_class is None else _of_the_classes(evaluation.per_class),
        **_of_the_sides(real, fake, evaluation.dims),
        "assumed_protocol": evaluation.assumed_protocol,
        "skipped": evaluation.skipped,
        "cached": evaluation.cached,
        "sources": {side: evaluation.sources.get(side) for side in ("real", "fake")},
        "known_as": {side: evaluation.known_as.get(side) for side in ("real", "fake")},
        "device": evaluation.device,
        "command": command,
        "date": evaluation.date,
        "host": evaluation.host,
        "threads": evaluation.threads,
        "num": evaluation.options["num"],
        "seed": evaluation.options["seed"],
        "options": options,
        "inputs": evaluation.inputs,
        "seconds": evaluation.seconds,
        "run": evaluation.run,
        "versions": _versions(),
    }
    return cast(EvaluationRecord, _plain(record))


def metric_rows(results: "Mapping[str, Result]", real: Any, fake: Described) -> list[dict[str, Any]]:
    """Return the rows of results of two sides, as plain JSON types. `real` has ``meta`` and ``n``."""
    return cast(list[dict[str, Any]], _plain([_row(name, result, real, fake) for name, result in results.items()]))


def _of_the_fid(result: "Result") -> dict[str, Any]:
    return {"fid": result.value, **_details(result), "bias_meaning": BIAS_MEANING}


def _of_the_sides(real: Described, fake: Described, dims: int) -> dict[str, Any]:
    return {
        "n": {"real": real.n, "fake": fake.n},
        "dims": dims,
        "real": real.name,
        "fake": fake.name,
        **{
            key: {"real": real.meta.get(key), "fake": fake.meta.get(key)}
            for key in ("protocol", "extractor", "precision")
        },
    }


def _labels(option: Any) -> Any:
    """Return the option ``labels`` as a record has it."""
    if isinstance(option, Mapping):
        return {side: _labels(option.get(side)) for side in ("real", "fake")}
    return option if isinstance(option, str | os.PathLike | None) else "given"  # one for each image


def _rows_of_classes(found: "PerClass", real: "EvaluatedSet", fake: "EvaluatedSet") -> list[dict[str, Any]]:
    """Return the rows of each class, which differ in ``class`` and the numbers of images."""
    rows = []
    for label, one in found.items():
        sides = dataclasses.replace(real, n=one.n_real), dataclasses.replace(fake, n=one.n_fake)
        of_class = [_row(name, result, *sides) for name, result in one.items()]
        of_class += [_row_without_value(name, why, *sides) for name, why in one.missing.items()]
        rows += [{**row, "class": str(label)} for row in of_class]
    return rows


def _of_the_classes(found: "PerClass") -> dict[str, Any]:
    means = []
    for name, mean in found.means.items():
        metric, _, convention = name.partition(":")
        means.append({"metric": metric, "convention": convention or None, **mean._asdict()})
    return {
        "classes_of": found.classes_of,
        "means": means,
        "left_out": [{"class": str(label), "reason": reason} for label, reason in found.left_out.items()],
    }


def _row(name: str, result: "Result", real: Described, fake: Described) -> dict[str, Any]:
    """Return the row of one value."""
    found = result.to_dict()
    common = {key: found[key] for key in _COMMON}
    if result.standard_error is None:
        common["no_standard_error"] = result.no_standard_error or "the metric gives none"
    return _row_of(name, common, _details(result), real, fake)


def _row_without_value(name: str, why: str, real: Described, fake: Described) -> dict[str, Any]:
    """Return the row of a metric that could not be computed."""
    common = {**dict.fromkeys(_COMMON), "no_standard_error": "there is no value", "note": why}
    return _row_of(name, common, {}, real, fake)


def _row_of(
    name: str, common: Mapping[str, Any], details: Mapping[str, Any], real: Described, fake: Described
) -> dict[str, Any]:
    """Return a row; `name` has the convention, as ``kid:torch-fidelity``."""
    extractors = {side.meta["extractor"] for side in (real, fake) if side.meta.get("extractor") is not None}
    metric, _, convention = name.partition(":")
    return {
        "metric": metric,
        "extractor": extractors.pop() if len(extractors) == 1 else None,
        "convention": convention or None,
        "class": None,
        **common,
        "n_real": real.n,
        "n_generated": fake.n,
        "details": details,
    }


def _details(result: "Result") -> dict[str, Any]:
    return {key: value for key, value in result.to_dict().items() if key not in _COMMON}


def _versions() -> dict[str, str | None]:
    return {"fastfid": __version__, **package_versions()}


def _plain(value: Any) -> Any:
    """Return `value` in the types that JSON has; numbers that are not finite, which it has not, are None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
