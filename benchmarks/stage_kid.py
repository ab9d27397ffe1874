"""KID of features: 100 random subsets of 1,000 rows beside torch-fidelity, and all pairs beside the bare products.

Where the sets are small, a pair of rows is in several subsets, and fastfid computes its kernel once. From about 10,000
rows a side on this would take longer, and the float32 products of the subsets, which BLAS computes for both packages,
are about 85 % of the time: no more than 1.15 times the peer's speed can be reached. NumPy computes half of the product
of rows with their own transpose (ssyrk), for the peer too.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Check, Config, Measured, Result, Target, compare, faster
from benchmarks.stage_moments import features
from fastfid.metrics import kid

THREADS = (1, 2)
D = 2048
PEER = "torch-fidelity"
PRODUCTS = "the float32 products alone"
PRODUCTS64 = "the float64 products alone"

# Both multiply float32 numbers. The mean of the kernel is about 2.
AGREE = Agreement(absolute=2e-6, why="float32 products in another order, and the peer's sums are float32 too")


class _Clock:
    """CPU seconds of every call, over all cores."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def around(self, name: str, call: Callable[[], object]) -> Callable[[], object]:
        def clocked() -> object:
            start = time.process_time()
            answer = call()
            self.seconds.setdefault(name, []).append(time.process_time() - start)
            return answer

        return clocked

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def _less_cpu(clock: _Clock, name: str, *, than: str, times: float) -> Check:
    """Target: `than` takes at least `times` the CPU seconds of `name`."""

    def check(_: Mapping[str, Measured]) -> Target:
        ratio = clock.median(than) / clock.median(name)
        return Target(f"{than} takes at least {times:g} x the CPU time", ratio, times, ratio >= times)

    return check


def _with_cpu(result: Result, clock: _Clock) -> Result:
    for measured in result.measured:
        measured.cpu_seconds = clock.median(measured.name)
        measured.note = f"{measured.cpu_seconds:.2f} s of CPU"
    return result


def _subsets(config: Config, n: int) -> Result:
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(2 * n, D)[:n], features(2 * n, D)[n:]
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    clock = _Clock()
    contenders = {
        "fastfid": lambda: kid(x, y, protocol="torch-fidelity").value,
        PEER: lambda: kid_features_to_metric(
            *tensors, kid_subsets=100, kid_subset_size=1000, rng_seed=2020, verbose=False
        )["kernel_inception_distance_mean"],
    }
    return _with_cpu(
        compare(
            config,
            f"100 subsets of 1,000 rows, of {n:,} a side, d = {D}",
            {name: clock.around(name, call) for name, call in contenders.items()},
            against=PEER,
            agree=AGREE,
            warm_up=0,
            repeats=config.pick(2, 5),
            budget_s=config.pick(60.0, 300.0),
            targets=[faster("fastfid", than=PEER, times=1.5), _less_cpu(clock, "fastfid", than=PEER, times=1.5)],
            facts={"n": n, "d": D},
        ),
        clock,
    )


def _all_pairs(config: Config, n: int) -> Result:
    x, y = features(2 * n, D)[:n], features(2 * n, D)[n:]
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)

    def products(a: np.ndarray, b: np.ndarray) -> None:
        for block in range(0, n, 1000):  # NumPy multiplies a matrix by its own transpose with half of the work
            part = a[block : block + 1000]
            for start in range(block, n, 1000):
                part @ a[start : start + 1000].T
                b[block : block + 1000] @ b[start : start + 1000].T
            for start in range(0, n, 1000):
                part @ b[start : start + 1000].T

    clock = _Clock()
    contenders: dict[str, Callable[[], object]] = {
        "fastfid": lambda: kid(x, y).value,
        PRODUCTS: lambda: products(x, y),
        PRODUCTS64: lambda: products(wide_x, wide_y),
    }
    return _with_cpu(
        compare(
            config,
            f"all pairs of {n:,} and {n:,} rows, with the standard error, d = {D}",
            {name: clock.around(name, call) for name, call in contenders.items()},
            against=PRODUCTS64,
            agree=None,  # products alone have no answer
            facts={"n": n, "d": D},
        ),
        clock,
    )


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=False)
    for n in config.pick((5000,), (5000, 8000, 20_000)):
        yield _subsets(config, n)
    for n in config.pick((2000,), (4000, 10_000)):
        yield _all_pairs(config, n)
