"""The contract of a feature extractor: on the host, and on a CUDA device. A caller may bring one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastfid.sources.device import DeviceImages

__all__ = ["FEATURES", "DeviceBatch", "DeviceNetwork", "FeatureExtractor", "check_extractor", "outputs_of"]

# The output that every extractor has: one feature vector an image.
FEATURES = "features"


class DeviceBatch(Protocol):
    """Network inputs at a fixed place on a CUDA device, and the features that they give."""

    size: tuple[int, int]  # height and width of the inputs

    def fill(self, first: int, images: DeviceImages, start: int, count: int) -> None:
        """Prepare `count` images, from `start` on, as the inputs from `first` on; do not wait."""

    def run(self) -> Mapping[str, Any]:
        """Ask for the outputs of all inputs; return their arrays on the device, float32 (batch_size, ...), by name."""


class DeviceNetwork(Protocol):
    """A network on a CUDA device, for images that are there. Its work is done in the order in which it is asked for."""

    batch_size: int  # images in every run

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while work is asked for: runs must not overlap."""

    def input_size(self, images: DeviceImages) -> tuple[int, int]:
        """Return height and width of the inputs that `images` give."""

    def take_batch(self, size: tuple[int, int]) -> DeviceBatch:
        """Return a batch of that input size that is not in use."""

    def give_back(self, batch: Any) -> None:
        """Take back what :meth:`take_batch` returned, to hand it out again."""

    def new_rows(self, n: int) -> Any:
        """Return an array on the device for the features of `n` images: float32 (n, dims), of undefined values."""

    def wait_for(self, stream: int) -> None:
        """Let all that is asked for from now on wait for what the caller's stream has been given so far."""

    def hold(self, stream: int | None) -> None:
        """Let the caller's stream wait until all images asked for have been read; the host, where it is unknown."""


def check_extractor(extractor: Any) -> None:
    """Raise TypeError unless `extractor` is a :class:`FeatureExtractor` with all its attributes."""
    kind = type(extractor).__name__
    if not isinstance(extractor, FeatureExtractor):
        got = f"{kind} {extractor!r}" if isinstance(extractor, str) else kind
        is_file = str(extractor).endswith(".onnx")
        how = "; fastfid.OnnxExtractor(path, fastfid.InputSpec(...)) opens an ONNX file" if is_file else ""
        raise TypeError(f"extractor: expected a fastfid.FeatureExtractor, got {got}{how}")
    missing = [name for name in _REQUIRED if not hasattr(extractor, name)]
    if missing:
        raise TypeError(
            f"extractor: {kind} lacks {', '.join(missing)} (see the attributes of fastfid.FeatureExtractor)"
        )
    outputs_of(extractor)


def outputs_of(extractor: "FeatureExtractor") -> Mapping[str, int]:
    """Return the outputs by name, and their lengths; TypeError or ValueError where the extractor's are none."""
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
    """Turns images into feature vectors, in two steps so that the pipeline can overlap them.

    Attributes
    ----------
    dims : int
        Length of a feature vector.
    identity : str
        Names the network and its weights; statistics of different identities do not belong together.
    protocol : str
        Name of the preprocessing protocol (see :mod:`fastfid.protocols`).
    precision : str
        Arithmetic of the network, e.g. ``"float32"``; statistics of different precisions do not belong together.
    device : str
        Where the network runs: ``"cpu"`` or ``"cuda:N"``.
    runtime : str
        What runs it there, as far as the last bits of features depend on it: the statistics cache keeps statistics of
        different runtimes apart. Default: empty.
    batch_size : int
        Images that the pipeline hands to one :meth:`forward` call, or fewer. It never changes a number.
    concurrency : int
        :meth:`forward` calls that the pipeline makes at once, in threads of its own. 1, the default: one after the
        other, in the calling thread.
    input_shape : tuple of int, optional
        The shape of every :meth:`prepare` result, where it is one and they are float32: the pipeline then has them
        written into the batch itself (:meth:`prepare_into`), which spares a copy. Default: None, not known.
    mixed_sizes : bool
        May the images of one source give inputs of different shapes? Then a batch is cut short where the shape changes;
        otherwise it is an error.
    outputs : dict of str to int, optional
        The outputs by name, and the length of an image's vector in each; ``"features"`` among them, of `dims`. Default:
        None, the features alone.

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
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input for it (without a batch axis).

        Called from worker threads, several at once.
        """

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write what :meth:`prepare` returns to `out`, a C-contiguous array of :attr:`input_shape`."""
        prepared = self.prepare(image)
        if prepared.shape != out.shape or prepared.dtype != out.dtype:  # assigned, it would be broadcast or cast
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
            The features, float32 (n, dims). With more outputs than one: each by its name in :attr:`outputs`, float32
            (n, length).
        """

    def on_device(self, device: str) -> DeviceNetwork | None:
        """Return what takes images that are on `device` (``cuda:N``) without the host.

        None, the default: the extractor knows the host only, and such images are copied to it.

        Raises
        ------
        ValueError
            The extractor runs elsewhere.
        fastfid.BackendUnavailable
            The extractor could take them, but something is missing.
        """
        return None
