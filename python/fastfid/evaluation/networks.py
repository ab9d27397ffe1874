"""The network that reads images: the caller's, or Inception, which goes with the features of the other side."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from fastfid.assumptions import dims_and_protocol
from fastfid.beside import (
    check_extractor_beside,
    check_inception_beside,
    check_network_beside,
    check_spatial_beside,
)
from fastfid.extractor import FEATURES, FeatureExtractor, outputs_of
from fastfid.features.make import make_extractor, outputs_of_inception
from fastfid.provenance import KnownFeatures
from fastfid.statistics import Statistics
from fastfid.store import FeatureStore

__all__ = ["extractor_beside", "extractor_beside_all"]


def extractor_beside_all(files: Sequence[Statistics | FeatureStore], network: Mapping[str, Any]) -> FeatureExtractor:
    """Return the network for images beside up to two files; see :func:`extractor_beside`."""
    extractor = extractor_beside(files[0] if files else None, **network)
    for file in files:
        check_extractor_beside(file, extractor, force=network["force"])
        if isinstance(file, Statistics) and file.spatial is not None:
            check_spatial_beside(file.spatial, outputs_of(extractor))
    return extractor


def extractor_beside(
    file: KnownFeatures | None,
    *,
    extractor: FeatureExtractor | None,
    dims: int | None,
    protocol: str | None,
    device: str | int,
    weights: str | os.PathLike[str] | None,
    precision: str,
    force: bool,
    outputs: frozenset[str] = frozenset({FEATURES}),
) -> FeatureExtractor:
    """Return the network for the images: `extractor`, or Inception, whose defaults are those of `file` if given.

    Raises
    ------
    ValueError
        The features cannot be compared with the statistics `file`.
    """
    if extractor is None:
        extractor = _make_inception(
            file,
            dims=dims,
            protocol=protocol,
            device=device,
            weights=weights,
            precision=precision,
            force=force,
            outputs=outputs,
        )
    if file is not None:
        check_extractor_beside(file, extractor, force=force)
    return extractor


def _make_inception(
    file: KnownFeatures | None,
    *,
    dims: int | None,
    protocol: str | None,
    device: str | int,
    weights: str | os.PathLike[str] | None,
    precision: str,
    force: bool,
    outputs: frozenset[str],
) -> FeatureExtractor:
    if file is not None and not force:
        check_inception_beside(file)
    dims, protocol = dims_and_protocol(dims, protocol, file)
    if file is not None:  # raises before weights are fetched for nothing
        wanted = {"dims": dims, "protocol": protocol, "precision": precision}
        check_network_beside(file, wanted, lambda key, value: f"--{key} {value} ({key}={value!r})", force=force)
    return make_extractor(dims, protocol, device, weights, precision, outputs & outputs_of_inception(dims, protocol))
