"""FDr-k: Fréchet distances of several extractors, each over that of held-out real images (FD-loss)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from fastfid.metrics.given import Score

__all__ = ["FDR", "FDR_DIVISORS", "fdr"]

# FDR_VALIDATION_FD in eval_all_fds.py of FD-Loss: the validation images of ImageNet-256 beside the training images.
FDR_DIVISORS: Mapping[str, float] = MappingProxyType(
    {"inception": 1.68, "convnext": 56.87, "dinov2": 14.19, "mae": 0.04, "siglip": 0.60, "clip": 5.60}
)


@dataclass(frozen=True, repr=False)
class FDR(Score):
    """The mean of the ratios of Fréchet distances.

    Attributes
    ----------
    value : float
        1: the generated images are as far from the reference as held-out real images are.
    ratios : dict of str to float
        The distance over its divisor for each extractor. FDr-k is the mean of k of them.
    """

    ratios: dict[str, float]


def _numbers(values: Any, name: str) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dict of Fréchet distances by extractor, got {type(values).__name__}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: expected a number for {key}, got {value!r}")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a distance of at least 0 for {key}, got {value!r}")
    return {key: float(value) for key, value in values.items()}


def fdr(distances: Mapping[str, float], divisors: Mapping[str, float] = FDR_DIVISORS) -> FDR:
    """Return FDr-k: the mean over k extractors of the Fréchet distance over that of held-out real images.

    "Representation Fréchet Loss for Visual Generation", arXiv:2604.28190, compares generators of ImageNet-256 by the
    mean of six ratios, FDr6. `FDR_DIVISORS` has the divisors of its code: distances of the 50,000 validation images, in
    its digits. The digit of 0.04, MAE's, leaves 12 % open in MAE's ratio. The divisors belong to these features:

    =========== ======= ====== =======================================================================
    name        divisor pixels network (of timm, but for the first), feature
    =========== ======= ====== =======================================================================
    "inception" 1.68    256    Inception, beside guided-diffusion's reference statistics: pool
    "convnext"  56.87   224    convnextv2_base.fcmae_ft_in22k_in1k: spatial mean
    "dinov2"    14.19   256    vit_large_patch14_dinov2.lvd142m: class token
    "mae"       0.04    224    vit_large_patch16_224.mae: class token
    "siglip"    0.60    224    vit_so400m_patch16_siglip_256.v2_webli: attention pool
    "clip"      5.60    256    vit_large_patch14_clip_224.openai: class token
    =========== ======= ====== =======================================================================

    Parameters
    ----------
    distances : mapping of str to float
        The squared Fréchet distance of the generated images by extractor; one name or more.
    divisors : mapping of str to float
        The distance of held-out real images to the same reference for each of these extractors, above 0. Default:
        `FDR_DIVISORS`. For other data or features take ``frechet_distance(train, held_out)`` of each extractor, with
        as many held-out images as generated ones: the FID depends on their number.

    Raises
    ------
    TypeError
        An argument is no mapping, or a value is no number.
    ValueError
        There is no distance, a distance has no divisor, a value is negative or not finite, or a divisor is 0.

    Notes
    -----
    There is no error bar for the mean: it depends on how the extractors' distances vary together. The standard error of
    one ratio is that of its distance over the divisor, if the divisor counts as fixed.

    Examples
    --------
    >>> fdr({"inception": 3.36, "dinov2": 56.76})
    FDR(value=3.0, ratios={'inception': 2.0, 'dinov2': 4.0})
    >>> fdr({"mine": 12.0}, divisors={"mine": 8.0}).value
    1.5
    """
    found, by = _numbers(distances, "distances"), _numbers(divisors, "divisors")
    if not found:
        raise ValueError("distances: expected at least one extractor, got none")
    for name in found:
        if name not in by:
            raise ValueError(f"distances: expected names among {', '.join(map(str, by))}; got {name}")
        if by[name] == 0:
            raise ValueError(f"divisors: expected a distance above 0 for {name}, got 0")
    ratios = {name: value / by[name] for name, value in found.items()}
    return FDR(math.fsum(ratios.values()) / len(ratios), ratios)
