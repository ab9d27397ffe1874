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
    """An image cannot be read; the message begins with its path.

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

    Its arguments are the sentence and, where there are some, the steps that mend it, one a line.

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
        """Return the sentence and the steps, one a line."""
        return "\n".join(str(argument) for argument in self.args)


class FastfidWarning(UserWarning):
    """Something the user should know about the input; the number is what was asked for.

    Examples
    --------
    >>> import fastfid, warnings
    >>> with warnings.catch_warnings():  # no remarks
    ...     warnings.simplefilter("ignore", fastfid.FastfidWarning)
    ...     fastfid.compute_fid("real", "real", dims=64) < 1e-9
    True
    """


class SuspiciousInputWarning(FastfidWarning):
    """The input is probably not what the user means; ``--quiet`` does not silence it.

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
    """Images that cannot be read were left out, as ``on_error="skip"`` asks.

    Examples
    --------
    >>> import fastfid, warnings
    >>> fastfid.SkippedImagesWarning.__mro__[1].__name__
    'FastfidWarning'
    """
