"""The environment of a stage: the benchmark's own interpreter, the setup of the peers, the command lines."""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers

if TYPE_CHECKING:  # make_interpreter runs before any package is installed
    from benchmarks.harness import Config

__all__ = ["fid_from_stdout", "make_interpreter", "pins", "use_peers"]

REPOSITORY = Path(__file__).resolve().parent.parent


def pins() -> list[str]:
    """Return the requirements of the benchmark's environment except fastfid, with the versions of pyproject.toml."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    wanted = [*extras["torch"], *extras["peers"], *extras["demo"]]
    return [line for line in wanted if not line.startswith("fastfid")]


def _run(*argv: str | Path) -> None:
    print("+", *argv, file=sys.stderr, flush=True)
    subprocess.run([str(a) for a in argv], check=True, stdout=sys.stderr)


def make_interpreter(folder: Path) -> Path:
    """Create the benchmark's own environment, install the pinned peers and this checkout, and return its Python.

    The peers are installed once. fastfid is installed again at every call, so that the benchmark measures the current
    checkout.
    """
    python = folder / "bin" / "python"
    marker = folder / "peers.txt"
    wanted = "\n".join(pins())
    if not marker.exists() or marker.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        _run(python, "-m", "pip", "install", "--quiet", *pins())
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
        Whether a network will run. The weights are those of fastfid, written once into the cache.
    """
    folder = config.cache / "peers"
    checkpoints = folder / "hub" / "checkpoints"
    there = all((checkpoints / name).exists() for name in (peers.PYTORCH_FID_FILE, peers.TORCH_FIDELITY_FILE))
    return peers.prepare(folder, weights=weights and not there)


def fid_from_stdout(process: subprocess.CompletedProcess[str]) -> float:
    """Return the number of the line ``FID:  <number>``, which both pytorch-fid and fastfid print."""
    for line in process.stdout.splitlines():
        if line.startswith("FID:"):
            return float(line.partition(":")[2])
    raise AssertionError(f"{' '.join(process.args)}: no line 'FID:' in its output {process.stdout!r}")
