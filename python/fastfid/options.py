"""The keywords of every function that reads images, and the checks of their values."""

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from numpy.typing import NDArray

from fastfid._checks import check_at_least, check_device, check_on_error
from fastfid._progress import ProgressMode, check_progress
from fastfid.cache import CacheMode
from fastfid.extractor import FeatureExtractor, check_extractor
from fastfid.precisions import check_precision_name
from fastfid.protocols import get_protocol

if TYPE_CHECKING:
    from fastfid.scale.engine import Engine

__all__ = [
    "DEFAULT_DIMS",
    "DEFAULT_PROTOCOL",
    "Dims",
    "EvaluateOptions",
    "FIDOptions",
    "MethodName",
    "PrecisionName",
    "ProtocolName",
    "SourceOptions",
    "check_keywords",
    "check_options",
]

Dims = Literal[64, 192, 768, 2048]
ProtocolName = Literal["pytorch-fid", "tensorflow", "clean", "torchmetrics", "none"]
PrecisionName = Literal["float32", "tf32", "float16"]
MethodName = Literal["auto", "eigen", "newton-schulz"]

_LabelsOfASet = str | os.PathLike[str] | Sequence[int | str] | NDArray[Any] | None

DEFAULT_DIMS: Final = 2048
DEFAULT_PROTOCOL: Final = "pytorch-fid"


class _NetworkOptions(TypedDict, total=False):
    """The choice of the network, and how images are passed to it."""

    dims: Dims | None
    protocol: ProtocolName | None
    device: str | int
    precision: PrecisionName
    weights: str | os.PathLike[str] | None
    extractor: FeatureExtractor | None
    batch_size: int | None
    num_workers: int | None
    on_error: Literal["raise", "skip"]
    max_errors: int | None
    progress: ProgressMode
    cache: CacheMode


NETWORK_OPTIONS = frozenset(_NetworkOptions.__annotations__)


class SourceOptions(TypedDict, total=False):
    """How a source is read. Every function that takes sources takes these keywords."""

    recursive: bool
    """Read sub-folders too (pytorch-fid does not)."""
    any_case: bool
    """Read files with upper-case extensions too (pytorch-fid does not)."""
    match: str | None
    """Read only pictures whose name matches this pattern, such as ``*.input.png``."""
    key: str | None
    """Name of the array of images in an ``.npz``. Default: ``arr_0``."""
    layout: Literal["nhwc", "nchw"] | None
    """Axis order of arrays whose shape is ambiguous."""
    value_range: tuple[float, float] | None
    """Values of black and white in float arrays, such as (0, 1) or (-1, 1). Without it, float images are refused."""
    num: int | None
    """Use a random subset of this many images."""
    seed: int
    """Seed of the random subset."""
    alpha: bool
    """Composite transparent pictures on white. Default: drop the alpha channel, as the other FID packages do."""
    exif: bool
    """Rotate and flip pictures according to their EXIF orientation. Default: ignore it, as the other packages do."""
    max_pixels: int
    """Refuse pictures that declare more pixels, before decoding them. Default: Pillow's limit, 89 million."""
    labels: _LabelsOfASet | Mapping[Literal["real", "fake"], _LabelsOfASet]
    """Where labels come from: "auto", "folder", a ``.csv`` file, or one label for each image. Default: no labels.
    For two sets whose labels come from different places: a dict with ``real`` and ``fake``."""
    column: str | None
    """Name of the column of images in parquet files and Hugging Face datasets, and of the key of images in dicts."""
    to_uint8: Literal["round", "truncate", "floor-127.5", "floor-128"] | None
    """How float images become grey levels. Default: "round" with `value_range`, else they are refused."""


class StatisticsOptions(_NetworkOptions, SourceOptions, total=False):
    """The keywords of :func:`compute_statistics` that other functions have too."""


class EvaluateOptions(StatisticsOptions, total=False):
    """The keywords of :func:`evaluate`."""

    force: bool
    hash_inputs: bool
    run_dir: str | os.PathLike[str] | None
    engine: "Engine | Literal['ray'] | None"
    workers: int | tuple[int, int] | None


class FIDOptions(EvaluateOptions, total=False):
    """The keywords of :func:`compute_fid`, for its overloads."""

    tol: float | None


def check_options(
    *,
    batch_size: int | None,
    num_workers: int | None,
    on_error: str,
    max_errors: int | None,
    protocol: str | None,
    device: str | int,
    precision: str,
    extractor: FeatureExtractor | None,
    progress: ProgressMode,
    options: Mapping[str, Any],
) -> None:
    """Raise an error for invalid arguments before anything is read, even if statistics make the arguments unused."""
    if batch_size is not None:
        check_at_least("batch_size", batch_size, 1)
    if num_workers is not None:
        check_at_least("num_workers", num_workers, 0)
    check_on_error(on_error, max_errors)
    if protocol is not None:
        get_protocol(protocol)
    check_device(device)
    check_progress(progress)
    if extractor is not None:
        check_extractor(extractor)
    check_precision_name(precision)
    check_keywords(options)


def check_keywords(options: Mapping[str, Any]) -> None:
    """Raise TypeError for keywords that are not in :class:`SourceOptions`. The message suggests the intended name."""
    unknown = sorted(set(options) - set(SourceOptions.__annotations__))
    if not unknown:
        return
    homes = {
        **dict.fromkeys(("metrics", "per_class", "store"), "fastfid.evaluate"),
        "tol": "compute_fid and FrechetInceptionDistance",
        **dict.fromkeys(("force", "hash_inputs", "return_info", "run_dir", "engine", "workers"), "compute_fid"),
    }
    known = [*FIDOptions.__annotations__, "return_info", "metrics"]
    close = [name for name in difflib.get_close_matches(unknown[0], known, n=2) if name != unknown[0]]
    hint = f"; did you mean {close[0]}?" if close else ""
    if unknown[0] in homes:
        hint = f"; {unknown[0]} is of {homes[unknown[0]]}"
    raise TypeError(f"unexpected keyword arguments: {', '.join(unknown)}{hint}")
