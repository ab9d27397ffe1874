"""Export the ONNX skeletons of the FID Inception network, and the data that goes with them.

This maintainers' command needs torch, onnx and onnxscript (the `export` extra). It writes these files to
``python/fastfid/features/skeletons/``:

- ``inception-DIMS.onnx``: the graph up to the feature map of one stage, without weights. Every initializer is declared
  as external data, so that ONNX Runtime takes it from the program (``SessionOptions.add_external_initializers``). The
  graph of 2048 has a second output, the spatial features of the sFID.
- ``inception-DIMS-float16.onnx``: the graph in float16, from the image to the map.
- ``convolutions.json``: name, weight shape (O, I, H, W) and first dims of the 94 convolutions, in network order.
- ``fingerprint.npz`` (with ``--fingerprint``, which needs the weights): the outputs for one fixed input, computed by
  the PyTorch definition in float64. A session must reproduce these outputs before it is used.

    python tools/export_inception.py [--output FOLDER] [--fingerprint]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from fastfid._checks import DIMS
from fastfid.extractor import SPATIAL
from fastfid.features.inception_network import (
    SKELETON_DTYPES,
    SPATIAL_CHANNELS,
    SPATIAL_LAYER,
    fingerprint_input,
    skeleton_name,
)
from fastfid.features.inception_torch import FIDInception, convolutions, load_weights

SKELETONS = Path(__file__).parents[1] / "python" / "fastfid" / "features" / "skeletons"


def fold_batch_norm(network: nn.Module) -> None:
    """Replace every convolution and its batch norm by one convolution with bias, with undefined values.

    The skeleton has no weights. fastfid folds the batch norms into the weights when it loads them
    (features/inception_network.py).
    """
    for _, layer in convolutions(network):
        c = layer.conv
        layer.conv = nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, bias=True)  # type: ignore[arg-type]
        layer.bn = nn.Identity()  # type: ignore[assignment]


def skeleton(dims: int, dtype: str = "float32") -> onnx.ModelProto:
    """Return the graph from `image` (n, 3, h, w) to `map` (n, dims, h', w'), every initializer external and absent.

    `dtype`, float32 or float16, is the dtype of the image, the weights and the outputs. The graph of 2048 also has the
    output of :func:`add_spatial`.
    """
    network = FIDInception(dims)
    fold_batch_norm(network)
    network.to(getattr(torch, dtype))
    # Sizes that differ from each other and from every constant of the network, so that no axis is taken for another.
    example = torch.zeros(2, 3, 203, 211, dtype=getattr(torch, dtype))
    n, h, w = (torch.export.Dim(name, min=low) for name, low in (("n", 1), ("h", 75), ("w", 75)))
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["image"],
        output_names=["map"],
        dynamic_shapes=({0: n, 2: h, 3: w},),
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    assert program is not None
    model = strip(program.model_proto)
    if dims == DIMS[-1]:
        add_spatial(model.graph)
    return model


def add_spatial(graph: onnx.GraphProto) -> None:
    """Add the output `spatial` (n, h'' w'' 7): the first channels of one branch, in the order row, column, channel.

    ONNX Runtime computes a whole graph whatever it is asked for, so this part must take images of any size.
    """
    (convolution,) = (node for node in graph.node if f"{SPATIAL_LAYER}.conv.weight" in node.input)
    (activation,) = (node for node in graph.node if node.input[0] == convolution.output[0])
    assert activation.op_type == "Relu"
    node = onnx.helper.make_node
    bounds = {"spatial_first": 0, "spatial_end": SPATIAL_CHANNELS, "spatial_axis": 1}
    graph.node.extend(node("Constant", [], [name], value_ints=[value]) for name, value in bounds.items())
    graph.node.append(node("Slice", [activation.output[0], *bounds], ["spatial_channels"]))
    graph.node.append(node("Transpose", ["spatial_channels"], ["spatial_nhwc"], perm=[0, 2, 3, 1]))
    graph.node.append(node("Flatten", ["spatial_nhwc"], [SPATIAL], axis=1))
    dtype = graph.output[0].type.tensor_type.elem_type
    graph.output.append(onnx.helper.make_tensor_value_info(SPATIAL, dtype, ["n", "spatial_length"]))


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the weights, and all metadata of the exporter, from `model`."""
    graph = model.graph
    for tensor in graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        # ONNX requires a file name here. No file of this name exists: the values come from the program.
        tensor.external_data.add(key="location", value="weights-come-from-the-program")
        del tensor.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    for axis, name in ((2, "map_h"), (3, "map_w")):  # the exporter writes these sizes as formulas of h and w
        graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    del graph.value_info[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name, model.producer_version, graph.doc_string = "fastfid", "", ""
    return model


def convolution_table() -> list[tuple[str, list[int], int]]:
    """Return name, weight shape and first dims of every convolution in network order."""
    first = {name: dims for dims in reversed(DIMS) for name, _ in convolutions(FIDInception(dims))}
    return [(name, list(layer.conv.weight.shape), first[name]) for name, layer in convolutions(FIDInception())]


def fingerprint() -> dict[str, np.ndarray]:
    """Return the features of the fixed input for every dims, and its spatial features, in float64."""
    from fastfid.features.weights import find_weights

    weights = find_weights()
    x = torch.from_numpy(fingerprint_input()).double()
    features = {}
    kept: list[torch.Tensor] = []
    for dims in DIMS:
        network = FIDInception(dims)
        load_weights(network, weights)
        if dims == DIMS[-1]:
            layer = network.get_submodule(SPATIAL_LAYER)
            layer.register_forward_hook(lambda _, given, output: kept.append(output[0, :SPATIAL_CHANNELS]))
        with torch.inference_mode():
            features[str(dims)] = network.double()(x).mean((2, 3))[0].numpy()
    (channels,) = kept
    features[SPATIAL] = channels.permute(1, 2, 0).flatten().numpy()
    return features


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=SKELETONS)
    parser.add_argument("--fingerprint", action="store_true", help="also recompute fingerprint.npz (needs the weights)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for dims in DIMS:
        for dtype in SKELETON_DTYPES:
            model = skeleton(dims, dtype).SerializeToString(deterministic=True)
            (args.output / skeleton_name(dims, dtype)).write_bytes(model)
    table = ",\n ".join(json.dumps(row) for row in convolution_table())
    (args.output / "convolutions.json").write_text(f"[{table}]\n")
    if args.fingerprint:
        np.savez(args.output / "fingerprint.npz", **fingerprint())
    for path in sorted(args.output.iterdir()):
        print(f"{path.stat().st_size:8d}  {path.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
