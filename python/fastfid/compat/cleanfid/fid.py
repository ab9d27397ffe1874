"""``cleanfid.fid``: FID and KID of folders, zip files and generators.

Numbers and printed lines are clean-fid's (0.1.35). What is better: the subsets of KID are seeded, zip files are read
in the order of their names, statistics are kept in the user cache and not inside the package, and the default device
is one that exists.
"""

import contextlib
import glob
import os
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import _core
from fastfid._console import warn
from fastfid._files import atomic_file, open_regular
from fastfid.compat._items import ItemSource, file_items
from fastfid.compat._torch import require_torch
from fastfid.compat.cleanfid.features import (
    InceptionFeatures,
    build_feature_extractor,
    check_model,
    get_reference_statistics,
    reference_statistics,
    stats_path,
)
from fastfid.compat.cleanfid.resize import build_resizer, check_mode
from fastfid.compat.pytorch_fid.fid_score import calculate_frechet_distance, distance
from fastfid.errors import ImageError, SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor
from fastfid.metrics.kid import mean_over_subsets
from fastfid.npz import read_header
from fastfid.pipeline import extract, only_features
from fastfid.provenance import provenance_of
from fastfid.sources import DEFAULT_MAX_PIXELS, ImageItem
from fastfid.sources.archive import ZipItem
from fastfid.sources.picture import Decoder
from fastfid.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EXTENSIONS",
    "compare_folders",
    "compute_fid",
    "compute_kid",
    "fid_folder",
    "fid_from_feats",
    "fid_model",
    "frechet_distance",
    "get_batch_features",
    "get_files_features",
    "get_folder_features",
    "get_model_features",
    "kernel_distance",
    "make_custom_stats",
    "remove_custom_stats",
    "test_stats_exists",
]

PathLike = str | os.PathLike[str]
Model = Callable[[Any], Any]
Transform = Callable[[NDArray[Any]], NDArray[Any]]

EXTENSIONS = {
    *("bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp", "npy"),
    *("JPEG", "JPG", "PNG"),
}


class _ArrayItem(ImageItem):
    """An image as a ``.npy`` array (h, w, 3) of any dtype."""

    def __init__(self, path: str):
        self.name = path

    def load(self) -> NDArray[Any]:
        """Return the array."""
        try:
            with open_regular(self.name) as file:
                header = read_header(file, self.name)
                shape, kind = header.shape, header.dtype.kind
                if len(shape) != 3 or shape[2] != 3 or kind not in "fiu":
                    raise ValueError(f"{self.name}: expected numbers of shape (h, w, 3), got {header.dtype} {shape}")
                if shape[0] * shape[1] > DEFAULT_MAX_PIXELS:
                    raise ValueError(f"{self.name}: has {shape[0] * shape[1]} pixels; at most {DEFAULT_MAX_PIXELS}")
                data = file.read(header.nbytes + 1)
        except OSError as error:
            raise ImageError(f"{self.name}: {error.strerror or error}") from error
        except ValueError as error:
            raise ImageError(str(error)) from error
        if len(data) != header.nbytes:
            raise ImageError(f"{self.name}: has {len(data)} bytes of data, its header declares {header.nbytes}")
        image = np.frombuffer(bytearray(data), header.dtype)  # a caller's transform may write to it
        return image.reshape(shape, order="F" if header.fortran_order else "C")


