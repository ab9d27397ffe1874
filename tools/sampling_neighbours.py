"""Standard errors of `prdc` beside simulation: ``python -m tools.sampling_neighbours``.

For each pair of populations, pairs of sets are drawn, 500 times. The table has the standard deviation of each value
over the draws, the standard errors (root mean square) divided by it, with the noise of such a standard deviation, and
how many of the 95 % intervals hold the mean over the draws. The last line says which are not within 15 %. Takes about
four minutes on one core.

--scaling prints how the variances fall with the number of rows, for an ordinary pair and for the two that are hard.
Halves alone would suppose that n var / (p (1 - p)) of a share, and n var / mean^2 of the density, are the same for
n / 2 and n rows.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastfid.metrics import prdc
from fastfid.metrics.nearest import PRDCResult
from tools.near_equality import NEAR, noise

Array = NDArray[Any]
Value = Literal["precision", "recall", "density", "coverage"]

# What the docs say of the standard errors: within 15 % of the spread (NEAR), and intervals of 95 % that hold this.
HELD = (0.92, 0.97)


@dataclass(frozen=True)
class Case:
    """Two populations and the sizes of the samples. `hard`: values whose intervals or errors are not as good."""

    name: str
    real: Callable[[np.random.Generator, int], Array]
    fake: Callable[[np.random.Generator, int], Array]
    m: int
    n: int
    k: int = 5
    hard: tuple[Value, ...] = ()

    def draw(self, count: int, seed: int) -> list[PRDCResult]:
        """Return the results of some draws."""
        rng = np.random.default_rng(seed)
        return [prdc(self.real(rng, self.m), self.fake(rng, self.n), k=self.k) for _ in range(count)]


def summary(results: list[PRDCResult], name: Value) -> tuple[float, float, float, float, float, int]:
    """Return mean, spread, its noise, standard error over it, share of intervals with the mean, missing errors."""
    values = np.array([getattr(result, name) for result in results])
    errors = [getattr(result, f"{name}_standard_error") for result in results]
    there = np.array([error for error in errors if error is not None])
    mean, spread = values.mean(), values.std(ddof=1)
    intervals = [interval for result in results if (interval := result.interval(name))]
    held = np.mean([low <= mean <= high for low, high in intervals])
    ratio = math.sqrt((there**2).mean()) / spread
    return mean, spread, noise(values), ratio, float(held), len(values) - len(there)


def gaussian(d: int, shift: float = 0.0, scale: float = 1.0, decay: float = 0.0) -> Callable[..., Array]:
    """Return a Gaussian whose axes have standard deviations that decay, moved along the first axis."""
    spreads = np.logspace(0, -decay, d) * scale

    def draw(rng: np.random.Generator, n: int) -> Array:
        rows = rng.standard_normal((n, d)) * spreads
        rows[:, 0] += shift
        return rows

    return draw


def modes(d: int, count: int) -> Callable[..., Array]:
    """Return the first of 20 equal Gaussians, 3 apart in each direction."""
    centres = np.random.default_rng(0).standard_normal((20, d)) * 3

    def draw(rng: np.random.Generator, n: int) -> Array:
        rows: Array = centres[rng.integers(count, size=n)] + rng.standard_normal((n, d))
        return rows

    return draw


def cases() -> list[Case]:
    """Return equal and shifted populations, of more and of less than they have in common."""
    plain = gaussian(16)
    long = gaussian(64, decay=1.5)
    return [
        Case("equal, d = 2", gaussian(2), gaussian(2), 500, 500),
        Case("equal, d = 16", plain, plain, 500, 500),
        Case("equal, d = 16, k = 3", plain, plain, 500, 500, 3),
        Case("equal, d = 64 of decaying variances", long, long, 1000, 1000),
        Case("equal, 300 and 900 rows", plain, plain, 300, 900),
        Case("shifted by 1, d = 16", plain, gaussian(16, 1.0), 500, 500),
        Case("shifted by 1, d = 16, n = 2,000", plain, gaussian(16, 1.0), 2000, 2000),
        Case("shifted by 2, d = 16", plain, gaussian(16, 2.0), 500, 500),
        Case("shifted by 0.5, d = 64 of decaying variances", long, gaussian(64, 0.5, decay=1.5), 500, 500),
        Case("larger by 1.2, d = 32", gaussian(32), gaussian(32, 0, 1.2), 500, 500),
        Case("smaller by 0.8, d = 32", gaussian(32), gaussian(32, 0, 0.8), 500, 500),
        Case("14 of 20 modes, d = 8", modes(8, 20), modes(8, 14), 500, 500),
        Case("100 rows, shifted by 1, d = 16", plain, gaussian(16, 1.0), 100, 100),
        Case("14 of 20 modes, d = 8, 100 rows", modes(8, 20), modes(8, 14), 100, 100, hard=("density",)),
        Case("shifted by 3, d = 4: hardly overlap", gaussian(4), gaussian(4, 3.0), 500, 500, hard=get_args(Value)),
    ]


def print_scaling(draws: int) -> None:
    """Print n times the variances, over p (1 - p) or over the squared density, for rising n."""
    print("| populations | n | precision | recall | density | coverage |\n|---|---|---|---|---|---|")
    for case in cases():
        if case.name not in ("equal, d = 16", "14 of 20 modes, d = 8", "shifted by 3, d = 4: hardly overlap"):
            continue
        for n in (62, 125, 250, 500):
            rng, cells = np.random.default_rng(11), []
            results = [prdc(case.real(rng, n), case.fake(rng, n), k=5, standard_errors=False) for _ in range(draws)]
            for name in get_args(Value):
                values = np.array([getattr(result, name) for result in results])
                mean = float(values.mean())
                scale = mean**2 if name == "density" else mean * (1 - mean)
                cells.append(f"{n * values.var(ddof=1) / scale:.2f}")
            print(f"| {case.name} | {n} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    """Print the table; the exit code is 1 if a standard error is out of its bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500, metavar="N", help="pairs of sets of each case; default: 500")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names begin with it")
    parser.add_argument("--scaling", action="store_true", help="how variances fall with the number of rows")
    options = parser.parse_args()
    draws = options.draws
    if options.scaling:
        print_scaling(2 * draws)
        return 0
    # What chance adds to a share of so many intervals: three deviations.
    held = [
        limit + sign * 3 * math.sqrt(limit * (1 - limit) / draws) for sign, limit in zip((-1, 1), HELD, strict=True)
    ]
    bad, far = 0, []
    print("| populations | value | mean | standard deviation | standard error / it | intervals that hold the mean |")
    print("|---|---|---|---|---|---|")
    for case in cases():
        if not case.name.startswith(options.only):
            continue
        results = case.draw(draws, 5)
        for name in get_args(Value):
            mean, spread, unsure, ratio, share, missing = summary(results, name)
            # Intervals of a share that hangs on fewer rows than 3 are as coarse as these rows.
            n = case.n if name == "precision" else case.m
            fine = name == "density" or min(mean, 1 - mean) * n >= 3
            near_enough = abs(ratio - 1) <= NEAR + 3 * unsure and (held[0] <= share <= held[1] or not fine)
            wrong = not near_enough and name not in case.hard
            bad += wrong
            if abs(ratio - 1) > NEAR:
                far.append(f"{case.name}, {name}: {ratio:.2f} ± {ratio * unsure:.2f}")
            print(
                f"| {case.name} | {name} | {mean:.3f} | {spread:.4f} | {ratio:.2f} ± {ratio * unsure:.2f} | {share:.1%}"
                f"{f', {missing} unknown' if missing else ''} |{' out of bounds' if wrong else ''}",
                flush=True,
            )
    print(f"\n{'not within 15 %: ' if far else 'all within 15 %'}{'; '.join(far)}")
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("FASTFID_NUM_THREADS", "1")
    sys.exit(main())
