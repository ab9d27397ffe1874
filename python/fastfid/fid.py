"""The Fréchet Inception Distance from Python: two whole sets at once, or image by image."""

import dataclasses
import os
import re
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import _core
from fastfid._core import DeviceMoments, FrechetResult, Moments
from fastfid._version import __version__
from fastfid.errors import FastfidWarning, NumericalError, SkippedImagesWarning
from fastfid.features.base import FeatureExtractor, check_device, check_dims, is_same_device
from fastfid.pipeline import Report, extract
from fastfid.protocols import get_protocol
from fastfid.reuse import CacheMode, StatisticsCache, package_versions
from fastfid.sources import ImageSource, is_statistics_file, open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics, check_compatible, check_provenance

if TYPE_CHECKING:
    from fastfid.features.cuda import DeviceSide

__all__ = ["FID", "SourceOptions", "compute_fid", "compute_statistics", "frechet_distance", "make_extractor"]

UNCERTAINTY_GROUPS = 10
Side = Statistics | DeviceMoments | tuple[ArrayLike, ArrayLike]


class SourceOptions(TypedDict, total=False):
    """How a source is read; every function that takes sources takes these keywords."""

    recursive: bool
    """Search sub-folders too (pytorch-fid does not)."""
    any_case: bool
    """Take upper-case file extensions too (pytorch-fid does not)."""
    layout: Literal["nhwc", "nchw"] | None
    """Axis order of arrays, where their shape leaves it open."""
    num: int | None
    """Use a random subset of this many images."""
    seed: int
    """Seed of that subset."""
    alpha: bool
    """Composite transparent pictures on white; else the alpha channel is dropped, as the peers do."""
    exif: bool
    """Turn pictures as their EXIF orientation says; else it is ignored, as the peers do."""
    max_pixels: int
    """Refuse pictures that declare more pixels, before they are decoded. Default: Pillow's, 89 million."""


def make_extractor(
    dims: int = 2048,
    protocol: str = "pytorch-fid",
    device: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    precision: str = "float32",
) -> FeatureExtractor:
    """Return the Inception network for the given layer and protocol; finds or fetches its weights.

    Raises
    ------
    ValueError
        Unknown `dims`, `protocol`, `device` or `precision`, or a precision that the device does not have.
    fastfid.WeightsError
        The weights are nowhere to be had, or are not the right ones.
    fastfid.BackendUnavailable
        There is no such device.
    """
    dims = check_dims(dims)
    get_protocol(protocol)
    from fastfid.features.inception import InceptionV3  # loads ONNX Runtime: not for two .npz files

    return InceptionV3(dims, protocol=protocol, precision=precision, device=device, weights=weights)


def check_real(real: bool) -> bool:
    """Return `real` as a bool; TypeError unless it is one: any string would be true."""
    if not isinstance(real, bool | np.bool_):
        raise TypeError(f"real: expected True or False, got {real!r}")
    return bool(real)


@dataclass(frozen=True)
class _Side:
    """One side of a distance, and how it came to be."""

    statistics: Statistics
    report: Report | None = None  # None: no image was read
    moments: Moments | None = None


