"""Fréchet Inception Distance with a C++ core, ONNX Runtime features, and pytorch-fid's numbers.

>>> import fastfid
>>> fastfid.frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]]))
10.0
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastfid._version import __version__

if TYPE_CHECKING:
    from fastfid._core import DeviceMoments, Moments, TraceResult, build_info, trace_sqrt_product
    from fastfid.errors import (
        BackendUnavailable,
        DeviceError,
        FastfidWarning,
        ImageError,
        NumericalError,
        SkippedImagesWarning,
        SuspiciousInputWarning,
        WeightsError,
    )
    from fastfid.evaluation import Evaluation, compute_fid, compute_statistics, evaluate
    from fastfid.extractor import FeatureExtractor
    from fastfid.features.inception import InceptionV3
    from fastfid.fid import FID
    from fastfid.metrics.fid import frechet_distance
    from fastfid.statistics import Statistics

__all__ = [
    "FID",
    "BackendUnavailable",
    "DeviceError",
    "DeviceMoments",
    "Evaluation",
    "FastfidWarning",
    "FeatureExtractor",
    "ImageError",
    "InceptionV3",
    "Moments",
    "NumericalError",
    "SkippedImagesWarning",
    "Statistics",
    "SuspiciousInputWarning",
    "TraceResult",
    "WeightsError",
    "__version__",
    "build_info",
    "compute_fid",
    "compute_statistics",
    "evaluate",
    "frechet_distance",
    "trace_sqrt_product",
]

# Names are loaded when first used (PEP 562): `fastfid --help` and two .npz files do not pay for ONNX Runtime.
_HOME = {
    "BackendUnavailable": "errors",
    "DeviceError": "errors",
    "DeviceMoments": "_core",
    "Evaluation": "evaluation",
    "FID": "fid",
    "FastfidWarning": "errors",
    "FeatureExtractor": "extractor",
    "ImageError": "errors",
    "InceptionV3": "features.inception",
    "Moments": "_core",
    "NumericalError": "errors",
    "SkippedImagesWarning": "errors",
    "Statistics": "statistics",
    "SuspiciousInputWarning": "errors",
    "TraceResult": "_core",
    "WeightsError": "errors",
    "build_info": "_core",
    "compute_fid": "evaluation",
    "compute_statistics": "evaluation",
    "evaluate": "evaluation",
    "frechet_distance": "metrics.fid",
    "trace_sqrt_product": "_core",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastfid' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastfid.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
