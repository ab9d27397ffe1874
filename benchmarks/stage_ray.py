"""Workers of Ray beside one process with as many threads: the steady rate, and apart from it what the start takes.

The workers have loaded their network. Needs Ray: pip install ".[ray]".
"""

import importlib.util
import time
from collections.abc import Iterator

from benchmarks.harness import Agreement, Config, Result, compare, keeps_up
from benchmarks.images import jpeg_folder
from fastfid import InceptionV3, evaluate
from fastfid.scale.ray import RayEngine

THREADS = (2,)
RAY, ALONE = "fastfid, 2 workers of Ray", "fastfid, one process"


def run(config: Config) -> Iterator[Result]:
    if importlib.util.find_spec("ray") is None:
        print('  not measured: Ray is not installed: pip install ".[ray]"')
        return
    n, dims = config.pick((128, 64), (512, 2048))
    sides = [jpeg_folder(config.cache, n, seed, 256, 256) for seed in (1, 2)]
    network = InceptionV3(dims)

    def alone() -> float:
        return evaluate(*sides, extractor=network)["fid"].value

    with RayEngine(config.threads, threads=1) as engine:

        def by_ray() -> float:
            return evaluate(*sides, extractor=network, engine=engine)["fid"].value

        began = time.perf_counter()
        engine.connect()
        connected = time.perf_counter() - began
        by_ray()
        first = time.perf_counter() - began - connected
        yield compare(
            config,
            f"2 x {n} JPEGs, {dims} features",
            {RAY: by_ray, ALONE: alone},
            against=ALONE,
            agree=Agreement(absolute=0, relative=0, why="the same bits"),
            repeats=3,
            count=2 * n,
            unit="images/s",
            targets=[keeps_up(RAY, with_=ALONE, share=0.95)],
            facts={"n": n, "d": dims, "start of Ray, s": connected, "first run after it, s": first},
        )
