"""Known extractors beside timm, transformers, open_clip and torch-fidelity: features of images, with random tensors.

The others' modules get the tensors of a checkpoint, and images go through the tool's own transform; ours are exported
from the same checkpoint's file. ``bash tools/extractor_truth.sh`` runs these tests, in an environment of their own:
ViT-S/14 and CLIP B/32 in their shapes, the others with fewer blocks. With FASTFID_TRUE_SHAPES=1 all have their shapes.
"""

import os
import shutil
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import safetensors.torch
import skimage.data
import timm
import torch
import transformers
from PIL import Image
from tolerances import TRANSFORMERS_FEATURES
from tool_transforms import TRANSFORMS
from torch.nn.functional import interpolate

import fastfid
from fastfid.features.known import KNOWN, table
from fastfid.features.known.export import export_known
from fastfid.features.known.shapes import Transformer

IS_TRUE = bool(os.environ.get("FASTFID_TRUE_SHAPES"))
IN_SHAPE = ("dinov2-vits14", "clip-vitb32", "vgg16-fc2/torch-fidelity")


def shape_of(name):
    shape = KNOWN[name].shape
    if IS_TRUE or name in IN_SHAPE:
        return shape
    if isinstance(shape, Transformer):
        return replace(
            shape,
            depth=2,
            dim=96,
            heads=6,
            hidden=256 if shape.gated else int(96 * shape.hidden / shape.dim),
            projection=shape.projection and 40,
        )
    return replace(shape, channels=(16, 24, 32, 48), depths=(1, 1, 2, 1))


@pytest.fixture
def folder(tmp_path):
    """A folder that is empty after the test: pytest would keep gigabytes for each."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def row(request, monkeypatch):
    """The row of the table, with fewer blocks unless all are asked for."""
    made = replace(KNOWN[request.param], shape=shape_of(request.param))
    monkeypatch.setattr(table, "KNOWN", {**KNOWN, request.param: made})
    return made


def randomised(module, seed=7):
    """Give a module random tensors under which its activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_matrix = parameter.ndim >= 2 and not any(word in name for word in ("pos", "token", "latent", "class"))
            if is_matrix:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                is_scale = "norm" in name.lower() or "ln_" in name or "scale" in name or "gamma" in name
                parameter.copy_(0.3 * noise + (1.0 if is_scale and not name.endswith("bias") else 0.0))
    return module.eval()


