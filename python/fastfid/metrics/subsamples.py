"""Standard errors of precision, recall, density and coverage, from random subsets of both sets.

These values change in steps as a row comes or goes, and a row changes them through its neighbours: deleting rows counts
what two neighbours do together twice (Efron and Stein 1981), and a bootstrap's repeated rows are neighbours of each
other. Instead, both sets are cut at random into halves, 64 times. The values of two halves that have no row in common
differ as two independent draws of half the size do, whatever the values are, so half their mean squared difference is
the variance at half the size, without bias. At the whole size, the variance is between half of that, as for sums of
independent terms, and all of it: it falls more slowly where a few far rows decide, or where a half has few rows of a
mode. The delete-d jackknife (Shao and Wu 1989) says where between them: it measures how the values change without a
random sixteenth of the rows. It is too large where rows matter in pairs. By how much, the same deletions in the halves
say, as the variance at half the size is known.

Nothing is compared a second time: one sweep over all pairs of rows counts for all subsets at once, a bit of a word for
each. The ball of a row in its part reaches to the k-th of its nearest neighbours that is in this part, too, so the
neighbours that `neighbours_needed` counts determine it, but for one ball in 10^4 or fewer, which is taken a little too
small.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics.given import blocks

__all__ = [
    "DRAWS",
    "SCHEMES",
    "SubsetCounts",
    "Subsets",
    "least_rows",
    "neighbours_needed",
    "spread_of_share",
    "standard_errors",
    "values_of_parts",
]

DRAWS = 64
# Two halves; two halves, each without a sixteenth of its rows; the whole set without these rows.
SCHEMES = ("halves", "thinned halves", "thinned whole")
_DELETED = 16

Words = NDArray[np.uint64]


def neighbours_needed(k: int, n: int) -> int:
    """Return of how many of its neighbours a row knows the parts: k of them are in its own but for one in 10^4."""
    of_thinned = 2 * k * _DELETED / (_DELETED - 1)
    return min(n - 1, math.ceil(of_thinned + 5 * math.sqrt(2 * k)) + 4)


def least_rows(k: int) -> int:
    """Return the size of a set from which on its halves have standard errors."""
    return 8 * k


def _sizes(n: int) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of rows of the parts of each scheme."""
    first, second = n // 2, n - n // 2
    less = _deleted(first), _deleted(second)
    return (first, second), (first - less[0], second - less[1]), (n - sum(less),)


def _deleted(n: int) -> int:
    return max(1, round(n / _DELETED))


@dataclass(frozen=True)
class Subsets:
    """Random subsets of a set, and the balls around its rows within them.

    Attributes
    ----------
    members : ndarray of uint64, shape (n, 3, 2)
        The draws in which a row is in the first or the second part of each scheme.
    distances : ndarray of float64, shape (n, c)
        Squared distances of the nearest other rows, in ascending order.
    reaching : ndarray of uint64, shape (n, c, 3)
        The draws in which the ball of a row among its part reaches past so many of these rows.
    """

    members: Words
    distances: NDArray[np.float64]
    reaching: Words

    @classmethod
    def of(cls, indices: NDArray[np.int64], distances: NDArray[np.float64], k: int, seed: int) -> "Subsets":
        """Draw subsets of a set whose rows have these nearest neighbours, nearest first."""
        members = _random_parts(len(indices), seed)
        reaching = np.empty((*indices.shape, len(SCHEMES)), np.uint64)
        for block in blocks(len(indices)):
            both = members[block, None] & members[indices[block]]
            mine = both[..., 0] | both[..., 1]  # draws in which both rows are in one part
            found = np.zeros((k, len(mine), len(SCHEMES)), np.uint64)  # draws with 1, 2, ... k neighbours so far
            for place in range(mine.shape[1]):
                reaching[block, place] = ~found[-1]
                found[1:] |= found[:-1] & mine[:, place]
                found[0] |= mine[:, place]
        return cls(members, distances, reaching)

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, part: slice) -> tuple[Words, NDArray[np.float64], Words]:
        """Return what the core needs of some rows."""
        return self.members[part], self.distances[part], self.reaching[part]

    def sizes(self, scheme: int) -> tuple[int, ...]:
        """Return the numbers of rows of the parts, the same in every draw."""
        return _sizes(len(self))[scheme]


class SubsetCounts:
    """What the balls of parts hold, gathered over blocks of both sets."""

    def __init__(self, m: int, n: int) -> None:
        self.balls_of_real = np.zeros((n, len(SCHEMES), 2), np.uint64)
        self.rows_of_fake = np.zeros((m, len(SCHEMES), 2), np.uint64)
        self.balls_of_fake = np.zeros((m, len(SCHEMES), 2), np.uint64)
        self.pairs = np.zeros((len(SCHEMES), 2, 2, DRAWS), np.int64)

    def add(self, of_real: slice, of_fake: slice, found: tuple[Words, Words, Words, NDArray[np.int64]]) -> None:
        """Add what ``_core.count_in_balls`` found in a block."""
        self.balls_of_real[of_fake] |= found[0]
        self.rows_of_fake[of_real] |= found[1]
        self.balls_of_fake[of_real] |= found[2]
        self.pairs += found[3]


