"""The accumulator of means and covariances, for feature rows on the host and on a CUDA device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._core import Moments
from fastfid.extractor import FEATURES

__all__ = ["FeatureMoments"]


class FeatureMoments:
    """Number, mean and covariance of feature rows on the host and on a CUDA device.

    Parameters
    ----------
    d : int
        Number of features in a row.
    groups : int
        Number of groups of rows with separate moments, for the standard error; see :class:`Moments`.
    output : str
        Name of the extractor's output.

    Notes
    -----
    Rows on the host are added to :class:`Moments`, rows on a CUDA device to :class:`DeviceMoments` on that device.
    :meth:`total` merges the two.
    """

    def __init__(self, d: int, *, groups: int = 0, output: str = FEATURES):
        self.d = d
        self.output = output
        self._on_host = Moments(d, groups=groups)
        self._on_device: _core.DeviceMoments | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._on_host.n + (self._on_device.n if self._on_device is not None else 0)

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add the rows of one output: a NumPy array (n, d), or a ``_core.CudaArray``, which is read on its stream."""
        rows = outputs[self.output]
        if isinstance(rows, np.ndarray):
            self._on_host.update(rows)
            return
        if self._on_host.groups:
            raise ValueError("uncertainty: needs images on the host; pass images.cpu()")
        if self._on_device is None:
            self._on_device = _core.DeviceMoments(self.d, device=rows.stream.device)
        self._on_device.update(rows, stream=rows.stream.handle)

    def merge(self, other: "FeatureMoments") -> None:
        """Add the rows of `other`. Raises ValueError if d or groups differ.

        If both have rows on the same device, the rows stay there and the host does not wait. Otherwise the host waits
        for the device of `other`.
        """
        # Both accumulators are updated in place, because an update may be running in another thread.
        here, there = self._on_device, other._on_device
        if here is not None and there is not None and here.device == there.device:
            here.merge(there)
            self._on_host.merge(other._on_host)
        else:
            self._on_host.merge(other.total())

    def reset(self) -> None:
        """Remove all rows."""
        self._on_host.reset()
        self._on_device = None

    def total(self) -> Moments:
        """Return the moments of all rows on the host, for reading only. Waits for the device."""
        if self._on_device is None:
            return self._on_host
        total = Moments.from_state(self._on_host.state())
        total.merge(self._on_device.to_host())
        return total

    def on_device(self, device: str) -> _core.DeviceMoments | None:
        """Return the moments on the device if all rows are on `device` (``cuda:N``, or ``cuda`` for any), else None.

        Later updates change the returned object too.
        """
        moments = self._on_device
        if moments is None or self._on_host.n or device not in ("cuda", f"cuda:{moments.device}"):
            return None
        return moments

    def state(self) -> dict[str, int | NDArray[Any]]:
        """Return the state of :meth:`total`."""
        return self.total().state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, output: str = FEATURES) -> "FeatureMoments":
        """Return an accumulator that continues from a state; see :meth:`Moments.from_state`."""
        moments = Moments.from_state(dict(state))
        self = cls(moments.d, output=output)
        self._on_host = moments
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_host": self.total(), "_on_device": None}
