"""The two sets of a report: one evaluation, and the rows of the features of every image."""

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from fastfid import mistakes
from fastfid._console import warn
from fastfid._files import check_store_folder
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.evaluate import evaluate_sets, open_both
from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.result import Evaluation
from fastfid.extractor import FEATURES, SPATIAL
from fastfid.metrics import ALL, make_metrics
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.rows import KeptRows
from fastfid.metrics.several import Missing
from fastfid.options import EvaluateOptions
from fastfid.sources import ImageSource
from fastfid.sources.kept import KeptLabels
from fastfid.statistics import Statistics

__all__ = ["METRICS", "Side", "evaluate_with_rows"]

# The metrics of a report, but for those that cannot be computed of what is given.
METRICS = ("fid", "fid-infinity", "kid", "prdc", "mifid")


@dataclass(frozen=True)
class _RowsOfImages(KeptRows):
    """Keeps the rows of a set of images. Statistics, which have none, it takes too."""

    name: ClassVar[str] = "rows-of-images"
    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})

    @property
    def is_of_statistics(self) -> bool:
        """True: nothing is computed."""
        return True

    def result(self, real: Sample, fake: Sample) -> dict[str, Result]:  # type: ignore[override]
        """Return no values."""
        return {}


@dataclass(frozen=True)
class Side:
    """One of the two sets.

    Attributes
    ----------
    name : str
    statistics : Statistics
        Of the features.
    rows : ndarray or None, shape (n, d)
        The features; None: statistics were given instead of images.
    source : ImageSource or None
        The images; None: they are not there.
    indices : ndarray of int64, shape (n,)
        Index in the source of the image of each row.
    labels : KeptLabels or None
    skipped : list of dict
        ``name`` and ``reason`` of the images that were left out.
    """

    name: str
    statistics: Statistics
    rows: NDArray[np.float32] | None
    source: ImageSource | None
    indices: NDArray[np.int64]
    labels: KeptLabels | None
    skipped: list[dict[str, str]]

    @classmethod
    def of(cls, images: ImageSet, fid: FrechetInceptionDistance, kept: _RowsOfImages) -> "Side":
        """Return a set that was read."""
        statistics = fid.statistics(images.sample(fid))
        if images.known is not None:
            return cls(statistics.name, statistics, None, None, np.empty(0, np.int64), None, [])
        rows = images.sample(kept).seen.rows()
        at = images.report.skipped_at if images.report is not None else []
        if images.store is not None:
            at = images.store.skipped_at
        indices = np.delete(np.arange(len(rows) + len(at)), np.asarray(at, np.int64))
        return cls(images.name, statistics, rows, images.source, indices, images.labels(), images.skipped)

    @property
    def why_no_pictures(self) -> str | None:
        """Why its images cannot be shown; None: they can."""
        if self.rows is None:
            return f"{self.name} holds statistics only, no images."
        if self.source is None:
            return f"{self.name} is a store of features, which holds no images: give the images, and --store."
        try:
            len(self.source)
        except TypeError:
            return f"{self.name} is a stream, which cannot be read again for its images."
        return None


def evaluate_with_rows(
    real: Any,
    fake: Any,
    metrics: Any,
    *,
    store: str | os.PathLike[str] | None = None,
    **options: Unpack[EvaluateOptions],
) -> tuple[Evaluation, Side, Side]:
    """Read both sets once, and return their metrics and the sets with their rows.

    Parameters
    ----------
    real, fake, store, options
        See :func:`fastfid.evaluate`. There is no cache, which keeps no rows.
    metrics : list of str or Metric, "all", or None
        None: :data:`METRICS`. The FID is always among them. Where it is None or "all", metrics that cannot be computed
        are in ``missing`` of the evaluation.

    Raises
    ------
    ValueError
        See :func:`fastfid.evaluate`.
    """
    started, opened_at = time.perf_counter(), time.time()
    how = How.of(options, without=("cache", "per_class"), store=store)
    check_store_folder(store)
    asked = _asked(metrics)
    fid, kept = asked[FrechetInceptionDistance.name], _RowsOfImages()
    if remark := mistakes.same_place(real, fake, recursive=how.options.get("recursive", False)):
        warn(remark, SuspiciousInputWarning)
    spatial = any(SPATIAL in metric.needs for metric in asked.values())
    sets = open_both(real, fake, {**how.options, "on_error": how.on_error}, how.hash_inputs, spatial, how.max_errors)
    how = dataclasses.replace(how, per_class=any(one.has_labels for one in sets))
    missing = Missing(lenient=metrics in (None, ALL), essential=fid.name)
    asked_too = {**asked, kept.name: kept}
    found = evaluate_sets(sets, asked_too, missing, how, started, opened_at, may_overlap=not remark)
    return found, *(Side.of(one, fid, kept) for one in sets)  # type: ignore[return-value]


def _asked(metrics: Any) -> Mapping[str, Any]:
    """Return the metrics, the FID first, with its bias and its standard error."""
    fid = FrechetInceptionDistance()
    chosen = make_metrics(METRICS if metrics is None else metrics)
    return {fid.name: chosen.pop(fid.name, fid), **chosen}
