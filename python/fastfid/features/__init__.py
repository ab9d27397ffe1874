"""Feature extractors: images in, feature vectors out."""

from fastfid.features.base import FeatureExtractor

__all__ = ["FeatureExtractor"]
