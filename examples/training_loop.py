"""FID inside a PyTorch training loop, on the device of the tensors: ``python training_loop.py``.

A toy generator learns the colours of random images by matching their mean. Every few steps its images are scored. The
real side is seen once and kept. Needs PyTorch and torchmetrics; `fastfid.FID` does the same without torchmetrics.
"""

import argparse

import torch
from torch import Tensor, nn

from fastfid.compat.torchmetrics import FrechetInceptionDistance


def real_images(n: int, generator: torch.Generator) -> Tensor:
    """Return n reddish images (n, 3, 32, 32) in [0, 1]."""
    noise = torch.rand(n, 3, 32, 32, generator=generator)
    return (0.3 * noise + torch.tensor([0.6, 0.2, 0.1]).view(1, 3, 1, 1)).clamp(0, 1)


def main() -> None:
    """Train the generator, and print the FID, which decreases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=64, help="images of each side in one score")
    parser.add_argument("--feature", type=int, default=64, choices=[64, 192, 768, 2048])
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Sigmoid()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    fid = FrechetInceptionDistance(feature=args.feature, normalize=True, reset_real_features=False).to(device)
    fid.update(real_images(args.images, source).to(device), real=True)

    for step in range(args.steps + 1):
        fake = model(torch.randn(args.images, 8, device=device)).view(-1, 3, 32, 32)
        if step % 20 == 0:
            fid.update(fake.detach(), real=False)
            print(f"step {step:3}: FID {fid.compute().item():.3f}")
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
