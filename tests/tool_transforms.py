"""From a uint8 image to a network's input, as the tool does it whose number a known extractor gives."""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

__all__ = ["TRANSFORMS"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def normalised(x, mean, std):
    """Normalize of a float tensor (3, h, w) in [0, 1]."""
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def to_tensor(levels):
    """ToTensor of grey levels (h, w, 3)."""
    return torch.from_numpy(np.array(levels)).permute(2, 0, 1).float() / 255


def pillow(image):
    """dgm-eval, edm2 "pil": Pillow's bicubic of 8 bits, then ToTensor and Normalize."""
    return normalised(to_tensor(Image.fromarray(image).resize((224, 224), Image.BICUBIC)), *IMAGENET)


def fld(image):
    """torchvision's transforms of a picture; the crop has nothing to cut."""
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize((224, 224), interpolation=bicubic), transforms.CenterCrop((224, 224))]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(*IMAGENET)])(Image.fromarray(image))


def edm2(image):
    """torch's bicubic with antialias, of grey levels 0..255 in float32, not clipped."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return normalised(interpolate(x, (224, 224), mode="bicubic", antialias=True)[0] / 255, *IMAGENET)


def clean(image):
    """dgm-eval --clean_resize, pyiqa: Pillow's bicubic of each channel in mode F, clipped to [0, 255]."""
    planes = [Image.fromarray(image[:, :, c].astype(np.float32), mode="F") for c in range(3)]
    resized = [np.asarray(plane.resize((224, 224), Image.BICUBIC)).clip(0, 255) for plane in planes]
    return normalised(to_tensor(np.stack(resized, 2)), *IMAGENET)


def torch_fidelity(image):
    """Its own bilinear resize as TensorFlow 1 had it; mean and deviation times 255."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    x = theirs(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size=(224, 224), align_corners=False)[0]
    mean, std = (255 * torch.tensor(one)[:, None, None] for one in IMAGENET)
    return (x - mean) / std


def k_diffusion(image):
    """Images in [-1, 1], as its loaders give them, back to [0, 1], torch's bicubic with antialias, Normalize."""
    x = to_tensor(image) * 2 - 1
    return normalised(interpolate((x[None] + 1) / 2, (224, 224), mode="bicubic", antialias=True)[0], *IMAGENET)


def fd_loss(side, scale):
    """FD-Loss: torch's bicubic with antialias, of [0, 1], then the mean and deviation of timm's network."""
    return lambda image: normalised(
        interpolate(to_tensor(image)[None], (side, side), mode="bicubic", antialias=True)[0], *scale
    )


def clip(image):
    """CLIP's own transform, which clean-fid takes."""
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(224, interpolation=bicubic), transforms.CenterCrop(224)]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(*CLIP)])(Image.fromarray(image))


def cmmd(image):
    """google-research's CMMD: the centre square, then Pillow's bicubic of 8 bits."""
    height, width, _ = image.shape
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    picture = Image.fromarray(image[top : top + square, left : left + square])
    return normalised(to_tensor(picture.resize((336, 336), Image.BICUBIC)), *CLIP)


# By the name of the known extractor.
TRANSFORMS = {
    "dinov2-vits14": pillow,
    "dinov2-vitb14/fld": fld,
    "dinov2-vitl14/dgm-eval": pillow,
    "dinov2-vitl14/edm2": edm2,
    "dinov2-vitl14/clean": clean,
    "dinov2-vitl14/torch-fidelity": torch_fidelity,
    "dinov2-vitl14/k-diffusion": k_diffusion,
    "dinov2-vitl14/fd-loss": fd_loss(256, IMAGENET),
    "dinov2-vitg14/torch-fidelity": torch_fidelity,
    "clip-vitb32": clip,
    "clip-vitl14-336/cmmd": cmmd,
    "clip-vitl14/fd-loss": fd_loss(256, CLIP),
    "vgg16-fc2/torch-fidelity": torch_fidelity,
    "mae-vitl16/fd-loss": fd_loss(224, IMAGENET),
    "siglip2-so400m16/fd-loss": fd_loss(224, HALF),
    "convnextv2-base/fd-loss": fd_loss(224, IMAGENET),
}
