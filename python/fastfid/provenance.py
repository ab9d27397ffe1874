"""The provenance of statistics: protocol, extractor, precision and dims of the network that made them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "FORCE_HINT",
    "INCEPTION",
    "Assumption",
    "KnownFeatures",
    "assumed_protocol",
    "check_provenance",
    "is_of_inception",
    "provenance_of",
]

# The network of the FID, before its hash, in what statistics say of their extractor.
INCEPTION = "inception-2015-12-05"

# Appended to the error about different provenances where the comparison can be forced.
FORCE_HINT = " (--force or force=True compares them all the same)"


class KnownFeatures(Protocol):
    """What statistics and stores of features say of themselves."""

    @property
    def name(self) -> str:
        """A path, or what the source calls itself."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The provenance."""

    @property
    def d(self) -> int:
        """Length of a feature vector."""


def provenance_of(extractor: Any) -> dict[str, Any]:
    """Return the provenance that a statistics file states about the extractor that made it."""
    return {
        "protocol": extractor.protocol,
        "extractor": extractor.identity,
        "precision": extractor.precision,
        "dims": extractor.dims,
    }


def is_of_inception(extractor: str | None) -> bool:
    """Return whether this identity of an extractor is the Inception network's; None, of other tools, is taken for it.

    >>> is_of_inception("onnx:cls:5d2c"), is_of_inception(None)
    (False, True)
    """
    return extractor is None or extractor.partition(":")[0] == INCEPTION


def check_provenance(
    name_a: str,
    a: Mapping[str, Any],
    name_b: str,
    b: Mapping[str, Any],
    *,
    force: bool = False,
    hint: str = FORCE_HINT,
) -> None:
    """Raise ValueError if two provenances differ in dims, protocol, extractor or precision.

    A value that one of the provenances does not state is not compared.

    Parameters
    ----------
    hint : str
        What the refusal adds.

    Raises
    ------
    ValueError
        The provenances differ, and `force` is False. The message names both.
    """
    if force:
        return
    for key in ("dims", "protocol", "extractor", "precision"):
        ours, theirs = a.get(key), b.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(
                f"{name_a} was made with {key} {ours}, {name_b} with {theirs}: their distance means nothing{hint}"
            )


@dataclass(frozen=True)
class Assumption:
    """The protocol that statistics were probably made with, and the evidence for it."""

    protocol: str
    sign: str


# clean-fid's file names consist of name, mode, split and resolution.
_CLEANFID_MODES = {"clean": "clean", "legacy_tensorflow": "tensorflow", "legacy_pytorch": "pytorch-fid"}
_CLEANFID_NAME = re.compile(rf"_({'|'.join(_CLEANFID_MODES)})_[a-z0-9]+_(\d+|na)\.npz$")
# The files that TTUR's authors offer.
_TTUR_NAMES = tuple(
    f"fid_stats_{name}.npz" for name in ("celeba", "lsun_train", "cifar10_train", "svhn_train", "imagenet_train")
)


def assumed_protocol(meta: Mapping[str, Any], name: str) -> Assumption | None:
    """Return the probable protocol of statistics that do not state one; None if there is no evidence.

    >>> assumed_protocol({}, "ffhq_clean_trainval70k_1024.npz").protocol
    'clean'
    """
    if meta.get("writer") == "ADM":
        return Assumption("tensorflow", "it has the spatial statistics of ADM's references")
    file = os.path.basename(name)
    if found := _CLEANFID_NAME.search(file):
        return Assumption(_CLEANFID_MODES[found[1]], f"its name is what clean-fid calls a file of mode {found[1]}")
    if file in _TTUR_NAMES:
        return Assumption("tensorflow", "TTUR's authors offer a file of this name")
    return None
