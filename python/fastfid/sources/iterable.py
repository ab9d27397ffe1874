"""Images produced by the user's code: lists, Datasets, DataLoaders, generators, callables."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
from PIL import Image

from fastfid.errors import ImageError
from fastfid.sources.archive import BytesItem
from fastfid.sources.arrays import channels_last, is_array, to_host, view_items
from fastfid.sources.base import FailedItem, ImageItem, ImageSource
from fastfid.sources.folder import FileItem
from fastfid.sources.picture import Decoder

__all__ = ["IterableSource", "is_sequence"]

_PAIRS = (
    "a loader of (images, labels) is passed as (images for images, _ in loader), a Dataset of them as"
    " (dataset[i][0] for i in range(len(dataset)))"
)


def is_sequence(obj: Any) -> bool:
    """Return whether `obj` has a length and elements by index, as torch's map-style Datasets."""
    return (
        isinstance(obj, Sized)
        and hasattr(obj, "__getitem__")
        and not isinstance(obj, Mapping | str | bytes | bytearray | memoryview)
    )


class IterableSource(ImageSource):
    """Images from an iterable, a sequence or a callable, in the order in which they are produced.

    Each element is one image or a batch: an array or tensor (h, w, 3), (3, h, w), (n, h, w, 3) or (n, 3, h, w) of uint8
    (or float with a `value_range`); a Pillow image; the path of a picture; an encoded picture as bytes, as a file
    object or as a mapping ``{"bytes": ..., "path": ...}``; or a list or tuple of these. Arrays and Pillow images are
    copied immediately, because the producer may reuse their buffers.

    Parameters
    ----------
    images : iterable, sequence or callable
        A callable is called without arguments. If it returns an iterator, as a generator function does, the iterator is
        read. Otherwise the result is an image or a batch, and the callable is called again until there are `num`
        images.
    decoder : Decoder
        Converts pictures to RGB.
    layout : str, optional
        "nhwc" or "nchw", for arrays with two axes of length 3.
    value_range : (float, float), optional
        Values of black and white in float arrays.
    num : int, optional
        Number of images that will be read. A callable that does not return an iterator needs `num` in order to end.

    Raises
    ------
    TypeError, ValueError
        While iterating: an element is invalid. The message names the element and the expected types.
    """

    def __init__(
        self,
        images: Any,
        decoder: Decoder,
        layout: str | None,
        value_range: tuple[float, float] | None,
        num: int | None,
    ):
        self.name = getattr(images, "__name__", None) or type(images).__name__
        self.notes = []
        self._images = images
        self._decoder = decoder
        self._layout = layout
        self._value_range = value_range
        self._num = num
        self._length = _length(images)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError(f"{self.name}: the number of images is not known before they are read")
        return self._length

    def __iter__(self) -> Iterator[ImageItem]:
        taken = 0
        for element in self._elements():
            before = taken
            for position, part in enumerate(element if isinstance(element, list | tuple) else (element,)):
                for item in self._items(part, taken, position):
                    taken += 1
                    yield item
            if taken == before and not isinstance(self._images, Iterable | Sized):
                raise ValueError(f"{self.name}: returned no images; it would be called for ever")

    def _elements(self) -> Iterator[Any]:
        if isinstance(self._images, Iterable):
            yield from self._images
            return
        if is_sequence(self._images):
            for index in range(len(self._images)):
                yield self._images[index]
            return
        first = self._images()
        if isinstance(first, Iterator):
            yield from first
            return
        if self._num is None:
            raise ValueError(f"{self.name}: returns images for ever; say how many to take (num=)")
        yield first
        while True:
            yield self._images()

    def _items(self, part: Any, first: int, position: int) -> Iterator[ImageItem]:
        """Yield the images of one part of an element. `position` is the index of the part in the element."""
        name = f"{self.name}: image {first}"
        if isinstance(part, str | os.PathLike):
            yield FileItem(os.fspath(part), self._decoder)
        elif isinstance(part, Image.Image):
            try:
                # Converted here and not in a worker, because the producer may close or change the image afterwards.
                array = self._decoder.to_rgb(part, name)
            except ImageError as error:
                yield FailedItem(name, error)
            else:
                yield from view_items(array[None], True, lambda _: name)
        elif is_array(part):
            if position > 0 and len(part.shape) not in (3, 4):
                raise TypeError(f"{name}: expected images, got an array of shape {tuple(part.shape)} ({_PAIRS})")
            is_last = channels_last(part.shape, self._layout, name)
            copy = np.array(to_host(part, name, self._value_range))
            yield from view_items(
                copy if copy.ndim == 4 else copy[None],
                is_last,
                lambda i: f"{self.name}: image {first + i}",
                self._value_range,
            )
        else:
            yield self._encoded(part, name)

    def _encoded(self, part: Any, name: str) -> ImageItem:
        """Return the item of an encoded picture in memory or in an open file."""
        if isinstance(part, Mapping) and "bytes" in part:
            path = part.get("path")
            if part["bytes"] is None and isinstance(path, str):
                return FileItem(path, self._decoder)
            name = str(path or name)
            part = part["bytes"]
        if isinstance(part, bytes | bytearray | memoryview):
            self._decoder.check_size(len(part), name)
            return BytesItem(name, bytes(part), self._decoder)
        if hasattr(part, "read"):
            data = self._decoder.read(part, name, 2**16)
            return BytesItem(name, data, self._decoder)
        what = type(part).__name__
        how = _PAIRS
        if isinstance(part, Mapping):
            keys = ", ".join(repr(key) for key in list(part)[:8])
            what += f" with {keys}"
            how = "rows of a table are passed as (row['image'] for row in table)"
        raise TypeError(
            f"{name}: expected uint8 images, batches, Pillow images, paths or encoded pictures; got {what} ({how})"
        )


def _length(images: Any) -> int | None:
    """Return the number of images of a list without converting any, or None if it is unknown."""
    if not isinstance(images, list | tuple):
        return None
    total = 0
    for element in images:
        for part in element if isinstance(element, list | tuple) else (element,):
            total += part.shape[0] if is_array(part) and len(part.shape) == 4 else 1
    return total
