"""From files to the network's input: decoding alone, then with resize and scaling."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Result, compare
from benchmarks.images import mixed_jpeg_folder, png_folder
from fastfid import _core
from fastfid.protocols import input_spec
from fastfid.sources import open_source

THREADS = (1, 2)
SPEC = input_spec("pytorch-fid")
COUNT = 192


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=False)
    import torch
    from pytorch_fid.fid_score import ImagePathDataset
    from torchvision.transforms import ToTensor

    torch.set_num_threads(config.threads)

    def ours(folder: Path, digest: Callable[[Any], float]) -> list[float]:
        with ThreadPoolExecutor(config.threads) as workers:
            return list(workers.map(lambda item: digest(item.load()), open_source(folder)))

    def theirs(folder: Path, digest: Callable[[Any], list[float]], batch_size: int) -> list[float]:
        files = sorted(folder.iterdir())
        loader = torch.utils.data.DataLoader(
            ImagePathDataset(files, ToTensor()), batch_size=batch_size, num_workers=config.threads
        )
        return [value for batch in loader for value in digest(batch)]

    def resized(batch: Any) -> list[float]:
        inputs = torch.nn.functional.interpolate(batch, size=(299, 299), mode="bilinear", align_corners=False)
        return (2 * inputs - 1).mean(dim=(1, 2, 3), dtype=torch.float64).tolist()

    png = png_folder(config.cache, COUNT, 1)
    jpeg = mixed_jpeg_folder(config.cache, COUNT, 1)
    for kind, folder, batch_size in (("PNG of 256 x 256", png, 50), ("JPEG, each of its own size", jpeg, 1)):
        peer = "pytorch-fid DataLoader" + (", batches of one" if batch_size == 1 else "")
        settings: dict[str, Any] = {
            "against": peer,
            "repeats": config.pick(2, 7),
            "warm_up": config.pick(0, 1),
            "count": COUNT,
            "unit": "images/s",
            "facts": {"n": COUNT, "kind": kind},
        }
        yield compare(
            config,
            f"decode {COUNT} {kind}",
            {
                "fastfid": lambda folder=folder: ours(
                    folder, lambda image: float(np.mean(image, dtype=np.float64)) / 255
                ),
                peer: lambda folder=folder, batch_size=batch_size: theirs(
                    folder, lambda batch: batch.mean(dim=(1, 2, 3), dtype=torch.float64).tolist(), batch_size
                ),
            },
            agree=Agreement(absolute=1e-7, why="the same pixels; theirs divided by 255 in float32"),
            **settings,
        )
        yield compare(
            config,
            f"decode and resize {COUNT} {kind}",
            {
                "fastfid": lambda folder=folder: ours(
                    folder,
                    lambda image: float(_core.preprocess([image], SPEC).mean(dtype=np.float64)),
                ),
                peer: lambda folder=folder, batch_size=batch_size: theirs(folder, resized, batch_size),
            },
            agree=Agreement(absolute=1e-5, why="mean of the network's input, float32"),
            **settings,
        )
