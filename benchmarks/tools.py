"""The command lines of every tool, as its users type them.

For a tool without a command line, the shortest script that its README suggests is used. Batch sizes and workers are the
tool's defaults, except for defaults that do not suit a CPU (clean-fid: 12 workers, CUDA).
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Agreement, Command, Config

__all__ = ["FULL", "THIN", "clean_fid", "fastfid", "pytorch_fid", "pytorch_fid_parts", "torch_fidelity", "torchmetrics"]

# For n <= d the product of the covariances is singular, and the peers' general square root (or eigenvalues) of this
# product is inaccurate. On the 192 + 192 photographs of stage folders, pytorch-fid's value has an error of 1.7e-4. The
# exact value from pytorch-fid's features (singular values of the product of the centred rows) is within 1e-5 of
# fastfid's value.
THIN = Agreement(absolute=5e-4, why="n <= d: noise of the peers' square root of a singular product")
FULL = Agreement(relative=1e-6, why="n > d")

LOAD, FEATURES, DISTANCE = "weights and network", "images to features", "FID from features"


def _fid_line(process: subprocess.CompletedProcess[str]) -> float:
    """Return the number of the line ``FID:  <number>``."""
    for line in process.stdout.splitlines():
        if line.startswith("FID:"):
            return float(line.partition(":")[2])
    raise AssertionError(f"{' '.join(process.args)}: no line 'FID:' in its output {process.stdout!r}")


def _record_key(key: str) -> Callable[[subprocess.CompletedProcess[str]], float]:
    return lambda process: float(json.loads(process.stdout)[key])


def _our_parts(process: subprocess.CompletedProcess[str]) -> dict[str, float]:
    seconds: dict[str, float] = json.loads(process.stdout)["seconds"]
    return {LOAD: seconds["load"], FEATURES: seconds["features"], DISTANCE: seconds["distance"]}


def fastfid(config: Config, *arguments: str | Path) -> Command:
    """Return fastfid's command: ``fastfid ... --json``."""
    script = str(Path(config.python).with_name("fastfid"))
    return Command([script, *map(str, arguments), "--json", "--device", "cpu"], _record_key("fid"), parts=_our_parts)


def pytorch_fid(config: Config, environment: dict[str, str], *arguments: str | Path) -> Command:
    """Return ``python -m pytorch_fid ...``, unmodified."""
    return Command(
        [config.python, "-m", "pytorch_fid", *map(str, arguments), "--device", "cpu"], _fid_line, environment
    )


# The same work as `python -m pytorch_fid`, with timers around its functions.
_PYTORCH_FID_PARTS = """
import json, time
from pytorch_fid import fid_score
started = time.perf_counter()
parts = {}
def timed(name, function):
    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - start
    return call
class Model(fid_score.InceptionV3):
    __init__ = timed("load", fid_score.InceptionV3.__init__)
fid_score.InceptionV3 = Model
fid_score.get_activations = timed("features", fid_score.get_activations)
fid_score.main()
parts["total"] = time.perf_counter() - started
print(json.dumps(parts))
"""


def pytorch_fid_parts(config: Config, environment: dict[str, str], *arguments: str | Path) -> Command:
    """Return pytorch-fid with timers around its functions, for the times of its parts only, not for the comparison."""

    def parts(process: subprocess.CompletedProcess[str]) -> dict[str, float]:
        found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
        rest = found["total"] - found["load"] - found["features"]
        return {LOAD: found["load"], FEATURES: found["features"], DISTANCE: rest}

    argv = [config.python, "-c", _PYTORCH_FID_PARTS, *map(str, arguments), "--device", "cpu"]
    return Command(argv, _fid_line, environment, parts)


def clean_fid(config: Config, environment: dict[str, str], real: Path, fake: Path) -> Command:
    """Return clean-fid in the mode that reproduces pytorch-fid. Its mode "clean" needs weights from NVIDIA's server."""
    code = (
        "import sys, torch; from cleanfid import fid\n"
        "value = fid.compute_fid(*sys.argv[1:3], mode='legacy_pytorch', device=torch.device('cpu'), "
        f"num_workers={config.threads}, use_dataparallel=False, verbose=False)\n"
        "print('FID: ', value)"
    )
    return Command([config.python, "-c", code, str(real), str(fake)], _fid_line, environment)


def torch_fidelity(config: Config, environment: dict[str, str], real: Path, fake: Path) -> Command:
    """Return ``fidelity --fid`` (protocol tensorflow) without its feature cache."""
    argv = [config.python, "-m", "torch_fidelity.fidelity", "--fid", "--cpu", "--json", "--silent", "--no-cache"]
    return Command(
        [*argv, "--input1", str(real), "--input2", str(fake)],
        _record_key("frechet_inception_distance"),
        environment,
    )


def torchmetrics(config: Config, environment: dict[str, str], real: Path, fake: Path) -> Command:
    """Return a script for torchmetrics that reads folders with a DataLoader (protocol torchmetrics)."""
    code = f"""
import sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchmetrics.image.fid import FrechetInceptionDistance

class Folder(Dataset):
    def __init__(self, path):
        self.files = sorted(p for p in Path(path).iterdir())
    def __len__(self):
        return len(self.files)
    def __getitem__(self, i):
        return torch.from_numpy(np.array(Image.open(self.files[i]).convert("RGB"))).permute(2, 0, 1)

if __name__ == "__main__":
    metric = FrechetInceptionDistance(feature=2048)
    for path, real in zip(sys.argv[1:3], (True, False)):
        for batch in DataLoader(Folder(path), batch_size=50, num_workers={config.threads}):
            metric.update(batch, real=real)
    print("FID: ", metric.compute().item())
"""
    return Command([config.python, "-c", code, str(real), str(fake)], _fid_line, environment)
