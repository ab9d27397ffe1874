"""Two ranks of torchrun beside one process with two threads, and raw sums beside fastfid's moments.

Raw sums, ``sum x`` and ``sum x xᵀ`` in float64, are what edm2's script and torchmetrics add up over ranks. Here the two
halves of the rows are two ranks', and one addition stands for the all-reduce.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Command, Config, Measured, Result, compare, keeps_up, run_command, show
from benchmarks.images import jpeg_folder
from fastfid import Moments

ONE, RANKS = "fastfid, 2 threads", "fastfid, 2 ranks"
RAW = "raw sums"
BATCH = 64
D_OF_ERROR = 64


def steady_rate(config: Config) -> Result:
    """Images a second between the loading of the network and the distance, in turn, on two cores."""
    n = config.pick(320, 2000)
    sets = [str(jpeg_folder(config.cache, number, seed, 256, 256)) for seed, number in ((11, n), (12, n))]
    words = ["-m", "fastfid", *sets, "--json", "--quiet"]
    torchrun = [config.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    commands = {
        ONE: Command([config.python, *words]),
        RANKS: Command([*torchrun, *words], environment={"FASTFID_NUM_THREADS": "1"}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    starts: dict[str, list[float]] = {name: [] for name in commands}
    values = set()
    for turn in range(config.pick(2, 5)):
        for name in list(commands)[:: 1 if turn % 2 else -1]:
            done = run_command(commands[name], threads=2)
            record = json.loads(done.process.stdout)
            values.add(record["value"])
            seconds[name].append(record["seconds"]["features"])
            starts[name].append(done.seconds - record["seconds"]["features"])
    if len(values) > 1:
        raise AssertionError(f"the ranks print another value than one process: {values}")
    measured = [
        Measured(
            name,
            taken,
            answer=next(iter(values)),
            rate=2 * n / statistics.median(taken),
            parts={"features": statistics.median(taken), "start and distance": statistics.median(starts[name])},
        )
        for name, taken in seconds.items()
    ]
    target = keeps_up(RANKS, with_=ONE, share=0.95)({one.name: one for one in measured})
    result = Result(f"two ranks, n = {2 * n}", measured, ONE, 2, "images/s", targets=[target], facts={"n": 2 * n})
    show(result)
    return result


def _moments(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    halves = []
    for half in np.array_split(rows, 2):
        halves.append(Moments(rows.shape[1]))
        for first in range(0, len(half), BATCH):
            halves[-1].update(half[first : first + BATCH])
    halves[0].merge(halves[1])
    return halves[0].covariance()


def _raw_sums(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    d = rows.shape[1]
    total, products = np.zeros(d), np.zeros((d, d))
    for half in np.array_split(rows, 2):
        of_half, products_of_half = np.zeros(d), np.zeros((d, d))
        for first in range(0, len(half), BATCH):
            x = half[first : first + BATCH].astype(np.float64)
            of_half += x.sum(0)
            products_of_half += x.T @ x
        total += of_half
        products += products_of_half
    n = len(rows)
    return (products - np.outer(total, total) / n) / (n - 1)


def _error(covariance: NDArray[np.float64], rows: NDArray[np.float32]) -> float:
    """The largest error of an element, in units of the largest variance, against two passes in extended precision."""
    exact = rows.astype(np.longdouble)
    exact -= exact.mean(0)
    truth = exact.T @ exact / (len(rows) - 1)
    return float(np.abs(covariance - truth).max() / truth.diagonal().max())


def raw_sums(config: Config) -> Iterator[Result]:
    """Time at 2,048 dims, and the error of the covariance by the size of the mean."""
    rng = np.random.default_rng(0)
    errors: dict[str, Any] = {}
    for mean in (0, 10, 1000, 100_000):
        rows = (rng.standard_normal((20_000, D_OF_ERROR)) + mean).astype(np.float32)
        errors[f"mean {mean}"] = {"fastfid": _error(_moments(rows), rows), RAW: _error(_raw_sums(rows), rows)}
        print(f"  mean of {mean} deviations: error {errors[f'mean {mean}']}", file=sys.stderr)
    n = config.pick(8_192, 32_768)
    rows = rng.standard_normal((n, 2048), np.float32)
    yield compare(
        config,
        f"covariance of two halves, n = {n}, d = 2048",
        {"fastfid": lambda: _moments(rows).diagonal(), RAW: lambda: _raw_sums(rows).diagonal()},
        against=RAW,
        agree=None,
        count=n,
        unit="rows/s",
        facts={"n": n, "d": 2048, "d of error": D_OF_ERROR, "error": errors},
    )


def run(config: Config) -> Iterator[Result]:
    """The cases of this file."""
    yield steady_rate(config)
    yield from raw_sums(config)
