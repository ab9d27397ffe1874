"""The PyTorch classes of ``pytorch_fid.inception``, based on fastfid's definition of the network."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from fastfid._checks import DIMS
from fastfid.features import inception_torch
from fastfid.features.inception_torch import FIDInception, InceptionA, InceptionC, InceptionE
from fastfid.features.weights import find_weights
from fastfid.protocols import SIDE

__all__ = ["FIDInceptionA", "FIDInceptionC", "FIDInceptionE_1", "FIDInceptionE_2", "InceptionV3", "fid_inception_v3"]

# torchvision's network has the same stages. The names of its first two pooling modules depend on the version.
_TORCHVISION_STAGES = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


class InceptionV3(nn.Module):
    """Inception network that returns feature maps. It is differentiable and starts in evaluation mode.

    Parameters
    ----------
    output_blocks : sequence of int
        Maps to return: 0 (64 channels), 1 (192), 2 (768) or 3 (2048, averaged to 1 x 1).
    resize_input : bool
        Resize the input to 299 x 299 first, bilinearly without antialias.
    normalize_input : bool
        Scale the input from [0, 1] to [-1, 1] first.
    requires_grad : bool
        Whether the weights require gradients.
    use_fid_inception : bool
        True: the FID network and its weights. False: torchvision's pretrained network.

    Raises
    ------
    AssertionError
        `output_blocks` contains a block above 3.
    fastfid.WeightsError
        The weights cannot be found or fetched.

    Examples
    --------
    >>> import torch
    >>> model = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[64]])
    >>> model(torch.rand(1, 3, 80, 80))[0].shape
    torch.Size([1, 64, 73, 73])
    """

    DEFAULT_BLOCK_INDEX: ClassVar[int] = 3
    BLOCK_INDEX_BY_DIM: ClassVar[dict[int, int]] = {dims: i for i, dims in enumerate(DIMS)}

    def __init__(
        self,
        output_blocks: Sequence[int] = (DEFAULT_BLOCK_INDEX,),
        resize_input: bool = True,
        normalize_input: bool = True,
        requires_grad: bool = False,
        use_fid_inception: bool = True,
    ):
        super().__init__()
        self.resize_input = resize_input
        self.normalize_input = normalize_input
        self.output_blocks = sorted(output_blocks)
        self.last_needed_block = max(output_blocks)
        assert self.last_needed_block <= 3, "Last possible output block index is 3"
        if use_fid_inception:
            stages = _fid_network(DIMS[self.last_needed_block]).stages()
        else:
            stages = _torchvision_stages()[: self.last_needed_block + 1]
        if self.last_needed_block == 3:
            stages[3].append(nn.AdaptiveAvgPool2d(output_size=(1, 1)))
        self.blocks = nn.ModuleList(stages)
        self.requires_grad_(requires_grad)
        self.eval()

    def forward(self, inp: Tensor) -> list[Tensor]:
        """Return the maps of the output blocks, in ascending order, for images (n, 3, h, w) in [0, 1]."""
        x = inp
        if self.resize_input:
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        if self.normalize_input:
            x = 2 * x - 1
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.output_blocks:
                maps.append(x)
        return maps


def fid_inception_v3() -> FIDInception:
    """Return the FID network with its weights, up to the last feature map, without the classifier.

    Examples
    --------
    >>> import torch
    >>> with torch.no_grad():
    ...     fid_inception_v3()(torch.rand(1, 3, 80, 80)).shape
    torch.Size([1, 2048, 1, 1])
    """
    return _fid_network(2048)


def _fid_network(dims: int) -> FIDInception:
    network = FIDInception(dims)
    inception_torch.load_weights(network, find_weights())
    return network


def _torchvision_stages() -> list[nn.Sequential]:
    import torchvision  # needed only for use_fid_inception=False

    network = torchvision.models.inception_v3(weights="DEFAULT", init_weights=False)
    stages = [nn.Sequential(*(getattr(network, name) for name in names)) for names in _TORCHVISION_STAGES]
    for stage in stages[:2]:
        stage.append(nn.MaxPool2d(kernel_size=3, stride=2))
    return stages


class FIDInceptionA(InceptionA):
    """35 x 35 block whose average pool excludes the padding.

    Examples
    --------
    >>> import torch
    >>> FIDInceptionA(192, pool_features=32)(torch.rand(1, 192, 9, 9)).shape
    torch.Size([1, 256, 9, 9])
    """


class FIDInceptionC(InceptionC):
    """17 x 17 block whose average pool excludes the padding.

    Examples
    --------
    >>> import torch
    >>> FIDInceptionC(768, channels_7x7=128)(torch.rand(1, 768, 9, 9)).shape
    torch.Size([1, 768, 9, 9])
    """


class FIDInceptionE_1(InceptionE):  # noqa: N801 - pytorch-fid's name
    """First 8 x 8 block, whose average pool excludes the padding.

    Examples
    --------
    >>> import torch
    >>> FIDInceptionE_1(1280)(torch.rand(1, 1280, 3, 3)).shape
    torch.Size([1, 2048, 3, 3])
    """

    def __init__(self, in_channels: int):
        super().__init__(in_channels, pool=inception_torch._average_pool)


class FIDInceptionE_2(InceptionE):  # noqa: N801 - pytorch-fid's name
    """Second 8 x 8 block, which uses a maximum pool.

    Examples
    --------
    >>> import torch
    >>> FIDInceptionE_2(2048)(torch.rand(1, 2048, 3, 3)).shape
    torch.Size([1, 2048, 3, 3])
    """

    def __init__(self, in_channels: int):
        super().__init__(in_channels, pool=inception_torch._max_pool)
