"""Segments, run directories and ranks: moments beside one stream, Parts a second, a run that goes on, torchrun.

A Part here has what the FID accumulates of one segment of 10 million images at 2,048 dims: mean, covariance, and the
rows that the sample may need.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import ranks
from benchmarks.harness import Agreement, Config, Result, at_most, compare, keeps_up
from benchmarks.images import png_folder
from fastfid import InceptionV3, evaluate
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.moments import FeatureMoments
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.reservoir import sample_below
from fastfid.scale.part import Part
from fastfid.scale.plan import Task
from fastfid.segments import SEGMENT

THREADS = (1, 2)
BATCH = 4  # rows a run of the network on a CPU
D = 2048
STREAM, SEGMENTS = "one stream", "fastfid"


def _moments(config: Config, n: int) -> Result:
    """The whole accumulator of the FID, sample included."""
    block = np.random.default_rng(0).standard_normal((4096, D), np.float32)

    def fill(*, by_index: bool) -> np.ndarray:
        moments = FeatureMoments(D)
        for first in range(0, n, BATCH):
            outputs = {"features": block[first % 4096 :][: min(BATCH, n - first)]}
            if by_index:
                moments.update_at(outputs, np.arange(first, first + len(outputs["features"])))
            else:
                moments.update(outputs)
        return moments.statistics({}, "benchmark").sigma.diagonal().copy()

    return compare(
        config,
        f"mean and covariance, n = {n}, d = {D}",
        {SEGMENTS: lambda: fill(by_index=True), STREAM: lambda: fill(by_index=False)},
        against=STREAM,
        agree=Agreement(absolute=0, relative=1e-12, why="float64 sums in another order"),
        repeats=config.pick(3, 7),
        count=n,
        unit="rows/s",
        budget_s=120,
        targets=[keeps_up(SEGMENTS, with_=STREAM, share=1 / 1.02)],
        facts={"n": n, "d": D},
    )


def _parts(config: Config) -> Iterator[Result]:
    """Write, read, and read and merge the Part of a segment."""
    rows = np.random.default_rng(0).standard_normal((SEGMENT, D), np.float32)
    metrics = {"fid": FrechetInceptionDistance()}
    accumulators = Accumulators(metrics, {"features": D})
    accumulators.update({"features": rows}, np.arange(SEGMENT))
    arrays = {
        f"state/{name}/{entry}": np.asarray(value)
        for name, state in accumulators.state_below(sample_below(10_000_000)).items()
        for entry, value in state.items()
    }
    task = Task("real", 0, SEGMENT, 0, "", "key")
    part = Part("key", SEGMENT, [], arrays | {"skipped_at": np.empty(0, np.int64)} | Census().state())
    total = Accumulators(metrics, {"features": D})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.npz"
        part.save(path)

        def merge() -> None:
            Part.load(path, task).join(total, metrics, task)

        for name, step in (
            ("write", lambda: part.save(path)),
            ("read", lambda: Part.load(path, task) and None),
            ("read and merge", merge),
        ):
            yield compare(
                config,
                f"Parts of a segment, d = {D}: {name}",
                {"fastfid": step},
                against="fastfid",
                agree=None,
                count=1,
                unit="Parts/s",
                targets=[at_most("fastfid", "median", 1 / 50)] if name == "read and merge" else [],
                facts={"d": D, "bytes": path.stat().st_size},
            )


def _resume(config: Config) -> Result:
    """A run of which every second task is done, beside a whole one. Both with the network loaded."""
    n = config.pick(128, 960)  # an even number of tasks
    sides = [png_folder(config.cache, n, seed) for seed in (1, 2)]
    network = InceptionV3(64)

    def fid(folder: Path) -> float:
        return evaluate(*sides, extractor=network, run_dir=folder)["fid"].value

    with tempfile.TemporaryDirectory() as folder:
        value = fid(Path(folder) / "done")
        number = iter(range(1000))

        def half_done() -> float:
            run = Path(folder) / str(next(number))
            shutil.copytree(Path(folder) / "done", run)
            for side in ("real", "fake"):
                for path in sorted((run / "parts" / side).iterdir())[::2]:
                    path.unlink()
            return fid(run)

        return compare(
            config,
            f"a run of 2 x {n} images, half done",
            {"half done": half_done, "whole": lambda: fid(Path(folder) / f"whole-{next(number)}")},
            against="whole",
            agree=Agreement(absolute=0, relative=0, why="the same bits"),
            repeats=config.pick(3, 5),
            targets=[keeps_up("half done", with_="whole", share=1 / 0.55)],
            facts={"n": n, "fid": value},
        )


def run(config: Config) -> Iterator[Result]:
    yield _moments(config, config.pick(33_000, 49_407))
    yield from _parts(config)
    yield _resume(config)
    yield from ranks.run(config)
