"""The main job, as a whole command: FID of two folders of photographs, from start to number."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fastfid.protocols import PROTOCOLS

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Command, Config, Result, compare_commands, faster, run_command
from benchmarks.images import jpeg_folder, mixed_jpeg_folder, png_folder

# n <= d: pytorch-fid's square root of a singular product is off by up to 1e-4 (its issue 26); ours is exact there.
THIN = Agreement(absolute=1e-4, why="n <= d: the peers' noise")
FULL = Agreement(relative=1e-6, why="n > d")


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)

    def beside_pytorch_fid(
        case: str, folders: Sequence[Path], arguments: Sequence[str], times: float | None, agree: Agreement
    ) -> Result:
        """Run both with the same arguments; what pytorch-fid spends where comes from one more run with a clock in it."""
        result = compare_commands(
            config,
            case,
            {
                "fastfid": tools.fastfid(config, *folders, *arguments),
                "pytorch-fid": tools.pytorch_fid(config, environment, *folders, *arguments),
            },
            against="pytorch-fid",
            agree=agree,
            warm_up=config.pick(0, 1),
            repeats=config.pick(2, 5),
            targets=[faster("fastfid", than="pytorch-fid", times=times)] if times else [],
            facts={"n": [len(list(folder.iterdir())) for folder in folders], "arguments": list(arguments)},
        )
        if config.full:
            clocked = tools.pytorch_fid_parts(config, environment, *folders, *arguments)
            done = run_command(clocked, config.threads)
            _, theirs = result.measured
            if clocked.parts is not None:
                theirs.parts = with_start(clocked.parts(done.process), done.seconds)
        return result

    png = [png_folder(config.cache, 192, seed) for seed in (1, 2)]
    yield beside_pytorch_fid("192 + 192 PNG of 256 x 256, dims 2048", png, [], 2.5, THIN)
