"""The classes of labelled images: a table, and the sheets of the worst."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.class_results import ClassResults, PerClass
from fastfid.evaluation.result import Evaluation
from fastfid.metrics import label_of
from fastfid.report.album import Album, SideName
from fastfid.report.content import Cell, Entry, Notice, Section, Sheet, Table, plain
from fastfid.report.header import number
from fastfid.sources.kept import KeptLabels

__all__ = ["classes_section"]

_WORST = 3  # classes with sheets


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
    section.blocks.append(_table(found, [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)]))
    if any(one.is_thin(found.dims) for one in found.values()):
        section.blocks.append(
            Notice(
                f"Classes with no more images than the {found.dims:,} features have an FID that its bias dominates:"
                " compare it only with that of classes of the same number of images, or take the KID."
            )
        )
    if found.left_out:
        named = ", ".join(f"{plain(label)} ({plain(reason)})" for label, reason in list(found.left_out.items())[:20])
        more = ", ..." if len(found.left_out) > 20 else ""
        section.blocks.append(Notice(f"{len(found.left_out):,} classes were left out: {named}{more}."))
    for label in list(found)[:_WORST]:
        section.blocks += _sheets(label, album, pictures)
    return section


def _table(found: PerClass, extractors: Sequence[str | None]) -> Table:
    names = list(found.means)
    head = ["class", "n real", "n generated"]
    for name in names:
        head += [label_of(name, extractors), f"{label_of(name, extractors)} standard error"]
    rows = [[Cell(plain(label)), *_cells(one, names)] for label, one in found.items()]
    has = [any(row[column].text for row in rows) for column in range(len(head))]
    kept = [column for column, is_there in enumerate(has) if is_there]
    rows = [[row[column] for column in kept] for row in rows]
    caption = f"{len(found):,} classes, the worst first"
    return Table(caption, [head[column] for column in kept], rows, is_sortable=True)


def _cells(one: ClassResults, names: list[str]) -> list[Cell]:
    cells = [Cell("unknown") if n is None else Cell(f"{n:,}", n) for n in (one.n_real, one.n_fake)]
    for name in names:
        result = one.results.get(name)
        cells += [Cell(""), Cell("")] if result is None else [number(result.value, 5), number(result.standard_error, 2)]
    return cells


def _sheets(label: int | str, album: Album, pictures: int) -> list[Sheet]:
    """Return images of one class, of each side that has labels."""
    sheets = []
    names: tuple[SideName, SideName] = ("generated", "real")
    for name in names:
        rows = _rows_of(album.sides[name].labels, label)
        if rows is None or not len(rows):
            continue
        rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), min(pictures, len(rows)), replace=False))]
        title = f"Class {plain(label)}: {name} images"
        sheets.append(Sheet(title, "", [Entry(album.picture(name, row)) for row in rows]))
    return sheets


def _rows_of(labels: KeptLabels | None, label: int | str) -> NDArray[np.intp] | None:
    """Return the rows of a class, which the results may call by its name where the labels are numbers."""
    if labels is None:
        return None
    names: list[int | str] = list(labels.classes)
    if labels.class_names is not None and not labels.are_names:
        names += [labels.class_names[int(code)] for code in labels.classes]
    if label not in names:
        return None
    found: NDArray[np.intp] = np.flatnonzero(labels.codes == names.index(label) % len(labels.classes))
    return found
