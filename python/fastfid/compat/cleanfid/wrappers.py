"""``cleanfid.wrappers``: FID of images that are added one by one or in batches."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastfid.compat.cleanfid._network import to_chw
from fastfid.compat.cleanfid.features import build_feature_extractor, check_model
from fastfid.compat.cleanfid.fid import fid_from_feats
from fastfid.compat.cleanfid.resize import build_resizer

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

__all__ = ["CleanFID"]


class CleanFID:
    """FID of two growing sets of images.

    Parameters
    ----------
    mode : {"clean", "legacy_pytorch", "legacy_tensorflow"}
    model_name : str
        "inception_v3".
    device : str or torch.device, optional
        Default: CUDA if a CUDA device is available, else the CPU.

    Raises
    ------
    ValueError
        `mode` or `model_name` has another value.

    Examples
    --------
    >>> import numpy as np
    >>> fid = CleanFID(mode="legacy_pytorch")
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(2):
    ...     fid.add_real_images(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    ...     fid.add_gen_images(rng.integers(0, 128, (64, 64, 3), dtype=np.uint8))
    >>> bool(fid.calculate_fid(verbose=False) > 0)
    True
    """

    def __init__(self, mode: str = "clean", model_name: str = "inception_v3", device: Any = None):
        check_model(model_name)
        self.mode = mode
        self.device = device
        self.fn_resize = build_resizer(mode)
        self.feat_model = build_feature_extractor(mode, device)
        self.real_features: list[NDArray[np.float32]] = []
        self.gen_features: list[NDArray[np.float32]] = []

    def compute_features(self, x: "Image.Image | NDArray[Any] | Tensor") -> NDArray[np.float32]:
        """Return the features (n, 2048) of a picture, an array (h, w, 3) or a tensor ([n,] 3, h, w) in [0, 255].

        Raises
        ------
        ValueError
            `x` has another type or shape.
        """
        if hasattr(x, "convert"):
            images = [np.asarray(x.convert("RGB"))]
        elif isinstance(x, np.ndarray):
            images = [x]
        elif hasattr(x, "permute"):
            batch = x[None] if x.ndim == 3 else x
            images = list(batch.detach().cpu().permute(0, 2, 3, 1).numpy())
        else:
            raise ValueError("image type could not be inferred")
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"image: expected shape (h, w, 3), got {image.shape}")
        return self.feat_model.of_arrays(np.stack([to_chw(self.fn_resize(image)) for image in images]))

    def add_real_images(self, x: "Image.Image | NDArray[Any] | Tensor") -> None:
        """Add images (see :meth:`compute_features`) to the real side."""
        self.real_features.append(self.compute_features(x))

    def add_gen_images(self, x: "Image.Image | NDArray[Any] | Tensor") -> None:
        """Add images (see :meth:`compute_features`) to the generated side."""
        self.gen_features.append(self.compute_features(x))

    def calculate_fid(self, verbose: bool = True) -> np.float64:
        """Return the FID of the images so far. Raises ValueError if a side has fewer than two images."""
        sides = []
        for name, features in (("real", self.real_features), ("generated", self.gen_features)):
            if not features:
                raise ValueError(f"there are no {name} images yet")
            sides.append(np.concatenate(features))
            if verbose:
                print(f"# {name} images = {len(sides[-1])}")
        return fid_from_feats(*sides)

    def reset_real_features(self) -> None:
        """Remove the real images."""
        self.real_features = []

    def reset_gen_features(self) -> None:
        """Remove the generated images."""
        self.gen_features = []