def _random_parts(n: int, seed: int) -> Words:
    generator = np.random.RandomState(seed)  # its numbers are the same in every version of NumPy
    members = np.zeros((n, len(SCHEMES), 2), np.uint64)
    half = n // 2
    for draw in range(DRAWS):
        bit = np.uint64(1) << np.uint64(draw)
        order = generator.permutation(n)
        for part, rows in enumerate((order[:half], order[half:])):
            kept = rows[: len(rows) - _deleted(len(rows))]
            members[rows, 0, part] |= bit
            members[kept, 1, part] |= bit
            members[kept, 2, 0] |= bit
    return members


def _count_bits(words: Words) -> NDArray[np.int64]:
    """Return the number of words that have each bit, (64,)."""
    counts = np.zeros(DRAWS, np.int64)
    for block in blocks(len(words)):
        octets = words[block].astype("<u8").view(np.uint8).reshape(-1, 8)
        counts += np.unpackbits(octets, axis=1, bitorder="little").sum(axis=0, dtype=np.int64)
    return counts


def values_of_parts(
    real: Subsets, fake: Subsets, counts: SubsetCounts, k: int, scheme: int
) -> dict[str, NDArray[np.float64]]:
    """Return the four values by their names, of the parts of the real and of the generated set, (p, p, draws)."""
    sizes_real, sizes_fake = real.sizes(scheme), fake.sizes(scheme)
    parts = range(len(sizes_real))

    def shares(words: Words, rows: Subsets) -> NDArray[np.float64]:
        """Return the shares of a part's rows that have a bit of the words of a part of the other set, in this order."""
        sizes = rows.sizes(scheme)
        return np.array(
            [[_count_bits(words[:, scheme, a] & rows.members[:, scheme, b]) / sizes[b] for b in parts] for a in parts]
        )

    return {
        "precision": shares(counts.balls_of_real, fake),
        "recall": shares(counts.balls_of_fake, real).swapaxes(0, 1),
        "density": counts.pairs[scheme, : len(parts), : len(parts)] / (k * np.array(sizes_fake)[:, None]),
        "coverage": shares(counts.rows_of_fake, real).swapaxes(0, 1),
    }


def _variance_of_halves(values: NDArray[np.float64]) -> float:
    """Return the variance of a value of halves, (2, 2, draws), from pairs of halves without a common row."""
    straight, crossed = values[0, 0] - values[1, 1], values[0, 1] - values[1, 0]
    return float(((straight**2).mean() + (crossed**2).mean()) / 4)


def spread_of_share(share: float, n: int) -> float:
    """Return the variance of one of n independent rows that are in something with this share.

    Half a row more on either side keeps it from 0 where the share is 0 or 1 by chance.
    """
    inside = (share * n + 0.5) / (n + 1)
    return inside * (1 - inside)


def _whole_over_halves(name: str, value: float, n: int, halves: NDArray[np.float64]) -> float:
    """Return how many times the variance a value has that differs from its mean over the halves as this one does.

    How many times the variance of independent rows the variance of a share is, and how large the error of a mean of
    counts is beside the mean, change less than the values with the number of rows. So these carry over.
    """
    mean = float(halves.mean())
    if name == "density":
        return (value / mean) ** 2 if mean > 0 else 1.0
    return spread_of_share(value, n) / spread_of_share(mean, n)


def _over_variance_of_rows(real: Subsets, fake: Subsets) -> float:
    """Return the variance that a mean of all rows has, over that of its change when a sixteenth of them is deleted."""
    kept = [rows.sizes(2)[0] for rows in (real, fake)]
    return (kept[0] / (len(real) - kept[0]) + kept[1] / (len(fake) - kept[1])) / 2


def standard_errors(
    values: dict[str, float], real: Subsets, fake: Subsets, counts: SubsetCounts, k: int
) -> dict[str, float | None]:
    """Return the standard error of each value by its name, None where all halves agree and so nothing is known."""
    of_halves, of_thinned, of_whole = (values_of_parts(real, fake, counts, k, s) for s in range(len(SCHEMES)))
    scale = _over_variance_of_rows(real, fake)
    sizes = {"precision": len(fake), "recall": len(real), "density": 0, "coverage": len(real)}
    found: dict[str, float | None] = {}
    for name, halves in of_halves.items():
        at_half = _variance_of_halves(halves)
        if not at_half:
            found[name] = None
            continue
        from_halves = at_half / 2 * _whole_over_halves(name, values[name], sizes[name], halves)
        jackknife = scale * float(of_whole[name].var(ddof=1))
        jackknife_at_half = scale * float((of_thinned[name] - halves).var(ddof=1))
        excess = max(1.0, jackknife_at_half / at_half)
        found[name] = math.sqrt(min(max(jackknife / excess, from_halves), 2 * from_halves))
    return found
