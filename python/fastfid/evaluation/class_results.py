"""The results of an evaluation for each class of images, as a mapping and as a table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fastfid._console import escaped
from fastfid._html import table
from fastfid.metrics import label_of
from fastfid.metrics.base import Result
from fastfid.metrics.several import NamedResults

__all__ = ["ClassResults", "Mean", "PerClass"]

# Classes that were left out are named in full up to so many; the record has all.
_MOST_NAMED = 20


class Mean(NamedTuple):
    """The mean of a value over classes.

    Attributes
    ----------
    value : float
    classes : int
        Number of classes that have the value.
    standard_error : float or None
        Of the mean, from those of the classes, which are independent of one another. None if a class has none, and if
        the classes are compared with all images of one side, which they share.
    """

    value: float
    classes: int
    standard_error: float | None


@dataclass(frozen=True)
class ClassResults(NamedResults):
    """The results of one class: a mapping from names to results, as of :class:`Evaluation`.

    Attributes
    ----------
    results : dict of str to Result
    n_real, n_fake : int or None
        Number of images that were compared: those of the class, or all images of a side without labels. None if the
        statistics do not state it.
    missing : dict of str to str
        Metrics that could not be computed for this class, and why.
    """

    results: Mapping[str, Result]
    n_real: int | None
    n_fake: int | None
    missing: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        values = "".join(f"{name}={result.value:.6g}, " for name, result in self.results.items())
        return f"ClassResults({values}n_real={self.n_real}, n_fake={self.n_fake})"

    def is_thin(self, dims: int) -> bool:
        """Return whether there is an FID of a side with no more images than features, so that its bias dominates."""
        return "fid" in self and any(n is not None and n <= dims for n in (self.n_real, self.n_fake))


@dataclass(frozen=True)
class PerClass(Mapping[int | str, ClassResults]):
    """The results of each class: a mapping from classes to their results.

    Attributes
    ----------
    classes : dict of int or str to ClassResults
        By falling value of the first metric, which for a distance is the worst class first; then the classes for which
        it could not be computed.
    left_out : dict of int or str to str
        Classes with too few images on a side, and why they were left out.
    classes_of : {"both", "real", "generated"}
        "both": classes are compared with classes. Else the side that has labels: its classes are compared with all
        images of the other side.
    dims : int
        Number of features per image.

    Examples
    --------
    >>> import numpy as np
    >>> from fastfid import evaluate
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    >>> labels = ["cat", "dog"] * 10
    >>> found = evaluate(images[:20], images[20:], dims=64, labels=labels, per_class=True).per_class
    >>> sorted(found), found["cat"].n_real, found["cat"]["fid"].value > 0
    (['cat', 'dog'], 10, True)
    >>> found.means["fid"].value == (found["cat"]["fid"].value + found["dog"]["fid"].value) / 2  # the intra-FID
    True
    """

    classes: Mapping[int | str, ClassResults]
    left_out: Mapping[int | str, str]
    classes_of: Literal["both", "real", "generated"]
    dims: int

    def __getitem__(self, label: int | str) -> ClassResults:
        if label in self.left_out:
            raise KeyError(f"the class {label!r} was left out: {self.left_out[label]}")
        return self.classes[label]

    def __iter__(self) -> Iterator[int | str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def means(self) -> dict[str, Mean]:
        """The mean of each value over the classes that have it; of the FID, the intra-FID (Miyato & Koyama 2018)."""
        found = {}
        for name in self._names:
            values = [one.results[name].value for one in self.classes.values() if name in one.results]
            errors = [one.results[name].standard_error for one in self.classes.values() if name in one.results]
            known = [error for error in errors if error is not None]
            is_known = len(known) == len(values) and self.classes_of == "both"
            found[name] = Mean(
                sum(values) / len(values), len(values), math.hypot(*known) / len(values) if is_known else None
            )
        return found

    @property
    def _names(self) -> list[str]:
        # In the order of the metrics, which the class with the most values has.
        by_values = sorted(self.classes.values(), key=len, reverse=True)
        return list(dict.fromkeys(name for one in by_values for name in one.results))

    def __repr__(self) -> str:
        means = "".join(f", mean {name}={mean.value:.6g}" for name, mean in self.means.items())
        left_out = f", {len(self.left_out)} left out" if self.left_out else ""
        return f"PerClass({len(self)} classes{means}{left_out})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        head, rows = self._rows()
        return table(head, rows, caption="; ".join(["by class", *self._remarks()]))

    def table(self) -> str:
        """Return the table and the sentences that ``fastfid --per-class`` prints."""
        head, rows = self._rows()
        cells = [head, *([escaped(cell) for cell in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        lines = []
        for first, *others in cells:
            padded = [first.ljust(widths[0]), *(x.rjust(w) for x, w in zip(others, widths[1:], strict=True))]
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *map(escaped, self._remarks())])

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the head of the table, and its rows."""
        columns = [_Column(name, list(self.classes.values()), self.means[name]) for name in self._names]
        has_thin = any(one.is_thin(self.dims) for one in self.classes.values())
        head = ["class", "n real", "n generated", *(text for one in columns for text in one.head)]
        rows = []
        for label, one in self.classes.items():
            counts = ["unknown" if n is None else str(n) for n in (one.n_real, one.n_fake)]
            mark = ["n <= d" if one.is_thin(self.dims) else ""] if has_thin else []
            rows.append([str(label), *counts, *(text for column in columns for text in column.cells(one)), *mark])
        mean = ["mean", "", "", *(text for column in columns for text in column.of_mean), *([""] if has_thin else [])]
        return [*head, *([""] if has_thin else [])], [*rows, mean]

    def _remarks(self) -> list[str]:
        """Return the sentences below the table."""
        said = []
        if self.classes_of != "both":
            other = "generated" if self.classes_of == "real" else "real"
            said.append(f"each class of the {self.classes_of} side is compared with all images of the {other} side")
        if any(one.is_thin(self.dims) for one in self.classes.values()):
            said.append(
                f"n <= d: no more images than features ({self.dims}), so the bias dominates the FID: compare it only"
                " with FIDs of the same n"
            )
        missing: dict[str, list[str]] = {}
        for one in self.classes.values():
            for name, reason in one.missing.items():
                missing.setdefault(name, []).append(reason)
        for name, reasons in missing.items():
            said.append(f"{name}: not computed for {len(reasons)} of {len(self)} classes: {reasons[0]}")
        if self.left_out:
            named = [f"{label} ({reason})" for label, reason in self.left_out.items()]
            more = f", and {len(named) - _MOST_NAMED:,} others" if len(named) > _MOST_NAMED else ""
            said.append(f"left out: {', '.join(named[:_MOST_NAMED])}{more}")
        return said