@dataclass(frozen=True)
class _Reading:
    """What the two sides of one FID share while their images are read."""

    extractor: FeatureExtractor
    num_workers: int | None
    on_error: Literal["raise", "skip"]
    max_errors: int | None
    progress: bool | Literal["auto"]
    cache: CacheMode
    opened_at: float  # before the sources were opened, seconds since the epoch
    groups: int
    options: Mapping[str, Any]

    def entry(self, source: ImageSource) -> StatisticsCache | None:
        """Return the source's place in the cache, if there is to be one; ValueError if it is not made of files."""
        if not self.cache:
            return None
        decides = {
            **provenance(self.extractor),
            "device": self.extractor.device,
            "runtime": self.extractor.runtime,
            "options": dict(self.options),
        }
        return StatisticsCache(source, decides, by_content=self.cache == "hashes", opened_at=self.opened_at)

    def side(self, source: ImageSource, entry: StatisticsCache | None) -> _Side:
        """Read the source, or take it from its place in the cache."""
        if entry is None:
            return self._read(source)
        # Statistics know no groups of images: those are read again.
        if not self.groups and (cached := entry.load()) is not None:
            # The same files may have come under another name then.
            return _Side(dataclasses.replace(cached, meta={**cached.meta, "source": source.name}, name=source.name))
        side = self._read(source)
        has_losses = side.report is not None and side.report.skipped
        refusal = "images were skipped" if has_losses else entry.store(side.statistics)
        if refusal:
            warnings.warn(f"{source.name}: not kept in the cache: {refusal}", FastfidWarning, stacklevel=4)
        return side

    def _read(self, source: ImageSource) -> _Side:
        if isinstance(source, DeviceImages) and (side := self.extractor.device_side(source.device)) is not None:
            if self.groups:
                raise ValueError("uncertainty: needs images on the host; pass images.cpu()")
            side.update(source, callers_stream(source.tensor))
            return self._fitted(source, Report(n=len(source)), side.to_host())
        moments = Moments(self.extractor.dims, groups=self.groups)
        report = extract(
            source,
            self.extractor,
            moments.update,
            num_workers=self.num_workers,
            on_error=self.on_error,
            max_errors=self.max_errors,
            progress=self.progress,
            description=source.name,
        )
        if report.skipped:
            shown = ", ".join(f"{name} ({reason})" for name, reason in report.skipped[:5])
            more = ", ..." if len(report.skipped) > 5 else ""
            warnings.warn(
                f"{source.name}: skipped {len(report.skipped)} unreadable images: {shown}{more}",
                SkippedImagesWarning,
                stacklevel=5,
            )
        return self._fitted(source, report, moments)

    def _fitted(self, source: ImageSource, report: Report, moments: Moments) -> _Side:
        meta = {**provenance(self.extractor), "source": source.name}
        return _Side(Statistics.from_moments(moments, meta, source.name), report, moments)


def provenance(extractor: FeatureExtractor) -> dict[str, Any]:
    """Return what a statistics file says of the network that made it."""
    return {
        "protocol": extractor.protocol,
        "extractor": extractor.identity,
        "precision": extractor.precision,
        "dims": extractor.dims,
    }


def _open(source: Any, options: Mapping[str, Any]) -> ImageSource:
    opened = open_source(source, **options)
    for note in opened.notes:
        warnings.warn(note, FastfidWarning, stacklevel=3)
    try:
        found = len(opened)
    except TypeError:  # a stream: it is counted as it is read
        return opened
    if found < 2:
        raise ValueError(f"{opened.name}: a covariance needs at least 2 images, got {found}")
    return opened


def load_known(source: Any) -> Statistics | None:
    """Return the statistics that `source` is or names, or None where images must be read.

    Raises
    ------
    ValueError
        It is a statistics file, but a bad one.
    """
    if isinstance(source, Statistics):
        return source
    if isinstance(source, str | os.PathLike) and is_statistics_file(source):
        return Statistics.load(source)
    return None


