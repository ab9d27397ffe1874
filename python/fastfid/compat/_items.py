"""A list of images as a source, for functions that are given a list of files."""

import os
from collections.abc import Iterator, Sequence

from fastfid.sources import ImageItem, ImageSource
from fastfid.sources.folder import FileItem
from fastfid.sources.picture import Decoder

__all__ = ["ItemSource", "file_items"]


class ItemSource(ImageSource):
    """The images of a list, in its order."""

    def __init__(self, name: str, items: Sequence[ImageItem]):
        self.name = name
        self.notes = []
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[ImageItem]:
        return iter(self._items)


def file_items(files: Sequence[str | os.PathLike[str]]) -> list[ImageItem]:
    """Return picture files as images, decoded as the other packages decode them."""
    decoder = Decoder()
    return [FileItem(os.fspath(file), decoder) for file in files]
