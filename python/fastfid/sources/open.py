"""Selection of the source class for an argument of the user."""

import glob
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import groupby, product
from math import prod
from typing import Any, Literal

from fastfid._checks import check_on_error
from fastfid._files import DamagedFile, is_store
from fastfid._remote import expand_url, is_url, open_file
from fastfid.errors import SuspiciousInputWarning
from fastfid.mistakes import mixed_kinds
from fastfid.sources.archive import TarSource, ZipSource
from fastfid.sources.arrays import ArraySource, NpySource, NpzSource, Scale, is_array, make_scale, roots
from fastfid.sources.base import ConcatenatedSource, ImageSource, SubsetSource
from fastfid.sources.damaged import LostSource, SkippingSource
from fastfid.sources.device import DeviceImages, device_of
from fastfid.sources.folder import FilesSource, FolderSource
from fastfid.sources.huggingface import HuggingFaceSource, is_dataset
from fastfid.sources.iterable import IterableSource, is_sequence
from fastfid.sources.labels import DATASET_JSON, LabelsOption, check_labels_option, labelled
from fastfid.sources.listing import FILE_SUFFIXES, PassedOver, is_called_picture, kind_of_file
from fastfid.sources.parquet import ParquetSource
from fastfid.sources.picture import DEFAULT_MAX_PIXELS, Decoder

__all__ = ["is_statistics_file", "open_source"]

# Largest number of files in a brace list.
_MOST_FILES = 1_000_000


def is_statistics_file(path: Any, key: str | None = None) -> bool:
    """Return whether `path` is an ``.npz`` with statistics, complete or not. Reads only the archive's directory.

    If the file has an array named `key`, it is a file of images.
    """
    if not isinstance(path, str | os.PathLike) or not os.fsdecode(path).lower().endswith(".npz"):
        return False
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except Exception:  # a damaged directory raises many classes; the reader reports the error
        return False
    found = {"mu.npy", "sigma.npy", "arr_0.npy"} & names
    if key is not None and f"{key}.npy" in names:
        return False
    return {"mu.npy", "sigma.npy"} <= found or (bool(found) and "arr_0.npy" not in found)


