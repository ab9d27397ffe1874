"""The Inception network up to one feature map: its graph with folded weights, checked on a fixed input."""

from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._checks import DIMS
from fastfid.errors import WeightsError
from fastfid.extractor import FEATURES, SPATIAL
from fastfid.features.session import CudaSettings, Fixed, Session, installed_remedy, open_on
from fastfid.features.weights import Weights, convolutions
from fastfid.precisions import PRECISIONS
from fastfid.protocols import SIDE

__all__ = [
    "SKELETON_DTYPES",
    "SPATIAL_CHANNELS",
    "SPATIAL_LAYER",
    "InceptionNetwork",
    "check_outputs",
    "fingerprint_input",
    "skeleton_name",
]

BATCH_NORM_EPSILON = 1e-3

# The spatial features, of which the sFID is made (Nash et al., "Generating images with sparse representations", 2021,
# arXiv 2103.03841): the first channels of what Google's graph calls mixed_6/conv, after its ReLU.
SPATIAL_LAYER = "Mixed_6d.branch1x1"
SPATIAL_CHANNELS = 7
_SPATIAL_SIDE = 17  # of the map that an input of 299 x 299 gives there

SKELETON_DTYPES = tuple(sorted({precision.dtype for precision in PRECISIONS.values()}, reverse=True))


def skeleton_name(dims: int, dtype: str) -> str:
    """Return the file that holds the graph up to the layer of width `dims`, whose numbers are of type `dtype`."""
    return f"inception-{dims}.onnx" if dtype == "float32" else f"inception-{dims}-{dtype}.onnx"


def check_outputs(outputs: Iterable[str], dims: int) -> dict[str, int]:
    """Return the lengths of the outputs by name: the features, and the spatial features if `outputs` has them.

    Raises
    ------
    TypeError
        `outputs` is one text, or cannot be iterated over.
    ValueError
        It lacks the features or has an unknown name, or the spatial features are asked for with other `dims` than 2048.
    """
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise TypeError(f"outputs: expected a sequence of names, such as ('features', 'spatial'); got {outputs!r}")
    names = tuple(outputs)
    if FEATURES not in names or not set(names) <= {FEATURES, SPATIAL}:
        raise ValueError(f"outputs: expected {FEATURES!r}, or {FEATURES!r} and {SPATIAL!r}; got {names!r}")
    lengths = {FEATURES: dims}
    if SPATIAL in names:
        if dims != DIMS[-1]:
            raise ValueError(f"outputs: {SPATIAL!r} is of the network with dims {DIMS[-1]}, got dims {dims}")
        lengths[SPATIAL] = _SPATIAL_SIDE**2 * SPATIAL_CHANNELS
    return lengths


def _skeletons() -> Any:
    return resources.files("fastfid.features") / "skeletons"


