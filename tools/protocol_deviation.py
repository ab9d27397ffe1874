"""Measure the deviation of the preprocessing protocols from the peers' code, and print the table of docs/protocols.md.

This maintainers' command needs the test extra, and takes one or two minutes.

    python -m tools.protocol_deviation
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import use_peers
from benchmarks.harness import Config
from benchmarks.images import photograph
from benchmarks.stage_resize import peer_inputs
from fastfid import _core
from fastfid.protocols import PROTOCOLS

SIZES = (
    *((1, 1), (1, 2), (2, 1), (3, 5), (17, 401), (32, 32), (75, 76), (256, 256), (299, 299), (298, 300), (299, 600)),
    *((375, 500), (512, 512), (767, 1023), (1080, 1920), (1, 4000), (4000, 1), (3000, 4000)),
)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Return uint8 noise, the most demanding picture, because all neighbours differ."""
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Return grey ramps: along x, along y, and a sawtooth along the diagonal."""
    y, x = np.mgrid[0:height, 0:width]
    levels = (x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256)
    return np.stack(levels, axis=2).astype(np.uint8)


def pictures() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield (kind, picture)."""
    for height, width in SIZES:
        yield f"noise, {len(SIZES)} sizes, 1 x 1 to 4000 x 3000", noise(height, width)
        yield f"ramps, {len(SIZES)} sizes", ramp(height, width)
        yield f"photographs, {len(SIZES)} sizes", photograph(1, width, height)
    for width in range(1, 4001):
        yield "noise, 1 pixel high, every width from 1 to 4000", noise(1, width)


def main() -> int:
    """Print the table, in grey levels."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    use_peers(Config(cache=Path("benchmarks/.cache")), weights=False)
    import torch

    torch.set_num_threads(1)
    peers = peer_inputs()
    worst: dict[str, dict[str, float]] = {}
    for kind, picture in pictures():
        row = worst.setdefault(kind, dict.fromkeys(peers, 0.0))
        for name, (_, peer_input) in peers.items():
            protocol = PROTOCOLS[name]
            difference = _core.preprocess([picture], protocol.input)[0].astype(np.float64) - peer_input(picture)
            grey_levels = protocol.divisor / protocol.factor  # per unit of the input
            row[name] = max(row[name], grey_levels * float(np.abs(difference).max()))
    print("| pictures | " + " | ".join(f"`{protocol}` ({name})" for protocol, (name, _) in peers.items()) + " |")
    print("|---" * (len(peers) + 1) + "|")
    for kind, row in worst.items():
        print(f"| {kind} | " + " | ".join(f"{value:.1e}" for value in row.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