def hub_positions(positions, new):
    """What facebookresearch/dinov2 makes of its 37 x 37 positions: a scale of (new + 0.1) / 37, bicubic."""
    scale = (new + 0.1) / 37
    grid = positions[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def transform_of(name):
    """The tool's own transform; open_clip's code is another truth of CLIP's."""
    if name != "clip-vitb32":
        return TRANSFORMS[name]
    transform = open_clip.image_transform(224, is_train=False)  # Resize, CenterCrop, ToTensor, Normalize
    return lambda image: transform(Image.fromarray(image))


# ----------------------------------------------------------------------------------------------- the others' modules


def timms_dinov2(shape):
    """timm's module with the hub's positions put in their place."""
    options = {"embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads, "num_classes": 0}
    build = timm.models.vision_transformer.VisionTransformer
    options |= {"patch_size": 14, "init_values": 1e-5, "mlp_ratio": shape.hidden / shape.dim}
    trained = randomised(build(img_size=518, **options))
    state = trained.state_dict()
    module = build(img_size=224, **options).eval()
    module.load_state_dict({**state, "pos_embed": hub_positions(state["pos_embed"], 16)})
    return trained, module


def transformers_dinov2(shape):
    """transformers' module; its own rule for positions has nothing to do, as there are as many as patches."""
    options = {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "patch_size": 14,
        "use_swiglu_ffn": shape.gated,
        "mlp_ratio": 4,
    }
    build = transformers.Dinov2Model
    trained = randomised(build(transformers.Dinov2Config(image_size=518, **options)))
    state = trained.state_dict()
    module = build(transformers.Dinov2Config(image_size=224, **options)).eval()
    key = "embeddings.position_embeddings"
    module.load_state_dict({**state, key: hub_positions(state[key], 16)})
    return trained, lambda x: module(pixel_values=x).last_hidden_state[:, 0]


def timms_dynamic(shape, prefix=1, **options):
    """timm's module as FD-Loss makes it: positions and a border for an input of another size."""
    options |= {"embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads, "num_classes": 0}
    module = randomised(
        timm.models.vision_transformer.VisionTransformer(
            img_size=shape.trained_side,
            patch_size=shape.patch,
            mlp_ratio=(shape.hidden + 0.5) / shape.dim,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            **options,
        )
    )
    return module, lambda x: module.forward_features(x)[:, 0]


def timms_siglip(shape):
    options = {"embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads, "num_classes": 0}
    module = randomised(
        timm.models.vision_transformer.VisionTransformer(
            img_size=256,
            patch_size=16,
            mlp_ratio=(shape.hidden + 0.5) / shape.dim,
            class_token=False,
            global_pool="map",
            act_layer="gelu_tanh",
            dynamic_img_size=True,
            **options,
        )
    )
    return module, lambda x: module.attn_pool(module.forward_features(x))


def timms_convnext(shape):
    build = timm.models.convnext.ConvNeXt
    module = randomised(
        build(depths=shape.depths, dims=shape.channels, use_grn=True, ls_init_value=None, num_classes=0)
    )
    return module, lambda x: module.forward_features(x).mean(dim=[2, 3])


def transformers_clip(shape):
    config = transformers.CLIPVisionConfig(
        hidden_size=shape.dim,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        image_size=shape.side,
        patch_size=shape.patch,
        projection_dim=shape.projection,
        hidden_act="quick_gelu",
    )
    module = randomised(transformers.CLIPVisionModelWithProjection(config))
    return module, lambda x: module(pixel_values=x).image_embeds


def open_clips(shape):
    vision = {
        "image_size": shape.side,
        "layers": shape.depth,
        "width": shape.dim,
        "patch_size": shape.patch,
        "head_width": shape.dim // shape.heads,
    }
    text = {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 2, "layers": 1}
    module = randomised(open_clip.CLIP(shape.projection, vision, text, quick_gelu=True))
    return module, module.encode_image


def torchvisions_vgg(shape):
    import torchvision

    module = randomised(torchvision.models.vgg16())
    layers = torch.nn.Sequential(*list(module.classifier)[:5])
    return module, lambda x: layers(torch.flatten(module.avgpool(module.features(x)), 1))


CASES = {
    "dinov2-vits14": [timms_dinov2, transformers_dinov2],
    "dinov2-vitb14/fld": [timms_dinov2],
    "dinov2-vitl14/dgm-eval": [transformers_dinov2],
    "dinov2-vitl14/edm2": [timms_dinov2],
    "dinov2-vitl14/clean": [timms_dinov2],
    "dinov2-vitl14/torch-fidelity": [timms_dinov2],
    "dinov2-vitl14/k-diffusion": [timms_dinov2],
    "dinov2-vitl14/fd-loss": [lambda shape: timms_dynamic(shape, init_values=1e-5)],
    "dinov2-vitg14/torch-fidelity": [transformers_dinov2],
    "clip-vitb32": [transformers_clip, open_clips],
    "clip-vitl14-336/cmmd": [transformers_clip, open_clips],
    "clip-vitl14/fd-loss": [
        lambda shape: timms_dynamic(shape, pre_norm=True, norm_layer=lambda dim, **_: torch.nn.LayerNorm(dim, eps=1e-5))
    ],
    "vgg16-fc2/torch-fidelity": [torchvisions_vgg],
    "mae-vitl16/fd-loss": [timms_dynamic],
    "siglip2-so400m16/fd-loss": [timms_siglip],
    "convnextv2-base/fd-loss": [timms_convnext],
}


def pictures():
    photo = skimage.data.astronaut()
    return [np.ascontiguousarray(photo[:300, 40:240]), np.ascontiguousarray(photo[100:250, 100:420])]


def test_every_row_has_a_truth():
    assert list(CASES) == list(KNOWN)


@pytest.mark.parametrize(
    ("row", "truth"),
    [(name, case) for name, cases in CASES.items() for case in cases],
    indirect=["row"],
    ids=[f"{name}-{i}" for name, cases in CASES.items() for i in range(len(cases))],
)
def test_features_are_the_others(row, truth, folder):
    torch.manual_seed(0)
    trained, module = truth(row.shape)
    checkpoint = folder / "model.safetensors"
    if isinstance(trained, transformers.PreTrainedModel):
        trained.save_pretrained(folder)  # under the names that its published files have
    else:
        safetensors.torch.save_model(trained, str(checkpoint))
    images = pictures()
    inputs = torch.stack([transform_of(row.name)(image) for image in images])
    with torch.inference_mode():
        expected = module(inputs).double().numpy()
    if row.spec.post != "none":
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        expected *= row.shape.dims**0.5 if row.spec.post == "l2-sqrt-d" else 1
    del trained, module  # the largest network has 4.5 GB, and the export needs it several times
    exported = export_known(row.name, checkpoint, folder / "network.onnx")
    checkpoint.unlink()
    assert exported.difference < TRANSFORMERS_FEATURES
    extractor = fastfid.OnnxExtractor(folder / "network.onnx", device="cpu")
    assert extractor.dims == row.shape.dims == expected.shape[1]
    scale = np.abs(expected).max()
    deviation = np.abs(extractor(images) - expected).max() / scale
    print(f"\n{row.name} beside {truth.__name__}: {deviation:.1e} of the largest feature")  # for pytest -s
    assert deviation < TRANSFORMERS_FEATURES
    # The features are of the images, although random networks tell little of them.
    assert np.abs(expected[0] - expected[1]).max() > 30 * TRANSFORMERS_FEATURES * scale
