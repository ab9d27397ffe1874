"""Comparison of two sets of images class by class: which classes there are, and each metric for each of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid._console import remark, warn
from fastfid._progress import ProgressMode, show_progress
from fastfid.errors import NumericalError
from fastfid.evaluation.class_results import ClassResults, PerClass
from fastfid.evaluation.image_set import ImageSet
from fastfid.extractor import FEATURES
from fastfid.metrics.base import Metric, Result, Sample, statistics_output
from fastfid.metrics.kernel import KernelInceptionDistance, KernelInceptionDistanceToOne
from fastfid.metrics.mmd import OneSample
from fastfid.metrics.several import Accumulators, SampledSet, result_of
from fastfid.sources.base import Label
from fastfid.sources.kept import KeptLabels

__all__ = ["check_labels", "evaluate_classes", "in_common_terms"]

_MOST_CLASSES = 100_000
_BLOCK = 1024  # rows that are accumulated at a time


def check_labels(real: ImageSet, fake: ImageSet, *, per_class: bool) -> None:
    """Raise ValueError if classes are asked for and no side has labels. Neither side must have been read yet."""
    if not isinstance(per_class, bool):
        raise TypeError(f"per_class: expected True or False, got {per_class!r}")
    if not per_class or real.has_labels or fake.has_labels:
        return
    stores = [one.store.name for one in (real, fake) if one.store is not None]
    why = f"; the features in {stores[0]} were kept without labels" if stores else ""
    raise ValueError(f"per_class: neither side has labels; say where they are by --labels (labels=){why}")


class _Whole:
    """All images of a side without labels. What a metric makes of them is made once."""

    def __init__(self, side: ImageSet):
        self._side = side
        self._samples: dict[str, Sample] = {}

    def sample(self, metric: Metric) -> Sample:
        """Return what a metric compares."""
        if metric.key not in self._samples:
            sample = self._side.sample(metric)
            statistics = metric.statistics(sample) if statistics_output(metric) == FEATURES else None
            self._samples[metric.key] = sample if statistics is None else replace(sample, seen=statistics)
        return self._samples[metric.key]


class _Classes:
    """The images of a side by their classes.

    Parameters
    ----------
    side : ImageSet
        It has the rows of all outputs that the metrics need.
    labels : KeptLabels
    metrics : dict of str to Metric
    """

    def __init__(self, side: ImageSet, labels: KeptLabels, metrics: Mapping[str, Metric]):
        self._side = side
        self._metrics = metrics
        self._codes = {label: code for code, label in enumerate(labels.classes)}
        self._order = np.argsort(labels.codes, kind="stable")  # by class, and in the order of the images
        self._starts = np.searchsorted(labels.codes[self._order], np.arange(len(labels.classes) + 1))
        seen: Mapping[tuple[str, ...], Any] = side.seen
        outputs = frozenset().union(*(metric.needs for metric in metrics.values()))
        self._rows: dict[str, NDArray[np.float32]] = {output: seen["rows", output].rows() for output in outputs}

    @property
    def labels(self) -> list[Label]:
        """The classes."""
        return list(self._codes)

    @property
    def bytes_per_image(self) -> int:
        """Size of the rows of an image."""
        return sum(4 * rows.shape[1] for rows in self._rows.values())

    def images_of(self, label: Label) -> NDArray[np.int64]:
        """Return the numbers of the images of a class."""
        if label not in self._codes:
            return self._order[:0]
        code = self._codes[label]
        return self._order[self._starts[code] : self._starts[code + 1]]

    def of(self, label: Label) -> "_OneClass":
        """Return the images of a class, whose rows are read now."""
        images = self.images_of(label)
        lengths = {output: rows.shape[1] for output, rows in self._rows.items()}
        accumulators = Accumulators(self._metrics, lengths)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK]
            accumulators.update({output: rows[block] for output, rows in self._rows.items()})
        return _OneClass(self._side, label, accumulators)


class _OneClass:
    """The images of one class of a side."""

    def __init__(self, side: ImageSet, label: Label, accumulators: Accumulators):
        self._side = side
        self._name = f"{side.name} (class {label})"
        self._accumulators = accumulators

    def sample(self, metric: Metric) -> Sample:
        """Return what a metric compares."""
        seen = self._accumulators[metric.accumulates]
        return Sample(self._name, self._side.meta, seen, self._side.classifier)


def evaluate_classes(
    metrics: Mapping[str, Metric], real: ImageSet, fake: ImageSet, dims: int, progress: ProgressMode = False
) -> PerClass:
    """Return the metrics of each class: class against class, or against all images of a side without labels.

    Parameters
    ----------
    metrics : dict of str to Metric
        By key. The KID is added to the FID where both sides have labels, and so have rows.
    real, fake : ImageSet
        They have been read, and a side with labels has accumulated the rows of all outputs that the metrics need.
    dims : int
        Number of features per image.
    progress : bool or str
        See :func:`fastfid.evaluate`.

    Raises
    ------
    ValueError
        Labels are missing or of different kinds, there are too many classes, the sides have no class in common, or no
        class has enough images.
    """
    labels = in_common_terms([_labels_of(one) for one in (real, fake)], (_called(real), _called(fake)), say=remark)
    if "fid" in metrics and None not in labels:
        kid = KernelInceptionDistance()
        metrics = {**metrics, **({} if kid.key in metrics else {kid.key: kid})}
    sides = [
        _Whole(one) if found is None else _Classes(one, found, metrics)
        for one, found in zip((real, fake), labels, strict=True)
    ]
    whole = next((one for one in sides if isinstance(one, _Whole)), None)
    asked = metrics.get("kid")
    if whole is not None and type(asked) is KernelInceptionDistance:
        rows = whole.sample(asked).seen.rows()
        metrics = {**metrics, "kid": KernelInceptionDistanceToOne(one=OneSample(rows))}
    left_out, compared = _sorted_out(sides, (_called(real), _called(fake)))
    _say_size(sides, compared)
    found: dict[Label, ClassResults] = {}
    with show_progress(len(compared), progress, "classes", "class") as bar:
        for label in compared:
            a, b = (one.of(label) if isinstance(one, _Classes) else one for one in sides)
            found[label] = _results(metrics, a, b)
            bar.update(1)
    if not any(found.values()):
        reason = next(reason for one in found.values() for reason in one.missing.values())
        raise ValueError(f"per_class: no metric has a value for any class: {reason}")
    of: Literal["both", "real", "generated"] = "both"
    if None in labels:
        of = "generated" if labels[0] is None else "real"
    return PerClass(_worst_first(found), left_out, of, dims)


def _called(side: ImageSet) -> str:
    return side.known.name if side.known is not None else side.name


def _labels_of(side: ImageSet) -> KeptLabels | None:
    if not side.has_labels:
        return None
    labels = side.labels()
    if labels is None:
        where = side.store.name if side.store is not None else side.name
        raise ValueError(f"{where}: the labels of its images are missing; delete this folder, and run again")
    if len(labels.classes) > _MOST_CLASSES:
        raise ValueError(
            f"per_class: {_called(side)} has {len(labels.classes):,} classes, at most {_MOST_CLASSES:,} are compared"
        )
    return labels


def _results(metrics: Mapping[str, Metric], real: SampledSet, fake: SampledSet) -> ClassResults:
    """Return the metrics of one class. Metrics that need more images than there are have a reason instead."""
    results: dict[str, Result] = {}
    missing: dict[str, str] = {}
    for key, metric in metrics.items():
        try:
            results |= result_of(metric, real, fake)
        except (ValueError, NumericalError) as error:
            missing[key] = str(error).removeprefix(f"{key}: ")
    first = next(iter(metrics.values()))
    return ClassResults(results, real.sample(first).n, fake.sample(first).n, missing)


def _worst_first(found: Mapping[Label, ClassResults]) -> dict[Label, ClassResults]:
    """Return the classes by falling value of the first metric; the order of classes without it does not change."""
    most = max(found.values(), key=lambda one: len(one))
    first = next(iter(most))  # in the order of the metrics, of which another class may lack some

    def key(item: tuple[Label, ClassResults]) -> tuple[bool, float]:
        result = item[1].results.get(first)
        return (True, 0.0) if result is None else (False, -result.value)

    return dict(sorted(found.items(), key=key))


def _say_size(sides: Sequence[_Whole | _Classes], compared: Sequence[Label]) -> None:
    """Say how much memory the features of a class take, before they are read."""
    with_labels = [one for one in sides if isinstance(one, _Classes)]
    n = [sum(len(one.images_of(label)) for one in with_labels) for label in compared]
    most = max(n) * with_labels[0].bytes_per_image / 2**20
    remark(
        f"per-class: {len(compared):,} classes, of which one at a time is in memory: the largest has {max(n):,} images,"
        f" {most:,.1f} MiB of features"
    )


def _sorted_out(sides: Sequence[_Whole | _Classes], names: Sequence[str]) -> tuple[dict[Label, str], list[Label]]:
    """Return the classes with too few images, and why; and the classes to compare."""
    with_labels = [(one, name) for one, name in zip(sides, names, strict=True) if isinstance(one, _Classes)]
    every: list[Label] = sorted({label for one, _ in with_labels for label in one.labels})
    left_out: dict[Label, str] = {}
    for label in every:
        counts = [(len(one.images_of(label)), name) for one, name in with_labels]
        few = [f"{'no' if n == 0 else n} image of {name}" for n, name in counts if n < 2]
        if few:
            left_out[label] = " and ".join(few)
    compared = [label for label in every if label not in left_out]
    if not compared:
        if len(with_labels) == 2 and not set(with_labels[0][0].labels) & set(with_labels[1][0].labels):
            shown = " and ".join(f"{name} has {_shown(one.labels)}" for one, name in with_labels)
            raise ValueError(f"per_class: the two sides have no class in common: {shown}")
        raise ValueError("per_class: no class has 2 images or more on each side that has labels")
    if left_out:
        named = ", ".join(f"{label} ({reason})" for label, reason in list(left_out.items())[:5])
        more = ", ..." if len(left_out) > 5 else ""
        warn(f"per_class: left out {len(left_out):,} of {len(every):,} classes: {named}{more}")
    return left_out, compared


def _shown(labels: Sequence[Label]) -> str:
    return ", ".join(map(str, labels[:3])) + (", ..." if len(labels) > 3 else "")


# ---------------------------------------------------------------------------------------------------- names of classes


def in_common_terms(
    found: Sequence[KeptLabels | None], names: Sequence[str], *, say: Callable[[str], object]
) -> list[KeptLabels | None]:
    """Return the labels of both sides as names, or of both as numbers, as the results of classes have them.

    Parameters
    ----------
    found : labels of the two sides
        None: the side has none.
    names : names of the two sides
    say : callable
        Called with a sentence if numbers are taken for positions in the classes of the other side.

    Raises
    ------
    ValueError
        One side has names, the other numbers, and it is not known which number is which name.
    """
    real, fake = (None if one is None else _by_name(one) for one in found)
    if real is None or fake is None or real.are_names == fake.are_names:
        return [real, fake]
    if real.are_names:
        return [*_number_names(real, fake, names, say)]
    fake, real = _number_names(fake, real, names[::-1], say)
    return [real, fake]


def _by_name(labels: KeptLabels) -> KeptLabels:
    """Return numbers as the names of their classes, if these are known."""
    if labels.are_names or labels.class_names is None:
        return labels
    distinct = _distinct(labels.class_names)
    return _renamed(labels, lambda label: distinct[int(label)])


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names of classes. Those that several classes have get the number of the class."""
    count, found = Counter(names), list(names)
    for number, name in enumerate(names):
        if count[name] > 1:
            found[number] = f"{name} ({number})"
            while found[number] in count:  # another class is called so
                found[number] += f" ({number})"
    return found


