"""Labels of the images whose features are kept: as numbers of classes, and in a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.sources.base import Label

__all__ = ["KeptLabels"]

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """The labels of a set of images, in the order of the images.

    Attributes
    ----------
    codes : ndarray, shape (n,), int64
        The class of each image: a position in `classes`.
    classes : tuple of int, or tuple of str
        The classes that occur, sorted.
    class_names : tuple of str or None
        Names of the classes of the source, of which an integer label is a position. None: not known.

    Examples
    --------
    >>> KeptLabels.of(["cat", "dog", "cat"]).codes.tolist()
    [0, 1, 0]
    """

    codes: NDArray[np.int64]
    classes: tuple[Label, ...]
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, labels: Sequence[Label], class_names: tuple[str, ...] | None = None) -> "KeptLabels":
        """Return the labels, all numbers or all names."""
        classes: tuple[Label, ...] = tuple(sorted(set(labels)))
        numbers = {label: number for number, label in enumerate(classes)}
        return cls(np.fromiter((numbers[label] for label in labels), np.int64, len(labels)), classes, class_names)

    @property
    def are_names(self) -> bool:
        """Whether the labels are names, not numbers."""
        return isinstance(self.classes[0], str)

    def to_json(self) -> bytes:
        """Return the content of a file."""
        content = {
            "schema": SCHEMA,
            "classes": self.classes,
            "class_names": self.class_names,
            "codes": self.codes.tolist(),
        }
        return json.dumps(content).encode()

    @classmethod
    def from_json(cls, data: bytes, n: int) -> "KeptLabels":
        """Return the labels of `n` images. Raises ValueError if `data` does not hold such labels."""
        try:
            found = json.loads(data)
        except RecursionError:
            raise ValueError("nests too deep") from None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError("is no file of labels of this version")
        classes: Any = found.get("classes")
        names: Any = found.get("class_names")
        codes: Any = found.get("codes")
        are_sound = _are_classes(classes) and (names is None or _are_texts(names)) and isinstance(codes, list)
        if not are_sound or not all(type(code) is int and 0 <= code < len(classes) for code in codes):
            raise ValueError("holds no labels")
        if len(codes) != n:
            raise ValueError(f"has {len(codes):,} labels of {n:,} images")
        if type(classes[0]) is int and names is not None and classes[-1] >= len(names):
            raise ValueError(f"has the label {classes[-1]} of {len(names)} classes")
        return cls(np.array(codes, np.int64), tuple(classes), None if names is None else tuple(names))


def _are_classes(found: Any) -> bool:
    """Return whether these are different labels of one kind, sorted."""
    if not isinstance(found, list) or not found or not (_are_texts(found) or all(_is_number(x) for x in found)):
        return False
    return all(a < b for a, b in pairwise(found))


def _is_number(label: Any) -> bool:
    return type(label) is int and 0 <= label < 2**63


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(x, str) for x in found)
