"""The exceptions of fastfid. Wrong types raise TypeError; bad shapes and values raise ValueError."""

from fastfid._core import BackendUnavailable, DeviceError, NumericalError

__all__ = ["BackendUnavailable", "DeviceError", "ImageError", "NumericalError", "WeightsError"]


class ImageError(ValueError):
    """An image cannot be read; the message begins with its path."""


class WeightsError(RuntimeError):
    """The Inception weights are missing, cannot be fetched, or do not have the expected hash."""
