"""Accuracy at real scale: CIFAR-10, 50,000 training against 10,000 test images, by layer, with the numerical bounds.

The images are JPEG copies, so that the published FID of the lossless ones (3.15) is near but not the same. Needs
``--data FOLDER`` with cifar10-train-jpg.zip and cifar10-test-jpg.zip. Resumable: the statistics of every 5,000 images
and the peer's answer are kept in the cache, cases that are in the results already are kept, and a run that was cut off
goes on where it was; so nothing is timed here.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Measured, Result, run_command, show
from fastfid import Statistics, compute_statistics, frechet_distance

ON_REQUEST = True
RESUMES = True

PUBLISHED = "3.1508 TensorFlow, 3.1518 PyTorch bilinear: lossless images, pytorch-gan-metrics README"
# Number of parts of each split. The members are sorted by class. Part k has every count-th member, from the k-th on.
PARTS = {"train": 10, "test": 2}
# --quick tries the stage out: layers whose covariance has full rank on a twentieth of the images.
QUICK_STRIDE = 20


def _part(config: Config, data: Path, split: str, k: int) -> Path:
    """Return the folder of part k of a split, unpacked once."""
    folder = config.cache / "cifar" / f"{split}-{k}{'' if config.full else '-quick'}"
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with zipfile.ZipFile(data / f"cifar10-{split}-jpg.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[k :: PARTS[split]]
            for name in names if config.full else names[::QUICK_STRIDE]:
                (unfinished / name.replace("/", "-")).write_bytes(archive.read(name))
        unfinished.rename(folder)
    return folder


def _statistics(folder: Path, dims: int) -> Statistics:
    """Return the statistics of a part, from the cache if it has them."""
    path = folder.with_name(f"{folder.name}-dims{dims}.npz")
    if not path.exists():
        compute_statistics(folder, dims=dims, device="cpu").save(path)
        print(f"  kept: {path.name}", flush=True)
    # The file is loaded even if it was just made, so that a resumed run gives the same bits.
    return Statistics.load(path)


def _peer(config: Config, environment: dict[str, str], folders: list[Path], dims: int) -> float:
    """Return pytorch-fid's FID of two folders, from the cache if it has the number."""
    path = config.cache / "cifar" / f"pytorch-fid-dims{dims}{'' if config.full else '-quick'}.json"
    if not path.exists():
        command = tools.pytorch_fid(config, environment, *folders, "--dims", str(dims))
        done = run_command(command, config.threads, timeout_s=7200)
        assert command.answer is not None
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(command.answer(done.process)), encoding="utf-8")
        unfinished.rename(path)
    found: float = json.loads(path.read_text(encoding="utf-8"))
    return found


def _bounded(found: dict[str, Any]) -> str:
    width = max(found["numerical_upper"] - found["fid"], found["fid"] - found["numerical_lower"])
    return f"FID {found['fid']:.10f} ± {width:.1g}"


def _whole(config: Config, case: str, folders: dict[str, list[Path]], dims: int) -> Result:
    whole = {
        split: reduce(Statistics.merge, [_statistics(folder, dims) for folder in folders[split]]) for split in PARTS
    }
    ours = frechet_distance(whole["train"], whole["test"], return_info=True)
    facts = {
        "dims": dims,
        "n": [whole[split].n for split in PARTS],
        "lower": ours["numerical_lower"],
        "upper": ours["numerical_upper"],
        "published": PUBLISHED if dims == 2048 else None,
    }
    return Result(
        case, [Measured("fastfid", [], ours["fid"], note=_bounded(ours))], "fastfid", config.threads, facts=facts
    )


def _beside_the_peer(
    config: Config, case: str, environment: dict[str, str], folders: dict[str, list[Path]], dims: int
) -> Result:
    """The case of the first part of each split, with the same images for both tools."""
    first = [folders[split][0] for split in PARTS]
    sides = [_statistics(folder, dims) for folder in first]
    ours = frechet_distance(*sides, return_info=True)
    theirs = _peer(config, environment, first, dims)
    agree = Agreement(relative=1e-6, why="n > d")
    difference = agree.check(case, theirs, "fastfid", ours["fid"])
    return Result(
        case,
        [
            Measured("fastfid", [], ours["fid"], note=_bounded(ours)),
            Measured("pytorch-fid", [], theirs, note=f"FID {theirs:.10f}"),
        ],
        "pytorch-fid",
        config.threads,
        agreement=agree.as_dict("pytorch-fid", {"fastfid": difference}),
        facts={
            "dims": dims,
            "n": [side.n for side in sides],
            "lower": ours["numerical_lower"],
            "upper": ours["numerical_upper"],
        },
    )


def run(config: Config) -> Iterator[Result]:
    if config.data is None:
        raise SystemExit("stage cifar: --data FOLDER with cifar10-train-jpg.zip and cifar10-test-jpg.zip is needed")
    environment = use_peers(config, weights=True)
    folders = {split: [_part(config, config.data, split, k) for k in range(count)] for split, count in PARTS.items()}
    count = {split: [len(list(folder.iterdir())) for folder in folders[split]] for split in PARTS}

    def case(number: Callable[[list[int]], int], dims: int) -> str:
        return f"CIFAR-10, {number(count['train']):,} train against {number(count['test']):,} test, dims {dims}"

    for dims in config.pick((192, 64), (2048, 64, 192, 768)):
        steps = {case(sum, dims): partial(_whole, config, folders=folders, dims=dims)}
        if dims in config.pick((192,), (2048,)):
            steps[case(lambda parts: parts[0], dims)] = partial(
                _beside_the_peer, config, environment=environment, folders=folders, dims=dims
            )
        for name, step in steps.items():
            if name not in config.done:
                result = step(case=name)
                show(result)
                yield result
