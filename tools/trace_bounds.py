"""Compare the bounds of the trace with 60 digits in thousands of pairs made to break them; exits with 1 if one does.

A maintainer's command; needs mpmath. 13,000 pairs take about two minutes.

    python -m tools.trace_bounds [--pairs 13000] [--seed 0]

The pairs are those of tests/trace_adversaries.py, of which the test suite takes the first 600. Each is solved by the
methods below; the exact trace and the exact distance have to be between their bounds, with or without a note.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from trace_adversaries import Pair, Truth, pairs, solve, truth, violation

from fastfid import _core

ROUTES: list[tuple[str, float | None]] = [("auto", None), ("newton-schulz", None), ("auto", 1e-9)]
WIDEST = 8


class Tally:
    """Counts over all pairs and routes."""

    def __init__(self) -> None:
        self.pairs: Counter[str] = Counter()
        self.refused = 0
        self.solved = 0
        self.trace_violations = 0
        self.distance_violations = 0
        self.worst = 0.0  # by how much, relative to the trace
        self.notes = 0
        self.notes_missing = 0  # for brackets wider than 2e-6
        self.widths: list[tuple[float, str, int, str]] = []

    def add(self, index: int, pair: Pair, exact: Truth) -> None:
        """Solve one pair by every route."""
        self.pairs[pair.family] += 1
        size = float(exact.trace) or 1.0
        widest = 0.0
        note = ""
        for method, tol in ROUTES:
            try:
                result = solve(pair, method, tol)
            except _core.NumericalError:
                self.refused += 1
                continue
            self.solved += 1
            outside = violation(result.trace, exact.trace)
            self.trace_violations += outside > 0
            self.distance_violations += violation(result, exact.distance) > 0
            self.worst = max(self.worst, outside / size)
            width = (result.trace.upper - result.trace.lower) / size
            self.notes += bool(result.trace.note)
            self.notes_missing += width > 2e-6 and not result.trace.note
            if width >= widest:
                widest, note = width, result.trace.note
        self.widths.append((widest, pair.family, index, note))

    def print(self) -> None:
        """Print the counts and the widest brackets."""
        print(f"pairs: {self.pairs.total()} ({', '.join(f'{n} {name}' for name, n in self.pairs.items())})")
        print(f"solved: {self.solved} (routes: {len(ROUTES)} each); refused as no covariance: {self.refused}")
        print(f"violations: {self.trace_violations} of the trace, {self.distance_violations} of the distance")
        print(f"largest violation, relative to the trace: {self.worst:.1e}")
        print(f"notes: {self.notes}; brackets wider than 2e-6 without one: {self.notes_missing}")
        self.widths.sort(reverse=True)
        for level in (1e-12, 1e-9, 1e-6, 1e-3, 1.0):
            print(f"pairs whose widest bracket is above {level:g}: {sum(width > level for width, *_ in self.widths)}")
        print("the widest brackets, relative to the trace:")
        for width, family, index, note in self.widths[:WIDEST]:
            print(f"  {width:.1e}  pair {index}, {family}: {note}")


def main() -> int:
    """Run; the number of violations decides the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=13000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tally = Tally()
    started = time.perf_counter()
    for index, pair in enumerate(pairs(arguments.pairs, arguments.seed)):
        tally.add(index, pair, truth(pair))
    tally.print()
    print(f"{time.perf_counter() - started:.0f} s")
    return int(tally.trace_violations + tally.distance_violations > 0)


if __name__ == "__main__":
    sys.exit(main())
