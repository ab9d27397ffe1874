"""Sources of images: folders, archives, arrays, iterables."""

from fastfid.sources.base import ImageItem, ImageSource

__all__ = ["ImageItem", "ImageSource"]
