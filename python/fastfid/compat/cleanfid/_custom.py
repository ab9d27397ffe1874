"""Statistics that a user stores under a name."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastfid import _core
from fastfid._files import atomic_file
from fastfid.compat.cleanfid import features
from fastfid.compat.cleanfid._network import PathLike
from fastfid.compat.cleanfid._readers import get_folder_features
from fastfid.compat.cleanfid.features import stats_path
from fastfid.provenance import provenance_of
from fastfid.statistics import Statistics

__all__ = ["make_custom_stats", "remove_custom_stats", "test_stats_exists"]


# This is not a test: the name is clean-fid's.
def test_stats_exists(
    name: str,
    mode: str,
    model_name: str = "inception_v3",  # noqa: PT028
    metric: str = "FID",  # noqa: PT028
    *,
    stats_folder: PathLike | None = None,  # noqa: PT028
) -> bool:
    """Return whether statistics of :func:`make_custom_stats` with this name and mode exist.

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
    """Store the statistics of a folder under a name, for ``dataset_split="custom"``.

    Parameters
    ----------
    name : str
        Name of the statistics. Case is ignored.
    fdir, num, mode, model_name, num_workers, batch_size, device, verbose
        See :func:`get_folder_features` and :func:`compute_fid`.
    stats_folder : path, optional
        Folder of the statistics; see :func:`fastfid.compat.cleanfid.features.stats_path`.

    Raises
    ------
    FileExistsError
        Statistics of this name exist.
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
    model = features.build_feature_extractor(mode, device)
    description = f"custom stats: {os.path.basename(os.fspath(fdir))}"
    rows = get_folder_features(
        fdir, model, num_workers, num, False, 0, batch_size, device, mode, None, description, verbose
    )
    moments = _core.Moments(rows.shape[1])
    moments.update(rows)
    statistics = Statistics.from_moments(
        moments, {**provenance_of(model.engine), "source": os.fspath(fdir)}, os.fspath(fdir)
    )
    fid_path.parent.mkdir(parents=True, exist_ok=True)
    print(f"saving custom KID stats to {kid_path}")
    with atomic_file(kid_path, overwrite=True) as stream:
        np.savez_compressed(stream, feats=rows)
    print(f"saving custom FID stats to {fid_path}")
    statistics.save(fid_path)


def remove_custom_stats(
    name: str, mode: str = "clean", model_name: str = "inception_v3", *, stats_folder: PathLike | None = None
) -> None:
    """Delete the statistics that :func:`make_custom_stats` stored under a name.

    Raises
    ------
    FileNotFoundError
        Statistics of this name do not exist.

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
