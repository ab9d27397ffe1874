"""``torchmetrics.image.fid.FrechetInceptionDistance``."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastfid import _core
from fastfid._checks import DIMS
from fastfid._console import warn
from fastfid.assumptions import assume_protocols
from fastfid.batches.fixed import fixed_statistics, is_same
from fastfid.beside import check_extractor_beside, check_network_beside
from fastfid.compat._torchmetrics.metric import InceptionMetric, check_bool
from fastfid.compat._torchmetrics.network import Inception
from fastfid.errors import NumericalError
from fastfid.metrics.fid import frechet_distance
from fastfid.statistics import Statistics

__all__ = ["FrechetInceptionDistance"]


class FrechetInceptionDistance(InceptionMetric):
    """FID as a metric that is updated batch by batch (Heusel et al. 2017).

    Parameters
    ----------
    feature : {64, 192, 768, 2048} or torch.nn.Module
        A layer of the Inception network, or a module that turns images into features (n, d). The attribute
        ``num_features`` of a module gives d. Without this attribute, the module is called with a random image.
    reset_real_features : bool
        False: ``reset`` keeps the accumulated features of the real side.
    normalize : bool
        False: images are uint8. True: images are float in [0, 1]. For the Inception network, ``x * 255`` is truncated
        to whole grey levels, not rounded, as in torchmetrics. A module passed as `feature` gets the images unchanged.
    input_img_size : tuple of int
        (channels, height, width) of the random image for a module without ``num_features``.
    feature_extractor_weights_path : path, optional
        Inception weights to use instead of the cached or fetched weights.
    antialias : bool
        Resize to 299 x 299 with antialias, as torchmetrics 1.8 and later do (protocol ``torchmetrics``); False:
        without, as torchmetrics up to 1.7 and torch-fidelity do (protocol ``tensorflow``).
    real_statistics : path or Statistics, optional
        The real side, given once: statistics, or their ``.npz``, of this metric's protocol, as ``fastfid stats IMAGES
        -o real.npz --protocol torchmetrics`` makes them. :meth:`update` then takes fake images only, and ``reset``
        keeps the real side. Not in torchmetrics.
    **kwargs
        Keywords of ``torchmetrics.Metric``.

    Raises
    ------
    ValueError, TypeError
        A bad argument; `real_statistics` of other dims, another protocol or precision: the message names the option or
        the command that mends it.
    OSError
        The file of `real_statistics` cannot be opened.

    Notes
    -----
    Fixed statistics are no state: they are neither summed over processes nor saved in a checkpoint, but given again
    where the metric is made. Copies and pickles carry them. With a network of your own only dims are compared.

    The states ``{real,fake}_features_{sum,cov_sum,num_samples}`` are raw sums in float64 and int64 whatever the dtype
    of the metric; :meth:`compute` centres them. The weights are looked for at the first update.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(42)
    >>> fid = FrechetInceptionDistance(feature=64)
    >>> fid.update(torch.randint(0, 200, (4, 3, 64, 64), dtype=torch.uint8), real=True)
    >>> fid.update(torch.randint(100, 255, (4, 3, 64, 64), dtype=torch.uint8), real=False)
    >>> fid.compute().shape
    torch.Size([])

    With a fixed real side, of a folder of four pictures:

    >>> import fastfid
    >>> path = fastfid.compute_statistics("real", dims=64, protocol="torchmetrics").save("real.npz")
    >>> fid = FrechetInceptionDistance(feature=64, real_statistics=path)
    >>> fid.update(torch.randint(100, 255, (4, 3, 64, 64), dtype=torch.uint8), real=False)
    >>> fid.compute() > 0
    tensor(True)
    """

    real_features_sum: Tensor
    real_features_cov_sum: Tensor
    real_features_num_samples: Tensor
    fake_features_sum: Tensor
    fake_features_cov_sum: Tensor
    fake_features_num_samples: Tensor

    def __init__(
        self,
        feature: int | nn.Module = 2048,
        reset_real_features: bool = True,
        normalize: bool = False,
        input_img_size: tuple[int, int, int] = (3, 299, 299),
        feature_extractor_weights_path: str | os.PathLike[str] | None = None,
        antialias: bool = True,
        *,
        real_statistics: str | os.PathLike[str] | Statistics | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.normalize = check_bool("normalize", normalize)
        self.reset_real_features = check_bool("reset_real_features", reset_real_features)
        self._choose(feature, DIMS, feature_extractor_weights_path, antialias)
        num_features = self._number_of_features(self.inception, input_img_size)
        self._fixed = None if real_statistics is None else self._checked(real_statistics, num_features)

        for side in ("real", "fake"):
            size = (num_features, num_features)
            self.add_state(f"{side}_features_sum", torch.zeros(num_features).double(), dist_reduce_fx="sum")
            self.add_state(f"{side}_features_cov_sum", torch.zeros(size).double(), dist_reduce_fx="sum")
            self.add_state(f"{side}_features_num_samples", torch.tensor(0).long(), dist_reduce_fx="sum")

    def _number_of_features(self, network: nn.Module, image_size: tuple[int, int, int]) -> int:
        known = getattr(network, "num_features", None)
        if isinstance(known, int):
            return known
        if isinstance(known, Tensor):
            return int(known.item())
        if known is not None:
            raise TypeError("Expected `self.inception.num_features` to be of type int or Tensor.")
        if self.normalize:
            image = torch.rand(1, *image_size, dtype=torch.float32)
        else:
            image = torch.randint(0, 255, (1, *image_size), dtype=torch.uint8)
        with torch.no_grad():
            return int(network(image).shape[-1])

    def _checked(self, given: Any, num_features: int) -> Statistics:
        """Return the fixed real side; raise unless it goes with the network."""
        fixed = fixed_statistics(given, "real_statistics")
        if not isinstance(self.inception, Inception):
            if fixed.d != num_features:
                raise ValueError(f"{fixed.name} has {fixed.d} dims, the network of feature= gives {num_features}")
            if (identity := fixed.meta.get("extractor")) is not None:
                warn(f"{fixed.name} was made with {identity}; whether feature= is that network cannot be known")
            return fixed
        protocol = self.inception.protocol
        ways = {"torchmetrics": "antialias=True", "tensorflow": "antialias=False"}
        check_network_beside(
            fixed,
            {"dims": num_features, "protocol": protocol, "precision": "float32"},
            lambda key, value: f"feature={value}" if key == "dims" else ways.get(value),
        )
        if fixed.meta.get("protocol") is None:
            assume_protocols([fixed, None], protocol, f"statistics made with --protocol {protocol}")
        return fixed

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add a batch of images to one side.

        Parameters
        ----------
        imgs : torch.Tensor, shape (n, 3, h, w)
            uint8, or float in [0, 1] with ``normalize=True``. A module passed as `feature` may take other images.
        real : bool
            True adds the images to the real side, False to the fake side.

        Raises
        ------
        ValueError
            Images of another dtype, shape or range; real images where ``real_statistics`` are given.
        fastfid.NumericalError
            A feature is NaN or infinite. No image of the batch is added.
        """
        if real and self._fixed is not None:
            raise ValueError(f"real: the real side is fixed, as {self._fixed.name} (real_statistics): pass real=False")
        features = self._features(imgs)
        if self._fixed is not None and isinstance(self.inception, Inception) and self.inception._engine is not None:
            check_extractor_beside(self._fixed, self.inception._engine)  # other weights
        self.orig_dtype = features.dtype
        features = features.double()
        if features.ndim == 1:
            features = features.unsqueeze(0)
        side = "real" if real else "fake"
        total, cross = getattr(self, f"{side}_features_sum"), getattr(self, f"{side}_features_cov_sum")
        _add_raw_moments(features, total, cross)
        setattr(self, f"{side}_features_num_samples", getattr(self, f"{side}_features_num_samples") + imgs.shape[0])

    def compute(self) -> Tensor:
        """Return the FID of all images added so far, as a 0-d tensor of the features' dtype.

        Raises
        ------
        RuntimeError
            A side has fewer than two images; the real side is fixed, and a checkpoint brought real images too.
        """
        if self._fixed is not None and self.real_features_num_samples:
            raise RuntimeError("The state holds real images, but the real side is fixed (`real_statistics`)")
        is_real_known = self._fixed is not None or self.real_features_num_samples >= 2
        if not is_real_known or self.fake_features_num_samples < 2:
            raise RuntimeError("More than one sample is required for both the real and fake distributed to compute FID")
        self._warn_of_images_without_levels()
        sides = [self._statistics("real"), self._statistics("fake")]
        try:
            value = frechet_distance(*sides)
        except NumericalError:
            # The covariance is singular despite more samples than dimensions: images repeat, or a collapsed generator.
            value = frechet_distance(*(self._statistics(side, singular=True) for side in ("real", "fake")))
        return torch.tensor(value, dtype=self.orig_dtype, device=self.real_features_sum.device)

    def _statistics(self, side: str, singular: bool = False) -> Statistics:
        """Return the fixed real side, or centre the raw sums of a side; see :func:`_centre`."""
        if side == "real" and self._fixed is not None:
            return self._fixed
        n = int(getattr(self, f"{side}_features_num_samples"))
        total = getattr(self, f"{side}_features_sum").double().cpu().numpy()
        cross = getattr(self, f"{side}_features_cov_sum").double().cpu().numpy()
        return _centre(total, cross, n, singular, side)

    def merge_state(self, incoming_state: Mapping[str, Any] | InceptionMetric) -> None:
        """Add what another metric has seen, given as the metric or as its states by name.

        Raises
        ------
        ValueError
            One of the two has fixed ``real_statistics``, and the other has others, or real images.
        """
        if isinstance(incoming_state, FrechetInceptionDistance):
            ours, theirs = self._fixed, incoming_state._fixed
            same = ours is theirs or (ours is not None and theirs is not None and is_same(ours, theirs))
            if not same:
                raise ValueError("merge_state: the two metrics have different `real_statistics`, or only one has any")
        elif self._fixed is not None and _has_real_images(incoming_state):
            raise ValueError("merge_state: the state holds real images, but the real side is fixed")
        super().merge_state(incoming_state)


