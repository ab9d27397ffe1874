"""A network's input out of a uint8 image, by an InputSpec: what the core does not do in one call."""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastfid import _core
from fastfid.input_spec import InputSpec

__all__ = ["Preparation"]

# Of a picture whose shorter side is resized: a strip of one pixel would become a picture of any length.
_MOST_PIXELS = 1 << 24

_PILLOW_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preparation:
    """Prepares images under a spec, in any number of threads.

    Attributes
    ----------
    shape : tuple of int or None
        Of the input of one image; None: it has the size of the image.
    """

    def __init__(self, spec: InputSpec):
        self._spec = spec
        self._scale = spec.to_core(None)
        # One image, one call: a table of weights is made at every call, whatever the size.
        self._resize = functools.lru_cache(maxsize=64)(spec.to_core)
        size = spec.size
        self.shape = None if size is None else ((3, *size) if spec.layout == "nchw" else (*size, 3))

    def __call__(self, image: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the input for one image, uint8 (h, w, 3) RGB, written to `out` if it is given.

        Raises
        ------
        ValueError
            The image is smaller than the crop, has another size than the network's where nothing is resized, or is a
            strip that a resize would make too long.
        """
        spec = self._spec
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise TypeError(f"expected a uint8 image (h, w, 3), got {_described(image)}")
        if 0 in image.shape:
            raise ValueError(f"expected an image of at least one pixel, got {_described(image)}")
        if spec.channels == "bgr":
            image = image[:, :, ::-1]
        if spec.resize == "squash" and spec.crop is not None:
            image = _center_square(image)
        target = self._target(*image.shape[:2])
        core = self._scale
        if spec.rounding == "pillow-uint8" and target is not None:
            image = _resized_by_pillow(image, target, _PILLOW_FILTERS[spec.filter])
        elif target is not None:
            core = self._resize(target)
        crops = spec.crop is not None and spec.resize != "squash"
        place = out[None] if out is not None and spec.layout == "nchw" and not crops else None
        prepared: NDArray[np.float32] = _preprocess(image, core, place)
        if crops:
            assert spec.size is not None
            prepared = _center_crop(prepared, *spec.size)
        if spec.layout == "nhwc":
            prepared = prepared.transpose(1, 2, 0)
        if place is not None:
            return prepared
        if out is None:
            return np.ascontiguousarray(prepared)
        out[...] = prepared
        return out

    def _target(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the size after the resize, or None without one."""
        spec = self._spec
        if spec.resize == "squash":
            return spec.size
        if spec.resize == "none":
            if spec.size is not None and spec.crop is None and (height, width) != spec.size:
                raise ValueError(
                    f"is {height} x {width}, and the InputSpec resizes nothing to its size {spec.size[0]} x"
                    f" {spec.size[1]} (height x width)"
                )
            return None
        shorter, longer = sorted((height, width))
        # torchvision's formula, in floating point.
        scaled = int(spec.side * longer / shorter)
        if spec.side * scaled > _MOST_PIXELS:
            raise ValueError(
                f"is {height} x {width}, which resized to a shorter side of {spec.side} has more than"
                f" {_MOST_PIXELS:,} pixels"
            )
        return (spec.side, scaled) if height <= width else (scaled, spec.side)


def _described(image: object) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__


def _preprocess(
    image: NDArray[np.uint8], core: _core.InputSpec, place: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = _core.preprocess([image], core, place)[0]
    except ValueError as error:  # there is but one
        raise ValueError(str(error).removeprefix("images[0]: ")) from None
    return found


def _resized_by_pillow(
    image: NDArray[np.uint8], target: tuple[int, int], resample: Image.Resampling
) -> NDArray[np.uint8]:
    height, width = target
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resample))


def _center_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the square of the shorter side, as google-research's cmmd/io_util.py cuts it out."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _center_crop(planes: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the centre of (3, h, w), as torchvision's center_crop takes it, which pads smaller images."""
    _, rows, columns = planes.shape
    if rows < height or columns < width:
        raise ValueError(f"is {rows} x {columns}, smaller than the crop of {height} x {width} (height x width)")
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return planes[:, top : top + height, left : left + width]
