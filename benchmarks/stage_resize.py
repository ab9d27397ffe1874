"""From a decoded photograph (uint8) to the network's input, under each protocol, beside the peer's own code for it.

One thread. The peer's code is what it runs between its decoder and its network; "clean, resize alone" stops at grey
levels, before scaling, as clean-fid's resizer does. Answers may differ by 1e-3 grey levels.
"""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Result, at_most, compare, faster
from benchmarks.images import photograph
from fastfid import _core
from fastfid.protocols import input_spec

THREADS = (1,)
TOLERANCE = 1e-3  # grey levels


def peer_inputs() -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Return, by protocol, the peer's name and its way from uint8 (h, w, 3) to the network's input (3, 299, 299).

    Call `environment.use_peers` before.
    """
    import torch
    from cleanfid.resize import build_resizer
    from torch.nn.functional import interpolate
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
    from torchvision.transforms.functional import to_tensor

    clean_resizer = build_resizer("clean")
    size = (299, 299)

    def channels_first(image: Any) -> Any:
        return torch.from_numpy(image).permute(2, 0, 1)[None]

    def pytorch_fid(image: Any) -> Any:
        x = interpolate(to_tensor(image)[None], size=size, mode="bilinear", align_corners=False)
        return (2 * x - 1)[0].numpy()

    def torch_fidelity(image: Any) -> Any:
        x = channels_first(image).contiguous().to(torch.float32)
        return ((interpolate_bilinear_2d_like_tensorflow1x(x, size=size, align_corners=False) - 128) / 128)[0].numpy()

    def clean_fid(image: Any) -> Any:
        return ((torch.tensor(clean_resizer(image).transpose(2, 0, 1)) - 128) / 128).numpy()

    def torchmetrics(image: Any) -> Any:
        x = channels_first(image).contiguous().to(torch.float)
        x = interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        return ((x - 128) / 128)[0].numpy()

    return {
        "pytorch-fid": ("pytorch-fid", pytorch_fid),
        "tensorflow": ("torch-fidelity", torch_fidelity),
        "clean": ("clean-fid", clean_fid),
        "torchmetrics": ("torchmetrics", torchmetrics),
    }


def _cases(config: Config, image: Any) -> Iterator[Result]:
    from cleanfid.resize import build_resizer

    clean_resizer = build_resizer("clean")
    height, width, _ = image.shape
    settings: dict[str, Any] = {
        "repeats": config.pick(5, 15),
        "count": 1,
        "unit": "images/s",
        "facts": {"width": width, "height": height},
    }
    for protocol, (peer, peer_input) in peer_inputs().items():
        yield compare(
            config,
            f"{protocol}, {width} x {height}",
            {
                "fastfid": lambda protocol=protocol: _core.preprocess([image], input_spec(protocol))[0],
                peer: lambda peer_input=peer_input: peer_input(image),
            },
            against=peer,
            agree=Agreement(absolute=TOLERANCE / 128, why="1e-3 grey levels"),
            targets=[at_most("fastfid", "median", 1e-3)] if width * height <= 500 * 375 else [],
            **settings,
        )
    yield compare(
        config,
        f"clean, resize alone, {width} x {height}",
        {
            "fastfid": lambda: _core.resize(image, 299, 299, "bicubic-antialias", clip=True),
            "clean-fid": lambda: clean_resizer(image),
        },
        against="clean-fid",
        agree=Agreement(absolute=TOLERANCE, why="1e-3 grey levels"),
        targets=[faster("fastfid", than="clean-fid", times=5)],
        **settings,
    )


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=False)
    import torch

    torch.set_num_threads(config.threads)
    quick = ((256, 256), (500, 375))
    for width, height in config.pick(quick, ((32, 32), *quick, (512, 512), (1024, 1024), (4000, 3000))):
        yield from _cases(config, photograph(1, width, height))
