"""The interfaces of feature extractors, on the host and on a CUDA device. Users may implement their own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfid.sources.device import DeviceImages

__all__ = ["FEATURES", "SPATIAL", "DeviceBatch", "DeviceNetwork", "FeatureExtractor", "check_extractor", "outputs_of"]

# The output that every extractor has: one feature vector per image.
FEATURES = "features"
# The spatial features of the sFID, which the Inception network has.
SPATIAL = "spatial"


class DeviceBatch(Protocol):
    """A buffer of network inputs at a fixed address on a CUDA device, and the outputs computed from it."""

    size: tuple[int, int]  # height and width of the inputs

    def fill(self, first: int, images: DeviceImages, start: int, count: int) -> None:
        """Prepare images `start` to ``start + count - 1`` as the inputs from index `first` on, without waiting."""

    def run(self) -> Mapping[str, Any]:
        """Enqueue a run on all inputs; return the output arrays on the device, float32 (batch_size, ...), by name."""


class DeviceNetwork(Protocol):
    """A network on a CUDA device, for images on that device. Enqueued work is executed in order."""

    batch_size: int  # images in every run

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The lock to hold while work is enqueued, because runs must not overlap."""

    def input_size(self, images: DeviceImages) -> tuple[int, int]:
        """Return height and width of the network inputs made from `images`."""

    def take_batch(self, size: tuple[int, int]) -> DeviceBatch:
        """Return an unused batch with inputs of this height and width."""

    def give_back(self, batch: Any) -> None:
        """Return a batch of :meth:`take_batch`, so that it can be used again."""

    def new_rows(self, n: int) -> Any:
        """Return an uninitialised array on the device for the features of `n` images: float32 (n, dims)."""

    def wait_for(self, stream: int) -> None:
        """Make all work enqueued from now on wait for the work enqueued so far on the caller's stream."""

    def hold(self, stream: int | None) -> None:
        """Make the caller's stream wait until all enqueued images have been read; the host waits if it is None."""


def check_extractor(extractor: Any) -> None:
    """Raise TypeError unless `extractor` is a :class:`FeatureExtractor` with all its attributes."""
    kind = type(extractor).__name__
    if not isinstance(extractor, FeatureExtractor):
        got = f"{kind} {extractor!r}" if isinstance(extractor, str) else kind
        is_file = str(extractor).endswith(".onnx")
        how = "; fastfid.OnnxExtractor(path, fastfid.InputSpec(...)) opens an ONNX file" if is_file else ""
        if any(base.__module__ == "torch.nn.modules.module" for base in type(extractor).__mro__):
            how = "; fastfid.TorchExtractor(module, fastfid.InputSpec(...)) takes a torch module"
        if isinstance(extractor, list | tuple | dict):
            how = "; fastfid.evaluate_extractors takes several"
        raise TypeError(f"extractor: expected a fastfid.FeatureExtractor, got {got}{how}")
    missing = [name for name in _REQUIRED if not hasattr(extractor, name)]
    if missing:
        raise TypeError(
            f"extractor: {kind} lacks {', '.join(missing)} (see the attributes of fastfid.FeatureExtractor)"
        )
    outputs_of(extractor)


def outputs_of(extractor: "FeatureExtractor") -> Mapping[str, int]:
    """Return the lengths of the outputs by name; TypeError or ValueError if the extractor's `outputs` is invalid."""
    outputs = extractor.outputs
    if outputs is None:
        return {FEATURES: extractor.dims}
    kind = type(extractor).__name__
    if not isinstance(outputs, Mapping) or not all(
        isinstance(name, str) and isinstance(length, int) and length > 0 for name, length in outputs.items()
    ):
        raise TypeError(f"extractor: {kind}.outputs: expected a dict of names and positive lengths, got {outputs!r}")
    if outputs.get(FEATURES) != extractor.dims:
        raise ValueError(
            f"extractor: {kind}.outputs: expected {FEATURES!r} of dims = {extractor.dims}, got {dict(outputs)}"
        )
    return outputs


_REQUIRED = ("dims", "identity", "protocol", "precision", "device", "batch_size")


