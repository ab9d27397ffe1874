"""The pipeline on the host: threads decode, prepare and run the network. Features come in the order of the source.

The pipeline uses threads and not processes. Pillow and the core's resize release the GIL, so threads decode as fast as
processes, without copying every prepared image (1 MiB) through a pipe. No process is left over when the main process
is killed.

On the CPU, several single-threaded runs of the network run at the same time, instead of one run over all cores. On 2
cores, parallel runs of 4 images are 4.5 % faster: no core waits for another at the end of each layer, and decoding does
not delay a layer. No thread spins. `python -m benchmarks --full --stage pipeline` compares this setting with one run
less, and with one run over all cores, with and without spinning.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._checks import check_at_least, check_on_error
from fastfid._console import about
from fastfid._progress import ProgressMode, show_progress
from fastfid.errors import ImageError
from fastfid.extractor import FEATURES, FeatureExtractor, outputs_of
from fastfid.mistakes import Census
from fastfid.pipeline.workers import Workers
from fastfid.sources.base import ImageItem, ImageSource, Label, note_header, noted_header

__all__ = ["Outputs", "Report", "extract", "only_features"]

Outputs = Mapping[str, NDArray[np.float32]]  # an extractor's outputs for a batch
_Prepared = tuple[str, Label | None, NDArray[Any] | ImageError]  # name, label, and the input or why there is none
_Results = Iterator[tuple[Outputs, NDArray[np.int64]]]  # and the indices of its images


@dataclass
class Report:
    """Report of a call of :func:`extract`.

    Attributes
    ----------
    n : int
        Number of images whose features were consumed.
    skipped : list of (str, str)
        Name and reason of each image left out (``on_error="skip"``), in the source's order.
    skipped_at : list of int
        Their indices in the source.
    census : Census
        Evidence of likely mistakes in the set of images.
    labels : list of int, or list of str
        Label of each image whose features were consumed, in order. Empty if the source has no labels.
    """

    n: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)
    census: Census = field(default_factory=Census)
    labels: list[Label] = field(default_factory=list)


def extract(
    source: ImageSource,
    extractor: FeatureExtractor,
    consume: Callable[[Outputs, NDArray[np.int64]], object],
    *,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
    description: str = "",
    census: Census | None = None,
    mixed_sizes: bool | None = None,
) -> Report:
    """Compute the outputs of the network for every image of `source` and pass them to `consume`, in the source's order.

    The outputs do not depend on the number of workers, runs or images in a batch: each image is prepared on its own,
    and an extractor's ``forward`` computes the outputs of each image independently.

    Parameters
    ----------
    source : ImageSource
        The source of the images. It is iterated in the calling thread.
    extractor : FeatureExtractor
        Its ``prepare`` runs in the workers. Its ``forward`` takes up to ``batch_size`` images at a time, in
        ``concurrency`` threads, or in the calling thread if ``concurrency`` is 1.
    consume : callable
        Takes the extractor's outputs by name, float32 (m, length), 1 <= m <= batch_size, and the indices in the source
        of the images that gave them, int64 (m,), ascending. Called in the calling thread.
    num_workers : int, optional
        Number of threads that decode and prepare. 0 uses the calling thread. Default: the available CPUs, at most 8.
    on_error : {"raise", "skip"}
        What to do with an unreadable image. "raise" always raises the error of the first unreadable image in the
        source's order.
    max_errors : int, optional
        With "skip": largest number of images that may be left out. Default: unlimited.
    progress : bool, "auto" or "lines"
        Show a bar on stderr with rate and time left. "auto": only if stderr is a terminal. "lines": print a line every
        30 seconds if stderr is not a terminal.
    description : str
        Text before the bar. Default: the source's name.
    census : Census, optional
        The census that registers the images. Default: a new census, which the report contains.
    mixed_sizes : bool, optional
        Whether the images may give inputs of different shapes. Default: the extractor's attribute.

    Returns
    -------
    Report

    Raises
    ------
    An error of an image is raised after every image before it, in the source's order, has been consumed. No image
    after it is consumed.

    fastfid.ImageError
        An image cannot be read, or more than `max_errors` images. The message begins with the name of an image.
    ValueError
        The extractor needs inputs of one shape and an image gives another shape, or the extractor refuses an image. The
        message begins with the image's name.
    MemoryError
        There is not enough memory for an image. The message names the image. ``on_error="skip"`` does not skip it.

    """
    check_on_error(on_error, max_errors)
    if num_workers is None:
        num_workers = min(8, _core.num_threads())
    check_at_least("num_workers", num_workers, 0)
    report = Report(census=census or Census())
    length = _length(source)
    with (
        closing(_prepared(source, extractor, num_workers, report.census)) as prepared,
        _Network(extractor) as network,
        show_progress(length, progress, description or source.name) as bar,
    ):

        def take(results: _Results) -> None:
            for outputs, indices in results:
                consume(outputs, indices)
                features = outputs[FEATURES]
                report.census.add(features)
                report.n += len(features)
                bar.update(len(features))

        def skip(index: int, name: str, error: ImageError) -> None:
            report.skipped.append((name, str(error).removeprefix(f"{name}: ")))
            report.skipped_at.append(index)
            if on_error == "raise":
                raise error
            if max_errors is not None and len(report.skipped) > max_errors:
                raise _too_many(report, max_errors)
            bar.update(1)

        mixed = extractor.mixed_sizes if mixed_sizes is None else mixed_sizes
        batches = _Batches(prepared, source.first, extractor, length, skip, report.labels, mixed_sizes=mixed)
        for batch, indices in batches:
            take(network.add(batch, indices))
        take(network.rest())
    if batches.failure is not None:  # every image before it has been consumed
        raise batches.failure
    return report


def only_features(
    consume: Callable[[NDArray[np.float32]], object],
) -> Callable[[Outputs, NDArray[np.int64]], object]:
    """Return a function that passes the features among the outputs, float32 (m, dims), to `consume`."""
    return lambda outputs, indices: consume(outputs[FEATURES])


class _Batches:
    """Iterator over batches of prepared inputs of one shape, in their order, and the indices of their images.

    Parameters
    ----------
    prepared : iterator
        Yields a name, a label or None, and a prepared input or an error.
    first : int
        Index of the first of them.
    extractor : FeatureExtractor
    length : int or None
        Total number of images, if it is known.
    skip : callable
        Takes index, name and error of an image that cannot be read. It raises an error if the run must end.
    labels : list
        The labels of the inputs are appended to it.
    mixed_sizes : bool
        Whether the inputs may have different shapes.

    Attributes
    ----------
    failure : Exception or None
        The error of an image. It is set after the batches of the images before this image have been yielded.
    """

    def __init__(
        self,
        prepared: Iterator[_Prepared],
        first: int,
        extractor: FeatureExtractor,
        length: int | None,
        skip: Callable[[int, str, ImageError], None],
        labels: list[Label],
        *,
        mixed_sizes: bool,
    ):
        self.failure: Exception | None = None
        self._prepared = prepared
        self._first = first
        self._extractor = extractor
        self._skip = skip
        self._labels = labels
        self._mixed_sizes = mixed_sizes
        self._size = extractor.batch_size
        if length is not None:  # a small number of images is divided among all runs of the network
            self._size = min(self._size, max(1, -(-length // extractor.concurrency)))

    def __iter__(self) -> Iterator[tuple[list[NDArray[Any]], NDArray[np.int64]]]:
        batch: list[NDArray[Any]] = []
        indices: list[int] = []
        for index, prepared in self._inputs():
            if batch and prepared.shape != batch[0].shape:
                yield batch, np.array(indices)
                batch, indices = [], []
            batch.append(prepared)
            indices.append(index)
            if len(batch) == self._size:
                yield batch, np.array(indices)
                batch, indices = [], []
        if batch:
            yield batch, np.array(indices)

    def _inputs(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield index and prepared input of the images up to the first failure."""
        first: tuple[int, ...] | None = None
        try:
            for index, (name, label, outcome) in enumerate(self._prepared, self._first):
                if isinstance(outcome, ImageError):
                    self._skip(index, name, outcome)
                    continue
                first = first or outcome.shape
                if outcome.shape != first and not self._mixed_sizes:
                    raise ValueError(
                        f"{name}: gives the network an input of shape {outcome.shape}, the first image one of"
                        f" {first}; protocol {self._extractor.protocol!r} needs images of one size"
                    )
                if label is not None:
                    self._labels.append(label)
                yield index, outcome
        except Exception as error:
            self.failure = error


