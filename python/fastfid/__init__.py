"""Fréchet Inception Distance with a C++ core, ONNX Runtime features, and pytorch-fid's numbers.

>>> import fastfid
>>> fastfid.frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]]))
10.0
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastfid._version import __version__ as __version__

# These imports are for type checkers, which do not run __getattr__ below. "X as X" marks a name as re-exported.
if TYPE_CHECKING:
    from fastfid._core import DeviceMoments as DeviceMoments
    from fastfid._core import Moments as Moments
    from fastfid._core import TraceResult as TraceResult
    from fastfid._core import build_info as build_info
    from fastfid._core import trace_sqrt_product as trace_sqrt_product
    from fastfid.batches.evaluator import Evaluator as Evaluator
    from fastfid.batches.fid import FID as FID
    from fastfid.errors import BackendUnavailable as BackendUnavailable
    from fastfid.errors import DeviceError as DeviceError
    from fastfid.errors import FastfidWarning as FastfidWarning
    from fastfid.errors import ImageError as ImageError
    from fastfid.errors import NumericalError as NumericalError
    from fastfid.errors import SkippedImagesWarning as SkippedImagesWarning
    from fastfid.errors import SuspiciousInputWarning as SuspiciousInputWarning
    from fastfid.errors import WeightsError as WeightsError
    from fastfid.evaluation.comparison import Comparison as Comparison
    from fastfid.evaluation.comparison import compare as compare
    from fastfid.evaluation.evaluate import compute_fid as compute_fid
    from fastfid.evaluation.evaluate import compute_statistics as compute_statistics
    from fastfid.evaluation.evaluate import evaluate as evaluate
    from fastfid.evaluation.extractors import ExtractorsEvaluation as ExtractorsEvaluation
    from fastfid.evaluation.extractors import evaluate_extractors as evaluate_extractors
    from fastfid.evaluation.joint_steps import plan_extractors as plan_extractors
    from fastfid.evaluation.joint_steps import reduce_extractors as reduce_extractors
    from fastfid.evaluation.result import Evaluation as Evaluation
    from fastfid.evaluation.steps import part as part
    from fastfid.evaluation.steps import plan as plan
    from fastfid.evaluation.steps import reduce as reduce
    from fastfid.evaluation.stored import compare_records as compare_records
    from fastfid.extractor import FeatureExtractor as FeatureExtractor
    from fastfid.features.inception import InceptionV3 as InceptionV3
    from fastfid.features.onnx_model import OnnxExtractor as OnnxExtractor
    from fastfid.features.torch_model import TorchExtractor as TorchExtractor
    from fastfid.input_spec import InputSpec as InputSpec
    from fastfid.metrics.fid import frechet_distance as frechet_distance
    from fastfid.statistics import Statistics as Statistics

# Names are loaded on first use (PEP 562), so that `fastfid --help` and two .npz files do not load ONNX Runtime.
_HOME = {
    "BackendUnavailable": "errors",
    "Comparison": "evaluation.comparison",
    "DeviceError": "errors",
    "DeviceMoments": "_core",
    "Evaluation": "evaluation.result",
    "Evaluator": "batches.evaluator",
    "ExtractorsEvaluation": "evaluation.extractors",
    "FID": "batches.fid",
    "FastfidWarning": "errors",
    "FeatureExtractor": "extractor",
    "ImageError": "errors",
    "InceptionV3": "features.inception",
    "InputSpec": "input_spec",
    "Moments": "_core",
    "NumericalError": "errors",
    "OnnxExtractor": "features.onnx_model",
    "SkippedImagesWarning": "errors",
    "Statistics": "statistics",
    "SuspiciousInputWarning": "errors",
    "TorchExtractor": "features.torch_model",
    "TraceResult": "_core",
    "WeightsError": "errors",
    "build_info": "_core",
    "compare": "evaluation.comparison",
    "compare_records": "evaluation.stored",
    "compute_fid": "evaluation.evaluate",
    "compute_statistics": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "evaluate_extractors": "evaluation.extractors",
    "frechet_distance": "metrics.fid",
    "part": "evaluation.steps",
    "plan": "evaluation.steps",
    "plan_extractors": "evaluation.joint_steps",
    "reduce": "evaluation.steps",
    "reduce_extractors": "evaluation.joint_steps",
    "trace_sqrt_product": "_core",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastfid' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastfid.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
