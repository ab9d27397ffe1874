"""Score a generator without writing files: ``python score_a_generator.py REAL``.

Anything that yields uint8 images, or batches of them, is a source: no image is kept, and only sums of features are.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import fastfid


def sample(n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return n smooth random images, uint8 (n, 64, 64, 3), in place of a trained generator."""
    coarse = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def batches(total: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `total` generated images in batches."""
    rng = np.random.default_rng(0)
    for start in range(0, total, size):
        yield sample(min(size, total - start), rng)


def main() -> None:
    """Print the FID of the generator against a folder, computed in one pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", help="a folder, zip file or statistics file")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--dims", type=int, default=2048, choices=[64, 192, 768, 2048])
    args = parser.parse_args()
    fid = fastfid.compute_fid(args.real, batches(args.images, size=32), dims=args.dims, progress=True)
    print(f"FID of {args.images} generated images: {fid:.4f}")


if __name__ == "__main__":
    main()
