"""The disturbances of Heusel et al. (2017, figure 3), with the levels of the paper's own code, TTUR."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.sources.base import ImageItem, ImageSource

__all__ = [
    "CONTAMINATION",
    "DISTURBANCES",
    "SEED",
    "ContaminatedSource",
    "Disturbance",
    "DisturbedSource",
    "PickedSource",
    "by_key",
    "disturbed",
]

Image = NDArray[np.uint8]

SEED = 2017


@dataclass(frozen=True)
class Disturbance:
    """A disturbance of an image.

    Attributes
    ----------
    key : str
        Name on the command line and in records.
    name : str
        Title of its panel in the plot.
    unit : str
        Meaning of the level.
    levels : tuple of float
        Rising levels.
    apply : callable or None
        ``apply(image float64 (h, w, 3) in [0, 1], level, rng) -> image``; values outside [0, 1] are clipped afterwards.
        None: the disturbance is of the set, not of each image.
    most : float
        Largest level.
    """

    key: str
    name: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[NDArray[np.float64], float, np.random.Generator], NDArray[np.float64]] | None
    most: float = 1


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
    Disturbance("noise", "Gaussian noise", "share of noise", (0.25, 0.5, 0.75), _gaussian_noise),
    Disturbance("blur", "Gaussian blur", "sigma, pixels", (1, 2, 4), _gaussian_blur, most=1000),
    Disturbance("rectangles", "Black rectangles", "side, share of image", (0.25, 0.5, 0.75), _black_rectangles),
    Disturbance("swirl", "Swirl", "strength", (1, 2, 4), _swirl, most=1000),
    Disturbance("salt-and-pepper", "Salt and pepper", "share of pixels", (0.1, 0.2, 0.3), _salt_and_pepper),
)
# The sixth of the paper, which needs a second set.
CONTAMINATION = Disturbance("contamination", "Contamination", "share of foreign images", (0.25, 0.5, 0.75), None)


def by_key(key: str) -> Disturbance:
    """Return the disturbance with this name. ValueError if there is none."""
    known = {one.key: one for one in (*DISTURBANCES, CONTAMINATION)}
    if key not in known:
        raise ValueError(f"disturbances: expected names among {', '.join(known)}; got {key!r}")
    return known[key]


def disturb_image(image: Image, index: int, disturbance: Disturbance, level: float) -> Image:
    """Return a disturbed copy. Image `index` of a set gets the same random numbers at every level."""
    assert disturbance.apply is not None
    rng = np.random.default_rng((SEED, index))
    changed = disturbance.apply(image / 255.0, level, rng)
    return (np.clip(changed, 0, 1) * 255 + 0.5).astype(np.uint8)


def disturbed(images: Sequence[Image], disturbance: Disturbance, level: float) -> Iterator[Image]:
    """Yield the images with one disturbance. Every level uses the same random numbers."""
    for index, image in enumerate(images):
        yield disturb_image(image, index, disturbance, level)


class _DisturbedItem(ImageItem):
    __slots__ = ("_disturbance", "_index", "_item", "_level")

    def __init__(self, item: ImageItem, index: int, disturbance: Disturbance, level: float):
        self.name = item.name
        self._item, self._index, self._disturbance, self._level = item, index, disturbance, level

    def load(self) -> Image:
        return disturb_image(self._item.load(), self._index, self._disturbance, self._level)


class DisturbedSource(ImageSource):
    """Another source, each image of which is disturbed when it is decoded: in the threads of the pipeline."""

    def __init__(self, source: ImageSource, disturbance: Disturbance, level: float):
        self.name = f"{source.name}, {disturbance.name} {level:g}"
        self.notes = []
        self._source, self._disturbance, self._level = source, disturbance, level

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[ImageItem]:
        for index, item in enumerate(self._source):
            yield _DisturbedItem(item, index, self._disturbance, self._level)


class PickedSource(ImageSource):
    """The images of another source with these indices, in the order of the source.

    Parameters
    ----------
    source : ImageSource
    chosen : array_like of int
        Ascending.
    name : str
        Name of the picked set.
    """

    def __init__(self, source: ImageSource, chosen: NDArray[np.intp], name: str):
        self.name = name
        self.notes = []
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[ImageItem]:
        items = enumerate(self._source)
        for wanted in self._chosen.tolist():
            yield next(item for index, item in items if index == wanted)


class ContaminatedSource(ImageSource):
    """A source in which a share of the images is replaced by images of another one, each of them at most once.

    The images replaced at one level are replaced at higher levels too.

    Raises
    ------
    ValueError
        The other source has too few images.
    """

    def __init__(self, source: ImageSource, other: ImageSource, level: float):
        self.name = f"{source.name}, {CONTAMINATION.name} {level:g}"
        self.notes = []
        n = len(source)
        count = round(level * n)
        if count > len(other):
            raise ValueError(
                f"{other.name}: has {len(other):,} images, and a share of {level:g} of {n:,} images needs {count:,}:"
                " use fewer images of the set (num) or lower levels"
            )
        rng = np.random.default_rng(SEED)
        self._at = np.sort(rng.permutation(n)[:count])
        self._source = source
        self._foreign = PickedSource(other, np.sort(rng.permutation(len(other))[:count]), other.name)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[ImageItem]:
        foreign, replaced = iter(self._foreign), set(self._at.tolist())
        for index, item in enumerate(self._source):
            yield next(foreign) if index in replaced else item
