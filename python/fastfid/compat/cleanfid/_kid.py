"""The Kernel Inception Distance of features, folders and generators."""

import os
from typing import Any

from numpy.typing import NDArray

from fastfid.compat.cleanfid import features
from fastfid.compat.cleanfid._network import Model, PathLike
from fastfid.compat.cleanfid._readers import draw_like_a_data_loader, get_folder_features, get_model_features, say
from fastfid.compat.cleanfid.resize import check_mode
from fastfid.metrics.kernel import kid

__all__ = ["compute_kid", "kernel_distance"]


def kernel_distance(
    feats1: NDArray[Any], feats2: NDArray[Any], num_subsets: int = 100, max_subset_size: int = 1000, seed: int = 0
) -> float:
    """Return the Kernel Inception Distance (Bińkowski et al. 2018): the unbiased MMD^2 under (x . y / d + 1)^3.

    Parameters
    ----------
    feats1, feats2 : ndarray, shape (n1, d) and (n2, d)
    num_subsets : int
        Number of random subsets to average over.
    max_subset_size : int
        Upper limit of the subset size. A subset has min(max_subset_size, n1, n2) rows.
    seed : int
        Seed of the random subsets. clean-fid draws the subsets from NumPy's global generator, and draws these subsets
        after ``np.random.seed(seed)``.

    Raises
    ------
    ValueError
        A side has fewer than two rows, or the dimensions differ.
    fastfid.NumericalError
        A feature is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
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
    # clean-fid draws of the second side first. Products are float64, also of float32 features.
    return kid(feats2, feats1, subsets=num_subsets, subset_size=m, seed=seed).value


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
    """Return the Kernel Inception Distance of two sides, given as for :func:`compute_fid`.

    Parameters
    ----------
    seed : int
        Seed of the random subsets; see :func:`kernel_distance`.
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
    model = features.build_feature_extractor(mode, device, use_dataparallel)

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
        rows: NDArray[Any] = get_model_features(
            gen, model, mode, z_dim, num_gen, batch_size, device, "KID model: ", verbose
        )
        return rows

    def reference() -> NDArray[Any]:
        rows: NDArray[Any] = features.get_reference_statistics(
            dataset_name, dataset_res, mode, split=dataset_split, metric="KID", stats_folder=stats_folder
        )
        return rows

    if fdir1 is not None and fdir2 is not None:
        say(verbose, "compute KID between two folders")
        return kernel_distance(folder(fdir1), folder(fdir2), seed=seed)
    if fdir1 is not None:
        say(verbose, f"compute KID of a folder with {dataset_name} statistics")
        return kernel_distance(reference(), folder(fdir1), seed=seed)
    if gen is not None and fdir2 is not None:
        say(verbose, "compute KID of a model, using references in fdir2")
        references = folder(fdir2)
        draw_like_a_data_loader()
        return kernel_distance(references, generated(), seed=seed)
    if gen is not None:
        say(verbose, f"compute KID of a model with {dataset_name}-{dataset_res} statistics")
        return kernel_distance(reference(), generated(), seed=seed)
    raise ValueError("invalid combination of directories and models entered")
