"""The one PyTorch definition of the FID Inception network.

It is Inception-v3 (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015) as frozen in
Google's ``inception-2015-12-05`` graph, in the PyTorch form that pytorch-fid gave it. That graph differs from
torchvision's ``inception_v3`` in two places: its average pools do not count padding, and the pool branch of the last
block takes the maximum. Batch norm has no gamma and epsilon 1e-3.

``tools/export_inception.py`` exports the ONNX skeletons from it; ``fastfid.compat.pytorch_fid`` wraps it for callers
who need a differentiable module. Nothing else imports it, so torch is not a run-time dependency.

Sub-modules carry torchvision's names, so that state dicts written by pytorch-fid's users load.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastfid._checks import DIMS

if TYPE_CHECKING:
    from fastfid.features.weights import Weights

__all__ = ["ConvBatchNorm", "FIDInception", "convolutions", "load_weights"]

# Channels of the feature map that ends each stage: what `dims` selects.


class ConvBatchNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU: the only layer with weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of `x`."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _chain(x: Tensor, *layers: Callable[[Tensor], Tensor]) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _average_pool(x: Tensor) -> Tensor:
    # Unlike torchvision's: TensorFlow's average leaves padding out of the count.
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)


class InceptionA(nn.Module):
    """35 x 35 block: branches 1x1, 5x5, double 3x3, average pool."""

    def __init__(self, in_channels: int, pool_features: int):
        super().__init__()
        self.branch1x1 = ConvBatchNorm(in_channels, 64, 1)
        self.branch5x5_1 = ConvBatchNorm(in_channels, 48, 1)
        self.branch5x5_2 = ConvBatchNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvBatchNorm(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBatchNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBatchNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvBatchNorm(in_channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated branches."""
        return torch.cat(
            [
                self.branch1x1(x),
                _chain(x, self.branch5x5_1, self.branch5x5_2),
                _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
                _chain(x, _average_pool, self.branch_pool),
            ],
            1,
        )


class InceptionB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3 = ConvBatchNorm(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBatchNorm(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBatchNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBatchNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated branches."""
        return torch.cat(
            [
                self.branch3x3(x),
                _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
                F.max_pool2d(x, kernel_size=3, stride=2),
            ],
            1,
        )


class InceptionC(nn.Module):
    """17 x 17 block: branches 1x1, factorised 7x7, double factorised 7x7, average pool."""

    def __init__(self, in_channels: int, channels_7x7: int):
        super().__init__()
        c, row, column = channels_7x7, (1, 7), (7, 1)
        along_row, along_column = (0, 3), (3, 0)
        self.branch1x1 = ConvBatchNorm(in_channels, 192, 1)
        self.branch7x7_1 = ConvBatchNorm(in_channels, c, 1)
        self.branch7x7_2 = ConvBatchNorm(c, c, row, padding=along_row)
        self.branch7x7_3 = ConvBatchNorm(c, 192, column, padding=along_column)
        self.branch7x7dbl_1 = ConvBatchNorm(in_channels, c, 1)
        self.branch7x7dbl_2 = ConvBatchNorm(c, c, column, padding=along_column)
        self.branch7x7dbl_3 = ConvBatchNorm(c, c, row, padding=along_row)
        self.branch7x7dbl_4 = ConvBatchNorm(c, c, column, padding=along_column)
        self.branch7x7dbl_5 = ConvBatchNorm(c, 192, row, padding=along_row)
        self.branch_pool = ConvBatchNorm(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated branches."""
        return torch.cat(
            [
                self.branch1x1(x),
                _chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
                _chain(
                    x,
                    self.branch7x7dbl_1,
                    self.branch7x7dbl_2,
                    self.branch7x7dbl_3,
                    self.branch7x7dbl_4,
                    self.branch7x7dbl_5,
                ),
                _chain(x, _average_pool, self.branch_pool),
            ],
            1,
        )


class InceptionD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3_1 = ConvBatchNorm(in_channels, 192, 1)
        self.branch3x3_2 = ConvBatchNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBatchNorm(in_channels, 192, 1)
        self.branch7x7x3_2 = ConvBatchNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvBatchNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvBatchNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated branches."""
        return torch.cat(
            [
                _chain(x, self.branch3x3_1, self.branch3x3_2),
                _chain(x, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4),
                F.max_pool2d(x, kernel_size=3, stride=2),
            ],
            1,
        )


class InceptionE(nn.Module):
    """8 x 8 block: branches 1x1, split 3x3, double split 3x3, and a pool: average in Mixed_7b, maximum in Mixed_7c."""

    def __init__(self, in_channels: int, pool: Callable[[Tensor], Tensor]):
        super().__init__()
        row, column = (1, 3), (3, 1)
        along_row, along_column = (0, 1), (1, 0)
        self.branch1x1 = ConvBatchNorm(in_channels, 320, 1)
        self.branch3x3_1 = ConvBatchNorm(in_channels, 384, 1)
        self.branch3x3_2a = ConvBatchNorm(384, 384, row, padding=along_row)
        self.branch3x3_2b = ConvBatchNorm(384, 384, column, padding=along_column)
        self.branch3x3dbl_1 = ConvBatchNorm(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvBatchNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvBatchNorm(384, 384, row, padding=along_row)
        self.branch3x3dbl_3b = ConvBatchNorm(384, 384, column, padding=along_column)
        self.branch_pool = ConvBatchNorm(in_channels, 192, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated branches."""
        split = self.branch3x3_1(x)
        double_split = _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(split),
                self.branch3x3_2b(split),
                self.branch3x3dbl_3a(double_split),
                self.branch3x3dbl_3b(double_split),
                _chain(x, self.pool, self.branch_pool),
            ],
            1,
        )


