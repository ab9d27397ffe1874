"""The classes of labelled images: a table, and the sheets of the worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.class_results import ClassResults, PerClass
from fastfid.evaluation.classes import in_common_terms
from fastfid.evaluation.result import Evaluation
from fastfid.metrics import label_of
from fastfid.report.album import Album, SideName
from fastfid.report.content import Cell, Entry, Notice, Section, Sheet, Table, minus, plain
from fastfid.report.header import errors_from_zero, number
from fastfid.report.verdicts import FALSE_ALARM, beyond_noise
from fastfid.sources.kept import KeptLabels

__all__ = ["classes_section"]

_WORST = 3  # classes with sheets
_MOST_NAMED = 20  # classes in a sentence


def classes_section(evaluation: Evaluation, album: Album, pictures: int) -> Section | None:
    """Return the section; None where no side has labels."""
    found = evaluation.per_class
    if found is None:
        return None
    section = Section("classes", "Classes")
    if found.classes_of != "both":
        other = "generated" if found.classes_of == "real" else "real"
        section.paragraphs.append(
            f"Each class of the {found.classes_of} side is compared with all images of the {other} side."
        )
    extractors = [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)]
    verdicts = _verdicts(found)
    section.blocks.append(_table(found, extractors, verdicts))
    section.blocks.append(Notice(_told(found, extractors, verdicts)))
    if any(one.is_thin(found.dims) for one in found.values()):
        section.blocks.append(
            Notice(
                f"Classes with no more images than the {found.dims:,} features have an FID that its bias dominates:"
                " compare it only with that of classes of the same number of images, or take the KID."
            )
        )
    if found.left_out:
        named = _named([f"{label} ({reason})" for label, reason in found.left_out.items()])
        section.blocks.append(Notice(f"{len(found.left_out):,} classes were left out: {named}."))
    sides: tuple[SideName, SideName] = ("real", "generated")
    labels = in_common_terms([album.sides[side].labels for side in sides], sides, say=lambda _: None)
    of_sides = dict(zip(sides, labels, strict=True))
    for label in list(found)[:_WORST]:
        section.blocks += _sheets(label, of_sides, album, pictures)
    return section


@dataclass(frozen=True)
class _Verdict:
    """Whether the images of a class differ from the others beyond noise, by which metric, and its standard errors."""

    by: str
    ratio: float
    is_beyond: bool


def _verdicts(found: PerClass) -> dict[int | str, _Verdict]:
    """Return the verdict of each class that has a standard error."""
    ratios = {label: ratio for label, one in found.items() if (ratio := errors_from_zero(one)) is not None}
    are_beyond = beyond_noise([ratio for _, ratio in ratios.values()])
    return {label: _Verdict(*ratio, one) for (label, ratio), one in zip(ratios.items(), are_beyond, strict=True)}


def _told(found: PerClass, extractors: Sequence[str | None], verdicts: Mapping[int | str, _Verdict]) -> str:
    """Return the sentences on which classes differ beyond noise."""
    if not verdicts:
        return (
            "Which classes differ beyond noise is not known: neither the FID nor the KID of a class has a standard"
            " error here."
        )
    beyond = [label for label, one in verdicts.items() if one.is_beyond]
    by = " or the ".join(dict.fromkeys(_told_by(one.by, extractors) for one in verdicts.values()))
    of = (
        f"{len(verdicts):,} classes" if len(verdicts) == len(found) else f"the {len(verdicts):,} classes with a verdict"
    )
    named = f": {_named(beyond)}" if beyond else ""
    return (
        f"{len(beyond):,} of {of} differ beyond noise, by the {by}{named}. As {len(verdicts):,} are compared, some can"
        " be far from 0 by chance: a class is counted where its number of standard errors is too large for that (Holm's"
        f" procedure). If no class differed, any would be named in {FALSE_ALARM:.0%} of such reports at most. Whether"
        " one class is worse than another is another question, which their standard errors answer."
    )


def _told_by(name: str, extractors: Sequence[str | None]) -> str:
    return label_of(name, extractors) + (" less 2 times its bias" if name == "fid" else "")


def _named(labels: Sequence[object]) -> str:
    more = f" and {len(labels) - _MOST_NAMED:,} others" if len(labels) > _MOST_NAMED else ""
    return ", ".join(plain(label) for label in labels[:_MOST_NAMED]) + more


def _table(found: PerClass, extractors: Sequence[str | None], verdicts: Mapping[int | str, _Verdict]) -> Table:
    names = list(found.means)
    head = ["class", "n real", "n generated", "beyond noise", "standard errors from 0"]
    for name in names:
        head += [label_of(name, extractors), f"{label_of(name, extractors)} standard error"]
    rows = [[Cell(plain(label)), *_cells(one, names, verdicts.get(label))] for label, one in found.items()]
    has = [any(row[column].text for row in rows) for column in range(len(head))]
    kept = [column for column, is_there in enumerate(has) if is_there]
    rows = [[row[column] for column in kept] for row in rows]
    caption = f"{len(found):,} classes, the worst first"
    return Table(caption, [head[column] for column in kept], rows, is_sortable=True)


def _cells(one: ClassResults, names: list[str], verdict: _Verdict | None) -> list[Cell]:
    cells = [Cell("unknown") if n is None else Cell(f"{n:,}", n) for n in (one.n_real, one.n_fake)]
    if verdict is None:
        cells += [Cell(""), Cell("")]
    else:
        cells += [Cell("yes" if verdict.is_beyond else "no"), Cell(minus(verdict.ratio, ".1f"), verdict.ratio)]
    for name in names:
        result = one.results.get(name)
        cells += [Cell(""), Cell("")] if result is None else [number(result.value, 5), number(result.standard_error, 2)]
    return cells


def _sheets(label: int | str, labels: Mapping[SideName, KeptLabels | None], album: Album, pictures: int) -> list[Sheet]:
    """Return images of one class, of each side that has labels, which are called as the results call the class."""
    sheets = []
    names: tuple[SideName, SideName] = ("generated", "real")
    for name in names:
        if (of_side := labels[name]) is None:
            continue
        rows: NDArray[np.intp] = np.flatnonzero(of_side.codes == of_side.classes.index(label))
        rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), min(pictures, len(rows)), replace=False))]
        title = f"Class {plain(label)}: {name} images"
        sheets.append(Sheet(title, "", [Entry(album.picture(name, row)) for row in rows]))
    return sheets
