"""The known extractors: whose number each gives, how its images are prepared, and whose checkpoint it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastfid.features.known.shapes import ConvNeXt, Shape, Transformer, Vgg16
from fastfid.input_spec import InputSpec

__all__ = ["KNOWN", "KnownExtractor", "find_known"]


@dataclass(frozen=True)
class Origin:
    """A checkpoint that somebody publishes.

    Attributes
    ----------
    files : str
        The names of files that have it.
    publisher : str
        Who publishes it, and where.
    namings : tuple of str
        Of :data:`fastfid.features.known.names.NAMINGS`.
    licence : str
        Of the weights, as their publisher states it.
    is_permissive : bool
        Whether that licence permits any use.
    """

    files: str
    publisher: str
    namings: tuple[str, ...]
    licence: str
    is_permissive: bool


@dataclass(frozen=True)
class KnownExtractor:
    """A row of the table.

    Attributes
    ----------
    name : str
    origin : Origin
        The checkpoint.
    shape : Shape
        Of the network.
    spec : InputSpec
        How an image becomes its input.
    tool : str
        Whose number it gives.
    note : str
        What differs from the tool; empty: nothing is known to.
    verified : bool
        Whether features were compared with those of the tool on the real checkpoint.
    """

    name: str
    origin: Origin
    shape: Shape
    spec: InputSpec
    tool: str
    note: str = ""
    verified: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "name": self.name,
            "tool": self.tool,
            "dims": self.shape.dims,
            "protocol": self.spec.protocol,
            "checkpoint": self.origin.files,
            "publisher": self.origin.publisher,
            "licence": self.origin.licence,
            "permissive": self.origin.is_permissive,
            "verified": self.verified,
            "note": self.note,
        }


_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CLIP: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
_HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_PILLOW = InputSpec((224, 224), filter="bicubic", rounding="pillow-uint8", **_IMAGENET)
_TORCH = InputSpec((224, 224), filter="bicubic", **_IMAGENET)
_CLIPPED = InputSpec((224, 224), filter="bicubic", rounding="clip", **_IMAGENET)
_TENSORFLOW = InputSpec((224, 224), filter="tf1-bilinear", antialias=False, **_IMAGENET)


def _dinov2(letter: str) -> Origin:
    return Origin(
        f"dinov2_vit{letter}14_pretrain.pth, or model.safetensors of transformers",
        "facebookresearch/dinov2 (without registers)",
        ("hub or timm", "transformers (DINOv2)"),
        "Apache-2.0",
        is_permissive=True,
    )


_OPENAI_CLIP = Origin(
    "model.safetensors or pytorch_model.bin of transformers, or a state dict with the names of openai/CLIP",
    "openai/CLIP",
    ("transformers", "openai or open_clip"),
    "MIT, that of openai/CLIP's repository; the model card asks for a study before a use",
    is_permissive=True,
)

_VITS14 = Transformer(224, 518, 14, 384, 12, 6, 1536, positions="hub", layer_scale=True)
_VITB14 = replace(_VITS14, dim=768, heads=12, hidden=3072)
_VITL14 = replace(_VITS14, dim=1024, depth=24, heads=16, hidden=4096)
_VITG14 = replace(_VITS14, dim=1536, depth=40, heads=24, hidden=4096, gated=True)
_CLIPB32 = Transformer(
    224, 224, 32, 768, 12, 12, 3072, activation="quick-gelu", pre_norm=True, projection=512, eps=1e-5
)
_CLIPL14 = replace(_CLIPB32, patch=14, dim=1024, depth=24, heads=16, hidden=4096, projection=768)

_BFLOAT16 = "the tool runs the network in bfloat16, this is float32"
_FD_LOSS = "FD-Loss (eval_all_fds.py)"

_ROWS = (
    KnownExtractor("dinov2-vits14", _dinov2("s"), _VITS14, _PILLOW, "none; dgm-eval's preparation for a small network"),
    KnownExtractor("dinov2-vitb14/fld", _dinov2("b"), _VITB14, _PILLOW, "fld"),
    KnownExtractor("dinov2-vitl14/dgm-eval", _dinov2("l"), _VITL14, _PILLOW, "dgm-eval, the definition of FD-DINOv2"),
    KnownExtractor("dinov2-vitl14/edm2", _dinov2("l"), _VITL14, _TORCH, "edm2, with its default resize"),
    KnownExtractor("dinov2-vitl14/clean", _dinov2("l"), _VITL14, _CLIPPED, "dgm-eval --clean_resize; pyiqa"),
    KnownExtractor("dinov2-vitl14/torch-fidelity", _dinov2("l"), _VITL14, _TENSORFLOW, "torch-fidelity"),
    KnownExtractor(
        "dinov2-vitl14/k-diffusion",
        _dinov2("l"),
        _VITL14,
        replace(_TORCH, post="l2-sqrt-d"),
        "k-diffusion",
        "the tool runs the network in float16, this is float32",
    ),
    KnownExtractor(
        "dinov2-vitl14/fd-loss",
        replace(_dinov2("l"), files="model.safetensors of timm's vit_large_patch14_dinov2.lvd142m, or the hub's .pth"),
        replace(_VITL14, side=256, positions="timm"),
        replace(_TORCH, size=(256, 256)),
        _FD_LOSS,
        _BFLOAT16,
    ),
    KnownExtractor("dinov2-vitg14/torch-fidelity", _dinov2("g"), _VITG14, _TENSORFLOW, "torch-fidelity"),
    KnownExtractor(
        "clip-vitb32",
        _OPENAI_CLIP,
        _CLIPB32,
        InputSpec((224, 224), "shorter", "bicubic", rounding="pillow-uint8", crop="center", **_CLIP),
        "clean-fid, its CLIP-FID",
    ),
    KnownExtractor(
        "clip-vitl14-336/cmmd",
        _OPENAI_CLIP,
        replace(_CLIPL14, side=336, trained_side=336),
        InputSpec((336, 336), filter="bicubic", rounding="pillow-uint8", crop="center", post="l2", **_CLIP),
        "google-research's CMMD",
    ),
    KnownExtractor(
        "clip-vitl14/fd-loss",
        replace(
            _OPENAI_CLIP,
            files="model.safetensors of timm's vit_large_patch14_clip_224.openai",
            namings=("hub or timm",),
        ),
        replace(_CLIPL14, side=256, positions="timm", activation="gelu", projection=0),
        InputSpec((256, 256), filter="bicubic", **_CLIP),
        _FD_LOSS,
        f"{_BFLOAT16}; the GELU is that of timm's name, not OpenAI's",
    ),
    KnownExtractor(
        "vgg16-fc2/torch-fidelity",
        Origin("vgg16-397923af.pth", "pytorch/vision", ("torchvision",), "not stated", is_permissive=False),
        Vgg16(),
        _TENSORFLOW,
        "torch-fidelity, its precision and recall",
    ),
    KnownExtractor(
        "mae-vitl16/fd-loss",
        Origin(
            "model.safetensors of timm's vit_large_patch16_224.mae, or mae_pretrain_vit_large.pth",
            "facebookresearch/mae",
            ("hub or timm",),
            "CC-BY-NC-4.0",
            is_permissive=False,
        ),
        Transformer(224, 224, 16, 1024, 24, 16, 4096),
        _TORCH,
        _FD_LOSS,
        _BFLOAT16,
    ),
    KnownExtractor(
        "siglip2-so400m16/fd-loss",
        Origin(
            "model.safetensors of timm's vit_so400m_patch16_siglip_256.v2_webli",
            "google-research/big_vision",
            ("hub or timm",),
            "Apache-2.0",
            is_permissive=True,
        ),
        Transformer(224, 256, 16, 1152, 27, 16, 4304, positions="timm", activation="gelu-tanh", class_token=False),
        InputSpec((224, 224), filter="bicubic", **_HALF),
        _FD_LOSS,
        _BFLOAT16,
    ),
    KnownExtractor(
        "convnextv2-base/fd-loss",
        Origin(
            "model.safetensors of timm's convnextv2_base.fcmae_ft_in22k_in1k",
            "facebookresearch/ConvNeXt-V2",
            ("timm",),
            "CC-BY-NC-4.0",
            is_permissive=False,
        ),
        ConvNeXt((128, 256, 512, 1024), (3, 3, 27, 3)),
        _TORCH,
        _FD_LOSS,
        _BFLOAT16,
    ),
)

# By name, in the order in which they are listed.
KNOWN: Mapping[str, KnownExtractor] = {row.name: row for row in _ROWS}


def find_known(name: str) -> KnownExtractor:
    """Return a row of the table.

    Raises
    ------
    ValueError
        There is none of that name. The message has the names.
    """
    if name not in KNOWN:
        raise ValueError(f"extractor: expected one of {', '.join(KNOWN)}; got {name!r}")
    return KNOWN[name]
