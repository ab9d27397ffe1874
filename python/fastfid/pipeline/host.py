"""Feeds an extractor from a source: decoding, preparing and the network in threads, the features in the source's order.

Threads, not processes: Pillow and the core's resize run without the GIL, so threads decode as fast as processes do,
without copying every prepared image (1 MiB) through a pipe, and nothing is left behind when the process is killed.

On the CPU the network is several single-threaded runs side by side, not one run over all cores: measured on 2 cores,
runs of 4 images side by side are 4.5 % faster, since no core waits for another at the end of each layer, and decoding
takes its share of the cores without holding up a layer. Nothing spins. `python -m benchmarks --full --stage pipeline`
compares this with a run less, and with one run over all cores, spinning or not.
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
from fastfid.sources.base import ImageItem, ImageSource

__all__ = ["Outputs", "Report", "extract", "only_features"]

Outputs = Mapping[str, NDArray[np.float32]]  # what an extractor gives for a batch


@dataclass
class Report:
    """What :func:`extract` did.

    Attributes
    ----------
    n : int
        Images whose features were consumed.
    skipped : list of (str, str)
        Name and reason of each image left out (``on_error="skip"``), in the source's order.
    census : Census
        What tells whether the set is the one that is meant.
    """

    n: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    census: Census = field(default_factory=Census)


def extract(
    source: ImageSource,
    extractor: FeatureExtractor,
    consume: Callable[[Outputs], object],
    *,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_errors: int | None = None,
    progress: ProgressMode = False,
    description: str = "",
    census: Census | None = None,
    mixed_sizes: bool | None = None,
) -> Report:
    """Compute the outputs of the network for every image of `source` and hand them to `consume`, in the source's order.

    The outputs do not depend on the number of workers, runs or images in a batch: each image is prepared alone, and
    an extractor's forward treats the images of a batch alike.

    Parameters
    ----------
    source : ImageSource
        Where the images come from. It is iterated in the calling thread.
    extractor : FeatureExtractor
        Its ``prepare`` runs in the workers; its ``forward`` takes up to ``batch_size`` images at a time, in
        ``concurrency`` threads, or in the calling thread where that is 1.
    consume : callable
        Takes the extractor's outputs by name, float32 (m, length), 1 <= m <= batch_size, in the calling thread.
    num_workers : int, optional
        Threads that decode and prepare; 0 does it in the calling thread. Default: the available CPUs, at most 8.
    on_error : {"raise", "skip"}
        What an unreadable image does. With "raise", the first one in the source's order is raised, whatever the timing.
    max_errors : int, optional
        With "skip": the most images that may be left out. Default: any number.
    progress : bool, "auto" or "lines"
        A bar on stderr with rate and time left; "auto": only where stderr is a terminal; "lines": a line every 30
        seconds where it is none.
    description : str
        Stands before the bar. Default: the source's name.
    census : Census, optional
        What remembers the images. Default: a new one, in the report.
    mixed_sizes : bool, optional
        May the images give inputs of different shapes? Default: what the extractor says.

    Returns
    -------
    Report

    Raises
    ------
    Whatever an image raises leaves only when every image before it, in the source's order, has been consumed; none
    after it is.

    fastfid.ImageError
        An image cannot be read, or more than `max_errors`; the message begins with the name of an image.
    ValueError
        The extractor needs inputs of one shape and an image gives another; or it refuses an image. The message begins
        with the image's name.
    MemoryError
        There is not enough memory for an image, which is named; ``on_error="skip"`` does not skip it.

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

        def take(results: Iterator[Outputs]) -> None:
            for outputs in results:
                consume(outputs)
                features = outputs[FEATURES]
                report.census.add(features)
                report.n += len(features)
                bar.update(len(features))

        def skip(name: str, error: ImageError) -> None:
            report.skipped.append((name, str(error).removeprefix(f"{name}: ")))
            if on_error == "raise":
                raise error
            if max_errors is not None and len(report.skipped) > max_errors:
                raise _too_many(report, max_errors)
            bar.update(1)

        mixed = extractor.mixed_sizes if mixed_sizes is None else mixed_sizes
        batches = _Batches(prepared, extractor, length, skip, mixed_sizes=mixed)
        for batch in batches:
            take(network.add(batch))
        take(network.rest())
    if batches.failure is not None:  # every image before it has been consumed
        raise batches.failure
    return report


def only_features(consume: Callable[[NDArray[np.float32]], object]) -> Callable[[Outputs], object]:
    """Return what hands the features among the outputs, float32 (m, dims), to `consume`."""
    return lambda outputs: consume(outputs[FEATURES])


