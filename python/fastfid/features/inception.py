"""The FID Inception network as a feature extractor."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import DIMS, check_dims
from fastfid.errors import BackendUnavailable
from fastfid.extractor import FEATURES
from fastfid.features.cuda import CudaMemory, CudaNetwork
from fastfid.features.inception_network import InceptionNetwork, check_outputs
from fastfid.features.network import NetworkExtractor
from fastfid.features.session import CudaSettings, choose_device
from fastfid.features.weights import find_classifier, find_weights
from fastfid.precisions import check_precision
from fastfid.protocols import get_protocol

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


class InceptionV3(NetworkExtractor):
    """The Inception network that defines the FID, up to the features of one layer.

    Parameters
    ----------
    dims : int
        64 (first max pooling), 192 (second max pooling), 768 (before the auxiliary classifier) or 2048 (final average
        pooling, the FID's).
    protocol : str
        How a uint8 image becomes the network's input; see docs/protocols.md.
    precision : str
        Arithmetic of the network: ``"float32"``; or, on a CUDA device, ``"tf32"`` (convolutions round their factors to
        10 bits of mantissa, PyTorch's default there) or ``"float16"``. See docs/precision.md.
    device : str or int
        ``"auto"`` (CUDA where there is a device), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or N.
    weights : path-like, optional
        File of weights; else ``FASTFID_WEIGHTS``, the cache, or fetched once.
    outputs : iterable of str
        ``"features"``; with ``dims=2048`` also ``"spatial"``, the features of the sFID (Nash et al. 2021, arXiv
        2103.03841): the first 7 channels of ``Mixed_6d.branch1x1``, 17 x 17, in the order row, column, channel.

    Attributes
    ----------
    outputs : dict of str to int
        Lengths of the outputs by name; 2023 for ``"spatial"``.

    Raises
    ------
    TypeError
        `outputs` is no sequence of names.
    ValueError
        Unknown `dims`, `protocol`, `precision`, `device` or `outputs`; another precision than ``"float32"`` on the CPU;
        ``"spatial"`` with other `dims` than 2048.
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
    >>> both = InceptionV3(outputs=("features", "spatial"))
    >>> found = both.forward(np.zeros((2, 3, 299, 299), np.float32))
    >>> found["features"].shape, found["spatial"].shape
    ((2, 2048), (2, 2023))
    """

    outputs: dict[str, int]
    _cuda_settings = CudaSettings()  # benchmarks/gpu.py measures subclasses with others

    def __init__(
        self,
        dims: int = 2048,
        *,
        protocol: str = "pytorch-fid",
        precision: str = "float32",
        device: str | int = "auto",
        weights: str | os.PathLike[str] | None = None,
        outputs: Iterable[str] = (FEATURES,),
    ):
        dims = check_dims(dims)
        self.outputs = check_outputs(outputs, dims)
        row = get_protocol(protocol)
        arguments = {
            "dims": dims,
            "protocol": protocol,
            "precision": precision,
            "device": device,
            "weights": weights,
            "outputs": tuple(self.outputs),
        }
        chosen = choose_device(device)
        check_precision(precision, chosen)  # before weights are fetched in vain
        found = find_weights(weights)
        memory, self._why_not_there = _memory_of(chosen)
        stream = memory.stream if memory is not None else None
        self._network = InceptionNetwork(dims, found, device, precision, stream, self._cuda_settings, self.outputs)
        super().__init__(arguments, row.input, row.size, self._network.device, self._cuda_settings)
        self.dims = dims
        self.protocol = protocol
        self.precision = precision
        self.identity = found.identity
        self.batch_size = _CHUNK[self.device.partition(":")[0]]
        self._classifier: NDArray[np.float32] | None = None
        self._there: CudaNetwork | None = None
        if memory is not None and self.device != "cpu":
            self._there = CudaNetwork(self._network, memory, row.input, self.batch_size)

    def __repr__(self) -> str:
        """Return one line that tells networks apart."""
        outputs = f", outputs={tuple(self.outputs)!r}"
        return (
            f"InceptionV3(dims={self.dims}, protocol={self.protocol!r}, device={self.device!r},"
            f" precision={self.precision!r}{'' if tuple(self.outputs) == (FEATURES,) else outputs})"
        )

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Return the outputs for network inputs (n, 3, h', w').

        Returns
        -------
        numpy.ndarray or dict of str to numpy.ndarray
            The features, float32 (n, dims); with several `outputs` each under its name, float32 (n, length).

        Raises
        ------
        ValueError
            ``"spatial"`` is among the outputs, and the inputs are not 299 x 299, as of a protocol without a resize.
        """
        found = self._run(batch)
        return found if len(found) > 1 else found[FEATURES]

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features alone, float32 (n, dims), of network inputs (n, 3, h', w'), whatever the outputs are."""
        return self._run(batch)[FEATURES]

    def _run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        found = {name: np.empty((len(batch), length), np.float32) for name, length in self.outputs.items()}
        if self._there is not None:
            self._there.forward(batch, found)
            return found
        for start in range(0, len(batch), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            for name, rows in self._network.run(batch[chunk]).items():
                found[name][chunk] = rows
        return found

    def classifier(self) -> NDArray[np.float32]:
        """Return the matrix behind the 2048 features, float32 (1008, 2048), without the bias.

        It is read when first asked for, out of the file of the weights, or out of another tool's file where no file is
        named. The known hash covers the convolutions alone: of the matrix the shape and the dtype are checked, and that
        its values are finite.

        Raises
        ------
        ValueError
            `dims` is not 2048.
        fastfid.WeightsError
            No file here has it; the message names the one that has it, and how to get it.
        """
        if self.dims != DIMS[-1]:
            raise ValueError(
                f"extractor: InceptionV3(dims={self.dims}) has no classifier; the Inception Score needs the one of"
                f" dims={DIMS[-1]}"
            )
        if self._classifier is None:
            self._classifier = find_classifier(self._arguments["weights"])
        return self._classifier

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
