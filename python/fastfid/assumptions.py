"""Defaults of dims and protocol beside statistics, and the protocol assumed for statistics that do not state one."""

from collections.abc import Sequence
from typing import cast

from fastfid._checks import DIMS, check_dims
from fastfid._console import warn
from fastfid.errors import SuspiciousInputWarning
from fastfid.options import DEFAULT_DIMS, DEFAULT_PROTOCOL
from fastfid.protocols import PROTOCOLS
from fastfid.provenance import KnownFeatures, assumed_protocol

__all__ = ["assume_protocols", "dims_and_protocol"]


def dims_and_protocol(dims: int | None, protocol: str | None, file: KnownFeatures | None) -> tuple[int, str]:
    """Return the dims and the protocol with which images are read.

    The given values are used first, then those of the statistics `file` of the other side, then the defaults of FID.

    Raises
    ------
    ValueError
        The statistics have other dims than the given `dims`, or dims that no layer of the network has.
    """
    if dims is not None:
        dims = check_dims(dims)
    if file is None:
        return dims or DEFAULT_DIMS, protocol or DEFAULT_PROTOCOL
    if dims is None and file.d not in DIMS:
        known = ", ".join(map(str, DIMS))
        raise ValueError(f"{file.name} has {file.d} dims; the layers of the Inception network have {known}")
    if dims is not None and dims != file.d:
        raise ValueError(f"{file.name} has {file.d} dims, but {dims} are asked for: leave out --dims (dims=)")
    stated = file.meta.get("protocol")
    adopted = []
    if dims is None and file.d != DEFAULT_DIMS:
        adopted.append(f"{file.d} dims")
    if protocol is None and stated in PROTOCOLS:
        protocol = stated
        if stated != DEFAULT_PROTOCOL:
            adopted.append(f"protocol {stated}")
    if adopted:
        warn(f"images are read with {' and '.join(adopted)}, as {file.name} was made")
    return file.d, protocol or DEFAULT_PROTOCOL


def assume_protocols(
    known: Sequence[KnownFeatures | None], used: str | None, option: str = "--protocol {}"
) -> list[str | None]:
    """Return the protocol assumed for each side whose statistics do not say it, and say so.

    Parameters
    ----------
    known : list of Statistics, FeatureStore or None
        The two sides; None: images.
    used : str or None
        The protocol that images are read with; None: both sides are statistics.
    option : str
        What chooses that protocol, with the place of its name.
    """
    stated = [used if side is None else side.meta.get("protocol") for side in known]
    if stated == [None, None]:
        return _assumed_of_two(cast(list[KnownFeatures], known))
    assumed: list[str | None] = [None, None]
    for i, (side, own, other) in enumerate(zip(known, stated, stated[::-1], strict=True)):
        if side is None or own is not None:
            continue
        other = cast(str, other)
        sign = assumed_protocol(side.meta, side.name)
        how = option.format(sign.protocol if sign else "NAME") if used else "statistics of one protocol"
        if sign is not None and sign.protocol != other:
            warn(
                f"{side.name} does not say its protocol, and {sign.sign}: it was probably made with {sign.protocol},"
                f" while the other side is made with {other}, and the distance mixes the two; use {how}",
                SuspiciousInputWarning,
            )
        elif sign is None and used is None and other != DEFAULT_PROTOCOL:
            warn(
                f"{side.name} does not say its protocol ({DEFAULT_PROTOCOL} if it is like most), and is compared with"
                f" what was made with {other}",
                SuspiciousInputWarning,
            )
        else:
            why = f": {sign.sign}" if sign else f"; if it was made otherwise, use {how}"
            warn(f"{side.name} does not say its protocol and is taken for {other}{why}")
        assumed[i] = sign.protocol if sign else other
    return assumed


def _assumed_of_two(known: list[KnownFeatures]) -> list[str | None]:
    """Warn that neither of two statistics states its protocol, and return the assumed protocols."""
    signs = [assumed_protocol(side.meta, side.name) for side in known]
    assumed: list[str | None] = [sign.protocol if sign else DEFAULT_PROTOCOL for sign in signs]
    a, b = known
    text = f"neither {a.name} nor {b.name} says its protocol: the distance means something only if it was one"
    if assumed[0] != assumed[1]:
        found = " and ".join(
            f"{side.name} looks like {protocol} ({sign.sign})"
            for side, protocol, sign in zip(known, assumed, signs, strict=True)
            if sign is not None
        )
        warn(f"{text}; {found}", SuspiciousInputWarning)
    else:
        warn(text)
    return assumed
