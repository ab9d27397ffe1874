"""How time and peak memory of the whole command grow with the number of images and with cores."""

from collections.abc import Iterator, Mapping

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Check, Config, Measured, Result, Target, compare_commands
from benchmarks.images import png_folder
from benchmarks.machine import available_cores


def _flat(first: float, of: str, mib: float) -> Check:
    """Target: the peak is within `mib` of that of the smallest run."""

    def check(measured: Mapping[str, Measured]) -> Target:
        growth = (measured[of].peak_mib or 0.0) - first
        return Target(f"peak memory grows by at most {mib:g} MiB", growth, mib, growth <= mib)

    return check


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)
    cores = sorted({1, 2, config.threads} & set(range(1, available_cores() + 1)))
    first: dict[int, float] = {}
    dims = config.pick(64, 2048)  # quick: the first layer, because the peer is slow
    for n in config.pick((32, 128), (100, 300, 1000)):
        folder = png_folder(config.cache, n, 1)
        other = png_folder(config.cache, 32, 2)
        # The effect of the number of cores is measured at one size.
        for threads in cores if n == config.pick(32, 300) else [config.threads]:
            targets = [] if threads not in first else [_flat(first[threads], "fastfid", 64)]
            result = compare_commands(
                config,
                f"{n} + 32 PNG of 256 x 256, dims {dims}, {threads} core{'s' if threads > 1 else ''}",
                {
                    "fastfid": tools.fastfid(config, folder, other, "--dims", str(dims)),
                    "pytorch-fid": tools.pytorch_fid(config, environment, folder, other, "--dims", str(dims)),
                },
                against="pytorch-fid",
                agree=tools.THIN,
                warm_up=0,
                repeats=1,
                threads=threads,
                count=n + 32,
                unit="images/s",
                targets=targets,
                facts={"n": n, "dims": dims, "cores": threads},
            )
            first.setdefault(threads, result.measured[0].peak_mib or 0.0)
            yield result
