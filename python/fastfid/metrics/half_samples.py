"""Standard errors of precision, recall, density and coverage, from halves of both sets.

These values change in steps as a row comes or goes, and a row changes them through its neighbours: deleting rows one by
one, or in groups, counts what two neighbours do together twice (Efron and Stein 1981), and a bootstrap's repeated rows
are neighbours of each other. Instead, both sets are cut at random into halves, 64 times. The values of two halves that
have no row in common differ as two independent draws of half the size do, whatever the values are, so half their mean
squared difference is the variance at half the size. A set of twice the size has half of it.

Nothing is compared a second time: one sweep over all pairs of rows counts for the 64 cuts at once, a bit of a word for
each. The ball of a row in its half reaches to the k-th of its nearest neighbours that is in this half, too, so the
nearest `reach` neighbours determine it but for one ball in 10^4 or fewer, which is taken a little too small.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics.given import blocks

__all__ = [
    "CUTS",
    "HalfCounts",
    "Halves",
    "least_rows",
    "neighbours_needed",
    "spread_of_share",
    "standard_errors",
    "values_of_halves",
]

CUTS = 64

Words = NDArray[np.uint64]


def neighbours_needed(k: int, n: int) -> int:
    """Return of how many of its neighbours a row knows the halves: k of them are in its own but for one in 10^4."""
    return min(n - 1, 2 * k + math.ceil(5 * math.sqrt(2 * k)) + 4)


def least_rows(k: int) -> int:
    """Return the size of a set from which on its halves have standard errors."""
    return 8 * k


@dataclass(frozen=True)
class Halves:
    """A set in 64 random cuts, and the balls around its rows within their halves.

    Attributes
    ----------
    firsts : ndarray of uint64, shape (n,)
        The cuts in which a row is in the first half.
    distances : ndarray of float64, shape (n, c)
        Squared distances of the nearest other rows, in ascending order.
    reaching : ndarray of uint64, shape (n, c)
        The cuts in which the ball of a row reaches past so many of these rows.
    """

    firsts: Words
    distances: NDArray[np.float64]
    reaching: Words

    @classmethod
    def of(cls, indices: NDArray[np.int64], distances: NDArray[np.float64], k: int, seed: int) -> "Halves":
        """Cut a set whose rows have these nearest neighbours, nearest first."""
        firsts = _random_halves(len(indices), seed)
        reaching = np.empty(indices.shape, np.uint64)
        for block in blocks(len(indices)):
            mine = ~(firsts[block, None] ^ firsts[indices[block]])  # cuts in which both rows are in one half
            found = np.zeros((k, len(mine)), np.uint64)  # cuts with 1, 2, ... k neighbours so far
            for place in range(mine.shape[1]):
                reaching[block, place] = ~found[-1]
                found[1:] |= found[:-1] & mine[:, place]
                found[0] |= mine[:, place]
        return cls(firsts, distances, reaching)

    def rows(self, part: slice) -> tuple[Words, NDArray[np.float64], Words]:
        """Return what the core needs of some rows."""
        return self.firsts[part], self.distances[part], self.reaching[part]

    def sizes(self) -> tuple[int, int]:
        """Return the numbers of rows of both halves, the same in every cut."""
        return len(self.firsts) // 2, len(self.firsts) - len(self.firsts) // 2


class HalfCounts:
    """What the balls of halves hold, gathered over blocks of both sets."""

    def __init__(self, m: int, n: int) -> None:
        self.balls_of_real = np.zeros((2, n), np.uint64)
        self.rows_of_fake = np.zeros((2, m), np.uint64)
        self.balls_of_fake = np.zeros((2, m), np.uint64)
        self.pairs = np.zeros((2, 2, CUTS), np.int64)

    def add(self, of_real: slice, of_fake: slice, found: tuple[Words, Words, Words, NDArray[np.int64]]) -> None:
        """Add what ``_core.count_in_balls`` found in a block."""
        self.balls_of_real[:, of_fake] |= found[0]
        self.rows_of_fake[:, of_real] |= found[1]
        self.balls_of_fake[:, of_real] |= found[2]
        self.pairs += found[3]


def _random_halves(n: int, seed: int) -> Words:
    generator = np.random.RandomState(seed)  # its numbers are the same in every version of NumPy
    firsts = np.zeros(n, np.uint64)
    for cut in range(CUTS):
        firsts[generator.permutation(n)[: n // 2]] |= np.uint64(1) << np.uint64(cut)
    return firsts


def _count_bits(words: Words) -> NDArray[np.int64]:
    """Return the number of words that have each bit, (64,)."""
    counts = np.zeros(CUTS, np.int64)
    for block in blocks(len(words)):
        octets = words[block].astype("<u8").view(np.uint8).reshape(-1, 8)
        counts += np.unpackbits(octets, axis=1, bitorder="little").sum(axis=0, dtype=np.int64)
    return counts


def _shares(words: Words, sides: tuple[Words, Words], sizes: tuple[int, int]) -> NDArray[np.float64]:
    """Return the share of the rows of each half that have the bit of a cut in words of one half and of the other.

    The shape is (2 halves of the words, 2 halves of the rows, cuts).
    """
    return np.array([[_count_bits(row & side) / n for side, n in zip(sides, sizes, strict=True)] for row in words])


def _variance_of_halves(values: NDArray[np.float64]) -> float:
    """Return the variance of a value of halves, (2, 2, cuts), from pairs of halves without a common row."""
    straight, crossed = values[0, 0] - values[1, 1], values[0, 1] - values[1, 0]
    return float(((straight**2).mean() + (crossed**2).mean()) / 4)


def spread_of_share(share: float, n: int) -> float:
    """Return the variance of one of n independent rows that are in something with this share.

    Half a row more on either side keeps it from 0 where the share is 0 or 1 by chance.
    """
    inside = (share * n + 0.5) / (n + 1)
    return inside * (1 - inside)


def _of_a_share(value: float, n: int, halves: NDArray[np.float64]) -> float:
    """Return the standard error of a share of n rows.

    The share of a whole set differs from that of its halves. How many times the variance of independent rows its
    variance is changes less, so that carries over.
    """
    ratio = spread_of_share(value, n) / spread_of_share(float(halves.mean()), n)
    return math.sqrt(_variance_of_halves(halves) / 2 * ratio)


def _of_a_mean(value: float, halves: NDArray[np.float64]) -> float:
    """Return the standard error of a mean of counts, whose size relative to the mean carries over from halves."""
    mean = float(halves.mean())
    return math.sqrt(_variance_of_halves(halves) / 2) * (value / mean if mean > 0 else 1.0)


def values_of_halves(real: Halves, fake: Halves, counts: HalfCounts, k: int) -> dict[str, NDArray[np.float64]]:
    """Return the four values of each half of the real and of the generated set, (2, 2, cuts), by their names."""
    of_real, of_fake = (real.firsts, ~real.firsts), (fake.firsts, ~fake.firsts)
    return {
        "precision": _shares(counts.balls_of_real, of_fake, fake.sizes()),
        "recall": _shares(counts.balls_of_fake, of_real, real.sizes()).swapaxes(0, 1),
        "density": counts.pairs / (k * np.array(fake.sizes())[:, None]),
        "coverage": _shares(counts.rows_of_fake, of_real, real.sizes()).swapaxes(0, 1),
    }


def standard_errors(
    values: dict[str, float], real: Halves, fake: Halves, counts: HalfCounts, k: int
) -> dict[str, float | None]:
    """Return the standard error of each value by its name, None where all halves agree and so nothing is known."""
    sizes = {"precision": len(fake.firsts), "recall": len(real.firsts), "coverage": len(real.firsts)}
    found: dict[str, float | None] = {}
    for name, of_halves in values_of_halves(real, fake, counts, k).items():
        if not _variance_of_halves(of_halves):
            found[name] = None
        elif name == "density":
            found[name] = _of_a_mean(values[name], of_halves)
        else:
            found[name] = _of_a_share(values[name], sizes[name], of_halves)
    return found
