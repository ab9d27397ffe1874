"""The accumulator of means and covariances, for feature rows on the host and on a CUDA device."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid._core import Moments
from fastfid.extractor import FEATURES
from fastfid.reservoir import RowReservoir
from fastfid.segments import SegmentedMoments
from fastfid.statistics import Statistics

__all__ = ["FeatureMoments"]


class FeatureMoments:
    """Number, mean and covariance of feature rows, wherever they are, and a random sample of the rows.

    Parameters
    ----------
    d : int
        Features in a row.
    output : str
        The output of the extractor whose rows these are.

    Notes
    -----
    Rows of a source, whose images have indices, go to :class:`fastfid.segments.SegmentedMoments`. Other rows on the
    host go to :class:`Moments`, and rows on a CUDA device to :class:`DeviceMoments` there. :meth:`total` adds the
    three. The sample is for the standard error; see :class:`fastfid.reservoir.RowReservoir`.
    """

    def __init__(self, d: int, *, output: str = FEATURES):
        self.d = d
        self.output = output
        self._on_host = Moments(d)
        self._on_device: _core.DeviceMoments | None = None
        self._by_index: SegmentedMoments | None = None
        # None: a state without a sample was loaded or merged, as earlier versions wrote them.
        self._reservoir: RowReservoir | None = RowReservoir(d)
        self._lock = threading.RLock()  # the sample and the moments are of the same rows

    @property
    def n(self) -> int:
        """Number of rows."""
        others = (one.n for one in (self._on_device, self._by_index) if one is not None)
        return self._on_host.n + sum(others)

    def update(self, outputs: Mapping[str, Any]) -> None:
        """Add the rows of one output: a NumPy array (n, d), or a ``_core.CudaArray``, read in its stream's order."""
        self._update(outputs[self.output], None)

    def update_at(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Add the rows of one output, on the host, of the images with these indices in their source, ascending.

        Whoever reads which images, and in how many calls: the result has the same bits.
        """
        self._update(outputs[self.output], indices)

    def _update(self, rows: Any, indices: NDArray[np.int64] | None) -> None:
        with self._lock:
            try:
                if indices is not None:
                    self._segmented().update(rows, indices)
                else:
                    self._update_moments(rows)
                if self._reservoir is not None:
                    self._reservoir.update(rows, indices)
            except BaseException:  # an interrupt between the two
                if self._reservoir is not None and self._reservoir.n != self.n:
                    self._reservoir = None
                raise

    def join(self, other: "FeatureMoments", index: int, level: int) -> None:
        """Add what `other` has seen of node `index` of a level of the tree; see :mod:`fastfid.segments`.

        Nodes come in the source's order.
        """
        with _both(self._lock, other._lock):
            self._segmented().push(other.total(), index, level)
            if self._reservoir is not None and other._reservoir is not None:
                self._reservoir.join(other._reservoir)
            elif other.n:
                self._reservoir = None

    def _segmented(self) -> SegmentedMoments:
        if self._by_index is None:
            self._by_index = SegmentedMoments(self.d)
        return self._by_index

    def _update_moments(self, rows: Any) -> None:
        if isinstance(rows, np.ndarray):
            self._on_host.update(rows)
            return
        if self._on_device is None:
            self._on_device = _core.DeviceMoments(self.d, device=rows.stream.device)
        self._on_device.update(rows, stream=rows.stream.handle)

    def merge(self, other: "FeatureMoments") -> None:
        """Add what `other` has seen; ValueError if its d differs.

        Where both have rows on the same device, these stay there and nothing waits but for the sample; else waits for
        the other's device.
        """
        with _both(self._lock, other._lock):
            here, there = self._on_device, other._on_device
            is_streamed = other._by_index is None
            if here is not None and there is not None and is_streamed and here.device == there.device:
                here.merge(there)
                self._on_host.merge(other._on_host)
            else:
                self._on_host.merge(other.total())
            if self._reservoir is not None and other._reservoir is not None:
                self._reservoir.merge(other._reservoir)
            elif other.n:
                self._reservoir = None

    def reset(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._on_host.reset()
            self._on_device = self._by_index = None
            self._reservoir = RowReservoir(self.d)

    def total(self) -> Moments:
        """Return the moments of all rows, for reading, on the host; waits for the device."""
        if self._on_device is None and self._by_index is None:
            return self._on_host
        total = self._by_index.total() if self._by_index is not None else Moments(self.d)
        total.merge(self._on_host)
        if self._on_device is not None:
            total.merge(self._on_device.to_host())
        return total

    def statistics(self, meta: Mapping[str, Any], name: str) -> Statistics:
        """Return the Gaussian of all rows with a copy of their sample; ValueError with fewer than two rows."""
        with self._lock:
            sample = self._reservoir.copy() if self._reservoir is not None and self._reservoir.is_whole else None
            return Statistics.from_moments(self.total(), meta, name, sample)

    def on_device(self, device: str) -> _core.DeviceMoments | None:
        """Return the moments where they are, if all rows are on `device` (``cuda:N``, or ``cuda`` for any).

        Later updates change them too.
        """
        moments = self._on_device
        if moments is None or moments.n < self.n or device not in ("cuda", f"cuda:{moments.device}"):
            return None
        return moments

    def state(self) -> dict[str, Any]:
        """Return the state of :meth:`total`, and that of the sample if there is one."""
        return self.state_below(None)

    def state_below(self, key: int | None) -> dict[str, Any]:
        """Return the state without the rows of the sample whose key is `key` or higher.

        At 2,048 dims it is 16 MiB, and not 32; see :func:`fastfid.reservoir.sample_below`.
        """
        with self._lock:
            has_sample = self._reservoir is not None and (key is not None or self._reservoir.is_whole)
            sample = self._reservoir.state(key) if self._reservoir is not None and has_sample else {}
            return {**self.total().state(), **sample}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, output: str = FEATURES) -> "FeatureMoments":
        """Return an accumulator that continues from a state; see :meth:`Moments.from_state`."""
        of_moments = {name: value for name, value in state.items() if not name.startswith("reservoir_")}
        moments = Moments.from_state(of_moments)
        self = cls(moments.d, output=output)
        self._on_host = moments
        has_sample = len(of_moments) < len(state)
        self._reservoir = RowReservoir.from_state(state, moments.d, moments.n) if has_sample else None
        return self

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {**self.__dict__, "_on_host": self.total(), "_on_device": None, "_by_index": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


@contextlib.contextmanager
def _both(a: threading.RLock, b: threading.RLock) -> Iterator[None]:
    """Hold two locks, always in the same order: two threads may merge the same two objects."""
    first, second = sorted((a, b), key=id)
    with first, second:
        yield
