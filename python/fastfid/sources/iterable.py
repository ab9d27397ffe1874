"""Images produced by the user's code: lists, Datasets, DataLoaders, generators, callables."""

import itertools
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastfid.errors import ImageError
from fastfid.sources.archive import BytesItem
from fastfid.sources.arrays import Scale, channels_last, is_array, to_host, view_items
from fastfid.sources.base import FailedItem, ImageItem, ImageSource
from fastfid.sources.folder import FileItem
from fastfid.sources.labels import as_label, check_kinds
from fastfid.sources.listing import is_called_picture
from fastfid.sources.picture import Decoder

__all__ = ["IterableSource", "is_sequence"]

# Keys of images and of labels in dicts, as Hugging Face's datasets and processors call them.
_IMAGE_KEYS = ("image", "pixel_values", "img")
_LABEL_KEYS = ("label", "labels")

_PAIRS = (
    "a pair is (images, labels) with labels that are whole numbers; else pass the images alone, as in"
    " (x[0] for x in loader)"
)


def is_sequence(obj: Any) -> bool:
    """Return whether `obj` has a length and elements by index, as torch's map-style Datasets."""
    return (
        isinstance(obj, Sized)
        and hasattr(obj, "__getitem__")
        and not isinstance(obj, Mapping | str | bytes | bytearray | memoryview)
    )


class _Parts(NamedTuple):
    """The images of an element, and their labels."""

    images: Sequence[Any]
    labels: Any = None  # one label, or a sequence or array of them; None: there are none


