"""The ONNX file of a known extractor, made from its original checkpoint by torch's exporter."""

import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastfid._files import check_writable
from fastfid.features.known.checkpoint import read_checkpoint
from fastfid.features.known.names import renamed
from fastfid.features.known.shapes import ConvNeXt, Transformer
from fastfid.features.known.table import KnownExtractor, find_known
from fastfid.features.onnx_model import OnnxExtractor
from fastfid.input_spec import spec_path

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Exported", "export_known", "load_network"]

# By how much features of ONNX Runtime may differ from torch's, relative to the largest: both sum in float32, in other
# orders, over up to 40 blocks.
_DIFFERENCE = 1e-3
_OPSET = 18


@dataclass(frozen=True)
class Exported:
    """What :func:`export_known` wrote.

    Attributes
    ----------
    row : KnownExtractor
    files : tuple of Path
        The ONNX file, the file of its tensors if they are apart, the spec.
    identity : str
        The identity of the extractor in statistics.
    difference : float
        Largest difference from the network in torch for one image, relative to the largest feature.
    """

    row: KnownExtractor
    files: tuple[Path, ...]
    identity: str
    difference: float


def load_network(row: KnownExtractor, checkpoint: str | os.PathLike[str]) -> "nn.Module":
    """Return the network in torch with the tensors of a checkpoint.

    Raises
    ------
    OSError, ValueError
        See :func:`~fastfid.features.known.checkpoint.read_checkpoint` and
        :func:`~fastfid.features.known.names.renamed`.
    """
    torch = _import_torch()
    from fastfid.features.known.networks.convolutional import VGG16, ConvNeXtV2
    from fastfid.features.known.networks.vision_transformer import VisionTransformer, resized_positions

    shape = row.shape
    with torch.device("meta"):
        if isinstance(shape, Transformer):
            network: Any = VisionTransformer(shape)
        else:
            network = ConvNeXtV2(shape) if isinstance(shape, ConvNeXt) else VGG16()

    def finish(name: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        trained = (1, shape.class_token + shape.trained_grid**2, shape.dim) if isinstance(shape, Transformer) else None
        if name != "pos_embed" or not isinstance(shape, Transformer) or tensor.shape != trained:
            return tensor
        resized: NDArray[np.float32] = resized_positions(torch.tensor(tensor), shape).numpy()
        return resized

    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    tensors = renamed(read_checkpoint(checkpoint), row.origin.namings, shapes, finish)
    network.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()}, assign=True)
    loaded: nn.Module = network.eval().requires_grad_(False)
    return loaded


def export_known(
    name: str, checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], *, overwrite: bool = False
) -> Exported:
    """Write the ONNX file of a known extractor, and its spec beside it.

    The graph takes images of the spec's size, any number at a time; the positions for that size are constants of it.
    Features of ONNX Runtime are compared with those of torch before the files get their names.

    Parameters
    ----------
    name : str
        Of the table.
    checkpoint : path-like
        The original file: safetensors, or a state dict.
    output : path-like
        The ONNX file, ``*.onnx``. Tensors of more than a few bytes go into ``*.onnx.data`` beside it.
    overwrite : bool
        Replace files that exist.

    Raises
    ------
    ImportError
        torch, onnx or onnxscript is missing.
    FileExistsError, OSError
        A file exists, or cannot be read or written.
    ValueError
        An unknown name, another checkpoint, or features that differ from torch's.
    """
    row = find_known(name)
    target = Path(output)
    if target.suffix != ".onnx" or not target.stem:
        raise ValueError(f"{target}: expected a file whose name ends in .onnx")
    spec = Path(spec_path(target))
    data = target.with_name(f"{target.name}.data")
    for path in (target, data, spec):
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(f"{path}: exists (--overwrite, overwrite=True, replaces it)")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}; make it first")
    check_writable(target)
    network = load_network(row, checkpoint)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        inside = Path(folder, target.name)
        _write(row, network, inside)
        row.spec.save(spec_path(inside))
        extractor = OnnxExtractor(inside, device="cpu")
        difference = _difference(row, network, extractor)
        if not difference <= _DIFFERENCE:
            raise ValueError(
                f"{target}: its features differ by {difference:.2g} of the largest from those of torch, expected at"
                f" most {_DIFFERENCE}: export with the versions of torch and onnxscript that fastfid[export] has"
            )
        written = [path for path in (data, target, spec) if Path(folder, path.name).exists()]
        for path in written:
            os.replace(Path(folder, path.name), path)
    return Exported(row, (target, *(path for path in written if path != target)), extractor.identity, difference)


def _import_torch() -> Any:
    try:
        import onnxscript  # noqa: F401  # type: ignore[import-not-found, unused-ignore]
        import torch
    except ImportError as error:
        raise ImportError(
            f"an export needs torch, onnx and onnxscript: pip install '.[export]' in fastfid's source folder ({error})"
        ) from None
    return torch


def _write(row: KnownExtractor, network: "nn.Module", target: Path) -> None:
    """Export the network. What depends on the machine, as traces of its source files, is left out of the file."""
    torch = _import_torch()
    assert row.spec.size is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, *row.spec.size),),
            input_names=["image"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "fastfid", ""
    program.save(target, external_data=True)


def _difference(row: KnownExtractor, network: "nn.Module", extractor: OnnxExtractor) -> float:
    """Return the largest difference of the features of one image of noise, relative to the largest feature."""
    torch = _import_torch()
    assert row.spec.size is not None
    image = np.random.default_rng(0).integers(0, 256, (*row.spec.size, 3), dtype=np.uint8)
    inputs = extractor.prepare(image)[None]
    with torch.inference_mode():
        expected: NDArray[np.float64] = network(torch.from_numpy(inputs)).double().numpy()
    found = extractor.forward(inputs).astype(np.float64)
    if row.spec.post != "none":  # of unit length, or a multiple of it
        expected *= np.linalg.norm(found) / np.linalg.norm(expected)
    return float(np.abs(found - expected).max() / np.abs(expected).max())
