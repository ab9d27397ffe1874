"""The head of a report: the metrics, what was compared and how, and whether the two sets can be told apart."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fastfid.evaluation.opening import effective_options
from fastfid.evaluation.result import Evaluation
from fastfid.metrics import label_of
from fastfid.metrics.base import Result
from fastfid.metrics.fid import FIDResult
from fastfid.report.content import Cell, Notice, Section, Table, minus, plain

__all__ = ["FEWEST_ERRORS", "errors_from_zero", "facts_of", "metrics_section", "number", "verdict"]

# A difference of so many standard errors is said to be one. How seldom two sets of one distribution differ as much:
# docs/report.md.
FEWEST_ERRORS = 3.0
_BIASES = 2  # so many times the bias is taken off for that


def number(value: float | None, digits: int = 6) -> Cell:
    """Return a cell with a number; an empty one for None."""
    if value is None:
        return Cell("")
    text = f"{value:.{digits}g}"
    if "e" in text and 1 <= abs(value) < 1e7:  # 150, not 1.5e+02
        text = f"{value:.0f}"
    return Cell(text.replace("-", "\N{MINUS SIGN}"), float(value))


def verdict(evaluation: Evaluation) -> str:
    """Return the sentence that says whether the generated set differs from the reference, and by how much."""
    reference, generated = plain(evaluation.real.name), plain(evaluation.fake.name)
    found = errors_from_zero(evaluation)
    if found is None:
        return (
            f"Whether {generated} differs from {reference} is not known: neither the FID nor the KID has a standard"
            " error here."
        )
    name, ratio = found
    by = _named(evaluation, name) + (f" less {_BIASES} times its bias" if name == "fid" else "")
    counts = " and ".join(_count(side.n) for side in (evaluation.real, evaluation.fake))
    if ratio < FEWEST_ERRORS:
        return (
            f"{generated} cannot be told apart from {reference} with {counts} images: the {by} is"
            f" {minus(ratio, '.1f')} standard errors from 0, fewer than {FEWEST_ERRORS:.0f}."
        )
    return f"{generated} differs from {reference} by {ratio:,.0f} standard errors of the {by} ({counts} images)."


def errors_from_zero(results: Mapping[str, Result]) -> tuple[str, float] | None:
    """Return which metric tells two sets apart, and how many of its standard errors it is from 0; None: none has any.

    The KID is unbiased at any n. Of the FID its bias is taken off twice: the closed form is that of Gaussian features,
    and features with heavy tails have more of it.
    """
    kid, fid = results.get("kid"), results.get("fid")
    if kid is not None and kid.standard_error:
        return "kid", kid.value / kid.standard_error
    if not isinstance(fid, FIDResult) or not fid.standard_error or fid.bias is None:
        return None
    return "fid", max(0.0, fid.value - _BIASES * fid.bias) / fid.standard_error


def _named(evaluation: Evaluation, name: str) -> str:
    return label_of(name, [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)])


def metrics_section(evaluation: Evaluation) -> Section:
    """Return the table of all metrics."""
    head: Sequence[str] = (
        "metric",
        "value",
        "standard error",
        "95 % interval",
        "numerical bounds",
        "n real",
        "n generated",
        "note",
    )
    rows = [_row(evaluation, name, result) for name, result in evaluation.items()]
    rows += [
        [Cell(_named(evaluation, name)), *[Cell("")] * 6, Cell(f"not computed: {plain(why)}")]
        for name, why in evaluation.missing.items()
    ]
    if not any(row[-1].text for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    section = Section("metrics", "Metrics")
    section.blocks.append(Table("Every metric of the two sets", head, rows))
    section.paragraphs.append(
        "The standard error says by how much a value typically changes if the images are drawn again, with as many"
        " images. The interval is the value and 1.96 standard errors on either side. The numerical bounds say how far"
        " rounding can have moved the value; they are no error bar."
    )
    fid = evaluation["fid"]
    if isinstance(fid, FIDResult) and fid.no_standard_error:
        section.blocks.append(Notice(f"The FID has no standard error: {plain(fid.no_standard_error)}."))
    return section


def _row(evaluation: Evaluation, name: str, result: Result) -> list[Cell]:
    real, fake = evaluation.sides.get(name, (evaluation.real, evaluation.fake))
    error = result.standard_error
    low, high = (None, None) if error is None else (result.value - 1.96 * error, result.value + 1.96 * error)
    notes = [result.remark] if result.remark else []
    if result.standard_error_of == "generated":
        notes.append("the reference counts as fixed")
    if error is None and result.no_standard_error and name != "fid":
        notes.append(f"no standard error: {result.no_standard_error}")
    return [
        Cell(_named(evaluation, name)),
        number(result.value),
        number(error, 2),
        Cell("" if low is None or high is None else f"{minus(low, '.4g')} to {minus(high, '.4g')}"),
        _bounds(result),
        *(Cell("unknown") if side.n is None else Cell(f"{side.n:,}", side.n) for side in (real, fake)),
        Cell(plain("; ".join(notes))),
    ]


def _bounds(result: Result) -> Cell:
    """Return the numerical bounds, as distances from the value."""
    if result.numerical_lower is None or result.numerical_upper is None:
        return Cell("")
    below, above = result.value - result.numerical_lower, result.numerical_upper - result.value
    return Cell(f"−{below:.1g}, +{above:.1g}")


def facts_of(record: Mapping[str, Any], command: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return what was compared and how, from the record of the evaluation."""
    usual = {**effective_options({}), "on_error": "raise", "force": False, "tol": None}
    options = [f"{name}={value}" for name, value in record["options"].items() if value != usual[name]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    facts = [
        *(
            (what, record[side] + (f", known as {known}" if (known := record["known_as"][side]) else ""))
            for what, side in (("reference (real)", "real"), ("generated", "fake"))
        ),
        ("images", " and ".join(_count(record["n"][side]) for side in ("real", "fake"))),
        ("features of an image", f"{record['dims']:,}"),
        *((name, _of_both(record[name])) for name in ("protocol", "extractor", "precision")),
        ("device", record["device"] or "no image was read"),
        *(
            (f"files ({side})", f"{found['files']:,} files, {found['bytes']:,} bytes, SHA-256 {found['sha256']}")
            for side, found in (record["inputs"] or {}).items()
            if found is not None
        ),
        ("subset", "" if record["num"] is None else f"{record['num']:,} images of each side, seed {record['seed']}"),
        ("options", ", ".join(options)),
        ("versions", versions),
        ("date, host", f"{record['date']}, {record['host']}"),
        ("seconds", ", ".join(f"{name} {value:,.1f}" for name, value in record["seconds"].items())),
        ("command", "" if command is None else shlex.join(command)),
    ]
    return [(name, plain(text)) for name, text in facts if text]


def _count(n: int | None) -> str:
    return "unknown" if n is None else f"{n:,}"


def _of_both(sides: Mapping[str, Any]) -> str:
    """Return what both sides say, once where they say one thing."""
    named = [str(sides[side] or "not stated") for side in ("real", "fake")]
    return named[0] if named[0] == named[1] else f"{named[0]} (real), {named[1]} (generated)"
