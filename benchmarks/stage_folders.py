"""The main job, as a whole command: FID of two folders of photographs, from start to number."""

from collections.abc import Iterator

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Result, compare_commands, faster
from benchmarks.images import jpeg_folder, mixed_jpeg_folder, png_folder


def run(config: Config) -> Iterator[Result]:
    environment = use_peers(config, weights=True)
    # pytorch-fid has used its budget after one run (full: two); fastfid runs more often. There is no warm-up, because
    # every run of a command is a new process.
    main = {"warm_up": 0, "repeats": 3, "budget_s": config.pick(20.0, 150.0)}
    others = {**main, "repeats": 1}  # only with --full
    count = config.pick(64, 192)
    png = [png_folder(config.cache, count, seed) for seed in (1, 2)]

    # The other tools are compared under one protocol, so that all answers must agree.
    contenders = {
        "fastfid": tools.fastfid(config, *png),
        "pytorch-fid": tools.pytorch_fid(config, environment, *png),
    }
    clocked = {}
    if config.full:
        contenders["clean-fid legacy_pytorch"] = tools.clean_fid(config, environment, *png)
        clocked["pytorch-fid"] = tools.pytorch_fid_parts(config, environment, *png)
    yield compare_commands(
        config,
        f"{count} + {count} PNG of 256 x 256",
        contenders,
        against="pytorch-fid",
        agree=tools.THIN,
        **main,
        clocked=clocked,
        targets=[faster("fastfid", than="pytorch-fid", times=2.5)],
        facts={"n": count, "dims": 2048, "protocol": "pytorch-fid"},
    )
    yield compare_commands(
        config,
        f"{count} + {count} PNG of 256 x 256, --dims 64",
        {
            "fastfid": tools.fastfid(config, *png, "--dims", "64"),
            "pytorch-fid": tools.pytorch_fid(config, environment, *png, "--dims", "64"),
        },
        against="pytorch-fid",
        agree=tools.FULL,
        **{**main, "repeats": config.pick(3, 2)},
        targets=[faster("fastfid", than="pytorch-fid", times=2)],
        facts={"n": count, "dims": 64, "protocol": "pytorch-fid"},
    )
    if not config.full:
        return

    one_size = [jpeg_folder(config.cache, 192, 1, 400, 300), jpeg_folder(config.cache, 192, 2, 512, 384)]
    yield compare_commands(
        config,
        "192 JPEG of 400 x 300 + 192 of 512 x 384",
        {
            "fastfid": tools.fastfid(config, *one_size),
            "pytorch-fid": tools.pytorch_fid(config, environment, *one_size),
        },
        against="pytorch-fid",
        agree=tools.THIN,
        **others,
        facts={"n": 192, "dims": 2048, "protocol": "pytorch-fid"},
    )
    mixed = [mixed_jpeg_folder(config.cache, 192, seed) for seed in (1, 2)]
    yield compare_commands(
        config,
        "192 + 192 JPEG, each of its own size",
        {
            "fastfid": tools.fastfid(config, *mixed),
            # pytorch-fid stacks a batch before it resizes, so images of different sizes need batches of one.
            "pytorch-fid --batch-size 1": tools.pytorch_fid(config, environment, *mixed, "--batch-size", "1"),
        },
        against="pytorch-fid --batch-size 1",
        agree=tools.THIN,
        **others,
        facts={"n": 192, "dims": 2048, "protocol": "pytorch-fid"},
    )
    for protocol, name, command in (
        ("tensorflow", "torch-fidelity", tools.torch_fidelity),
        ("torchmetrics", "torchmetrics", tools.torchmetrics),
    ):
        yield compare_commands(
            config,
            f"192 + 192 PNG of 256 x 256, --protocol {protocol}",
            {
                "fastfid": tools.fastfid(config, *png, "--protocol", protocol),
                name: command(config, environment, *png),
            },
            against=name,
            agree=Agreement(
                absolute=1e-3, why="n <= d: the peers' eigenvalues of a singular product, and float32 resizing"
            ),
            **others,
            facts={"n": 192, "dims": 2048, "protocol": protocol},
        )
