"""All metrics of rows that are there already, beside the time of the network for the features of as many images.

The features are of the kind of Inception's, and made, as the time of a metric does not depend on what they show. The
network runs on 32 images, and its time is multiplied. The classifier is random.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from benchmarks.environment import use_peers
from benchmarks.harness import Check, Config, Measured, Result, Target, compare
from benchmarks.images import png_folder
from benchmarks.stage_moments import features
from fastfid.metrics import METRICS
from fastfid.metrics.base import Sample
from fastfid.metrics.several import Accumulators

THREADS = (1, 2)
D = 2048
IMAGES = 32
NETWORK = f"the network, {IMAGES} images"
ALL = "all metrics"


def _adds_at_most(share: float, images: int) -> Check:
    """Target: all metrics take at most `share` of the time of the features of `images` images."""

    def check(measured: Mapping[str, Measured]) -> Target:
        of_features = measured[NETWORK].median * images / IMAGES
        found = measured[ALL].median / of_features
        return Target(
            f"at most {share:.0%} of the time of the features of {images:,} images", found, share, found <= share
        )

    return check


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=True)
    from fastfid.features.inception import InceptionV3

    extractor = InceptionV3(D, device="cpu")
    files = sorted(png_folder(config.cache, 192, 1).iterdir())[:IMAGES]
    inputs = np.stack([extractor.prepare(np.array(Image.open(file).convert("RGB"))) for file in files])
    classifier = np.random.default_rng(0).standard_normal((1008, D)).astype(np.float32) / np.float32(40)
    n = config.pick(1000, 5000)
    rows = features(2 * n, D)
    asked = {name: row.make() for name, row in METRICS.items() if name != "sfid"}  # of the same cost as the FID
    sides = []
    for name, part in (("real", rows[:n]), ("generated", rows[n:])):
        seen = Accumulators(asked, {"features": D})
        seen.update({"features": part})
        sides.append((name, seen))

    def one(name: str) -> None:
        metric = asked[name]
        real, fake = (Sample(side, {}, seen[metric.accumulates], lambda: classifier) for side, seen in sides)
        metric.result(real, fake)

    names = [name for name in asked if name != "fid-infinity" or n > D]
    for name in names:
        yield compare(
            config,
            f"{name}, {n:,} rows a side, d = {D}",
            {name: lambda name=name: one(name), NETWORK: lambda: extractor.forward(inputs)},
            against=NETWORK,
            agree=None,
            repeats=1,
            warm_up=0,
            facts={"n": n, "d": D},
        )
    yield compare(
        config,
        f"all metrics, {n:,} rows a side, d = {D}",
        {ALL: lambda: [one(name) for name in names], NETWORK: lambda: extractor.forward(inputs)},
        against=NETWORK,
        agree=None,
        repeats=config.pick(1, 3),
        warm_up=0,
        budget_s=600.0,
        targets=[_adds_at_most(0.04, 2 * n)],
        facts={"n": n, "d": D, "metrics": names},
    )
