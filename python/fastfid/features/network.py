"""What the extractors have in common whose network is a graph in a session and whose inputs the core prepares."""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.extractor import FeatureExtractor
from fastfid.features.session import CudaSettings, runtime_on
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source

__all__ = ["NetworkExtractor", "features_of"]


class NetworkExtractor(FeatureExtractor):
    """An extractor over a session: images prepared by the core, copies and pickles, a call on images.

    Parameters
    ----------
    arguments : dict
        Keyword arguments that make the extractor anew: what a pickle keeps.
    spec : InputSpec
        How an image becomes the network's input.
    size : (int, int) or None
        Height and width of the input; None: those of the images.
    device : str
        Where the network runs: ``cpu`` or ``cuda:N``.
    settings : CudaSettings
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        spec: _core.InputSpec,
        size: tuple[int, int] | None,
        device: str,
        settings: CudaSettings,
    ):
        self._arguments = arguments
        self._spec = spec
        self.input_shape = None if size is None else (3, *size)
        self.device = device
        self.runtime = runtime_on(device, settings)
        # Single-threaded runs side by side: see Session.
        self.concurrency = _core.num_threads() if device == "cpu" else 1

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it is made anew, from files found anew. A subclass adds what it needs."""
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __copy__(self) -> Self:
        """Return the object itself: nothing that it computes changes it. A subclass that does change is to say so."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the object itself."""
        return self

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input (3, h', w') under the protocol."""
        return self._preprocess(image, None)

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the network's input for one image to `out`, of `input_shape`."""
        self._preprocess(image, out[None])

    def _preprocess(self, image: NDArray[np.uint8], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
        try:
            prepared: NDArray[np.float32] = _core.preprocess([image], self._spec, out)[0]
        except ValueError as error:  # there is but one
            raise ValueError(str(error).removeprefix("images[0]: ")) from None
        return prepared

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
        return features_of(self, images, layout)


def features_of(
    extractor: FeatureExtractor, images: Any, layout: Literal["nhwc", "nchw"] | None
) -> NDArray[np.float32]:
    """Return the features of images, float32 (n, dims); see :meth:`NetworkExtractor.__call__`."""
    rows: list[NDArray[np.float32]] = []
    source = open_source(images, layout=layout)
    extract(source, extractor, only_features(lambda features: rows.append(features.copy())), mixed_sizes=True)
    if not rows:
        raise ValueError("images: expected at least one image, got none")
    return np.concatenate(rows)