def open_source(
    obj: Any,
    *,
    recursive: bool = False,
    any_case: bool = False,
    match: str | None = None,
    key: str | None = None,
    layout: Literal["nhwc", "nchw"] | None = None,
    value_range: tuple[float, float] | None = None,
    num: int | None = None,
    seed: int = 0,
    alpha: bool = False,
    exif: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    labels: LabelsOption = None,
    column: str | None = None,
    to_uint8: Literal["round", "truncate", "floor-127.5", "floor-128"] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> ImageSource:
    """Open a source of images.

    Parameters
    ----------
    obj : object
        * a folder: its picture files, sorted by name (pytorch-fid's rules);
        * a ``.zip`` or ``.tar``: its pictures at any depth, sorted by name; a compressed tar in the archive's order;
        * a glob of pictures (``results/*_fake_B.png``, sorted), of folders or of shards (``train-*.tar``), or a brace
          list (``train-{000..146}.tar``, in that order);
        * a list of folders or archives: their union;
        * a ``.parquet``, or a folder with such files: a column of encoded pictures (needs pyarrow);
        * the URL of a zip, tar, parquet, npz or npy (``https://``, ``s3://``, ``gs://``, ``hf://``; needs fsspec);
        * a ``.npy``, or an ``.npz`` with ``arr_0``: uint8 (n, h, w, 3) or (n, 3, h, w), in its order;
        * a uint8 array or tensor of these shapes;
        * a ``datasets.Dataset`` or ``IterableDataset`` of Hugging Face;
        * an iterable or a sequence of images or batches, or a callable that returns them: see
          :class:`fastfid.sources.iterable.IterableSource`.
    recursive : bool
        Folders: whether to enter sub-folders. Hidden folders (``.name``, ``@eaDir``) are never entered.
    any_case : bool
        Folders and archives: whether ``A.PNG`` is a picture.
    match : str, optional
        Folders and archives: read only pictures whose name matches this pattern, such as ``*.input.png``. A pattern
        with "/" is compared with the path below the folder.
    key : str, optional
        Name of the array of images in an ``.npz``. Default: ``arr_0``.
    layout : {"nhwc", "nchw"}, optional
        Axis order of arrays with two axes of length 3, whose channels are ambiguous.
    value_range : (float, float), optional
        Values of black and white in float arrays, such as (0, 1) or (-1, 1). The arrays are scaled to 0..255 and
        rounded, or as `to_uint8` says. Without both, float images are refused.
    num, seed : int
        Read `num` images, chosen reproducibly: see :class:`fastfid.sources.base.SubsetSource`.
    alpha : bool
        Composite transparent pictures on white. Default: drop the alpha channel, as the other FID packages do.
    exif : bool
        Apply the EXIF orientation. Default: ignore it, as the other FID packages do.
    max_pixels : int
        Pictures that declare more pixels raise an error before they are decoded.
    labels : str, path or sequence, optional
        Where the labels of the images come from. Default: the images have no labels.

        * "auto": what the source itself carries: ``arr_1`` beside ``arr_0`` in an ``.npz``; ``dataset.json`` at the
          root of a zip or folder; ``.cls``, or ``.json`` with the key ``label`` or ``cls``, beside each picture in a
          tar; the column ``label``, or the only one of classes, of a parquet file or a Hugging Face dataset; the
          second element of pairs, and the key ``label`` or ``labels`` of dicts, of a Dataset, a loader or an iterable;
        * "folder": the top-level sub-folders are the classes, as in ``cat/1.png``; implies `recursive`;
        * the path of a ``.csv`` file with the columns ``name``, the path of a picture below the folder or in the
          archive, and ``label``;
        * one label for each image, in the source's order.

        Labels are whole numbers from 0 on, or names. Two sets with labels of the same classes can be compared class by
        class.
    column : str, optional
        Name of the column of images in a parquet file or a Hugging Face dataset, and of the key of images in the dicts
        of an iterable. Default: ``image``, or the only column of images; of dicts also ``pixel_values`` or ``img``.
    to_uint8 : {"round", "truncate", "floor-127.5", "floor-128"}, optional
        How float images become grey levels; see :class:`fastfid.sources.arrays.Scale`. "round" and "truncate" take
        `value_range`, by default (0, 1); the other two take values in -1..1. Default: "round" with `value_range`, else
        float images are refused.
    on_error : {"raise", "skip"}
        What a damaged zip, tar, parquet, npz or npy is. "raise": an error. "skip": what can be read is read, and what
        is lost comes as images that cannot be read: each one where their number is known, else one for the file.

    Returns
    -------
    ImageSource
        Its ``notes`` report ignored entries and likely mistakes. With labels, each item has a ``label``, and the source
        says what they come from (``labels_from``) and, where they are known, the names of the classes
        (``class_names``).

    Raises
    ------
    FileNotFoundError, OSError
        A file or folder does not exist or cannot be opened.
    TypeError
        `obj` has another type, or its images are not uint8.
    ValueError
        `obj` has no image, a file is damaged, an image has no label or several, or an argument has an invalid value.
    """
    if layout not in (None, "nhwc", "nchw"):
        raise ValueError(f"layout: expected 'nhwc' or 'nchw'; got {layout!r}")
    check_on_error(on_error, None)
    scale = make_scale(value_range, to_uint8)
    labels = check_labels_option(labels)
    is_word = isinstance(labels, str)
    recursive = recursive or (is_word and labels == "folder")
    decoder = Decoder(alpha=alpha, exif=exif, max_pixels=max_pixels)
    read_otherwise = (DATASET_JSON,) if is_word and labels == "auto" else ()
    passed_over = PassedOver(any_case, match, is_deep=recursive, read_otherwise=read_otherwise)
    opener = _PathOpener(
        decoder,
        passed_over,
        recursive=recursive,
        key=key,
        layout=layout,
        scale=scale,
        column=column,
        skips_damage=on_error == "skip",
    )
    if isinstance(obj, str | os.PathLike):
        source = opener.open([os.fsdecode(obj)], os.fsdecode(obj))
    elif _is_list_of_containers(obj):
        paths = [os.fsdecode(path) for path in obj]
        source = opener.open(paths, " + ".join(paths))
    elif device_of(obj) is not None:
        for name, value in (("num", num), ("labels", None if is_word else labels)):
            if value is not None:
                raise ValueError(f"{name}: is not for a tensor on a GPU; index the tensor")
        source = DeviceImages(obj, layout, scale)
    elif is_dataset(obj):
        takes_labels = is_word and labels == "auto"
        source = HuggingFaceSource(obj, decoder, layout, scale, num, column, takes_labels=takes_labels)
    elif is_array(obj):
        source = ArraySource(obj, layout, scale)
    elif is_sequence(obj) or (isinstance(obj, Iterable | Callable) and not isinstance(obj, Mapping | Set | bytes)):
        takes_labels = is_word and labels == "auto"
        source = IterableSource(obj, decoder, layout, scale, num, column=column, takes_labels=takes_labels)
    else:
        if "datasets" in roots(obj) and isinstance(obj, Mapping):
            raise TypeError(f"expected one split of the dataset, such as dataset['train']; got {type(obj).__name__}")
        raise TypeError(
            f"expected a folder, a {_suffixes(1)} file, a uint8 array or tensor, or an iterable or callable that gives"
            f" images; got {type(obj).__name__}"
        )
    source = labelled(source, labels)
    return source if num is None else SubsetSource(source, num, seed)


def _is_list_of_containers(obj: Any) -> bool:
    """Return whether `obj` is a list of paths that are not all names of pictures. No file is accessed."""
    return (
        isinstance(obj, list | tuple)
        and all(isinstance(path, str | os.PathLike) for path in obj)
        and not all(is_called_picture(path) for path in map(os.fsdecode, obj))
    )


def _is_container(path: str) -> bool:
    """Whether a path that is there is a folder or an archive; what is called like a picture is not looked at."""
    return kind_of_file(path) is not None or (not is_called_picture(path) and os.path.isdir(path))


class _PathOpener:
    """Opens folders, archives and globs with one set of options."""

    def __init__(
        self,
        decoder: Decoder,
        passed_over: PassedOver,
        *,
        recursive: bool,
        key: str | None,
        layout: str | None,
        scale: Scale | None,
        column: str | None,
        skips_damage: bool,
    ):
        self._decoder = decoder
        self._skips_damage = skips_damage
        self._passed_over = passed_over
        self._recursive = recursive
        # By kind of file, the keys of FILE_SUFFIXES.
        self._openers: dict[str, Callable[[str], ImageSource]] = {
            "zip": lambda path: ZipSource(path, decoder, passed_over),
            "tar": lambda path: TarSource(path, decoder, passed_over),
            "npz": lambda path: NpzSource(path, layout, scale, decoder.max_pixels, key),
            "npy": lambda path: NpySource(path, layout, scale, decoder.max_pixels),
            "parquet": lambda path: ParquetSource(path, decoder, column),
        }

    def open(self, paths: Sequence[str], name: str) -> ImageSource:
        """Return one source, called `name`, of the images of all paths."""
        sources: list[ImageSource] = []
        for path in paths:
            if "\0" in path:
                raise ValueError(f"{path!r}: has a null character, which no path has")
            found = [path] if os.path.exists(path) else _expand(path)
            if found != [path] or (len(paths) > 1 and is_called_picture(path)):
                sources += self._open_found(found, path)
            else:
                sources.append(self._open_one(path))
        source = sources[0] if len(sources) == 1 else ConcatenatedSource(name, sources)
        if len(source) == 0:
            raise self._passed_over.nothing_found(name)
        source.notes += self._passed_over.notes(name)
        is_chosen = len(paths) > 1 or "{" in name  # the user has listed the kinds explicitly
        if not is_chosen and (mixed := mixed_kinds(name, source.picture_names(), len(source))):
            source.notes.append(SuspiciousInputWarning(mixed))
        return source

    def _open_found(self, found: Sequence[str], pattern: str) -> list[ImageSource]:
        """Return the sources of the matches of a pattern: one for pictures, and one for each folder and archive."""
        sources: list[ImageSource] = []
        containers = 0
        for is_container, group in groupby(found, _is_container):
            if is_container:
                opened = [self._open_one(path) for path in group]
                sources += opened
                containers += len(opened)
            else:
                pictures = [path for path in group if self._passed_over.is_picture(path)]
                sources.append(FilesSource(pattern, pictures, self._decoder))
        if 0 < containers < len(found):
            sources[0].notes.append(
                SuspiciousInputWarning(
                    f"{pattern}: matches folders or archives ({containers}) beside files ({len(found) - containers});"
                    " all their pictures are read"
                )
            )
        return sources

    def _open_one(self, path: str) -> ImageSource:
        if os.path.isdir(path):
            if is_store(path):
                raise ValueError(
                    f"{path}: is a store of features, not images: give it alone, as a side of fastfid, evaluate or"
                    " compute_fid, or as real= of FID or Evaluator"
                )
            folder = FolderSource(path, self._decoder, self._passed_over, recursive=self._recursive)
            return folder if len(folder) else self._open_tables(path) or folder
        kind = kind_of_file(path)
        if kind is None:
            raise ValueError(f"{path}: {_not_a_source(path.lower())}")
        return self._open_what_is_left(kind, path) if self._skips_damage else self._openers[kind](path)

    def _open_what_is_left(self, kind: str, path: str) -> ImageSource:
        """Open a file as far as it is sound. What is lost comes as images that cannot be read."""
        try:
            if kind != "tar":
                return SkippingSource(self._openers[kind](path))
            source = TarSource(path, self._decoder, self._passed_over, until_damage=True)
        except DamagedFile as error:
            return LostSource(path, error)
        if source.damage is None:
            return SkippingSource(source)
        return ConcatenatedSource(path, [SkippingSource(source), LostSource(path, source.damage)])

    def _open_tables(self, path: str) -> ImageSource | None:
        """Return the source of the parquet files in a folder without pictures; None: there are no such files."""
        tables = _tables_of_folder(path, self._recursive)
        if not tables:
            return None
        self._passed_over.uncount(".parquet")
        source = ConcatenatedSource(path, [self._openers["parquet"](table) for table in tables])
        splits = {re.split(r"[-_.]", os.path.basename(table))[0] for table in tables} & _SPLITS
        if len(splits) > 1:
            source.notes.append(
                SuspiciousInputWarning(
                    f"{path}: holds files of several splits ({', '.join(sorted(splits))}), which are all read;"
                    f" '{path}/{min(splits)}*.parquet' reads one"
                )
            )
        return source


# With what the names of the parquet files of a split begin.
_SPLITS = frozenset(("train", "test", "val", "valid", "validation"))


def _tables_of_folder(root: str, recursive: bool) -> list[str]:
    """Return the parquet files of a folder, sorted. Hidden folders and links to folders are not entered."""
    found: list[str] = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if recursive and not name.startswith(".")]
        found += [os.path.join(folder, name) for name in files if kind_of_file(name) == "parquet"]
    return sorted(found)


