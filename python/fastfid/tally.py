"""Counts of the sizes, modes and formats of pictures."""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally", "by_area", "most_common"]


# One for all: it is held for a microsecond, and a lock of each object could not be pickled.
_LOCK = threading.Lock()


class Tally:
    """What the pictures of a set declare, counted. Several threads may add at once.

    Attributes
    ----------
    sizes : Counter of (int, int)
        Width and height.
    modes, formats : Counter of str
        Pillow's names. Images of an array have the format ``array``.
    """

    # The arrays of a state.
    STATE = ("tally_sizes", "tally_kinds")

    def __init__(self) -> None:
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.modes: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()

    @property
    def number(self) -> int:
        """Number of pictures."""
        return self.sizes.total()

    def add(self, width: int, height: int, mode: str, form: str) -> None:
        """Count a picture."""
        with _LOCK:
            self.sizes[width, height] += 1
            self.modes[mode] += 1
            self.formats[form] += 1

    def merge(self, other: "Tally") -> None:
        """Add the counts of `other`."""
        self.sizes.update(other.sizes)
        self.modes.update(other.modes)
        self.formats.update(other.formats)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the counts, as arrays by the names of :attr:`STATE`. Equal counts give equal arrays."""
        sizes = [(*size, n) for size, n in sorted(self.sizes.items())]
        kinds = json.dumps([dict(self.modes), dict(self.formats)], sort_keys=True)
        return {"tally_sizes": np.array(sizes, np.int64).reshape(-1, 3), "tally_kinds": np.array(kinds)}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> "Tally":
        """Return the counts of a state. ValueError if it is none."""
        self = cls()
        sizes = state["tally_sizes"]
        try:
            modes, formats = json.loads(str(state["tally_kinds"][()]))
            if sizes.dtype.kind != "i" or sizes.shape[1:] != (3,):
                raise ValueError("tally_sizes: expected whole numbers (k, 3)")
            self.sizes.update({(w, h): n for w, h, n in sizes.tolist()})
            self.modes.update({str(name): int(n) for name, n in modes.items()})
            self.formats.update({str(name): int(n) for name, n in formats.items()})
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the counts of sizes, modes and formats are damaged ({error})") from None
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the smallest, largest and most common size, the number of sizes, and the modes and formats."""
        sizes = by_area(self.sizes)
        return {
            "decoded": self.number,
            "sizes": len(sizes),
            "smallest": list(sizes[0]) if sizes else None,
            "largest": list(sizes[-1]) if sizes else None,
            "most_common": list(most_common(self.sizes)[0][0]) if sizes else None,
            "modes": dict(most_common(self.modes)),
            "formats": dict(most_common(self.formats)),
        }


def by_area(sizes: Mapping[tuple[int, int], int]) -> list[tuple[int, int]]:
    """Return the sizes, the smallest area first."""
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def most_common(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Return keys and counts, the most common first; equal counts in the order of the keys."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
