"""The tensors of a checkpoint under the names that our definitions of the networks have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.features.known.checkpoint import Checkpoint

__all__ = ["NAMINGS", "Naming", "renamed"]

_BLOCK = r"(\d+)\."


@dataclass(frozen=True)
class Naming:
    """How the tensors of a network are called by those who publish it.

    Attributes
    ----------
    marker : str
        A tensor of this name tells the naming.
    rules : tuple of (str, str)
        Patterns of names, and our names; several tensors that have one of our names are joined in the order of the
        rules, as query, key and value are.
    passed_over : str
        Pattern of the names that the features do not need: a text tower, a mask token, the last layer of a classifier.
    transposed : str
        Our name of a tensor that is stored transposed; empty: there is none.
    """

    marker: str
    rules: tuple[tuple[str, str], ...]
    passed_over: str
    transposed: str = ""


def _parts(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return ((rf"{theirs}\.(weight|bias)", ours),)


# DINOv2's hub and timm: our own names.
_OWN = Naming(
    "patch_embed.proj.weight",
    ((r"((?:cls_token|pos_embed|patch_embed|norm_pre|blocks|norm|attn_pool)\b.*)", r"\1"), (r"(head\.weight)", r"\1")),
    r"mask_token|head\.(weight|bias)|fc_norm\..*|decoder.*",
)
# OpenAI's CLIP and open_clip.
_OPEN_CLIP = Naming(
    "visual.conv1.weight",
    (
        (r"visual\.class_embedding", "cls_token"),
        (r"visual\.positional_embedding", "pos_embed"),
        (r"visual\.conv1\.weight", "patch_embed.proj.weight"),
        *_parts(r"visual\.ln_pre", r"norm_pre.\1"),
        *_parts(r"visual\.ln_post", r"norm.\1"),
        (r"visual\.proj", "head.weight"),
        (rf"visual\.transformer\.resblocks\.{_BLOCK}attn\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
        *_parts(rf"visual\.transformer\.resblocks\.{_BLOCK}attn\.out_proj", r"blocks.\1.attn.proj.\2"),
        *_parts(rf"visual\.transformer\.resblocks\.{_BLOCK}ln_([12])", r"blocks.\1.norm\2.\3"),
        *_parts(rf"visual\.transformer\.resblocks\.{_BLOCK}mlp\.c_fc", r"blocks.\1.mlp.fc1.\2"),
        *_parts(rf"visual\.transformer\.resblocks\.{_BLOCK}mlp\.c_proj", r"blocks.\1.mlp.fc2.\2"),
    ),
    r"(?!visual\.).*",
    transposed="head.weight",
)
_LAYER = rf"vision_model\.encoder\.layers\.{_BLOCK}"
_TRANSFORMERS_CLIP = Naming(
    "vision_model.embeddings.patch_embedding.weight",
    (
        (r"vision_model\.embeddings\.class_embedding", "cls_token"),
        (r"vision_model\.embeddings\.position_embedding\.weight", "pos_embed"),
        (r"vision_model\.embeddings\.patch_embedding\.weight", "patch_embed.proj.weight"),
        *_parts(r"vision_model\.pre_layrnorm", r"norm_pre.\1"),
        *_parts(r"vision_model\.post_layernorm", r"norm.\1"),
        (r"visual_projection\.weight", "head.weight"),
        *_parts(_LAYER + r"self_attn\.q_proj", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"self_attn\.k_proj", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"self_attn\.v_proj", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"self_attn\.out_proj", r"blocks.\1.attn.proj.\2"),
        *_parts(_LAYER + r"layer_norm([12])", r"blocks.\1.norm\2.\3"),
        *_parts(_LAYER + r"mlp\.fc([12])", r"blocks.\1.mlp.fc\2.\3"),
    ),
    r"(?!vision_model\.|visual_projection).*|vision_model\.embeddings\.position_ids",
)
_LAYER = rf"encoder\.layer\.{_BLOCK}"
_TRANSFORMERS_DINOV2 = Naming(
    "embeddings.patch_embeddings.projection.weight",
    (
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        *_parts(r"embeddings\.patch_embeddings\.projection", r"patch_embed.proj.\1"),
        *_parts(r"layernorm", r"norm.\1"),
        *_parts(_LAYER + r"attention\.attention\.query", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"attention\.attention\.key", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"attention\.attention\.value", r"blocks.\1.attn.qkv.\2"),
        *_parts(_LAYER + r"attention\.output\.dense", r"blocks.\1.attn.proj.\2"),
        (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        *_parts(_LAYER + r"norm([12])", r"blocks.\1.norm\2.\3"),
        *_parts(_LAYER + r"mlp\.fc([12])", r"blocks.\1.mlp.fc\2.\3"),
        *_parts(_LAYER + r"mlp\.weights_in", r"blocks.\1.mlp.w12.\2"),
        *_parts(_LAYER + r"mlp\.weights_out", r"blocks.\1.mlp.w3.\2"),
    ),
    r"embeddings\.mask_token|classifier\.(weight|bias)",
)
_TORCHVISION_VGG = Naming(
    "classifier.3.weight", ((r"(features\..*|classifier\.[03]\..*)", r"\1"),), r"classifier\.6\.(weight|bias)"
)
_TIMM_CONVNEXT = Naming("stem.0.weight", ((r"((?:stem|stages)\..*)", r"\1"),), r"head\..*")

# By the name of a naming, as the table and messages have it.
NAMINGS: Mapping[str, Naming] = {
    "hub or timm": _OWN,
    "openai or open_clip": _OPEN_CLIP,
    "transformers": _TRANSFORMERS_CLIP,
    "transformers (DINOv2)": _TRANSFORMERS_DINOV2,
    "torchvision": _TORCHVISION_VGG,
    "timm": _TIMM_CONVNEXT,
}

Array = NDArray[np.float32]


def renamed(
    checkpoint: Checkpoint,
    namings: tuple[str, ...],
    shapes: Mapping[str, tuple[int, ...]],
    finish: Callable[[str, Array], Array] = lambda _, tensor: tensor,
) -> dict[str, Array]:
    """Return the tensors of a checkpoint under our names.

    Parameters
    ----------
    checkpoint : Checkpoint
    namings : tuple of str
        The namings that the network's checkpoints may have, of :data:`NAMINGS`.
    shapes : dict of str to tuple of int
        What the network needs, by our names.
    finish : callable
        Called with our name and each tensor, before its shape is checked.

    Raises
    ------
    ValueError
        A tensor is missing, has another shape or values that are not finite, or is there and not known: it is the
        checkpoint of another network. The message names the file and the tensor.
    """
    naming = next((NAMINGS[name] for name in namings if NAMINGS[name].marker in checkpoint), None)
    if naming is None:
        markers = " or ".join(f"{NAMINGS[name].marker} ({name})" for name in namings)
        first = ", ".join(list(checkpoint)[:3])
        raise ValueError(f"{checkpoint.path}: expected the tensor {markers}; it has {first}, ...")
    sources = _sources(checkpoint, naming, shapes)
    found = {}
    for ours, shape in shapes.items():
        if not sources[ours]:
            raise ValueError(f"{checkpoint.path}: lacks the tensor {ours}: is it the checkpoint of another network?")
        tensors = [checkpoint[theirs] for theirs in sources[ours]]
        tensor = finish(ours, _joined(tensors, shape, is_transposed=ours == naming.transposed))
        if tensor.shape != shape:
            raise ValueError(
                f"{checkpoint.path}: {', '.join(sources[ours])}: expected shape {shape}, got {tensor.shape}: is it the"
                " checkpoint of another network?"
            )
        if not np.isfinite(tensor).all():
            raise ValueError(f"{checkpoint.path}: {', '.join(sources[ours])}: has values that are not finite")
        found[ours] = tensor
    return found


def _sources(checkpoint: Checkpoint, naming: Naming, shapes: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the names in the checkpoint of each tensor, in the order of the rules; ValueError for what is unknown."""
    numbered: dict[str, list[tuple[int, str]]] = {ours: [] for ours in shapes}
    for theirs in checkpoint:
        for number, (pattern, replacement) in enumerate(naming.rules):
            if match := re.fullmatch(pattern, theirs):
                ours = match.expand(replacement)
                if ours in numbered:
                    numbered[ours].append((number, theirs))
                    break
        else:
            if not re.fullmatch(naming.passed_over, theirs):
                raise ValueError(
                    f"{checkpoint.path}: has the tensor {theirs}, which the network lacks: is it the checkpoint of"
                    " another one?"
                )
    return {ours: [theirs for _, theirs in sorted(pairs)] for ours, pairs in numbered.items()}


def _joined(tensors: list[Array], shape: tuple[int, ...], *, is_transposed: bool) -> Array:
    tensor = np.concatenate(tensors) if len(tensors) > 1 else tensors[0]
    if is_transposed:
        tensor = np.ascontiguousarray(tensor.T)
    # Some publish a vector, or a matrix, where others have axes of length 1 before it.
    return tensor.reshape((1,) * (len(shape) - tensor.ndim) + tensor.shape)
