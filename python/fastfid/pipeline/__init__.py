"""The pipeline from a source of images through an extractor to the accumulators of the metrics."""

from fastfid.pipeline.device import DeviceFeed, features_on_device
from fastfid.pipeline.host import Outputs, Report, extract, only_features

__all__ = ["DeviceFeed", "Outputs", "Report", "extract", "features_on_device", "only_features"]