class IterableSource(ImageSource):
    """Images from an iterable, a sequence or a callable, in the order in which they are produced.

    Each element is one image or a batch: an array or tensor (h, w, 3), (3, h, w), (n, h, w, 3) or (n, 3, h, w) of uint8
    (or float with a `scale`); a Pillow image; the path of a picture; an encoded picture as bytes, as a file object or
    as a mapping ``{"bytes": ..., "path": ...}``; or a list or tuple of these. Arrays and Pillow images are copied
    immediately, because the producer may reuse their buffers.

    An element may also be a pair (images, labels), whose labels are whole numbers, or a name beside one image; or a
    dict of images under ``image``, ``pixel_values``, ``img`` or `column`, with labels under ``label`` or ``labels``.

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
    scale : Scale, optional
        How float arrays become uint8.
    num : int, optional
        Number of images that will be read. A callable that does not return an iterator needs `num` in order to end.
    column : str, optional
        Key of images in dicts.
    label_keys : sequence of str, optional
        Keys of labels in dicts. Default: ``label`` and ``labels``.
    takes_labels : bool
        Whether items get the labels of the elements. The first element, which is produced at once, decides whether the
        elements have labels.

    Raises
    ------
    TypeError, ValueError
        While iterating: an element is invalid, or only some images have labels. The message names the element and the
        expected types.
    """

    def __init__(
        self,
        images: Any,
        decoder: Decoder,
        layout: str | None,
        scale: Scale | None,
        num: int | None,
        *,
        column: str | None = None,
        label_keys: Sequence[str] | None = None,
        takes_labels: bool = False,
    ):
        self.name = getattr(images, "__name__", None) or type(images).__name__
        self.notes = []
        self._images = images
        self._decoder = decoder
        self._layout = layout
        self._scale = scale
        self._num = num
        self._column = column
        self._label_keys = label_keys or _LABEL_KEYS
        self._length = self._known_length()
        self._begun: Iterator[Any] | None = None  # the elements, if the first has been produced
        if takes_labels:
            self._look_for_labels()

    def _look_for_labels(self) -> None:
        elements = self._elements()
        first = list(itertools.islice(elements, 1))
        self._begun = itertools.chain(first, elements)
        if first and self._parts(first[0], self.name).labels is not None:
            self.labels_from = "elements"
            for owner in (self._images, getattr(self._images, "dataset", None)):
                names = getattr(owner, "classes", None)  # torchvision's Datasets
                if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                    self.class_names = tuple(names)
                    break

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError(f"{self.name}: the number of images is not known before they are read")
        return self._length

    def __iter__(self) -> Iterator[ImageItem]:
        elements, self._begun = self._begun or self._elements(), None
        taken = 0
        kind: type | None = None
        for element in elements:
            before = taken
            name = f"{self.name}: image {taken}"
            parts = self._parts(element, name)
            labels = None if self.labels_from is None else _each(parts.labels, name)
            for position, part in enumerate(parts.images):
                for item in self._items(part, taken, position):
                    if labels is not None:
                        item.label = self._label(labels, f"{self.name}: image {taken}")
                        kind = check_kinds(item.label, kind, f"{self.name}: image {taken}")
                    taken += 1
                    yield item
            if labels is not None and next(labels, None) is not None:
                raise ValueError(f"{name}: has more labels than the {taken - before} images of its element")
            if taken == before and not isinstance(self._images, Iterable | Sized):
                raise ValueError(f"{self.name}: returned no images; it would be called for ever")

    def _label(self, labels: Iterator[Any], name: str) -> int | str:
        label = as_label(next(labels, None), name)
        if isinstance(label, int) and self.class_names is not None and label >= len(self.class_names):
            raise ValueError(f"{name}: has the label {label}, but there are {len(self.class_names)} classes")
        return label

    def _known_length(self) -> int | None:
        """Return the number of images of a list without converting any, or None if it is unknown."""
        if not isinstance(self._images, list | tuple):
            return None
        total = 0
        for element in self._images:
            for part in self._parts(element, self.name).images:
                total += part.shape[0] if is_array(part) and len(part.shape) == 4 else 1
        return total

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

    def _parts(self, element: Any, name: str) -> _Parts:
        """Return the images and labels of an element. Nothing is converted."""
        labels = None
        if isinstance(element, Mapping):
            keys = (self._column,) if self._column is not None else _IMAGE_KEYS
            found = [key for key in keys if key in element]
            if len(found) > 1:
                raise TypeError(f"{name}: has images under {' and '.join(map(repr, found))}; column= takes one of them")
            if not found:
                return _Parts((element,))  # an encoded picture, or an error
            labels = next((element[key] for key in self._label_keys if key in element), None)
            element = element[found[0]]
        elif isinstance(element, list | tuple) and len(element) == 2 and _are_labels(element[1], element):
            element, labels = element
        return _Parts(element if isinstance(element, list | tuple) else (element,), labels)

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
            copy = np.array(to_host(part, name, self._scale))
            yield from view_items(
                copy if copy.ndim == 4 else copy[None],
                is_last,
                lambda i: f"{self.name}: image {first + i}",
                self._scale,
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
            how = "column= names the key of the images; it is image, pixel_values or img without it"
        raise TypeError(
            f"{name}: expected uint8 images, batches, Pillow images, paths or encoded pictures; got {what} ({how})"
        )


def _are_labels(second: Any, pair: Sequence[Any]) -> bool:
    """Return whether the second of two elements is the labels of the first: whole numbers, or a name in a tuple."""
    if isinstance(second, numbers.Integral) and not isinstance(second, bool):
        return True
    if is_array(second):
        return len(second.shape) < 2 and any(kind in str(second.dtype) for kind in ("int", "long"))
    if isinstance(second, list | tuple) and second:
        return all(isinstance(one, numbers.Integral) and not isinstance(one, bool) for one in second)
    is_image = is_array(pair[0]) or isinstance(pair[0], Image.Image)
    return isinstance(pair, tuple) and isinstance(second, str) and is_image and not is_called_picture(second)


def _each(labels: Any, name: str) -> Iterator[Any]:
    """Yield labels: one, or each of several."""
    if labels is None:
        raise ValueError(f"{name}: has no label, but the first element has")
    if is_array(labels):
        array = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        return iter(array.reshape(-1).tolist() if array.ndim < 2 else list(array))
    return iter(labels if isinstance(labels, list | tuple) else (labels,))
