"""Sets that are given: statistics, a store of features, or a source of images."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fastfid._console import warn
from fastfid._files import FileSet
from fastfid.errors import ImageError, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.evaluation.image_set import ImageSet
from fastfid.metrics.base import (
    Metric,
    check_takes,
)
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.sources import ImageSource, is_statistics_file, open_source
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore, is_store

__all__ = [
    "check_given",
    "effective_options",
    "files_of",
    "is_known",
    "load_known",
    "load_statistics",
    "load_store",
    "open_images",
    "statistics_of_store",
]


def load_known(source: Any, key: str | None = None, *, spatial: bool = False) -> Statistics | None:
    """Return the statistics that `source` is or names, or None if images must be read.

    Parameters
    ----------
    source, key
        See :func:`open_source`.
    spatial : bool
        Load the spatial part of a file too, where it has one.

    Raises
    ------
    ValueError
        `source` is an invalid statistics file.
    """
    if isinstance(source, Statistics):
        return source
    return Statistics.load(source, spatial=spatial) if is_known(source, key) else None


def load_store(source: Any, max_errors: int | None = None) -> FeatureStore | None:
    """Return the store of features that `source` names, and say what was said when it was made; None: it names none.

    Raises
    ------
    ValueError
        The store is not complete or damaged.
    fastfid.ImageError
        More than `max_errors` images were left out.
    """
    store = FeatureStore(source) if is_store(source) else None
    if store is not None:
        say_again(store, store.name, max_errors)
    return store


def say_again(store: FeatureStore, name: str, max_errors: int | None) -> None:
    if max_errors is not None and len(store.skipped) > max_errors:
        first = store.skipped[0]
        raise ImageError(
            f"{first['name']}: {first['reason']}; {len(store.skipped)} images of the store {store.name} were left out,"
            f" more than the {max_errors} allowed (max_errors)"
        )
    say_of_images(name, store.skipped, store.remarks)


def say_of_images(name: str, skipped: Sequence[Mapping[str, str]], remarks: Sequence[str]) -> None:
    """Issue warnings about the images that were left out, and about likely mistakes."""
    if skipped:
        shown = ", ".join(f"{one['name']} ({one['reason']})" for one in skipped[:5])
        more = ", ..." if len(skipped) > 5 else ""
        warn(f"{name}: skipped {len(skipped)} unreadable images: {shown}{more}", SkippedImagesWarning)
    for text in remarks:
        warn(f"{name}: {text}", SuspiciousInputWarning)


def load_statistics(source: Any, key: str | None = None) -> Statistics | None:
    """Return the statistics that `source` is or names, or those of the features of a store; None: they are images.

    Raises
    ------
    ValueError
        `source` is an invalid statistics file, or a store that is not complete or damaged.
    """
    store = load_store(source)
    return load_known(source, key) if store is None else statistics_of_store(store)


def statistics_of_store(store: FeatureStore) -> Statistics:
    """Return the statistics of the features of a store. ValueError if they are damaged."""
    metric = FrechetInceptionDistance()
    images = ImageSet(None, store=store)
    images.take(store, {metric.key: metric})
    return metric.statistics(images.sample(metric))


def check_given(given: Statistics | FeatureStore | None, metric: Metric, *, is_real: bool = False) -> None:
    """Raise ValueError if the metric cannot be computed from what was given instead of the images of a set."""
    if is_real and metric.is_of_generated:
        return
    if isinstance(given, Statistics):
        check_takes(metric, given)
    if isinstance(given, FeatureStore) and (missing := set(metric.needs) - set(given.outputs)):
        raise ValueError(
            f"{metric.key}: needs the output {', '.join(sorted(missing))}; the store {given.name} has"
            f" {', '.join(given.outputs)}; make a store with this metric"
        )


def is_known(source: Any, key: str | None = None) -> bool:
    """Whether `source` is or names statistics, so that no image must be read."""
    return isinstance(source, Statistics) or (isinstance(source, str | os.PathLike) and is_statistics_file(source, key))


def open_images(source: Any, options: Mapping[str, Any]) -> ImageSource:
    """Open a source and issue its notes as warnings. Raises ValueError if it is known to have fewer than two images."""
    if isinstance(source, ImageSource):  # opened before
        return source
    opened = open_source(source, **options)
    for note in opened.notes:
        warn(note)
    try:
        found = len(opened)
    except TypeError:  # a stream, whose images are counted while they are read
        return opened
    if found < 2:
        raise ValueError(f"{opened.name}: a covariance needs at least 2 images, got {found}")
    return opened


def files_of(source: Any, opened: ImageSource | None) -> FileSet | None:
    """Return the files of a source, which was opened, or of statistics; None where it is not made of files."""
    if opened is None:
        if is_store(source):
            return FileSet(FeatureStore(source).files())
        return FileSet([os.fsdecode(source)]) if isinstance(source, str | os.PathLike) else None
    try:
        return FileSet(opened.files())
    except ValueError:  # arrays and iterables
        return None


def effective_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of how a source is read: as given, else what it is without being given."""
    parameters = inspect.signature(open_source).parameters.values()
    return {p.name: options.get(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
