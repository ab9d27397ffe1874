"""``pytorch_fid.fid_score``: FID of folders and statistics files.

Results, names, exceptions and printed lines are those of pytorch-fid 0.3.0. There are four improvements. Two statistics
files load no network. Images of one folder may differ in size. A folder without images raises an error that names the
folder. The square root of the covariances neither needs SciPy nor fails.
"""

import importlib
import os
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import _core, npz
from fastfid._checks import DIMS
from fastfid._console import warn
from fastfid._files import npz_path
from fastfid.compat._items import ItemSource, file_items
from fastfid.compat._torch import require_torch
from fastfid.errors import NumericalError, SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import frechet_distance
from fastfid.pipeline import extract, only_features
from fastfid.provenance import provenance_of
from fastfid.statistics import Statistics

if TYPE_CHECKING:
    from fastfid.compat.pytorch_fid.inception import InceptionV3

__all__ = [
    "IMAGE_EXTENSIONS",
    "ImagePathDataset",
    "InceptionV3",
    "calculate_activation_statistics",
    "calculate_fid_given_paths",
    "calculate_frechet_distance",
    "compute_statistics_of_path",
    "get_activations",
    "main",
    "parser",
    "save_fid_stats",
]

# An import under another name (pytorch_fid.fid_score) gives this module object, so that patches apply everywhere.
if __name__ not in (_NAME := "fastfid.compat.pytorch_fid.fid_score", "__main__"):
    sys.modules[__name__] = importlib.import_module(_NAME)

Paths = Sequence[str | os.PathLike[str]]

IMAGE_EXTENSIONS = {"bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp"}

parser = ArgumentParser(formatter_class=ArgumentDefaultsHelpFormatter)
parser.add_argument("--batch-size", type=int, default=50, help="Batch size to use")
parser.add_argument(
    "--num-workers",
    type=int,
    help="Number of threads that decode images. Defaults to `min(8, num_cpus)`",
)
parser.add_argument("--device", type=str, default=None, help="Device to use. Like cuda, cuda:0 or cpu")
parser.add_argument(
    "--dims",
    type=int,
    default=2048,
    choices=list(DIMS),
    help="Dimensionality of Inception features to use. By default, uses pool3 features",
)
parser.add_argument(
    "--save-stats",
    action="store_true",
    help="Generate an npz archive from a directory of samples. "
    "The first path is used as input and the second as output.",
)
parser.add_argument("path", type=str, nargs=2, help="Paths to the generated images or to .npz statistic files")


def __getattr__(name: str) -> Any:
    if name == "InceptionV3":  # needs PyTorch, so it is defined on first use
        from fastfid.compat.pytorch_fid import inception

        return inception.InceptionV3
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ImagePathDataset:
    """A dataset of image files as RGB pictures, for a ``torch.utils.data.DataLoader``.

    Parameters
    ----------
    files : sequence of paths
    transforms : callable, optional
        Applied to each ``PIL.Image.Image``.

    Examples
    --------
    >>> dataset = ImagePathDataset(["real/0.png", "real/1.png"], transforms=lambda picture: picture.size)
    >>> len(dataset), dataset[1]
    (2, (40, 40))
    """

    def __init__(self, files: Paths, transforms: Callable[[Any], Any] | None = None):
        self.files = files
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Any:
        from PIL import Image

        with Image.open(self.files[i]) as picture:
            image = picture.convert("RGB")
        return image if self.transforms is None else self.transforms(image)


class _Engine:
    """fastfid's network, in place of pytorch-fid's torch module. Reading the first images loads the network."""

    def __init__(self, dims: int, device: Any):
        self.dims = dims
        self.device = "auto" if device is None else device

    @cached_property
    def extractor(self) -> FeatureExtractor:
        return make_extractor(self.dims, "pytorch-fid", self.device)


