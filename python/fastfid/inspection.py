"""What a source holds, for ``fastfid inspect``: how many images, of which sizes, modes, formats and classes.

Names are counted and headers are read; no picture is decoded, and nothing is fetched.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from fastfid import references
from fastfid._console import escaped
from fastfid.options import SourceOptions, check_keywords
from fastfid.sources import is_statistics_file, open_source
from fastfid.sources.base import ImageItem, ImageSource, Label
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore, is_store
from fastfid.tally import Tally, by_area, most_common

__all__ = ["DEFAULT_HEADERS", "Inspection", "inspect_features", "inspect_opened", "inspect_source"]

# Headers that are read of a large source. With as many, a kind of picture that makes up a thousandth is missed once in
# e^10 = 22,000 times.
DEFAULT_HEADERS = 10_000

# Sizes, unreadable images and classes that are listed.
_MOST_LISTED = 5


@dataclass(frozen=True)
class Inspection:
    """What was found in a source.

    Attributes
    ----------
    name : str
        Name of the source.
    images : int
        Number of images.
    headers : int
        Number of images whose header was read: all, or a share that a hash of their positions chooses.
    sizes : dict of (int, int) to int
        Width and height of the headers, and how many have them.
    modes, formats : dict of str to int
        Pillow's mode (``RGB``, ``L``, ``P``) and format (``PNG``), and how many headers have them. Images of an array
        have the format ``array``.
    unreadable : list of (str, str)
        Name and reason of the headers that cannot be read.
    labels_from : str or None
        What the labels were read from; None: there are none.
    classes : dict of (int or str) to int
        How many of all images each class has, in the order of the classes.
    class_names : tuple of str or None
        Names of the classes, where they are known.
    notes : list of str
        What was passed over and why, and likely mistakes.
    """

    name: str
    images: int
    headers: int
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    formats: dict[str, int]
    unreadable: list[tuple[str, str]]
    labels_from: str | None
    classes: dict[Label, int]
    class_names: tuple[str, ...] | None
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known in the types of JSON: the object of ``fastfid inspect --json``."""
        ranked = by_area(self.sizes)
        return {
            "name": self.name,
            "images": self.images,
            "headers": self.headers,
            "smallest": list(ranked[0]) if ranked else None,
            "largest": list(ranked[-1]) if ranked else None,
            "sizes": [{"width": w, "height": h, "headers": n} for (w, h), n in most_common(self.sizes)],
            "modes": dict(most_common(self.modes)),
            "formats": dict(most_common(self.formats)),
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "labels_from": self.labels_from,
            "classes": [
                {"label": label, "name": self._name_of(label), "images": n} for label, n in self.classes.items()
            ],
            "notes": self.notes,
        }

    def text(self) -> str:
        """Return the lines that ``fastfid inspect`` prints."""
        whole = self.headers == self.images
        share = "" if whole else f" (of {self.headers:,} headers, {self.headers / self.images:.2%} of the images)"
        rows = [("images", f"{self.images:,}")]
        ranked = by_area(self.sizes)
        if ranked:
            (common, n), *_ = most_common(self.sizes)
            sizes = f"{len(ranked):,} sizes, from {_size(ranked[0])} to {_size(ranked[-1])}; most common"
            only = len(ranked) == 1
            rows.append(("sizes", (_size(common) if only else f"{sizes} {_size(common)} ({n:,})") + share))
        for what, counts in (("modes", self.modes), ("formats", self.formats)):
            if counts:
                rows.append((what, ", ".join(f"{name} ({n:,})" for name, n in most_common(counts)) + share))
        if self.unreadable:
            rows.append(("unreadable", f"{len(self.unreadable):,}{share}"))
            rows += [("", reason) for _, reason in self.unreadable[:_MOST_LISTED]]
        rows.append(("classes", self._classes_in_words()))
        rows += [("passed over" if i == 0 else "", note) for i, note in enumerate(self.notes)]
        return "\n".join([escaped(self.name), *(escaped(f"  {what:<12}{text}".rstrip()) for what, text in rows)])

    def _name_of(self, label: Label) -> str:
        if isinstance(label, int):
            return str(label) if self.class_names is None else self.class_names[label]
        return label

    def _classes_in_words(self) -> str:
        if self.labels_from is None:
            return "no labels"
        ranked = sorted(self.classes.items(), key=lambda entry: -entry[1])
        shown = ranked if len(ranked) <= _MOST_LISTED else [ranked[0], ranked[-1]]
        named = ", ".join(f"{self._name_of(label)} ({n:,})" for label, n in shown)
        missing = len(self.class_names or ()) - len(ranked)
        empty = f"; {missing:,} classes have no image" if missing > 0 else ""
        most = "" if shown is ranked else " largest and smallest:"
        return f"{len(ranked):,}, from {self.labels_from}:{most} {named}{empty}"


