"""Chooses the source for what a user hands in."""

import glob
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Set
from itertools import chain
from typing import Any, Literal

from fastfid.sources.archive import TarSource, ZipSource
from fastfid.sources.arrays import ArraySource, NpySource, NpzSource, is_array
from fastfid.sources.base import ConcatenatedSource, ImageSource, SubsetSource
from fastfid.sources.device import DeviceImages, device_of
from fastfid.sources.folder import FolderSource
from fastfid.sources.iterable import IterableSource
from fastfid.sources.listing import PassedOver
from fastfid.sources.picture import DEFAULT_MAX_PIXELS, Decoder

__all__ = ["is_statistics_file", "open_source"]

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_statistics_file(path: Any) -> bool:
    """Whether `path` is an ``.npz`` with statistics, complete or not; reads the archive's directory only."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).lower().endswith(".npz"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            found = {"mu.npy", "sigma.npy", "arr_0.npy"} & set(archive.namelist())
            return {"mu.npy", "sigma.npy"} <= found or (bool(found) and "arr_0.npy" not in found)
    except Exception:  # a damaged directory raises many classes; whoever opens the file says what is wrong
        return False


def open_source(
    obj: Any,
    *,
    recursive: bool = False,
    any_case: bool = False,
    layout: Literal["nhwc", "nchw"] | None = None,
    num: int | None = None,
    seed: int = 0,
    alpha: bool = False,
    exif: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageSource:
    """Open a source of images.

    Parameters
    ----------
    obj : object
        * a folder: its picture files, sorted by name (pytorch-fid's rules);
        * a ``.zip`` or ``.tar``: its pictures at any depth, sorted by name; a compressed tar in the archive's order;
        * shards: a glob (``train-*.tar``, sorted) or a brace list (``train-{000..146}.tar``, in that order);
        * a ``.npy``, or an ``.npz`` with ``arr_0``: uint8 (n, h, w, 3) or (n, 3, h, w), in its order;
        * a uint8 array or tensor of these shapes;
        * an iterable of images or batches, or a callable that returns them: see
          :class:`fastfid.sources.iterable.IterableSource`.
    recursive, any_case : bool
        Folders: whether to enter sub-folders; folders and archives: whether ``A.PNG`` counts as a picture.
    layout : {"nhwc", "nchw"}, optional
        For arrays with two axes of length 3, where the channels cannot be told.
    num, seed : int
        Take `num` images, chosen reproducibly: see :class:`fastfid.sources.base.SubsetSource`.
    alpha : bool
        Composite transparent pictures on white; otherwise their alpha channel is dropped, as every peer does.
    exif : bool
        Turn pictures as their EXIF orientation says; every peer ignores it.
    max_pixels : int
        Pictures that declare more are errors, before they are decoded.

    Returns
    -------
    ImageSource
        Its ``notes`` say what was passed over.

    Raises
    ------
    FileNotFoundError, OSError
        There is no such file or folder, or it cannot be opened.
    TypeError
        `obj` is none of these, or its images are not uint8.
    ValueError
        There is no image in it, a file is damaged, or an argument has an impossible value.
    """
    if layout not in (None, "nhwc", "nchw"):
        raise ValueError(f"layout: expected 'nhwc' or 'nchw'; got {layout!r}")
    decoder = Decoder(alpha=alpha, exif=exif, max_pixels=max_pixels)
    if isinstance(obj, str | os.PathLike):
        path = os.fsdecode(obj)
        passed_over = PassedOver(any_case)
        sources = [_open_path(each, decoder, passed_over, recursive, layout) for each in _expand(path)]
        source: ImageSource = sources[0] if len(sources) == 1 else ConcatenatedSource(path, sources)
        if len(source) == 0:
            raise passed_over.nothing_found(path)
        source.notes += passed_over.sentences(path)
    elif device_of(obj) is not None:
        if num is not None:
            raise ValueError("num: is not for a tensor on a GPU; index the tensor")
        source = DeviceImages(obj, layout)
    elif is_array(obj):
        source = ArraySource(obj, layout)
    elif isinstance(obj, Iterable | Callable) and not isinstance(obj, Mapping | Set | bytes):
        source = IterableSource(obj, decoder, layout, num)
    else:
        raise TypeError(
            "expected a folder, a .zip, .tar, .npz or .npy file, a uint8 array or tensor, or an iterable or callable"
            f" that gives images; got {type(obj).__name__}"
        )
    return source if num is None else SubsetSource(source, num, seed)


def _open_path(
    path: str, decoder: Decoder, passed_over: PassedOver, recursive: bool, layout: str | None
) -> ImageSource:
    if os.path.isdir(path):
        return FolderSource(path, decoder, passed_over, recursive=recursive)
    lower = path.lower()
    if lower.endswith(".zip"):
        return ZipSource(path, decoder, passed_over)
    if lower.endswith(_TAR_SUFFIXES):
        return TarSource(path, decoder, passed_over)
    if lower.endswith(".npz"):
        return NpzSource(path, layout, decoder.max_pixels)
    if lower.endswith(".npy"):
        return NpySource(path, layout, decoder.max_pixels)
    raise ValueError(f"{path}: expected a folder, or a file that ends in .zip, .tar, .tar.gz, .npz or .npy")


def _expand(path: str) -> list[str]:
    """Return the files that a path, a glob or a brace list stands for; FileNotFoundError where one is missing."""
    if os.path.exists(path):
        return [path]
    found = []
    for pattern in _expand_braces(path):
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern] * os.path.exists(pattern)
        if not matches:
            raise FileNotFoundError(f"{pattern}: no such file or folder")
        found += matches
    return found


def _expand_braces(pattern: str) -> list[str]:
    """Expand ``{a,b}`` and ``{000..146}`` as the shell does; widths of numbers are kept."""
    match = re.search(r"\{([^{}]*,[^{}]*|\d+\.\.\d+)\}", pattern)
    if match is None:
        return [pattern]
    if "," in match[1]:
        choices = match[1].split(",")
    else:
        first, last = match[1].split("..")
        if abs(int(last) - int(first)) >= 1_000_000:
            raise ValueError(f"{pattern}: a brace list of more than a million files")
        step = 1 if int(first) <= int(last) else -1
        width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
        choices = [str(i).zfill(width) for i in range(int(first), int(last) + step, step)]
    tails = _expand_braces(pattern[match.end() :])
    return list(chain.from_iterable([pattern[: match.start()] + choice + tail for tail in tails] for choice in choices))
