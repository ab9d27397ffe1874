"""Measure the error that each stage adds to the FID, and print the sizes in the table of docs/numerics.md.

This maintainers' command needs the test extra and the weights, and takes about two minutes.

    python -m tools.error_budget

Decoding, resizing and the network: JPEG files of photographs, two sides of 64, d = 2048. Moments and trace: Gaussian
rows with the spectrum of Inception features, two sides of 3 d and 4 d, d = 2048.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from PIL import Image

import fastfid
from benchmarks.environment import use_peers
from benchmarks.harness import Config
from benchmarks.images import photograph
from benchmarks.stage_resize import peer_inputs
from benchmarks.stage_trace import features as gaussian_rows
from fastfid import _core
from fastfid.features.inception_network import InceptionNetwork
from fastfid.features.inception_torch import FIDInception, load_weights
from fastfid.features.weights import find_weights
from fastfid.protocols import input_spec
from fastfid.sources import open_source

N = 64
D = 2048
BATCH = 8

Array = NDArray[np.float64]


def print_row(stage: str, size: str, change: float | None = None) -> None:
    """Print one line of the table. `change` is the change of the FID."""
    print(f"| {stage} | {size} | {'' if change is None else f'{abs(change):.1e}'} |", flush=True)


def distance(sides: list[NDArray[Any]]) -> float:
    """Return the FID of the rows of two sides."""
    statistics = []
    for rows in sides:
        moments = fastfid.Moments(rows.shape[1])
        moments.update(rows)
        statistics.append(fastfid.Statistics.from_moments(moments))
    return float(fastfid.frechet_distance(*statistics))


def largest_difference(a: list[NDArray[Any]], b: list[NDArray[Any]]) -> float:
    """Return the maximum of |a - b| over both sides."""
    return max(float(np.abs(x.astype(float) - y.astype(float)).max()) for x, y in zip(a, b, strict=True))


def folder(path: Path, seed: int) -> Path:
    """Write parts of photographs as JPEG files to a folder, and return the folder."""
    path.mkdir()
    for i in range(N):
        Image.fromarray(photograph(seed + i, 375, 281)).save(path / f"{i:03}.jpg", quality=90)
    return path


def images_and_network(temporary: Path) -> None:
    """Print the lines of decoding, resizing and the network."""
    folders = [folder(temporary / name, seed) for name, seed in (("a", 0), ("b", 1_000_000))]
    pillow = [[np.asarray(Image.open(file).convert("RGB")) for file in sorted(side.iterdir())] for side in folders]
    ours = [[item.load() for item in open_source(side)] for side in folders]
    apart = max(
        int(np.abs(a.astype(int) - b).max())
        for sides in zip(ours, pillow, strict=True)
        for a, b in zip(*sides, strict=True)
    )
    print_row("decode", f"{apart} grey levels from Pillow's own pixels", 0.0 if apart == 0 else None)

    weights = find_weights()
    network = InceptionNetwork(D, weights, "cpu", "float32").features
    wide = FIDInception(D)
    load_weights(wide, weights)
    wide.double()

    def in_batches(function, inputs):
        return [np.concatenate([function(side[i : i + BATCH]) for i in range(0, N, BATCH)]) for side in inputs]

    inputs = [_core.preprocess(side, input_spec("pytorch-fid")) for side in ours]
    _, peer_input = peer_inputs()["pytorch-fid"]
    theirs = [np.stack([peer_input(image.copy()) for image in side]) for side in pillow]  # writable for PyTorch
    features = in_batches(network, inputs)
    fid = distance(features)
    grey = 127.5 * largest_difference(inputs, theirs)
    print_row("resize", f"{grey:.1e} grey levels from PyTorch's", distance(in_batches(network, theirs)) / fid - 1)
    with torch.inference_mode():
        exact = in_batches(lambda x: wide(torch.from_numpy(x).double()).mean((2, 3)).numpy(), inputs)
    size = f"{largest_difference(features, exact):.1e} a feature from the network in float64"
    print_row("network", f"{size} (largest {max(x.max() for x in exact):.2g})", distance(exact) / fid - 1)


def moments() -> None:
    """Print the line of the moments, compared with two passes in extended precision over every 64th column."""
    rows = gaussian_rows(3 * D, D, 3)
    ours = fastfid.Moments(D)
    ours.update(rows)
    x = rows[:, ::64].astype(np.longdouble)
    x -= x.mean(0)
    exact = (x.T @ x) / (len(x) - 1)
    scale = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    error = float((np.abs(ours.covariance()[::64, ::64] - exact) / scale).max())
    print_row("moments", f"{error:.1e} of sqrt(s_ii s_jj) from two passes in extended precision")


def trace() -> None:
    """Print the lines of the trace, compared with LAPACK's singular values of M and of X Y^T."""
    sides = [gaussian_rows(k * D, D, k).astype(np.float64) for k in (3, 4)]
    sigmas = [np.cov(x, rowvar=False) for x in sides]
    (f1, e1), (f2, e2) = [_core._testing.factor(sigma) for sigma in sigmas]
    exact = float(scipy.linalg.svdvals(f1 @ f2.T).sum()) * 2.0 ** (e1 + e2)
    for method in ("auto", "eigen", "newton-schulz"):
        result = _core.trace_sqrt_product(*sigmas, method=method)
        if method == "eigen":  # the residual of both factors
            print_row("factors", f"{result.factor_residual:.1e} = ||Sigma - F^T F||_F / tr Sigma")
        width = (result.upper - result.lower) / exact
        off = abs(result.value - exact) / exact
        text = f"{off:.1e} relative, bracket {width:.1e}; {result.iterations} iterations, {result.gemms:.4g} products"
        print_row(f"T, {result.method}", text)

    def thin(x: Array, y: Array) -> float:
        return float(_core.frechet_distance(*(_core.Gaussian(rows.mean(0), rows=rows) for rows in (x, y))).value)

    x, y = (side[:1000] for side in sides)
    means, centred = (x.mean(0), y.mean(0)), (x - x.mean(0), y - y.mean(0))
    root = scipy.linalg.svdvals(centred[0] @ centred[1].T).sum() / 999
    fid = float(((means[0] - means[1]) ** 2).sum() + sum((c**2).sum() for c in centred) / 999 - 2 * root)
    print_row("thin", f"n = 1000; FID(x, x) = {thin(x, x):.1g}", thin(x, y) / fid - 1)
    covariances = [np.cov(side, rowvar=False) for side in (x, y)]
    for name, kind in (("singular", np.float64), ("singular, float32", np.float32)):
        given = [sigma.astype(kind).astype(np.float64) for sigma in covariances]
        result = _core.frechet_distance(*map(_core.Gaussian, means, given))
        half = (result.upper - result.lower) / 2 / fid
        print_row(name, f"the same sides by their covariances, proven to {half:.1e}", result.value / fid - 1)


def main() -> int:
    """Print the table. The last column is relative to the FID."""
    formatted = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(
        prog="python -m tools.error_budget", description=__doc__, formatter_class=formatted
    ).parse_args()
    use_peers(Config(cache=Path("benchmarks/.cache")), weights=False)
    print("| stage | size | change of the FID |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        images_and_network(Path(temporary))
    moments()
    trace()
    return 0


if __name__ == "__main__":
    sys.exit(main())
