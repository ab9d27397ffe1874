"""``cleanfid.features``: the Inception network of each mode, and reference statistics by name."""

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._files import atomic_file, cache_folder
from fastfid.compat._torch import require_torch
from fastfid.compat.cleanfid.resize import MODES, check_mode
from fastfid.features.make import make_extractor
from fastfid.protocols import SIDE
from fastfid.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from fastfid.features.inception import InceptionV3

__all__ = ["InceptionFeatures", "build_feature_extractor", "get_reference_statistics", "stats_path"]

BASE_URL = "https://www.cs.cmu.edu/~clean-fid/stats"


class InceptionFeatures:
    """The Inception network of a mode, as a function of images (n, 3, h, w) with values in [0, 255].

    Modes ``clean`` and ``legacy_pytorch`` expect resized images. Mode ``legacy_tensorflow`` resizes the images itself.
    The first call loads the network.

    Examples
    --------
    >>> import torch
    >>> InceptionFeatures("legacy_tensorflow", "cpu")(255 * torch.rand(1, 3, 40, 60)).shape
    torch.Size([1, 2048])
    """

    def __init__(self, mode: str, device: Any = None):
        check_mode(mode)
        self.mode = mode
        self.device = device
        self._engine: InceptionV3 | None = None

    @property
    def engine(self) -> "InceptionV3":
        """The network. The first access loads it."""
        if self._engine is None:
            device = "auto" if self.device is None else self.device
            self._engine = make_extractor(2048, MODES[self.mode], device)
        return self._engine

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return the features (n, 2048) of a float tensor, on the tensor's device."""
        torch = require_torch("calling the network")
        features: Tensor = torch.from_numpy(self.of_arrays(x.detach().float().cpu().numpy())).to(x.device)
        return features

    def of_arrays(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features, float32 (n, 2048), of a float32 array."""
        if self.mode == "legacy_pytorch":
            return self.engine.features(2 * (images / np.float32(255)) - 1)
        if self.mode == "legacy_tensorflow":
            channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1), dtype=np.float32)
            resized = np.stack([_core.resize(image, SIDE, SIDE, "bilinear-tf1") for image in channels_last])
            images = resized.transpose(0, 3, 1, 2)
        elif images.shape[2:] != (SIDE, SIDE):
            raise ValueError(f"images: mode clean expects shape (n, 3, 299, 299), got {images.shape}")
        return self.engine.features((images - np.float32(128)) / np.float32(128))


def build_feature_extractor(mode: str, device: Any = None, use_dataparallel: bool = True) -> InceptionFeatures:
    """Return the Inception network of a mode.

    Parameters
    ----------
    mode : {"clean", "legacy_pytorch", "legacy_tensorflow"}
    device : str or torch.device, optional
        Default: CUDA if a CUDA device is available, else the CPU.
    use_dataparallel : bool
        Accepted for compatibility with clean-fid and ignored.

    Raises
    ------
    ValueError
        `mode` has another value.

    Examples
    --------
    >>> build_feature_extractor("clean").mode
    'clean'
    """
    return InceptionFeatures(mode, device)


def stats_path(
    name: str,
    mode: str,
    split: str,
    res: str | int,
    metric: str = "FID",
    model_name: str = "inception_v3",
    stats_folder: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the path of the statistics of this name. The file need not exist.

    The folder is `stats_folder`, else the folder named by ``FASTFID_CLEANFID_STATS``, else a folder in the user cache.

    Examples
    --------
    >>> stats_path("FFHQ", "clean", "trainval", 256, stats_folder="refs").name
    'ffhq_clean_trainval_256.npz'
    """
    check_mode(mode)
    check_model(model_name)
    if metric not in ("FID", "KID"):
        raise ValueError(f"metric: expected FID or KID, got {metric!r}")
    folder = stats_folder or os.environ.get("FASTFID_CLEANFID_STATS") or cache_folder() / "cleanfid-stats"
    kid = "_kid" if metric == "KID" else ""
    return Path(folder) / f"{name}_{mode}_{split}_{res}{kid}.npz".lower()


def check_model(model_name: str) -> None:
    """Raise ValueError unless `model_name` is "inception_v3"."""
    if model_name != "inception_v3":
        raise ValueError(
            f"The entered model name - {model_name} was not recognized. Only inception_v3 is built in; "
            "for another network, CLIP too, pass custom_feat_extractor"
        )


def get_reference_statistics(
    name: str,
    res: str | int,
    mode: str = "clean",
    model_name: str = "inception_v3",
    seed: int = 0,
    split: str = "test",
    metric: str = "FID",
    *,
    stats_folder: str | os.PathLike[str] | None = None,
) -> Any:
    """Return reference statistics by name. Statistics on clean-fid's server are fetched once.

    Parameters
    ----------
    name, res, mode, split : str
        Name of the statistics, e.g. "FFHQ", 1024, "clean", "trainval". The split "custom" selects statistics of
        ``make_custom_stats``.
    model_name : str
        "inception_v3".
    seed : int
        Accepted for compatibility with clean-fid and ignored.
    metric : {"FID", "KID"}
    stats_folder : path, optional
        Folder to search, and to store fetched statistics; see :func:`stats_path`.

    Returns
    -------
    (mu, sigma) or feats
        float64 (2048,) and (2048, 2048) for FID, float32 (n, 2048) for KID.

    Raises
    ------
    FileNotFoundError
        The file does not exist and cannot be fetched. The message states where to put the file.
    ValueError
        The file is not a statistics file of this metric.

    Examples
    --------
    >>> np.savez("mine_clean_train_64.npz", mu=np.zeros(3), sigma=np.eye(3))
    >>> mu, sigma = get_reference_statistics("Mine", 64, split="train", stats_folder=".")
    >>> mu
    array([0., 0., 0.])
    """
    if metric == "KID":
        return _load_features(_reference_path(name, res, mode, model_name, split, metric, stats_folder))
    statistics = reference_statistics(name, res, mode, model_name, split, stats_folder)
    return statistics.mu, statistics.sigma


def reference_statistics(
    name: str,
    res: str | int,
    mode: str,
    model_name: str,
    split: str,
    stats_folder: str | os.PathLike[str] | None,
) -> Statistics:
    """Return reference statistics for the FID, with their provenance; see :func:`get_reference_statistics`."""
    return Statistics.load(_reference_path(name, res, mode, model_name, split, "FID", stats_folder))


def _reference_path(
    name: str,
    res: str | int,
    mode: str,
    model_name: str,
    split: str,
    metric: str,
    stats_folder: str | os.PathLike[str] | None,
) -> Path:
    """Return the path of the file of reference statistics, and fetch the file if it does not exist."""
    custom = split == "custom"
    path = stats_path(name, mode, split, "na" if custom else res, metric, model_name, stats_folder)
    if path.exists():
        return path
    if custom:
        raise FileNotFoundError(
            f"The stats file {name} does not exist. Make it with make_custom_stats, or put it at {path}"
        )
    url = f"{BASE_URL}/{path.name}"
    print(f"downloading statistics to {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as response, atomic_file(path, overwrite=True) as out:
            shutil.copyfileobj(response, out)
    except (OSError, urllib.error.URLError) as error:
        raise FileNotFoundError(
            f"The statistics {path.name} cannot be fetched from {url} ({error}). "
            f"Fetch that file on another machine and put it at {path}, or pass its folder as stats_folder"
        ) from error
    return path


def _load_features(path: Path) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as file:
        if "feats" not in file.files:
            raise ValueError(f"{path}: expected features under the key 'feats', got {', '.join(file.files)}")
        feats: NDArray[Any] = file["feats"]
    return feats