class FIDInception(nn.Module):
    """The network up to the feature map of one stage; without resize, scaling, spatial mean or classifier.

    Parameters
    ----------
    dims : int
        64, 192, 768 or 2048: the channels of the map that :meth:`forward` returns. Later layers are not built.

    Notes
    -----
    Built with random weights and in evaluation mode: batch norm uses its stored moments until ``train()`` is asked for.
    """

    def __init__(self, dims: int = DIMS[-1]):
        super().__init__()
        if dims not in DIMS:
            raise ValueError(f"dims: expected one of {', '.join(map(str, DIMS))}; got {dims!r}")
        last = DIMS.index(dims)
        self.Conv2d_1a_3x3 = ConvBatchNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBatchNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvBatchNorm(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        if last >= 1:
            self.Conv2d_3b_1x1 = ConvBatchNorm(64, 80, 1)
            self.Conv2d_4a_3x3 = ConvBatchNorm(80, 192, 3)
            self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        if last >= 2:
            self.Mixed_5b = InceptionA(192, pool_features=32)
            self.Mixed_5c = InceptionA(256, pool_features=64)
            self.Mixed_5d = InceptionA(288, pool_features=64)
            self.Mixed_6a = InceptionB(288)
            self.Mixed_6b = InceptionC(768, channels_7x7=128)
            self.Mixed_6c = InceptionC(768, channels_7x7=160)
            self.Mixed_6d = InceptionC(768, channels_7x7=160)
            self.Mixed_6e = InceptionC(768, channels_7x7=192)
        if last >= 3:
            self.Mixed_7a = InceptionD(768)
            self.Mixed_7b = InceptionE(1280, pool=_average_pool)
            self.Mixed_7c = InceptionE(2048, pool=_max_pool)
        self.eval()

    def stages(self) -> list[nn.Sequential]:
        """Return the stages as sequences of the same sub-modules; stage i ends in DIMS[i] channels."""
        ends = ("maxpool1", "maxpool2", "Mixed_6e", "Mixed_7c")
        stages: list[nn.Sequential] = []
        layers: list[nn.Module] = []
        for name, layer in self.named_children():
            layers.append(layer)
            if name in ends:
                stages.append(nn.Sequential(*layers))
                layers = []
        return stages

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map (n, dims, h', w') of `x` (n, 3, h, w), h and w at least 75, scaled to [-1, 1]."""
        return _chain(x, *self.children())


def convolutions(module: nn.Module) -> Iterable[tuple[str, ConvBatchNorm]]:
    """Yield name and layer of every convolution inside `module`, in network order."""
    for name, layer in module.named_modules():
        if isinstance(layer, ConvBatchNorm):
            yield name, layer


def load_weights(module: nn.Module, weights: "Weights") -> None:
    """Copy `weights` into the convolutions of `module`, in network order; later ones that it lacks are left out.

    Parameters
    ----------
    module : torch.nn.Module
        A :class:`FIDInception`, or any module that holds its layers in the same order.
    weights : fastfid.features.weights.Weights
        The weights, e.g. of :func:`fastfid.features.weights.find_weights`.

    Raises
    ------
    ValueError
        A layer's shape is not that of the network's.
    """
    tensors = iter(weights.tensors)
    with torch.no_grad():
        for _, layer in convolutions(module):
            # Copies: the arrays are read-only views of the weights file.
            for target in (layer.conv.weight, layer.bn.bias, layer.bn.running_mean, layer.bn.running_var):
                assert target is not None  # batch norm is affine and tracks its moments
                source = torch.tensor(next(tensors))
                if target.shape != source.shape:
                    raise ValueError(
                        f"module: expected a layer of shape {tuple(source.shape)}, got {tuple(target.shape)}"
                    )
                target.copy_(source)
            layer.bn.weight.fill_(1.0)
