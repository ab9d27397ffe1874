"""The shapes of the networks of the known extractors, without torch: what their definitions are made from."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["ConvNeXt", "Shape", "Transformer", "Vgg16"]


@dataclass(frozen=True)
class Transformer:
    """A Vision Transformer.

    Attributes
    ----------
    side : int
        Of the input, in pixels.
    trained_side : int
        Of the input for which the checkpoint has positions.
    patch, dim, depth, heads, hidden : int
        Side of a patch; length of a token; blocks; heads of attention; width of the two layers of a block.
    positions : {"hub", "timm"} or None
        By which rule the positions are resized; None: they are not.
    activation : {"gelu", "gelu-tanh", "quick-gelu"}
        Of the two layers.
    layer_scale, gated : bool
        Of DINOv2: factors behind attention and layers; SwiGLU in place of the two layers.
    class_token : bool
        The features are those of a class token; False: those of a pool by attention, as SigLIP has it.
    pre_norm : bool
        Of CLIP: LayerNorm before the blocks, and patches without a bias.
    projection : int
        Length of the features behind a projection; 0: there is none.
    eps : float
        Of every LayerNorm.
    """

    side: int
    trained_side: int
    patch: int
    dim: int
    depth: int
    heads: int
    hidden: int
    positions: Literal["hub", "timm"] | None = None
    activation: Literal["gelu", "gelu-tanh", "quick-gelu"] = "gelu"
    layer_scale: bool = False
    gated: bool = False
    class_token: bool = True
    pre_norm: bool = False
    projection: int = 0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.positions is None and self.grid != self.trained_grid:
            raise ValueError(f"positions: expected a rule for {self.trained_grid} to {self.grid} patches a side")

    @property
    def grid(self) -> int:
        """Patches along a side of the input, the last one filled up."""
        return -(-self.side // self.patch)

    @property
    def trained_grid(self) -> int:
        """Patches along a side of the input for which the checkpoint has positions."""
        return self.trained_side // self.patch

    @property
    def dims(self) -> int:
        """Length of a feature vector."""
        return self.projection or self.dim


@dataclass(frozen=True)
class ConvNeXt:
    """A ConvNeXt V2: channels and blocks of each stage."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]

    @property
    def dims(self) -> int:
        """Length of a feature vector."""
        return self.channels[-1]


@dataclass(frozen=True)
class Vgg16:
    """VGG16 up to its second hidden layer."""

    dims: int = 4096


Shape = Transformer | ConvNeXt | Vgg16
