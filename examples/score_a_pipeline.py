"""Score a diffusion pipeline, image by image from seeds: ``python score_a_pipeline.py REAL``.

Each image has a seed of its own, so a run that was killed goes on (``--run-dir``) and has the images that it would have
had. ``SmallPipeline`` stands in for a pipeline of diffusers, so that this file runs without a download: it is called in
the same way. With diffusers::

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained("google/ddpm-cifar10-32").to("cuda")
"""

import argparse
from dataclasses import dataclass

import torch
from PIL import Image

import fastfid
from fastfid.sources import GeneratedSource


@dataclass
class Output:
    """What a pipeline returns."""

    images: list[Image.Image]


class SmallPipeline:
    """Denoises in a few steps towards a smooth picture; called as a pipeline of diffusers is."""

    device = torch.device("cpu")

    def __call__(self, batch_size: int, generator: list[torch.Generator], num_inference_steps: int = 4) -> Output:
        """Return one image for each generator."""
        assert len(generator) == batch_size
        x = torch.stack([torch.randn((3, 32, 32), generator=one) for one in generator])
        for _ in range(num_inference_steps):
            x = 0.5 * x + 0.5 * torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
        grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return Output([Image.fromarray(image) for image in grey])


pipe = SmallPipeline()


def generate(seeds: list[int]) -> list[Image.Image]:
    """Return one image for each seed."""
    generators = [torch.Generator(pipe.device).manual_seed(seed) for seed in seeds]
    return pipe(batch_size=len(seeds), generator=generators).images


def main() -> None:
    """Print the FID of the pipeline against a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", help="a folder or zip file")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dims", type=int, default=2048, choices=[64, 192, 768, 2048])
    parser.add_argument("--run-dir", help="keep here what was done, so that a run that was killed goes on")
    args = parser.parse_args()
    images = GeneratedSource(generate, args.images, batch_size=args.batch_size, identity="SmallPipeline, 4 steps")
    found = fastfid.evaluate(args.real, images, metrics=["fid"], dims=args.dims, run_dir=args.run_dir, progress=True)
    print(f"FID of {args.images} generated images: {found['fid'].value:.4f}")


if __name__ == "__main__":
    main()
