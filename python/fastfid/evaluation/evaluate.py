"""Evaluation of whole sets of images: read each set once, fit its statistics, compare two sets."""

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Unpack, cast, overload

from fastfid import _core, mistakes
from fastfid._console import warn
from fastfid._files import check_store_folder
from fastfid._progress import ProgressMode
from fastfid.assumptions import assume_protocols
from fastfid.cache import CacheMode
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.classes import check_labels, evaluate_classes
from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.networks import extractor_beside_all
from fastfid.evaluation.opening import check_given, effective_options, files_of, load_known, load_store, open_images
from fastfid.evaluation.reading import Reading
from fastfid.evaluation.result import EvaluatedSet, Evaluation
from fastfid.evaluation.runs import EngineOption, WorkersOption, opened_run
from fastfid.extractor import FEATURES, SPATIAL, FeatureExtractor
from fastfid.features.make import classifier_of, make_extractor, outputs_of_inception
from fastfid.metrics import ALL, make_metrics
from fastfid.metrics.base import Metric, Result, check_gives, check_takes, outputs_needed
from fastfid.metrics.fid import FrechetInceptionDistance, SpatialFID
from fastfid.metrics.rows import with_rows
from fastfid.metrics.several import Missing, by_name
from fastfid.options import (
    DEFAULT_DIMS,
    DEFAULT_PROTOCOL,
    Dims,
    FIDOptions,
    PrecisionName,
    ProtocolName,
    SourceOptions,
    check_keywords,
    check_options,
)
from fastfid.record import FIDRecord
from fastfid.references import known_as
from fastfid.scale import RunDirectory
from fastfid.scale.plan import SIDES
from fastfid.sources.labels import labels_of_side
from fastfid.statistics import Statistics, check_compatible

