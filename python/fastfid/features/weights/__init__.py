"""The FID Inception weights: what is known of them, the files that carry them, where they are found."""

from fastfid.features.weights.fetch import describe, find_classifier, find_weights, keep_in_cache
from fastfid.features.weights.known import IDENTITY, Weights, convolutions

__all__ = ["IDENTITY", "Weights", "convolutions", "describe", "find_classifier", "find_weights", "keep_in_cache"]
