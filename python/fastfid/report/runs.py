"""A page of the records of several runs: every metric against step or time, and which differences are beyond noise."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastfid.evaluation.comparison import Comparison
from fastfid.evaluation.stored import compare_stored, each_once, read_records
from fastfid.metrics import METRICS, check_name, label_of
from fastfid.report import figures
from fastfid.report.content import Cell, Figure, Notice, Page, Section, Table, minus, plain
from fastfid.report.header import number
from fastfid.report.kinds import GENERATED, Kinds, kinds_of
from fastfid.report.make import check_packages, check_target, write

__all__ = ["are_records", "make_report_of_runs"]

_ENDINGS = (".json", ".jsonl")
_LARGEST_STEP = 10**15  # up to here floats tell integers apart
_MOST_TOLD = 3  # kinds of records in the sentence at the head


@dataclass(frozen=True)
class _Run:
    """One record.

    Attributes
    ----------
    where : str
        The file, and the place in it.
    series : str
        The file, whose records of one kind are one line of a figure; empty: all files are.
    record : dict
    values : dict of str to (float, float or None)
        Each value with its standard error, by the name of the metric with its convention.
    """

    where: str
    series: str
    record: Mapping[str, Any]
    values: Mapping[str, tuple[float, float | None]]

    @property
    def name(self) -> str:
        """What the generated set is called."""
        return str(self.record.get("fake", "unknown"))

    @property
    def extractor(self) -> str | None:
        """The network, where the record says it."""
        sides = self.record.get("extractor")
        found = sides.get("fake") if isinstance(sides, Mapping) else None
        return None if found is None else str(found)


@dataclass(frozen=True)
class _Axis:
    """What the records are drawn against."""

    label: str
    places: Sequence[Any]
    are_dates: bool = False
    note: str = ""


def are_records(paths: Sequence[str | os.PathLike[str]]) -> bool:
    """Return whether all paths are files of records, by their endings."""
    return all(Path(path).suffix.lower() in _ENDINGS for path in paths)


def make_report_of_runs(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write one HTML file with the metrics of stored records against their step or time.

    Parameters
    ----------
    paths : list of paths
        Files of records, as ``--json`` prints and ``--append`` writes them. The records of one file are one line of a
        figure; files of one record each are one line together. A file that was given already is left out, with a
        warning. Records of another reference, number of images, protocol or network have a line of their own. The step
        of a record is its key ``step``, which whoever trains adds; where a record has none, it is the last number in
        the name of the generated set; where a name has none, or two records of a line have the same, it is the date.
    output, overwrite
        See :func:`fastfid.report.make.make_report`.
    metrics : list of str, optional
        Names of the metrics to draw; default: all in the records.

    Raises
    ------
    ValueError
        A file holds no record, a record is damaged, its step is no number, or its date is needed and wrong; or no
        record has one of the metrics.
    ImportError, OSError
        See :func:`fastfid.report.make.make_report`.

    Examples
    --------
    >>> from fastfid import compute_fid
    >>> record = compute_fid("real", "fake", dims=64, return_info=True)  # two folders of four pictures
    >>> import json
    >>> _ = Path("runs.jsonl").write_text("\\n".join(json.dumps({**record, "step": step}) for step in (1, 2)))
    >>> make_report_of_runs(["runs.jsonl"], "runs.html")
    """
    check_packages()
    target = check_target(output, overwrite=overwrite)
    paths = each_once(paths)
    files = [read_records(path) for path in paths]
    alone = len(files) == 1 or all(len(found) == 1 for found in files)
    runs = [
        _Run(where, "" if alone else name, record, _values(where, record))
        for name, found in zip(_short(paths), files, strict=True)
        for where, record in found
    ]
    names = _chosen(runs, metrics)
    kinds = kinds_of([run.record for run in runs])
    axis = _axis(runs, kinds.names())
    sections = [_drawn(runs, names, axis, kinds), _listed(runs, names, axis, kinds), _compared(runs, kinds)]
    title = f"{len(runs):,} records of {len(paths):,} {'file' if len(paths) == 1 else 'files'}"
    facts = [("files", plain(", ".join(os.fsdecode(path) for path in paths))), ("against", axis.label)]
    write(Page(title, _verdict(runs, names[0], axis, kinds), facts, sections), target, overwrite=overwrite)


