"""The network of torchmetrics' metrics, as a module of PyTorch, and the images that it takes."""

import os
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastfid import _core
from fastfid.errors import BackendUnavailable
from fastfid.extractor import FeatureExtractor
from fastfid.features.make import make_extractor
from fastfid.mistakes import Census
from fastfid.pipeline import extract, features_on_device, only_features
from fastfid.protocols import input_spec
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream

__all__ = ["LOGITS", "Inception", "to_uint8"]

# The name of the classifier's output without its bias, beside those of the layers.
LOGITS = "logits_unbiased"
_CLASSES = 1008


class Inception(nn.Module):
    """The Inception network as a module: uint8 images [n, 3, h, w] to features [n, dims]. The first call loads it.

    ONNX Runtime runs the network in float32. After ``set_dtype(torch.float64)``, PyTorch runs it in float64.

    Parameters
    ----------
    feature : int or str
        A layer, by its number of features, or "logits_unbiased": 2048 features times the classifier without its bias.
    protocol : str
    weights : path, optional
    """

    def __init__(self, feature: int | str, protocol: str, weights: str | os.PathLike[str] | None):
        super().__init__()
        self.num_features = _CLASSES if isinstance(feature, str) else feature
        self._dims = 2048 if isinstance(feature, str) else feature
        self._has_classifier = isinstance(feature, str)
        self.protocol = protocol
        self.weights = weights
        self.dtype = torch.float32
        self._engine: FeatureExtractor | None = None
        self.census = Census(keeps_digests=False)
        # In a list, so that the network is not a sub-module: PyTorch neither moves nor saves it with the metric.
        self._float64_network: list[nn.Module] = []

    def _load_from_state_dict(self, *args: Any) -> None:
        """Ignore the network weights in checkpoints of torchmetrics' metric: fastfid reads the weights from a file."""

    def extra_repr(self) -> str:
        """Return a text that differs between networks; torchmetrics' FeatureShare compares these texts."""
        logits = ", logits" if self._has_classifier else ""
        return f"dims={self._dims}{logits}, protocol={self.protocol}, weights={self.weights}"

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, or logits, of uint8 images, on the images' device."""
        if not (isinstance(images, Tensor) and images.dtype == torch.uint8):
            raise ValueError("Expecting image as torch.Tensor with dtype=torch.uint8")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"imgs: expected shape (n, 3, h, w), got {tuple(images.shape)}")
        if len(images) == 0:
            return torch.empty((0, self.num_features), dtype=self.dtype, device=images.device)
        if not self._has_classifier:
            return self._features(images)
        # Asked for first: without a classifier the network need not run.
        classifier = torch.tensor(self._engine_on(images.device).classifier(), dtype=self.dtype, device=images.device)
        return self._features(images) @ classifier.T

    def _features(self, images: Tensor) -> Tensor:
        if self.dtype == torch.float64:
            return self._in_float64(images)
        engine = self._engine_on(images.device)
        source = open_source(images, layout="nchw")
        if isinstance(source, DeviceImages):
            try:
                network = engine.on_device(source.device)
            except BackendUnavailable:  # fastfid was built without its CUDA part: copy the images to the host
                network = None
            if network is not None:
                features = features_on_device(network, source, callers_stream(images))
                return torch.utils.dlpack.from_dlpack(features).to(self.dtype)
        batches: list[NDArray[np.float32]] = []
        extract(source, engine, only_features(lambda rows: batches.append(rows.copy())), census=self.census)
        return torch.from_numpy(np.concatenate(batches)).to(images.device, self.dtype)

    def _engine_on(self, device: torch.device) -> FeatureExtractor:
        name = str(device)
        if self._engine is None or self._engine.device != name:
            self._engine = make_extractor(self._dims, self.protocol, name, self.weights)
        return self._engine

    def _in_float64(self, images: Tensor) -> Tensor:
        from fastfid.features import inception_torch
        from fastfid.features.weights import find_weights

        if not self._float64_network:
            new = inception_torch.FIDInception(self._dims)
            inception_torch.load_weights(new, find_weights(self.weights))
            self._float64_network.append(new.double())
        network = self._float64_network[0].to(images.device)
        scaled = _core.preprocess(images.permute(0, 2, 3, 1).cpu().numpy(), input_spec(self.protocol))
        with torch.no_grad():
            maps = network(torch.from_numpy(scaled).to(images.device, torch.float64))
        return maps.mean(dim=(2, 3))  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the networks: sessions cannot be pickled, and the next call makes new ones."""
        return {**vars(self), "_engine": None, "_float64_network": []}


def to_uint8(images: Tensor) -> Tensor:
    """Convert float images in [0, 1] to uint8 by truncation, as torchmetrics does. Other parts of fastfid round.

    Values outside [0, 1], which would wrap around, raise ValueError.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"imgs: expected a torch.Tensor, got {type(images).__name__}")
    if images.numel() and not ((images >= 0) & (images <= 1)).all():  # NaN is outside too
        low, high = images.min().item(), images.max().item()
        how = "((x + 1) / 2).clamp(0, 1)" if low < -0.5 else "x.clamp(0, 1)"
        raise ValueError(
            f"imgs: expected values in [0, 1] with normalize=True, got {low:.6g} to {high:.6g}; pass {how}"
        )
    return (images * 255).byte()
