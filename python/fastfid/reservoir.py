"""A random sample of feature rows of fixed size, kept while the rows of a set go by."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import expect_unmasked

__all__ = ["ALL_KEYS", "RESERVOIR_ROWS", "RowReservoir", "sample_below"]

# A standard deviation from 2,048 rows is good to 1 / sqrt(2 * 2048) = 1.6 % where the distribution is normal.
RESERVOIR_ROWS = 2048
# Rows on a device that are waiting to come to the host. Each time the host waits for the device.
_WAITING_ROWS = 512
# Above every key.
ALL_KEYS = (1 << 63) - 1


def sample_below(n: int) -> int:
    """Return the key below which about ``2 RESERVOIR_ROWS`` of the keys of the indices 0 to n - 1 are.

    A part of a source of `n` images that keeps its rows below this key has all that the sample of the source can need,
    unless about half of the images are left out.

    >>> sample_below(1000) == ALL_KEYS, sample_below(10**9) / ALL_KEYS < 5e-6
    (True, True)
    """
    return ALL_KEYS if n <= 2 * RESERVOIR_ROWS else (1 << 63) * 2 * RESERVOIR_ROWS // n


class RowReservoir:
    """At most :data:`RESERVOIR_ROWS` rows (float32) of a stream, a random sample without replacement.

    Every row has a key, a hash of its number in the stream or of its image's index in a source, and the rows with the
    smallest keys are kept. So the sample does not depend on how the stream is cut into updates, nor on how a source is
    cut into parts that are joined. Where streams are merged, rows of the second get new keys.

    Parameters
    ----------
    d : int
        Features in a row.
    """

    def __init__(self, d: int):
        self.d = d
        self._n = 0  # rows that have gone by
        # The keys and rows that are kept, and what is not yet sorted in: pairs of keys and rows, on the host or in the
        # memory of their device. One attribute, so that an interrupt never finds half of a change.
        self._held: _Held = (np.empty(0, np.int64), np.empty((0, d), np.float32), ())

    def update(self, rows: Any, indices: NDArray[np.int64] | None = None) -> None:
        """Let rows (m, d), float32, go by: a NumPy array, or a ``_core.CudaArray``, read in its stream's order.

        `indices` (m,) are those of the images in their source. Default: the rows are numbered as they come. Rows that
        are kept are copied. The host does not wait for a device, but once in many calls.
        """
        count = rows.shape[0]
        keys = _keys(np.arange(self._n, self._n + count) if indices is None else indices)
        kept_keys, kept_rows, waiting = self._held
        bound = int(kept_keys[-1]) if len(kept_keys) == RESERVOIR_ROWS else np.iinfo(np.int64).max
        wanted = np.flatnonzero(keys < bound)
        if wanted.size:
            with np.errstate(over="ignore"):  # of float64; Statistics says what becomes of such a sample
                taken = rows[wanted].astype(np.float32) if isinstance(rows, np.ndarray) else rows.take(wanted)
            self._held = (kept_keys, kept_rows, (*waiting, (keys[wanted], taken)))
        self._n += count
        # Few calls of a large set take a row.
        if wanted.size and sum(len(keys) for keys, _ in self._held[2]) >= _WAITING_ROWS:
            self._settle()

    def _settle(self) -> None:
        """Sort in what waits."""
        kept_keys, kept_rows, waiting = self._held
        if not waiting:
            return
        arrived = [rows if isinstance(rows, np.ndarray) else rows.numpy() for _, rows in waiting]
        keys = np.concatenate([kept_keys, *(keys for keys, _ in waiting)])
        order = np.argsort(keys, kind="stable")[:RESERVOIR_ROWS]
        self._held = (keys[order], np.concatenate([kept_rows, *arrived])[order], ())

    @property
    def n(self) -> int:
        """Number of rows that have gone by."""
        return self._n

    @property
    def rows(self) -> NDArray[np.float32]:
        """The sample (k, d), in the order of the keys; not to be changed."""
        self._settle()
        return self._held[1]

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys (k,) of the rows, ascending."""
        self._settle()
        return self._held[0]

    @property
    def is_whole(self) -> bool:
        """Whether the sample has as many rows as it can; False where parts that were joined kept too few."""
        return len(self.keys) == min(self._n, RESERVOIR_ROWS)

    def merge(self, other: "RowReservoir") -> None:
        """Let the stream of `other` go by after this one; ValueError if its rows have another length.

        The rows of `other` are a random sample of its stream. They get the keys that the smallest of as many rows would
        have here, in an order that has nothing to do with their own keys: streams begin with the same keys.
        """
        if other.d != self.d:
            raise ValueError(f"other: expected rows of {self.d} features, got {other.d}")
        rows, count = other.rows, other._n
        start = self._n
        keys = _smallest_keys(start, count, len(rows))
        # Indices of images go beyond n where images were left out. Any numbers do, but for those that rows have here.
        while np.isin(keys, self.keys).any():
            start += self._n
            keys = _smallest_keys(start, count, len(rows))
        kept_keys, kept_rows, waiting = self._held
        self._held = (kept_keys, kept_rows, (*waiting, (keys, rows)))
        self._n += count
        self._settle()

    def join(self, other: "RowReservoir") -> None:
        """Add another part of one source, of other images. Rows keep their keys, so the parts may come in any order."""
        if other.d != self.d:
            raise ValueError(f"other: expected rows of {self.d} features, got {other.d}")
        keys, rows = other.keys, other.rows
        kept_keys, kept_rows, waiting = self._held
        if len(kept_keys) == RESERVOIR_ROWS:
            wanted = int(np.searchsorted(keys, kept_keys[-1]))
            keys, rows = keys[:wanted], rows[:wanted]
        if len(keys):
            self._held = (kept_keys, kept_rows, (*waiting, (keys, rows)))
        self._n += other.n
        if sum(len(keys) for keys, _ in self._held[2]) >= _WAITING_ROWS:
            self._settle()

    def copy(self) -> "RowReservoir":
        """Return a reservoir that goes on by itself."""
        out = RowReservoir(self.d)
        self._settle()
        out._n, out._held = self._n, self._held  # arrays are replaced here, never written to
        return out

    def state(self, below: int | None = None) -> dict[str, Any]:
        """Return ``reservoir_keys`` and ``reservoir_rows``, copies.

        With `below`, only the rows with keys below it, and it is there as ``reservoir_below``; see :meth:`join`.
        """
        if below is None:
            return {"reservoir_keys": self.keys.copy(), "reservoir_rows": self.rows.copy()}
        kept = int(np.searchsorted(self.keys, below))
        return {
            "reservoir_keys": self.keys[:kept].copy(),
            "reservoir_rows": self.rows[:kept].copy(),
            "reservoir_below": below,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], d: int, n: int) -> Self:
        """Return a reservoir that continues from a state, of a stream of which `n` rows (d,) have gone by.

        Raises
        ------
        TypeError, ValueError
            An entry is missing, or is not what :meth:`state` returns.
        """
        self = cls(d)
        keys, rows = (checked_entry(state, name, dtype) for name, dtype in _ENTRIES)
        below = state.get("reservoir_below", None)
        expected = min(n, RESERVOIR_ROWS)
        if below is not None and keys.ndim == 1 and len(keys) <= expected and (keys < below).all():
            expected = len(keys)  # the rows that the sample of a whole source can need
        if keys.shape != (expected,):
            raise ValueError(f"reservoir_keys: expected shape ({expected},) for n = {n}, got {keys.shape}")
        if rows.shape != (expected, d):
            raise ValueError(f"reservoir_rows: expected shape ({expected}, {d}), got {rows.shape}")
        if (np.diff(keys) <= 0).any() or (keys < 0).any():
            raise ValueError("reservoir_keys: expected ascending numbers from 0 on")
        if not np.isfinite(rows).all():
            raise ValueError("reservoir_rows: has NaN or infinite values")
        self._held, self._n = (keys, rows, ()), n
        return self

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return dict(self.__dict__)


