"""torchmetrics' metrics of generated images, implemented by fastfid.

Replace ``from torchmetrics.image.fid import FrechetInceptionDistance`` by
``from fastfid.compat.torchmetrics import FrechetInceptionDistance``, and so on for the other classes. They are
``torchmetrics.Metric``, so they work with MetricCollection and Lightning's logging. They need PyTorch and torchmetrics,
but not torch-fidelity.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastfid.compat.torchmetrics works on torch tensors: install PyTorch with `pip install torch`"
    ) from error

try:
    import torchmetrics as _torchmetrics  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":
        raise
    raise ImportError(
        "fastfid.compat.torchmetrics is a torchmetrics.Metric: install it with `pip install torchmetrics`;"
        " fastfid.FID and fastfid.Evaluator do the same without it"
    ) from error

from fastfid.compat._torchmetrics.fid import FrechetInceptionDistance
from fastfid.compat._torchmetrics.rows import (
    InceptionScore,
    KernelInceptionDistance,
    MemorizationInformedFrechetInceptionDistance,
)

__all__ = [
    "FrechetInceptionDistance",
    "InceptionScore",
    "KernelInceptionDistance",
    "MemorizationInformedFrechetInceptionDistance",
]
