"""Two whole sets of images, or one: read once, fitted, compared."""

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Unpack, cast, overload

from fastfid import _core, mistakes
from fastfid._console import warn
from fastfid._core import Moments
from fastfid._progress import ProgressMode
from fastfid.assumptions import assume_protocols, dims_and_protocol
from fastfid.cache import CacheMode, StatisticsCache
from fastfid.errors import NumericalError, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import distance, distance_record
from fastfid.metrics.moments import FeatureMoments
from fastfid.options import (
    DEFAULT_DIMS,
    DEFAULT_PROTOCOL,
    Dims,
    FIDOptions,
    PrecisionName,
    ProtocolName,
    SourceOptions,
    check_options,
)
from fastfid.pipeline import DeviceFeed, Report, extract
from fastfid.provenance import check_provenance, provenance_of
from fastfid.sources import ImageSource, is_statistics_file, open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import Statistics

__all__ = ["compute_fid", "compute_statistics"]

UNCERTAINTY_GROUPS = 10


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
    progress: ProgressMode
    cache: CacheMode
    opened_at: float  # before the sources were opened, seconds since the epoch
    groups: int
    options: Mapping[str, Any]

    def entry(self, source: ImageSource) -> StatisticsCache | None:
        """Return the source's place in the cache, if there is to be one; ValueError if it is not made of files."""
        if not self.cache:
            return None
        decides = {
            **provenance_of(self.extractor),
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
            meta = dict(cached.meta)
            for remark in meta.pop("remarks", ()):
                warn(f"{source.name}: {remark}", SuspiciousInputWarning)
            # The same files may have come under another name then.
            return _Side(dataclasses.replace(cached, meta={**meta, "source": source.name}, name=source.name))
        side = self._read(source)
        refusal: str | None = "images were skipped"
        if side.report is not None and not side.report.skipped:
            meta = {**side.statistics.meta, "remarks": side.report.census.remarks()}
            refusal = entry.store(dataclasses.replace(side.statistics, meta=meta))
        if refusal:
            warn(f"{source.name}: not kept in the cache: {refusal}")
        return side

    def _read(self, source: ImageSource) -> _Side:
        if isinstance(source, DeviceImages) and (network := self.extractor.on_device(source.device)) is not None:
            if self.groups:
                raise ValueError("uncertainty: needs images on the host; pass images.cpu()")
            accumulated = FeatureMoments(self.extractor.dims)
            feed = DeviceFeed(network, accumulated.update)
            feed.add(source, callers_stream(source.tensor))
            feed.flush()
            return self._fitted(source, Report(n=len(source)), accumulated.total())
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
            warn(f"{source.name}: skipped {len(report.skipped)} unreadable images: {shown}{more}", SkippedImagesWarning)
        for remark in report.census.remarks():
            warn(f"{source.name}: {remark}", SuspiciousInputWarning)
        return self._fitted(source, report, moments)

    def _fitted(self, source: ImageSource, report: Report, moments: Moments) -> _Side:
        meta = {**provenance_of(self.extractor), "source": source.name}
        return _Side(Statistics.from_moments(moments, meta, source.name), report, moments)


def _open(source: Any, options: Mapping[str, Any]) -> ImageSource:
    opened = open_source(source, **options)
    for note in opened.notes:
        warn(note)
    try:
        found = len(opened)
    except TypeError:  # a stream: it is counted as it is read
        return opened
    if found < 2:
        raise ValueError(f"{opened.name}: a covariance needs at least 2 images, got {found}")
    return opened


def load_known(source: Any, key: str | None = None) -> Statistics | None:
    """Return the statistics that `source` is or names, or None where images must be read.

    Raises
    ------
    ValueError
        It is a statistics file, but a bad one.
    """
    if isinstance(source, Statistics):
        return source
    if isinstance(source, str | os.PathLike) and is_statistics_file(source, key):
        return Statistics.load(source)
    return None


def compute_statistics(
    source: Any,
    *,
    dims: Dims | None = None,
    protocol: ProtocolName | None = None,
    device: str | int = "auto",
    precision: PrecisionName = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
    cache: CacheMode = False,
    **options: Unpack[SourceOptions],
) -> Statistics:
    """Fit a Gaussian to the Inception features of one set of images.

    Parameters
    ----------
    source : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        A folder, a zip or tar, a glob of pictures, an ``.npz`` with images under ``arr_0``, an ``.npy``, uint8 images
        [n, h, w, 3] or [n, 3, h, w], or an iterable of images or batches; a list of folders or archives is their union.
        Statistics, and ``.npz`` files of them, come back as they are: the network's keywords have no say then.
    dims : {64, 192, 768, 2048}, optional
        Which layer's features. Default: 2048.
    protocol : str, optional
        How images become 299 x 299 input; see :data:`fastfid.protocols.PROTOCOLS`. Default: "pytorch-fid".
    device : str or int
        "auto", "cpu", "cuda", "cuda:N" or N. "auto" is a CUDA device where there is one. "auto" and "cuda" mean torch's
        current device, or the one of this process's LOCAL_RANK, or the first. One that does not exist is an error where
        the network runs: statistics alone need none.
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
    progress : bool, "auto" or "lines"
        Show a progress bar on stderr; "auto": on a terminal only; "lines": where stderr is no terminal, a line every 30
        seconds.
    cache : bool or "hashes"
        Keep the statistics of folders and archives in the user's cache and take them from there the next time. Files
        are known by path, size and times, or by their content. See :mod:`fastfid.cache`.
    recursive, any_case : bool
        Folders: enter sub-folders; take upper-case extensions too.
    match : str
        Folders and archives: take only pictures of such a name, as ``"*.input.png"``.
    key : str
        The array of images in an ``.npz``. Default: ``arr_0``.
    layout : {"nhwc", "nchw"}
        Axis order of arrays, where their shape leaves it open.
    value_range : (float, float)
        Black and white of float arrays, as (0, 1) or (-1, 1). Without it float images are refused.
    num, seed : int
        Take a random subset of `num` images.
    alpha, exif : bool
        Composite transparent pictures on white; turn pictures as their EXIF orientation says.
    max_pixels : int
        Refuse pictures that declare more, before they are decoded. Default: 89 million.

    Returns
    -------
    Statistics
        float64 mean (d,) and covariance (d, d), ddof=1, with n and provenance.

    Raises
    ------
    ValueError
        Nothing to read, fewer than two images, a bad argument.
    TypeError
        Images that are not uint8 (nor float with `value_range`); an extractor that is none.
    fastfid.ImageError
        An image cannot be read; its path is in the message.
    MemoryError
        There is not enough memory for an image; its path is in the message.
    fastfid.WeightsError, fastfid.BackendUnavailable
        See :func:`make_extractor`.

    Examples
    --------
    >>> statistics = compute_statistics("real", dims=64)  # a folder of four pictures
    >>> statistics.n, statistics.mu.shape, statistics.meta["protocol"]
    (4, (64,), 'pytorch-fid')
    """
    check_options(
        batch_size, num_workers, on_error, max_errors, protocol, device, precision, extractor, progress, options
    )
    known = load_known(source, options.get("key"))
    if known is not None:
        return known
    opened_at = time.time()
    opened = _open(source, options)
    if extractor is None:
        extractor = make_extractor(dims or DEFAULT_DIMS, protocol or DEFAULT_PROTOCOL, device, weights, precision)
    reading = _Reading(extractor, num_workers, on_error, max_errors, progress, cache, opened_at, 0, options)
    return reading.side(opened, reading.entry(opened)).statistics


@overload
def compute_fid(real: Any, fake: Any, *, return_info: Literal[False] = ..., **options: Unpack[FIDOptions]) -> float: ...
@overload
def compute_fid(
    real: Any, fake: Any, *, return_info: Literal[True], **options: Unpack[FIDOptions]
) -> dict[str, Any]: ...
def compute_fid(
    real: Any,
    fake: Any,
    *,
    dims: int | None = None,
    protocol: str | None = None,
    device: str | int = "auto",
    precision: str = "float32",
    weights: str | os.PathLike[str] | None = None,
    extractor: FeatureExtractor | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
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
    real, fake : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        See :func:`compute_statistics`, also for the other keywords. Two statistics need no network, and `dims` is
        ignored then. With statistics on one side, `dims` and `protocol` are theirs unless others are given, which is
        refused.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    tol : float, optional
        Tighten the numerical bounds of the trace term to this width, relative to it.
    uncertainty : bool
        Estimate the standard error of the FID from 10 groups of each side's images (200 MB a side at 2048 dims); it is
        in the record. Statistics from a file know no groups, and for n <= d there is no such estimate.
    return_info : bool
        Return the whole record instead: ``fid``, ``numerical_lower`` and ``numerical_upper`` (of rounding, not of
        sampling), ``n`` of each side, protocol, extractor, versions, seconds; see docs/json.md.

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
    >>> record["numerical_lower"] <= record["fid"] <= record["numerical_upper"], record["n"]
    (True, {'real': 4, 'fake': 4})
    """
    started = time.perf_counter()
    check_options(
        batch_size, num_workers, on_error, max_errors, protocol, device, precision, extractor, progress, options
    )
    opened_at = time.time()
    if remark := mistakes.same_place(real, fake, recursive=options.get("recursive", False)):
        warn(remark, SuspiciousInputWarning)
    # Whatever can be refused without the network is refused before it runs.
    known = [load_known(source, options.get("key")) for source in (real, fake)]
    opened: list[ImageSource | None] = []
    for side, source in zip(known, (real, fake), strict=True):
        opened.append(_open(source, options) if side is None else None)
    reading = None
    entries: list[StatisticsCache | None] = [None, None]
    if None in known:
        file = next((side for side in known if side is not None), None)
        if extractor is None:
            dims, protocol = dims_and_protocol(dims, protocol, file)
            if file is not None:  # before weights are fetched in vain
                asked = {"protocol": protocol, "precision": precision}
                check_provenance(file.name, file.meta, "this run", asked, force=force, is_run=True)
            extractor = make_extractor(dims, protocol, device, weights, precision)
        elif file is not None and file.d != extractor.dims:
            raise ValueError(f"{file.name} has {file.d} dims, the extractor gives {extractor.dims}")
        if file is not None:
            check_provenance(file.name, file.meta, "this run", provenance_of(extractor), force=force, is_run=True)
        # Statistics from a file have no groups, and then those of the other side are of no use.
        groups = UNCERTAINTY_GROUPS if uncertainty and file is None else 0
        reading = _Reading(extractor, num_workers, on_error, max_errors, progress, cache, opened_at, groups, options)
        entries = [reading.entry(source) if source is not None else None for source in opened]
    assumed = assume_protocols(known, extractor.protocol if reading and extractor else None)
    loaded = time.perf_counter()
    a, b = (
        _Side(side) if side is not None else cast(_Reading, reading).side(cast(ImageSource, images), entry)
        for side, images, entry in zip(known, opened, entries, strict=True)
    )
    extracted = time.perf_counter()
    if not remark and a.report and b.report and (shared := mistakes.overlap(a.report.census, b.report.census)):
        warn(shared, SuspiciousInputWarning)
    result = distance(a.statistics, b.statistics, tol=tol, force=force, needs_bias=return_info)
    error = _uncertainty(a, b) if uncertainty else None
    if not return_info:
        return result.value
    finished = time.perf_counter()
    return {
        **distance_record(a.statistics, b.statistics, result),
        "assumed_protocol": dict(zip(("real", "fake"), assumed, strict=True)),
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


def _skipped(side: _Side) -> list[dict[str, str]]:
    return [{"name": name, "reason": reason} for name, reason in side.report.skipped] if side.report else []


def _uncertainty(a: _Side, b: _Side) -> dict[str, Any]:
    """Return the standard error of the distance and its own relative error, or null and the reason."""
    reason = None
    for side in (a, b):
        if side.moments is None:
            reason = f"{side.statistics.name}: a statistics file has no single images to regroup; give the images"
        elif side.moments.n <= side.moments.d:
            reason = f"{side.statistics.name}: n = {side.moments.n} <= d = {side.moments.d}; sampling bias dominates"
    if reason is None and a.moments is not None and b.moments is not None:
        try:
            error, relative = _core.influence_standard_error(a.moments, b.moments)
            return {"standard_error": error, "relative_error_of_standard_error": relative, "reason": None}
        except NumericalError as singular:
            reason = str(singular)
    return {"standard_error": None, "relative_error_of_standard_error": None, "reason": reason}
