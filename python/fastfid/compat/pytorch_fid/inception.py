"""``pytorch_fid.inception``: the Inception network as a PyTorch module.

The classes need PyTorch. They are defined on first use, so that importing this module does not need PyTorch.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from fastfid.features.weights.known import OFFICIAL_URL as FID_WEIGHTS_URL

if TYPE_CHECKING:
    from fastfid.compat.pytorch_fid._network import (
        FIDInceptionA,
        FIDInceptionC,
        FIDInceptionE_1,
        FIDInceptionE_2,
        InceptionV3,
        fid_inception_v3,
    )

__all__ = [
    "FID_WEIGHTS_URL",
    "FIDInceptionA",
    "FIDInceptionC",
    "FIDInceptionE_1",
    "FIDInceptionE_2",
    "InceptionV3",
    "fid_inception_v3",
]

# An import under another name (pytorch_fid.inception) gives this module object.
if __name__ != (_NAME := "fastfid.compat.pytorch_fid.inception"):
    sys.modules[__name__] = importlib.import_module(_NAME)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from fastfid.compat.pytorch_fid import _network
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            f"{name} is a PyTorch module: install PyTorch with `pip install torch`. "
            "FID of folders and statistics files needs no PyTorch: fid_score.calculate_fid_given_paths"
        ) from None
    return getattr(_network, name)