class _CallersModel(FeatureExtractor):
    """A model of the user: images (n, 3, h, w) in [0, 1] to a list whose first element is a map (n, dims, h', w')."""

    identity = "caller's model"
    protocol = "none"
    precision = "caller's"
    mixed_sizes = True

    def __init__(self, model: Any, dims: int, device: Any, batch_size: int):
        self._torch = require_torch("a model of your own")
        self._model = model
        self.dims = dims
        self.device = device
        self.batch_size = batch_size
        if hasattr(model, "eval"):
            model.eval()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        # As torchvision's ToTensor: channels first, division by 255 in float32.
        return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)

    def forward(self, batch: NDArray[Any]) -> NDArray[Any]:
        torch = self._torch
        with torch.no_grad():
            maps = self._model(torch.from_numpy(batch).to(self.device))[0]
            if maps.size(2) != 1 or maps.size(3) != 1:
                maps = torch.nn.functional.adaptive_avg_pool2d(maps, output_size=(1, 1))
            features: NDArray[Any] = maps.squeeze(3).squeeze(2).cpu().numpy()
        return features


class _Pair(tuple[NDArray[Any], NDArray[Any]]):
    """The pair (mu, sigma) with the statistics that it comes from. The statistics contain the rows while n <= d."""

    statistics: Statistics


def get_activations(
    files: Paths,
    model: Any,
    batch_size: int = 50,
    dims: int = 2048,
    device: Any = "cpu",
    num_workers: int = 1,
) -> NDArray[np.float64]:
    """Return the features of image files.

    Parameters
    ----------
    files : sequence of paths
    model : callable
        Takes float32 images (n, 3, h, w) in [0, 1] and returns a list whose first element is a map (n, dims, h', w').
        The map is averaged over h' and w'. If the model has a method ``eval``, the method is called first.
    batch_size : int
        Largest number of images in one call of the model. The images of one call have equal sizes.
    dims : int
        Number of channels of the map.
    device : str or torch.device
        Device of the model.
    num_workers : int
        Number of threads that decode images. 0 decodes in the calling thread.

    Returns
    -------
    ndarray, shape (len(files), dims), float64

    Raises
    ------
    ValueError
        `files` is empty, or the model does not return `dims` channels.
    fastfid.ImageError
        A file cannot be read.

    Examples
    --------
    >>> get_activations(["real/0.png", "real/1.png"], model=lambda x: [x], batch_size=2, dims=3).shape
    (2, 3)
    """
    features = np.empty((len(files), dims))
    filled = 0

    def collect(rows: NDArray[Any]) -> None:
        nonlocal filled
        if rows.ndim != 2 or rows.shape[1] != dims:
            raise ValueError(f"model: expected features of shape (n, {dims}), got {rows.shape}")
        features[filled : filled + len(rows)] = rows
        filled += len(rows)

    _read(files, model, batch_size, dims, device, num_workers, collect)
    return features


def _read(
    files: Paths,
    model: Any,
    batch_size: int,
    dims: int,
    device: Any,
    num_workers: int,
    consume: Callable[[NDArray[Any]], None],
) -> None:
    if not files:
        raise ValueError("files: there are none")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if batch_size > len(files):
        print("Warning: batch size is bigger than the data size. Setting batch size to data size")
        batch_size = len(files)
    extractor = model.extractor if isinstance(model, _Engine) else _CallersModel(model, dims, device, batch_size)
    source = ItemSource("files", file_items(files))
    report = extract(source, extractor, only_features(consume), num_workers=num_workers, progress="auto")
    if remark := report.census.without_levels():
        warn(f"files: {remark}", SuspiciousInputWarning)


def calculate_frechet_distance(
    mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike, eps: float = 1e-6
) -> np.float64:
    """Return the squared Fréchet distance of two Gaussians (Dowson & Landau 1982).

    Parameters
    ----------
    mu1, mu2 : array_like, shape (d,)
    sigma1, sigma2 : array_like, shape (d, d)
        Covariances. Singular covariances are handled without modification.
    eps : float
        Ignored. pytorch-fid adds it to the diagonals if its matrix square root fails.

    Returns
    -------
    numpy.float64

    Raises
    ------
    AssertionError
        The shapes differ.
    ValueError
        A matrix is not positive semi-definite ("Imaginary component ..."), or a value is not finite.

    Examples
    --------
    >>> float(calculate_frechet_distance([0, 0], [[1, 0], [0, 1]], [3, 4], [[1, 0], [0, 1]]))
    25.0
    """
    means = [np.atleast_1d(mu) for mu in (mu1, mu2)]
    covariances = [np.atleast_2d(sigma) for sigma in (sigma1, sigma2)]
    _check_shapes(means, covariances)
    return distance(*(Statistics(mu, sigma) for mu, sigma in zip(means, covariances, strict=True)))


