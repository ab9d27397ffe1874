"""Keeping the network busy: files to features beside the bare network, and memory that stays flat.

"Bare network": the same session, batches and threads on inputs that are ready in memory, in turn with the pipeline.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import Agreement, Config, Measured, Result, at_most, compare, keeps_up, probe, show
from benchmarks.images import jpeg_folder, photograph, png_folder
from fastfid import compute_statistics
from fastfid.extractor import FeatureExtractor
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source
from fastfid.sources.base import ImageSource

EXACT = Agreement(why="the same features to the last bit, however they are computed")


class FirstRow(FeatureExtractor):
    """An extractor with inputs and features of the network's size, which takes almost no time."""

    dims, identity, protocol, precision, device = 2048, "first-row", "none", "float32", "cpu"
    batch_size, concurrency = 4, 2

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the first pixels, repeated over an input of the network's size."""
        return np.resize(image[:8].astype(np.float32), (3, 299, 299))

    def forward(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the beginning of each input."""
        return np.ascontiguousarray(batch.reshape(len(batch), -1)[:, : self.dims])


def statistics_of(path: str) -> int | None:
    """Read every image of a source and fit the Gaussian, without the network; run in a separate process for memory."""
    return compute_statistics(path, extractor=FirstRow()).n


def _made(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, made once. It is written under another name first, so that an incomplete file is never used."""
    if not path.exists():
        unfinished = path.with_name("part-" + path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(unfinished)
        unfinished.rename(path)
    return path


def _small_pictures() -> list[bytes]:
    encoded = []
    for seed in range(32):
        buffer = io.BytesIO()
        Image.fromarray(photograph(seed, 64, 64)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def _write_zip(path: Path, count: int) -> None:
    pictures = _small_pictures()
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i:06d}.png", pictures[i % len(pictures)])


def run(config: Config) -> Iterator[Result]:
    yield from _steady_state(config)
    if config.full:
        yield _layouts(config)

    count = config.pick(6_000, 60_000)
    archive = _made(config.cache / "images" / f"small-{count}.zip", lambda path: _write_zip(path, count))
    probed = probe(config, statistics_of, path=str(archive))
    assert probed.answer == count
    measured = Measured("fastfid", [probed.seconds], rate=count / probed.seconds, peak_mib=probed.peak_mib)
    target = at_most("fastfid", "peak_mib", 700)({"fastfid": measured})
    case = f"statistics of {count:,} pictures in a zip, a stub for the network"
    result = Result(case, [measured], "fastfid", config.threads, "images/s", targets=[target], facts={"n": count})
    show(result)
    yield result


def _steady_state(config: Config) -> Iterator[Result]:
    from fastfid.features.inception import InceptionV3

    network = InceptionV3(device="cpu")
    pictures, rounds = config.pick((50, 3), (200, 6))
    for kind, folder in (
        ("PNG of 256 x 256", png_folder(config.cache, pictures, 1)),
        ("JPEG of 500 x 375", jpeg_folder(config.cache, pictures, 1, 500, 375)),
    ):
        source = open_source(folder)
        inputs = np.stack([network.prepare(item.load()) for item in open_source(folder)])
        batches = [inputs[i : i + network.batch_size] for i in range(0, pictures, network.batch_size)]

        def bare(batches: list[NDArray[np.float32]] = batches) -> NDArray[np.float32]:
            with ThreadPoolExecutor(network.concurrency) as threads:
                return np.concatenate(list(threads.map(network.forward, batches)))

        def ours(source: ImageSource = source) -> NDArray[np.float32]:
            rows: list[NDArray[np.float32]] = []
            extract(source, network, only_features(rows.append))
            return np.concatenate(rows)

        network.forward(inputs[:16])
        yield compare(
            config,
            f"{rounds * pictures} {kind} to features, {pictures} in turn",
            {"bare network": bare, "fastfid": ours},
            against="bare network",
            agree=EXACT,
            repeats=rounds,
            warm_up=0,
            budget_s=600,
            count=pictures,
            unit="images/s",
            targets=[keeps_up("fastfid", with_="bare network", share=0.95)],
            facts={"n": rounds * pictures, "kind": kind},
        )


def _spread_network(threads: int, *, is_spinning: bool) -> FeatureExtractor:
    """Return the network as one run at a time over `threads` threads, which is ONNX Runtime's default."""
    from fastfid.features.inception import InceptionV3
    from fastfid.features.session import load_onnxruntime

    onnxruntime = load_onnxruntime()

    def options() -> Any:
        made = original()
        made.add_session_config_entry("session.intra_op.allow_spinning", str(int(is_spinning)))
        return made

    class Spread(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: bytes, options: Any, **arguments: Any):
            options.intra_op_num_threads = threads
            super().__init__(model, options, **arguments)

    original = onnxruntime.SessionOptions
    with (
        mock.patch.object(onnxruntime, "SessionOptions", options),
        mock.patch.object(onnxruntime, "InferenceSession", Spread),
    ):
        network = InceptionV3(device="cpu")
    network.concurrency = 1
    return network


def _layouts(config: Config) -> Result:
    """Compare ways to distribute the network over the cores while pictures are decoded."""
    from fastfid.features.inception import InceptionV3

    folder = jpeg_folder(config.cache, 200, 1, 500, 375)
    one_less = InceptionV3(device="cpu")
    one_less.concurrency = max(1, config.threads - 1)
    networks = {
        "fastfid": InceptionV3(device="cpu"),
        "fastfid, one run less": one_less,
        "one run over all cores": _spread_network(config.threads, is_spinning=True),
        "one run over all cores, no spinning": _spread_network(config.threads, is_spinning=False),
        "one run, one core left out": _spread_network(max(1, config.threads - 1), is_spinning=True),
    }

    def features(network: FeatureExtractor) -> NDArray[np.float32]:
        rows: list[NDArray[np.float32]] = []
        extract(open_source(folder), network, only_features(rows.append))
        return np.concatenate(rows)

    return compare(
        config,
        "layout of the network: 200 JPEG of 500 x 375 to features",
        {name: partial(features, network) for name, network in networks.items()},
        against="one run over all cores",
        agree=EXACT,
        repeats=2,
        warm_up=0,
        budget_s=600,
        count=200,
        unit="images/s",
        facts={"n": 200},
    )
