"""ADM's numbers of two .npz with 256 x 256 images: the whole command, beside the evaluator's steps in PyTorch.

Both send each image through the network once, which their notes count. The other contender is torch-fidelity's network,
the evaluator's formulas in NumPy and SciPy, and float32 distances, as the evaluator's port to PyTorch has them. No
weights of the package index have a classifier, so neither computes the Inception Score.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Command, Config, Result, compare_commands, faster
from benchmarks.images import photograph

ON_REQUEST = True  # SciPy takes the roots of matrices of 2,048 and 2,023 rows: minutes

Done = subprocess.CompletedProcess[str]

STEPS = "the evaluator's steps in PyTorch"

_STEPS = """
import json, sys
import numpy as np, scipy.linalg, torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()
maps = []
network.Mixed_6d.branch1x1.register_forward_hook(lambda layer, given, output: maps.append(output))
seen = 0

def outputs_of(path):
    global seen
    images = np.load(path)["arr_0"]
    features, spatial = [], []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2)
        seen += len(batch)
        with torch.inference_mode():
            features.append(network(batch)[0].numpy())
        spatial.append(maps.pop().movedim(1, -1)[..., :7].reshape(len(batch), -1).numpy())
    return np.concatenate(features), np.concatenate(spatial)

def frechet(x, y):
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * np.trace(root).real)

def radii(x):
    return torch.cdist(x, x).kthvalue(4).values

(x, x_s), (y, y_s) = map(outputs_of, sys.argv[1:3])
fid, sfid = frechet(x, y), frechet(x_s, y_s)
a, b = torch.from_numpy(x), torch.from_numpy(y)
across = torch.cdist(a, b)
precision = (across <= radii(a)[:, None]).any(0).double().mean().item()
recall = (across <= radii(b)).any(1).double().mean().item()
print(json.dumps({"values": [fid, sfid, precision, recall], "seen": seen}))
"""

# The same with fastfid's command, whose network counts what it is given.
_OURS = """
import sys
from fastfid.cli import main
from fastfid.features.inception import InceptionV3
seen, forward = [0], InceptionV3.forward
def counting(self, batch):
    seen[0] += len(batch)
    return forward(self, batch)
InceptionV3.forward = counting
code = main(["adm", *sys.argv[1:], "--json", "--device", "cpu", "--quiet"])
print(seen[0])
sys.exit(code)
"""


def _npz(config: Config, count: int, seed: int) -> Path:
    path = config.cache / f"adm-{count}-seed{seed}.npz"
    if not path.exists():
        np.savez(path, arr_0=np.stack([photograph(seed * 100_000 + i, 256, 256) for i in range(count)]))
    return path


def _of_record(process: Done) -> list[float]:
    text, _, _ = process.stdout.strip().rpartition("\n")
    values = {row["metric"]: row["value"] for row in json.loads(text)["metrics"]}
    return [values[name] for name in ("fid", "sfid", "precision", "recall")]


def _of_steps(process: Done) -> list[float]:
    values: list[float] = json.loads(process.stdout.splitlines()[-1])["values"]
    return values


def _seen(process: Done) -> int:
    last = process.stdout.splitlines()[-1]
    return int(last) if last.isdigit() else int(json.loads(last)["seen"])


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)
    count = config.pick(48, 512)
    files = [str(_npz(config, count, seed)) for seed in (1, 2)]
    counts: dict[str, int] = {}

    def counted(name: str, read: Callable[[Done], list[float]]) -> Callable[[Done], list[float]]:
        def answer(process: Done) -> list[float]:
            counts[name] = _seen(process)
            return read(process)

        return answer

    result = compare_commands(
        config,
        f"{count} + {count} images of 256 x 256 in .npz",
        {
            "fastfid": Command([config.python, "-c", _OURS, *files], counted("fastfid", _of_record)),
            STEPS: Command([config.python, "-c", _STEPS, *files], counted(STEPS, _of_steps), environment),
        },
        against=STEPS,
        agree=tools.THIN,
        warm_up=0,
        repeats=config.pick(1, 3),
        budget_s=config.pick(200.0, 1200.0),
        targets=[faster("fastfid", than=STEPS, times=2)],
        facts={"n": count, "dims": 2048},
    )
    for measured in result.measured:
        measured.note = f"{counts[measured.name]} images through the network"
    yield result
