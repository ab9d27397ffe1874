"""Any network in an ONNX file as an extractor: what its images are made into, and which of its outputs is meant."""

import dataclasses
import errno
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import BackendUnavailable
from fastfid.extractor import FEATURES
from fastfid.features.network import NetworkExtractor
from fastfid.features.onnx_file import read_onnx
from fastfid.features.onnx_output import check_rank, finish, select
from fastfid.features.preparation import Preparation
from fastfid.features.session import (
    CudaSettings,
    Session,
    Tensor,
    UnusableGraph,
    choose_device,
    load_onnxruntime,
    open_on,
)
from fastfid.input_spec import InputSpec, spec_path
from fastfid.precisions import check_precision

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
        The file. Files with tensors that it names must lie in its folder. It takes one input, float32 (n, 3, h, w) or
        (n, h, w, 3); h and w are open or those of `input`, n is open or fixed.
    input : InputSpec or path-like, optional
        How a uint8 image becomes the input, and what of the output are the features; a path is that of a JSON file.
        Default: the file ``model.fastfid.json`` beside ``model.onnx``.
    output : str, optional
        Name of the output, float32, where `input` does not say it. Default: the only one there is.
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
        Name, output and SHA-256 of the file and of those with its tensors: statistics of other networks and outputs are
        refused beside it.
    protocol : str
        The spec in one line, :attr:`fastfid.InputSpec.protocol`: statistics of other specs are refused.

    Raises
    ------
    TypeError
        `input` is neither an InputSpec nor a path.
    ValueError
        The file is damaged or no regular file, lacks a file with tensors, is not of this kind, or has features that are
        not finite; there is no spec or no such output; an unknown `device` or `precision`. The message names the file
        and what to do.
    OSError
        A file cannot be read.
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
        input: InputSpec | str | os.PathLike[str] | None = None,
        *,
        output: str | None = None,
        name: str = "onnx",
        device: str | int = "auto",
        precision: str = "float32",
    ):
        spec = _with_output(_spec_of(path, input), output)
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"name: expected printable letters, got {name!r}")
        check_precision(precision, choose_device(device))
        if precision == "float16":
            raise ValueError("precision: a file's network runs in 'float32' or 'tf32', got 'float16'")
        file = read_onnx(path)
        self._preparation = Preparation(spec)
        settings = CudaSettings()

        def tried(device: str) -> _Graph:
            session = Session(file.model, (), device, precision, None, settings, file.tensors)
            return _Graph(file.path, session, spec, self._preparation)

        try:
            self._graph = open_on(device, tried, only_cuda=precision != "float32")
        except UnusableGraph as error:
            version = load_onnxruntime().__version__
            raise ValueError(
                f"{file.path}: expected a whole ONNX file that ONNX Runtime {version} can run: {error}"
            ) from None
        arguments = {
            "path": path,
            "input": spec,
            "name": name,
            "device": device,
            "precision": precision,
        }
        super().__init__(arguments, spec.to_core(None), None, self._graph.device, settings)
        self.input_shape = self._preparation.shape
        self.dims = self._graph.dims
        self.outputs = {FEATURES: self.dims}
        self.identity = f"{name}:{self._graph.output}:{file.sha256}"
        self.protocol = spec.protocol
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

    def opened_by(self) -> dict[str, Any]:
        """Return the arguments that open the network in another process and folder, in JSON's types."""
        path, spec, name = (self._arguments[key] for key in ("path", "input", "name"))
        return {"path": os.path.abspath(os.fsdecode(path)), "input": dataclasses.asdict(spec), "name": name}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input under the spec, (3, h', w') or (h', w', 3)."""
        return self._preparation(image)

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the network's input for one image to `out`, of `input_shape`."""
        self._preparation(image, out)

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features, float32 (n, dims), of network inputs (n, ...)."""
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

    def __init__(self, file: str, session: Session, spec: InputSpec, preparation: Preparation):
        self.file = file
        self.device = session.device
        self._session = session
        self._spec = spec
        self._input = _check_input(file, session.inputs, spec)
        self.output = _choose_output(file, session.outputs, spec)
        fixed = self._input.shape[0]
        self.run_size = fixed if isinstance(fixed, int) else _RUN[self.device.partition(":")[0]]
        grey = np.full((*(spec.size or _TRIAL_SIZE), 3), 128, np.uint8)
        trial = self._run(preparation(grey)[None])
        check_rank(file, self.output, trial.shape, spec)
        if len(trial) != self.run_size:
            raise ValueError(
                f"{file}: gives {self.output} of shape {trial.shape} for {self.run_size} images: expected one vector an"
                " image"
            )
        vectors = select(file, self.output, trial, spec)
        if not vectors.shape[1]:
            raise ValueError(f"{file}: gives {self.output} of no numbers for an image")
        if not np.isfinite(vectors[0]).all():
            raise ValueError(f"{file}: gives {self.output} that is not finite for a grey image: is this its InputSpec?")
        self.dims = int(vectors.shape[1])

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features of at most :attr:`run_size` network inputs. Several threads may call at once."""
        found = select(self.file, self.output, self._run(images), self._spec)
        if found.shape != (self.run_size, self.dims):
            raise ValueError(
                f"{self.file}: gives {self.output} of shape {found.shape} for inputs of {images.shape[1:]}, expected"
                f" {(self.run_size, self.dims)}"
            )
        return finish(self.file, self.output, found[: len(images)], self._spec)

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


