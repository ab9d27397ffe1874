"""The FID Inception network as a feature extractor."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.features.base import FeatureExtractor
from fastfid.features.onnx import Network
from fastfid.features.weights import DIMS, find_weights
from fastfid.protocols import get_protocol

__all__ = ["InceptionV3"]

# Images in one run of the session; bits are the same for any number. On the CPU, two runs side by side on 2 cores:
# 4 are 1.5 % faster than 2 and 3.5 % faster than 1, and 32 are no faster and take three times the memory.
_CHUNK = {"cpu": 4, "cuda": 64}


def _as_images(
    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], layout: str | None
) -> Iterable[NDArray[np.uint8]]:
    """Yield each image as (h, w, 3); axis order by `layout`, else by where the three channels are."""
    if not isinstance(images, np.ndarray):
        return images
    if images.ndim != 4:
        raise TypeError(f"images: expected uint8 (n, h, w, 3) or (n, 3, h, w), got {images.dtype} {images.shape}")
    last, first = images.shape[3] == 3, images.shape[1] == 3
    if layout is None:
        if last and first:
            raise ValueError(f"images: {images.shape} may be (n, h, w, 3) or (n, 3, h, w): say layout='nhwc' or 'nchw'")
        layout = "nhwc" if last else "nchw"
    if not (last if layout == "nhwc" else first):
        raise ValueError(f"images: expected three channels in layout {layout!r}, got shape {images.shape}")
    return images if layout == "nhwc" else images.transpose(0, 2, 3, 1)


class InceptionV3(FeatureExtractor):
    """The Inception network that defines the FID, up to the features of one layer.

    Parameters
    ----------
    dims : int
        64 (first max pooling), 192 (second max pooling), 768 (before the auxiliary classifier) or 2048 (final average
        pooling, the FID's).
    protocol : str
        How a uint8 image becomes the network's input; see :mod:`fastfid.protocols`.
    device : str
        ``"auto"`` (CUDA where there is a device), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    weights : path-like, optional
        File of weights; else ``FASTFID_WEIGHTS``, the cache, or fetched once (:mod:`fastfid.features.weights`).

    Raises
    ------
    ValueError
        Unknown `dims`, `protocol` or `device`.
    fastfid.BackendUnavailable
        The device does not exist or cannot be used.
    fastfid.WeightsError
        The weights are missing or are others.

    Examples
    --------
    >>> import numpy as np
    >>> extract = InceptionV3(dims=64)
    >>> extract(np.zeros((2, 32, 32, 3), np.uint8)).shape
    (2, 64)
    """

    precision = "float32"

    def __init__(
        self,
        dims: int = 2048,
        *,
        protocol: str = "pytorch-fid",
        device: str = "auto",
        weights: str | os.PathLike[str] | None = None,
    ):
        if dims not in DIMS:
            raise ValueError(f"dims: expected one of {', '.join(map(str, DIMS))}; got {dims!r}")
        get_protocol(protocol)
        found = find_weights(weights)
        self._network = Network(dims, found, device)
        self.dims = dims
        self.protocol = protocol
        self.identity = found.identity
        self.device = self._network.device
        self.batch_size = _CHUNK[self.device.partition(":")[0]]
        # Single-threaded runs side by side: see Network.
        self.concurrency = _core.num_threads() if self.device == "cpu" else 1

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input (3, h', w') under the protocol."""
        prepared: NDArray[np.float32] = _core.preprocess([image], self.protocol)[0]
        return prepared

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features, float32 (n, dims), of network inputs (n, 3, h', w')."""
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        features = np.empty((len(batch), self.dims), np.float32)

        def run(start: int) -> None:
            chunk = slice(start, start + self.batch_size)
            features[chunk] = self._network.features(batch[chunk])

        starts = range(0, len(batch), self.batch_size)
        if self.concurrency == 1 or len(starts) < 2:  # one chunk stays in this thread: the pipeline has several
            for start in starts:
                run(start)
        else:
            with ThreadPoolExecutor(min(self.concurrency, len(starts))) as pool:
                list(pool.map(run, starts))
        return features

    def __call__(
        self,
        images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
        *,
        layout: Literal["nhwc", "nchw"] | None = None,
    ) -> NDArray[np.float32]:
        """Return the features of images.

        Parameters
        ----------
        images : array (n, h, w, 3) or (n, 3, h, w), or sequence of arrays (h, w, 3)
            uint8, RGB. A sequence may mix sizes.
        layout : str, optional
            Axis order of an array whose shape leaves it open.

        Returns
        -------
        numpy.ndarray
            float32 (n, dims), in the order of `images`.

        Raises
        ------
        TypeError
            Not uint8, or not of these ranks.
        ValueError
            No axis of three channels, or two of them and no `layout`.
        """
        rows = [self.forward(self.prepare(image)[None]) for image in _as_images(images, layout)]
        return np.concatenate(rows) if rows else np.empty((0, self.dims), np.float32)
