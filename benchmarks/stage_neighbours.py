"""Precision, recall, density and coverage of features at hand, beside the products they need and beside other tools.

The limit is sgemm of NumPy's OpenBLAS on as many products as one sweep needs: those of all pairs of a real and a
generated row, and half of those within each set. prdc is the package of density and coverage, which calls scikit-learn;
torch-fidelity computes precision and recall alone.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Result, compare, faster, keeps_up
from benchmarks.stage_moments import features
from fastfid.metrics import prdc

THREADS = (1, 2)
PRODUCTS = "float32 products alone"
WITHOUT = "fastfid without standard errors"
STRIP = 1024  # rows of a product

Answers = Callable[[], np.ndarray]


def sets(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a real and a generated set that differ a little, (n, d) float32 each."""
    both = features(2 * n, d)
    noise = np.random.default_rng(1).standard_normal((2 * n, d), np.float32)
    both += np.abs(noise) * np.float32(0.2)  # else most of the 64 directions decide
    return both[:n], both[n:] * np.float32(1.02)


def products(x: np.ndarray, y: np.ndarray) -> None:
    """Multiply what one sweep multiplies, a strip of rows at a time."""
    out = np.empty((STRIP, max(len(x), len(y))), np.float32)
    for rows, others in ((x, x), (y, y), (x, y)):
        for start in range(0, len(rows), STRIP):
            strip = rows[start : start + STRIP]
            width = start + len(strip) if rows is others else len(others)
            np.matmul(strip, others[:width].T, out=out[: len(strip), :width])


def ours(x: np.ndarray, y: np.ndarray, *, standard_errors: bool = True, protocol: str = "prdc") -> np.ndarray:
    """Return the values that the tool of the protocol has."""
    found = prdc(x, y, protocol=protocol, standard_errors=standard_errors)  # type: ignore[arg-type]
    both = found.precision, found.recall
    return np.array(both if protocol == "torch-fidelity" else (*both, found.density, found.coverage))


def of_prdc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values of the package prdc, which prints."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real_features=x, fake_features=y, nearest_k=5)
    return np.array([found[name] for name in ("precision", "recall", "density", "coverage")])


def of_torch_fidelity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return torch-fidelity's precision and recall. Its first side is the generated one."""
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(torch.from_numpy(y), torch.from_numpy(x), verbose=False)
    return np.array([found["precision"], found["recall"]])


class _Processor:
    """Seconds of the processor, over all cores, that each contender took in its fastest call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, contenders: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
        """Return the contenders, watched."""

        def watched(name: str, call: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                start = time.process_time()
                answer = call()
                self.seconds[name] = min(time.process_time() - start, self.seconds.get(name, np.inf))
                return answer

            return run

        return {name: watched(name, call) for name, call in contenders.items()}


def run(config: Config) -> Iterator[Result]:
    """Yield the products, then the two tools."""
    use_peers(config, weights=False)
    import torch

    torch.set_num_threads(config.threads)
    n, d = config.pick(3000, 10_000), 2048
    x, y = sets(n, d)
    cases: list[tuple[str, dict[str, Callable[[], object]], str, Agreement | None, list]] = [
        (
            "the products",
            {
                "fastfid": lambda: ours(x, y),
                WITHOUT: lambda: ours(x, y, standard_errors=False),
                PRODUCTS: lambda: products(x, y),
            },
            PRODUCTS,
            None,
            [
                keeps_up("fastfid", with_=PRODUCTS, share=1 / 1.3),
                keeps_up("fastfid", with_=WITHOUT, share=1 / 1.3),
            ],
        ),
        (
            "prdc",
            {"fastfid": lambda: ours(x, y), "prdc": lambda: of_prdc(x, y)},
            "prdc",
            Agreement(relative=2e-3, why="prdc decides near ties as it rounds"),
            [faster("fastfid", than="prdc", times=4)],
        ),
        (
            "torch-fidelity",
            {
                "fastfid": lambda: ours(x, y, protocol="torch-fidelity"),
                "torch-fidelity": lambda: of_torch_fidelity(x, y),
            },
            "torch-fidelity",
            Agreement(absolute=5e-3, why="distances of torch.cdist are float32"),
            [faster("fastfid", than="torch-fidelity", times=1.5)],
        ),
    ]
    for name, contenders, against, agree, targets in cases:
        processor = _Processor()
        result = compare(
            config,
            f"{name}, n = {n:,} and {n:,}",
            processor.watch(contenders),
            against=against,
            agree=agree,
            targets=targets,
            facts={"n": n, "d": d},
        )
        result.facts["processor_seconds"] = processor.seconds
        yield result