def _length(source: ImageSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def _too_many(report: Report, accepted: int) -> ImageError:
    first = "; ".join(f"{name} ({reason})" for name, reason in report.skipped[:3])
    many = len(report.skipped)
    more = "; ..." if many > 3 else ""
    return ImageError(f"{first}{more}: {many} unreadable images, at most {accepted} are accepted")


def _places(extractor: FeatureExtractor) -> Iterator[NDArray[Any] | None]:
    """Yield the array for the next prepared input: the rows of one batch after another; None: no fixed place."""
    while True:
        if extractor.input_shape is None:
            yield None
        else:
            yield from np.empty((extractor.batch_size, *extractor.input_shape), np.float32)


def _prepare(item: ImageItem, extractor: FeatureExtractor, place: NDArray[Any] | None, census: Census) -> NDArray[Any]:
    """Decode and prepare one image, into `place` if it is given.

    Every error message names the image. So does the crash report, if the program has enabled crash reports.
    """
    _core.set_current_image(item.name.encode(errors="backslashreplace"))
    try:
        note_header(None)
        with about(item.name):
            image = item.load()
        census.tally.add(*noted_header(image))
        census.see(image)
        if place is None:
            return extractor.prepare(image)
        extractor.prepare_into(image, place)
        return place
    except ImageError:
        raise
    except MemoryError as error:
        raise MemoryError(str(error) if item.name in str(error) else f"{item.name}: not enough memory") from error
    except TypeError as error:
        raise TypeError(f"{item.name}: {error}") from error
    except ValueError as error:  # a new ValueError, because subclasses such as UnicodeDecodeError take other arguments
        raise ValueError(f"{item.name}: {error}") from error
    except Exception as error:
        raise RuntimeError(f"{item.name}: {type(error).__name__}: {error}") from error
    finally:
        _core.set_current_image(b"")


def _prepared(
    source: ImageSource, extractor: FeatureExtractor, num_workers: int, census: Census
) -> Generator[_Prepared, None, None]:
    """Yield name, label and prepared input (or ImageError) of every image, in order.

    A bounded number of images is prepared ahead.
    """
    places = _places(extractor)
    if num_workers == 0:
        for item, place in zip(source, places, strict=False):
            try:
                yield item.name, item.label, _prepare(item, extractor, place, census)
            except ImageError as error:
                yield item.name, item.label, error
        return
    # Enough images that the next batch is ready when a run of the network ends.
    ahead = extractor.batch_size * (extractor.concurrency + 1) + 2 * num_workers
    items = iter(source)
    broken: Exception | None = None  # the error of the source, raised after the images before it
    waiting: deque[tuple[str, Label | None, Future[NDArray[Any]]]] = deque()
    workers: Workers[tuple[ImageItem, NDArray[Any] | None], NDArray[Any]] = Workers(
        "decode", num_workers, lambda task: _prepare(task[0], extractor, task[1], census)
    )
    with workers:
        while True:
            try:
                for item in islice(items, ahead - len(waiting)):
                    waiting.append((item.name, item.label, workers.submit((item, next(places)))))
            except Exception as error:
                items, broken = iter(()), error
            if not waiting:
                if broken is not None:
                    raise broken
                return
            name, label, future = waiting.popleft()
            try:
                outcome: NDArray[Any] | ImageError = future.result()
            except ImageError as error:
                outcome = error
            yield name, label, outcome


class _Network:
    """Calls an extractor's forward, one or several at a time. Outputs are returned in the order of the batches."""

    def __init__(self, extractor: FeatureExtractor):
        self._extractor = extractor
        self._running: deque[tuple[Future[Outputs], NDArray[np.int64]]] = deque()
        self._workers: Workers[list[NDArray[Any]], Outputs] | None = None

    def __enter__(self) -> "_Network":
        if self._extractor.concurrency > 1:
            self._workers = Workers("network", self._extractor.concurrency, self._forward)
            self._workers.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._workers is not None:
            self._workers.__exit__(*exc)

    def add(self, batch: list[NDArray[Any]], indices: NDArray[np.int64]) -> _Results:
        """Submit a batch of the images with these indices.

        If too many batches are running or queued, wait for the oldest, and yield its outputs and indices.
        """
        if self._workers is None:
            yield self._forward(batch), indices
            return
        self._running.append((self._workers.submit(batch), indices))
        # As many batches are queued as run, so that a thread that finishes before an older run has work.
        while len(self._running) > 2 * self._extractor.concurrency:
            yield self._oldest()

    def rest(self) -> _Results:
        """Yield the outputs and indices of all batches that are running or queued."""
        while self._running:
            yield self._oldest()

    def _oldest(self) -> tuple[Outputs, NDArray[np.int64]]:
        future, indices = self._running.popleft()
        return future.result(), indices

    def _forward(self, batch: list[NDArray[Any]]) -> Outputs:
        outputs = self._extractor.forward(_stacked(batch))
        name = type(self._extractor).__name__
        if not isinstance(outputs, Mapping):
            outputs = {FEATURES: outputs}
        elif missing := set(outputs_of(self._extractor)) - set(outputs):
            raise ValueError(f"{name}.forward: the outputs {', '.join(sorted(missing))} are missing")
        for output, rows in outputs.items():
            if not isinstance(rows, np.ndarray):
                raise TypeError(f"{name}.forward: expected {output} as a NumPy array, got {type(rows).__name__}")
            if rows.ndim != 2 or len(rows) != len(batch):  # the consumer checks the width
                raise ValueError(f"{name}.forward: expected {output} of {len(batch)} images, got shape {rows.shape}")
        return outputs


def _stacked(inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the inputs as one array. Consecutive rows of one array, as `_places` yields them, are not copied.

    After a skipped image, the rows are not consecutive and are copied, which takes 0.5 % of the network's time.
    """
    first, whole = inputs[0], inputs[0].base
    if len(inputs) == 1:
        return first[None]
    if isinstance(whole, np.ndarray) and whole.shape[1:] == first.shape and whole.flags.c_contiguous:
        start = first.ctypes.data
        if all(x.base is whole and x.ctypes.data == start + i * first.nbytes for i, x in enumerate(inputs)):
            row = (start - whole.ctypes.data) // first.nbytes
            return whole[row : row + len(inputs)]
    return np.stack(inputs)
