"""Decoding of pictures with Pillow, as pytorch-fid does it: ``Image.open(...).convert("RGB")``."""

import io
import os
import stat
import warnings
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fastfid.errors import FastfidWarning, ImageError

__all__ = ["DEFAULT_MAX_PIXELS", "IMAGE_EXTENSIONS", "Decoder", "reason"]

# pytorch-fid's list.
IMAGE_EXTENSIONS = frozenset(("bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp"))

# Pillow's own default, above which it warns: a quarter of a gibibyte of RGB. At it, one decoded picture takes 0.6 GB,
# beside its file in memory.
DEFAULT_MAX_PIXELS = 1024**3 // 4 // 3

# Pillow runs an external program for these (Ghostscript), or only recognises them.
_REFUSED_FORMATS = frozenset(("EPS",))

# Of one channel with integers of 16 or 32 bits, or floats.
_WIDE_MODES = frozenset(("I", "F", "I;16", "I;16L", "I;16B", "I;16N"))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for anybody: a pipe that nobody writes to would block; on regular files no effect."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@dataclass(frozen=True)
class Decoder:
    """How a picture becomes RGB.

    What Pillow's ``convert("RGB")`` does stands: grey is repeated, palettes are looked up, CMYK is converted without a
    profile, grey of 16 bits or floats is cut off at 255 (with a warning), of an animation the first frame is taken,
    colour profiles are ignored.

    Parameters
    ----------
    alpha : bool
        False: the alpha channel is dropped, as every peer does, so hidden colours show. True: the picture is composited
        on white.
    exif : bool
        False: the EXIF orientation is ignored, as every peer does. True: the picture is turned upright.
    max_pixels : int
        Most pixels (width times height) that a picture may declare; it is refused from its header, before it is
        decoded. Its encoded form may have at most 8 bytes for each of these pixels, plus 1 MiB.
    """

    alpha: bool = False
    exif: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    warned: list[str] = field(default_factory=list, init=False, repr=False, compare=False)  # the first of wide pictures

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: expected a positive number; got {self.max_pixels}")

    @property
    def _max_bytes(self) -> int:
        return 8 * self.max_pixels + 2**20

    def check_size(self, nbytes: int, name: str) -> None:
        """Refuse an encoded picture that is too long; some of Pillow's readers take all of it into memory first."""
        if nbytes > self._max_bytes:
            raise ImageError(
                f"{name}: has {nbytes} bytes; at most {self._max_bytes} are read (max_pixels={self.max_pixels})"
            )

    def decode_file(self, path: str) -> NDArray[np.uint8]:
        """Decode the picture in the file `path`; ImageError begins with the path."""
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):  # a device may have no end
                    raise ImageError(f"{path}: is not a regular file")
                self.check_size(found.st_size, path)
                # Whole, not in the pieces that Pillow asks for: its JPEG takes 0.96 ms instead of 1.33 (500 x 375).
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror or error}") from error
        except MemoryError as error:
            raise ImageError(f"{path}: cannot be read: not enough memory") from error
        self.check_size(len(data), path)  # it may have grown, and files of /proc have no size
        return self.decode_bytes(data, path)

    def decode_bytes(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """Decode the picture in `data`; ImageError begins with `name`."""
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            raise ImageError(f"{name}: cannot be read as a picture ({reason(error)})") from error
        with image:
            return self.to_rgb(image, name)

    def to_rgb(self, image: Image.Image, name: str) -> NDArray[np.uint8]:
        """Convert an opened picture; uint8 (h, w, 3).

        Raises
        ------
        fastfid.ImageError
            It is too large or damaged. Pillow's exceptions for damaged files are of any class, so all are caught.
        """
        try:
            self._check_pixels(image, name)
            if image.format in _REFUSED_FORMATS:
                raise ImageError(f"{name}: is {image.format}, which an external program would have to read")
            image.load()
            # Containers (icons) learn only now how large their picture is.
            self._check_pixels(image, name)
            if self.exif:
                image = ImageOps.exif_transpose(image)
            if self.alpha and image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            if image.mode != "RGB":  # convert() would copy once more
                if image.mode in _WIDE_MODES:
                    self._warn_of_wide(image.mode, name)
                image = image.convert("RGB")
            return np.asarray(image)
        except (ImageError, FastfidWarning):  # a warning that somebody has made an error
            raise
        except Exception as error:
            raise ImageError(f"{name}: cannot be decoded ({reason(error)})") from error

    def _warn_of_wide(self, mode: str, name: str) -> None:
        if self.warned:  # two threads may both come here first, and say it twice
            return
        self.warned.append(name)
        warnings.warn(
            f"{name}: has more than 8 bits a pixel (Pillow's mode {mode}); values above 255 are cut off, as by"
            " pytorch-fid. Convert such pictures to 8 bits first",
            FastfidWarning,
            stacklevel=2,
        )

    def _check_pixels(self, image: Image.Image, name: str) -> None:
        width, height = image.size
        if width * height > self.max_pixels:
            raise ImageError(
                f"{name}: declares {width} x {height} pixels; at most {self.max_pixels} are decoded "
                "(--max-pixels, max_pixels=)"
            )


def reason(error: BaseException) -> str:
    """Return the first line of what an exception says, or its class."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is none of the formats that Pillow knows"
    return (str(error) or type(error).__name__).splitlines()[0]