def _check_shapes(means: Sequence[NDArray[Any]], covariances: Sequence[NDArray[Any]]) -> None:
    assert means[0].shape == means[1].shape, "Training and test mean vectors have different lengths"
    assert covariances[0].shape == covariances[1].shape, "Training and test covariances have different dimensions"


def distance(a: Statistics, b: Statistics) -> np.float64:
    """Return the distance of two statistics. Exceptions and their messages are pytorch-fid's."""
    _check_shapes((a.mu, b.mu), (a.sigma, b.sigma))
    try:
        return np.float64(frechet_distance(a, b))
    except NumericalError as error:
        imaginary = _imaginary_component(a.sigma @ b.sigma)
        if imaginary == 0:
            raise
        raise NumericalError(f"Imaginary component {imaginary}") from error


def _imaginary_component(product: NDArray[np.float64]) -> float:
    """Return the largest imaginary part of the square root of a matrix, which pytorch-fid reports."""
    values, vectors = np.linalg.eig(product.astype(complex))
    root = np.linalg.lstsq(vectors.T, (vectors * np.sqrt(values)).T, rcond=None)[0].T
    return float(np.abs(root.imag).max())


def calculate_activation_statistics(
    files: Paths,
    model: Any,
    batch_size: int = 50,
    dims: int = 2048,
    device: Any = "cpu",
    num_workers: int = 1,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean (dims,) and covariance (dims, dims) of the features of image files, float64.

    Parameters and exceptions are those of :func:`get_activations`. A single file raises ValueError too.

    Examples
    --------
    >>> files = ["real/0.png", "real/1.png"]
    >>> mu, sigma = calculate_activation_statistics(files, model=lambda x: [x], batch_size=2, dims=3)
    >>> mu.shape, sigma.shape
    ((3,), (3, 3))
    """
    moments = _core.Moments(dims)
    _read(files, model, batch_size, dims, device, num_workers, moments.update)
    meta = provenance_of(model.extractor) if isinstance(model, _Engine) else {}
    name = os.fspath(files[0]) if len(files) == 1 else "files"  # a single file raises an error that names the file
    statistics = Statistics.from_moments(moments, meta, name=name)
    pair = _Pair((statistics.mu, statistics.sigma))
    pair.statistics = statistics
    return pair


def compute_statistics_of_path(
    path: str | os.PathLike[str], model: Any, batch_size: int, dims: int, device: Any, num_workers: int = 1
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and covariance of the images of a folder, or those stored in an ``.npz``, in their stored dtypes.

    Raises
    ------
    ValueError
        The folder has fewer than two images with known extensions, or the file is not a statistics file.
    fastfid.ImageError
        An image cannot be read.

    Examples
    --------
    >>> np.savez("tiny.npz", mu=np.zeros(2), sigma=np.eye(2, dtype=np.float32))
    >>> mu, sigma = compute_statistics_of_path("tiny.npz", model=None, batch_size=1, dims=2, device="cpu")
    >>> mu, sigma.dtype
    (array([0., 0.]), dtype('float32'))
    """
    path = os.fspath(path)
    if path.endswith(".npz"):
        statistics = Statistics.load(path)
        mu_dtype, sigma_dtype = _stored_dtypes(path)
        pair = _Pair((statistics.mu.astype(mu_dtype, copy=False), statistics.sigma.astype(sigma_dtype, copy=False)))
        pair.statistics = statistics
        return pair
    files = sorted(
        file
        for extension in IMAGE_EXTENSIONS
        for file in Path(path).glob(f"*.{extension}")
        if not file.name.startswith("._")  # metadata files that macOS writes on other file systems
    )
    passed_over = sum(
        extension not in IMAGE_EXTENSIONS and extension.lower() in IMAGE_EXTENSIONS
        for extension in (file.suffix[1:] for file in Path(path).glob("*"))
    )
    if not files:
        known = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise ValueError(
            f"{path}: no images; expected a folder with files ending in {known} "
            f"(it has {passed_over} with upper-case extensions)"
        )
    if passed_over:
        warn(f"{path}: {passed_over} files with upper-case extensions were not read (nor does pytorch-fid read them)")
    return calculate_activation_statistics(files, model, batch_size, dims, device, num_workers)


def _stored_dtypes(path: str) -> tuple["np.dtype[Any]", "np.dtype[Any]"]:
    with npz.open_npz(path) as archive:
        dtypes = []
        for key in ("mu", "sigma"):
            with archive.stream(key) as stream:
                dtypes.append(npz.read_header(stream, f"{path}: {key}").dtype)
    return dtypes[0], dtypes[1]


def calculate_fid_given_paths(
    paths: Paths, batch_size: int, device: Any, dims: int, num_workers: int = 1
) -> np.float64:
    """Return the FID of two folders or ``.npz`` files.

    Raises
    ------
    RuntimeError
        A path does not exist ("Invalid path: ..."). Raised before any image is read.
    ValueError, fastfid.ImageError, fastfid.WeightsError
        A side has no images, or an image or the weights cannot be read.

    Examples
    --------
    >>> bool(calculate_fid_given_paths(["real", "fake"], batch_size=4, device="cpu", dims=64) > 0)
    True
    """
    for path in paths:
        if not os.path.exists(path):
            raise RuntimeError(f"Invalid path: {path}")
    model = _Engine(dims, device)
    first, second = (
        _statistics(compute_statistics_of_path(os.fspath(path), model, batch_size, dims, device, num_workers))
        for path in (paths[0], paths[1])
    )
    return distance(first, second)


def _statistics(pair: tuple[NDArray[Any], NDArray[Any]]) -> Statistics:
    """Return the statistics of a pair (mu, sigma). A function of the user may have made the pair."""
    return pair.statistics if isinstance(pair, _Pair) else Statistics(*pair)


def save_fid_stats(paths: Paths, batch_size: int, device: Any, dims: int, num_workers: int = 1) -> None:
    """Write the statistics of ``paths[0]`` to the ``.npz`` file ``paths[1]``.

    Raises
    ------
    RuntimeError
        The input does not exist ("Invalid path: ..."), or the output exists ("Existing output file: ...").

    Examples
    --------
    >>> save_fid_stats(["real", "real.npz"], batch_size=4, device="cpu", dims=64)
    Saving statistics for real
    >>> np.load("real.npz")["sigma"].shape
    (64, 64)
    """
    if not os.path.exists(paths[0]):
        raise RuntimeError(f"Invalid path: {paths[0]}")
    for output in (paths[1], npz_path(paths[1])):
        if os.path.exists(output):
            raise RuntimeError(f"Existing output file: {output}")
    print(f"Saving statistics for {paths[0]}")
    model = _Engine(dims, device)
    pair = compute_statistics_of_path(os.fspath(paths[0]), model, batch_size, dims, device, num_workers)
    _statistics(pair).save(paths[1])


def main() -> None:
    """Run the command line of ``python -m pytorch_fid``.

    Examples
    --------
    >>> np.savez("a.npz", mu=[0.0], sigma=[[1.0]])
    >>> np.savez("b.npz", mu=[3.0], sigma=[[4.0]])
    >>> sys.argv = ["pytorch-fid", "a.npz", "b.npz"]
    >>> main()
    FID:  10.0
    """
    args = parser.parse_args()
    device = args.device or "auto"
    num_workers = args.num_workers if args.num_workers is not None else min(8, _core.num_threads())
    if args.save_stats:
        save_fid_stats(args.path, args.batch_size, device, args.dims, num_workers)
        return
    print("FID: ", calculate_fid_given_paths(args.path, args.batch_size, device, args.dims, num_workers))


if __name__ == "__main__":
    main()
