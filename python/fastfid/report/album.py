"""The pictures of a report: asked for by their rows, and read from the sources in one pass, as thumbnails."""

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image

from fastfid._progress import ProgressMode, show_progress
from fastfid.errors import ImageError
from fastfid.report.content import Picture, plain
from fastfid.report.sides import Side

__all__ = ["LONGEST", "Album", "SideName"]

# Pixels of the longer side of a thumbnail. An image of up to SMALL pixels is kept as it is.
LONGEST = 128
SMALL = 64
_QUALITY = 85  # of JPEG

SideName = Literal["real", "generated"]


class Album:
    """The pictures of both sets.

    Parameters
    ----------
    real, generated : Side

    Examples
    --------
    ``picture = album.picture("real", 7)`` for each one, then ``album.load()``, after which each has its `source`.
    """

    def __init__(self, real: Side, generated: Side):
        self.sides: dict[SideName, Side] = {"real": real, "generated": generated}
        self._asked: dict[SideName, dict[int, list[Picture]]] = {"real": {}, "generated": {}}

    def picture(self, side: SideName, row: int, facts: str = "") -> Picture:
        """Return the picture of a row, which :meth:`load` fills."""
        found = Picture(side, int(row), facts)
        self._asked[side].setdefault(found.row, []).append(found)
        return found

    def load(self, progress: ProgressMode = False) -> None:
        """Read every picture that was asked for, each image once, in the order of the sources.

        An image that cannot be read any more stays without a source.
        """
        total = sum(len(rows) for rows in self._asked.values())
        with show_progress(total, progress, "pictures", "image") as bar:
            for name, rows in self._asked.items():
                side = self.sides[name]
                for row in sorted(rows):
                    self._fill(side, row, rows[row])
                    bar.update(1)

    @staticmethod
    def _fill(side: Side, row: int, pictures: list[Picture]) -> None:
        if side.source is None or side.why_no_pictures:
            for one in pictures:
                one.name = f"image {row}"
            return
        (item,) = side.source.slice(int(side.indices[row]), 1)
        try:
            pixels = item.load()
        except ImageError:  # it changed since its features were taken
            pixels = None
        for one in pictures:
            one.name = plain(item.name.removeprefix(f"{side.source.name}/"))
            if pixels is not None:
                one.is_small = max(pixels.shape[:2]) <= SMALL
                one.source = _thumbnail(pixels)


def _thumbnail(pixels: np.ndarray) -> str:
    """Return an image as a ``data:`` URI: small ones to the bit, as PNG; others reduced, as JPEG."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        image.save(stream, "JPEG", quality=_QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
