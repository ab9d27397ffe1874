"""One PyTorch definition of the Vision Transformers of the table: DINOv2, CLIP's visual tower, MAE, SigLIP.

Sub-modules have the names of DINOv2's and timm's checkpoints; ``names.py`` renames those of others.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastfid.features.known.shapes import Transformer

__all__ = ["VisionTransformer", "resized_positions"]


class QuickGELU(nn.Module):
    """OpenAI's approximation of the GELU, with which their CLIP was trained."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x sigmoid(1.702 x)."""
        return x * torch.sigmoid(1.702 * x)


def _activation(name: str) -> nn.Module:
    return {"gelu": nn.GELU(), "gelu-tanh": nn.GELU(approximate="tanh"), "quick-gelu": QuickGELU()}[name]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new tokens, (n, tokens, dim)."""
        q, k, v = (_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return cast(Tensor, self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class MLP(nn.Module):
    """Two layers."""

    def __init__(self, dim: int, hidden: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = _activation(activation)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new tokens."""
        return cast(Tensor, self.fc2(self.act(self.fc1(x))))


class SwiGLU(nn.Module):
    """DINOv2's gated layer, of its largest network: silu(a) b."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new tokens."""
        a, b = self.w12(x).chunk(2, dim=-1)
        return cast(Tensor, self.w3(F.silu(a) * b))


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled tokens."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and two layers, each behind a LayerNorm and beside a residual connection."""

    def __init__(self, shape: Transformer):
        super().__init__()
        dim = shape.dim
        self.norm1 = nn.LayerNorm(dim, eps=shape.eps)
        self.attn = Attention(dim, shape.heads)
        self.norm2 = nn.LayerNorm(dim, eps=shape.eps)
        self.mlp = SwiGLU(dim, shape.hidden) if shape.gated else MLP(dim, shape.hidden, shape.activation)
        self.ls1 = LayerScale(dim) if shape.layer_scale else nn.Identity()
        self.ls2 = LayerScale(dim) if shape.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the new tokens."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return cast(Tensor, x + self.ls2(self.mlp(self.norm2(x))))


class AttentionPool(nn.Module):
    """SigLIP's pooling: one learned query looks at all tokens, and two layers follow."""

    def __init__(self, shape: Transformer):
        super().__init__()
        dim = shape.dim
        self.heads = shape.heads
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=shape.eps)
        self.mlp = MLP(dim, shape.hidden, shape.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector an image, (n, dim)."""
        q = _heads(self.q(self.latent.expand(x.shape[0], -1, -1)), self.heads)
        k, v = (_heads(part, self.heads) for part in self.kv(x).chunk(2, dim=-1))
        pooled = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return cast(Tensor, (pooled + self.mlp(self.norm(pooled)))[:, 0])


class PatchEmbedding(nn.Module):
    """Patches as tokens; an image that is no multiple of the patch is filled up with zeros at the right and below."""

    def __init__(self, shape: Transformer):
        super().__init__()
        self.fill = -shape.side % shape.patch
        self.proj = nn.Conv2d(3, shape.dim, shape.patch, shape.patch, bias=not shape.pre_norm)

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens, (n, patches, dim)."""
        if self.fill:
            image = F.pad(image, (0, self.fill, 0, self.fill))
        return cast(Tensor, self.proj(image).flatten(2).transpose(1, 2))


class VisionTransformer(nn.Module):
    """The network; its output is one vector an image.

    The parameter `pos_embed` has a row for each token of the input as it is: the positions of a checkpoint, which are
    those of its training, go through :func:`resized_positions` first. So they are constants of an exported graph.
    """

    def __init__(self, shape: Transformer):
        super().__init__()
        dim = shape.dim
        self.shape = shape
        self.patch_embed = PatchEmbedding(shape)
        if shape.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.class_token + shape.grid**2, dim))
        self.norm_pre = nn.LayerNorm(dim, eps=shape.eps) if shape.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(dim, eps=shape.eps)
        if not shape.class_token:
            self.attn_pool = AttentionPool(shape)
        if shape.projection:
            self.head = nn.Linear(dim, shape.projection, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of images (n, 3, side, side): (n, d)."""
        x = self.patch_embed(image)
        if self.shape.class_token:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm_pre(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        x = x[:, 0] if self.shape.class_token else self.attn_pool(x)
        return cast(Tensor, self.head(x)) if self.shape.projection else x


def resized_positions(positions: Tensor, shape: Transformer) -> Tensor:
    """Return the positions of a checkpoint, (1, tokens, dim), for the grid of patches of `shape`.

    The two rules give different positions, and so different features:

    - "hub", of facebookresearch/dinov2 (``interpolate_pos_encoding``): bicubic by the factor (grid + 0.1) / old grid,
      by which the places where it samples are scaled;
    - "timm" (``resample_abs_pos_embed``): bicubic with antialias to the size of the grid.
    """
    prefix, grid = positions[:, : int(shape.class_token)], positions[:, int(shape.class_token) :]
    old, new = shape.trained_grid, shape.grid
    if old == new:
        return positions
    planes = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    if shape.positions == "hub":
        factor = (new + 0.1) / old
        planes = F.interpolate(planes, scale_factor=(factor, factor), mode="bicubic")
    else:
        planes = F.interpolate(planes, size=(new, new), mode="bicubic", antialias=True)
    return torch.cat([prefix, planes.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
