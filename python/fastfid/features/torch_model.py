"""Any torch module as an extractor, run in the caller's torch: what its images are made into, what its features are."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fastfid.extractor import FEATURES, FeatureExtractor
from fastfid.features.network import features_of
from fastfid.features.onnx_output import check_rank, finish, select
from fastfid.features.preparation import Preparation
from fastfid.input_spec import InputSpec

if TYPE_CHECKING:
    import torch

__all__ = ["TorchExtractor"]

# Of the trial image, where images keep their size.
_TRIAL_SIZE = (256, 256)
# Of the largest feature: arithmetic of 16 bits, and kernels that add in any order, are below this; dropout is above.
_NOISE = 0.02


class TorchExtractor(FeatureExtractor):
    """A torch module, for images that an :class:`fastfid.InputSpec` turns into its input.

    The module runs in the caller's torch, on whatever device torch knows (CUDA, ROCm, the CPU), without gradients.
    It is neither copied nor changed. Images are prepared on the host.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, with tensors of one floating dtype. It is called with one tensor, (n, 3, h, w) or
        (n, h, w, 3) of that dtype.
    input : InputSpec or path-like
        How a uint8 image becomes the input, and what of the output are the features; a path is that of a JSON file.
    output : str or int, optional
        What the module returns of which the features are taken: the key or the attribute of what it returns, as
        ``"last_hidden_state"``, or the place in a tuple. Default: the spec's `output`; without one, it returns one
        tensor.
    device : str or torch.device, optional
        Where the input goes. Default: where the module's tensors are, which must be one device.
    batch_size : int
        Images in every run. A last run with fewer is filled up with zeros, as a matrix product may take its sums in
        another order for another number of rows.
    name : str
        What the network is called in statistics, before its class.

    Attributes
    ----------
    dims : int
        d, found by a run on one grey image.
    identity : str
        Name, class, output and SHA-256 of the names, dtypes, shapes and bytes of the tensors of the state dict:
        statistics of other tensors are refused beside it. The code of the module is not part of it.
    protocol : str
        The spec in one line, :attr:`fastfid.InputSpec.protocol`.
    precision : str
        The dtype of the module, such as ``"float32"`` or ``"bfloat16"``.

    Raises
    ------
    TypeError
        `module` is no torch module, or `input` neither an InputSpec nor a path.
    ValueError
        The module or a part of it is in training mode, or has a batch norm without running statistics; it has tensors
        of several dtypes or on several devices, gives no such output, or features that are not finite, not of the
        spec's axes, random, or dependent on the other images of a run. Later: its tensors were changed since, or it is
        in training mode.

    Examples
    --------
    >>> import fastfid, torch
    >>> colours = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU()).eval()
    >>> spec = fastfid.InputSpec((32, 32), filter="bicubic", select="mean-spatial")
    >>> extractor = fastfid.TorchExtractor(colours, spec)
    >>> extractor.dims
    8
    >>> fastfid.compute_fid("real", "fake", extractor=extractor) > 0  # two folders of four pictures
    True
    """

    def __init__(
        self,
        module: "torch.nn.Module",
        input: InputSpec | str | os.PathLike[str],
        *,
        output: str | int | None = None,
        device: "str | torch.device | None" = None,
        batch_size: int = 32,
        name: str = "torch",
    ):
        import torch

        spec = _spec_of(input)
        _check(module, spec, output, batch_size, name)
        self._module, self._spec = module, spec
        self._output = spec.output if output is None else output
        self._arguments = {
            "module": module,
            "input": spec,
            "output": output,
            "device": None if device is None else str(device),
            "batch_size": batch_size,
            "name": name,
        }
        self._torch_device, self._dtype = _device_of(module, device), _dtype_of(module)
        self._preparation = Preparation(spec)
        self.input_shape = self._preparation.shape
        self.mixed_sizes = False
        self.device = str(self._torch_device)
        self.precision = str(self._dtype).removeprefix("torch.")
        self.protocol = spec.protocol
        self.runtime = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
        self.batch_size = batch_size
        kind = type(module).__qualname__
        self._label = f"TorchExtractor of {kind}"
        self._what = "its output" if self._output is None else f"its output {self._output}"
        self.identity = ":".join([name, kind, *([] if self._output is None else [str(self._output)]), _hash(module)])
        self._state = _versions(module)
        self.dims = self._tried()
        self.outputs = {FEATURES: self.dims}

    def _tried(self) -> int:
        """Return the length of a feature vector, from a run on one grey image."""
        grey = np.full((*(self._spec.size or _TRIAL_SIZE), 3), 128, np.uint8)
        images = self._preparation(grey)[None]
        try:
            returned = self._returned(images)
        except Exception as error:  # whatever the module raises
            shape = (self.batch_size, *images.shape[1:])
            raise ValueError(
                f"{self._label}: cannot be run on an input of shape {shape}: {type(error).__name__}: {error}"
            ) from error
        vectors = self._vectors(returned, 1)
        if not vectors.shape[1]:
            raise ValueError(f"{self._label}: gives {self._what} of no numbers for an image")
        if not np.isfinite(vectors[0]).all():
            raise ValueError(
                f"{self._label}: gives {self._what} that is not finite for a grey image: is this its InputSpec?"
            )
        self._check_repeats(images, vectors)
        return int(vectors.shape[1])

    def __repr__(self) -> str:
        """Return one line that tells networks apart."""
        return (
            f"{self._label}(dims={self.dims}, protocol={self.protocol!r}, device={self.device!r},"
            f" precision={self.precision!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the extractor anew, the module among it."""
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __copy__(self) -> Self:
        """Return the object itself: nothing that it computes changes it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the object itself."""
        return self

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image, uint8 (h, w, 3) RGB, into the network's input under the spec, (3, h', w') or (h', w', 3)."""
        return self._preparation(image)

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the network's input for one image to `out`, of ``input_shape``."""
        self._preparation(image, out)

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features, float32 (n, dims), of network inputs (n, ...)."""
        _check_mode(self._module)  # as a training loop may have switched it
        if _versions(self._module) != self._state:
            raise ValueError(
                f"{self._label}: its tensors were changed since: its identity is that of the old ones. Make a"
                " TorchExtractor of the module as it is now"
            )
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        features = np.empty((len(batch), self.dims), np.float32)
        for start in range(0, len(batch), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            found = self._vectors(self._returned(batch[chunk]), len(batch[chunk]))
            if found.shape[1] != self.dims:
                raise ValueError(
                    f"{self._label}: gives {self._what} of {found.shape[1]} numbers an image for inputs of"
                    f" {batch.shape[1:]}, expected {self.dims}"
                )
            features[chunk] = found
        return features

    def _check_repeats(self, images: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
        """Raise ValueError if one image has other features in another run, beside other images."""
        beside = np.repeat(images, self.batch_size, axis=0)
        beside[1:] *= np.linspace(0.2, 0.8, self.batch_size - 1, dtype=np.float32).reshape(-1, 1, 1, 1)
        again = self._vectors(self._returned(beside), 1)
        scale = float(np.abs(vectors).max())
        moved = float(np.abs(again - vectors).max()) if again.shape == vectors.shape else np.inf
        if not moved <= _NOISE * scale:
            raise ValueError(
                f"{self._label}: gives one image other {self._what} in another run, beside other images (by {moved:.2g}"
                f" of {scale:.2g}): expected none to be drawn, as by functional.dropout, or to depend on other images"
            )

    def _returned(self, images: NDArray[np.float32]) -> Any:
        """Return what the module returns of at most `batch_size` inputs, filled up to as many."""
        import torch

        filled = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
        filled[: len(images)] = images
        with torch.inference_mode():
            return self._module(torch.from_numpy(filled).to(self._torch_device, self._dtype))

    def _vectors(self, returned: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of the first `count` images of a run."""
        import torch

        found = self._tensor(returned)
        with torch.inference_mode():
            if found.layout != torch.strided:
                raise ValueError(f"{self._label}: expected {self._what} as a dense tensor, got {found.layout}")
            if found.dtype == torch.float64 or not found.is_floating_point():
                raise ValueError(
                    f"{self._label}: expected {self._what} as float32, or of 16 bits; got {found.dtype}: let it return"
                    " x.float()"
                )
            rows = found.to("cpu", torch.float32).contiguous()
        array: NDArray[np.float32] = np.asarray(np.from_dlpack(rows), np.float32)
        check_rank(self._label, self._what, array.shape, self._spec)
        if len(array) != self.batch_size:
            raise ValueError(
                f"{self._label}: gives {self._what} of shape {array.shape} for {self.batch_size} images: expected one"
                " vector an image"
            )
        vectors = select(self._label, self._what, array[:count], self._spec)
        return finish(self._label, self._what, vectors, self._spec)

    def _tensor(self, returned: Any) -> "torch.Tensor":
        """Return the tensor that is meant of what the module returned."""
        import torch

        found = returned
        if isinstance(self._output, int):
            places = returned if isinstance(returned, tuple | list) else ()
            if not -len(places) <= self._output < len(places):
                raise ValueError(
                    f"output: expected a place in what the module returns, {_described(returned)}; got {self._output}"
                )
            found = places[self._output]
        elif self._output is not None:
            is_mapping = isinstance(returned, Mapping) and self._output in returned
            found = returned[self._output] if is_mapping else getattr(returned, self._output, None)
        if not isinstance(found, torch.Tensor):
            raise ValueError(
                f"output: expected the key, the name or the place of a tensor in what the module returns,"
                f" {_described(returned)}; got {self._output!r}"
            )
        return found

    def __call__(self, images: Any, *, layout: Literal["nhwc", "nchw"] | None = None) -> NDArray[np.float32]:
        """Return the features of images, float32 (n, dims), in their order; see :class:`fastfid.OnnxExtractor`."""
        return features_of(self, images, layout)