__all__ = ["compute_fid", "compute_statistics", "evaluate", "evaluate_sets", "options_in_effect"]


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
    spatial: bool = False,
    run_dir: str | os.PathLike[str] | RunDirectory | None = None,
    engine: EngineOption = None,
    workers: WorkersOption = None,
    **options: Unpack[SourceOptions],
) -> Statistics:
    """Fit a Gaussian to the Inception features of one set of images.

    Parameters
    ----------
    source : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        A folder, a zip or tar, a glob of pictures, an ``.npz`` with images under ``arr_0``, an ``.npy``, uint8 images
        [n, h, w, 3] or [n, 3, h, w], or an iterable of images or batches. A list of folders or archives is their
        union. Statistics, and ``.npz`` files of statistics, are returned unchanged; the features of a store (see
        :func:`evaluate`) are taken as they are. The keywords of the network are ignored for both.
    dims : {64, 192, 768, 2048}, optional
        Layer of the network, given by its number of features. Default: 2048.
    protocol : str, optional
        Preprocessing of images to the 299 x 299 input; docs/protocols.md describes each. Default: "pytorch-fid".
    device : str or int
        "auto", "cpu", "cuda", "cuda:N" or N. "auto" selects a CUDA device if one is available, else the CPU. "auto" and
        "cuda" select torch's current device, else the device of this process's LOCAL_RANK, else the first device. A
        device that does not exist raises an error when the network runs. Statistics alone need no device.
    precision : {"float32", "tf32", "float16"}
        Arithmetic of the network. The CPU supports "float32" only. "tf32" is PyTorch's default for convolutions on a
        GPU. Statistics of different precisions are not compared; docs/precision.md lists the error of each precision.
    weights : path, optional
        Inception weights to use instead of the cached or fetched weights.
    extractor : FeatureExtractor, optional
        Another network. The extractor then determines `dims`, `protocol`, `device`, `precision` and `weights`, and
        these keywords are ignored.
    batch_size : int, optional
        Accepted for compatibility with pytorch-fid. The batch size never changes the result. On the CPU, small batches
        are as fast as large ones and take less memory, so the network chooses the batch size.
    num_workers : int, optional
        Threads that decode and resize. Default: min(8, available CPUs).
    on_error : {"raise", "skip"}
        What to do with an image that cannot be read.
    max_errors : int, optional
        With ``on_error="skip"``: raise an error when more than this number of images have been skipped.
    progress : bool, "auto" or "lines"
        Show a progress bar on stderr. "auto" shows the bar only if stderr is a terminal. "lines" prints a line every 30
        seconds if stderr is not a terminal.
    cache : bool or "hashes"
        Store the statistics of folders and archives in the user's cache, and reuse stored statistics. True identifies
        files by path, size and times; "hashes" identifies them by content.
    spatial : bool
        Fit a Gaussian to the spatial features too, for the sFID. Needs 2048 dims and a protocol of 299 x 299.
    run_dir : path or RunDirectory, optional
        Keep what was read in this folder, task by task, so that a run that was killed goes on; see docs/scale.md.
    engine : "ray", or object with ``run(tasks, work)``, optional
        Who reads the images, in tasks: the workers of a Ray cluster, or an object with ``run(tasks, work)`` as in
        ``fastfid.scale.engine``.
        Default: this process. The result has equal bits.
    workers : int or (int, int), optional
        Number of workers of ``engine="ray"``, or the fewest and the most. Default: one for each GPU, else one for each
        machine.
    recursive : bool
        Read the sub-folders of a folder too.
    any_case : bool
        Read files with upper-case extensions too.
    match : str
        Read only the pictures of a folder or archive whose name matches this pattern, such as ``"*.input.png"``.
    key : str
        Name of the array of images in an ``.npz``. Default: ``arr_0``.
    layout : {"nhwc", "nchw"}
        Axis order of arrays whose shape is ambiguous.
    value_range : (float, float)
        Values of black and white in float arrays, such as (0, 1) or (-1, 1). Without it, float images are refused.
    num, seed : int
        Read a random subset of `num` images, drawn with this seed.
    alpha : bool
        Composite transparent pictures on white.
    exif : bool
        Rotate and flip pictures according to their EXIF orientation.
    max_pixels : int
        Refuse pictures that declare more pixels, before decoding them. Default: 89 million.
    labels, column, to_uint8
        Where the labels of the images come from, the column of images in a parquet file, and how float images become
        grey levels: see :func:`fastfid.sources.open_source`.

    Returns
    -------
    Statistics
        float64 mean (d,) and covariance (d, d), ddof=1, with n and provenance.

    Raises
    ------
    ValueError
        There is nothing to read, there are fewer than two images, an argument is invalid, or `spatial` is asked for and
        the extractor, or the file of statistics, has no spatial features.
    TypeError
        Images are neither uint8 nor float with `value_range`, or `extractor` is not a FeatureExtractor.
    fastfid.ImageError
        An image cannot be read. The message contains its path.
    MemoryError
        There is not enough memory for an image. The message contains its path.
    fastfid.WeightsError, fastfid.BackendUnavailable
        No weights were found or fetched; the device does not exist.

    Examples
    --------
    >>> statistics = compute_statistics("real", dims=64)  # a folder of four pictures
    >>> statistics.n, statistics.mu.shape, statistics.meta["protocol"]
    (4, (64,), 'pytorch-fid')
    """
    check_options(
        batch_size=batch_size,
        num_workers=num_workers,
        on_error=on_error,
        max_errors=max_errors,
        protocol=protocol,
        device=device,
        precision=precision,
        extractor=extractor,
        progress=progress,
        options=options,
    )
    metrics = {metric.name: metric for metric in (FrechetInceptionDistance(), SpatialFID())[: 1 + spatial]}
    with opened_run(run_dir, engine, workers, None, cache) as run:
        known = load_known(source, options.get("key"), spatial=True)
        if known is not None:
            for metric in metrics.values():
                check_takes(metric, known)
            return known
        if (store := load_store(source, max_errors)) is not None:
            for metric in metrics.values():
                check_given(store, metric)
            kept = ImageSet(None, store=store)
            kept.take(store, metrics)
            return _statistics_of(kept, metrics)
        opened_at = time.time()
        opened = open_images(source, {**options, "on_error": on_error})
        if extractor is None:
            dims, protocol = dims or DEFAULT_DIMS, protocol or DEFAULT_PROTOCOL
            outputs = frozenset({FEATURES, SPATIAL} if spatial else {FEATURES}) & outputs_of_inception(dims, protocol)
            extractor = make_extractor(dims, protocol, device, weights, precision, outputs)
        how = (num_workers, on_error, max_errors, progress, cache, opened_at, options)
        images = ImageSet(None, opened)
        reading = Reading(extractor, metrics, *how, run=run)
        reading.prepare([images])
        reading.fill(images, opened)
        return _statistics_of(images, metrics)


