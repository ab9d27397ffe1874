"""The FID Inception network as a feature extractor."""

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._checks import check_dims
from fastfid.errors import BackendUnavailable
from fastfid.extractor import FeatureExtractor
from fastfid.features.cuda import CudaMemory, CudaNetwork
from fastfid.features.inception_network import InceptionNetwork
from fastfid.features.session import CudaSettings, choose_device
from fastfid.features.weights import find_weights
from fastfid.pipeline import extract, only_features
from fastfid.precisions import check_precision
from fastfid.protocols import SIDE, get_protocol
from fastfid.sources import open_source

__all__ = ["InceptionV3"]

# Images in one run of the session; bits are the same for any number. On the CPU, two runs side by side on 2 cores:
# 4 are 1.5 % faster than 2 and 3.5 % faster than 1, and 32 are no faster and take three times the memory.
_CHUNK = {"cpu": 4, "cuda": 64}


def _memory_of(device: str) -> tuple[CudaMemory | None, str]:
    """Return the memory of a CUDA device, or None and why: ONNX Runtime may use a device that our kernels do not."""
    if device == "cpu":
        return None, "the network runs on the CPU"
    try:
        return CudaMemory(int(device.removeprefix("cuda:"))), ""
    except BackendUnavailable as error:
        return None, str(error)


def _runtime(device: str, provider: str) -> str:
    """Return what chooses the kernels on a CUDA device: the provider, for the card; nothing on the CPU."""
    if device == "cpu":
        return ""
    return f"{provider} on {_core.cuda_device_name(int(device.removeprefix('cuda:'))) or device}"


class InceptionV3(FeatureExtractor):
    """The Inception network that defines the FID, up to the features of one layer.

    Parameters
    ----------
    dims : int
        64 (first max pooling), 192 (second max pooling), 768 (before the auxiliary classifier) or 2048 (final average
        pooling, the FID's).
    protocol : str
        How a uint8 image becomes the network's input; see :mod:`fastfid.protocols`.
    precision : str
        Arithmetic of the network: ``"float32"``; or, on a CUDA device, ``"tf32"`` (convolutions round their factors to
        10 bits of mantissa, PyTorch's default there) or ``"float16"``. See docs/precision.md.
    device : str or int
        ``"auto"`` (CUDA where there is a device), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or N.
    weights : path-like, optional
        File of weights; else ``FASTFID_WEIGHTS``, the cache, or fetched once (:mod:`fastfid.features.weights`).

    Raises
    ------
    ValueError
        Unknown `dims`, `protocol`, `precision` or `device`; another precision than ``"float32"`` on the CPU.
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

    _cuda_settings = CudaSettings()  # benchmarks/gpu.py measures subclasses with others

    def __init__(
        self,
        dims: int = 2048,
        *,
        protocol: str = "pytorch-fid",
        precision: str = "float32",
        device: str | int = "auto",
        weights: str | os.PathLike[str] | None = None,
    ):
        dims = check_dims(dims)
        spec = get_protocol(protocol).input
        self._arguments = {
            "dims": dims,
            "protocol": protocol,
            "precision": precision,
            "device": device,
            "weights": weights,
        }
        chosen = choose_device(device)
        check_precision(precision, chosen)  # before weights are fetched in vain
        found = find_weights(weights)
        memory, self._why_not_there = _memory_of(chosen)
        stream = memory.stream if memory is not None else None
        self._network = InceptionNetwork(dims, found, device, precision, stream, self._cuda_settings)
        self.dims = dims
        self.protocol = protocol
        self._spec = spec
        self.input_shape = None if protocol == "none" else (3, SIDE, SIDE)
        self.precision = precision
        self.identity = found.identity
        self.device = self._network.device
        self.runtime = _runtime(self.device, self._cuda_settings.provider)
        self.batch_size = _CHUNK[self.device.partition(":")[0]]
        # Single-threaded runs side by side: see Session.
        self.concurrency = _core.num_threads() if self.device == "cpu" else 1
        self._there: CudaNetwork | None = None
        if memory is not None and self.device != "cpu":
            self._there = CudaNetwork(self._network, memory, spec, self.batch_size)

    def __repr__(self) -> str:
        """Return one line that tells networks apart."""
        return (
            f"InceptionV3(dims={self.dims}, protocol={self.protocol!r}, device={self.device!r},"
            f" precision={self.precision!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it is made anew, from weights found anew. A subclass adds what it needs."""
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __copy__(self) -> "InceptionV3":
        """Return the object itself: nothing that it computes changes it. A subclass that does change is to say so."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "InceptionV3":
        """Return the object itself."""
        return self

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input (3, h', w') under the protocol."""
        return self._preprocess(image, None)

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the network's input for one image to `out`, of :attr:`input_shape`."""
        self._preprocess(image, out[None])

    def _preprocess(self, image: NDArray[np.uint8], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
        try:
            prepared: NDArray[np.float32] = _core.preprocess([image], self._spec, out)[0]
        except ValueError as error:  # there is but one
            raise ValueError(str(error).removeprefix("images[0]: ")) from None
        return prepared

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features, float32 (n, dims), of network inputs (n, 3, h', w')."""
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        if self._there is not None:
            return self._there.forward(batch)
        features = np.empty((len(batch), self.dims), np.float32)
        for start in range(0, len(batch), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            features[chunk] = self._network.features(batch[chunk])
        return features

    def on_device(self, device: str) -> CudaNetwork:
        """Return what takes images that are on `device` (``cuda:N``) without the host; see the base class."""
        if device != self.device:
            raise ValueError(
                f"images: expected a tensor on {self.device}, where the network runs, or images on the host; got one on"
                f" {device}. Pass images.cpu(), or device={device!r}"
            )
        if self._there is None:  # ONNX Runtime can use the device, and our kernels cannot
            raise BackendUnavailable(
                f"images: a tensor on {device} cannot be taken there: {self._why_not_there}. Pass images.cpu()"
            )
        return self._there

    def __call__(self, images: Any, *, layout: Literal["nhwc", "nchw"] | None = None) -> NDArray[np.float32]:
        """Return the features of images, in their order.

        Parameters
        ----------
        images : array or tensor (n, h, w, 3) or (n, 3, h, w), or sequence of arrays (h, w, 3)
            uint8, RGB; a sequence may mix sizes. Anything else that :func:`fastfid.sources.open_source` takes will do.
        layout : {"nhwc", "nchw"}, optional
            Axis order of an array whose shape leaves it open.

        Returns
        -------
        numpy.ndarray
            float32 (n, dims).

        Raises
        ------
        TypeError
            Not images, or not uint8.
        ValueError
            Another shape, a shape that leaves the axes open, or no images.
        """
        rows: list[NDArray[np.float32]] = []
        source = open_source(images, layout=layout)
        extract(source, self, only_features(lambda features: rows.append(features.copy())), mixed_sizes=True)
        if not rows:
            raise ValueError("images: expected at least one image, got none")
        return np.concatenate(rows)
