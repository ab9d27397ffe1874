"""torchmetrics' metrics that keep the features of all images: KID, MIFID and the Inception Score."""

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from fastfid._checks import DIMS
from fastfid.compat._torchmetrics.metric import InceptionMetric, check_bool
from fastfid.compat._torchmetrics.network import LOGITS, to_uint8
from fastfid.errors import NumericalError
from fastfid.metrics.kernel import kid
from fastfid.metrics.logits import inception_score
from fastfid.metrics.memorisation import mifid

__all__ = ["InceptionScore", "KernelInceptionDistance", "MemorizationInformedFrechetInceptionDistance"]


class _RowsMetric(InceptionMetric):
    """Base class of metrics whose states are lists of features, one tensor (n, d) for each update."""

    _keeps_float64: ClassVar[bool] = False  # else features as they come

    def _append(self, state: str, features: Tensor) -> None:
        """Add a batch of features; fastfid.NumericalError, and none is added, if one is not finite."""
        self.orig_dtype = features.dtype
        if features.ndim == 1:
            features = features.unsqueeze(0)
        finite = features.isfinite().all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise NumericalError(f"features: row {row} of the batch has NaN or infinite values")
        getattr(self, state).append(features.double() if self._keeps_float64 else features)

    def _rows(self, state: str) -> Tensor:
        """Return all features of a state on the host; ValueError if there are none."""
        rows = getattr(self, state)
        # Processes that saw no image have sent empty ones.
        rows = [part for part in ([rows] if isinstance(rows, Tensor) else rows) if len(part)]
        found: Tensor = dim_zero_cat(rows).cpu()
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found

    def _tensor(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self.orig_dtype, device=self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gather the features of all processes, of which each may have seen another number of batches, or none."""
        for state in self._reductions:
            rows = [part.double() for part in getattr(self, state)]  # of one dtype in all processes
            empty = torch.empty((0, 0), dtype=torch.float64, device=self.device)
            setattr(self, state, [torch.cat(rows) if rows else empty])
        super()._sync_dist(*args, **kwargs)


class _OfTwoSets(_RowsMetric):
    """Base class of metrics of a real and a fake side."""

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def _add_states(self) -> None:
        for side in ("real", "fake"):
            self.add_state(f"{side}_features", [], dist_reduce_fx=None)

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
            Images of another dtype, shape or range.
        fastfid.NumericalError
            A feature is NaN or infinite. No image of the batch is added.
        """
        self._append("real_features" if real else "fake_features", self._features(imgs))


class KernelInceptionDistance(_OfTwoSets):
    """KID as a metric that is updated batch by batch (Binkowski et al. 2018): the mean over random subsets.

    Parameters
    ----------
    feature : {64, 192, 768, 2048, "logits_unbiased"} or torch.nn.Module
        An output of the Inception network, or a module that turns images into features (n, d).
    subsets, subset_size : int
        Number of random subsets, and of images in each.
    degree : int
    gamma : float, optional
        1 / d by default.
    coef : float
        The kernel is ``(gamma a . b + coef)^degree``.
    reset_real_features : bool
        False: ``reset`` keeps the features of the real side.
    normalize : bool
        False: images are uint8. True: images are float in [0, 1], truncated to whole grey levels as in torchmetrics. A
        module passed as `feature` gets the images unchanged.
    feature_extractor_weights_path : path, optional
        Inception weights to use instead of the cached or fetched weights. Not in torchmetrics.
    antialias : bool
        As in :class:`FrechetInceptionDistance`. Not in torchmetrics, whose KID resizes with antialias from 1.8 on.
    **kwargs
        Keywords of ``torchmetrics.Metric``.

    Raises
    ------
    ValueError, TypeError
        A bad argument, with torchmetrics' text.

    Notes
    -----
    The features of all images are kept: 4 n d bytes a side, 8 KiB per image at 2048 dims. The subsets are drawn by
    torch's global generator, as in torchmetrics: `torch.manual_seed` before :meth:`compute` makes them repeatable.
    ``fastfid.Evaluator(["kid"])`` takes all pairs of images instead, draws nothing, and has a standard error.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(42)
    >>> kid = KernelInceptionDistance(feature=64, subsets=3, subset_size=4)
    >>> kid.update(torch.randint(0, 200, (6, 3, 64, 64), dtype=torch.uint8), real=True)
    >>> kid.update(torch.randint(100, 255, (6, 3, 64, 64), dtype=torch.uint8), real=False)
    >>> mean, std = kid.compute()
    >>> mean > std > 0
    tensor(True)
    """

    plot_upper_bound: float = 1.0

    def __init__(
        self,
        feature: str | int | nn.Module = 2048,
        subsets: int = 100,
        subset_size: int = 1000,
        degree: int = 3,
        gamma: float | None = None,
        coef: float = 1.0,
        reset_real_features: bool = True,
        normalize: bool = False,
        *,
        feature_extractor_weights_path: str | os.PathLike[str] | None = None,
        antialias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._choose(feature, (LOGITS, *DIMS), feature_extractor_weights_path, antialias)
        for name, value in (("subsets", subsets), ("subset_size", subset_size), ("degree", degree)):
            if not (isinstance(value, int) and value > 0):
                raise ValueError(f"Argument `{name}` expected to be integer larger than 0")
        if gamma is not None and not (isinstance(gamma, float) and gamma > 0):
            raise ValueError("Argument `gamma` expected to be `None` or float larger than 0")
        if not (isinstance(coef, float) and coef > 0):
            raise ValueError("Argument `coef` expected to be float larger than 0")
        self.subsets, self.subset_size, self.degree, self.gamma, self.coef = subsets, subset_size, degree, gamma, coef
        self.reset_real_features = check_bool("reset_real_features", reset_real_features)
        self.normalize = check_bool("normalize", normalize)
        self._add_states()

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (ddof 0) over the subsets, as 0-d tensors of the features' dtype.

        Raises
        ------
        ValueError
            A side has fewer images than a subset.
        fastfid.NumericalError
            The features are too large for the kernel.
        """
        real, fake = self._rows("real_features"), self._rows("fake_features")
        if min(len(real), len(fake)) < self.subset_size:
            raise ValueError("Argument `subset_size` should be smaller than the number of samples")
        self._warn_of_images_without_levels()
        found = kid(
            real.numpy(),
            fake.numpy(),
            protocol="torchmetrics",
            subsets=self.subsets,
            subset_size=self.subset_size,
            degree=self.degree,
            gamma=self.gamma,
            coef0=self.coef,
        )
        assert found.std is not None
        return self._tensor(found.value), self._tensor(found.std)


class MemorizationInformedFrechetInceptionDistance(_OfTwoSets):
    """MIFID as a metric that is updated batch by batch (Bai et al. 2021): the FID over the memorisation distance.

    Parameters
    ----------
    feature : {64, 192, 768, 2048} or torch.nn.Module
        A layer of the Inception network, or a module that turns images into features (n, d).
    reset_real_features : bool
        False: ``reset`` keeps the features of the real side.
    normalize : bool
        As in :class:`KernelInceptionDistance`.
    cosine_distance_eps : float
        A mean cosine distance of this much or more counts as 1.
    feature_extractor_weights_path, antialias
        As in :class:`KernelInceptionDistance`.
    **kwargs
        Keywords of ``torchmetrics.Metric``.

    Raises
    ------
    ValueError, TypeError
        A bad argument, with torchmetrics' text.

    Notes
    -----
    The features of all images are kept in float64: 8 n d bytes a side, 16 KiB per image at 2048 dims. Features of
    zeros, which have no direction, are refused; torchmetrics leaves those whose sum is 0 out of the cosines.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(42)
    >>> mifid = MemorizationInformedFrechetInceptionDistance(feature=64)
    >>> mifid.update(torch.randint(0, 200, (4, 3, 64, 64), dtype=torch.uint8), real=True)
    >>> mifid.update(torch.randint(100, 255, (4, 3, 64, 64), dtype=torch.uint8), real=False)
    >>> mifid.compute() > 0
    tensor(True)
    """

    plot_lower_bound = None
    _keeps_float64 = True

    def __init__(
        self,
        feature: int | nn.Module = 2048,
        reset_real_features: bool = True,
        normalize: bool = False,
        cosine_distance_eps: float = 0.1,
        *,
        feature_extractor_weights_path: str | os.PathLike[str] | None = None,
        antialias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._choose(feature, [*DIMS], feature_extractor_weights_path, antialias)  # a list in torchmetrics' text
        self.reset_real_features = check_bool("reset_real_features", reset_real_features)
        self.normalize = check_bool("normalize", normalize)
        if not (isinstance(cosine_distance_eps, float) and 0 < cosine_distance_eps <= 1):
            raise ValueError("Argument `cosine_distance_eps` expected to be a float greater than 0 and less than 1")
        self.cosine_distance_eps = cosine_distance_eps
        self._add_states()

    def compute(self) -> Tensor:
        """Return the MIFID of all images added so far, as a 0-d tensor of the features' dtype.

        Raises
        ------
        ValueError
            A side has fewer than two images, or features of zeros.
        """
        real, fake = self._rows("real_features"), self._rows("fake_features")
        self._warn_of_images_without_levels()
        return self._tensor(mifid(real.numpy(), fake.numpy(), threshold=self.cosine_distance_eps).value)


class InceptionScore(_RowsMetric):
    """The Inception Score as a metric that is updated batch by batch (Salimans et al. 2016).

    Parameters
    ----------
    feature : {"logits_unbiased", 64, 192, 768, 2048} or torch.nn.Module
        An output of the Inception network, or a module that turns images into logits (n, classes).
    splits : int
        Number of blocks.
    normalize : bool
        False: images are uint8. True: images are float in [0, 1], truncated to whole grey levels as in torchmetrics,
        also those for a module passed as `feature`.
    feature_extractor_weights_path, antialias
        As in :class:`KernelInceptionDistance`.
    **kwargs
        Keywords of ``torchmetrics.Metric``.

    Raises
    ------
    ValueError, TypeError
        A bad argument, with torchmetrics' text.

    Notes
    -----
    The logits of all images are kept: 4 KiB per image. The images are shuffled by torch's global generator, as in
    torchmetrics: `torch.manual_seed` before :meth:`compute` makes the order repeatable.

    Examples
    --------
    >>> import torch
    >>> score = InceptionScore(feature=torch.nn.Flatten(), splits=2)
    >>> score.update(10 * torch.eye(4).repeat(25, 1))  # logits of four classes
    >>> mean, std = score.compute()
    >>> 3 < mean < 4
    tensor(True)
    """

    higher_is_better = True

    features: list[Tensor]

    def __init__(
        self,
        feature: str | int | nn.Module = LOGITS,
        splits: int = 10,
        normalize: bool = False,
        *,
        feature_extractor_weights_path: str | os.PathLike[str] | None = None,
        antialias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._choose(feature, (LOGITS, *DIMS), feature_extractor_weights_path, antialias)
        self.normalize = check_bool("normalize", normalize)
        self.splits = splits
        self.add_state("features", [], dist_reduce_fx=None)

    def update(self, imgs: Tensor) -> None:
        """Add a batch of images.

        Parameters
        ----------
        imgs : torch.Tensor, shape (n, 3, h, w)
            uint8, or float in [0, 1] with ``normalize=True``. A module passed as `feature` may take other images.

        Raises
        ------
        ValueError
            Images of another dtype, shape or range; the weights have no classifier.
        fastfid.NumericalError
            A logit is NaN or infinite. No image of the batch is added.
        """
        if self.normalize and self.used_custom_model:
            imgs = to_uint8(imgs)
        self._append("features", self._features(imgs))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (ddof 1) over the blocks, as 0-d tensors of the features' dtype.

        Raises
        ------
        ValueError
            There is no image, or fewer than one block.
        """
        logits = self._rows("features")
        self._warn_of_images_without_levels()
        found = inception_score(logits.numpy(), protocol="torchmetrics", splits=self.splits)
        return self._tensor(found.value), self._tensor(float("nan") if found.std is None else found.std)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several values (default: the current mean). Needs matplotlib."""
        return super().plot(self.compute()[0] if val is None else val, ax)