def inspect_source(source: Any, *, all_headers: bool = False, **options: Unpack[SourceOptions]) -> Inspection:
    """Count the images of a source, and read the headers of up to 10,000 of them.

    Parameters
    ----------
    source : path, array, tensor, iterable, Dataset or list of paths
        See :func:`fastfid.compute_statistics`.
    all_headers : bool
        Read every header.
    **options
        See :func:`fastfid.sources.open_source`. `labels` is "auto" by default.

    Raises
    ------
    TypeError, ValueError, OSError
        See :func:`fastfid.sources.open_source`.

    Examples
    --------
    >>> print(inspect_source("real").text())  # a folder of four pictures
    real
      images      4
      sizes       40 x 40
      modes       RGB (4)
      formats     PNG (4)
      classes     no labels
    """
    check_keywords(options)
    options.setdefault("labels", "auto")
    return inspect_opened(open_source(source, **options), all_headers=all_headers)


def inspect_opened(opened: ImageSource, *, all_headers: bool = False) -> Inspection:
    """Do as :func:`inspect_source` with a source that is open."""
    try:
        chosen = None if all_headers else _chosen(len(opened))
    except TypeError:  # a stream
        chosen = None
    found = _Headers()
    classes: Counter[Label] = Counter()
    images = 0
    wanted = None if chosen is None else iter([*chosen.tolist(), -1])
    following = 0 if wanted is None else next(wanted)
    for index, item in enumerate(opened):
        images += 1
        if opened.has_labels:
            classes[item.label] += 1  # type: ignore[index]  # every item of a source with labels has one
        if wanted is None:
            found.read(item)
        elif index == following:
            found.read(item)
            following = next(wanted)
    notes = [str(note).removeprefix(f"{opened.name}: ") for note in opened.notes]
    return Inspection(
        opened.name,
        images,
        found.number + len(found.unreadable),
        dict(found.sizes),
        dict(found.modes),
        dict(found.formats),
        found.unreadable,
        opened.labels_from,
        {label: classes[label] for label in sorted(classes)},  # all numbers or all names
        opened.class_names,
        [note for note in notes if not note.startswith("carries no labels")],  # labels_from says so
    )


def inspect_features(source: Any, *, add_reference: str | None = None) -> dict[str, Any] | None:
    """Return what statistics or a store of features say of themselves, in the types of JSON; None for images.

    Parameters
    ----------
    source : path
    add_reference : str, optional
        Add the statistics to the user's table of known references under this name.

    Raises
    ------
    OSError, ValueError
        The file or the store is damaged, or the store is not complete; the table of known references is; there are no
        statistics to add to it.
    """
    found: Statistics | FeatureStore
    if add_reference is not None and not is_statistics_file(source):
        raise ValueError(f"{source}: is no statistics file; --add-reference names the numbers of one")
    if is_store(source):
        found = FeatureStore(source)
        facts: dict[str, Any] = {"kind": "store of features", "outputs": found.outputs, "skipped": len(found.skipped)}
    elif is_statistics_file(source):
        found = Statistics.load(source, spatial=True)
        kept = found.reservoir.rows if found.reservoir is not None else ()
        if add_reference is not None:
            references.add_reference(found, add_reference)
        digest = references.numbers_hash(found)
        known = {"known_as": references.read_table().get(digest), "numbers_sha256": digest}
        facts = {"kind": "statistics", **known, "spatial": found.spatial is not None, "sampled_rows": len(kept)}
    else:
        return None
    stated = {key: found.meta.get(key) for key in ("source", "protocol", "extractor", "precision")}
    return {"name": found.name, **facts, "n": found.n, "dims": found.d, **stated}


class _Headers(Tally):
    """The headers that were read, counted."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: list[tuple[str, str]] = []

    def read(self, item: ImageItem) -> None:
        """Read the header of an image."""
        try:
            header = item.header()
        except ValueError as error:
            self.unreadable.append((item.name, str(error)))
            return
        self.add(*header)


def _chosen(images: int) -> NDArray[np.int64] | None:
    """Return the positions of the images whose headers are read, in order; None: all.

    They are those with the smallest hashes of their positions, so that the choice is the same in every run and has no
    period that the order of the images might have.
    """
    if images <= DEFAULT_HEADERS:
        return None
    hashes = mixed_hash(np.arange(1, images + 1, dtype=np.uint64))
    return np.sort(np.argpartition(hashes, DEFAULT_HEADERS)[:DEFAULT_HEADERS])


def mixed_hash(steps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output of SplitMix64 (Steele, Lea and Flood 2014) after each number of steps from the state 0."""
    mixed = steps * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
