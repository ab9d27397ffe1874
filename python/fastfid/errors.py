"""The exceptions and warnings of fastfid. Wrong types raise TypeError; bad shapes and values raise ValueError."""

from fastfid._core import BackendUnavailable, DeviceError, NumericalError

__all__ = [
    "BackendUnavailable",
    "DeviceError",
    "FastfidWarning",
    "ImageError",
    "NumericalError",
    "SkippedImagesWarning",
    "SuspiciousInputWarning",
    "WeightsError",
]


class ImageError(ValueError):
    """An image cannot be read. The message begins with the path of the image.

    Examples
    --------
    >>> import os, fastfid
    >>> os.mkdir("holiday")
    >>> for name in ("a.png", "b.png"):
    ...     with open(f"holiday/{name}", "w") as file:
    ...         _ = file.write("no picture")
    >>> try:
    ...     fastfid.compute_statistics("holiday", dims=64)
    ... except fastfid.ImageError as error:
    ...     print(str(error).replace(os.sep, "/"))
    holiday/a.png: ...
    """


class WeightsError(RuntimeError):
    """The Inception weights are missing, cannot be fetched, or do not have the expected hash.

    The first argument is the message. Further arguments, if any, are the steps that resolve the problem.

    Examples
    --------
    >>> import fastfid
    >>> try:
    ...     fastfid.InceptionV3(weights="elsewhere.pth")
    ... except fastfid.WeightsError as error:
    ...     print(error)
    weights elsewhere.pth: cannot be read: ...
    """

    def __str__(self) -> str:
        """Return the message and the steps, one per line."""
        return "\n".join(str(argument) for argument in self.args)


class FastfidWarning(UserWarning):
    """A remark about the input. The result of the call is unchanged by it.

    Examples
    --------
    >>> import fastfid, warnings
    >>> with warnings.catch_warnings():  # no remarks
    ...     warnings.simplefilter("ignore", fastfid.FastfidWarning)
    ...     fastfid.compute_fid("real", "real", dims=64) < 1e-9
    True
    """


class SuspiciousInputWarning(FastfidWarning):
    """The input is probably a mistake. ``--quiet`` does not silence this warning.

    Examples
    --------
    >>> import fastfid, warnings
    >>> with warnings.catch_warnings():  # a likely mistake ends the run
    ...     warnings.simplefilter("error", fastfid.SuspiciousInputWarning)
    ...     try:
    ...         fastfid.compute_fid("real", "real", dims=64)
    ...     except fastfid.SuspiciousInputWarning as mistake:
    ...         print(mistake)
    both sides are the same: real
    """


class SkippedImagesWarning(FastfidWarning):
    """Unreadable images were left out because of ``on_error="skip"``.

    Examples
    --------
    >>> import fastfid, warnings
    >>> fastfid.SkippedImagesWarning.__mro__[1].__name__
    'FastfidWarning'
    """