def _not_a_source(lower: str) -> str:
    """Return the error text for a file that is not a source."""
    if lower.endswith((".pkl", ".pickle", ".pt", ".pth")):
        return (
            "is a pickle, which is not read because it can run code; in Python, where it is trusted, save its mean and"
            ' covariance by numpy.savez("statistics.npz", mu=..., sigma=...)'
        )
    return (
        f"expected a folder, or a file that ends in {_suffixes(2)}; several pictures are named by a glob in quotes,"
        " such as 'folder/*.png'"
    )


def _suffixes(most: int) -> str:
    """Return what files of images end in, in words: at most so many suffixes of each kind."""
    *first, last = (suffix for suffixes in FILE_SUFFIXES.values() for suffix in suffixes[:most])
    return f"{', '.join(first)} or {last}"


def _expand(path: str) -> list[str]:
    """Return the files of a glob or a brace list. Raises FileNotFoundError if a pattern matches no file."""
    found = []
    for pattern in _expand_braces(path):
        if is_url(path):
            found += expand_url(pattern)
            continue
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern] * os.path.exists(pattern)
        if not matches:
            raise FileNotFoundError(f"{pattern}: no such file or folder")
        found += matches
    return found


def _expand_braces(pattern: str) -> list[str]:
    """Expand ``{a,b}`` and ``{000..146}`` as the shell does. Numbers keep their width.

    Raises
    ------
    ValueError
        The pattern expands to more than a million files.
    """
    parts: list[Sequence[str]] = []
    end = 0
    for match in re.finditer(r"\{([^{}]*)\}", pattern):
        choices = _choices(match[1], pattern)
        if choices is not None:
            parts += [[pattern[end : match.start()]], choices]
            end = match.end()
    parts.append([pattern[end:]])
    _check_number(prod(map(len, parts)), pattern)
    return ["".join(choice) for choice in product(*parts)]


def _choices(inside: str, pattern: str) -> Sequence[str] | None:
    """Return the choices inside a pair of braces; None if the braces are literal text."""
    if "," in inside:
        return inside.split(",")
    limits = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
    if limits is None:
        return None
    first, last = int(limits[1]), int(limits[2])
    _check_number(abs(last - first) + 1, pattern)
    step = 1 if first <= last else -1
    has_width = limits[1].startswith("0") or limits[2].startswith("0")
    width = max(len(limits[1]), len(limits[2])) if has_width else 0
    return [str(i).zfill(width) for i in range(first, last + step, step)]


def _check_number(files: int, pattern: str) -> None:
    if files > _MOST_FILES:
        shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
        raise ValueError(f"{shown}: a brace list of more than a million files")
