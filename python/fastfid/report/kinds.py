"""Which records of runs are comparable: those of one reference, network, protocol and number of images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastfid.evaluation.stored import references_of, value_of
from fastfid.report.content import Cell, plain

__all__ = ["GENERATED", "Kinds", "kinds_of"]

GENERATED = "number of generated images"
# What a value depends on beside the generated images, and the key of a record that says it.
_PROPERTIES = {
    "reference": "",
    "number of real images": "n.real",
    GENERATED: "n.fake",
    "dims": "dims",
    "protocol": "protocol",
    "extractor": "extractor",
    "precision": "precision",
}
_UNITS = {
    "reference": "against {}",
    "number of real images": "{} real images",
    GENERATED: "{} images",
    "dims": "{} dims",
}


@dataclass(frozen=True)
class Kinds:
    """The kinds of some records.

    Attributes
    ----------
    differing : list of str
        What the kinds differ in; empty: all records are of one kind.
    cells : list of dict of str to Cell
        Of each record, what it has of that.
    """

    differing: Sequence[str]
    cells: Sequence[Mapping[str, Cell]]

    def names(self, without: Sequence[str] = ()) -> list[str]:
        """Return what tells the kind of each record from the others, as "64 dims"; without some of the properties."""
        return [
            ", ".join(_UNITS.get(key, "{}").format(one[key].text) for key in self.differing if key not in without)
            for one in self.cells
        ]


def kinds_of(records: Sequence[Mapping[str, Any]]) -> Kinds:
    """Return the kinds of records, which are not checked."""
    rows = [{key: _cell(value_of(record, path)) for key, path in _PROPERTIES.items()} for record in records]
    references = references_of(records)
    names: list[str] = []
    for row, record, reference in zip(rows, records, references, strict=True):
        if reference == len(names):
            name = plain(record.get("real", "unknown"))
            names.append(name if name not in names else f"{name} (other content, {reference + 1})")
        row["reference"] = Cell(names[reference])
    differing = [key for key in _PROPERTIES if len({row[key] for row in rows}) > 1]
    return Kinds(differing, rows)


def _cell(value: Any) -> Cell:
    """Return what a record says: a number, a text, or one for each side."""
    if value is None:
        return Cell("not stated")
    if isinstance(value, Mapping) and {"real", "fake"} <= set(value):
        sides = [value[side] for side in ("real", "fake") if value[side] is not None]
        different = list(dict.fromkeys(str(side) for side in sides))
        return Cell(plain(" and ".join(different) or "not stated"))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return Cell(f"{value:,}", value)
    return Cell(plain(value if isinstance(value, str) else json.dumps(value)))
