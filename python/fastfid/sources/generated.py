"""Images of a generator, each from a seed of its own."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from fastfid._checks import check_count
from fastfid.sources.arrays import make_scale
from fastfid.sources.base import ImageItem, ImageSource
from fastfid.sources.iterable import IterableSource
from fastfid.sources.picture import Decoder

__all__ = ["GeneratedSource"]


class GeneratedSource(ImageSource):
    """Images that a function makes from seeds: image i has the seed ``seed + i``.

    So any part of the set can be made alone, and a run that goes on, or is divided among processes, has the images of a
    run that nothing interrupts. The function is called in the calling thread, with the seeds of one batch at a time.
    The batches are the same ones whichever part is made: the last bits of a network's output may depend on the batch.

    Parameters
    ----------
    generate : callable
        Takes a list of seeds, and returns as many images: a uint8 array or tensor (n, h, w, 3) or (n, 3, h, w), or a
        list of images, as Pillow's.
    num : int
        Number of images.
    batch_size : int
        Number of seeds of a call. The last call may have fewer.
    seed : int
        Seed of the first image.
    name : str, optional
        What messages and statistics call the set. Default: the name of the function.
    identity : str, optional
        Says what makes the images, such as the hash of a checkpoint and the prompt. A run directory needs it, to know
        the images of another generator.
    layout, value_range, to_uint8
        See :func:`fastfid.sources.open_source`.

    Raises
    ------
    ValueError
        A number is not positive. While iterating: the function returned more or fewer images than seeds.
    TypeError
        `generate` cannot be called. While iterating: it returned no images.

    Examples
    --------
    >>> import numpy as np
    >>> def sample(seeds):
    ...     return [np.random.default_rng(s).integers(0, 256, (8, 8, 3), dtype=np.uint8) for s in seeds]
    >>> source = GeneratedSource(sample, 100, batch_size=32)
    >>> len(source), next(source.items(70, 71)).name
    (100, 'sample: image 70')
    """

    def __init__(
        self,
        generate: Callable[[list[int]], Any],
        num: int,
        *,
        batch_size: int = 16,
        seed: int = 0,
        name: str | None = None,
        identity: str | None = None,
        layout: Literal["nhwc", "nchw"] | None = None,
        value_range: tuple[float, float] | None = None,
        to_uint8: Literal["round", "truncate", "floor-127.5", "floor-128"] | None = None,
    ):
        if not callable(generate):
            raise TypeError(f"generate: expected a function of seeds, got {type(generate).__name__}")
        self.name = name or getattr(generate, "__name__", None) or type(generate).__name__
        self.notes = []
        self._generate = generate
        self._num = check_count("num", num, 1)
        self._batch_size = check_count("batch_size", batch_size, 1)
        self._seed = check_count("seed", seed, 0)
        self._identity = identity
        self._layout = layout
        self._scale = make_scale(value_range, to_uint8)
        self._made: tuple[int, Sequence[ImageItem]] = (-1, ())  # the last batch, and its number

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items(0, None)

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        """Yield items; the batches in which they lie are made, and no other."""
        end = self._num if stop is None else min(stop, self._num)
        for number in range(first // self._batch_size, -(-end // self._batch_size)):
            begin = number * self._batch_size
            batch = self._batch(number)
            yield from batch[max(first - begin, 0) : end - begin]

    def state_of(self, first: int, stop: int) -> str:
        """Return a hash of what makes the images `first` to ``stop - 1``. ValueError without an identity."""
        if self._identity is None:
            raise ValueError(f"{self.name}: say by identity= what makes the images, such as the hash of a checkpoint")
        end = min(-(-stop // self._batch_size) * self._batch_size, self._num)  # of the last batch, which may be short
        decides = [self._identity, self._batch_size, self._seed, first, stop, end, self._layout, str(self._scale)]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    def _batch(self, number: int) -> Sequence[ImageItem]:
        if self._made[0] == number:
            return self._made[1]
        begin = number * self._batch_size
        end = min(begin + self._batch_size, self._num)
        seeds = list(range(self._seed + begin, self._seed + end))
        images = IterableSource([self._generate(seeds)], Decoder(), self._layout, self._scale, None)
        images.name = f"{self.name}: batch of seed {seeds[0]}"  # in messages about what was returned
        batch = list(images)
        if len(batch) != len(seeds):
            raise ValueError(f"{self.name}: returned {len(batch)} images for the {len(seeds)} seeds from {seeds[0]} on")
        for index, item in enumerate(batch, begin):
            item.name = f"{self.name}: image {index}"
        self._made = (number, batch)
        return batch
