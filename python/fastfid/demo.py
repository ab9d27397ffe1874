"""``fastfid demo``: disturb real photographs as in Heusel et al. (2017, figure 3), and show how the FID rises.

128 crops of scikit-image's colour pictures are compared with the same crops under five disturbances at three rising
levels each. The levels are those of the paper's reference implementation (TTUR).
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastfid._files import atomic_file, check_writable
from fastfid._progress import Progress, ProgressMode, show_progress
from fastfid.evaluation.evaluate import compute_statistics
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import frechet_distance
from fastfid.statistics import Statistics

__all__ = ["DISTURBANCES", "Disturbance", "clean_crops", "disturbed", "run"]

Image = NDArray[np.uint8]

NUM_CROPS = 128
CROP_SIZE = 192
SEED = 2017
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


@dataclass(frozen=True)
class Disturbance:
    """A disturbance of an image.

    Attributes
    ----------
    name : str
        Title of its panel in the plot.
    unit : str
        Meaning of the level.
    levels : tuple of float
        Three rising levels.
    apply : callable
        ``apply(image float64 (h, w, 3) in [0, 1], level, rng) -> image``; values outside [0, 1] are clipped afterwards.
    """

    name: str
    unit: str
    levels: tuple[float, float, float]
    apply: Callable[[NDArray[np.float64], float, np.random.Generator], NDArray[np.float64]]


def _gaussian_noise(image: NDArray[np.float64], level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return (1 - level) * image + level * rng.standard_normal(image.shape)


def _gaussian_blur(image: NDArray[np.float64], level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    from skimage.filters import gaussian

    return np.asarray(gaussian(image, sigma=level, channel_axis=-1))


def _black_rectangles(image: NDArray[np.float64], level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    height, width = (int(side * level) for side in image.shape[:2])
    for _ in range(5):
        top = rng.integers(0, image.shape[0] - height + 1)
        left = rng.integers(0, image.shape[1] - width + 1)
        image[top : top + height, left : left + width] = 0
    return image


def _swirl(image: NDArray[np.float64], level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    from skimage.transform import swirl

    # In scikit-image the rotation decays as exp(-5 r / (radius ln 2)). With a radius of twice the side, the rotation
    # covers the whole crop.
    return np.asarray(swirl(image, strength=level, radius=2 * image.shape[0], mode="reflect"))


def _salt_and_pepper(image: NDArray[np.float64], level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    spoilt = rng.random(image.shape[:2]) < level
    image[spoilt] = rng.integers(0, 2, (int(spoilt.sum()), 1))
    return image


DISTURBANCES = (
    Disturbance("Gaussian noise", "share of noise", (0.25, 0.5, 0.75), _gaussian_noise),
    Disturbance("Gaussian blur", "sigma, pixels", (1, 2, 4), _gaussian_blur),
    Disturbance("Black rectangles", "side, share of image", (0.25, 0.5, 0.75), _black_rectangles),
    Disturbance("Swirl", "strength", (1, 2, 4), _swirl),
    Disturbance("Salt and pepper", "share of pixels", (0.1, 0.2, 0.3), _salt_and_pepper),
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


def disturbed(crops: Sequence[Image], disturbance: Disturbance, level: float) -> Iterator[Image]:
    """Yield the crops with one disturbance. Every level uses the same random numbers."""
    for index, crop in enumerate(crops):
        rng = np.random.default_rng((SEED, index))
        image = disturbance.apply(crop / 255.0, level, rng)
        yield (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


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
    missing = [p for p, module in (("scikit-image", "skimage"), ("matplotlib", "matplotlib")) if not _has(module)]
    if missing:
        raise ImportError(f"the demo needs {' and '.join(missing)}: pip install '.[demo]' in fastfid's source folder")
    target = Path(output)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.absolute().parent}")
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


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(3.1, 1)))
    upper.suptitle(
        f"FID against disturbance: {NUM_CROPS} crops of real photographs (Inception pool3, n = {NUM_CROPS} < d = 2048)",
        fontsize=12,
    )
    panels = upper.subplots(1, len(DISTURBANCES), sharey=True)
    strips = lower.subplots(1, len(DISTURBANCES))
    for disturbance, panel, strip in zip(DISTURBANCES, panels, strips, strict=True):
        # Level 0 is the clean set, whose distance to itself is 0.
        panel.plot([0, *disturbance.levels], [0, *results[disturbance.name]], "o-", color="#1f5fa8", lw=2, ms=5)
        panel.set_title(disturbance.name, fontsize=11)
        panel.set_xlabel(disturbance.unit)
        panel.set_xticks([0, *disturbance.levels])
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        # One crop: clean, then at each level.
        crop = crops[SHOWN]
        images = [crop, *(next(disturbed([crop], disturbance, level)) for level in disturbance.levels)]
        strip.imshow(np.concatenate(images, axis=1))
        strip.axis("off")
    panels[0].set_ylabel("FID")
    with atomic_file(target, overwrite=True) as stream:
        figure.savefig(stream, format="png", dpi=110)