def _statistics_of(images: ImageSet, metrics: Mapping[str, FrechetInceptionDistance]) -> Statistics:
    """Return the statistics of the features; with a second metric, those of the spatial features too."""
    found, *more = (metric.statistics(images.sample(metric)) for metric in metrics.values())
    return dataclasses.replace(found, spatial=more[0]) if more else found


def evaluate(
    real: Any,
    fake: Any,
    *,
    metrics: Literal["all"] | Iterable[str | Metric] = ("fid",),
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
    force: bool = False,
    hash_inputs: bool = False,
    store: str | os.PathLike[str] | None = None,
    per_class: bool = False,
    run_dir: str | os.PathLike[str] | RunDirectory | None = None,
    engine: EngineOption = None,
    workers: WorkersOption = None,
    **options: Unpack[SourceOptions],
) -> Evaluation:
    """Return metrics of two sets of images, from one pass over each set.

    Parameters
    ----------
    real, fake : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        See :func:`compute_statistics`, also for the other keywords. Statistics are accepted for metrics that need
        nothing else.
    metrics : list of str or Metric, or "all"
        Names of metrics listed in docs/metrics.md, with a tool's convention as ``kid:torch-fidelity``, or metric
        objects with options, such as ``FrechetInceptionDistance(tol=1e-9)``. "all": every metric of the list that can
        be computed; ``missing`` of the result has the others and why.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    hash_inputs : bool
        Read the files of each side once more, for a hash of their names and contents in the record.
    store : path, optional
        Keep the features of each side in a folder below this one; see docs/metrics.md. A run that was interrupted goes
        on, and later runs read the features instead of the images. The folder of a side is itself a source.
    per_class : bool
        Compute the metrics of each class too, from the `labels` of both sides or of one; see docs/classes.md. Where the
        labels of the two sides come from different places, `labels` is a dict:
        ``labels={"real": "folder", "fake": "auto"}``.
    run_dir, engine, workers
        See :func:`compute_statistics`.

    Returns
    -------
    Evaluation
        The results by name; ``per_class`` has those of each class.

    Raises
    ------
    ValueError
        A metric is unknown, or a metric that needs images is given statistics. Also every ValueError that
        :func:`compute_fid` raises. The other exceptions of :func:`compute_fid` are raised too.

    Examples
    --------
    >>> evaluate("real", "fake", metrics=["fid"], dims=64)["fid"].value > 0  # two folders of four pictures
    True
    """
    started, opened_at = time.perf_counter(), time.time()
    how = How(
        dims=dims,
        protocol=protocol,
        device=device,
        precision=precision,
        weights=weights,
        extractor=extractor,
        batch_size=batch_size,
        num_workers=num_workers,
        on_error=on_error,
        max_errors=max_errors,
        progress=progress,
        cache=cache,
        force=force,
        store=store,
        options=options,
        hash_inputs=hash_inputs,
        per_class=per_class,
    )
    check_store_folder(store)
    asked = make_metrics(metrics)
    with opened_run(run_dir, engine, workers, store, cache) as run:
        if remark := mistakes.same_place(real, fake, recursive=options.get("recursive", False)):
            warn(remark, SuspiciousInputWarning)
        spatial = any(SPATIAL in metric.needs for metric in asked.values())
        sets = open_both(real, fake, {**options, "on_error": on_error}, hash_inputs, spatial, max_errors)
        missing = Missing(lenient=metrics == ALL)
        how = dataclasses.replace(how, run=run)
        return evaluate_sets(sets, asked, missing, how, started, opened_at, may_overlap=not remark)


