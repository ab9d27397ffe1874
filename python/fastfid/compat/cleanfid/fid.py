"""``cleanfid.fid``: FID and KID of folders, zip files and generators.

Results and printed lines are those of clean-fid 0.1.35. There are four improvements. The subsets of KID are seeded. The
files of a zip are read in the order of their names. Statistics are stored in the user cache and not inside the package.
The default device is the CPU if there is no CUDA device.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import _core
from fastfid.compat.cleanfid import features
from fastfid.compat.cleanfid._custom import make_custom_stats, remove_custom_stats, test_stats_exists
from fastfid.compat.cleanfid._kid import compute_kid, kernel_distance
from fastfid.compat.cleanfid._network import Model, ModeNetwork, PathLike, Transform, get_batch_features
from fastfid.compat.cleanfid._readers import (
    EXTENSIONS,
    draw_like_a_data_loader,
    get_files_features,
    get_folder_features,
    get_model_features,
    list_folder,
    read,
    say,
)

# "X as X" marks names that scripts also use as cleanfid.fid.X.
from fastfid.compat.cleanfid.features import build_feature_extractor as build_feature_extractor
from fastfid.compat.cleanfid.features import check_model, reference_statistics
from fastfid.compat.cleanfid.features import get_reference_statistics as get_reference_statistics
from fastfid.compat.cleanfid.resize import build_resizer as build_resizer
from fastfid.compat.cleanfid.resize import check_mode
from fastfid.compat.pytorch_fid.fid_score import calculate_frechet_distance, distance
from fastfid.statistics import Statistics

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


def frechet_distance(
    mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike, eps: float = 1e-6
) -> np.float64:
    """Return the squared Fréchet distance of two Gaussians.

    The parameters and exceptions are those of
    :func:`fastfid.compat.pytorch_fid.fid_score.calculate_frechet_distance`.

    Examples
    --------
    >>> float(frechet_distance([0.0], [[1.0]], [2.0], [[1.0]]))
    4.0
    """
    return calculate_frechet_distance(mu1, sigma1, mu2, sigma2, eps)


def fid_from_feats(feats1: NDArray[Any], feats2: NDArray[Any]) -> np.float64:
    """Return the FID of two sets of features, (n1, d) and (n2, d). The result is exact for n <= d too.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((5, 8))
    >>> round(float(fid_from_feats(x, x + 1)), 9)
    8.0
    """
    return distance(_fit(feats1, "feats1"), _fit(feats2, "feats2"))


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
    """Return the FID of two folders or zip files. The parameters are those of :func:`compute_fid`.

    Examples
    --------
    >>> bool(compare_folders("real", "fake", lambda x: x.mean(dim=(2, 3)), "clean", verbose=False) > 0)
    True
    """
    network = ModeNetwork(feat_model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
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
    model = model or features.build_feature_extractor(mode, device)
    network = ModeNetwork(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
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
    rows = get_model_features(
        G,
        model or features.build_feature_extractor(mode, device),
        mode,
        z_dim,
        num_gen,
        batch_size,
        device,
        verbose=verbose,
        custom_image_tranform=custom_image_tranform,
        custom_fn_resize=custom_fn_resize,
    )
    return distance(_fit(rows, "gen"), reference)


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
    """Return the FID of two sides: two folders, or a folder or generator against a folder or reference statistics.

    Parameters
    ----------
    fdir1, fdir2 : path, optional
        Folders, searched with their sub-folders, or zip files. Without `fdir2`, the other side is the reference
        statistics named by `dataset_name`, `dataset_res` and `dataset_split`.
    gen : callable, optional
        A generator instead of `fdir1`; see :func:`get_model_features`.
    mode : {"clean", "legacy_pytorch", "legacy_tensorflow"}
        Preprocessing to the 299 x 299 input: the protocols ``clean``, ``pytorch-fid`` and ``tensorflow``.
    model_name : str
        "inception_v3".
    num_workers : int, optional
        Threads that decode and resize. Default: min(8, available CPUs).
    batch_size : int
        Number of images in one call of the feature extractor or the generator.
    device : str or torch.device, optional
        Default: CUDA if a CUDA device is available, else the CPU.
    dataset_name, dataset_res, dataset_split
        See :func:`fastfid.compat.cleanfid.features.get_reference_statistics`.
    num_gen, z_dim : int
        Number of images to generate, and length of the generator's input.
    custom_feat_extractor : callable, optional
        Another network: takes a float tensor (n, 3, h, w) in [0, 255] on `device` and returns a tensor (n, d).
    verbose : bool
        Print a description of the computation, and show progress on stderr.
    custom_image_tranform : callable, optional
        Function applied to each image (h, w, 3) before the resize. The spelling is clean-fid's.
    custom_fn_resize : callable, optional
        Function that resizes an image (h, w, 3) to (h', w', 3). `custom_image_tranform` and `custom_fn_resize` are
        called for one image after another, in order.
    use_dataparallel : bool
        Accepted for compatibility with clean-fid and ignored.
    stats_folder : path, optional
        Folder of the reference statistics; see :func:`fastfid.compat.cleanfid.features.stats_path`.

    Raises
    ------
    ValueError
        The combination of arguments is invalid, a folder has no images, or `custom_feat_extractor` would be compared
        with statistics of the Inception network.
    fastfid.ImageError
        An image cannot be read.
    FileNotFoundError
        The reference statistics do not exist and cannot be fetched.

    Examples
    --------
    >>> bool(compute_fid("real", "fake", verbose=False) > 0)
    True
    """
    check_mode(mode)
    if custom_feat_extractor is None:
        check_model(model_name)
        model: Model = features.build_feature_extractor(mode, device, use_dataparallel)
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
        say(verbose, "compute FID between two folders")
        return compare_folders(fdir1, fdir2, model, num_workers=num_workers, **options)
    dataset = (dataset_name, dataset_res, dataset_split, model)
    if fdir1 is not None:
        say(verbose, f"compute FID of a folder with {dataset_name} statistics")
        return fid_folder(fdir1, *dataset, num_workers=num_workers, stats_folder=stats_folder, **options)
    if gen is not None and fdir2 is not None:
        say(verbose, "compute FID of a model, using references in fdir2")
        network = ModeNetwork(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
        reference = _folder_statistics(fdir2, network, num_workers, verbose)
        draw_like_a_data_loader()
        rows = get_model_features(gen, model, z_dim=z_dim, num_gen=num_gen, **options)
        return distance(_fit(rows, "gen"), reference)
    if gen is not None:
        say(verbose, f"compute FID of a model with {dataset_name}-{dataset_res} statistics")
        return fid_model(gen, *dataset, z_dim=z_dim, num_gen=num_gen, stats_folder=stats_folder, **options)
    raise ValueError("invalid combination of directories and models entered")


def _folder_statistics(fdir: PathLike, network: ModeNetwork, num_workers: int | None, verbose: bool) -> Statistics:
    fdir = os.fspath(fdir)
    files = list_folder(fdir, verbose)
    moments: list[_core.Moments] = []

    def consume(rows: NDArray[Any]) -> None:
        if not moments:
            moments.append(_core.Moments(rows.shape[1]))
        moments[0].update(rows)

    read(files, fdir, network, num_workers, f"FID {os.path.basename(fdir)}", verbose, consume)
    return Statistics.from_moments(moments[0], network.meta(), fdir)


def _fit(rows: NDArray[Any], name: str) -> Statistics:
    if rows.ndim != 2:
        raise ValueError(f"{name}: expected shape (n, d), got {rows.shape}")
    moments = _core.Moments(rows.shape[1])
    moments.update(rows)
    return Statistics.from_moments(moments, name=name)
