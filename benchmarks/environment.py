"""Where a stage runs: the benchmark's own interpreter, the peers' set-up, the command lines."""

import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers

if TYPE_CHECKING:  # make_interpreter runs where nothing is installed yet
    from benchmarks.harness import Config

__all__ = ["PINS", "fid_from_stdout", "make_interpreter", "use_peers"]

REPOSITORY = Path(__file__).resolve().parent.parent
PINS = (
    "torch==2.13.0",
    "torchvision==0.28.0",
    "pytorch-fid==0.3.0",
    "torchmetrics==1.9.0",
    "torch-fidelity==0.4.0",
    "clean-fid==0.1.35",
    # 1.18 removed the argument of sqrtm that pytorch-fid and clean-fid pass.
    "scipy<1.18",
    "scikit-image>=0.24",
    "matplotlib>=3.8",
)


def _run(*argv: str | Path) -> None:
    print("+", *argv, file=sys.stderr, flush=True)
    subprocess.run([str(a) for a in argv], check=True, stdout=sys.stderr)


def make_interpreter(folder: Path) -> Path:
    """Return the Python of the benchmark's own environment; make it, install the pinned peers and this checkout.

    The peers are installed once; fastfid anew at every call, so that what is measured is what is checked out.
    """
    python = folder / "bin" / "python"
    marker = folder / "peers.txt"
    wanted = "\n".join(PINS)
    if not marker.exists() or marker.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        _run(python, "-m", "pip", "install", "--quiet", *PINS)
        marker.write_text(wanted, encoding="utf-8")
    _run(python, "-m", "pip", "install", "--quiet", REPOSITORY)
    return python


def use_peers(config: "Config", *, weights: bool) -> dict[str, str]:
    """Make the peers importable in this process, and return the environment in which their commands run unmodified.

    Call it before the first import of a peer.

    Parameters
    ----------
    config : Config
        The run's configuration.
    weights : bool
        Whether a network will run. The weights are fastfid's own, written once into the cache.
    """
    folder = config.cache / "peers"
    checkpoints = folder / "hub" / "checkpoints"
    there = all((checkpoints / name).exists() for name in (peers.PYTORCH_FID_FILE, peers.TORCH_FIDELITY_FILE))
    return peers.prepare(folder, weights=weights and not there)


def fid_from_stdout(process: subprocess.CompletedProcess[str]) -> float:
    """Return the number of the line ``FID:  <number>``, which pytorch-fid and fastfid print alike."""
    for line in process.stdout.splitlines():
        if line.startswith("FID:"):
            return float(line.partition(":")[2])
    raise AssertionError(f"{' '.join(process.args)}: no line 'FID:' in its output {process.stdout!r}")