def _spec_of(path: str | os.PathLike[str], input: object) -> InputSpec:
    """Return the spec that was given, or that lies beside the file."""
    if isinstance(input, InputSpec):
        return input
    if isinstance(input, str | os.PathLike):
        return InputSpec.load(input)
    if input is not None:
        raise TypeError(f"input: expected a fastfid.InputSpec or the path of its JSON file, got {type(input).__name__}")
    beside = spec_path(path)
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    if not os.path.exists(beside):
        raise ValueError(
            f"{os.fspath(path)}: how its input is made is not known, and there is no {beside}: write that file, or give"
            " --input SPEC.json (input=fastfid.InputSpec(...)); docs/extractors.md has the specs of known networks"
        )
    return InputSpec.load(beside)


def _with_output(spec: InputSpec, output: str | None) -> InputSpec:
    if output is None or output == spec.output:
        return spec
    if spec.output is not None:
        raise ValueError(f"output: expected {spec.output!r}, as the InputSpec says, or neither; got {output!r}")
    return dataclasses.replace(spec, output=output)


def _check_input(file: str, inputs: tuple[Tensor, ...], spec: InputSpec) -> Tensor:
    """Return the input; ValueError unless it is the only one and takes what the spec makes."""
    axes = {"nchw": "(n, 3, h, w)", "nhwc": "(n, h, w, 3)"}
    expected = f"expected one input, float32 {axes[spec.layout]}"
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
    channels = {"nchw": 1, "nhwc": 3}
    if isinstance(length := shape[channels[spec.layout]], int) and length != 3:
        other = next(layout for layout in channels if layout != spec.layout)
        remedy = f"Give its InputSpec layout {other!r}" if shape[channels[other]] == 3 else "Images have three channels"
        raise ValueError(f"{file}: {expected}, got {found}. {remedy}")
    sides = shape[2:] if spec.layout == "nchw" else shape[1:3]
    fixed = [length if isinstance(length, int) else None for length in sides]
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


def _choose_output(file: str, outputs: tuple[Tensor, ...], spec: InputSpec) -> str:
    """Return the name of the output; ValueError unless it is float32 with the axes of the spec, as far as is known."""
    name = spec.output
    if name is None and len(outputs) != 1:
        raise ValueError(f"{file}: has {len(outputs)} outputs, name one by output: {_listed(outputs)}")
    found = next((tensor for tensor in outputs if name in (None, tensor.name)), None)
    if found is None:
        raise ValueError(f"{file}: output: there is none called {name!r}; it has {_listed(outputs)}")
    if not found.name.isprintable():  # it is part of the identity, which is one line
        raise ValueError(f"{file}: expected an output whose name has printable letters, got {found.name!r}")
    if found.dtype != _FLOAT32:
        raise ValueError(f"{file}: expected the output as float32, got {found}. Cast in the graph")
    if found.shape:
        check_rank(file, found.name, found.shape, spec)
    return found.name


def _listed(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(map(str, tensors))
