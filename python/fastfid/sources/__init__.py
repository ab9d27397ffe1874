"""Sources of images: folders, archives, arrays, iterables."""

from fastfid.sources.base import ImageItem, ImageSource
from fastfid.sources.generated import GeneratedSource
from fastfid.sources.open import is_statistics_file, open_source
from fastfid.sources.picture import DEFAULT_MAX_PIXELS

__all__ = ["DEFAULT_MAX_PIXELS", "GeneratedSource", "ImageItem", "ImageSource", "is_statistics_file", "open_source"]
