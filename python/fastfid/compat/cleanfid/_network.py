"""The resize and the network of a mode as one extractor. Functions of the user can replace either of them."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastfid.compat._torch import require_torch
from fastfid.compat.cleanfid.features import InceptionFeatures
from fastfid.compat.cleanfid.resize import build_resizer
from fastfid.extractor import FeatureExtractor
from fastfid.provenance import provenance_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ModeNetwork", "Model", "PathLike", "Transform", "get_batch_features", "to_chw", "torch_device"]

PathLike = str | os.PathLike[str]
Model = Callable[[Any], Any]
Transform = Callable[[NDArray[Any]], NDArray[Any]]


class ModeNetwork(FeatureExtractor):
    """The resize and the network of a mode. Either may be a function of the user."""

    precision = "float32"
    mixed_sizes = True

    def __init__(
        self,
        model: Model,
        mode: str,
        device: Any,
        batch_size: int,
        transform: Transform | None,
        resize: Transform | None,
    ):
        self._model = model
        self._transform = transform
        self._resize = resize or build_resizer(mode)
        self._torch_device = device
        # Functions of the user need not be thread-safe.
        self.has_callbacks = transform is not None or resize is not None
        self.batch_size = batch_size

    def meta(self) -> dict[str, Any]:
        """Return the provenance of the features; empty if the network or a function is the user's."""
        if self.has_callbacks or not isinstance(self._model, InceptionFeatures):
            return {}
        return provenance_of(self._model.engine)

    def prepare(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Transform and resize one image to (3, h', w') with values in [0, 255]."""
        if self._transform is not None:
            image = self._transform(image)
        return to_chw(self._resize(image))

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the model's features of a batch."""
        if isinstance(self._model, InceptionFeatures):
            return self._model.of_arrays(batch)
        torch = require_torch("a feature extractor of your own")
        return get_batch_features(torch.from_numpy(batch), self._model, torch_device(self._torch_device))


def to_chw(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return (h, w, 3) as float32 (3, h, w). As in clean-fid, uint8 values are divided by 255 and multiplied by 255."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    if planes.dtype == np.uint8:
        return planes.astype(np.float32) / np.float32(255) * np.float32(255)
    return planes.astype(np.float32, copy=False)


def torch_device(device: Any) -> Any:
    """Return `device` as a torch device; None gives CUDA if a CUDA device is available, else the CPU."""
    torch = require_torch("device")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def get_batch_features(batch: "Tensor", model: Model, device: Any) -> NDArray[Any]:
    """Return the model's features (n, d) of a batch (n, 3, h, w) in [0, 255].

    Examples
    --------
    >>> import torch
    >>> get_batch_features(torch.full((2, 3, 8, 8), 7.0), lambda x: x.mean(dim=(2, 3)), "cpu")
    array([[7., 7., 7.],
           [7., 7., 7.]], dtype=float32)
    """
    torch = require_torch("a feature extractor of your own")
    with torch.no_grad():
        features: NDArray[Any] = model(batch.to(device)).detach().cpu().numpy()
    return features
