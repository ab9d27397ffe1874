"""A new folder against reference statistics that were computed once: the whole command."""

from collections.abc import Iterator

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Config, Result, compare_commands, run_command
from benchmarks.images import png_folder


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)
    count = config.pick(24, 192)
    real, fake = png_folder(config.cache, 192, 1), png_folder(config.cache, count, 2)
    # Written by pytorch-fid and read by both: the file is the exchange format.
    reference = config.cache / "reference-png256-192-seed1.npz"
    if not reference.exists():
        run_command(tools.pytorch_fid(config, environment, "--save-stats", real, reference), config.threads)
    yield compare_commands(
        config,
        f"{count} PNG of 256 x 256 against a .npz",
        {
            "fastfid": tools.fastfid(config, reference, fake),
            "pytorch-fid": tools.pytorch_fid(config, environment, reference, fake),
        },
        against="pytorch-fid",
        agree=tools.THIN,
        warm_up=0,
        repeats=3,
        budget_s=config.pick(10.0, 100.0),
        facts={"n": count, "dims": 2048},
    )
