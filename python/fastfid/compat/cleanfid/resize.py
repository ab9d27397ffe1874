"""``cleanfid.resize``: resizing functions on arrays (h, w, 3)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.compat._torch import require_torch
from fastfid.protocols import SIDE

__all__ = ["MODES", "build_resizer", "make_resizer"]

Resizer = Callable[[NDArray[Any]], NDArray[Any]]

# From each mode to the fastfid protocol that gives the same results.
MODES = {"clean": "clean", "legacy_pytorch": "pytorch-fid", "legacy_tensorflow": "tensorflow"}


def build_resizer(mode: str) -> Resizer:
    """Return the function by which a mode resizes images before the network.

    Parameters
    ----------
    mode : {"clean", "legacy_pytorch", "legacy_tensorflow"}
        "clean" is bicubic with antialias, "legacy_pytorch" is bilinear without antialias. "legacy_tensorflow" returns
        the image unchanged, because the network of this mode resizes images itself.

    Returns
    -------
    callable
        Takes (h, w, 3) with values in [0, 255], uint8 or float, and returns float32 (299, 299, 3) in [0, 255], except
        for "legacy_tensorflow".

    Raises
    ------
    ValueError
        `mode` has another value.

    Examples
    --------
    >>> import numpy as np
    >>> build_resizer("clean")(np.zeros((40, 60, 3), np.uint8)).shape
    (299, 299, 3)
    """
    check_mode(mode)
    if mode == "clean":
        return make_resizer("PIL", False, "bicubic", (SIDE, SIDE))
    if mode == "legacy_pytorch":
        return make_resizer("PyTorch", False, "bilinear", (SIDE, SIDE))
    return lambda image: image


def check_mode(mode: str) -> None:
    """Raise ValueError unless clean-fid has this mode."""
    if mode not in MODES:
        raise ValueError(f"Invalid mode {mode} specified; expected one of {', '.join(MODES)}")


def make_resizer(library: str, quantize_after: bool, filter: str, output_size: tuple[int, int]) -> Resizer:
    """Return a function that resizes images with the same result as a library.

    Parameters
    ----------
    library : {"PIL", "PyTorch"}
    quantize_after : bool
        True: convert the result to uint8. False: return float32.
    filter : str
        PIL: "bicubic", "bilinear", "nearest", "lanczos" or "box". PyTorch: "bilinear", "bicubic", "nearest" or "area",
        without antialias.
    output_size : tuple of int
        (width, height) for PIL, (height, width) for PyTorch.

    Raises
    ------
    NotImplementedError
        `library` has another value.
    ValueError
        `filter` has another value.

    Examples
    --------
    >>> import numpy as np
    >>> make_resizer("PIL", True, "lanczos", (20, 10))(np.full((40, 40, 3), 7, np.uint8))[0, 0]
    array([7, 7, 7], dtype=uint8)
    """
    if library == "PIL":
        return _pillow_resizer(quantize_after, filter, output_size)
    if library == "PyTorch":
        return _torch_resizer(quantize_after, filter, output_size)
    raise NotImplementedError(f"library [{library}] is not include: expected PIL or PyTorch")


def _pillow_resizer(quantize_after: bool, filter: str, output_size: tuple[int, int]) -> Resizer:
    from PIL import Image

    filters = {
        "bicubic": Image.Resampling.BICUBIC,
        "bilinear": Image.Resampling.BILINEAR,
        "nearest": Image.Resampling.NEAREST,
        "lanczos": Image.Resampling.LANCZOS,
        "box": Image.Resampling.BOX,
    }
    if filter not in filters:
        raise ValueError(f"filter: expected one of {', '.join(filters)} with PIL, got {filter!r}")
    width, height = output_size
    if quantize_after:
        return lambda image: np.asarray(Image.fromarray(image).resize(output_size, filters[filter]))
    if filter == "bicubic":
        return lambda image: _core.resize(_native(image), height, width, "bicubic-antialias", clip=True)

    def resize(image: NDArray[Any]) -> NDArray[np.float32]:
        planes = [Image.fromarray(plane).resize(output_size, filters[filter]) for plane in _planes(image)]
        return np.stack([np.asarray(plane).clip(0, 255) for plane in planes], axis=2)

    return resize


def _torch_resizer(quantize_after: bool, filter: str, output_size: tuple[int, int]) -> Resizer:
    height, width = output_size

    def resize(image: NDArray[Any]) -> NDArray[Any]:
        if filter == "bilinear":
            resized = _core.resize(_native(image), height, width, "bilinear")
        else:
            torch = require_torch(f"filter {filter}")
            align = {"align_corners": False} if filter == "bicubic" else {}
            planes = torch.from_numpy(_planes(image))[None]
            planes = torch.nn.functional.interpolate(planes, size=output_size, mode=filter, **align)
            resized = planes[0].numpy().transpose(1, 2, 0)
        resized = resized.clip(0, 255)
        return resized.astype(np.uint8) if quantize_after else resized

    if filter not in ("bilinear", "bicubic", "nearest", "area"):
        raise ValueError(f"filter: expected one of bilinear, bicubic, nearest, area with PyTorch, got {filter!r}")
    return resize


def _native(image: NDArray[Any]) -> NDArray[Any]:
    """Return arrays of uint8 and float32 unchanged, and arrays of any other dtype converted to float32."""
    return image if image.dtype in (np.uint8, np.float32) else image.astype(np.float32)


def _planes(image: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
