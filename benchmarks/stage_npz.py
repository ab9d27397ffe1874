"""FID of two statistics files, 2048 dims: the whole process, from start to number."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Config, Result, at_most, compare_commands, faster

DIMS, ROWS = 2048, 10_000


def _statistics(config: Config, seed: int) -> Path:
    """Return an .npz with mu and sigma of rows that look like Inception features: not negative, a decaying spectrum."""
    path = config.cache / f"statistics-{DIMS}-seed{seed}.npz"
    if not path.exists():
        shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
        mixing = shared.standard_normal((DIMS, DIMS), np.float32) * np.arange(1, DIMS + 1, dtype=np.float32) ** -0.6
        rows = np.maximum(rng.standard_normal((ROWS, DIMS), np.float32) @ mixing.T * 0.1 + 0.05 * seed, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, mu=rows.mean(axis=0, dtype=np.float64), sigma=np.cov(rows.astype(np.float64), rowvar=False))
        partial.rename(path)
    return path


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)  # pytorch-fid builds its network even here
    files = [_statistics(config, seed) for seed in (1, 2)]
    yield compare_commands(
        config,
        f"two .npz, d = {DIMS}",
        {
            "fastfid": tools.fastfid(config, *files),
            "pytorch-fid": tools.pytorch_fid(config, environment, *files),
        },
        against="pytorch-fid",
        agree=tools.FULL,
        warm_up=config.pick(0, 1),
        repeats=5,
        budget_s=config.pick(10.0, 300.0),
        targets=[at_most("fastfid", "median", 2.0), faster("fastfid", than="pytorch-fid", times=5)],
        facts={"d": DIMS},
    )