class _Network(FeatureExtractor):
    """A mode's resize and network, either of which may be the caller's own."""

    precision = "float32"
    mixed_sizes = True

    def __init__(
        self,
        model: Model,
        mode: str,
        device: Any,
        batch_size: int,
        transform: Transform | None,
        resize: Transform | None,
    ):
        self._model = model
        self._transform = transform
        self._resize = resize or build_resizer(mode)
        self._torch_device = device
        # A caller's functions need not be thread-safe.
        self.has_callbacks = transform is not None or resize is not None
        self.batch_size = batch_size

    def meta(self) -> dict[str, Any]:
        """Return the provenance of its features; nothing is known of a caller's own network or functions."""
        if self.has_callbacks or not isinstance(self._model, InceptionFeatures):
            return {}
        return provenance_of(self._model.engine)

    def prepare(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Transform and resize one image to (3, h', w') with values in [0, 255]."""
        if self._transform is not None:
            image = self._transform(image)
        return to_chw(self._resize(image))

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the model's features of a batch."""
        if isinstance(self._model, InceptionFeatures):
            return self._model.of_arrays(batch)
        torch = require_torch("a feature extractor of your own")
        return get_batch_features(torch.from_numpy(batch), self._model, torch_device(self._torch_device))


def to_chw(image: NDArray[Any]) -> NDArray[np.float32]:
    """Turn (h, w, 3) into float32 (3, h, w) as clean-fid does: uint8 goes through torchvision's ToTensor and back."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    if planes.dtype == np.uint8:
        return planes.astype(np.float32) / np.float32(255) * np.float32(255)
    return planes.astype(np.float32, copy=False)


def torch_device(device: Any) -> Any:
    """Return the torch device meant: the default is CUDA where there is a device."""
    torch = require_torch("device")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _is_zip(path: PathLike) -> bool:
    return os.path.isfile(path) and zipfile.is_zipfile(path)


def _list_files(fdir: str) -> list[str]:
    """Return the pictures and arrays of a folder with its sub-folders, or of a zip file, sorted by name."""
    if _is_zip(fdir):
        with zipfile.ZipFile(fdir) as archive:
            names = [name for name in archive.namelist() if os.path.splitext(name)[1][1:].lower() in EXTENSIONS]
    elif os.path.isdir(fdir):
        # One pass, so that no file counts twice where file names do not tell upper case from lower.
        found = glob.glob(os.path.join(glob.escape(fdir), "**", "*"), recursive=True)
        names = [name for name in found if os.path.splitext(name)[1][1:] in EXTENSIONS]
    else:
        raise ValueError(f"{fdir}: expected a folder or a zip file")
    if not names:
        raise ValueError(f"{fdir}: no images; expected files ending in {', '.join(sorted(EXTENSIONS))}")
    return sorted(names)


def frechet_distance(
    mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike, eps: float = 1e-6
) -> np.float64:
    """Return the squared Fréchet distance of two Gaussians.

    The same as :func:`fastfid.compat.pytorch_fid.fid_score.calculate_frechet_distance`, with its parameters and
    exceptions.

    Examples
    --------
    >>> float(frechet_distance([0.0], [[1.0]], [2.0], [[1.0]]))
    4.0
    """
    return calculate_frechet_distance(mu1, sigma1, mu2, sigma2, eps)


def kernel_distance(
    feats1: NDArray[Any], feats2: NDArray[Any], num_subsets: int = 100, max_subset_size: int = 1000, seed: int = 0
) -> float:
    """Return the Kernel Inception Distance (Bińkowski et al. 2018): the unbiased MMD^2 under (x . y / d + 1)^3.

    Parameters
    ----------
    feats1, feats2 : ndarray, shape (n1, d) and (n2, d)
    num_subsets : int
        Random subsets to average over.
    max_subset_size : int
        Rows of a subset: at most this, n1 and n2.
    seed : int
        Of the subsets. clean-fid draws them from NumPy's global generator, these same ones after
        ``np.random.seed(seed)``.

    Raises
    ------
    ValueError
        A side has fewer than two rows, or the dimensions differ.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((50, 8))
    >>> kernel_distance(x, x + 3) > kernel_distance(x, x + 1) > 0
    True
    """
    if feats1.ndim != 2 or feats2.ndim != 2 or feats1.shape[1] != feats2.shape[1]:
        raise ValueError(f"feats: expected shapes (n1, d) and (n2, d), got {feats1.shape} and {feats2.shape}")
    m = min(len(feats1), len(feats2), max_subset_size)
    if m < 2:
        raise ValueError(f"feats: the distance needs at least 2 rows on each side and in a subset, got {m}")
    if num_subsets < 1:
        raise ValueError(f"num_subsets: expected at least 1, got {num_subsets}")
    return mean_over_subsets(feats2, feats1, num_subsets, m, np.random.RandomState(seed))


def get_batch_features(batch: "Tensor", model: Model, device: Any) -> NDArray[Any]:
    """Return the model's features (n, d) of a batch (n, 3, h, w) in [0, 255].

    Examples
    --------
    >>> import torch
    >>> get_batch_features(torch.full((2, 3, 8, 8), 7.0), lambda x: x.mean(dim=(2, 3)), "cpu")
    array([[7., 7., 7.],
           [7., 7., 7.]], dtype=float32)
    """
    torch = require_torch("a feature extractor of your own")
    with torch.no_grad():
        features: NDArray[Any] = model(batch.to(device)).detach().cpu().numpy()
    return features


def get_files_features(
    l_files: Sequence[str],
    model: Model | None = None,
    num_workers: int | None = None,
    batch_size: int = 128,
    device: Any = None,
    mode: str = "clean",
    custom_fn_resize: Transform | None = None,
    description: str = "",
    fdir: PathLike | None = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
) -> NDArray[np.float32]:
    """Return the features (n, d) of files; of members of the zip file `fdir`, if it is one.

    The parameters are those of :func:`compute_fid`; `model` is its ``custom_feat_extractor``.

    Examples
    --------
    >>> get_files_features(["real/0.png", "real/1.png"], lambda x: x.mean(dim=(2, 3)), verbose=False).shape
    (2, 3)
    """
    model = model or build_feature_extractor(mode, device)
    batches: list[NDArray[Any]] = []
    network = _Network(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    _read(l_files, fdir, network, num_workers, description, verbose, lambda rows: batches.append(rows.copy()))
    return np.concatenate(batches)


def _read(
    files: Sequence[str],
    fdir: PathLike | None,
    network: _Network,
    num_workers: int | None,
    description: str,
    verbose: bool,
    consume: Callable[[NDArray[Any]], None],
) -> None:
    workers = 0 if network.has_callbacks else num_workers
    name = os.fspath(fdir) if fdir is not None else "files"
    with contextlib.ExitStack() as stack:
        if _is_zip(name):
            archive = stack.enter_context(zipfile.ZipFile(name))
            items: list[ImageItem] = [
                ZipItem(f"{name}/{member}", archive, archive.getinfo(member), Decoder()) for member in files
            ]
        else:
            items = [
                _ArrayItem(file) if file.endswith(".npy") else item
                for file, item in zip(files, file_items(files), strict=True)
            ]
        report = extract(
            ItemSource(name, items),
            network,
            only_features(consume),
            num_workers=workers,
            progress=verbose,
            description=description.removesuffix(" : "),
        )
        if remark := report.census.without_levels():
            warn(f"{name}: {remark}", SuspiciousInputWarning)


def get_folder_features(
    fdir: PathLike,
    model: Model | None = None,
    num_workers: int | None = None,
    num: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int = 128,
    device: Any = None,
    mode: str = "clean",
    custom_fn_resize: Transform | None = None,
    description: str = "",
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
) -> NDArray[np.float32]:
    """Return the features (n, d) of a folder with its sub-folders, or of a zip file.

    Parameters
    ----------
    num : int, optional
        Use the first `num` images only, in the order of their names or, with `shuffle`, in a random order.
    shuffle : bool
    seed : int
        Of that order.
    fdir, model, num_workers, batch_size, device, mode, custom_fn_resize, description, verbose, custom_image_tranform
        See :func:`compute_fid`; `model` is its ``custom_feat_extractor``.

    Raises
    ------
    ValueError
        There are no images, or there is no such folder.
    fastfid.ImageError
        An image cannot be read.

    Examples
    --------
    >>> get_folder_features("real", lambda x: x.mean(dim=(2, 3)), num=3).shape
    Found 4 images in the folder real
    (3, 3)
    """
    fdir = os.fspath(fdir)
    files = _folder_files(fdir, verbose)
    if num is not None:
        if shuffle:
            random.Random(seed).shuffle(files)
        files = files[:num]
    return get_files_features(
        files,
        model,
        num_workers,
        batch_size,
        device,
        mode,
        custom_fn_resize,
        description,
        fdir,
        verbose,
        custom_image_tranform,
    )


def _folder_files(fdir: str, verbose: bool) -> list[str]:
    files = _list_files(fdir)
    if verbose:
        print(f"Found {len(files)} images in the folder {fdir}")
    return files


def fid_from_feats(feats1: NDArray[Any], feats2: NDArray[Any]) -> np.float64:
    """Return the FID of two sets of features, (n1, d) and (n2, d); exact also where n <= d.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((5, 8))
    >>> round(float(fid_from_feats(x, x + 1)), 9)
    8.0
    """
    return distance(_fit(feats1, "feats1"), _fit(feats2, "feats2"))


def _fit(features: NDArray[Any], name: str) -> Statistics:
    if features.ndim != 2:
        raise ValueError(f"{name}: expected shape (n, d), got {features.shape}")
    moments = _core.Moments(features.shape[1])
    moments.update(features)
    return Statistics.from_moments(moments, name=name)


def get_model_features(
    G: Model,
    model: Model,
    mode: str = "clean",
    z_dim: int = 512,
    num_gen: int = 50_000,
    batch_size: int = 128,
    device: Any = None,
    desc: str = "FID model: ",
    verbose: bool = True,
    return_z: bool = False,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
) -> Any:
    """Return the features (num_gen, d) of generated images.

    Parameters
    ----------
    G : callable
        Takes z (batch_size, z_dim), standard normal from PyTorch's global generator, on `device`; returns images
        (at least batch_size, 3, h, w) with values in [0, 255].
    model : callable
        The feature extractor; see :func:`compute_fid`.
    return_z : bool
        Return (features, z) instead.
    mode, z_dim, num_gen, batch_size, device, desc, verbose, custom_image_tranform, custom_fn_resize
        See :func:`compute_fid`.

    Raises
    ------
    ValueError
        The generator returns fewer images than asked for, or others than (n, 3, h, w).

    Examples
    --------
    >>> grey = lambda z: z[:, :1, None, None].clamp(0, 1).expand(-1, 3, 8, 8) * 255
    >>> get_model_features(grey, lambda x: x.mean(dim=(2, 3)), num_gen=5, batch_size=4, verbose=False).shape
    (5, 3)
    """
    from tqdm import tqdm

    torch = require_torch("a generator")
    if num_gen < 1 or batch_size < 1:
        raise ValueError(f"num_gen, batch_size: expected at least 1, got {num_gen} and {batch_size}")
    device = torch_device(device)
    network = _Network(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    features, latents = [], []
    for _ in tqdm(range(-(-num_gen // batch_size)), desc=desc, disable=not verbose):
        with torch.no_grad():
            z = torch.randn((batch_size, z_dim)).to(device)
            images = G(z)
            if images.ndim != 4 or len(images) < batch_size or images.shape[1] != 3:
                raise ValueError(f"gen: expected images of shape ({batch_size}, 3, h, w), got {tuple(images.shape)}")
            if return_z:
                latents.append(z)
            if mode == "legacy_tensorflow":  # the network resizes by itself
                features.append(get_batch_features(images[:batch_size].float(), model, device))
                continue
            arrays = images[:batch_size].cpu().permute(0, 2, 3, 1).numpy()
            features.append(network.forward(np.stack([network.prepare(image) for image in arrays])))
    result = np.concatenate(features)[:num_gen]
    return (result, torch.cat(latents)) if return_z else result


def compare_folders(
    fdir1: PathLike,
    fdir2: PathLike,
    feat_model: Model,
    mode: str,
    num_workers: int | None = None,
    batch_size: int = 8,
    device: Any = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
) -> np.float64:
    """Return the FID of two folders or zip files; the parameters are those of :func:`compute_fid`.

    Examples
    --------
    >>> bool(compare_folders("real", "fake", lambda x: x.mean(dim=(2, 3)), "clean", verbose=False) > 0)
    True
    """
    network = _Network(feat_model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    sides = [_folder_statistics(fdir, network, num_workers, verbose) for fdir in (fdir1, fdir2)]
    return distance(*sides)


def fid_folder(
    fdir: PathLike,
    dataset_name: str,
    dataset_res: str | int,
    dataset_split: str,
    model: Model | None = None,
    mode: str = "clean",
    model_name: str = "inception_v3",
    num_workers: int | None = None,
    batch_size: int = 128,
    device: Any = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
    *,
    stats_folder: PathLike | None = None,
) -> np.float64:
    """Return the FID of a folder or zip file against reference statistics; see :func:`compute_fid`.

    Examples
    --------
    >>> np.savez("mine_clean_train_40.npz", mu=np.full(3, 128.0), sigma=np.eye(3))
    >>> means = lambda x: x.mean(dim=(2, 3))
    >>> bool(fid_folder("fake", "mine", 40, "train", means, verbose=False, stats_folder=".") > 0)
    True
    """
    reference = reference_statistics(dataset_name, dataset_res, mode, model_name, dataset_split, stats_folder)
    model = model or build_feature_extractor(mode, device)
    network = _Network(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    return distance(_folder_statistics(fdir, network, num_workers, verbose), reference)


def fid_model(
    G: Model,
    dataset_name: str,
    dataset_res: str | int,
    dataset_split: str,
    model: Model | None = None,
    model_name: str = "inception_v3",
    z_dim: int = 512,
    num_gen: int = 50_000,
    mode: str = "clean",
    num_workers: int | None = None,
    batch_size: int = 128,
    device: Any = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
    *,
    stats_folder: PathLike | None = None,
) -> np.float64:
    """Return the FID of a generator against reference statistics; see :func:`compute_fid`.

    Examples
    --------
    >>> np.savez("mine_clean_train_40.npz", mu=np.full(3, 128.0), sigma=np.eye(3))
    >>> grey = lambda z: z[:, :1, None, None].clamp(0, 1).expand(-1, 3, 8, 8) * 255
    >>> means = lambda x: x.mean(dim=(2, 3))
    >>> options = {"num_gen": 4, "batch_size": 4, "verbose": False, "stats_folder": "."}
    >>> bool(fid_model(grey, "mine", 40, "train", means, **options) > 0)
    True
    """
    reference = reference_statistics(dataset_name, dataset_res, mode, model_name, dataset_split, stats_folder)
    features = get_model_features(
        G,
        model or build_feature_extractor(mode, device),
        mode,
        z_dim,
        num_gen,
        batch_size,
        device,
        verbose=verbose,
        custom_image_tranform=custom_image_tranform,
        custom_fn_resize=custom_fn_resize,
    )
    return distance(_fit(features, "gen"), reference)


def _folder_statistics(fdir: PathLike, network: _Network, num_workers: int | None, verbose: bool) -> Statistics:
    fdir = os.fspath(fdir)
    files = _folder_files(fdir, verbose)
    moments: list[_core.Moments] = []

    def consume(rows: NDArray[Any]) -> None:
        if not moments:
            moments.append(_core.Moments(rows.shape[1]))
        moments[0].update(rows)

    _read(files, fdir, network, num_workers, f"FID {os.path.basename(fdir)}", verbose, consume)
    return Statistics.from_moments(moments[0], network.meta(), fdir)


# No test, but clean-fid's name.
def test_stats_exists(
    name: str,
    mode: str,
    model_name: str = "inception_v3",  # noqa: PT028
    metric: str = "FID",  # noqa: PT028
    *,
    stats_folder: PathLike | None = None,  # noqa: PT028
) -> bool:
    """Say whether :func:`make_custom_stats` has made these statistics.

    Examples
    --------
    >>> test_stats_exists("no such name", "clean")
    False
    """
    return stats_path(name, mode, "custom", "na", metric, model_name, stats_folder).exists()


def make_custom_stats(
    name: str,
    fdir: PathLike,
    num: int | None = None,
    mode: str = "clean",
    model_name: str = "inception_v3",
    num_workers: int | None = None,
    batch_size: int = 64,
    device: Any = None,
    verbose: bool = True,
    *,
    stats_folder: PathLike | None = None,
) -> None:
    """Keep the statistics of a folder under a name, for ``dataset_split="custom"``.

    Parameters
    ----------
    name : str
        Upper and lower case count as the same.
    fdir, num, mode, model_name, num_workers, batch_size, device, verbose
        See :func:`get_folder_features` and :func:`compute_fid`.
    stats_folder : path, optional
        Where to keep them; see :func:`fastfid.compat.cleanfid.features.stats_path`.

    Raises
    ------
    FileExistsError
        There are statistics of this name.
    ValueError, fastfid.ImageError
        See :func:`get_folder_features`.

    Examples
    --------
    >>> make_custom_stats("mine", "real", stats_folder="refs", verbose=False)
    saving custom KID stats to ...mine_clean_custom_na_kid.npz
    saving custom FID stats to ...mine_clean_custom_na.npz
    >>> test_stats_exists("mine", "clean", stats_folder="refs")
    True
    """
    fid_path, kid_path = _custom_paths(name, mode, model_name, stats_folder)
    if fid_path.exists():
        raise FileExistsError(
            f"The statistics file {name} already exists. Use remove_custom_stats function to delete it first."
        )
    model = build_feature_extractor(mode, device)
    description = f"custom stats: {os.path.basename(os.fspath(fdir))}"
    features = get_folder_features(
        fdir, model, num_workers, num, False, 0, batch_size, device, mode, None, description, verbose
    )
    moments = _core.Moments(features.shape[1])
    moments.update(features)
    statistics = Statistics.from_moments(
        moments, {**provenance_of(model.engine), "source": os.fspath(fdir)}, os.fspath(fdir)
    )
    fid_path.parent.mkdir(parents=True, exist_ok=True)
    print(f"saving custom KID stats to {kid_path}")
    with atomic_file(kid_path, overwrite=True) as stream:
        np.savez_compressed(stream, feats=features)
    print(f"saving custom FID stats to {fid_path}")
    statistics.save(fid_path)


def remove_custom_stats(
    name: str, mode: str = "clean", model_name: str = "inception_v3", *, stats_folder: PathLike | None = None
) -> None:
    """Delete what :func:`make_custom_stats` made.

    Raises
    ------
    FileNotFoundError
        There are no statistics of this name.

    Examples
    --------
    >>> np.savez("mine_clean_custom_na.npz", mu=np.zeros(3), sigma=np.eye(3))
    >>> remove_custom_stats("mine", stats_folder=".")
    >>> test_stats_exists("mine", "clean", stats_folder=".")
    False
    """
    fid_path, kid_path = _custom_paths(name, mode, model_name, stats_folder)
    if not fid_path.exists():
        raise FileNotFoundError(f"The stats file {name} does not exist.")
    kid_path.unlink(missing_ok=True)
    fid_path.unlink()


def _custom_paths(name: str, mode: str, model_name: str, stats_folder: PathLike | None) -> tuple[Path, Path]:
    fid_path, kid_path = (
        stats_path(name, mode, "custom", "na", metric, model_name, stats_folder) for metric in ("FID", "KID")
    )
    return fid_path, kid_path


def compute_kid(
    fdir1: PathLike | None = None,
    fdir2: PathLike | None = None,
    gen: Model | None = None,
    mode: str = "clean",
    num_workers: int | None = None,
    batch_size: int = 32,
    device: Any = None,
    dataset_name: str = "FFHQ",
    dataset_res: str | int = 1024,
    dataset_split: str = "train",
    num_gen: int = 50_000,
    z_dim: int = 512,
    verbose: bool = True,
    use_dataparallel: bool = True,
    *,
    seed: int = 0,
    stats_folder: PathLike | None = None,
) -> float:
    """Return the Kernel Inception Distance of two folders, or of a folder or generator against a reference.

    Parameters
    ----------
    seed : int
        Of the random subsets; see :func:`kernel_distance`.
    fdir1, fdir2, gen, mode, num_workers, batch_size, device, dataset_name, dataset_res, dataset_split, num_gen, z_dim
        See :func:`compute_fid`.
    verbose, use_dataparallel, stats_folder
        See :func:`compute_fid`.

    Raises
    ------
    ValueError, fastfid.ImageError, FileNotFoundError
        See :func:`compute_fid`.

    Examples
    --------
    >>> compute_kid("real", "real", verbose=False) < compute_kid("real", "fake", verbose=False)
    True
    """
    check_mode(mode)
    model = build_feature_extractor(mode, device, use_dataparallel)

    def folder(fdir: PathLike) -> NDArray[Any]:
        return get_folder_features(
            fdir,
            model,
            num_workers,
            batch_size=batch_size,
            device=device,
            mode=mode,
            description=f"KID {os.path.basename(os.fspath(fdir))} : ",
            verbose=verbose,
        )

    def generated() -> NDArray[Any]:
        assert gen is not None
        features: NDArray[Any] = get_model_features(
            gen, model, mode, z_dim, num_gen, batch_size, device, "KID model: ", verbose
        )
        return features

    def reference() -> NDArray[Any]:
        features: NDArray[Any] = get_reference_statistics(
            dataset_name, dataset_res, mode, split=dataset_split, metric="KID", stats_folder=stats_folder
        )
        return features

    if fdir1 is not None and fdir2 is not None:
        _say(verbose, "compute KID between two folders")
        return kernel_distance(folder(fdir1), folder(fdir2), seed=seed)
    if fdir1 is not None:
        _say(verbose, f"compute KID of a folder with {dataset_name} statistics")
        return kernel_distance(reference(), folder(fdir1), seed=seed)
    if gen is not None and fdir2 is not None:
        _say(verbose, "compute KID of a model, using references in fdir2")
        references = folder(fdir2)
        _draw_like_a_data_loader()
        return kernel_distance(references, generated(), seed=seed)
    if gen is not None:
        _say(verbose, f"compute KID of a model with {dataset_name}-{dataset_res} statistics")
        return kernel_distance(reference(), generated(), seed=seed)
    raise ValueError("invalid combination of directories and models entered")


def compute_fid(
    fdir1: PathLike | None = None,
    fdir2: PathLike | None = None,
    gen: Model | None = None,
    mode: str = "clean",
    model_name: str = "inception_v3",
    num_workers: int | None = None,
    batch_size: int = 32,
    device: Any = None,
    dataset_name: str = "FFHQ",
    dataset_res: str | int = 1024,
    dataset_split: str = "train",
    num_gen: int = 50_000,
    z_dim: int = 512,
    custom_feat_extractor: Model | None = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
    use_dataparallel: bool = True,
    *,
    stats_folder: PathLike | None = None,
) -> np.float64:
    """Return the FID of two folders, or of a folder or generator against a reference.

    Parameters
    ----------
    fdir1, fdir2 : path, optional
        Folders, searched with their sub-folders, or zip files. Without `fdir2`, the reference statistics called
        `dataset_name`, `dataset_res` and `dataset_split` are the other side.
    gen : callable, optional
        A generator instead of `fdir1`; see :func:`get_model_features`.
    mode : {"clean", "legacy_pytorch", "legacy_tensorflow"}
        How images become 299 x 299 input; the protocols ``clean``, ``pytorch-fid`` and ``tensorflow``.
    model_name : str
        "inception_v3".
    num_workers : int, optional
        Threads that decode and resize. Default: min(8, available CPUs).
    batch_size : int
        Images that the feature extractor or the generator is given at once.
    device : str or torch.device, optional
        Default: CUDA where there is a device, else the CPU.
    dataset_name, dataset_res, dataset_split
        See :func:`fastfid.compat.cleanfid.features.get_reference_statistics`.
    num_gen, z_dim : int
        Images to generate, and the length of the generator's input.
    custom_feat_extractor : callable, optional
        A network of your own: takes a float tensor (n, 3, h, w) in [0, 255] on `device`, returns a tensor (n, d).
    verbose : bool
        Print what is computed, and progress on stderr.
    custom_image_tranform : callable, optional
        Applied to each image (h, w, 3) before the resize. (The spelling is clean-fid's.)
    custom_fn_resize : callable, optional
        The resize itself, (h, w, 3) to (h', w', 3). These two are called for one image after another, in order.
    use_dataparallel : bool
        Accepted for clean-fid's sake.
    stats_folder : path, optional
        Where reference statistics are; see :func:`fastfid.compat.cleanfid.features.stats_path`.

    Raises
    ------
    ValueError
        Nothing or too much is given; a folder has no images; a feature extractor of your own would be compared with
        statistics of another network.
    fastfid.ImageError
        An image cannot be read.
    FileNotFoundError
        There are no such reference statistics, and they cannot be fetched.

    Examples
    --------
    >>> bool(compute_fid("real", "fake", verbose=False) > 0)
    True
    """
    check_mode(mode)
    if custom_feat_extractor is None:
        check_model(model_name)
        model: Model = build_feature_extractor(mode, device, use_dataparallel)
    else:
        model = custom_feat_extractor
        if fdir2 is None and (fdir1 is not None or gen is not None):
            raise ValueError(
                "custom_feat_extractor: the statistics of a dataset are of the Inception network, so their distance to "
                "other features means nothing; pass the reference images as fdir2"
            )
    options: dict[str, Any] = {
        "mode": mode,
        "batch_size": batch_size,
        "device": device,
        "verbose": verbose,
        "custom_image_tranform": custom_image_tranform,
        "custom_fn_resize": custom_fn_resize,
    }
    if fdir1 is not None and fdir2 is not None:
        _say(verbose, "compute FID between two folders")
        return compare_folders(fdir1, fdir2, model, num_workers=num_workers, **options)
    dataset = (dataset_name, dataset_res, dataset_split, model)
    if fdir1 is not None:
        _say(verbose, f"compute FID of a folder with {dataset_name} statistics")
        return fid_folder(fdir1, *dataset, num_workers=num_workers, stats_folder=stats_folder, **options)
    if gen is not None and fdir2 is not None:
        _say(verbose, "compute FID of a model, using references in fdir2")
        network = _Network(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
        reference = _folder_statistics(fdir2, network, num_workers, verbose)
        _draw_like_a_data_loader()
        features = get_model_features(gen, model, z_dim=z_dim, num_gen=num_gen, **options)
        return distance(_fit(features, "gen"), reference)
    if gen is not None:
        _say(verbose, f"compute FID of a model with {dataset_name}-{dataset_res} statistics")
        return fid_model(gen, *dataset, z_dim=z_dim, num_gen=num_gen, stats_folder=stats_folder, **options)
    raise ValueError("invalid combination of directories and models entered")


def _draw_like_a_data_loader() -> None:
    """Take from PyTorch's generator what clean-fid's DataLoader of fdir2 takes, so that z is the same for a seed."""
    torch = require_torch("a generator")
    torch.empty((), dtype=torch.int64).random_()


def _say(verbose: bool, text: str) -> None:
    if verbose:
        print(text)
