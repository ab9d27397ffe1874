"""What the sources hold: numbers of images, sizes, modes, formats, and what was left out and why."""

from typing import Any

from fastfid._remote import is_url
from fastfid.inspection import inspect_opened
from fastfid.report.content import Cell, Section, Table, plain
from fastfid.report.sides import Side

__all__ = ["sources_section"]

_MOST_LISTED = 50  # images that were left out, with their reasons
_MOST_NAMED = 4  # sizes, modes and formats


def sources_section(real: Side, generated: Side) -> Section:
    """Return the section, from the headers of the images."""
    section = Section("sources", "Sources")
    columns = [_facts(side) for side in (real, generated)]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[Cell(name), *(Cell(column.get(name, "")) for column in columns)] for name in names]
    head = ["what", "real", "generated"]
    section.blocks.append(Table("What was read", head, rows))
    for side in (real, generated):
        if side.skipped:
            listed = [[Cell(plain(one["name"])), Cell(plain(one["reason"]))] for one in side.skipped[:_MOST_LISTED]]
            shown = f", the first {_MOST_LISTED}" if len(side.skipped) > _MOST_LISTED else ""
            caption = f"{plain(side.name)}: {len(side.skipped):,} images were left out{shown}"
            section.blocks.append(Table(caption, ["image", "reason"], listed))
    return section


def _facts(side: Side) -> dict[str, str]:
    """Return what a source says of itself."""
    facts = {"name": plain(side.name), "images compared": _count(side.statistics.n)}
    if side.rows is not None:
        facts["images left out"] = f"{len(side.skipped):,}"
    if side.rows is None:
        return {**facts, "kind": "statistics"}
    if side.source is None:
        return {**facts, "kind": "a store of features"}
    if side.why_no_pictures or is_url(side.source.name):
        return {**facts, "kind": "a stream or a URL, whose headers are not read again"}
    found = inspect_opened(side.source).to_dict()
    facts |= {
        "images found": f"{found['images']:,}",
        "headers read": f"{found['headers']:,}",
        "sizes": _sizes(found),
        "modes": _counted(found["modes"]),
        "formats": _counted(found["formats"]),
        "unreadable headers": f"{len(found['unreadable']):,}",
        "classes": f"{len(found['classes']):,}, from {found['labels_from']}" if found["labels_from"] else "no labels",
        "passed over": plain("; ".join(found["notes"])) or "nothing",
    }
    return {name: plain(text) for name, text in facts.items()}


def _count(n: int | None) -> str:
    return "unknown" if n is None else f"{n:,}"


def _sizes(found: dict[str, Any]) -> str:
    sizes = {f"{one['width']} x {one['height']}": one["headers"] for one in found["sizes"]}
    text = _counted(sizes)
    if len(sizes) > _MOST_NAMED:
        smallest, largest = (" x ".join(map(str, found[which])) for which in ("smallest", "largest"))
        text += f"; from {smallest} to {largest}"
    return text


def _counted(counts: dict[str, int]) -> str:
    """Return the most common ones with their numbers."""
    named = [f"{name} ({n:,})" for name, n in list(counts.items())[:_MOST_NAMED]]
    others = len(counts) - len(named)
    return ", ".join(named) + (f", {others:,} others" if others > 0 else "")
