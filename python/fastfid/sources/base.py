"""What every source of images offers to the pipeline."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageItem", "ImageSource"]


class ImageItem(ABC):
    """One image, not yet decoded.

    Attributes
    ----------
    name : str
        What an error message calls it: a path, or ``archive.zip/member.png``, or ``item 17``.
    """

    name: str

    @abstractmethod
    def load(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 (h, w, 3), C-contiguous. Called from worker threads.

        Raises
        ------
        fastfid.ImageError
            The image cannot be read; the message begins with :attr:`name`.
        """


class ImageSource(ABC):
    """An ordered collection of images that is read once from front to back.

    Attributes
    ----------
    name : str
        What messages and the statistics file call it.
    notes : sequence of str
        What the user should know of it, e.g. how many files were passed over and why.
    """

    name: str
    notes: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images; TypeError where it is not known beforehand (an iterable)."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageItem]:
        """Yield the items in the source's stated order (sorted names for folders and archives)."""