class FeatureExtractor(ABC):
    """Base class of networks that turn images into feature vectors.

    The work has two steps, :meth:`prepare` and :meth:`forward`, so that the pipeline can run them at the same time.

    Attributes
    ----------
    dims : int
        Length of a feature vector.
    identity : str
        Name of the network and its weights. Statistics of different identities are not compared.
    protocol : str
        Name of the preprocessing protocol (docs/protocols.md).
    precision : str
        Arithmetic of the network, such as ``"float32"``. Statistics of different precisions are not compared.
    device : str
        Device on which the network runs: ``"cpu"`` or ``"cuda:N"``.
    runtime : str
        Name of the runtime that executes the network, as far as the last bits of features depend on it. The statistics
        cache keeps statistics of different runtimes apart. Default: empty.
    batch_size : int
        Largest number of images that the pipeline passes to one :meth:`forward` call. It never changes the result.
    concurrency : int
        Number of :meth:`forward` calls that the pipeline runs at the same time, in threads of its own. Default: 1, one
        call after the other in the calling thread.
    input_shape : tuple of int, optional
        Shape of every :meth:`prepare` result, if all results are float32 and have one shape. The pipeline then calls
        :meth:`prepare_into` to write the results directly into the batch, which saves a copy. Default: None, unknown.
    mixed_sizes : bool
        True if the images of one source may give inputs of different shapes. A batch then ends where the shape
        changes. With False, different shapes raise an error.
    outputs : dict of str to int, optional
        Length of the vector per image, for each output by name. It must contain ``"features"`` with length `dims`.
        Default: None, the features alone.

    Examples
    --------
    >>> import fastfid, numpy as np
    >>> class MeanColour(fastfid.FeatureExtractor):
    ...     dims, identity, protocol, precision, device, batch_size = 3, "mean colour", "none", "float32", "cpu", 8
    ...
    ...     def prepare(self, image):
    ...         return image.mean(axis=(0, 1))
    ...
    ...     def forward(self, batch):
    ...         return batch.astype(np.float32)
    >>> fastfid.compute_fid("real", "fake", extractor=MeanColour()) > 0  # two folders of pictures
    True
    """

    dims: int
    identity: str
    protocol: str
    precision: str
    device: str
    runtime: str = ""
    batch_size: int
    concurrency: int = 1
    input_shape: tuple[int, ...] | None = None
    mixed_sizes: bool = False
    outputs: Mapping[str, int] | None = None

    @abstractmethod
    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the network's input for one image, uint8 (h, w, 3) RGB, without a batch axis.

        Several worker threads call this method at the same time.
        """

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the result of :meth:`prepare` to `out`, a C-contiguous array of shape `input_shape`."""
        prepared = self.prepare(image)
        if prepared.shape != out.shape or prepared.dtype != out.dtype:  # the assignment would broadcast or cast
            raise ValueError(
                f"{type(self).__name__}.prepare: expected {out.dtype} {out.shape}, its input_shape;"
                f" got {prepared.dtype} {prepared.shape}"
            )
        out[...] = prepared

    @abstractmethod
    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32] | Mapping[str, NDArray[np.float32]]:
        """Run the network on stacked :meth:`prepare` results (n, ...).

        Returns
        -------
        numpy.ndarray or dict of str to numpy.ndarray
            The features, float32 (n, dims). An extractor with several outputs returns each under its name in
            `outputs`, float32 (n, length).
        """

    def classifier(self) -> NDArray[np.float32]:
        """Return the matrix whose products with the features are the logits, float32 (classes, dims), without a bias.

        The Inception Score needs it. The default raises an error.

        Raises
        ------
        ValueError
            The extractor has no classifier.
        fastfid.WeightsError
            The extractor's network has one, but the file of its weights lacks it.
        """
        raise ValueError(
            f"extractor: {type(self).__name__} has no classifier; the Inception Score needs one, as the network of"
            " InceptionV3(dims=2048) has it"
        )

    def on_device(self, device: str) -> DeviceNetwork | None:
        """Return the network that takes images on `device` (``cuda:N``) without copying them to the host.

        The default returns None: the extractor supports the host only, and images on a device are copied to the host.

        Raises
        ------
        ValueError
            The extractor runs on another device.
        fastfid.BackendUnavailable
            The extractor supports images on a device, but a required component is missing.
        """
        return None
