"""Feeds an extractor from a source, and hands its features to what accumulates them."""

from fastfid.pipeline.device import DeviceFeed, features_on_device
from fastfid.pipeline.host import Report, extract

__all__ = ["DeviceFeed", "Report", "extract", "features_on_device"]