_Held = tuple[NDArray[np.int64], NDArray[np.float32], tuple[tuple[NDArray[np.int64], Any], ...]]
_ENTRIES = (("reservoir_keys", np.int64), ("reservoir_rows", np.float32))


def checked_entry(state: Mapping[str, Any], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a copy of an array of a state, C-contiguous; TypeError or ValueError if it is none of this dtype."""
    if name not in state:
        raise ValueError(f"the entry {name} is missing")
    array = state[name]
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    expect_unmasked(array, name)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {np.dtype(dtype)}, got {array.dtype}")
    return np.array(array, order="C")


def _keys(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys of the rows with these numbers: 63 bits of the hash SplitMix64 (Steele et al. 2014)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def _smallest_keys(start: int, count: int, wanted: int) -> NDArray[np.int64]:
    """Return the `wanted` smallest keys of `count` rows from `start` on, in the order of the rows."""
    keys, places = np.empty(0, np.int64), np.empty(0, np.int64)
    for first in range(start, start + count, 1 << 20):
        here = np.arange(first, min(first + (1 << 20), start + count))
        keys = np.concatenate([keys, _keys(here)])
        places = np.concatenate([places, here])
        if len(keys) > wanted:
            kept = np.sort(np.argpartition(keys, wanted - 1)[:wanted]) if wanted else np.empty(0, np.intp)
            keys, places = keys[kept], places[kept]
    return keys[np.argsort(places, kind="stable")]