def compute_statistics(
    source: Any,
    *,
    dims: int = 2048,
    protocol: str = "pytorch-fid",
    device: str = "auto",
    precision: str = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: bool | Literal["auto"] = False,
    cache: CacheMode = False,
    **options: Unpack[SourceOptions],
) -> Statistics:
    """Fit a Gaussian to the Inception features of one set of images.

    Parameters
    ----------
    source : path, array, tensor, iterable, generator or Statistics
        A folder, a zip or tar, an ``.npz`` with images under ``arr_0``, an ``.npy``, uint8 images [n, h, w, 3] or
        [n, 3, h, w], or an iterable of images or batches. Statistics, and ``.npz`` files of them, come back as they
        are: the network's keywords have no say then.
    dims : {64, 192, 768, 2048}
        Which layer's features.
    protocol : str
        How images become 299 x 299 input; see :data:`fastfid.protocols.PROTOCOLS`.
    device : str
        "auto", "cpu", "cuda" or "cuda:N". One that does not exist is an error where the network runs: statistics alone
        need none.
    precision : {"float32", "tf32", "float16"}
        Arithmetic of the network; the CPU has "float32" only. "tf32" is what PyTorch does by default on a GPU.
        Statistics of different precision are not compared; docs/precision.md says how far each is off.
    weights : path, optional
        Inception weights to use instead of the cached or fetched ones.
    extractor : FeatureExtractor, optional
        Another network; then `dims`, `protocol`, `device`, `precision` and `weights` are its business.
    batch_size : int, optional
        Accepted for pytorch-fid's sake. It never changes a number; on the CPU small batches are as fast as large ones
        and take less memory, so the network chooses.
    num_workers : int, optional
        Threads that decode and resize. Default: min(8, available CPUs).
    on_error : {"raise", "skip"}
        What to do with an image that cannot be read.
    max_errors : int, optional
        With "skip": fail once more images than this were skipped.
    progress : bool or "auto"
        Show a progress bar on stderr; "auto": on a terminal only.
    cache : bool or "hashes"
        Keep the statistics of folders and archives in the user's cache and take them from there the next time. Files
        are known by path, size and times, or by their content. See :mod:`fastfid.reuse`.
    **options
        See :class:`SourceOptions`.

    Returns
    -------
    Statistics
        float64 mean (d,) and covariance (d, d), ddof=1, with n and provenance.

    Raises
    ------
    ValueError
        Nothing to read, fewer than two images, a bad argument.
    TypeError
        Images that are not uint8.
    fastfid.ImageError
        An image cannot be read; its path is in the message.
    fastfid.WeightsError, fastfid.BackendUnavailable
        See :func:`make_extractor`.

    Examples
    --------
    >>> statistics = compute_statistics("real", dims=64)  # a folder of four pictures
    >>> statistics.n, statistics.mu.shape, statistics.meta["protocol"]
    (4, (64,), 'pytorch-fid')
    """
    _check_reading(batch_size, num_workers, on_error, max_errors, protocol, device, precision, options)
    known = load_known(source)
    if known is not None:
        return known
    opened_at = time.time()
    opened = _open(source, options)
    extractor = extractor or make_extractor(dims, protocol, device, weights, precision)
    reading = _Reading(extractor, num_workers, on_error, max_errors, progress, cache, opened_at, 0, options)
    return reading.side(opened, reading.entry(opened)).statistics


