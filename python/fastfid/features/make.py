"""The network that is meant where the caller brings none."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import DIMS, check_dims
from fastfid.extractor import FEATURES, SPATIAL
from fastfid.protocols import SIDE, get_protocol

if TYPE_CHECKING:
    from fastfid.features.inception import InceptionV3

__all__ = ["classifier_of", "make_extractor", "outputs_of_inception"]


def outputs_of_inception(dims: int, protocol: str) -> frozenset[str]:
    """Return the outputs that the Inception network has at this layer, for images under this protocol."""
    has_spatial = dims == DIMS[-1] and get_protocol(protocol).size == (SIDE, SIDE)
    return frozenset({FEATURES, SPATIAL} if has_spatial else {FEATURES})


def classifier_of(meta: Mapping[str, Any], weights: str | os.PathLike[str] | None) -> NDArray[np.float32]:
    """Return the classifier of the network that made stored features, of which `meta` is the provenance.

    Raises
    ------
    ValueError
        The network is not the Inception network up to 2048 dims.
    fastfid.WeightsError
        No file here has the classifier.
    """
    from fastfid.features.weights import IDENTITY, find_classifier

    if (meta.get("extractor"), meta.get("dims")) != (IDENTITY, DIMS[-1]):
        raise ValueError(
            f"{meta.get('source')}: its features are not those of InceptionV3(dims={DIMS[-1]}), whose classifier the"
            " Inception Score needs"
        )
    return find_classifier(weights)


def make_extractor(
    dims: int = 2048,
    protocol: str = "pytorch-fid",
    device: str | int = "auto",
    weights: str | os.PathLike[str] | None = None,
    precision: str = "float32",
    outputs: Iterable[str] = (FEATURES,),
) -> "InceptionV3":
    """Return the Inception network for the given layer, protocol and outputs; finds or fetches its weights.

    Raises
    ------
    TypeError
        `outputs` is no sequence of names.
    ValueError
        Unknown `dims`, `protocol`, `device`, `precision` or `outputs`, or a precision or outputs that the device or the
        layer does not have.
    fastfid.WeightsError
        The weights are nowhere to be had, or are not the right ones.
    fastfid.BackendUnavailable
        There is no such device.
    """
    dims = check_dims(dims)
    get_protocol(protocol)
    from fastfid.features.inception import InceptionV3  # loads ONNX Runtime: not for two .npz files

    return InceptionV3(dims, protocol=protocol, precision=precision, device=device, weights=weights, outputs=outputs)
