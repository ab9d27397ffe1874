"""What the metrics have in common: the network, two sides of which one may be kept, and states that are never lost."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fastfid._console import warn
from fastfid.compat._torchmetrics.network import LOGITS, Inception, to_uint8
from fastfid.errors import SuspiciousInputWarning

__all__ = ["InceptionMetric", "check_bool"]


def check_bool(name: str, value: Any) -> bool:
    """Return `value`; ValueError with torchmetrics' text unless it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"Argument `{name}` expected to be a bool")
    return value


class InceptionMetric(Metric):  # type: ignore[misc]
    """Base class of metrics of the features of the Inception network, or of a module of the caller's own.

    A subclass sets ``normalize``, calls :meth:`_choose`, and adds its states; those of the real side begin with "real".
    """

    is_differentiable: bool = False
    higher_is_better: bool = False
    full_state_update: bool = False
    plot_lower_bound: float | None = 0.0
    feature_network: str = "inception"

    inception: nn.Module
    normalize: bool
    reset_real_features: bool = True

    def _choose(
        self,
        feature: Any,
        features: Sequence[int | str],
        weights: str | os.PathLike[str] | None,
        antialias: bool,
    ) -> None:
        """Set the network: a module, or Inception with one of these outputs."""
        self.used_custom_model = isinstance(feature, nn.Module)
        # compute() must also work in a process that has not seen a batch.
        self.orig_dtype = torch.float32
        if isinstance(feature, nn.Module):
            self.inception = feature
        elif isinstance(feature, int) or (isinstance(feature, str) and LOGITS in features):
            if feature not in features:
                raise ValueError(f"Integer input to argument `feature` must be one of {features}, but got {feature}.")
            self.inception = Inception(feature, "torchmetrics" if antialias else "tensorflow", weights)
        else:
            raise TypeError("Got unknown input to argument `feature`")

    def _features(self, imgs: Tensor) -> Tensor:
        """Return the features of a batch, without gradients."""
        if self.normalize and not self.used_custom_model:
            imgs = to_uint8(imgs)
        with torch.no_grad():
            features: Tensor = self.inception(imgs)
        return features

    def _warn_of_images_without_levels(self) -> None:
        if isinstance(self.inception, Inception) and (remark := self.inception.census.without_levels()):
            warn(f"imgs: {remark}", SuspiciousInputWarning)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the value of this batch alone. If this raises, the states are left unchanged."""
        before = {name: _copy(state) for name, state in self.metric_state.items()}
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
        """Forget all that was added, the real side only if ``reset_real_features``; fixed statistics stay."""
        real = {name: _copy(state) for name, state in self.metric_state.items() if name.startswith("real")}
        super().reset()
        if not self.reset_real_features:
            for name, state in real.items():
                setattr(self, name, state)

    def merge_state(self, incoming_state: "Mapping[str, Any] | InceptionMetric") -> None:
        """Add what another metric has seen, given as the metric or as its states by name."""
        super().merge_state(incoming_state)
        self._computed = None
        self._update_count += getattr(incoming_state, "update_count", 1)

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """Set the dtype of the result. With float64, the Inception network runs in float64 too. Sums stay float64."""
        dtype = getattr(torch, dst_type.rpartition(".")[2]) if isinstance(dst_type, str) else dst_type
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dst_type: expected a floating-point dtype, got {dst_type!r}")
        if isinstance(self.inception, Inception):
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
            setattr(self, name, _copy(state, deep=True))


def _copy(state: Tensor | list[Tensor], *, deep: bool = False) -> Tensor | list[Tensor]:
    """Return a state that later updates do not change. Tensors of a list are replaced, not written to."""
    if isinstance(state, Tensor):
        return state.clone()
    return [part.clone() for part in state] if deep else list(state)
