"""Two extractors in one pass: files to both features, beside the two bare networks and beside two passes.

"Bare networks": both networks, one after the other, on inputs that are ready in memory: the sum of their times, with as
many threads, in turn with the others. The ratio is the median over the rounds. The second network is the Inception
network too, under another protocol: no other of its size is at hand everywhere.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Agreement, Config, Result, compare, costs
from benchmarks.images import jpeg_folder
from fastfid.extractor import FeatureExtractor
from fastfid.features.joint import JointExtractor
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source

EXACT = Agreement(why="the same features to the last bit, however they are computed")


def _bare(network: FeatureExtractor, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    batches = [inputs[i : i + network.batch_size] for i in range(0, len(inputs), network.batch_size)]
    with ThreadPoolExecutor(network.concurrency) as threads:
        return np.concatenate(list(threads.map(network.forward, batches)))  # type: ignore[arg-type]


def run(config: Config) -> Iterator[Result]:
    from fastfid.features.inception import InceptionV3

    names = ("pytorch-fid", "tensorflow")
    networks: dict[str, FeatureExtractor] = {name: InceptionV3(protocol=name, device="cpu") for name in names}
    joint = JointExtractor(networks)
    pictures, rounds = config.pick((50, 3), (200, 6))
    folder = jpeg_folder(config.cache, pictures, 1, 500, 375)
    inputs = [np.stack([one.prepare(item.load()) for item in open_source(folder)]) for one in networks.values()]

    def bare() -> NDArray[np.float32]:
        return np.hstack([_bare(*both) for both in zip(networks.values(), inputs, strict=True)])

    def two_passes() -> NDArray[np.float32]:
        found: list[NDArray[np.float32]] = []
        for network in networks.values():
            rows: list[NDArray[np.float32]] = []
            extract(open_source(folder), network, only_features(rows.append))
            found.append(np.concatenate(rows))
        return np.hstack(found)

    def ours() -> NDArray[np.float32]:
        rows: list[NDArray[np.float32]] = []

        def consume(outputs: Any, indices: Any) -> None:
            rows.append(np.hstack([joint.of(i, outputs)["features"] for i in range(len(networks))]))

        extract(open_source(folder), joint, consume)
        return np.concatenate(rows)

    yield compare(
        config,
        f"{rounds * pictures} JPEG of 500 x 375 to the features of two networks, {pictures} in turn",
        {"bare networks": bare, "two passes": two_passes, "fastfid": ours},
        against="bare networks",
        agree=EXACT,
        repeats=rounds,
        warm_up=0,
        budget_s=600,
        count=pictures,
        unit="images/s",
        targets=[costs("fastfid", times=1.05, of="bare networks")],
        facts={"n": rounds * pictures},
    )
