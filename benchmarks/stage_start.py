"""What it costs to start: the help text and a bare import, as whole processes."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.environment import use_peers
from benchmarks.harness import Command, Config, Result, at_most, compare_commands


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=False)
    python = config.python
    repeats = config.pick(1, 5)
    yield compare_commands(
        config,
        "--help",
        {
            "fastfid": Command([str(Path(python).with_name("fastfid")), "--help"]),
            "pytorch-fid": Command([python, "-m", "pytorch_fid", "--help"], environment=environment),
            "torch-fidelity": Command([python, "-m", "torch_fidelity.fidelity", "--help"], environment=environment),
        },
        against="pytorch-fid",
        agree=None,
        repeats=repeats,
        warm_up=config.pick(0, 1),
        targets=[at_most("fastfid", "median", 0.4)],
    )
    yield compare_commands(
        config,
        "import",
        {
            "fastfid": Command([python, "-c", "from fastfid import compute_fid"]),
            "numpy": Command([python, "-c", "import numpy"]),
            "pytorch-fid": Command([python, "-c", "import pytorch_fid.fid_score"], environment=environment),
            "torchmetrics": Command(
                [python, "-c", "from torchmetrics.image.fid import FrechetInceptionDistance"], environment=environment
            ),
        },
        against="pytorch-fid",
        agree=None,
        repeats=repeats,
        warm_up=config.pick(0, 1),
    )
