"""Labels of images: what the option ``labels`` means, and the files that labels are read from."""

import csv
import errno
import io
import json
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastfid._files import open_regular
from fastfid.errors import FastfidWarning
from fastfid.sources.base import ImageSource, Label, LabelledSource, Labels

__all__ = [
    "DATASET_JSON",
    "LabelsOption",
    "as_label",
    "check_kinds",
    "check_labels_option",
    "from_dataset_json",
    "labelled",
    "labels_of_array",
    "labels_of_side",
    "largest_dataset_json",
    "made_of",
]

# A mapping is for functions of two sets, which take what is of each by `labels_of_side`.
LabelsOption: TypeAlias = str | os.PathLike[str] | Sequence[Label] | NDArray[Any] | Mapping[Any, Any] | None

# The file of labels at the root of stylegan's and edm's zips and folders.
DATASET_JSON = "dataset.json"

_WORDS = ("auto", "folder")
_LARGEST = 2**63 - 1
_PLAIN = frozenset((int, str))  # types of labels that need no conversion
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


def check_labels_option(labels: Any) -> str | Sequence[Label] | NDArray[Any] | None:
    """Return the option ``labels``, a path as a str.

    Raises
    ------
    TypeError, ValueError
        It is neither None, "auto", "folder", the path of a ``.csv`` file, nor a sequence of labels.
    """
    if isinstance(labels, os.PathLike):
        labels = os.fsdecode(labels)
    if labels is None or (isinstance(labels, str) and labels in _WORDS):
        return labels
    expected = "labels: expected 'auto', 'folder', the path of a .csv file, or one label for each image"
    if isinstance(labels, str):
        if not labels.lower().endswith(".csv"):
            raise ValueError(f"{expected}; got {labels!r}")
        return labels
    if not (hasattr(labels, "__len__") and hasattr(labels, "__getitem__")) or isinstance(labels, Mapping | bytes):
        raise TypeError(f"{expected}; got {type(labels).__name__}")
    return labels  # type: ignore[no-any-return]


def labels_of_side(labels: Any, side: str) -> Any:
    """Return the option ``labels`` of one of two sets, ``real`` or ``fake``: of both, or of each in a mapping.

    Raises
    ------
    ValueError
        A mapping has other keys.

    Examples
    --------
    >>> labels_of_side("auto", "fake"), labels_of_side({"real": "folder"}, "fake")
    ('auto', None)
    """
    if not isinstance(labels, Mapping):
        return labels
    if unknown := [key for key in labels if key not in ("real", "fake")]:
        raise ValueError(f"labels: expected the keys 'real' and 'fake', got {unknown[0]!r}")
    return labels.get(side)


def labelled(source: ImageSource, labels: str | Sequence[Any] | NDArray[Any] | None) -> ImageSource:
    """Return the source with the labels that the option asks for. `labels` comes from :func:`check_labels_option`.

    Raises
    ------
    ValueError
        An image has no label, or more than one. The message names the file and the image.
    """
    if labels is None or source.has_labels:
        return source
    if not isinstance(labels, str):
        return LabelledSource(source, _given(source, labels))
    if labels == "auto":
        own = source.own_labels()
        if own is None:
            source.notes.append(
                FastfidWarning(
                    f"{source.name}: carries no labels: no arr_1, dataset.json, .cls or .json beside its pictures,"
                    " column label, or pairs of images and labels"
                )
            )
            return source
        return LabelledSource(source, own)
    if labels == "folder":
        return LabelledSource(source, _of_folders(source))
    return LabelledSource(source, _from_csv(source, labels))