def _check_reading(
    batch_size: int | None,
    num_workers: int | None,
    on_error: str,
    max_errors: int | None,
    protocol: str,
    device: str,
    precision: str,
    options: Mapping[str, Any],
) -> None:
    """Refuse bad arguments before anything is read, also where statistics make them superfluous."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers: expected 0 or more, got {num_workers}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
    if max_errors is not None and max_errors < 0:
        raise ValueError(f"max_errors: expected 0 or more, got {max_errors}")
    get_protocol(protocol)
    check_device(device)
    from fastfid.features.onnx import check_precision_name

    check_precision_name(precision)
    unknown = set(options) - set(SourceOptions.__annotations__)
    if unknown:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")


@overload
def compute_fid(real: Any, fake: Any, *, return_info: Literal[False] = ..., **options: Any) -> float: ...
@overload
def compute_fid(real: Any, fake: Any, *, return_info: Literal[True], **options: Any) -> dict[str, Any]: ...
def compute_fid(
    real: Any,
    fake: Any,
    *,
    dims: int = 2048,
    protocol: str = "pytorch-fid",
    device: str = "auto",
    precision: str = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: bool | Literal["auto"] = False,
    cache: CacheMode = False,
    force: bool = False,
    tol: float | None = None,
    uncertainty: bool = False,
    return_info: bool = False,
    **options: Any,
) -> float | dict[str, Any]:
    """Return the Fréchet Inception Distance of two sets of images (Heusel et al. 2017).

    ``|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` of the Gaussians fitted to their Inception features.

    Parameters
    ----------
    real, fake : path, array, tensor, iterable, generator or Statistics
        See :func:`compute_statistics`, also for the other keywords. Two statistics need no network, and `dims` is
        ignored then.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    tol : float, optional
        Tighten the numerical bounds of the trace term to this width, relative to it.
    uncertainty : bool
        Estimate the standard error of the FID from 10 groups of each side's images (200 MB a side at 2048 dims); it is
        in the record. Statistics from a file know no groups, and for n <= d there is no such estimate.
    return_info : bool
        Return the whole record instead: ``fid``, ``lower``, ``upper``, ``n`` of each side, protocol, extractor,
        versions, seconds.

    Raises
    ------
    ValueError
        The sides do not belong together, and whatever :func:`compute_statistics` raises.
    fastfid.NumericalError
        A covariance is not positive semi-definite.

    Examples
    --------
    >>> compute_fid("real", "fake", dims=64) > 0  # two folders of four pictures
    True
    >>> record = compute_fid("real", "fake", dims=64, return_info=True)
    >>> record["lower"] <= record["fid"] <= record["upper"], record["n"]
    (True, {'real': 4, 'fake': 4})
    """
    started = time.perf_counter()
    _check_reading(batch_size, num_workers, on_error, max_errors, protocol, device, precision, options)
    opened_at = time.time()
    # Whatever can be refused without the network is refused before it runs.
    known = [load_known(source) for source in (real, fake)]
    opened: list[ImageSource | None] = []
    for side, source in zip(known, (real, fake), strict=True):
        opened.append(_open(source, options) if side is None else None)
    reading = None
    entries: list[StatisticsCache | None] = [None, None]
    if None in known:
        if extractor is None:
            dims = check_dims(dims)
        wanted = extractor.dims if extractor is not None else dims
        for side in known:
            if side is not None and side.d != wanted:
                raise ValueError(f"{side.name} has {side.d} dims, but {wanted} are asked for")
        extractor = extractor or make_extractor(dims, protocol, device, weights, precision)
        for side in known:
            if side is not None:
                check_provenance(side.name, side.meta, "this run", provenance(extractor), force=force)
        groups = UNCERTAINTY_GROUPS if uncertainty else 0
        reading = _Reading(extractor, num_workers, on_error, max_errors, progress, cache, opened_at, groups, options)
        entries = [reading.entry(source) if source is not None else None for source in opened]
    _warn_of_unknown_protocols(known, extractor)
    loaded = time.perf_counter()
    a, b = (
        _Side(side) if side is not None else cast(_Reading, reading).side(cast(ImageSource, images), entry)
        for side, images, entry in zip(known, opened, entries, strict=True)
    )
    extracted = time.perf_counter()
    result = _distance(a.statistics, b.statistics, tol=tol, force=force, needs_bias=return_info)
    error = _uncertainty(a, b) if uncertainty else None
    if not return_info:
        return result.value
    finished = time.perf_counter()
    return {
        **_record(a.statistics, b.statistics, result),
        "uncertainty": error,
        "skipped": {"real": _skipped(a), "fake": _skipped(b)},
        "cached": {
            label: images is not None and side.report is None
            for label, images, side in zip(("real", "fake"), opened, (a, b), strict=True)
        },
        "device": reading.extractor.device if reading else None,
        "seconds": {
            "load": loaded - started,
            "features": extracted - loaded,
            "distance": finished - extracted,
            "total": finished - started,
        },
    }


def _warn_of_unknown_protocols(known: list[Statistics | None], extractor: FeatureExtractor | None) -> None:
    """Say so where statistics do not tell how their images were resized, and probably were otherwise than the rest."""
    default = extractor.protocol if extractor is not None else None
    protocols = [default if side is None else side.meta.get("protocol") for side in known]
    for side, own, others in zip(known, protocols, protocols[::-1], strict=True):
        if side is None or own is not None or others is None:
            continue
        probable = "tensorflow" if side.meta.get("writer") == "ADM" else "pytorch-fid"
        if probable != others:
            warnings.warn(
                f"{side.name} does not say its protocol ({probable} if it is like most), and is compared with what was"
                f" made with {others}: make sure that its images were resized so",
                FastfidWarning,
                stacklevel=3,
            )


def _skipped(side: _Side) -> list[dict[str, str]]:
    return [{"name": name, "reason": reason} for name, reason in side.report.skipped] if side.report else []


def _uncertainty(a: _Side, b: _Side) -> dict[str, Any]:
    """Return the standard error of the distance and its own relative error, or null and the reason."""
    reason = None
    for side in (a, b):
        if side.moments is None:
            reason = f"{side.statistics.name}: statistics from a file know no groups of images"
        elif side.moments.n <= side.moments.d:
            reason = f"{side.statistics.name}: n = {side.moments.n} <= d = {side.moments.d}; sampling bias dominates"
    if reason is None and a.moments is not None and b.moments is not None:
        try:
            error, relative = _core.influence_standard_error(a.moments, b.moments)
            return {"standard_error": error, "relative_error": relative, "reason": None}
        except NumericalError as singular:
            reason = str(singular)
    return {"standard_error": None, "relative_error": None, "reason": reason}


def _distance(
    a: AnyStatistics,
    b: AnyStatistics,
    *,
    method: str = "auto",
    tol: float | None = None,
    device: str = "cpu",
    force: bool = False,
    needs_bias: bool = False,
) -> FrechetResult:
    check_compatible(a, b, force=force)

    def side(s: AnyStatistics) -> tuple[NDArray[np.float64] | DeviceMoments, NDArray[Any] | None, NDArray[Any] | None]:
        if isinstance(s, DeviceStatistics):
            return s.moments, None, None
        return (s.mu, s.sigma, None) if s.rows is None else (s.mu, None, s.rows)

    try:
        # The bias takes singular values, which the fastest route does not need.
        n1, n2 = (a.n, b.n) if needs_bias else (None, None)
        result = _core.frechet_distance(*side(a), *side(b), n1=n1, n2=n2, method=method, tol=tol, device=device)
    except ValueError as error:  # NumericalError is one
        if a.name == b.name == Statistics.name or not re.search(r"(sigma|rows|mu|side )[12]\b", str(error)):
            raise
        # The core calls the sides sigma1 and sigma2; the user knows them by their names.
        kind = NumericalError if isinstance(error, NumericalError) else ValueError
        raise kind(f"{error} (sigma1: {a.name}; sigma2: {b.name})") from None
    if result.trace.float32_rounding > 0:
        warnings.warn(
            f"{a.name}, {b.name}: {result.trace.note}. The distance is {result.value:g}, its numerical bounds "
            f"{result.lower:g} and {result.upper:g}.",
            FastfidWarning,
            stacklevel=3,
        )
    return result


def _record(a: AnyStatistics, b: AnyStatistics, result: FrechetResult) -> dict[str, Any]:
    """Return what is known of a distance, as plain JSON types."""
    return {
        "fid": result.value,
        "lower": result.lower,
        "upper": result.upper,
        "mean_term": result.mean_term,
        "trace1": result.trace1,
        "trace2": result.trace2,
        "trace_sqrt_product": result.trace.value,
        "method": result.trace.method,
        "note": result.trace.note,
        "factor_residual": result.trace.factor_residual,
        "bias": result.bias,
        "n": {"real": a.n, "fake": b.n},
        "dims": a.d,
        "real": a.name,
        "fake": b.name,
        **{key: {"real": a.meta.get(key), "fake": b.meta.get(key)} for key in ("protocol", "extractor", "precision")},
        "versions": {"fastfid": __version__, **package_versions()},
    }


def _as_side(side: Side, label: str, device: str) -> AnyStatistics:
    if isinstance(side, Statistics):
        return side
    if isinstance(side, DeviceMoments):
        if device == "cpu":
            raise ValueError(
                f"{label}: moments on cuda:{side.device} need device='cuda:{side.device}', got 'cpu'; or pass"
                " Statistics.from_moments(moments.to_host())"
            )
        return DeviceStatistics(side, name=label)
    if isinstance(side, tuple) and len(side) == 2:
        mu, sigma = side
        try:
            return Statistics(np.atleast_1d(mu), np.atleast_2d(sigma))  # a mask is kept, and refused there
        except (TypeError, ValueError) as error:
            raise type(error)(f"{label}: {error}") from None
    raise TypeError(f"{label}: expected Statistics, DeviceMoments or a tuple (mu, sigma), got {type(side).__name__}")


@overload
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = ...,
    tol: float | None = ...,
    device: str = ...,
    force: bool = ...,
    return_info: Literal[False] = ...,
) -> float: ...
@overload
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = ...,
    tol: float | None = ...,
    device: str = ...,
    force: bool = ...,
    return_info: Literal[True],
) -> dict[str, Any]: ...
def frechet_distance(
    a: Side,
    b: Side,
    *,
    method: str = "auto",
    tol: float | None = None,
    device: str = "cpu",
    force: bool = False,
    return_info: bool = False,
) -> float | dict[str, Any]:
    """Return the squared Fréchet distance of two Gaussians (Dowson & Landau 1982).

    Parameters
    ----------
    a, b : Statistics, DeviceMoments or (mu, sigma)
        mu (d,), sigma (d, d), both float. A :class:`FID`'s sides are its ``real`` and ``fake``. Moments on a CUDA
        device are for a distance that is taken there: they do not come to the host.
    method : {"auto", "eigen", "newton-schulz"}
        How the trace of the matrix square root is taken.
    tol : float, optional
        Tighten the numerical bounds of the trace to this width, relative to it.
    device : {"cpu", "cuda", "cuda:N"}
        Where the trace is taken; see :func:`trace_sqrt_product`. A CUDA device gives no bias.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    return_info : bool
        Return a dict with the value, its numerical bounds and how it was found.

    Raises
    ------
    ValueError
        Shapes or provenance do not fit together.
    fastfid.NumericalError
        A covariance is not positive semi-definite.
    fastfid.BackendUnavailable
        There is no such device, or no cuBLAS or cuSOLVER for it.

    Examples
    --------
    >>> import numpy as np
    >>> frechet_distance((np.zeros(2048), np.eye(2048)), (np.ones(2048), np.eye(2048)))
    2048.0
    """
    left, right = _as_side(a, "a", device), _as_side(b, "b", device)
    result = _distance(left, right, method=method, tol=tol, device=device, force=force, needs_bias=return_info)
    return _record(left, right, result) if return_info else result.value


class FID:
    """FID of two growing sets of images, in memory that does not grow with them.

    Parameters
    ----------
    dims, protocol, device, precision, weights, extractor
        See :func:`compute_statistics`. The network is loaded at the first :meth:`update`.
    num_workers : int, optional
        Threads that resize. Default: min(8, available CPUs).

    Examples
    --------
    >>> import numpy as np
    >>> fid = FID(dims=64)
    >>> rng = np.random.default_rng(0)
    >>> fid.update(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), real=True)
    >>> fid.update(rng.integers(0, 128, (4, 32, 32, 3), dtype=np.uint8), real=False)
    >>> fid.compute() > 0
    True
    """

    def __init__(
        self,
        *,
        dims: int = 2048,
        protocol: str = "pytorch-fid",
        device: str = "auto",
        precision: str = "float32",
        weights: str | os.PathLike[str] | None = None,
        extractor: FeatureExtractor | None = None,
        num_workers: int | None = None,
    ):
        if extractor is None:
            dims = check_dims(dims)
            get_protocol(protocol)
            check_device(device)
            from fastfid.features.onnx import check_precision  # loads NumPy: not with `import fastfid`

            check_precision(precision, device)
        self.dims = extractor.dims if extractor is not None else dims
        self.protocol = extractor.protocol if extractor is not None else protocol
        self._device = device
        self.precision = extractor.precision if extractor is not None else precision
        self._weights = weights
        self._extractor = extractor
        self._is_extractor_given = extractor is not None
        self._adopted: dict[str, Any] = {}  # provenance of what came in by merge or load_state_dict
        self._num_workers = num_workers
        self._moments = {True: Moments(self.dims), False: Moments(self.dims)}
        self._device_sides: dict[bool, DeviceSide] = {}  # of tensors on a GPU; what they hold is not in _moments
        self._lock = threading.RLock()  # while the network or a side on a GPU is made, which takes long

    @property
    def extractor(self) -> FeatureExtractor:
        """The network; loaded when first asked for."""
        with self._lock:
            if self._extractor is None:
                extractor = make_extractor(self.dims, self.protocol, self._device, self._weights, self.precision)
                check_provenance("this FID", provenance(extractor), "what was merged or loaded", self._adopted, hint="")
                self._extractor = extractor
            return self._extractor

    def update(self, images: Any, real: bool, *, stream: Any = None, **options: Unpack[SourceOptions]) -> None:
        """Add images to one side.

        Parameters
        ----------
        images : array, tensor, path or iterable
            Any source (see :func:`compute_statistics`); most often a uint8 batch [n, h, w, 3] or [n, 3, h, w].
        real : bool
            Which side.
        stream : CUDA stream or its handle, optional
            For a tensor on a GPU: the stream on which it is used. Default: the current one of torch or CuPy.
        **options
            See :class:`SourceOptions`.

        Notes
        -----
        A tensor on the GPU that the network runs on never visits the host, and the host does not wait for the GPU: its
        work is asked for, on a stream of the network's own, which waits for what `stream` has been given so far.
        `stream` waits until the images have been read, so that they may be overwritten or freed at once. A tensor of
        another library than torch or CuPy, without `stream`, is waited for.

        Raises
        ------
        TypeError, ValueError, fastfid.ImageError
            As in :func:`compute_statistics`. Images before the bad one are counted. ValueError also for a tensor on
            another device than the network's, and for `stream` with images that are on none.
        fastfid.BackendUnavailable
            A tensor on a GPU, but fastfid was built without CUDA.
        """
        real = check_real(real)
        source = open_source(images, **options)
        for note in source.notes:
            warnings.warn(note, FastfidWarning, stacklevel=2)
        if isinstance(source, DeviceImages) and (side := self._device_side(real, source.device)) is not None:
            side.update(source, callers_stream(images, stream))
            return
        if stream is not None:
            raise ValueError("stream: is for tensors on the GPU that the network runs on; these images are not")
        extract(source, self.extractor, self._moments[real].update, num_workers=self._num_workers)

    def _device_side(self, real: bool, device: str) -> "DeviceSide | None":
        with self._lock:
            if real not in self._device_sides:
                created = self.extractor.device_side(device)
                if created is None:
                    return None
                self._device_sides[real] = created
            return self._device_sides[real]

    @property
    def real(self) -> Statistics:
        """The real side so far; ValueError with fewer than two images."""
        return self._statistics(True)

    @property
    def fake(self) -> Statistics:
        """The fake side so far; ValueError with fewer than two images."""
        return self._statistics(False)

    def _statistics(self, real: bool) -> Statistics:
        return Statistics.from_moments(self._total(real), self._provenance(), "real" if real else "fake")

    def _statistics_on(self, device: str, real: bool) -> AnyStatistics:
        """Return one side as it is on `device`, where all of its images are there; else what comes to the host."""
        side = self._device_sides.get(real)
        if side is None or self._moments[real].n or not is_same_device(device, side.device):
            return self._statistics(real)
        return DeviceStatistics(side.on_device(), self._provenance(), "real" if real else "fake")

    def _total(self, real: bool) -> Moments:
        """Return the moments of one side's images, those on a GPU included; waits for it."""
        if real not in self._device_sides:
            return self._moments[real]
        total = Moments.from_state(self._moments[real].state())
        total.merge(self._device_sides[real].to_host())
        return total

    def compute(self, *, tol: float | None = None, device: str = "cpu") -> float:
        """Return the FID of the images so far; more may follow. Waits for a GPU that has images of it.

        Parameters
        ----------
        tol : float, optional
            Tighten the numerical bounds of the trace term to this width, relative to it.
        device : str
            Where the distance is taken: see :func:`frechet_distance`. A side whose images all came as tensors on that
            device stays there, unless its covariance is singular for n > d.

        Raises
        ------
        ValueError
            A side has fewer than two images.
        fastfid.BackendUnavailable
            There is no such device.
        """
        sides = (self._statistics_on(device, real) for real in (True, False))
        return _distance(*sides, tol=tol, device=device).value

    def merge(self, other: "FID") -> None:
        """Add what another FID (another process's shard, say) has seen; ValueError if it saw it otherwise.

        Where memory runs out in the middle, one side may have been added and the other not.
        """
        check_provenance("this FID", self._provenance(), "the other", other._provenance(), hint="")
        # Copies: the other may be this one, or grow meanwhile.
        seen = {real: Moments.from_state(other._total(real).state()) for real in (True, False)}
        for real, moments in seen.items():
            self._moments[real].merge(moments)  # in place: an update may be running in another thread
        self._adopted = {**other._provenance(), **self._provenance()}

    def reset(self, *, real: bool = True, fake: bool = True) -> None:
        """Forget the images of both sides, or of one."""
        for side, wanted in ((True, real), (False, fake)):
            if wanted:
                self._moments[side].reset()
                self._device_sides.pop(side, None)

    def _provenance(self) -> dict[str, Any]:
        known = provenance(self._extractor) if self._extractor is not None else self._adopted
        return {"protocol": self.protocol, "precision": self.precision, "dims": self.dims, **known}

    def __getstate__(self) -> dict[str, Any]:
        """Leave a session of the network behind (it is loaded again when needed), but not what it was."""
        state = dict(self.__dict__)
        del state["_lock"]
        state["_moments"] = {real: self._total(real) for real in (True, False)}
        state["_device_sides"] = {}
        if not self._is_extractor_given:
            state["_extractor"] = None
            state["_adopted"] = self._provenance()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def state_dict(self) -> dict[str, Any]:
        """Return all that was accumulated, as arrays and plain values; :meth:`load_state_dict` takes it back."""
        return {
            "provenance": self._provenance(),
            "real": self._total(True).state(),
            "fake": self._total(False).state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what was accumulated.

        Raises
        ------
        ValueError
            It is no such state, or was made with other dims, another protocol or another network.
        """
        missing = {"provenance", "real", "fake"} - set(state)
        if missing:
            raise ValueError(f"state: the keys {', '.join(sorted(missing))} are missing")
        check_provenance("this FID", self._provenance(), "the state", state["provenance"], hint="")
        moments = {real: Moments.from_state(state["real" if real else "fake"]) for real in (True, False)}
        for side in moments.values():
            if side.d != self.dims:
                raise ValueError(f"state: holds features of {side.d} dims, expected {self.dims}")
        self._moments = moments
        self._device_sides = {}
        self._adopted = dict(state["provenance"])