class _Column:
    """The columns of one value: the value, and its standard error and bias where any class has them."""

    def __init__(self, name: str, classes: Sequence[ClassResults], mean: Mean):
        self._name = name
        self._has_errors = any(self._of(one, "standard_error") is not None for one in classes)
        self._has_bias = any(self._of(one, "bias") is not None for one in classes)
        label = label_of(name)
        self.head = [label, *(["+-"] if self._has_errors else []), *(["bias"] if self._has_bias else [])]
        count = f" (of {mean.classes})" if mean.classes < len(classes) else ""
        error = ["" if mean.standard_error is None else f"{mean.standard_error:.2g}"] if self._has_errors else []
        self.of_mean = [f"{mean.value:.6g}{count}", *error, *([""] if self._has_bias else [])]

    def _of(self, one: ClassResults, attribute: str) -> float | None:
        value: float | None = getattr(one.results.get(self._name), attribute, None)
        return value

    def cells(self, one: ClassResults) -> list[str]:
        """Return the cells of a class."""
        shown = [("value", "6g")]
        shown += [("standard_error", "2g")] if self._has_errors else []
        shown += [("bias", "4g")] if self._has_bias else []
        values = [(self._of(one, attribute), digits) for attribute, digits in shown]
        return ["-" if value is None else f"{value:.{digits}}" for value, digits in values]
