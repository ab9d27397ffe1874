"""What torchmetrics.Metric offers, for metrics whose states are sums; stands in where torchmetrics is not installed."""

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["SumMetric"]


class SumMetric(nn.Module):
    """A metric made of named tensors that add up: over updates, over merged metrics, over processes.

    Parameters
    ----------
    dist_sync_on_step, sync_on_compute, compute_with_cache : bool
        As torchmetrics has them.
    process_group : torch.distributed.ProcessGroup, optional
        The processes that share the metric; default: all.

    Notes
    -----
    The names are torchmetrics' (1.9), so that a metric derives from either class and behaves the same.
    """

    higher_is_better: bool | None = None
    is_differentiable: bool | None = None
    full_state_update: bool | None = None

    def __init__(
        self,
        *,
        dist_sync_on_step: bool = False,
        process_group: Any = None,
        sync_on_compute: bool = True,
        compute_with_cache: bool = True,
    ):
        super().__init__()
        self.dist_sync_on_step = dist_sync_on_step
        self.process_group = process_group
        self.sync_on_compute = sync_on_compute
        self.compute_with_cache = compute_with_cache
        self._defaults: dict[str, Tensor] = {}
        self._persistent: dict[str, bool] = {}
        self._update_count = 0
        self._computed: Any = None
        self._device = torch.get_default_device()
        self._dtype = torch.get_default_dtype()
        self._wrap()

    def _wrap(self) -> None:
        """Put the bookkeeping around the subclass's update and compute."""
        self._update_signature = inspect.signature(self.update)
        self.update = self._counted(self.update)  # type: ignore[method-assign]
        self.compute = self._cached(self.compute)  # type: ignore[method-assign]

    def _counted(self, update: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(update)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            self._computed = None
            self._update_count += 1
            with torch.no_grad():
                update(*args, **kwargs)

        return wrapped

    def _cached(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        @functools.wraps(compute)
        def wrapped() -> Tensor:
            if not self.update_called:
                warnings.warn(
                    f"The ``compute`` method of metric {type(self).__name__} was called before the ``update`` method",
                    UserWarning,
                    stacklevel=2,
                )
            if self._computed is not None:
                return self._computed  # type: ignore[no-any-return]
            local = self.metric_state
            try:
                if self.sync_on_compute:
                    self._sum_over_processes()
                value = compute()
            finally:
                for name, state in local.items():
                    setattr(self, name, state)
            if self.compute_with_cache:
                self._computed = value
            return value

        return wrapped

    def _sum_over_processes(self) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for name, state in self.metric_state.items():
            total = state.clone()
            torch.distributed.all_reduce(total, group=self.process_group)
            setattr(self, name, total)

    def add_state(self, name: str, default: Tensor, dist_reduce_fx: str = "sum", persistent: bool = False) -> None:
        """Declare the state `name`, which starts as `default` and adds up."""
        if dist_reduce_fx != "sum":
            raise ValueError(f"dist_reduce_fx: expected 'sum', got {dist_reduce_fx!r}")
        setattr(self, name, default)
        self._defaults[name] = default.clone()
        self._persistent[name] = persistent

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch; a subclass says how."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """Return the value of all that was added, over all processes; a subclass says how."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Add a batch and return the value of that batch alone."""
        before, count = self.metric_state, self._update_count
        self.reset()
        sync, self.sync_on_compute = self.sync_on_compute, self.dist_sync_on_step
        try:
            self.update(*args, **kwargs)
            value = self.compute()
        finally:
            self.sync_on_compute = sync
        self._add(before)
        self._update_count = count + 1
        self._computed = None
        return value

    def reset(self) -> None:
        """Forget all that was added."""
        self._update_count = 0
        self._computed = None
        for name, default in self._defaults.items():
            setattr(self, name, default.clone().to(getattr(self, name).device))

    def merge_state(self, incoming_state: Mapping[str, Any] | Self) -> None:
        """Add what another metric of this class has seen, given as the metric or as its states by name."""
        if not isinstance(incoming_state, (Mapping, SumMetric)):
            raise ValueError(
                f"Expected incoming state to be a dict or an instance of Metric but got {type(incoming_state)}"
            )
        if isinstance(incoming_state, SumMetric):
            if not isinstance(incoming_state, type(self)):
                raise ValueError(
                    f"Expected incoming state to be an instance of {type(self).__name__} but got {type(incoming_state)}"
                )
            incoming_state = incoming_state.metric_state
        self._add(incoming_state)

    def _add(self, states: Mapping[str, Any]) -> None:
        missing = [name for name in self._defaults if name not in states]
        if missing:
            raise ValueError(f"Expected state variable {missing[0]} to be present in incoming state {states}")
        for name in self._defaults:
            own = getattr(self, name)
            setattr(self, name, own + states[name].to(own.device))

    @property
    def metric_state(self) -> dict[str, Tensor]:
        """The states by name."""
        return {name: getattr(self, name) for name in self._defaults}

    @property
    def update_called(self) -> bool:
        """Has anything been added since the start or the last reset?"""
        return self._update_count > 0

    @property
    def update_count(self) -> int:
        """How many batches were added since the start or the last reset."""
        return self._update_count

    @property
    def device(self) -> torch.device:
        """Where the states are."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the result, where the metric lets it be chosen."""
        return self._dtype

    def clone(self) -> Self:
        """Return a deep copy."""
        return copy.deepcopy(self)

    def persistent(self, mode: bool = False) -> None:
        """Say whether :meth:`state_dict` carries the states."""
        for name in self._persistent:
            self._persistent[name] = mode

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the module's state dict, with the states if :meth:`persistent` was asked for."""
        out: dict[str, Any] = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name, state in self.metric_state.items():
            if self._persistent[name]:
                out[prefix + name] = state.detach().clone()
        return out

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self._defaults:
            if prefix + name in state_dict:
                setattr(self, name, state_dict.pop(prefix + name))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the states along with the module; their dtype stays, as a sum in half precision would be lost."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._device = fn(torch.zeros(1, device=self._device)).device
        for name, default in self._defaults.items():
            self._defaults[name] = default.to(self._device)
            setattr(self, name, getattr(self, name).to(self._device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the wrapped methods, which cannot be pickled."""
        return {
            key: value for key, value in vars(self).items() if key not in ("update", "compute", "_update_signature")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Wrap the methods again."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._wrap()
