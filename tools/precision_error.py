"""What each precision of the network does to features and to the FID, on parts of real photographs. Prints Markdown.

This maintainers' command needs the weights, torch and scikit-image, but no GPU.

- ``float16`` is the shipped float16 graph on ONNX Runtime's CPU provider. It rounds weights, image and every layer's
  output to float16 and sums in float32, as the tensor cores of a GPU do. The order of the sums differs.
- ``tf32`` is simulated: in the PyTorch definition, the weights and the input of each convolution are rounded to TF32's
  10 bits of mantissa, to nearest, ties away from zero. Sums are float32.

    python -m tools.precision_error [--n 192] [--dims 64 192 2048] [--largest]

Both sides of each FID are computed in the same precision. "mixed" is the FID between a set in float32 and the same set
in the other precision. This FID is not zero, so statistics of different precisions are refused. ``--largest`` prints
the largest output of any layer, compared with float16's largest number, 65504.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

import fastfid
from benchmarks.images import photograph
from fastfid import _core
from fastfid._checks import DIMS
from fastfid.features.inception_network import InceptionNetwork, fingerprint_input
from fastfid.features.inception_torch import FIDInception, convolutions, load_weights
from fastfid.features.weights import Weights, find_weights
from fastfid.precisions import PRECISIONS
from fastfid.protocols import input_spec

BATCH = 8


def round_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Return float32 values rounded to 10 bits of mantissa, to nearest, ties away from zero (cvt.rna.tf32.f32)."""
    return ((x.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def simulated_tf32(weights: Weights, dims: int) -> FIDInception:
    """Return the network with folded batch norms, in which the factors of each convolution are rounded to TF32."""
    network = FIDInception(dims)
    load_weights(network, weights)
    for _, layer in convolutions(network):
        # Folded as in fastfid, because the folded weights are rounded.
        fused = torch.nn.utils.fuse_conv_bn_eval(layer.conv.double(), layer.bn.double()).float()
        fused.weight.data = round_to_tf32(fused.weight.data)
        fused.register_forward_pre_hook(lambda _, args: (round_to_tf32(args[0].contiguous()),))
        layer.conv, layer.bn = fused, torch.nn.Identity()
    return network


def extractor(precision: str, dims: int, weights: Weights) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return a function that computes the features of prepared images in `precision`."""
    if precision != "tf32":
        return InceptionNetwork(dims, weights, "cpu", precision).features
    network = simulated_tf32(weights, dims)

    def features(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _core.spatial_mean(network(torch.from_numpy(batch)).numpy())

    return features


def statistics(rows: NDArray[np.float32]) -> fastfid.Statistics:
    """Return the Gaussian of features."""
    moments = fastfid.Moments(rows.shape[1])
    moments.update(rows)
    return fastfid.Statistics.from_moments(moments)


def largest_values(weights: Weights, images: list[NDArray[np.uint8]]) -> tuple[str, float, float]:
    """Return the layer with the largest output, this output, and the largest folded weight or bias."""
    network = FIDInception()
    load_weights(network, weights)
    seen: dict[str, float] = {}
    for name, layer in convolutions(network):
        fused = torch.nn.utils.fuse_conv_bn_eval(layer.conv, layer.bn)
        layer.conv, layer.bn = fused, torch.nn.Identity()
        # Before the ReLU, because this value must not overflow.
        fused.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, max(seen.get(name, 0.0), float(out.abs().max())))
        )
    with torch.inference_mode():
        for image in images:
            network(torch.from_numpy(_core.preprocess([image], input_spec("pytorch-fid"))))
    layer = max(seen, key=seen.__getitem__)
    constant = max(float(p.detach().abs().max()) for p in network.parameters())
    return layer, seen[layer], constant


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=192, help="images a side (default: 192)")
    parser.add_argument("--dims", type=int, nargs="+", choices=DIMS, default=[64, 192, 2048])
    parser.add_argument("--precision", nargs="+", choices=tuple(PRECISIONS)[1:], default=tuple(PRECISIONS)[1:])
    parser.add_argument("--largest", action="store_true", help="also print the largest value in the network")
    args = parser.parse_args()
    weights = find_weights()
    sides = [[photograph(seed + i, 256, 256) for i in range(args.n)] for seed in (0, 1_000_000)]
    if args.largest:
        name, value, constant = largest_values(
            weights, [*sides[0][:32], *sides[1][:32], np.full_like(sides[0][0], 255)]
        )
        print(f"largest value: {value:.4g} ({name}); largest weight or bias: {constant:.4g}; float16 holds 65504\n")
    print("| precision | dims | n a side | FID float32 | FID | change | error of a feature | fingerprint | mixed |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for dims in args.dims:
        rows = {}
        marks = {}
        for precision in ("float32", *args.precision):
            features = extractor(precision, dims, weights)
            marks[precision] = features(fingerprint_input())
            rows[precision] = [
                np.concatenate(
                    [
                        features(_core.preprocess(side[i : i + BATCH], input_spec("pytorch-fid")))
                        for i in range(0, args.n, BATCH)
                    ]
                )
                for side in sides
            ]
        expected = fastfid.frechet_distance(*map(statistics, rows["float32"]))
        for precision in args.precision:
            value = fastfid.frechet_distance(*map(statistics, rows[precision]))
            mixed = fastfid.frechet_distance(statistics(rows["float32"][0]), statistics(rows[precision][0]))
            error = max(float(np.abs(a - b).max()) for a, b in zip(rows["float32"], rows[precision], strict=True))
            mark = float(np.abs(marks[precision] - marks["float32"]).max())
            change = (value - expected) / expected
            print(
                f"| {precision} | {dims} | {args.n} | {expected:.6g} | {value:.6g} | {change:+.2e} | {error:.2g}"
                f" | {mark:.2g} | {mixed:.2g} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