def _has_real_images(state: Any) -> bool:
    return isinstance(state, Mapping) and bool(state.get("real_features_num_samples", 0))


def _centre(total: NDArray[np.float64], cross: NDArray[np.float64], n: int, singular: bool, name: str) -> Statistics:
    """Return the statistics of n samples with sum `total` and sum of outer products `cross`.

    Centring raw sums causes cancellation. The error of the covariance is up to ``eps tr(cross) (n + 3) / (n - 1)``
    (n + 3 roundings of terms that add up to `cross`), which can make a singular covariance indefinite. If n <= d, or if
    `singular` is set, eigenvalues below zero by no more than this bound are rounding errors and are set to zero. For
    n <= d, all but the largest n - 1 eigenvalues are set to zero. The result for n <= d also contains n rows with this
    mean and covariance, whose distance is exact.
    """
    mu = total / n
    sigma = (cross - n * np.outer(mu, mu)) / (n - 1)
    thin = n <= len(mu)
    if not (thin or singular):
        return Statistics(mu, sigma, n, name=name)
    bound = np.finfo(np.float64).eps * np.trace(cross) * (n + 3) / (n - 1)
    values, vectors = np.linalg.eigh(sigma)
    if values[0] < -bound:
        raise NumericalError(f"the {name} covariance has the eigenvalue {values[0]}, which rounding does not explain")
    if not thin:
        return Statistics(mu, (vectors * values.clip(min=0)) @ vectors.T, n, name=name)
    values, vectors = values[-(n - 1) :].clip(min=0), vectors[:, -(n - 1) :]
    # The columns are orthonormal and orthogonal to (1, ..., 1), so that the rows have the mean mu.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n, n - 1)]))[0][:, 1:]
    rows = mu + np.sqrt(n - 1) * (basis * np.sqrt(values)) @ vectors.T
    return Statistics(mu, (vectors * values) @ vectors.T, n, rows=rows, name=name)


def _add_raw_moments(features: Tensor, total: Tensor, cross: Tensor) -> None:
    """Add the rows of `features` to `total` and their outer products to `cross`, in place. All are float64."""
    if features.ndim != 2 or features.shape[1] != len(total):
        raise ValueError(f"features: expected shape (n, {len(total)}), got {tuple(features.shape)}")
    if features.device.type == "cpu" and total.device.type == "cpu":
        _core.add_raw_moments(features.contiguous().numpy(), total.numpy(), cross.numpy())
        return
    if not features.isfinite().all():
        raise NumericalError("features: they have NaN or infinite values")
    total += features.sum(dim=0)
    cross += features.t().mm(features)
