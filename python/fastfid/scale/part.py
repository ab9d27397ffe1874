"""Parts: the outcome of a task, and its file."""

import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import npz
from fastfid._core import build_info
from fastfid.errors import NumericalError
from fastfid.extractor import FeatureExtractor, outputs_of
from fastfid.metrics.base import Metric, outputs_needed
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.pipeline import extract
from fastfid.scale.places import Place, written
from fastfid.scale.plan import Task, has_changed
from fastfid.sources import ImageSource
from fastfid.sources.base import Label

__all__ = ["DamagedPart", "Part", "RowsAfter", "run_task", "state_arrays"]

_MAX_META_BYTES = 1 << 26
_ROWS, _STATE = "rows/", "state/"


class DamagedPart(ValueError):
    """The file of a Part is cut short, or its content is not what was written."""


@dataclass(frozen=True)
class Part:
    """The outcome of a task.

    Attributes
    ----------
    key : str
        The key of its task.
    n : int
        Number of images that gave features.
    skipped : list of (str, str)
        Name and reason of each image left out.
    arrays : dict of str to ndarray
        ``indices`` of the images and their ``rows/OUTPUT``, or the ``state/...`` of the accumulators; ``skipped_at``;
        ``labels`` of the images, if they have some; and what the census has seen.
    made : dict
        Where and how the Part was made, which does not belong to its content.
    """

    key: str
    n: int
    skipped: list[tuple[str, str]]
    arrays: Mapping[str, NDArray[Any]]
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[Label]:
        """The labels of the images that gave features; none if the source has none."""
        found: list[Label] = self.arrays["labels"].tolist() if "labels" in self.arrays else []
        return found

    @property
    def runtimes(self) -> set[str]:
        """What computed the Part, or the Parts that it was merged from."""
        return {str(one) for one in self.made.get("runtimes", [self.made.get("runtime")])}

    @cached_property
    def digest(self) -> str:
        """A hash of the content. That of a Part from a file is the one that was written with it."""
        whole = hashlib.sha256(json.dumps([self.key, self.n, self.skipped]).encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            whole.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
            whole.update(np.asarray(array, order="C").data)
        return whole.hexdigest()

    def save(self, path: Place) -> None:
        """Write the file; it appears whole or not at all.

        Raises
        ------
        OSError
            The disk is full, or the folder cannot be written to; the error names the file.
        """
        meta = {"key": self.key, "n": self.n, "skipped": self.skipped, "made": self.made, "digest": self.digest}
        arrays: dict[str, Any] = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        text = json.dumps(meta | {"arrays": {name: _checksum(array) for name, array in arrays.items()}})
        with written(path) as stream:
            np.savez(stream, meta=np.array(text), **arrays)

    @classmethod
    def load(cls, path: Place, task: Task) -> "Part":
        """Read the file of a task's Part.

        Its content is compared with CRC-32 sums, which takes a quarter of the time of the digest.

        Raises
        ------
        FileNotFoundError
            There is none.
        DamagedPart
            The file is damaged.
        ValueError
            It is a Part of another plan.
        """
        try:
            file = None if isinstance(path, Path) else io.BytesIO(path.read_bytes())
            with npz.open_npz(str(path), file) as archive:
                meta = json.loads(str(archive.read("meta", _MAX_META_BYTES)[()]))
                arrays = {name: archive.read_stored(name) for name in archive.names if name != "meta"}
            skipped = [(str(name), str(reason)) for name, reason in meta["skipped"]]
            part = cls(str(meta["key"]), int(meta["n"]), skipped, arrays, dict(meta["made"]))
            part.__dict__["digest"] = str(meta["digest"])  # the cached property
            if meta["arrays"] != {name: _checksum(array) for name, array in arrays.items()}:
                raise ValueError("its content has another hash than when it was written")
            if (why := part.why_not_of(task)) is not None:
                raise ValueError(why)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DamagedPart(f"{path}: is damaged ({str(error).removeprefix(f'{path}: ')})") from None
        if part.key != task.key:
            raise ValueError(f"{path}: is a Part of another plan; --fresh starts over")
        return part

    def why_not_of(self, task: Task) -> str | None:
        """Return what a Part of the task cannot be like, in words; None: it can be one."""
        needed = {"skipped_at", *Census.STATE, *(() if task.level is not None else ("indices",))}
        if missing := sorted(needed - set(self.arrays)):
            return f"has no {', '.join(missing)}"
        if not 0 <= self.n <= task.count:
            return f"n is {self.n}, and the task has {task.count} images"
        if "labels" in self.arrays and len(self.arrays["labels"]) != self.n:
            return "has not a label for each image"
        if task.level is None:
            indices = self.arrays["indices"]
            rows = [one for name, one in self.arrays.items() if name.startswith(_ROWS)]
            if indices.dtype != np.int64 or indices.shape != (self.n,) or any(len(one) != self.n for one in rows):
                return "has not a row and an index for each image"
            within = (indices >= task.first) & (indices < task.first + task.count)
            if not within.all() or not (np.diff(indices) > 0).all():
                return "its indices are not those of the task"
        return None

    def join(self, accumulators: "Accumulators | RowsAfter", metrics: Mapping[str, Metric], task: Task) -> None:
        """Add the images of the Part to what the metrics have accumulated of the images before it."""
        if task.level is None:
            rows = {name.removeprefix(_ROWS): one for name, one in self.arrays.items() if name.startswith(_ROWS)}
            if self.n:
                accumulators.update(rows, self.arrays["indices"])
            return
        assert not isinstance(accumulators, RowsAfter), "such Parts have no rows of single images"
        state: dict[str, dict[str, Any]] = {}
        for name, array in self.arrays.items():
            if name.startswith(_STATE):
                accumulator, _, entry = name.removeprefix(_STATE).rpartition("/")
                state.setdefault(accumulator, {})[entry] = array.item() if array.ndim == 0 else array
        accumulators.join(Accumulators.restored(metrics, state), task.node, task.level)

    def census(self) -> Census:
        """Return what is known of likely mistakes."""
        return Census.from_state({name: self.arrays[name] for name in Census.STATE})


def run_task(
    task: Task,
    source: ImageSource,
    extractor: FeatureExtractor,
    metrics: Mapping[str, Metric],
    **options: Any,
) -> Part:
    """Read the images of a task and return its Part, which depends on nothing but the task.

    `options` are those of :func:`fastfid.pipeline.extract`.

    Raises
    ------
    ValueError
        The files are others than when the plan was made. Also the errors of ``extract``.
    """
    started = time.perf_counter()
    lengths = outputs_of(extractor)
    kept: _Rows | _States
    if task.level is None:
        wanted = outputs_needed(metrics.values())
        kept = _Rows({name: length for name, length in lengths.items() if name in wanted}, source.name)
    else:
        kept = _States(Accumulators(metrics, lengths), source.name, task.sample_below)
    report = extract(source.slice(task.first, task.count), extractor, kept.add, **options)
    if has_changed(task, source):
        raise ValueError(f"{source.name}: the files of {task} are others than when the plan was made")
    arrays = kept.arrays() | {"skipped_at": np.array(report.skipped_at, np.int64)} | report.census.state()
    if report.labels:
        arrays["labels"] = np.array(report.labels)
    made = {
        "runtime": ", ".join(
            filter(None, (extractor.device.partition(":")[0], extractor.runtime, build_info()["blas"]))
        ),
        "host": os.uname().nodename,
        "seconds": time.perf_counter() - started,
    }
    return Part(task.key, report.n, report.skipped, arrays, made)


def state_arrays(accumulators: Accumulators, sample_below: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a Part of what metrics have accumulated."""
    found = {}
    for name, state in accumulators.state_below(sample_below).items():
        for entry, value in state.items():
            array = np.asarray(value)
            if array.dtype.hasobject:
                raise TypeError(f"{name}: its state has {entry} of type {type(value).__name__}; expected an array")
            found[f"{_STATE}{name}/{entry}"] = array
    return found


def _checksum(array: NDArray[Any]) -> list[Any]:
    """Return what a file says of an array, in JSON's types: dtype, shape, and the CRC-32 of its bytes."""
    return [array.dtype.str, list(array.shape), zlib.crc32(array.data) if array.size else 0]


class RowsAfter:
    """Takes the rows of Parts in place of accumulators, but for those of the first images.

    Parameters
    ----------
    done : int
        Index of the first image whose rows are taken.
    add : callable
        Takes the rows by output, and the indices of the images.
    """

    def __init__(self, done: int, add: Callable[[Mapping[str, Any], NDArray[np.int64]], object]):
        self._done = done
        self._add = add

    def update(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Take the rows of images, in the order of their source."""
        new = int(np.searchsorted(indices, self._done))
        if new < len(indices):
            self._add({name: rows[new:] for name, rows in outputs.items()}, indices[new:])


class _Rows:
    """The rows of the outputs that the metrics need."""

    def __init__(self, lengths: Mapping[str, int], source: str):
        self._source = source
        self._indices = [np.empty(0, np.int64)]
        self._rows = {name: [np.empty((0, length), np.float32)] for name, length in lengths.items()}

    def add(self, outputs: Mapping[str, NDArray[np.float32]], indices: NDArray[np.int64]) -> None:
        self._indices.append(indices)
        for name, rows in self._rows.items():
            if not np.isfinite(outputs[name]).all():
                where = f"images from number {indices[0]} on, counted from 0"
                raise NumericalError(f"{self._source}: {where}: the output {name} has NaN or infinite values")
            rows.append(outputs[name].copy())

    def arrays(self) -> dict[str, NDArray[Any]]:
        rows = {f"{_ROWS}{name}": np.concatenate(parts) for name, parts in self._rows.items()}
        return {"indices": np.concatenate(self._indices), **rows}


class _States:
    """The accumulators of the metrics."""

    def __init__(self, accumulators: Accumulators, source: str, sample_below: int):
        self._accumulators = accumulators
        self._source = source
        self._sample_below = sample_below

    def add(self, outputs: Mapping[str, NDArray[np.float32]], indices: NDArray[np.int64]) -> None:
        try:
            self._accumulators.update(outputs, indices)
        except NumericalError as error:
            raise NumericalError(f"{self._source}: {error}") from None

    def arrays(self) -> dict[str, NDArray[Any]]:
        return state_arrays(self._accumulators, self._sample_below)
