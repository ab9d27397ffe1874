"""Real photographs for timing: crops of scikit-image's bundled colour pictures, made once and equal on all machines."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["jpeg_folder", "mixed_jpeg_folder", "photograph", "png_folder"]

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field")


@cache
def _photographs() -> tuple[Image.Image, ...]:
    """Return the pictures that scikit-image carries in its package (no download)."""
    import skimage.data

    left, right, _ = skimage.data.stereo_motorcycle()
    arrays = [getattr(skimage.data, name)() for name in NAMES] + [left, right]
    return tuple(Image.fromarray(array) for array in arrays)


def _crop(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return a random part of a random photograph, at the photograph's resolution or slightly enlarged."""
    picture = _photographs()[rng.integers(len(_photographs()))]
    scale = min(1.0, 0.9 * picture.width / width, 0.9 * picture.height / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = int(rng.integers(picture.width - w + 1)), int(rng.integers(picture.height - h + 1))
    part = picture.crop((x, y, x + w, y + h))
    return part if part.size == (width, height) else part.resize((width, height), Image.Resampling.BICUBIC)


def photograph(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a part of a photograph, uint8 (height, width, 3)."""
    return np.array(_crop(np.random.default_rng(seed), width, height))  # a copy, because torch needs a writable array


def _folder(
    cache_folder: Path, name: str, count: int, seed: int, write: Callable[[np.random.Generator, Path], None]
) -> Path:
    """Return a folder of `count` images, made once. Image i does not depend on `count`."""
    folder = cache_folder / "images" / f"{name}-{count}-seed{seed}"
    if folder.exists():
        return folder
    partial = folder.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for i in range(count):
        write(np.random.default_rng((seed, i)), partial / f"{i:06d}")
    partial.rename(folder)
    return folder


def png_folder(cache_folder: Path, count: int, seed: int, size: int = 256) -> Path:
    """Return a folder of `count` square PNGs."""

    def write(rng: np.random.Generator, path: Path) -> None:
        _crop(rng, size, size).save(path.with_suffix(".png"))

    return _folder(cache_folder, f"png{size}", count, seed, write)


def jpeg_folder(cache_folder: Path, count: int, seed: int, width: int, height: int) -> Path:
    """Return a folder of `count` JPEGs (quality 90) of one size."""

    def write(rng: np.random.Generator, path: Path) -> None:
        _crop(rng, width, height).save(path.with_suffix(".jpg"), quality=90)

    return _folder(cache_folder, f"jpeg{width}x{height}", count, seed, write)


def mixed_jpeg_folder(cache_folder: Path, count: int, seed: int) -> Path:
    """Return a folder of `count` JPEGs (quality 90) of different sizes, with sides of 180 to 640 pixels."""

    def write(rng: np.random.Generator, path: Path) -> None:
        width, height = (int(side) for side in rng.integers(180, 641, size=2))
        _crop(rng, width, height).save(path.with_suffix(".jpg"), quality=90)

    return _folder(cache_folder, "jpeg-mixed", count, seed, write)