def _check(module: object, spec: InputSpec, output: object, batch_size: object, name: object) -> None:
    """Raise TypeError or ValueError for arguments that are none."""
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    _check_mode(module)
    if isinstance(output, bool) or not isinstance(output, str | int | None):
        raise TypeError(f"output: expected a name or a place, got {output!r}")
    if None not in (output, spec.output) and output != spec.output:
        raise ValueError(f"output: expected {spec.output!r}, as the InputSpec says, or neither; got {output!r}")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"name: expected printable letters, got {name!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size!r}")


def _check_mode(module: "torch.nn.Module") -> None:
    """Raise ValueError if features would change from run to run, or with the images that come along."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, part in module.named_modules():
        where = f"module: its part {name}" if name else "module:"
        if part.training:
            raise ValueError(f"{where} is in training mode: expected module.eval(), which settles its batch norms")
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{where} has no running statistics, so that features depend on the other images of a run: expected a"
                " batch norm with track_running_stats=True"
            )


def _spec_of(input: object) -> InputSpec:
    if isinstance(input, InputSpec):
        return dataclasses.replace(input)
    if isinstance(input, str | os.PathLike):
        return InputSpec.load(input)
    raise TypeError(f"input: expected a fastfid.InputSpec or the path of its JSON file, got {type(input).__name__}")


def _tensors(module: "torch.nn.Module") -> "list[torch.Tensor]":
    return [*module.parameters(), *module.buffers()]


def _device_of(module: "torch.nn.Module", device: "str | torch.device | None") -> "torch.device":
    import torch

    found = {tensor.device for tensor in _tensors(module)}
    if any(one.type == "meta" for one in found):
        raise ValueError("module: has tensors on meta, without numbers: load a checkpoint first")
    if device is not None:
        try:
            wanted = torch.empty(0, device=device).device  # with the number of the device that torch takes
        except Exception as error:  # torch raises many kinds
            raise ValueError(f"device: expected one that this torch can use, got {device!r}: {error}") from None
        if found and found != {wanted}:
            there = ", ".join(sorted(map(str, found)))
            raise ValueError(
                f"device: the module's tensors are on {there}, expected {wanted}: module.to({str(wanted)!r})"
            )
        return wanted
    if len(found) > 1:
        raise ValueError(f"module: has tensors on {', '.join(sorted(map(str, found)))}: expected one device")
    return found.pop() if found else torch.device("cpu")


def _dtype_of(module: "torch.nn.Module") -> "torch.dtype":
    import torch

    found = {tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()}
    if len(found) > 1:
        names = ", ".join(sorted(map(str, found)))
        raise ValueError(f"module: has tensors of {names}: expected one dtype, as module.float() makes it")
    return found.pop() if found else torch.float32


def _hash(module: "torch.nn.Module") -> str:
    """Return the SHA-256 of a line for each tensor of the state dict, and its bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"module: its state has {name}, which is no tensor: export it to ONNX instead")
        if tensor.layout != torch.strided:
            raise ValueError(f"module: its state has {name}, a tensor of {tensor.layout}: expected dense tensors")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _versions(module: "torch.nn.Module") -> list[tuple[int, int]]:
    """Return what changes when a tensor of the module is written to, or replaced by another."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in _tensors(module)]


def _described(returned: object) -> str:
    kind = type(returned).__name__
    if isinstance(returned, Mapping):
        return f"a {kind} of {', '.join(map(str, returned))}"
    return f"a {kind} of {len(returned)}" if isinstance(returned, tuple | list) else f"a {kind}"
