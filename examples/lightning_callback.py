"""Log fastfid's metrics in a run of Lightning: ``python lightning_callback.py REAL.npz``.

``LogMetrics`` is the callback, to be copied or imported. The rest of this file is a small training that shows it.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import fastfid

Batches = Callable[[lightning.LightningModule, int, int], Iterable[Tensor]]


class LogMetrics(lightning.Callback):  # type: ignore[misc]
    """Logs metrics of generated images at the end of epochs: ``fid``, ``fid_standard_error`` and so on.

    Every process generates and scores its share of the images, and all log the values of all images together. So
    ``ModelCheckpoint(monitor="fid")`` and ``EarlyStopping(monitor="fid")`` see them.

    Parameters
    ----------
    real : path or other source
        Statistics are enough for the FID. Other metrics need the real images, which rank 0 reads at the first epoch.
    generate : callable
        ``generate(module, images, seed)`` yields batches of uint8 images (n, 3, h, w), `images` in all.
    images : int
        Generated images in one evaluation, of all processes together.
    metrics : list of str
    every : int
        Epochs from one evaluation to the next.
    **options
        Of ``fastfid.Evaluator``.
    """

    def __init__(
        self,
        real: Any,
        generate: Batches,
        images: int = 10_000,
        metrics: Sequence[str] = ("fid",),
        every: int = 1,
        **options: Any,
    ):
        self.evaluator = fastfid.Evaluator(list(metrics), real=real, **options)
        self.generate, self.images, self.every = generate, images, every

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Generate, score and log."""
        if (trainer.current_epoch + 1) % self.every:
            return
        rank, processes = trainer.global_rank, trainer.world_size
        share = len(range(rank, self.images, processes))
        # Each process has another seed: equal ones would generate equal images.
        seed = trainer.current_epoch * processes + rank
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                for batch in self.generate(module, share, seed):
                    self.evaluator.update(batch)
        finally:
            module.train(was_training)
        total = self.evaluator.gather(dst=0)
        self.evaluator.reset()  # the real side stays
        kept = _Kept()
        if total is not None:
            total.log_to(kept, trainer.global_step)
        module.log_dict(trainer.strategy.broadcast(kept.values))


class _Kept:
    """A writer for ``log_to`` that keeps what it is told."""

    def __init__(self) -> None:
        self.values: Mapping[str, float] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.values = values


# ----------------------------------------------------------------------------------------------- a training to show it


class Training(lightning.LightningModule):  # type: ignore[misc]
    """A small generator that learns the colour of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(8, 3 * 16 * 16)

    def images_of(self, latents: Tensor) -> Tensor:
        """Return images (n, 3, 16, 16) in [-1, 1]."""
        images: Tensor = self.model(latents).tanh().view(-1, 3, 16, 16)
        return images

    def training_step(self, latents: Tensor, _: int) -> Tensor:
        """Return the loss."""
        return (self.images_of(latents) - 0.5).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=0.02)


def generate(module: lightning.LightningModule, images: int, seed: int, batch: int = 100) -> Iterator[Tensor]:
    """Yield generated images as the uint8 values that a PNG would have."""
    assert isinstance(module, Training)
    source = torch.Generator().manual_seed(seed)
    for start in range(0, images, batch):
        latents = torch.randn(min(batch, images - start), 8, generator=source)
        made = module.images_of(latents.to(module.device))
        yield ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def main() -> None:
    """Train, and print the FID of the last epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", help="statistics: fastfid stats real/ -o real.npz")
    parser.add_argument("--images", type=int, default=10_000, help="generated images in one evaluation")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    lightning.seed_everything(0)
    # DataLoader wants __len__ and __getitem__ alone, which its types do not say.
    latents: DataLoader[Tensor] = DataLoader(torch.randn(1000, 8), batch_size=100)  # type: ignore[arg-type]
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        devices=args.processes,
        strategy="ddp" if args.processes > 1 else "auto",
        callbacks=[LogMetrics(args.real, generate, args.images)],
    )
    trainer.fit(Training(), latents)
    if trainer.is_global_zero:
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        error = f" +- {logged['fid_standard_error']:.2g}" if "fid_standard_error" in logged else ""
        print(f"FID {logged['fid']:.6g}{error} of {logged['images_fake']:.0f} images")


if __name__ == "__main__":
    main()
