"""Stored records of several comparisons with one reference: read, checked key by key, and compared."""

import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastfid._console import warn
from fastfid._files import open_regular
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.comparison import Comparison
from fastfid.metrics.differences import Measured, compare_measured
from fastfid.metrics.standard_error import Variance
from fastfid.record import SCHEMA

__all__ = ["compare_records", "compare_stored", "each_once", "read_records", "references_of", "value_of"]

# Numbers up to here have squares, and sums of squares, that are finite.
_LARGEST = 1e100
# A variance of a larger relative error decides nothing; the quantile of so few degrees of freedom overflows.
_LARGEST_ERROR_OF_VARIANCE = 10.0


@dataclass(frozen=True)
class _Stored:
    """A record, what messages call it, and its text with sorted keys."""

    where: str
    record: dict[str, Any]
    text: str

    def get(self, key: str) -> Any:
        """Return the value of ``key`` or ``key.inner``; None where there is none."""
        return value_of(self.record, key)


def value_of(record: Mapping[str, Any], key: str) -> Any:
    """Return what a record has under a key, as ``n.real``; None where it has nothing there."""
    found: Any = record
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def compare_records(paths: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Compare the FIDs of stored records, as ``--json`` prints and ``--append`` writes them.

    The noise of the reference does not cancel: a record says nothing of single images. Where the candidates differ in
    n, `value` is the FID less the record's whole `bias`: the part that comes from the n of the reference too, which is
    the same in all and does not change the differences. :func:`compare` leaves that part in.

    Parameters
    ----------
    paths : list of paths
        Files of one record each, of one in every line, or of a JSON array of records. A record without an FID, a record
        that was there already and a file that was given already are left out, with a warning.

    Raises
    ------
    OSError
        A file cannot be read.
    ValueError
        A file holds no record, or a key of a record is wrong; there are fewer than two records of an FID; their
        references, protocols, networks, precisions or dims differ. The message names the file. Of two references the
        names of known ones are compared where both records have them, else their hashes (``--hash-inputs``) where both
        have them, else what they were called: a folder and the statistics of the folder count as two references.

    Warns
    -----
    SuspiciousInputWarning
        A record was forced, or its `num` or `assumed_protocol` is not that of the first.

    Examples
    --------
    >>> from fastfid import compute_fid
    >>> record = compute_fid("real", "fake", dims=64, return_info=True)  # two folders of four pictures
    >>> lines = [json.dumps({**record, "fake": name}) for name in ("a", "b")]
    >>> _ = Path("runs.jsonl").write_text("\\n".join(lines))
    >>> compare_records(["runs.jsonl"]).differences[0].verdict[:10]
    'no verdict'
    """
    return _compare([one for path in each_once(paths) for one in _read(Path(path))])


def compare_stored(records: Sequence[tuple[str, dict[str, Any]]]) -> Comparison:
    """Compare the FIDs of records that :func:`read_records` returned. See :func:`compare_records`."""
    return _compare([_Stored(where, record, json.dumps(record, sort_keys=True)) for where, record in records])


def _compare(given: Sequence[_Stored]) -> Comparison:
    records = _of_the_fid(given)
    if len(records) < 2:
        raise ValueError(f"expected two records or more, got {len(records)}")
    _check_references(records)
    _check_provenance(records)
    _warn_of_circumstances(records)
    called = [one.record["fake"] for one in records]
    if len(set(called)) < len(called):  # the same folder at different times
        called = [f"{name} ({one.where})" for name, one in zip(called, records, strict=True)]
    measured = [_measured(name, one) for name, one in zip(called, records, strict=True)]
    found, differences = compare_measured(measured, None)
    extractor = records[0].record["extractor"]["real"]
    return Comparison(
        records[0].record["real"], found, differences, "the noise of the reference does not cancel", extractor
    )


# ------------------------------------------------------------------------------------------------------------- reading


def each_once(paths: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return the paths without those of a file that was given before, of which a warning says so."""
    first: dict[str, str | os.PathLike[str]] = {}  # by the path without links
    for path in paths:
        where = os.path.realpath(path)
        if where in first:
            here, before = os.fsdecode(path), os.fsdecode(first[where])
            warn(f"{here}: is left out: the file was given before{'' if here == before else f' as {before}'}")
        first.setdefault(where, path)
    return list(first.values())


def read_records(path: str | os.PathLike[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the records of a file in their order, each with what messages call it.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds no record, or something else than records of this version. What is in them is not checked.
    """
    found = _read(Path(path))
    for one in found:
        _check_shape(one)
    return [(one.where, one.record) for one in found]


def _read(path: Path) -> list[_Stored]:
    """Return what is in a file: one value, an array, or a value in every line. Nothing is checked yet."""
    with open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: holds no JSON: byte {error.start} is not UTF-8 text") from None
    if not text.strip():
        raise ValueError(f"{path}: holds no record: it is empty; expected what fastfid --json prints")
    try:
        whole = _parsed(str(path), text)
    except json.JSONDecodeError:
        return _read_lines(path, text)
    if not isinstance(whole.record, list):
        return [whole]
    if not whole.record:
        raise ValueError(f"{path}: holds no record: it is an empty list; expected what fastfid --json prints")
    items = enumerate(whole.record, start=1)
    return [_Stored(f"{path}: record {number}", item, json.dumps(item, sort_keys=True)) for number, item in items]


def _read_lines(path: Path, text: str) -> list[_Stored]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() splits inside of strings, as at U+2028
        if not line.strip():
            continue
        try:
            found.append(_parsed(f"{path}:{number}", line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: no JSON: {error}") from None
    return found


def _parsed(where: str, text: str) -> _Stored:
    try:
        value = json.loads(text, parse_int=_parsed_integer)
        return _Stored(where, value, json.dumps(value, sort_keys=True))
    except RecursionError:
        raise ValueError(f"{where}: is no record: it is nested too deeply") from None


def _parsed_integer(text: str) -> int | float:
    """Return an integer; one of so many digits that int() may refuse them is infinite, or a float of no key's range."""
    return int(text) if len(text) < 400 else float(text)


def _of_the_fid(records: Sequence[_Stored]) -> list[_Stored]:
    """Return the records of an FID, each once, and checked."""
    kept: dict[str, _Stored] = {}
    for one in records:
        _check_shape(one)
        if "fid" not in one.record:
            warn(f"{one.where}: is left out: it has no FID")
        elif one.text in kept:
            warn(f"{one.where}: is left out: it is the same record as {kept[one.text].where}")
        else:
            _check_keys(one)
            kept[one.text] = one
    return list(kept.values())


# ------------------------------------------------------------------------------------------------------ key by key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _has_sides(value: Any) -> bool:
    return isinstance(value, dict) and {"real", "fake"} <= set(value)


_Kind = tuple[Callable[[Any], bool], str]


def _or_null(kind: _Kind) -> _Kind:
    return lambda value: value is None or kind[0](value), f"null or {kind[1]}"


_NUMBER: _Kind = (_is_number, "a finite number of at most 1e100")
_ERROR: _Kind = (lambda value: _is_number(value) and value >= 0, "a finite number from 0 to 1e100")
_RELATIVE: _Kind = (lambda value: _is_number(value) and 0 <= value < 10, "a number from 0 to less than 10")
_COUNT: _Kind = (_is_count, "an integer from 1 to 2^63 - 1")
_TEXT: _Kind = (_is_text, "a string")
_SIDES: _Kind = (_has_sides, "an object with real and fake")
_OBJECT: _Kind = (lambda value: isinstance(value, dict), "an object")
_BOOLEAN: _Kind = (lambda value: isinstance(value, bool), "true or false")

# What is read of a record; an object comes before what is in it. A key that may be null may be missing.
_USED: dict[str, _Kind] = {
    "fid": _NUMBER,
    "standard_error": _or_null(_ERROR),
    "relative_error_of_standard_error": _or_null(_RELATIVE),
    "no_standard_error": _or_null(_TEXT),
    "bias": _or_null(_NUMBER),
    "dims": _COUNT,
    "real": _TEXT,
    "fake": _TEXT,
    "n": _SIDES,
    "n.real": _or_null(_COUNT),
    "n.fake": _or_null(_COUNT),
    "protocol": _SIDES,
    "protocol.real": _or_null(_TEXT),
    "protocol.fake": _or_null(_TEXT),
    "extractor": _SIDES,
    "extractor.real": _or_null(_TEXT),
    "extractor.fake": _or_null(_TEXT),
    "precision": _SIDES,
    "precision.real": _or_null(_TEXT),
    "precision.fake": _or_null(_TEXT),
    "num": _or_null(_COUNT),
    "assumed_protocol": _or_null(_SIDES),
    "assumed_protocol.real": _or_null(_TEXT),
    "assumed_protocol.fake": _or_null(_TEXT),
    "options": _or_null(_OBJECT),
    "options.force": _or_null(_BOOLEAN),
    "inputs": _or_null(_SIDES),
    "inputs.real": _or_null(_OBJECT),
    "inputs.real.sha256": _or_null(_TEXT),
    "known_as": _or_null(_SIDES),
    "known_as.real": _or_null(_TEXT),
}


def _check_shape(one: _Stored) -> None:
    """Refuse what fastfid of this version has not written."""
    wrong = None
    if not isinstance(one.record, dict):
        wrong = f"it is {_shown(one.record)}"
    elif "schema" not in one.record:
        wrong = "schema is missing"
    elif type(one.record["schema"]) is not int or one.record["schema"] != SCHEMA:
        schema = _shown(one.record["schema"])
        raise ValueError(f"{one.where}: was written by another version (schema {schema}, expected {SCHEMA})")
    elif "fid" not in one.record and not isinstance(one.record.get("metrics"), list):
        wrong = "fid is missing"
    if wrong:
        raise ValueError(f"{one.where}: is no record of an FID as fastfid --json prints it: {wrong}")


def _check_keys(one: _Stored) -> None:
    for key, (is_right, expected) in _USED.items():
        value = one.get(key)
        if not is_right(value):
            got = _shown(value) if value is not None or "." in key or key in one.record else "nothing"
            raise ValueError(f"{one.where}: key {key} is wrong: expected {expected}, got {got}")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."


# ------------------------------------------------------------------------------------------------ between the records


# What says which reference a record is of: what says it more surely comes first.
_REFERENCE = ("known_as.real", "inputs.real.sha256", "real")


def _check_references(records: Sequence[_Stored]) -> None:
    """Refuse records of different references."""
    numbers = references_of([one.record for one in records])
    for place, one in enumerate(records if len(set(numbers)) > 1 else ()):
        for number, other in zip(numbers[:place], records, strict=False):
            # Of two references, some two records say so: every record has `real`.
            if number != numbers[place]:
                _expect_equal(_surest_of_both(one, other), one, other)
    for one in records[1:]:
        _expect_equal("n.real", one, records[0])


def _surest_of_both(one: _Stored, other: _Stored) -> str:
    return next(key for key in _REFERENCE if one.get(key) is not None and other.get(key) is not None)


def references_of(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return a number for the reference of each record, from 0 in the order of the first records.

    Two records are compared by the surest key that both have. So a record that says less is of the reference of which
    the others say more. Where the records that it goes with are of several references, which one it is of is not known:
    it counts as one of its own. The order of the records decides nothing but the numbers.
    """
    stated = []
    for record in records:
        values = {key: value_of(record, key) for key in _REFERENCE}
        stated.append({key: json.dumps(value, sort_keys=True) for key, value in values.items() if value is not None})
    groups: list[list[int]] = []  # places of records of one reference
    for key in _REFERENCE:
        by_value: dict[str, list[int]] = {}  # of records that say nothing surer
        for place, said in enumerate(stated):
            if next(iter(said), None) == key:
                by_value.setdefault(said[key], []).append(place)
        groups = _joined([*groups, *by_value.values()], stated, key)
    groups += [[place] for place, said in enumerate(stated) if not said]
    number_of = {place: number for number, group in enumerate(sorted(groups, key=min)) for place in group}
    return [number_of[place] for place in range(len(records))]


def _joined(groups: Sequence[list[int]], stated: Sequence[Mapping[str, str]], key: str) -> list[list[int]]:
    """Join the groups that have values of a key in common, unless two of those differ by a surer key."""
    surer = _REFERENCE[: _REFERENCE.index(key)]
    keys = [{one for one in surer if any(one in stated[place] for place in group)} for group in groups]

    def may_be_one(some: Collection[int]) -> bool:  # groups that both have a surer key were not joined by it
        return all(sum(one in keys[number] for number in some) < 2 for one in surer)

    with_value: dict[str, set[int]] = {}
    for number, group in enumerate(groups):
        for place in group:
            if key in stated[place]:
                with_value.setdefault(stated[place][key], set()).add(number)
    linked = {number: {number} for number in range(len(groups))}  # sets that all their members share
    for some in filter(may_be_one, with_value.values()):
        union = set().union(*(linked[number] for number in some))
        linked |= dict.fromkeys(union, union)
    joined = []
    for numbers in {id(some): some for some in linked.values()}.values():
        if may_be_one(numbers):
            joined.append([place for number in numbers for place in groups[number]])
        else:
            joined += [groups[number] for number in numbers]
    return joined


def _check_provenance(records: Sequence[_Stored]) -> None:
    """Refuse records of different networks; what the statistics of a candidate do not say is not compared."""
    for key in ("dims", *(f"{what}.real" for what in ("protocol", "extractor", "precision"))):
        for one in records[1:]:
            _expect_equal(key, one, records[0])
    for key in (f"{what}.fake" for what in ("protocol", "extractor", "precision")):
        stated = [one for one in records if one.get(key) is not None]
        for one in stated[1:]:
            _expect_equal(key, one, stated[0])


def _expect_equal(key: str, one: _Stored, other: _Stored) -> None:
    a, b = one.get(key), other.get(key)
    if a != b:
        raise ValueError(
            f"{one.where}: {key} is {_shown(a)}, but {_shown(b)} in {other.where}: they cannot be compared"
        )


def _warn_of_circumstances(records: Sequence[_Stored]) -> None:
    first = records[0]
    for one in records:
        if one.get("options.force"):
            warn(f"{one.where}: was forced: its two sides may not go together", SuspiciousInputWarning)
        for key in ("num", "assumed_protocol.real", "assumed_protocol.fake"):
            a, b = one.get(key), first.get(key)
            if a != b:
                text = f"{one.where}: {key} is {_shown(a)}, but {_shown(b)} in {first.where}"
                warn(f"{text}: the FIDs may differ for this reason", SuspiciousInputWarning)


def _measured(name: str, one: _Stored) -> Measured:
    fid, dims, n = float(one.record["fid"]), one.record["dims"], one.get("n.fake")
    error, bias = one.get("standard_error"), one.get("bias")
    if n is None:
        return Measured(name, fid, error, None, dims, None, None, None, 0.0, f"{name}: its number of images is unknown")
    if error is None:
        reason = one.get("no_standard_error") or "the record has no standard error"
        why = f"{name}: {reason.removeprefix(one.record['fake'] + ': ')}"
        return Measured(name, fid, None, n, dims, bias, None, None, 0.0, why)
    relative = one.get("relative_error_of_standard_error") or 0.0
    own = Variance(math.pow(error, 2), min(2 * relative, _LARGEST_ERROR_OF_VARIANCE))
    return Measured(name, fid, error, n, dims, bias, own, None, 0.0, None)