def evaluate_sets(
    sets: tuple[ImageSet, ImageSet],
    asked: dict[str, Metric],
    missing: Missing,
    how: How,
    started: float,
    opened_at: float,
    *,
    may_overlap: bool,
) -> Evaluation:
    """Read the opened sets once and compare them; metrics that cannot be computed go from `asked` to `missing`.

    Parameters
    ----------
    started, opened_at : float
        ``time.perf_counter()`` and ``time.time()`` before the sets were opened.
    may_overlap : bool
        Whether to look for images that both sets have.
    """
    a, b = sets
    # Whatever can be refused without the network is refused before it runs.
    for one in sets:
        if one.source is None:
            missing.check(asked, partial(check_given, one.given, is_real=one is a))
    check_labels(a, b, per_class=how.per_class)
    reading = None
    if any(one.source is not None for one in sets):
        given = [one.given for one in sets if one.given is not None]
        extractor = extractor_beside_all(given, {**how.network(), "outputs": outputs_needed(asked.values())})
        missing.check(asked, partial(check_gives, extractor))
        reading = Reading.of(extractor, asked, how, opened_at)
        reading.prepare(sets)
    assumed = assume_protocols([one.given for one in sets], reading.extractor.protocol if reading else None)
    loaded = time.perf_counter()
    for side, one in zip(SIDES, sets, strict=True):
        if reading is not None and one.source is not None:
            reading.fill(one, one.source, side)
        elif one.store is not None:
            one.take(one.store, with_rows(asked) if how.per_class else asked)
            one.classifier = partial(classifier_of, one.meta, how.weights)
    extracted = time.perf_counter()
    if may_overlap and a.census and b.census and (shared := mistakes.overlap(a.census, b.census)):
        warn(shared, SuspiciousInputWarning)
    if a.given is not None and b.given is not None:
        check_compatible(a.given, b.given, force=how.force)
    results, sides = _compare(asked, missing, a, b)
    d = reading.extractor.dims if reading else sets[0].given.d  # type: ignore[union-attr]  # one of the two is there
    classes = evaluate_classes(asked, a, b, d, how.progress) if how.per_class else None
    finished = time.perf_counter()
    inputs = {"real": a.identity(), "fake": b.identity()} if how.hash_inputs else None
    return Evaluation(
        results,
        *sides[next(iter(results))],  # the FID of "all" has a value, or its error was raised
        d,
        assumed_protocol=dict(zip(("real", "fake"), assumed, strict=True)),
        skipped={"real": a.skipped, "fake": b.skipped},
        cached={"real": a.is_cached, "fake": b.is_cached},
        device=reading.extractor.device if reading else None,
        seconds=_seconds(started, loaded, extracted, finished, time.perf_counter()),
        date=datetime.fromtimestamp(opened_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        host=os.uname().nodename,
        threads=_core.num_threads(),
        options=options_in_effect(how.options, asked, on_error=how.on_error, force=how.force),
        missing=dict(missing),
        inputs=inputs,
        sides=sides,
        per_class=classes,
        run=None if how.run is None else how.run.facts,
        sources={side: one.found() for side, one in zip(SIDES, sets, strict=True)},
        known_as=dict(zip(SIDES, known_as([one.known for one in sets]), strict=True)),
    )


def _compare(
    asked: dict[str, Metric], missing: Missing, a: ImageSet, b: ImageSet
) -> tuple[dict[str, Result], dict[str, tuple[EvaluatedSet, EvaluatedSet]]]:
    """Return the results by name, and the two sets of each. Metrics that cannot be computed go to `missing`."""
    results: dict[str, Result] = {}
    sides: dict[str, tuple[EvaluatedSet, EvaluatedSet]] = {}

    def compare(metric: Metric) -> None:
        real, fake = a.sample(metric), b.sample(metric)
        found = by_name(metric, metric.result(real, fake))
        results.update(found)
        sides.update(dict.fromkeys(found, (EvaluatedSet.of(real), EvaluatedSet.of(fake))))

    missing.check(asked, compare)
    return results, sides


def open_both(
    real: Any, fake: Any, options: Mapping[str, Any], hash_inputs: bool, spatial: bool, max_errors: int | None
) -> tuple[ImageSet, ImageSet]:
    """Return the two sets: statistics that were loaded, or images that are to be read."""
    key = options.get("key")
    a, b = (
        ImageSet(load_known(source, key, spatial=spatial), store=load_store(source, max_errors))
        for source in (real, fake)
    )
    for one, source, side in ((a, real, "real"), (b, fake, "fake")):
        own = {**options, "labels": labels_of_side(options.get("labels"), side)}
        if one.store is not None and not _is_auto(own["labels"]):
            warn(f"{one.store.name}: is a store, whose labels are those that it was made with; labels= is not read")
        one.source = open_images(source, own) if one.known is None and one.store is None else None
        one.files = files_of(source, one.source) if hash_inputs else None
    return a, b


def _is_auto(labels: Any) -> bool:
    return labels is None or (isinstance(labels, str) and labels == "auto")


def _seconds(started: float, loaded: float, extracted: float, found: float, finished: float) -> dict[str, float]:
    return {
        "load": loaded - started,
        "features": extracted - loaded,
        "distance": found - extracted,
        "total": finished - started,
    }


def options_in_effect(
    options: Mapping[str, Any], asked: Mapping[str, Metric], *, on_error: str = "raise", force: bool = False
) -> dict[str, Any]:
    """Return every option that can change a number, as an :class:`Evaluation` has them."""
    tol = next((metric.tol for metric in asked.values() if isinstance(metric, FrechetInceptionDistance)), None)
    return {**effective_options(options), "on_error": on_error, "force": force, "tol": tol}


@overload
def compute_fid(real: Any, fake: Any, *, return_info: Literal[False] = ..., **options: Unpack[FIDOptions]) -> float: ...
@overload
def compute_fid(real: Any, fake: Any, *, return_info: Literal[True], **options: Unpack[FIDOptions]) -> FIDRecord: ...
def compute_fid(
    real: Any,
    fake: Any,
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
    force: bool = False,
    hash_inputs: bool = False,
    run_dir: str | os.PathLike[str] | RunDirectory | None = None,
    engine: EngineOption = None,
    workers: WorkersOption = None,
    tol: float | None = None,
    return_info: bool = False,
    **options: Unpack[SourceOptions],
) -> float | FIDRecord:
    """Return the Fréchet Inception Distance of two sets of images (Heusel et al. 2017).

    ``|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` of the Gaussians fitted to their Inception features.

    Parameters
    ----------
    real, fake : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        See :func:`compute_statistics`, also for the other keywords. Two statistics need no network, and `dims` is then
        ignored. If one side is statistics, `dims` and `protocol` default to those of the statistics. Other `dims`
        raise ValueError; another `protocol` raises ValueError unless `force` is set.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.
    hash_inputs : bool
        Read the files of each side once more, for a hash of their names and contents in the record.
    tol : float, optional
        Tighten the numerical bounds of the trace term to this width, given as a fraction of the trace term.
    return_info : bool
        Return the whole record instead, the object of ``--json``: ``fid``, ``numerical_lower`` and
        ``numerical_upper`` (of rounding, not of sampling), ``standard_error``, ``n`` of each side, protocol, extractor,
        options, versions, seconds; see docs/json.md.

    Raises
    ------
    ValueError
        The two sides cannot be compared with each other. The exceptions of :func:`compute_statistics` are raised too.
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
    check_keywords(options)
    metric = FrechetInceptionDistance(tol=tol, needs_bias=return_info, needs_standard_error=return_info)
    evaluation = evaluate(
        real,
        fake,
        metrics=(metric,),
        dims=dims,
        protocol=protocol,
        device=device,
        precision=precision,
        weights=weights,
        extractor=extractor,
        batch_size=batch_size,
        num_workers=num_workers,
        on_error=on_error,
        max_errors=max_errors,
        progress=progress,
        cache=cache,
        force=force,
        hash_inputs=hash_inputs,
        run_dir=run_dir,
        engine=engine,
        workers=workers,
        **options,
    )
    return cast(FIDRecord, evaluation.to_dict()) if return_info else evaluation["fid"].value
