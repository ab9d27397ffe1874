"""Images a second through the network alone: ONNX Runtime as fastfid runs it, and eager PyTorch as pytorch-fid does."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Config, Measured, Result, compare
from benchmarks.images import png_folder

THREADS = (1, 2)


def _multiply_adds() -> int:
    """Return the multiply-adds of the convolutions for one image of 299 x 299, counted on pytorch-fid's own modules."""
    import torch
    from pytorch_fid.inception import InceptionV3

    total = 0

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += module.weight[0].numel() * output[0].numel()

    model = InceptionV3().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 299, 299))
    return total


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=True)
    import torch
    from pytorch_fid.inception import InceptionV3 as PeerInceptionV3

    from fastfid.features.inception import InceptionV3

    torch.set_num_threads(config.threads)
    count = config.pick(8, 32)
    files = sorted(png_folder(config.cache, 192, 1).iterdir())[:count]
    images = [np.array(Image.open(file).convert("RGB")) for file in files]
    # What one core does at best in the network's arithmetic: a product of matrices that fit the caches' blocking well.
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)

    for dims in config.pick((2048,), (64, 192, 768, 2048)):
        ours = InceptionV3(dims, device="cpu")
        theirs = PeerInceptionV3(
            [PeerInceptionV3.BLOCK_INDEX_BY_DIM[dims]], resize_input=False, normalize_input=False
        ).eval()
        inputs = np.stack([ours.prepare(image) for image in images])

        def eager(model: PeerInceptionV3 = theirs, inputs: np.ndarray = inputs) -> np.ndarray:
            with torch.no_grad():
                features = model(torch.from_numpy(inputs))[0]
            return features.mean(dim=(2, 3)).numpy()

        result = compare(
            config,
            f"inputs of 299 x 299, dims {dims}",
            {"fastfid": lambda ours=ours, inputs=inputs: ours.forward(inputs), "pytorch-fid (eager PyTorch)": eager},
            against="pytorch-fid (eager PyTorch)",
            agree=Agreement(absolute=1e-5, relative=1e-5, why="features, float32 through 94 convolutions"),
            repeats=config.pick(3, 5),
            count=count,
            unit="images/s",
            facts={"dims": dims},
        )
        yield result
        if dims == 2048:
            gemm = compare(
                config,
                "the limit: the network's multiply-adds at the speed of sgemm",
                {"sgemm 2048": lambda: a @ a},
                against="sgemm 2048",
                agree=None,
            )
            per_image = gemm.measured[0].median * _multiply_adds() / 2048**3
            share = per_image * count / result.measured[0].median
            limit = Measured(
                "sgemm", [per_image * count], rate=1 / per_image, note=f"fastfid runs at {share:.0%} of it"
            )
            yield Result(gemm.case, [limit], "sgemm", config.threads, "images/s", facts={"dims": dims, "share": share})
