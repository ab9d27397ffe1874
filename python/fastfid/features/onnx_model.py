"""Any network in an ONNX file as an extractor: what its images are made into, and which of its outputs is meant."""

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._files import open_regular
from fastfid.errors import BackendUnavailable
from fastfid.extractor import FEATURES
from fastfid.features.network import NetworkExtractor
from fastfid.features.session import (
    CudaSettings,
    Session,
    Tensor,
    UnusableGraph,
    choose_device,
    load_onnxruntime,
    open_on,
)
from fastfid.precisions import check_precision
from fastfid.protocols import InputSpec

__all__ = ["OnnxExtractor"]

# Images in one run, for graphs that leave it open; always as many, filled up with zeros. A matrix product may take its
# sums in another order for another number of rows: so the features of an image never depend on how many come at once.
_RUN = {"cpu": 1, "cuda": 64}
_FLOAT32 = "tensor(float)"
# Of the trial image, where images keep their size.
_TRIAL_SIZE = (256, 256)


class OnnxExtractor(NetworkExtractor):
    """The network of an ONNX file, for images that an :class:`fastfid.InputSpec` turns into its input.

    Parameters
    ----------
    path : path-like
        The file, with all its tensors inside. It takes one input, float32 (n, 3, h, w), of RGB images; h and w are open
        or those of `input`, n is open or fixed.
    input : InputSpec
        How a uint8 image becomes the input.
    output : str, optional
        Name of the output that is the features, float32 (n, d). Default: the only one there is.
    name : str
        What the network is called in statistics, before its hash.
    device : str or int
        ``"auto"`` (CUDA where there is a device), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or N. Images that are on a CUDA
        device are copied to the host and prepared there.
    precision : str
        ``"float32"``, or ``"tf32"`` on a CUDA device.

    Attributes
    ----------
    dims : int
        d, found by a run on one grey image.
    identity : str
        Name, output and SHA-256 of the file: statistics of other networks and outputs are refused beside it.
    protocol : str
        The spec in one line, :attr:`fastfid.InputSpec.protocol`: statistics of other specs are refused.

    Raises
    ------
    TypeError
        `input` is no InputSpec.
    ValueError
        The file is damaged or no regular file, is not of this kind, or has features that are not finite; there is no
        such output; an unknown `device` or `precision`. The message names the file and what to do.
    OSError
        The file cannot be read.
    fastfid.BackendUnavailable
        The device does not exist or cannot be used.

    Examples
    --------
    >>> import fastfid, onnx, onnx.parser
    >>> mean_colour = '''<ir_version: 8, opset_import: ["": 17]>
    ... mean_colour (float[n, 3, 32, 32] image) => (float[n, 3] colour) {
    ...   colour = ReduceMean <axes = [2, 3], keepdims = 0> (image)
    ... }'''
    >>> onnx.save(onnx.parser.parse_model(mean_colour), "colour.onnx")
    >>> extractor = fastfid.OnnxExtractor("colour.onnx", fastfid.InputSpec((32, 32)), device="cpu")
    >>> extractor.dims
    3
    >>> fastfid.compute_fid("real", "fake", extractor=extractor) > 0  # two folders of four pictures
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        input: InputSpec,
        *,
        output: str | None = None,
        name: str = "onnx",
        device: str | int = "auto",
        precision: str = "float32",
    ):
        if not isinstance(input, InputSpec):
            raise TypeError(f"input: expected a fastfid.InputSpec, got {type(input).__name__}")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"name: expected printable letters, got {name!r}")
        check_precision(precision, choose_device(device))
        if precision == "float16":
            raise ValueError("precision: a file's network runs in 'float32' or 'tf32', got 'float16'")
        file = os.fspath(path)
        with open_regular(path) as stream:
            model = stream.read()
        settings = CudaSettings()

        def tried(device: str) -> _Graph:
            return _Graph(file, Session(model, (), device, precision, None, settings), input, output)

        try:
            self._graph = open_on(device, tried, only_cuda=precision != "float32")
        except UnusableGraph as error:
            version = load_onnxruntime().__version__
            raise ValueError(
                f"{file}: expected a whole ONNX file, its tensors inside, that ONNX Runtime {version} can run: {error}"
            ) from None
        arguments = {
            "path": path,
            "input": input,
            "output": output,
            "name": name,
            "device": device,
            "precision": precision,
        }
        super().__init__(arguments, input.to_core(), input.size, self._graph.device, settings)
        self.dims = self._graph.dims
        self.outputs = {FEATURES: self.dims}
        self.identity = f"{name}:{self._graph.output}:{hashlib.sha256(model).hexdigest()}"
        self.protocol = input.protocol
        self.precision = precision
        self.batch_size = self._graph.run_size

    def __repr__(self) -> str:
        """Return one line that tells networks apart."""
        return (
            f"OnnxExtractor({os.fspath(self._arguments['path'])!r}, output={self._graph.output!r}, dims={self.dims},"
            f" protocol={self.protocol!r}, device={self.device!r}, precision={self.precision!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it is made anew, of the same file."""
        return {**super().__getstate__(), "identity": self.identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        identity = state["identity"]
        super().__setstate__({key: value for key, value in state.items() if key != "identity"})
        if self.identity != identity:
            raise ValueError(f"{self._graph.file}: has changed: it is {self.identity} now, {identity} was pickled")

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features, float32 (n, dims), of network inputs (n, 3, h, w)."""
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        features = np.empty((len(batch), self.dims), np.float32)
        for start in range(0, len(batch), self._graph.run_size):
            chunk = slice(start, start + self._graph.run_size)
            features[chunk] = self._graph.run(batch[chunk])
        return features


class _Graph:
    """One output of a file's network, tried on one image.

    Attributes
    ----------
    file : str
    device : str
        ``cpu`` or ``cuda:N``, where it runs.
    output : str
    run_size : int
        Images in every run.
    dims : int
    """

    def __init__(self, file: str, session: Session, spec: InputSpec, output: str | None):
        self.file = file
        self.device = session.device
        self._session = session
        self._input = _check_input(file, session.inputs, spec)
        self.output = _choose_output(file, session.outputs, output)
        fixed = self._input.shape[0]
        self.run_size = fixed if isinstance(fixed, int) else _RUN[self.device.partition(":")[0]]
        grey = np.full((*(spec.size or _TRIAL_SIZE), 3), 128, np.uint8)
        trial = self._run(_core.preprocess([grey], spec.to_core()))
        if trial.ndim != 2 or len(trial) != self.run_size:
            raise ValueError(_not_features(file, self.output, trial.shape))
        if not np.isfinite(trial[0]).all():
            raise ValueError(f"{file}: gives {self.output} that is not finite for a grey image: is this its InputSpec?")
        self.dims = int(trial.shape[1])

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features of at most :attr:`run_size` network inputs. Several threads may call at once."""
        found = self._run(images)
        if found.shape != (self.run_size, self.dims):
            raise ValueError(
                f"{self.file}: gives {self.output} of shape {found.shape} for inputs of {images.shape[1:]}, expected"
                f" {(self.run_size, self.dims)}"
            )
        return found[: len(images)]

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(images) < self.run_size:
            zeros = np.zeros((self.run_size - len(images), *images.shape[1:]), np.float32)
            images = np.concatenate([images, zeros])
        try:
            (found,) = self._session.run([self.output], {self._input.name: images})
            return found
        except (BackendUnavailable, MemoryError):
            raise
        except Exception as error:
            if self.device != "cpu":  # it may be the device
                raise
            raise ValueError(f"{self.file}: cannot be run on inputs of shape {images.shape}: {error}") from error


def _check_input(file: str, inputs: tuple[Tensor, ...], spec: InputSpec) -> Tensor:
    """Return the input; ValueError unless it is the only one and takes what the spec makes."""
    expected = "expected one input, float32 (n, 3, h, w)"
    if len(inputs) != 1:
        raise ValueError(
            f"{file}: {expected}, got {len(inputs)}: {_listed(inputs)}. Make the others constants of the graph"
        )
    (found,) = inputs
    if found.dtype != _FLOAT32:
        raise ValueError(f"{file}: {expected}, got {found}. Export it in float32, or cast in the graph")
    shape = found.shape
    if len(shape) != 4:
        known = found if shape else f"{found.name} of unknown shape"
        raise ValueError(f"{file}: {expected}, got {known}. Export it with that shape")
    if isinstance(shape[1], int) and shape[1] != 3:
        remedy = "Transpose in the graph" if shape[3] == 3 else "Images have red, green and blue"
        raise ValueError(f"{file}: {expected}, got {found}. {remedy}")
    fixed = [length if isinstance(length, int) else None for length in shape[2:]]
    wanted = spec.size or (None, None)
    for ours, its in zip(wanted, fixed, strict=True):
        if its is not None and ours != its:
            made = "leaves images their size" if spec.size is None else f"makes {wanted[0]} x {wanted[1]}"
            size = tuple(its or "?" for its in fixed)
            raise ValueError(
                f"{file}: takes {size[0]} x {size[1]} (height x width), and its InputSpec {made}: give it that size,"
                " or export the network with open lengths"
            )
    return found


def _choose_output(file: str, outputs: tuple[Tensor, ...], name: str | None) -> str:
    """Return the name of the output; ValueError unless it is float32 (n, d), as far as the graph says it."""
    if name is None and len(outputs) != 1:
        raise ValueError(f"{file}: has {len(outputs)} outputs, name one by output=: {_listed(outputs)}")
    found = next((tensor for tensor in outputs if name in (None, tensor.name)), None)
    if found is None:
        raise ValueError(f"{file}: output: there is none called {name!r}; it has {_listed(outputs)}")
    if found.dtype != _FLOAT32:
        raise ValueError(f"{file}: expected the output as float32 (n, d), got {found}. Cast in the graph")
    if found.shape and len(found.shape) != 2:
        raise ValueError(_not_features(file, found.name, found.lengths))
    return found.name


def _not_features(file: str, output: str, shape: object) -> str:
    return (
        f"{file}: expected the output {output} as one vector an image, (n, d), got {shape}. Take one token, or the mean"
        " over tokens or places, in the graph"
    )


def _listed(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(map(str, tensors))