class _Batches:
    """Prepared inputs, in their order, as batches of one shape.

    Parameters
    ----------
    prepared : iterator
        Of names and prepared inputs or errors.
    extractor : FeatureExtractor
    length : int or None
        Images in all, where that is known.
    skip : callable
        Takes name and error of an image that cannot be read; raises the error that ends the run, if one does.
    mixed_sizes : bool
        May the inputs have different shapes?

    Attributes
    ----------
    failure : Exception or None
        What an image raised, once the batches of the images before it have been handed out.
    """

    def __init__(
        self,
        prepared: Iterator[tuple[str, NDArray[Any] | ImageError]],
        extractor: FeatureExtractor,
        length: int | None,
        skip: Callable[[str, ImageError], None],
        *,
        mixed_sizes: bool,
    ):
        self.failure: Exception | None = None
        self._prepared = prepared
        self._extractor = extractor
        self._skip = skip
        self._mixed_sizes = mixed_sizes
        self._size = extractor.batch_size
        if length is not None:  # few images are spread over all runs of the network
            self._size = min(self._size, max(1, -(-length // extractor.concurrency)))

    def __iter__(self) -> Iterator[list[NDArray[Any]]]:
        batch: list[NDArray[Any]] = []
        for prepared in self._inputs():
            if batch and prepared.shape != batch[0].shape:
                yield batch
                batch = []
            batch.append(prepared)
            if len(batch) == self._size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _inputs(self) -> Iterator[NDArray[Any]]:
        """Yield prepared inputs up to the first failure."""
        first: tuple[int, ...] | None = None
        try:
            for name, outcome in self._prepared:
                if isinstance(outcome, ImageError):
                    self._skip(name, outcome)
                    continue
                first = first or outcome.shape
                if outcome.shape != first and not self._mixed_sizes:
                    raise ValueError(
                        f"{name}: gives the network an input of shape {outcome.shape}, the first image one of"
                        f" {first}; protocol {self._extractor.protocol!r} needs images of one size"
                    )
                yield outcome
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
    """Yield where the next prepared input is to go: the places of one batch after the other; None: anywhere."""
    while True:
        if extractor.input_shape is None:
            yield None
        else:
            yield from np.empty((extractor.batch_size, *extractor.input_shape), np.float32)


def _prepare(item: ImageItem, extractor: FeatureExtractor, place: NDArray[Any] | None, census: Census) -> NDArray[Any]:
    """Decode and prepare one image, into `place` if there is one.

    Every error names it, also a crash where the program has asked for that.
    """
    _core.set_current_image(item.name.encode(errors="backslashreplace"))
    try:
        with about(item.name):
            image = item.load()
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
    except ValueError as error:  # also of classes that take other arguments, such as UnicodeDecodeError
        raise ValueError(f"{item.name}: {error}") from error
    except Exception as error:
        raise RuntimeError(f"{item.name}: {type(error).__name__}: {error}") from error
    finally:
        _core.set_current_image(b"")


def _prepared(
    source: ImageSource, extractor: FeatureExtractor, num_workers: int, census: Census
) -> Generator[tuple[str, NDArray[Any] | ImageError], None, None]:
    """Yield name and prepared input, or the ImageError, of every image in order, working ahead by a bounded number."""
    places = _places(extractor)
    if num_workers == 0:
        for item, place in zip(source, places, strict=False):
            try:
                yield item.name, _prepare(item, extractor, place, census)
            except ImageError as error:
                yield item.name, error
        return
    # Enough that the next batch is ready when a run of the network ends.
    ahead = extractor.batch_size * (extractor.concurrency + 1) + 2 * num_workers
    items = iter(source)
    broken: Exception | None = None  # what ended the source early; what came before it goes first
    waiting: deque[tuple[str, Future[NDArray[Any]]]] = deque()
    workers: Workers[tuple[ImageItem, NDArray[Any] | None], NDArray[Any]] = Workers(
        "decode", num_workers, lambda task: _prepare(task[0], extractor, task[1], census)
    )
    with workers:
        while True:
            try:
                for item in islice(items, ahead - len(waiting)):
                    waiting.append((item.name, workers.submit((item, next(places)))))
            except Exception as error:
                items, broken = iter(()), error
            if not waiting:
                if broken is not None:
                    raise broken
                return
            name, future = waiting.popleft()
            try:
                outcome: NDArray[Any] | ImageError = future.result()
            except ImageError as error:
                outcome = error
            yield name, outcome


class _Network:
    """Runs an extractor's forward, one run or several at once; outputs come in the order that batches went in."""

    def __init__(self, extractor: FeatureExtractor):
        self._extractor = extractor
        self._running: deque[Future[Outputs]] = deque()
        self._workers: Workers[list[NDArray[Any]], Outputs] | None = None

    def __enter__(self) -> "_Network":
        if self._extractor.concurrency > 1:
            self._workers = Workers("network", self._extractor.concurrency, self._forward)
            self._workers.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._workers is not None:
            self._workers.__exit__(*exc)

    def add(self, batch: list[NDArray[Any]]) -> Iterator[Outputs]:
        """Take a batch; yield the outputs that are next in order, waiting where too many batches are under way."""
        if self._workers is None:
            yield self._forward(batch)
            return
        self._running.append(self._workers.submit(batch))
        # As many wait as run, so that a run that ends before an older one finds work.
        while len(self._running) > 2 * self._extractor.concurrency:
            yield self._running.popleft().result()

    def rest(self) -> Iterator[Outputs]:
        """Yield the outputs of all batches still under way."""
        while self._running:
            yield self._running.popleft().result()

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
            if rows.ndim != 2 or len(rows) != len(batch):  # their width is checked by what consumes them
                raise ValueError(f"{name}.forward: expected {output} of {len(batch)} images, got shape {rows.shape}")
        return outputs


def _stacked(inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the inputs as one array: without a copy where they lie behind each other in one, as `_places` puts them.

    After an image that was left out they do not, and are copied: half a percent of what the network takes for them.
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
