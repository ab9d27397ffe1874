"""What an installed wheel must do in an environment that has no compiler and no test packages.

usage: python tests/smoke/smoke.py [WEIGHTS]. With Inception weights it also compares images.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import fastfid


class MeanColour(fastfid.FeatureExtractor):
    """A network of no weights: the mean of each channel, in whole grey levels."""

    dims, identity, protocol, precision, device, batch_size = 3, "mean colour", "none", "float32", "cpu", 2

    def prepare(self, image):
        """Return the means of an image, uint8 (h, w, 3)."""
        return np.floor(image.mean(axis=(0, 1)))

    def forward(self, batch):
        """Return the rows of a batch."""
        return batch.astype(np.float32)


def expect(holds: bool, what: str) -> None:
    """Leave with a message unless it holds."""
    if not holds:
        sys.exit(f"smoke: {what}")


def main() -> None:
    """Version, a distance, images, one error."""
    expect("site-packages" in fastfid.__file__, f"{fastfid.__file__} is not the installed package")
    expect(fastfid.__version__ == importlib.metadata.version("fastfid"), "two versions")
    distance = fastfid.frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]]))
    expect(distance == 10, f"the distance of two Gaussians in closed form is 10, got {distance}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        pictures = {}
        for side in ("a", "b"):
            (folder / side).mkdir()
            for i in range(3):
                pictures[side, i] = rng.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pictures[side, i]).save(folder / side / f"{i}.png")
        colours = MeanColour()
        rows = {side: np.array([colours.prepare(pictures[side, i]) for i in range(3)], np.float32) for side in "ab"}
        found = fastfid.compute_fid(folder / "a", folder / "b", extractor=colours)
        expected = fastfid.frechet_distance(*map(fastfid.Statistics.from_features, (rows["a"], rows["b"])))
        expect(found == expected, f"the distance of decoded pictures is {found}, of their arrays {expected}")
        command = [sys.executable, "-m", "fastfid"]
        done = subprocess.run([*command, "a", "nowhere"], cwd=folder, capture_output=True, text=True, check=False)
        expect(done.returncode == 1, f"a set that is not there: exit code {done.returncode}")
        expect("nowhere" in done.stderr and "Traceback" not in done.stderr, f"its message: {done.stderr}")
        done = subprocess.run([*command, "inspect", "a"], cwd=folder, capture_output=True, text=True, check=False)
        expect(done.returncode == 0 and "40 x 40" in done.stdout, f"inspect: {done.stdout}{done.stderr}")
        if len(sys.argv) > 1:
            command += ["a", "b", "--weights", sys.argv[1], "--dims", "64"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            fid = fastfid.compute_fid(str(folder / "a"), str(folder / "b"), dims=64, weights=sys.argv[1])
            expect(done.stdout.split() == ["FID:", str(fid)], f"FID: {fid} and {done.stdout}{done.stderr}")
    print("smoke: passed")


if __name__ == "__main__":
    main()
