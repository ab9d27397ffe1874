"""Feeds an extractor from a source, and hands its outputs to what accumulates them."""

from fastfid.pipeline.device import DeviceFeed, features_on_device
from fastfid.pipeline.host import Outputs, Report, extract, only_features

__all__ = ["DeviceFeed", "Outputs", "Report", "extract", "features_on_device", "only_features"]
