"""The data of gan.py, its generator and discriminator, and the small classifier whose features give the FID."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import fastfid
from fastfid.sources import open_source

LATENTS = 16
FEATURES = 32  # dims of the small classifier


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 digits, uint8 (n, 8, 8, 1), and their classes."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        how = "pip install scikit-learn, or give --data FOLDER"
        raise SystemExit(f"gan.py: the digits need scikit-learn ({error}): {how}") from None
    digits = load()
    return np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8), digits.target


def load_pictures(path: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures of a folder or archive whose sub-folders are the classes, uint8 (n, size, size, 3)."""
    pictures, names = [], []
    for item in open_source(path, labels="folder"):
        pictures.append(np.asarray(Image.fromarray(item.load()).resize((size, size), Image.Resampling.BOX)))
        names.append(item.label)
    if len(Counter(names)) < 2:
        raise SystemExit(f"gan.py: --data: {path}: expected pictures in two sub-folders or more, one for each class")
    return np.stack(pictures), np.unique(names, return_inverse=True)[1]


def to_tensor(images: np.ndarray) -> Tensor:
    """Return uint8 images (n, h, w, c) as floats from -1 to 1, (n, c, h, w)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """Return floats from -1 to 1, (n, c, h, w), as the uint8 values of a picture, RGB (n, h, w, 3)."""
    levels = ((images.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    return levels.expand(*levels.shape[:3], 3).contiguous().numpy()


def _doublings(size: int) -> int:
    count = (size // 4).bit_length() - 1
    if size < 8 or 4 << count != size:
        raise SystemExit(f"gan.py: --size: expected 8, 16, 32 or another power of two, got {size}")
    return count


def make_generator(size: int, channels: int, width: int = 32) -> nn.Module:
    """Return a DCGAN generator: latents (n, LATENTS) to images (n, channels, size, size)."""
    count = _doublings(size)
    top = width << (count - 1)
    layers: list[nn.Module] = [
        nn.Linear(LATENTS, top * 16),
        nn.Unflatten(1, (top, 4, 4)),
        nn.BatchNorm2d(top),
        nn.ReLU(),
    ]
    for step in range(count - 1):
        there = top >> (step + 1)
        layers += [nn.ConvTranspose2d(top >> step, there, 4, 2, 1), nn.BatchNorm2d(there), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())


def make_discriminator(size: int, channels: int, width: int = 32) -> nn.Module:
    """Return a convolutional discriminator: images to one logit each."""
    count = _doublings(size)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for step in range(count - 1):
        layers += [nn.Conv2d(width << step, width << (step + 1), 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear((width << (count - 1)) * 16, 1), nn.Flatten(0))


class Features(nn.Module):
    """The classifier without its last layer: RGB images (n, 3, size, size) in 0 to 1 to FEATURES numbers."""

    def __init__(self, size: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * (size // 2) ** 2, FEATURES),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        return self.layers(images)


class Classifier(fastfid.OnnxExtractor):
    """The exported classifier. With the matrix of its last layer it also gives an Inception Score."""

    def __init__(self, folder: Path, size: int):
        super().__init__(folder / "classifier.onnx", fastfid.InputSpec((size, size), "none"), device="cpu")
        self._matrix = np.load(folder / "classifier.npy")

    def classifier(self) -> np.ndarray:
        """Return the matrix of the last layer, (classes, FEATURES)."""
        return self._matrix


def train_classifier(images: np.ndarray, classes: np.ndarray, folder: Path, epochs: int) -> float:
    """Train the classifier, write classifier.onnx and classifier.npy, and return its accuracy on a held-out fifth."""
    size = images.shape[1]
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    held, kept = order[: len(images) // 5], order[len(images) // 5 :]
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).expand(-1, 3, -1, -1)
    targets = torch.from_numpy(classes).long()
    features = Features(size)
    last = nn.Linear(FEATURES, int(classes.max()) + 1, bias=False)
    optimizer = torch.optim.Adam([*features.parameters(), *last.parameters()], lr=2e-3)
    for _ in range(epochs):
        for batch in kept[torch.randperm(len(kept))].split(64):
            loss = nn.functional.cross_entropy(last(features(inputs[batch])), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = float((last(features(inputs[held])).argmax(1) == targets[held]).float().mean())
    np.save(folder / "classifier.npy", last.weight.detach().numpy())
    torch.onnx.export(
        features.eval(),
        (torch.zeros(2, 3, size, size),),
        folder / "classifier.onnx",
        input_names=["image"],
        output_names=["features"],
        dynamic_shapes={"images": {0: "n"}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return accuracy
