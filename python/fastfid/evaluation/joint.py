"""One pass over a source for several extractors, each with what it keeps: accumulators, a store or a cache entry."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastfid._console import remark
from fastfid.errors import NumericalError
from fastfid.evaluation.image_set import ImageSet, kept_labels, skipped_of
from fastfid.evaluation.reading import Reading, check_memory
from fastfid.extractor import FeatureExtractor, outputs_of
from fastfid.features.joint import JointExtractor
from fastfid.metrics.rows import FeatureRows
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.sources import ImageSource
from fastfid.sources.base import Label, NamingSource
from fastfid.store import StoreWriter

__all__ = ["Part", "read_jointly"]


@dataclass(frozen=True)
class Part:
    """What one extractor has to do with a source: its name, how it reads, and the set that it fills."""

    name: str
    extractor: FeatureExtractor
    reading: Reading
    images: ImageSet


def read_jointly(parts: Sequence[Part], source: ImageSource) -> None:
    """Fill the sets of a source; images are decoded once for all extractors for which nothing complete was kept."""
    waiting = [part for part in parts if not part.reading.take_kept(part.images, source)]
    if not waiting:
        return
    joint = JointExtractor({part.name: part.extractor for part in waiting})
    if waiting[0].images.keeper is not None:
        _into_stores(waiting, joint, source)
    else:
        _into_accumulators(waiting, joint, source)


def _reading_of(parts: Sequence[Part], joint: JointExtractor) -> Reading:
    """Return how the source is read for all: as for each, by another extractor, which computes no metric itself."""
    one = parts[0].reading
    return Reading(
        joint, {}, one.num_workers, one.on_error, one.max_errors, one.progress, False, one.opened_at, one.options
    )


@contextlib.contextmanager
def _errors_of(source: ImageSource, part: Part) -> Iterator[None]:
    try:
        yield
    except NumericalError as error:
        raise NumericalError(f"{source.name}: {part.name}: {error}") from None


def _into_accumulators(parts: Sequence[Part], joint: JointExtractor, source: ImageSource) -> None:
    seen = []
    for part in parts:
        seen.append(Accumulators(part.reading.metrics, outputs_of(part.extractor)))
        part.images.seen = seen[-1]
    rows = [one for of_one in seen for one in of_one.values() if isinstance(one, FeatureRows)]
    check_memory([(source, sum(one.d for one in rows))])

    def consume(outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        for number, (part, one) in enumerate(zip(parts, seen, strict=True)):
            with _errors_of(source, part):
                one.update(joint.of(number, outputs), indices)

    report = _reading_of(parts, joint).extract(source, consume)
    for part in parts:
        part.images.report = report
        part.reading.keep(part.images)


def _into_stores(parts: Sequence[Part], joint: JointExtractor, source: ImageSource) -> None:
    """Append the rows of each extractor to its store. Stores of an interrupted run may have some of the rows."""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(cast(StoreWriter, part.images.keeper)) for part in parts]
        done = min(writer.done for writer in writers)
        census, passed = _census_of(writers[0], source, done)
        here = done

        def consume(outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
            nonlocal here
            for number, (part, writer) in enumerate(zip(parts, writers, strict=True)):
                there = min(max(writer.done - here, 0), len(indices))
                if there < len(indices):
                    rows = {name: rows[there:] for name, rows in joint.of(number, outputs).items()}
                    with _errors_of(source, part):
                        writer.add(rows, indices[there:])
            here += len(indices)

        reading, rest = _reading_of(parts, joint), NamingSource(source, done)
        try:
            report = reading.extract(rest, consume, census)
        except KeyboardInterrupt:
            if reading.on_error == "raise":
                kept = min(writer.done for writer in writers)
                remark(f"{source.name}: {kept:,} images are kept; the same command goes on after them")
            raise
        labels = kept_labels(passed + report.labels, source)
        names = [item.name for item in source.slice(0, done)] + rest.names if done else rest.names
        for part, writer in zip(parts, writers, strict=True):
            store = writer.finish(skipped_of(report), report.skipped_at, labels, census.remarks(), names)
            part.images.report = report
            part.reading.take_written(part.images, source, store)


def _census_of(writer: StoreWriter, source: ImageSource, done: int) -> tuple[Census, list[Label]]:
    """Return the census and the labels of the images whose rows all stores have."""
    census = Census()
    passed: list[Label] = []
    if not done:
        return census, passed
    remark(f"{source.name}: goes on after the {done:,} images of an interrupted run")
    for item in source.slice(0, done):
        if item.label is not None:
            passed.append(item.label)
        if not census.has_levels:  # mostly of the first image
            census.see(item.load())
    left = done
    for features in writer.features():  # so that repeats are counted over all images
        census.add(features[:left])
        left -= min(left, len(features))
    return census, passed