def _fold_batch_norm(
    tensors: tuple[NDArray[np.float32], ...], dtype: str = "float32"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of the convolution that does what a convolution and its batch norm do.

    ``gamma (conv(x) - mean) / sqrt(var + eps) + beta`` with gamma = 1, folded in float64 and rounded once, to `dtype`.
    """
    weight, beta, mean, var = (tensor.astype(np.float64) for tensor in tensors)
    scale = 1 / np.sqrt(var + BATCH_NORM_EPSILON)
    return (weight * scale[:, None, None, None]).astype(dtype), (beta - mean * scale).astype(dtype)


def fingerprint_input() -> NDArray[np.float32]:
    """Return the fixed input, float32 (1, 3, 299, 299): smooth waves with fine noise, from integer arithmetic only."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    # A quadratic in three variables modulo a prime: as good as noise here, and the same on every machine.
    noise = (7919 * x * x + 104729 * y * y + 15485863 * x * y + 32452843 * c * (x + 2 * y) + 17 * c) % 251
    waves = np.abs((x * (c + 2) + 3 * y) % 400 - 200) + np.abs((2 * x + y * (3 - c)) % 300 - 150)
    grey = (noise * 96 // 251 + waves * 160 // 350).astype(np.float32)
    image: NDArray[np.float32] = (grey - 128) / 128
    return image[None]


class InceptionNetwork:
    """The network up to one feature map, in a session that gives the stored outputs for the fixed input.

    Parameters
    ----------
    dims : int
        64, 192, 768 or 2048.
    weights : Weights
        The verified weights.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        A key of `PRECISIONS`; on the CPU see :class:`Session`: that is how the error of "float16" is measured and
        tested without a GPU.
    stream : CudaStream, optional
        The stream on that device that the session is to use. Default: one of its own, for :meth:`features` alone.
    settings : CudaSettings, optional
    outputs : iterable of str
        ``"features"``, and for dims 2048 also ``"spatial"``.

    Attributes
    ----------
    outputs : dict of str to int
        Their lengths by name.
    device : str
        ``cpu`` or ``cuda:N``, where it runs.
    dtype : str
        Of the image and what the graph makes of it: ``float32`` or ``float16``.
    graph : bool
        Whether runs between fixed addresses are to be replayed from a CUDA graph: of concern to who makes them.
    lock : threading.Lock
        See :class:`Session`.

    Raises
    ------
    fastfid.BackendUnavailable
        The device does not exist, or ONNX Runtime cannot use it.
    fastfid.WeightsError
        The session does not reproduce the fingerprint.
    """

    def __init__(
        self,
        dims: int,
        weights: Weights,
        device: str | int = "auto",
        precision: str = "float32",
        stream: "_core.CudaStream | None" = None,
        settings: CudaSettings | None = None,
        outputs: Iterable[str] = (FEATURES,),
    ):
        self.outputs = check_outputs(outputs, dims)
        settings = settings if settings is not None else CudaSettings()
        self.dims = dims
        self.precision = precision
        self.dtype = PRECISIONS[precision].dtype
        self.graph = settings.graph
        model = (_skeletons() / skeleton_name(dims, self.dtype)).read_bytes()

        def proved(device: str) -> Session:
            self._session = Session(model, self._initializers(weights), device, precision, stream, settings)
            self._check_fingerprint()
            return self._session

        # The CPU has no other precision than float32.
        session = open_on(device, proved, only_cuda=precision != "float32" or settings != CudaSettings())
        self.device = session.device
        self.lock = session.lock

    def _initializers(self, weights: Weights) -> Iterator[tuple[str, NDArray[Any]]]:
        for k, layer in enumerate(convolutions()):
            if layer.dims > self.dims:  # the skeleton ends before it
                break
            folded = _fold_batch_norm(weights.tensors[4 * k : 4 * k + 4], self.dtype)
            for part, value in zip(("weight", "bias"), folded, strict=True):
                yield f"{layer.name}.conv.{part}", value

    def _check_fingerprint(self) -> None:
        with (_skeletons() / "fingerprint.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            expected = {name: stored[str(self.dims) if name == FEATURES else name] for name in self.outputs}
        found = self.run(fingerprint_input())
        error = max(float(np.max(np.abs(found[name][0] - expected[name]))) for name in self.outputs)
        tolerance = PRECISIONS[self.precision].tolerance
        if not error <= tolerance:
            device = self._session.device
            remedy = installed_remedy()
            remedy = remedy if device == "cpu" else f"It may compute in another arithmetic. {remedy}"
            raise WeightsError(
                f"the network on {device} does not reproduce the stored features of the fixed input in"
                f" {self.precision}: it is off by {error:.3g}, at most {tolerance:g} is accepted. {remedy}"
            )

    def run(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs, float32 (n, length), by name, of network inputs (n, 3, h, w), h and w at least 75.

        The session runs outside the GIL. Several threads may call at once.

        Raises
        ------
        ValueError
            The spatial features are asked for, and the inputs are not 299 x 299.
        """
        self._check_size(batch.shape[2:])
        names = ["map", *(name for name in self.outputs if name != FEATURES)]
        map, *others = self._session.run(names, {"image": batch.astype(self.dtype, copy=False)})
        # A float16 map is widened: float16 has no spatial mean of its own, and every one of its values is a float32.
        found = {FEATURES: _core.spatial_mean(map.astype(np.float32, copy=False))}
        return found | {name: rows.astype(np.float32, copy=False) for name, rows in zip(names[1:], others, strict=True)}

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features alone; see :meth:`run`."""
        return self.run(batch)[FEATURES]

    def _check_size(self, size: tuple[int, ...]) -> None:
        if SPATIAL in self.outputs and size != (SIDE, SIDE):
            raise ValueError(
                f"spatial features: expected network inputs of {SIDE} x {SIDE}, got {size[0]} x {size[1]};"
                " choose a protocol that resizes, or make images of that size"
            )

    def map_shape(self, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Return the shape of the map (n, dims, h', w') of inputs of `shape` (n, 3, h, w)."""
        n, _, h, w = shape
        return n, self.dims, _map_length(self.dims, h), _map_length(self.dims, w)

    def bind(
        self, image: int, shape: tuple[int, int, int, int], map: int, spatial: int | None = None
    ) -> Callable[[], None]:
        """Return a function that runs the network from inputs at one fixed address to its outputs at others.

        All arrays are of :attr:`dtype`, C-contiguous, in the memory of :attr:`device`.

        Parameters
        ----------
        image : int
            Address of the inputs.
        shape : tuple
            Theirs: (n, 3, h, w), h and w at least 75.
        map : int
            Address of the map, of the shape that :meth:`map_shape` says.
        spatial : int, optional
            Address of the spatial features, (n, 2023), where they are an output.

        Returns
        -------
        callable
            On a CUDA device it gives the work to the session's stream and returns.

        Raises
        ------
        ValueError
            As :meth:`run`.
        """
        self._check_size(shape[2:])
        places: dict[str, Fixed] = {"map": (map, self.map_shape(shape))}
        if spatial is not None:
            places[SPATIAL] = (spatial, (shape[0], self.outputs[SPATIAL]))
        return self._session.bind({"image": (image, shape)}, places)


def _map_length(dims: int, length: int) -> int:
    """Return the height or width of the map that an input of height or width `length` gives."""

    def halved(x: int) -> int:  # by 3 x 3 with stride 2, no padding
        return (x - 3) // 2 + 1

    length = halved(halved(length) - 2)
    if dims >= 192:
        length = halved(length - 2)
    if dims >= 768:
        length = halved(length)
    if dims >= 2048:
        length = halved(length)
    return length
