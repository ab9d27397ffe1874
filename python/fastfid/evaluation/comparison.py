"""Several sets of images against one reference: which is closer, and whether that can be told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Unpack

import numpy as np

from fastfid import mistakes
from fastfid._checks import check_at_least
from fastfid._console import escaped, warn
from fastfid._files import is_store
from fastfid.assumptions import assume_protocols
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.evaluate import compute_statistics
from fastfid.evaluation.networks import extractor_beside
from fastfid.evaluation.opening import is_known, load_statistics
from fastfid.extractor import FeatureExtractor
from fastfid.metrics import label_of
from fastfid.metrics.differences import Candidate, Difference, Measured, compare_measured, measure
from fastfid.options import NETWORK_OPTIONS, StatisticsOptions, check_keywords
from fastfid.record import SCHEMA
from fastfid.statistics import Statistics, check_compatible

__all__ = ["Comparison", "check_candidates", "compare", "numbered"]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` has found.

    Attributes
    ----------
    reference : str
        Name of the reference.
    candidates : tuple of Candidate
        By rising value: the best comes first.
    differences : tuple of Difference
        Of every two candidates.
    note : str
        What there is to know about the standard errors; mostly empty.
    extractor : str or None
        Identity of the network, as the reference says; None where it does not.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> meta = {"protocol": "none"}
    >>> names = ("real", "a", "b")
    >>> real, a, b = (Statistics.from_features(rng.normal(0, 1, (200, 8)), meta, name) for name in names)
    >>> compare(real, [a, b]).differences[0].verdict[:22]
    'cannot be told apart w'
    """

    reference: str
    candidates: tuple[Candidate, ...]
    differences: tuple[Difference, ...]
    note: str = ""
    extractor: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: the object of ``fastfid compare --json`` (docs/json.md)."""
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "differences": [asdict(difference) for difference in self.differences],
            "note": self.note,
            "extractor": self.extractor,
        }

    def __repr__(self) -> str:
        values = ", ".join(f"{one.name!r}: {one.value:.6g}" for one in self.candidates)
        return f"Comparison(reference={self.reference!r}, {{{values}}})"

    def table(self) -> str:
        """Return the table and the sentences that ``fastfid compare`` prints."""
        is_corrected = any(one.value != one.fid for one in self.candidates)
        label = label_of("fid", [self.extractor])
        head = ["candidate", *([f"{label} less bias"] if is_corrected else []), label, "standard error", "n"]
        rows = [head]
        for one in self.candidates:
            error = "none" if one.standard_error is None else f"{one.standard_error:.2g}"
            values = [f"{one.value:.6g}"] if is_corrected else []
            rows.append(
                [escaped(one.name), *values, f"{one.fid:.6g}", error, "unknown" if one.n is None else str(one.n)]
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = []
        for name, *numbers in rows:
            cells = [name.ljust(widths[0]), *(x.rjust(w) for x, w in zip(numbers, widths[1:], strict=True))]
            lines.append("  ".join(cells).replace("\n", "\\n"))
        for pair in self.differences:
            error = "" if pair.standard_error is None else f" +- {pair.standard_error:.2g}"
            lines.append(
                f"{escaped(pair.a)} and {escaped(pair.b)}: {pair.verdict}; difference {pair.difference:.4g}{error}"
            )
        return "\n".join(lines)


def compare(
    reference: Any,
    candidates: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    force: bool = False,
    **keywords: Unpack[StatisticsOptions],
) -> Comparison:
    """Compare the FIDs of several sets of images to one reference.

    Parameters
    ----------
    reference : path, array, tensor, iterable, Dataset, generator, list of paths or Statistics
        See :func:`compute_statistics`, also for the other keywords.
    candidates : list
        Two or more sets of images, or their statistics. They are taken to be independent of one another.
    names : list of str, optional
        What to call the candidates. Default: what their sources are called, with a number where two are called the
        same.
    force : bool
        Compare statistics made under different protocols, networks or precisions all the same.

    Returns
    -------
    Comparison
        Each FID with its standard error, and each difference with its own and a verdict in words. The noise of the
        reference is the same in all FIDs and cancels in the differences. Of every two equal candidates, a verdict
        calls one better in at most 1 % of the cases (``python -m tools.sampling``), if images are independent of one
        another and features have no tails much heavier than those of the normal distribution.

    Raises
    ------
    TypeError, ValueError
        Fewer than two candidates; not as many names; two candidates of one name; candidates that do not go with the
        reference or with one another; and whatever :func:`compute_statistics` and :func:`compute_fid` raise.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sets = [rng.normal(mean, 1, (500, 8)) for mean in (0.0, 0.1, 0.9)]
    >>> real, near, far = (Statistics.from_features(rows, {"protocol": "none"}) for rows in sets)
    >>> found = compare(real, [far, near], names=["far", "near"])
    >>> [candidate.name for candidate in found.candidates]
    ['near', 'far']
    >>> found.differences[0].verdict[:14]
    'near is better'
    """
    options: dict[str, Any] = dict(keywords)
    check_keywords({name: value for name, value in options.items() if name not in NETWORK_OPTIONS})
    candidates = check_candidates(candidates, names)
    key = options.get("key")
    for a, b in combinations((reference, *candidates), 2):
        if remark := mistakes.same_place(a, b, recursive=options.get("recursive", False)):
            warn(remark, SuspiciousInputWarning)
    sources = [reference, *candidates]
    known = [number for number, source in enumerate(sources) if is_known(source, key) or is_store(source)]
    if len(known) < len(sources):
        file = None
        if known:  # it is loaded once
            file = sources[known[0]] = load_statistics(sources[known[0]], key)
        options["extractor"] = _network(file, force, options)
    real = _statistics(sources[0], options)
    first: Statistics | None = None
    measured: list[Measured] = []
    for number, source in enumerate(sources[1:], start=1):
        one = _statistics(source, options)  # one at a time: a set has 48 MB at 2048 dims
        one = replace(one, name=names[number - 1] if names is not None else one.name)
        _check_candidate(real, first, one, force, {0, number} <= set(known))
        first = first or one
        measured.append(measure(real, one))
    called = numbered([one.name for one in measured])
    measured = [replace(one, name=name) for one, name in zip(measured, called, strict=True)]
    found, differences = compare_measured(measured, real.n)
    note = "" if real.reservoir is not None else f"{real.name} counts as fixed: it holds no sample of its features"
    return Comparison(real.name, found, differences, note, real.meta.get("extractor"))


def _statistics(source: Any, options: Mapping[str, Any]) -> Statistics:
    known = load_statistics(source, options.get("key"))
    return known if known is not None else compute_statistics(source, **_of_statistics(options))


def _check_candidate(real: Statistics, first: Statistics | None, one: Statistics, force: bool, are_known: bool) -> None:
    """Raise ValueError unless a candidate goes with the reference and the first candidate; say if it is one of them."""
    if are_known:
        assume_protocols([real, one], None)
    for other in (real, first):
        if other is None:
            continue
        check_compatible(other, one, force=force)
        if other.n == one.n and np.array_equal(other.mu, one.mu) and np.array_equal(other.sigma, one.sigma):
            warn(f"{other.name} and {one.name} are one and the same set", SuspiciousInputWarning)


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names of candidates, with a number where two are called the same."""
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, start=1)]


