"""``fastfid demo``: disturb real photographs as in Heusel et al. (2017, figure 3), and show how the FID rises.

128 crops of scikit-image's colour pictures are compared with the same crops under five disturbances at three rising
levels each. The levels are those of the paper's reference implementation (TTUR).
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastfid._files import check_writable
from fastfid._progress import Progress, ProgressMode, show_progress
from fastfid.evaluation.evaluate import compute_statistics
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import frechet_distance
from fastfid.statistics import Statistics
from fastfid.study.disturbances import DISTURBANCES, SEED, Disturbance, disturbed
from fastfid.study.figures import PACKAGES, Curve, Panel, check_packages, draw_grid

__all__ = ["DISTURBANCES", "Disturbance", "clean_crops", "disturbed", "run"]

Image = NDArray[np.uint8]

NUM_CROPS = 128
CROP_SIZE = 192
SHOWN = 1  # index of the crop shown under the curves
# Colour pictures inside scikit-image's wheel: nothing is downloaded.
PICTURES = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "stereo_motorcycle",
    "retina",
    "immunohistochemistry",
    "hubble_deep_field",
)


def clean_crops() -> list[Image]:
    """Return the 128 crops, uint8 (192, 192, 3). Every call returns the same crops."""
    from skimage import data

    rng = np.random.default_rng(SEED)
    crops = []
    for name in PICTURES:
        loaded = getattr(data, name)()
        picture = loaded[0] if isinstance(loaded, tuple) else loaded  # the stereo pair is a tuple with its disparity
        for _ in range(NUM_CROPS // len(PICTURES)):
            top = rng.integers(0, picture.shape[0] - CROP_SIZE + 1)
            left = rng.integers(0, picture.shape[1] - CROP_SIZE + 1)
            crops.append(np.ascontiguousarray(picture[top : top + CROP_SIZE, left : left + CROP_SIZE]))
    return crops


def run(
    output: str | os.PathLike[str] = "fastfid-demo.png",
    *,
    device: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    progress: ProgressMode = "lines",
) -> dict[str, list[float]]:
    """Compute the FIDs, print the table on stdout, write the plot, and return the FIDs by disturbance.

    Raises
    ------
    ImportError
        scikit-image or matplotlib is missing. The message states what to install.
    OSError
        The plot cannot be written.
    """
    check_packages("the demo", PACKAGES)
    target = Path(output)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.absolute().parent}; make it first")
    check_writable(target)
    started = time.perf_counter()
    extractor = make_extractor(2048, device=device, weights=weights)
    crops = clean_crops()
    total = len(crops) * (1 + sum(len(d.levels) for d in DISTURBANCES))
    results: dict[str, list[float]] = {}
    with show_progress(total, progress, "demo", "image") as bar:

        def statistics(images: Iterator[Image] | Sequence[Image], what: str) -> Statistics:
            bar.set_description(what)
            return compute_statistics(_counted(images, bar), extractor=extractor)

        clean = statistics(crops, "clean")
        for disturbance in DISTURBANCES:
            results[disturbance.name] = [
                frechet_distance(clean, statistics(disturbed(crops, disturbance, level), disturbance.name))
                for level in disturbance.levels
            ]
    print(_table(results, clean, time.perf_counter() - started))
    _plot(target, results, crops)
    print(f"plot: {target}")
    return results


def _counted(images: Iterator[Image] | Sequence[Image], bar: Progress) -> Iterator[Image]:
    for image in images:
        yield image
        bar.update(1)


def _table(results: dict[str, list[float]], clean: Statistics, seconds: float) -> str:
    lines = [
        f"FID of {clean.n} disturbed crops against the same {clean.n} clean ones, {seconds:.0f} s in all.",
        f"n = {clean.n} < d = {clean.d}: at so small an n sampling bias dominates; compare only along a row.",
        "",
        f"{'disturbance':18} {'level':>6} {'FID':>9}   {'level':>6} {'FID':>9}   {'level':>6} {'FID':>9}   (level is)",
    ]
    for disturbance in DISTURBANCES:
        pairs = zip(disturbance.levels, results[disturbance.name], strict=True)
        cells = "   ".join(f"{level:6g} {value:9.3f}" for level, value in pairs)
        lines.append(f"{disturbance.name:18} {cells}   {disturbance.unit}")
    return "\n".join(lines)


def _plot(target: Path, results: dict[str, list[float]], crops: Sequence[Image]) -> None:
    """Draw one panel per disturbance with FID against level, and below it one crop at each level."""
    crop = crops[SHOWN]
    panels = [
        Panel(one.name, one.unit, [crop, *(next(disturbed([crop], one, level)) for level in one.levels)])
        for one in DISTURBANCES
    ]
    # Level 0 is the clean set, whose distance to itself is 0.
    curves = [Curve((0, *one.levels), (0, *results[one.name])) for one in DISTURBANCES]
    title = (
        f"FID against disturbance: {NUM_CROPS} crops of real photographs (Inception pool3, n = {NUM_CROPS} < d = 2048)"
    )
    draw_grid(target, title, panels, {"FID": curves}, (15, 4.6))
