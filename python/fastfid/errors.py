"""The exceptions and warnings of fastfid. Wrong types raise TypeError; bad shapes and values raise ValueError."""

from fastfid._core import BackendUnavailable, DeviceError, NumericalError

__all__ = [
    "BackendUnavailable",
    "DeviceError",
    "FastfidWarning",
    "ImageError",
    "NumericalError",
    "SkippedImagesWarning",
    "WeightsError",
]


class ImageError(ValueError):
    """An image cannot be read; the message begins with its path."""


class WeightsError(RuntimeError):
    """The Inception weights are missing, cannot be fetched, or do not have the expected hash."""


class FastfidWarning(UserWarning):
    """Something the user should know about the input; the number is what was asked for."""


class SkippedImagesWarning(FastfidWarning):
    """Images that cannot be read were left out, as ``on_error="skip"`` asks."""
