"""Accuracy at real scale: CIFAR-10, 50,000 training against 10,000 test images, by layer, with the numerical bounds.

The images are JPEG copies, so that the published FID of the lossless ones (3.15) is near but not the same. Needs
``--data FOLDER`` with cifar10-train-jpg.zip and cifar10-test-jpg.zip. Resumable: the statistics of every 5,000 images
and the peer's answer are kept in the cache, and a run that was cut off goes on where it was.
"""

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Measured, Result, run_command, show
from fastfid import Statistics, compute_statistics, frechet_distance

ON_REQUEST = True

PUBLISHED = "3.1508 TensorFlow, 3.1518 PyTorch bilinear: lossless images, pytorch-gan-metrics README"
# How many parts each split is cut into. The members are sorted by class; part k takes every count-th from the k-th.
PARTS = {"train": 10, "test": 2}
# --quick tries the stage out: layers whose covariance has full rank on a twentieth of the images.
QUICK_STRIDE = 20


def _part(config: Config, data: Path, split: str, k: int) -> Path:
    """Return the folder of part k of a split, unpacked once."""
    folder = config.cache / "cifar" / f"{split}-{k}{'' if config.full else '-quick'}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with zipfile.ZipFile(data / f"cifar10-{split}-jpg.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[k :: PARTS[split]]
            for name in names if config.full else names[::QUICK_STRIDE]:
                (partial / name.replace("/", "-")).write_bytes(archive.read(name))
        partial.rename(folder)
    return folder


def _statistics(config: Config, folder: Path, dims: int) -> tuple[Statistics, float]:
    """Return the statistics of a part and the seconds they took, from the cache where they are there."""
    path = folder.with_name(f"{folder.name}-dims{dims}.npz")
    seconds = path.with_suffix(".seconds")
    if not path.exists():
        start = time.perf_counter()
        found = compute_statistics(folder, dims=dims, device="cpu")
        seconds.write_text(repr(time.perf_counter() - start), encoding="utf-8")
        found.save(path)
        print(f"  kept: {path.name}", flush=True)
    # Loaded also when it was just made, so that a resumed run gives the same bits.
    return Statistics.load(path), float(seconds.read_text(encoding="utf-8"))


def _peer(config: Config, environment: dict[str, str], folders: list[Path], dims: int) -> tuple[float, float]:
    """Return pytorch-fid's number for two folders and its seconds, from the cache where they are there."""
    path = config.cache / "cifar" / f"pytorch-fid-dims{dims}{'' if config.full else '-quick'}.json"
    if not path.exists():
        command = tools.pytorch_fid(config, environment, *folders, "--dims", str(dims))
        done = run_command(command, config.threads, timeout_s=7200)
        answer = command.answer(done.process) if command.answer is not None else None
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps({"answer": answer, "seconds": done.seconds}), encoding="utf-8")
        partial.rename(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["answer"], found["seconds"]


def run(config: Config) -> Iterator[Result]:
    if config.data is None:
        raise SystemExit("stage cifar: --data FOLDER with cifar10-train-jpg.zip and cifar10-test-jpg.zip is needed")
    data = config.data
    environment = use_peers(config, weights=True)
    for dims in config.pick((64, 192), (64, 192, 768, 2048)):
        parts = {
            split: [_statistics(config, _part(config, data, split, k), dims) for k in range(count)]
            for split, count in PARTS.items()
        }

        # Beside the peer: one part of each split, the same images.
        first = [parts[split][0] for split in PARTS]
        n = [statistics.n for statistics, _ in first]
        start = time.perf_counter()
        ours = frechet_distance(first[0][0], first[1][0], return_info=True)
        seconds = sum(s for _, s in first) + time.perf_counter() - start
        theirs, their_seconds = _peer(config, environment, [_part(config, data, split, 0) for split in PARTS], dims)
        agree = Agreement(relative=1e-6, why="n > d")
        case = f"CIFAR-10, {n[0]:,} train against {n[1]:,} test, dims {dims}"
        difference = agree.check(case, theirs, "fastfid", ours["fid"])
        result = Result(
            case,
            [
                Measured("fastfid", [seconds], ours["fid"], note=f"FID {ours['fid']:.10f}"),
                Measured("pytorch-fid", [their_seconds], theirs, note=f"FID {theirs:.10f}"),
            ],
            "pytorch-fid",
            config.threads,
            agreement=agree.as_dict("pytorch-fid", {"fastfid": difference}),
            facts={"dims": dims, "n": n, "lower": ours["lower"], "upper": ours["upper"]},
        )
        show(result)
        yield result

        whole = {split: reduce(Statistics.merge, (s for s, _ in found)) for split, found in parts.items()}
        start = time.perf_counter()
        ours = frechet_distance(whole["train"], whole["test"], return_info=True)
        seconds = sum(s for found in parts.values() for _, s in found) + time.perf_counter() - start
        n = [whole[split].n for split in PARTS]
        width = max(ours["upper"] - ours["fid"], ours["fid"] - ours["lower"])
        result = Result(
            f"CIFAR-10, {n[0]:,} train against {n[1]:,} test, dims {dims}",
            [Measured("fastfid", [seconds], ours["fid"], note=f"FID {ours['fid']:.10f} ± {width:.1g}")],
            "fastfid",
            config.threads,
            facts={
                "dims": dims,
                "n": n,
                "lower": ours["lower"],
                "upper": ours["upper"],
                "published": PUBLISHED if dims == 2048 else None,
            },
        )
        show(result)
        yield result
