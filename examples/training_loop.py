"""FID inside a PyTorch training loop, on the device of the tensors: ``python training_loop.py``.

A toy generator learns the colours of random images by matching their mean. Every few steps its images are scored. The
real side is read once, as statistics. docs/training.md shows the same for several processes, Lightning and accelerate.
"""

import argparse

import torch
from torch import Tensor, nn

import fastfid


def real_images(n: int, generator: torch.Generator) -> Tensor:
    """Return n reddish images (n, 3, 32, 32) in [0, 1]."""
    noise = torch.rand(n, 3, 32, 32, generator=generator)
    return (0.3 * noise + torch.tensor([0.6, 0.2, 0.1]).view(1, 3, 1, 1)).clamp(0, 1)


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [0, 1] as the uint8 values that a PNG would have."""
    return (images.detach() * 255).round().to(torch.uint8)


def main() -> None:
    """Train the generator, and print the FID, which decreases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=128, help="images of each side in one score")
    parser.add_argument("--dims", type=int, default=64, choices=[64, 192, 768, 2048])
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Sigmoid()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    # In a real run: `fastfid stats real/ -o real.npz`, once, and FID(real="real.npz").
    real_side = fastfid.compute_statistics(to_uint8(real_images(args.images, source)), dims=args.dims)
    fid = fastfid.FID(real=real_side, dims=args.dims)

    for step in range(args.steps + 1):
        fake = model(torch.randn(args.images, 8, device=device)).view(-1, 3, 32, 32)
        if step % 20 == 0:
            fid.update(to_uint8(fake))
            result = fid.result()
            error = "unknown" if result.standard_error is None else f"{result.standard_error:.3f}"
            print(f"step {step:3}: FID {result.value:.3f}, standard error {error}")
            fid.reset()  # keeps the real side
        real = real_images(args.images, source).to(device)
        loss = (fake.mean(dim=0) - real.mean(dim=0)).square().mean() + (
            fake.std(dim=0) - real.std(dim=0)
        ).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