def as_label(value: Any, where: str) -> Label:
    """Return `value` as a label: an int from 0 on, or a name.

    Parameters
    ----------
    where : str
        Where the label is, with which messages begin.

    Raises
    ------
    ValueError
        It is another type, negative, empty, or has a NUL character.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a scalar of NumPy, or a tensor
    if isinstance(value, str) and value and "\0" not in value:  # arrays of NumPy cut names at a NUL
        return str(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if 0 <= int(value) <= _LARGEST:
            return int(value)
        raise ValueError(f"{where}: has the label {value}; expected 0 to 2^63 - 1")
    if value is None:
        raise ValueError(f"{where}: has no label")
    shown = repr(value)
    raise ValueError(
        f"{where}: expected a label that is a whole number or a name; got {shown if len(shown) < 40 else type(value)}"
    )


def check_kinds(label: Label, before: type | None, where: str) -> type:
    """Return the type of a label. Raises ValueError unless it is that of the labels before, if there are any."""
    if before is not None and type(label) is not before:
        raise ValueError(
            f"{where}: has the label {label!r}, but the labels before are {'names' if before is str else 'numbers'}"
        )
    return type(label)


def made_of(
    values: Iterable[Any], origin: str, where: Callable[[int], str], class_names: Sequence[str] | None = None
) -> Labels:
    """Return labels, which must be all numbers or all names.

    Raises
    ------
    ValueError
        A label is none, two labels are of different kinds, or a number has no name in `class_names`.
    """
    found = [as_label(value, where(i)) if type(value) not in _PLAIN else value for i, value in enumerate(values)]
    kinds = {*map(type, found)}
    if kinds == {int, str}:
        first = next(i for i, label in enumerate(found) if type(label) is not type(found[0]))
        raise ValueError(
            f"{where(first)}: has the label {found[first]!r}, but {where(0)} {found[0]!r}: all labels are numbers,"
            " or all are names"
        )
    names = None if class_names is None else tuple(class_names)
    if str in kinds:
        if "" in found:
            as_label("", where(found.index("")))
        return Labels(found, origin, names)  # type: ignore[arg-type]
    try:
        numbered = np.array(found, np.int64)
    except OverflowError:
        numbered = np.array([as_label(label, where(i)) for i, label in enumerate(found)], np.int64)
    wrong = numbered < 0 if names is None else (numbered < 0) | (numbered >= len(names))
    if wrong.any():
        first = int(np.argmax(wrong))
        as_label(int(numbered[first]), where(first))
        raise ValueError(f"{where(first)}: has the label {numbered[first]}, but there are {len(names or ())} classes")
    return Labels(numbered, origin, names)


class _Where:
    """Names an image of a source in messages, by its index. The names are looked up only when one is needed."""

    def __init__(self, source: ImageSource, names: Sequence[str] | None = None):
        self._source = source
        self._names = names

    def __call__(self, index: int) -> str:
        if self._names is None:
            self._names = list(self._source.picture_names())
        name = self._source.name
        return f"{name}/{self._names[index]}" if index < len(self._names) else f"{name}[{index}]"


def _given(source: ImageSource, values: Any) -> Labels:
    """Return the labels that the user passed."""
    where = _Where(source)
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        return labels_of_array(array, "labels", "labels", where)
    return made_of(values, "labels", where)


def labels_of_array(array: NDArray[Any], origin: str, name: str, where: Callable[[int], str]) -> Labels:
    """Return the labels in an array: whole numbers or names (n,), or one-hot rows (n, classes).

    Raises
    ------
    ValueError
        The array is none of these. The message begins with `name`, or with the image.
    """
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return made_of([_index_of_the_one(row, where(i)) for i, row in enumerate(array)], origin, where)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise ValueError(
            f"{name}: expected one whole number or name for each image, or one-hot rows; got {array.dtype} of shape"
            f" {array.shape}"
        )
    return made_of(array.tolist(), origin, where)


def _index_of_the_one(row: Any, where: str) -> int:
    """Return the position of the one in a one-hot vector."""
    entries = row.tolist() if isinstance(row, np.ndarray) else row
    if all(isinstance(entry, int | float) for entry in entries):
        ones = [i for i, entry in enumerate(entries) if entry != 0]
        if len(ones) == 1 and entries[ones[0]] == 1:
            return ones[0]
    raise ValueError(f"{where}: its label is a list that is not one-hot (a single 1, and 0 elsewhere)")


def largest_dataset_json(images: int) -> int:
    """Return how many bytes a ``dataset.json`` of so many images may have: one-hot rows of 1,000 classes fit."""
    return int(min(2**20 + 4096 * images, 2**30))


def from_dataset_json(data: bytes, names: Sequence[str], path: str, source: ImageSource) -> Labels | None:
    """Return the labels in a ``dataset.json``: ``{"labels": [["00000/img00000000.png", 6], ...]}``; None: null.

    Parameters
    ----------
    names : sequence of str
        Names of the images below the root, which are those in the file.
    path : str
        Path of the file, for messages.

    Raises
    ------
    ValueError
        The file is damaged, an image has no label or several, or a list is not one-hot.
    """
    try:
        entries = json.loads(data)
        entries = entries.get("labels") if isinstance(entries, dict) else entries
        is_list = entries is None or (isinstance(entries, list) and all(map(_is_entry, entries)))
    except RecursionError:
        raise ValueError(f"{path}: cannot be read as JSON (it nests too deep)") from None
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not is_list:
        raise ValueError(f'{path}: expected {{"labels": [["name", label], ...]}} or null labels')
    if entries is None:
        return None
    found = dict(entries)
    if len(found) < len(entries):
        raise ValueError(f"{path}: has two labels for {_repeated(name for name, _ in entries)}")
    where = _Where(source, names)
    values = _in_order(found, names, path, source)
    return made_of(
        (_index_of_the_one(v, where(i)) if isinstance(v, list) else v for i, v in enumerate(values)),
        DATASET_JSON,
        where,
    )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _in_order(found: Mapping[str, Any], names: Sequence[str], path: str, source: ImageSource) -> list[Any]:
    """Return the labels of the images called `names`."""
    missing = [name for name in names if name not in found]
    if missing:
        more = f", and {len(missing) - 1:,} other images" if len(missing) > 1 else ""
        raise ValueError(f"{path}: has no label for {missing[0]} of {source.name}{more}")
    return [found[name] for name in names]


def _names_of(source: ImageSource, option: str) -> list[str]:
    names = list(source.picture_names())
    if not names:
        raise ValueError(
            f"{source.name}: {option} needs pictures that have names, in a folder or an archive; of two sets, the"
            " second may have labels from another place (--fake-labels)"
        )
    return names


def _of_folders(source: ImageSource) -> Labels:
    """Return the top-level sub-folders of the pictures as labels."""
    names = _names_of(source, "labels='folder'")
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    if "" in folders:
        raise ValueError(
            f"{source.name}/{names[folders.index('')]}: lies in no class folder; labels='folder' takes the"
            f" sub-folders of {source.name} for classes"
        )
    same: dict[str, str] = {}  # one object for each class
    return Labels([same.setdefault(x, x) for x in folders], "class folders", tuple(sorted(same)))


def _from_csv(source: ImageSource, path: str) -> Labels:
    """Return the labels in a CSV file with the columns ``name`` and ``label``, in any order, beside others.

    The labels are numbers if every label is one, and names otherwise. Rows of other images are counted in a note.
    """
    names = _names_of(source, f"labels={path!r}")
    found: dict[str, str] = dict.fromkeys(names, "")
    strays = 0
    try:
        opened = open_regular(path)
    except FileNotFoundError:
        reason = "labels: there is no such file; name a .csv with the columns name and label, 'auto' or 'folder'"
        raise FileNotFoundError(errno.ENOENT, reason, path) from None
    with opened as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        try:
            for number, name, label in _rows_of_csv(text, path):
                if name not in found:
                    strays += 1
                elif found[name]:
                    raise ValueError(f"{path}: line {number}: {name} has a label already")
                elif not label:
                    raise ValueError(f"{path}: line {number}: {name} has no label")
                else:
                    found[name] = label
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from None
    texts = _in_order({name: label for name, label in found.items() if label}, names, path, source)
    if strays:
        rows = f"{strays:,} row{'s' if strays > 1 else ''}"
        source.notes.append(FastfidWarning(f"{path}: {rows} of images that {source.name} does not have"))
    if all(map(_WHOLE_NUMBER.fullmatch, found.values())):
        return made_of(map(int, texts), os.path.basename(path), _Where(source, names))
    same: dict[str, str] = {}
    return Labels([same.setdefault(x, x) for x in texts], os.path.basename(path))


def _rows_of_csv(file: IO[str], path: str) -> Iterable[tuple[int, str, str]]:
    """Yield line number, name and label of each row."""
    reader = csv.reader(file, strict=True)
    header = next(reader, [])
    if not {"name", "label"} <= set(header):
        shown = ", ".join(header)[:80]
        raise ValueError(f"{path}: expected a first line with the columns name and label; it is {shown or 'empty'}")
    at_name, at_label = header.index("name"), header.index("label")
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}: line {reader.line_num}: has {len(row)} columns of {len(header)}")
        yield reader.line_num, row[at_name], row[at_label]
