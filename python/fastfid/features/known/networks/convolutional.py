"""PyTorch definitions of the convolutional networks of the table: VGG16 up to fc2, ConvNeXt V2.

Sub-modules have the names of torchvision's VGG16 and of timm's ConvNeXt V2.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastfid.features.known.shapes import ConvNeXt

__all__ = ["VGG16", "ConvNeXtV2"]

_VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """VGG16 (Simonyan and Zisserman 2014) for images of 224 x 224, up to the second hidden layer, ReLU included."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage in _VGG16_CHANNELS:
            for channels in stage:
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # Dropout, of which an evaluation has none, keeps the numbers of the layers as torchvision has them.
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of images (n, 3, 224, 224): (n, 4096)."""
        return cast(Tensor, self.classifier(self.features(image).flatten(1)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (n, c, h, w)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023) of a map (n, h, w, c)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        norms = (x * x).sum(dim=(1, 2), keepdim=True).sqrt()
        return x + self.bias + self.weight * (x * (norms / (norms.mean(dim=-1, keepdim=True) + 1e-6)))


class Perceptron(nn.Module):
    """Two layers with the response normalised between them."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map, (n, h, w, c)."""
        return cast(Tensor, self.fc2(self.grn(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """A depthwise convolution and two layers, beside a residual connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Perceptron(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map."""
        added = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return cast(Tensor, x + added.permute(0, 3, 1, 2))


class Stage(nn.Module):
    """Blocks, behind a convolution that halves the sides, but for the first stage."""

    def __init__(self, before: int, channels: int, depth: int):
        super().__init__()
        is_first = before == channels
        self.downsample = (
            nn.Identity() if is_first else nn.Sequential(ChannelNorm(before), nn.Conv2d(before, channels, 2, 2))
        )
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map."""
        return cast(Tensor, self.blocks(self.downsample(x)))


class ConvNeXtV2(nn.Module):
    """ConvNeXt V2 (Woo et al. 2023); its output is the mean over the places of the last stage's map."""

    def __init__(self, shape: ConvNeXt):
        super().__init__()
        first = shape.channels[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, 4), ChannelNorm(first))
        befores = (first, *shape.channels[:-1])
        self.stages = nn.Sequential(
            *(Stage(*three) for three in zip(befores, shape.channels, shape.depths, strict=True))
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of images (n, 3, h, w): (n, d)."""
        return cast(Tensor, self.stages(self.stem(image))).mean(dim=(2, 3))
