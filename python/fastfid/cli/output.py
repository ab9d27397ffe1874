"""What commands print: results on stdout, remarks on stderr."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastfid import _console

__all__ = ["print_facts", "print_result", "print_values", "remark", "remark_on", "remark_on_kept", "sample_size_remark"]


def print_result(args: argparse.Namespace, found: Any, record: Any) -> None:
    """Print the record, or a line for each value; the FID alone as pytorch-fid prints it."""
    for name, reason in found.missing.items():
        remark(f"{name}: not computed: {reason}")
    if args.json:
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    if args.metrics:
        print_values(found)
    else:
        print(f"{_label(found, 'fid')}: ", found["fid"].value)
    if found.per_class is not None:
        print(found.per_class.table())


def print_values(found: Any) -> None:
    """Print a line for each value, and remarks on the values."""
    for name, result in found.items():
        print(f"{_label(found, name)}:  {_with_error(result.value, result.standard_error)}")
    for line in _remarks_of_results(found):
        remark(line)


def _label(found: Any, name: str) -> str:
    """Return the text before a value, which depends on the network."""
    from fastfid.metrics import label_of

    return label_of(name, [side.meta.get("extractor") for side in (found.real, found.fake)])


def _with_error(value: float, error: float | None) -> str:
    """Return the value with its standard error, to two digits of that; all digits of a value without one."""
    if not error:
        return str(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _remarks_of_results(found: Any) -> list[str]:
    """Return the notes of the results, and why some have no standard error."""
    reasons: dict[str, list[str]] = {}
    for name, result in found.items():
        if result.standard_error is None and result.no_standard_error:
            reasons.setdefault(result.no_standard_error, []).append(_label(found, name))
    notes = [f"{_label(found, name)}: {result.remark}" for name, result in found.items() if result.remark]
    return notes + [f"{', '.join(labels)}: no standard error: {reason}" for reason, labels in reasons.items()]


def remark_on(args: argparse.Namespace, found: Any) -> None:
    """Say what there is to know of an FID, and which sides are known references."""
    for side in ("real", "fake"):
        if (name := found.known_as.get(side)) is not None:
            remark(f"{getattr(found, side).name}: has the numbers of the known reference {name}")
    if "fid" in found:
        remark(sample_size_remark(found.dims, [found.real, found.fake]))
        if not args.json and not args.metrics:
            remark(_standard_error_remark(found["fid"]))


def remark_on_kept(args: argparse.Namespace, found: Any, of: str = "") -> None:
    """Say which sides were not read, as a store or the cache had what they need."""
    for side, cached in found.cached.items():
        if cached:
            what = f"features from {args.store}" if args.store else "statistics from the cache"
            remark(f"{of}{getattr(found, side).name}: {what}")


def sample_size_remark(d: int, sides: Sequence[Any]) -> str | None:
    """Return what is said where a side has no more images than dims."""
    thin = [f"{side.name} (n = {side.n})" for side in sides if side.n is not None and side.n <= d]
    if not thin:
        return None
    return (
        f"{' and '.join(thin)}: no more images than dims ({d}), so sampling bias dominates: "
        "compare the distance only with distances of the same n"
    )


def _standard_error_remark(fid: Any) -> str | None:
    """Return what is said of the standard error; None where there is none, for which the record has the reason."""
    if fid.standard_error is None:
        return None
    whose = "" if fid.standard_error_of == "both" else ", of the second set alone: the first counts as fixed"
    good_to = f"itself good to {fid.relative_error_of_standard_error:.0%}"
    return f"standard error of sampling: {fid.standard_error:.4g} ({good_to}{whose})"


def print_facts(facts: Mapping[str, Any], *, in_json: bool) -> None:
    """Print names and values, as lines or as one JSON object."""
    if in_json:
        print(json.dumps(facts, indent=2))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:{width}}  {'none' if value in ('', {}) else value}")


def remark(text: str | None) -> None:
    """Print a line on stderr, unless there is nothing to say."""
    if text:
        _console.remark(text)
