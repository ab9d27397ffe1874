"""``torchmetrics.image.fid.FrechetInceptionDistance``, implemented by fastfid.

Replace ``from torchmetrics.image.fid import FrechetInceptionDistance`` by
``from fastfid.compat.torchmetrics import FrechetInceptionDistance``. The class is a ``torchmetrics.Metric``, so it
works with MetricCollection and Lightning's logging. It needs PyTorch and torchmetrics, but not torch-fidelity.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise ImportError(
        "fastfid.compat.torchmetrics works on torch tensors: install PyTorch with `pip install torch`"
    ) from error

from fastfid import _core
from fastfid._checks import DIMS
from fastfid._console import warn
from fastfid.assumptions import assume_protocols
from fastfid.beside import check_extractor_beside, check_network_beside
from fastfid.errors import BackendUnavailable, NumericalError, SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor
from fastfid.features.make import make_extractor
from fastfid.fixed import fixed_statistics, is_same
from fastfid.metrics.fid import frechet_distance
from fastfid.mistakes import Census
from fastfid.pipeline import extract, features_on_device, only_features
from fastfid.protocols import input_spec
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import Statistics

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":
        raise
    raise ImportError(
        "fastfid.compat.torchmetrics is a torchmetrics.Metric: install it with `pip install torchmetrics`;"
        " fastfid.FID does the same without it"
    ) from error

__all__ = ["FrechetInceptionDistance"]


class _Inception(nn.Module):
    """The Inception network as a module: uint8 images [n, 3, h, w] to features [n, dims]. The first call loads it.

    ONNX Runtime runs the network in float32. After ``set_dtype(torch.float64)``, PyTorch runs it in float64.
    """

    def __init__(self, dims: int, protocol: str, weights: str | os.PathLike[str] | None):
        super().__init__()
        self.num_features = dims
        self.protocol = protocol
        self.weights = weights
        self.dtype = torch.float32
        self._engine: FeatureExtractor | None = None
        self.census = Census(keeps_digests=False)
        # In a list, so that the network is not a sub-module: PyTorch neither moves nor saves it with the metric.
        self._float64_network: list[nn.Module] = []

    def _load_from_state_dict(self, *args: Any) -> None:
        """Ignore the network weights in checkpoints of torchmetrics' metric: fastfid reads the weights from a file."""

    def extra_repr(self) -> str:
        """Return a text that differs between networks; torchmetrics' FeatureShare compares these texts."""
        return f"dims={self.num_features}, protocol={self.protocol}, weights={self.weights}"

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of uint8 images, on the images' device."""
        if not (isinstance(images, Tensor) and images.dtype == torch.uint8):
            raise ValueError("Expecting image as torch.Tensor with dtype=torch.uint8")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"imgs: expected shape (n, 3, h, w), got {tuple(images.shape)}")
        if len(images) == 0:
            return torch.empty((0, self.num_features), dtype=self.dtype, device=images.device)
        if self.dtype == torch.float64:
            return self._in_float64(images)
        engine = self._engine_on(images.device)
        source = open_source(images, layout="nchw")
        if isinstance(source, DeviceImages):
            try:
                network = engine.on_device(source.device)
            except BackendUnavailable:  # fastfid was built without its CUDA part: copy the images to the host
                network = None
            if network is not None:
                features = features_on_device(network, source, callers_stream(images))
                return torch.utils.dlpack.from_dlpack(features).to(self.dtype)
        batches: list[NDArray[np.float32]] = []
        extract(source, engine, only_features(lambda rows: batches.append(rows.copy())), census=self.census)
        return torch.from_numpy(np.concatenate(batches)).to(images.device, self.dtype)

    def _engine_on(self, device: torch.device) -> FeatureExtractor:
        name = str(device)
        if self._engine is None or self._engine.device != name:
            self._engine = make_extractor(self.num_features, self.protocol, name, self.weights)
        return self._engine

    def _in_float64(self, images: Tensor) -> Tensor:
        from fastfid.features import inception_torch
        from fastfid.features.weights import find_weights

        if not self._float64_network:
            new = inception_torch.FIDInception(self.num_features)
            inception_torch.load_weights(new, find_weights(self.weights))
            self._float64_network.append(new.double())
        network = self._float64_network[0].to(images.device)
        scaled = _core.preprocess(images.permute(0, 2, 3, 1).cpu().numpy(), input_spec(self.protocol))
        with torch.no_grad():
            maps = network(torch.from_numpy(scaled).to(images.device, torch.float64))
        return maps.mean(dim=(2, 3))  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the networks: sessions cannot be pickled, and the next call makes new ones."""
        return {**vars(self), "_engine": None, "_float64_network": []}


class FrechetInceptionDistance(Metric):  # type: ignore[misc]
    """FID as a metric that is updated batch by batch (Heusel et al. 2017).

    Parameters
    ----------
    feature : {64, 192, 768, 2048} or torch.nn.Module
        A layer of the Inception network, or a module that turns images into features (n, d). The attribute
        ``num_features`` of a module gives d. Without this attribute, the module is called with a random image.
    reset_real_features : bool
        False: :meth:`reset` keeps the accumulated features of the real side.
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
        -o real.npz --protocol torchmetrics`` makes them. :meth:`update` then takes fake images only, and :meth:`reset`
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

    higher_is_better: bool = False
    is_differentiable: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0
    feature_network: str = "inception"

    real_features_sum: Tensor
    real_features_cov_sum: Tensor
    real_features_num_samples: Tensor
    fake_features_sum: Tensor
    fake_features_cov_sum: Tensor
    fake_features_num_samples: Tensor
    inception: nn.Module

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
        if not isinstance(normalize, bool):
            raise ValueError("Argument `normalize` expected to be a bool")
        if not isinstance(reset_real_features, bool):
            raise ValueError("Argument `reset_real_features` expected to be a bool")
        self.normalize = normalize
        self.reset_real_features = reset_real_features
        self.used_custom_model = isinstance(feature, nn.Module)
        # compute() must also work in a process that has not seen a batch.
        self.orig_dtype = torch.float32
        if isinstance(feature, nn.Module):
            self.inception = feature
            num_features = self._number_of_features(feature, input_img_size)
        elif isinstance(feature, int):
            if feature not in DIMS:
                raise ValueError(f"Integer input to argument `feature` must be one of {DIMS}, but got {feature}.")
            num_features = feature
            protocol = "torchmetrics" if antialias else "tensorflow"
            self.inception = _Inception(feature, protocol, feature_extractor_weights_path)
        else:
            raise TypeError("Got unknown input to argument `feature`")
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
        if not isinstance(self.inception, _Inception):
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
        if self.normalize and not self.used_custom_model:
            imgs = _to_uint8(imgs)
        with torch.no_grad():
            features = self.inception(imgs)
        if self._fixed is not None and isinstance(self.inception, _Inception) and self.inception._engine is not None:
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
        if isinstance(self.inception, _Inception) and (remark := self.inception.census.without_levels()):
            warn(f"imgs: {remark}", SuspiciousInputWarning)
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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the value of this batch alone. If this raises, the states are left unchanged."""
        before = {name: state.clone() for name, state in self.metric_state.items()}
        keep, self.reset_real_features = self.reset_real_features, True  # else the real side would be counted twice
        try:
            return super().forward(*args, **kwargs)
        except Exception:
            for name, state in before.items():
                setattr(self, name, state)
            raise
        finally:
            self.reset_real_features = keep

    def reset(self) -> None:
        """Forget all that was added, the real side only if ``reset_real_features``; ``real_statistics`` stay."""
        real = {name: state for name, state in self.metric_state.items() if name.startswith("real")}
        super().reset()
        if not self.reset_real_features:
            for name, state in real.items():
                setattr(self, name, state)

    def merge_state(self, incoming_state: "Mapping[str, Any] | FrechetInceptionDistance") -> None:
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
        self._computed = None
        self._update_count += getattr(incoming_state, "update_count", 1)

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """Set the dtype of the result. With float64, the Inception network runs in float64 too. Sums stay float64."""
        dtype = getattr(torch, dst_type.rpartition(".")[2]) if isinstance(dst_type, str) else dst_type
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dst_type: expected a floating-point dtype, got {dst_type!r}")
        if isinstance(self.inception, _Inception):
            self.inception.dtype = dtype
        else:
            self.inception.to(dtype)
        self._dtype = dtype
        return self

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several values (default: the current value). Needs matplotlib."""
        return self._plot(val, ax)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        # Updates add in place, so the loaded tensors are copied: the state dict of the caller must not change.
        for name, state in self.metric_state.items():
            setattr(self, name, state.clone())


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


def _to_uint8(images: Tensor) -> Tensor:
    """Convert float images in [0, 1] to uint8 by truncation, as torchmetrics does. Other parts of fastfid round.

    Values outside [0, 1], which would wrap around, raise ValueError.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"imgs: expected a torch.Tensor, got {type(images).__name__}")
    if images.numel() and not ((images >= 0) & (images <= 1)).all():  # NaN is outside too
        low, high = images.min().item(), images.max().item()
        how = "((x + 1) / 2).clamp(0, 1)" if low < -0.5 else "x.clamp(0, 1)"
        raise ValueError(
            f"imgs: expected values in [0, 1] with normalize=True, got {low:.6g} to {high:.6g}; pass {how}"
        )
    return (images * 255).byte()


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
