"""Chooses the source for what a user hands in."""

import os
import zipfile
from typing import Any

from fastfid.sources.base import ImageSource, SubsetSource
from fastfid.sources.folder import FolderSource
from fastfid.sources.picture import DEFAULT_MAX_PIXELS, Decoder

__all__ = ["is_statistics_file", "open_source"]


def is_statistics_file(path: Any) -> bool:
    """Whether `path` is an ``.npz`` with statistics (``mu`` and ``sigma``); reads the archive's directory only."""
    if not isinstance(path, str | os.PathLike) or not str(path).lower().endswith(".npz"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # whoever opens it says what is wrong


def open_source(
    obj: Any,
    *,
    recursive: bool = False,
    any_case: bool = False,
    layout: str | None = None,
    num: int | None = None,
    seed: int = 0,
    alpha: bool = False,
    exif: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageSource:
    """Open a source of images."""
    decoder = Decoder(alpha=alpha, exif=exif, max_pixels=max_pixels)
    if isinstance(obj, str | os.PathLike):
        path = os.fspath(obj)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: no such file or folder")
        if os.path.isdir(path):
            source: ImageSource = FolderSource(path, decoder, recursive=recursive, any_case=any_case)
        else:
            raise ValueError(f"{path}: expected a folder, .zip, .tar, .npz or .npy")
    else:
        raise TypeError(f"expected a path, got {type(obj).__name__}")
    return source if num is None else SubsetSource(source, num, seed)
