"""The accumulator of means and covariances, for feature rows on the host and on a CUDA device."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._core import Moments

__all__ = ["FeatureMoments"]


class FeatureMoments:
    """Number, mean and covariance of feature rows, wherever they are.

    Parameters
    ----------
    d : int
        Features in a row.

    Notes
    -----
    Rows on the host go to :class:`Moments`, rows on a CUDA device to :class:`DeviceMoments` there; :meth:`total` adds
    the two.
    """

    def __init__(self, d: int):
        self.d = d
        self._on_host = Moments(d)
        self._on_device: _core.DeviceMoments | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._on_host.n + (self._on_device.n if self._on_device is not None else 0)

    def update(self, rows: Any) -> None:
        """Add rows: a NumPy array (n, d), or an array of ``_core.CudaArray``, which is read in its stream's order."""
        if isinstance(rows, np.ndarray):
            self._on_host.update(rows)
            return
        if self._on_device is None:
            self._on_device = _core.DeviceMoments(self.d, device=rows.stream.device)
        self._on_device.update(rows, stream=rows.stream.handle)

    def merge(self, other: Moments) -> None:
        """Add what `other` has seen; ValueError if its d or groups differ."""
        self._on_host.merge(other)  # in place: an update may be running in another thread

    def reset(self) -> None:
        """Forget all rows."""
        self._on_host.reset()
        self._on_device = None

    def total(self) -> Moments:
        """Return the moments of all rows, for reading, on the host; waits for the device."""
        if self._on_device is None:
            return self._on_host
        total = Moments.from_state(self._on_host.state())
        total.merge(self._on_device.to_host())
        return total

    def on_device(self, device: str) -> _core.DeviceMoments | None:
        """Return the moments where they are, if all rows are on `device` (``cuda:N``, or ``cuda`` for any).

        Later updates change them too.
        """
        moments = self._on_device
        if moments is None or self._on_host.n or device not in ("cuda", f"cuda:{moments.device}"):
            return None
        return moments

    def state(self) -> dict[str, int | NDArray[Any]]:
        """Return the state of :meth:`total`."""
        return self.total().state()

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "FeatureMoments":
        """Return an accumulator that continues from a state; see :meth:`Moments.from_state`."""
        moments = Moments.from_state(state)
        self = cls(moments.d)
        self._on_host = moments
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"d": self.d, "_on_host": self.total(), "_on_device": None}