def check_candidates(candidates: Sequence[Any], names: Sequence[str] | None) -> list[Any]:
    """Return the candidates as a list; TypeError or ValueError unless there are two or more, and as many names."""
    if isinstance(candidates, str | bytes | os.PathLike | Statistics) or not hasattr(candidates, "__iter__"):
        raise TypeError(f"candidates: expected a list of sets of images, got {type(candidates).__name__}")
    found = list(candidates)
    check_at_least("candidates", len(found), 2)
    if names is None:
        return found
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names: expected a list of strings, got {names!r}")
    if len(names) != len(found):
        raise ValueError(f"names: expected {len(found)}, as there are candidates, got {len(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"names: two candidates are called {_repeated(names)!r}")
    return found


def _network(file: Statistics | None, force: bool, options: Mapping[str, Any]) -> FeatureExtractor:
    """Return the one network for all images."""
    names = ("dims", "protocol", "weights")
    dims, protocol, weights = (options.get(name) for name in names)
    device, precision = options.get("device", "auto"), options.get("precision", "float32")
    extractor = extractor_beside(
        file,
        extractor=options.get("extractor"),
        dims=dims,
        protocol=protocol,
        device=device,
        weights=weights,
        precision=precision,
        force=force,
    )
    if file is not None:
        assume_protocols([file, None], extractor.protocol)
    return extractor


def _of_statistics(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of compute_statistics; those of the network are the extractor's."""
    network = ("dims", "protocol", "device", "precision", "weights")
    return {name: value for name, value in options.items() if name not in network}


def _repeated(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
