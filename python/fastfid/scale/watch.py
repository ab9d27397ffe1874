"""What can be known of a task while it is done: how many images are decoded, and which one was begun last."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fastfid.sources import ImageSource
from fastfid.sources.base import Header, ImageItem

__all__ = ["Watch"]


class Watch:
    """Counts the images of the sources that it watches.

    Attributes
    ----------
    images : int
        Number of images that were decoded, or turned out to be unreadable.
    on_begin : callable or None
        Called with the name of each image before it is decoded.
    """

    def __init__(self) -> None:
        self.images = 0
        self.on_begin: Callable[[str], object] | None = None

    def over(self, source: ImageSource) -> ImageSource:
        """Return a source of the same images, which are counted while they are decoded."""
        return _WatchedSource(source, self)


class _WatchedItem(ImageItem):
    __slots__ = ("_item", "_watch")

    def __init__(self, item: ImageItem, watch: Watch):
        self.name = item.name
        self.label = item.label
        self._item = item
        self._watch = watch

    def load(self) -> NDArray[np.uint8]:
        if self._watch.on_begin is not None:
            self._watch.on_begin(self.name)
        try:
            return self._item.load()
        finally:
            self._watch.images += 1

    def header(self) -> Header:
        return self._item.header()


class _WatchedSource(ImageSource):
    def __init__(self, source: ImageSource, watch: Watch):
        self.name = source.name
        self.notes = source.notes
        self.labels_from = source.labels_from
        self.class_names = source.class_names
        self.first = source.first
        self._source = source
        self._watch = watch

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items(0, None)

    def items(self, first: int, stop: int | None) -> Iterator[ImageItem]:
        for item in self._source.items(first, stop):
            yield _WatchedItem(item, self._watch)

    def files(self) -> Iterator[str]:
        return self._source.files()

    def files_of(self, first: int, stop: int) -> Iterator[str]:
        return self._source.files_of(first, stop)

    def state_of(self, first: int, stop: int) -> str:
        return self._source.state_of(first, stop)