def _short(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the paths below the folder that they share."""
    whole = [os.fsdecode(path) for path in paths]
    if len(set(whole)) < 2:
        return whole
    folder = os.path.commonpath([os.path.abspath(path) for path in whole])
    return [os.path.relpath(path, folder) for path in whole]


def _values(where: str, record: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """Return the values of all images in a record."""
    rows = record.get("metrics")
    if rows is None:  # of two Gaussians
        rows = [{"metric": "fid", "value": record["fid"]}]
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("metric"), str) for row in rows
    ):
        raise ValueError(f"{where}: metrics is wrong: expected a list of objects, each with a metric")
    found = {}
    for row in rows:
        value, error = row.get("value"), row.get("standard_error")
        if row.get("class") is not None or value is None:
            continue
        for what, one in (("value", value), ("standard_error", error)):
            is_number = isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
            if not is_number and not (one is None and what == "standard_error"):
                raise ValueError(f"{where}: {what} of {row['metric']} is wrong: expected a number, got {one!r}")
        convention = row.get("convention")
        key = row["metric"] if convention is None else f"{row['metric']}:{convention}"
        found[key] = (float(value), None if error is None else float(error))
    return found


def _chosen(runs: Sequence[_Run], metrics: Sequence[str] | None) -> list[str]:
    """Return the names of the values to draw, in the order of the records."""
    there = list(dict.fromkeys(name for run in runs for name in run.values))
    if metrics is not None:
        wanted = set()
        for text in metrics:
            name, convention = check_name(text)
            wanted |= {f"{value}:{convention}" if convention else value for value in METRICS[name].labels}
        there = [name for name in there if name in wanted]
    if not there:
        asked = f" of {', '.join(metrics)}" if metrics is not None else ""
        raise ValueError(f"{runs[0].where}: no record has a value{asked}")
    return there


def _axis(runs: Sequence[_Run], kinds: Sequence[str]) -> _Axis:
    """Return the steps of the records: their key, a number in their names, or their dates."""
    steps = [_step(run) for run in runs]
    if None not in steps:
        return _Axis("step", steps)
    without = steps.count(None)
    note = "" if without == len(runs) else f"{without:,} of {len(runs):,} records have no step, so no step is used."
    numbers = [re.findall(r"[0-9]+", run.name)[-1:] for run in runs]
    if all(numbers):
        last = [int(text) if len(text) <= len(str(_LARGEST_STEP)) else math.inf for (text,) in numbers]
        places = {(run.series, kind, place) for run, kind, place in zip(runs, kinds, last, strict=True)}
        if len(places) == len(runs) and max(last) <= _LARGEST_STEP:
            return _Axis("last number in the name of the generated set", last, note=note)
    return _Axis("date (UTC)", [_date(run) for run in runs], are_dates=True, note=note)


def _step(run: _Run) -> int | float | None:
    """Return the step of a record; None where it has none. ValueError for one that is no number."""
    step: Any = run.record.get("step")
    if step is None:
        return None
    if isinstance(step, int | float) and not isinstance(step, bool) and abs(step) <= _LARGEST_STEP:
        return step
    raise ValueError(f"{run.where}: step is wrong: expected a number from -1e15 to 1e15, got {step!r:.60}")


def _date(run: _Run) -> str:
    """Return the date of a record, as NumPy reads it."""
    found = run.record.get("date")
    try:
        return datetime.strptime(str(found), "%Y-%m-%dT%H:%M:%SZ").strftime("%Y-%m-%dT%H:%M:%S")
    except ValueError:
        raise ValueError(
            f"{run.where}: date is wrong: expected one as 2026-01-31T12:00:00Z, got {found!r}; or give every record a"
            " step"
        ) from None


def _drawn(runs: Sequence[_Run], names: Sequence[str], axis: _Axis, kinds: Kinds) -> Section:
    """Return the section with a figure for each value."""
    section = Section("curves", "Metrics over the runs")
    section.paragraphs.append("Error bars are one standard error on either side, where a record has one.")
    if axis.note:
        section.paragraphs.append(axis.note)
    if kinds.differing:
        section.paragraphs.append(
            f"The records differ in {_listing(kinds.differing)}. Records that do are not comparable, and are lines of"
            " their own: compare the values within a line, or those of lines that differ in the file alone."
        )
    lines = list(zip((run.series for run in runs), kinds.names(), strict=True))
    for name in names:
        label = label_of(name, {run.extractor for run in runs})
        series = []
        for line in dict.fromkeys(lines):
            points = sorted(
                (
                    (place, *run.values[name])
                    for place, run, own in zip(axis.places, runs, lines, strict=True)
                    if own == line and name in run.values
                ),
                key=lambda point: point[0],  # records of one place keep the order of the file
            )
            if points:
                x, y, errors = zip(*points, strict=True)
                series.append(figures.Series(plain(": ".join(filter(None, line))), x, y, errors))
        section.blocks.append(_figure(series, label, axis))
    return section


def _figure(series: Sequence[figures.Series], label: str, axis: _Axis) -> Figure:
    told = "; ".join(
        (f"{one.name}: " if len(series) > 1 else "")
        + ", ".join(f"{value:.4g} at {place}" for place, value in zip(one.x, one.y, strict=True))
        for one in series
    )
    alt = f"{label} against {axis.label}: {told}."
    return figures.runs(series, label, axis.label, are_dates=axis.are_dates, alt=alt, caption="", title=label)


def _listing(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _listed(runs: Sequence[_Run], names: Sequence[str], axis: _Axis, kinds: Kinds) -> Section:
    """Return the section with the table of all values."""
    section = Section("table", "All values")
    head = ["generated set", axis.label, "record", *kinds.differing]
    for name in names:
        label = label_of(name, {run.extractor for run in runs})
        head += [label, f"{label} standard error"]
    rows = []
    for place, run, kind in zip(axis.places, runs, kinds.cells, strict=True):
        at = Cell(str(place)) if axis.are_dates else Cell(f"{place:,}", float(place))
        cells = [Cell(plain(run.name)), at, Cell(plain(run.where)), *(kind[key] for key in kinds.differing)]
        for name in names:
            value, error = run.values.get(name, (None, None))
            cells += [number(value), number(error, 2)]
        rows.append(cells)
    section.blocks.append(Table("The records, in their order", head, rows, is_sortable=True))
    return section


def _compared(runs: Sequence[_Run], kinds: Kinds) -> Section:
    """Return the section that says which differences of the FID are beyond noise."""
    section = Section("differences", "Which differences are beyond noise")
    # FIDs of other numbers of generated images are compared less their biases.
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for run, kind in zip(runs, kinds.names(without=[GENERATED]), strict=True):
        groups.setdefault(kind, []).append((run.where, dict(run.record)))
    for kind, records in groups.items():
        of = f" ({kind})" if kind else ""
        try:
            found = compare_stored(records)
        except ValueError as error:
            section.blocks.append(Notice(f"The FIDs are not compared{of}: {plain(error)}."))
            continue
        if not section.paragraphs:
            section.paragraphs.append(
                "The set with the lowest FID beside every other one. Of two equal sets, a verdict calls one better in"
                f" at most 1 % of the cases. In differences of records {found.note}."
            )
        section.blocks.append(_beside_the_best(found, of))
    return section


def _beside_the_best(found: Comparison, of: str) -> Table:
    best = found.candidates[0].name
    rows = []
    for one in found.differences:
        if best in (one.a, one.b):
            other = one.b if one.a == best else one.a
            rows.append(
                [Cell(plain(other)), number(one.difference, 4), number(one.standard_error, 2), Cell(plain(one.verdict))]
            )
    head = ("generated set", "difference", "standard error", "verdict")
    return Table(
        f"Against {plain(best)}, whose {label_of('fid', [found.extractor])} is {found.candidates[0].fid:.6g}{of}",
        head,
        rows,
        is_sortable=True,
    )


def _verdict(runs: Sequence[_Run], name: str, axis: _Axis, kinds: Kinds) -> str:
    """Return the sentences at the head of the page: the best value, of each kind of records."""
    label = label_of(name, {one.extractor for one in runs})
    is_distance = name in ("fid", "sfid", "kid", "fid-infinity", "mifid", "mind", "cmmd")
    which = "lowest" if is_distance else "highest"
    of_kinds: dict[str, list[tuple[_Run, Any]]] = {}
    for run, place, kind in zip(runs, axis.places, kinds.names(), strict=True):
        if name in run.values:
            of_kinds.setdefault(kind, []).append((run, place))
    said = []
    if len(of_kinds) > 1:
        said.append(
            f"The records are of {len(of_kinds):,} kinds, which cannot be compared with one another: they differ in"
            f" {_listing(kinds.differing)}."
        )
    for kind, there in list(of_kinds.items())[:_MOST_TOLD]:
        run, place = (min if is_distance else max)(there, key=lambda one: one[0].values[name][0])
        value, error = run.values[name]
        spread = "" if error is None else f" ± {error:.2g}"
        at = f"at {place}" if axis.are_dates else f"at {axis.label} {place:,}"
        of = f" ({kind})" if len(of_kinds) > 1 else ""
        said.append(f"The {which} {label}{of} is {minus(value, '.4g')}{spread}: {plain(run.name)}, {at}.")
    return " ".join(said)
