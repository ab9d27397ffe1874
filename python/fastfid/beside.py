"""Statistics beside a network that reads the other side's images: whether the two go together, and what mends it."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from fastfid._checks import DIMS
from fastfid.precisions import PRECISIONS
from fastfid.protocols import PROTOCOLS
from fastfid.provenance import KnownFeatures, is_of_inception, provenance_of

__all__ = [
    "check_extractor_beside",
    "check_inception_beside",
    "check_network_beside",
    "check_spatial_beside",
    "command_for",
]

# What the options of the Inception network take.
_OPTIONS = {"dims": DIMS, "protocol": tuple(PROTOCOLS), "precision": tuple(PRECISIONS)}


def command_for(known: KnownFeatures, wanted: Mapping[str, Any]) -> str:
    """Return the command that makes statistics which go with a network of the wanted dims, protocol and precision."""
    file = known.name if known.name.endswith(".npz") else "real.npz"
    options = [f"--protocol {wanted['protocol']}"]
    if wanted["dims"] != 2048:
        options.append(f"--dims {wanted['dims']}")
    if wanted["precision"] != "float32":
        options.append(f"--precision {wanted['precision']}")
    return f"fastfid stats IMAGES -o {shlex.quote(file)} --overwrite {' '.join(options)}"


def check_network_beside(
    known: KnownFeatures,
    wanted: Mapping[str, Any],
    option: Callable[[str, Any], str | None],
    *,
    force: bool | None = None,
) -> None:
    """Refuse statistics of other dims, another protocol or precision than those of the Inception network.

    Needs no weights: it comes before the network is made.

    Parameters
    ----------
    known : Statistics
        The statistics of one side. What they do not say is not compared.
    wanted : mapping
        ``dims``, ``protocol`` and ``precision`` of the network for the other side's images.
    option : callable
        Takes one of these keys and what the statistics say of it, a value that the network can have; returns the option
        with which the network has this value, or None where there is none.
    force : bool or None
        True compares the dims alone. None: the caller has no such option.

    Raises
    ------
    ValueError
        They differ; the message names the option, and the command that makes other statistics.
    """

    def way(key: str, stated: Any) -> str | None:
        return option(key, stated) if stated in _OPTIONS[key] else None

    again = f": {command_for(known, wanted)}"
    _check(known, wanted, "the other side's images are read with", way, again, force)


def check_inception_beside(known: KnownFeatures) -> None:
    """Raise ValueError where another network made the statistics, and none is given for the other side's images."""
    made_with = known.meta.get("extractor")
    if not is_of_inception(made_with):
        raise ValueError(
            f"{known.name} was made with extractor {made_with}, and the other side's images would be read with the"
            " Inception network: give that extractor too, by --extractor FILE.onnx (extractor=)"
        )


def check_extractor_beside(known: KnownFeatures, extractor: Any, *, force: bool | None = None) -> None:
    """Refuse statistics that another network has made than `extractor`, which is that of the other side.

    `force`: as in :func:`check_network_beside`. ValueError names what differs.
    """
    again = " this side's --extractor (extractor=) or --weights (weights=)"
    _check(known, provenance_of(extractor), "the extractor of the other side has", lambda *_: None, again, force)


def check_spatial_beside(known: KnownFeatures, outputs: Mapping[str, int]) -> None:
    """Refuse statistics of spatial features of another length than that of the outputs of the other side's network."""
    length = outputs.get("spatial")
    if length is not None and known.d != length:
        raise ValueError(f"{known.name} has {known.d} spatial dims, the extractor of the other side gives {length}")


def _check(
    known: KnownFeatures,
    wanted: Mapping[str, Any],
    reader: str,
    way: Callable[[str, Any], str | None],
    again: str,
    force: bool | None,
) -> None:
    """Raise ValueError at the first difference; `way` returns the option that mends it, `again` ends the sentence."""
    stated = {**known.meta, "dims": known.d}
    for key in ("dims", "protocol", "extractor", "precision"):
        if key not in wanted or stated.get(key) is None or stated[key] == wanted[key]:
            continue
        can_force = force is not None and key != "dims"
        if can_force and force:
            continue
        ways = [way(key, stated[key]), "--force (force=True) to compare them all the same" if can_force else None]
        passed = ", or ".join(found for found in ways if found is not None)
        raise ValueError(
            f"{known.name} was made with {key} {stated[key]}, and {reader} {wanted[key]}:"
            f" {f'pass {passed}, or ' if passed else ''}make it again with{again}"
        )