def _renamed(labels: KeptLabels, rename: Callable[[Label], Label]) -> KeptLabels:
    return replace(labels, classes=tuple(rename(label) for label in labels.classes))


def _number_names(
    named: KeptLabels, numbered: KeptLabels, where: Sequence[str], say: Callable[[str], object]
) -> tuple[KeptLabels, KeptLabels]:
    """Return the labels of a side with names and of a side with numbers in common terms; `where`: their names."""
    texts = [str(label) for label in named.classes]
    if all(text.isascii() and text.isdigit() for text in texts) and len({int(text) for text in texts}) == len(texts):
        return _renamed(named, lambda label: int(label)), numbered
    largest = max(int(label) for label in numbered.classes)
    if named.class_names is None or largest >= len(named.class_names):
        known = "" if named.class_names is None else f", of which {where[0]} knows {len(named.class_names):,}"
        raise ValueError(
            f"per_class: {where[0]} has names of classes ({_shown(named.classes)}), and {where[1]} has numbers"
            f" ({_shown(numbered.classes)}) up to {largest}{known}: give both sides numbers, or both names (labels=)"
        )
    distinct = _distinct(named.class_names)
    say(
        f"per-class: the numbers of {where[1]} are taken for positions in the {len(distinct):,} classes of {where[0]}:"
        f" 0 is {distinct[0]}, {len(distinct) - 1} is {distinct[-1]}"
    )
    return named, _renamed(numbered, lambda label: distinct[int(label)])
