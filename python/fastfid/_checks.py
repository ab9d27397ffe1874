"""Checks of arguments that several functions share, with their error messages. This module is fast to import."""

import numbers
import os
import re
import sys
from typing import Any

__all__ = [
    "DIMS",
    "check_at_least",
    "check_count",
    "check_device",
    "check_dims",
    "check_on_error",
    "check_real",
    "current_cuda_index",
    "expect_unmasked",
]

# Numbers of channels of the four feature maps of the Inception network, in the network's order.
DIMS = (64, 192, 768, 2048)


def check_dims(dims: Any) -> int:
    """Return `dims` as an int. Raises ValueError unless the Inception network has a layer with `dims` features."""
    if not isinstance(dims, numbers.Integral) or dims not in DIMS:
        raise ValueError(f"dims: expected one of {', '.join(map(str, DIMS))}; got {dims!r}")
    return int(dims)


def check_device(device: Any) -> str:
    """Return the device's name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. The device need not exist.

    Parameters
    ----------
    device : str, int or torch.device
        An integer N means ``cuda:N``, as in torch.

    Raises
    ------
    ValueError
        `device` has another value.
    """
    name = device
    if isinstance(device, numbers.Integral) and not isinstance(device, bool):
        name = f"cuda:{int(device)}"
    elif type(device).__module__ == "torch":
        name = str(device)
    if isinstance(name, str) and name.isdecimal():
        name = f"cuda:{name}"
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,6})?", name, re.ASCII):
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda', 'cuda:N' or N; got {device!r}")
    return name


def current_cuda_index(devices: int) -> int:
    """Return the index of the CUDA device that "auto" and "cuda" select. `devices` is the number of devices.

    If the program uses torch on CUDA, the index is torch's current device. Otherwise it is the environment variable
    LOCAL_RANK, which torchrun and other launchers set, modulo `devices`. Without LOCAL_RANK it is 0.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return min(int(torch.cuda.current_device()), devices - 1)
    rank = os.environ.get("LOCAL_RANK", "")
    return int(rank) % devices if re.fullmatch(r"\d{1,6}", rank, re.ASCII) else 0


def check_real(real: Any) -> bool:
    """Return `real` as a bool. Raises TypeError for other types, because any non-empty string would be true."""
    if not isinstance(real, bool) and type(real).__name__ not in ("bool", "bool_"):  # NumPy's
        raise TypeError(f"real: expected True or False, got {real!r}")
    return bool(real)


def check_on_error(on_error: Any, max_errors: int | None) -> None:
    """Raise ValueError unless `on_error` is "raise" or "skip" and `max_errors` is None or at least 0."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip'; got {on_error!r}")
    if max_errors is not None:
        check_at_least("max_errors", max_errors, 0)


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise ValueError if `value`, the argument called `name`, is less than `least`."""
    if value < least:
        raise ValueError(f"{name}: expected {least} or more; got {value}")


def check_count(name: str, value: Any, least: int) -> int:
    """Return `value` as an int. Raises TypeError unless it is one, ValueError if it is less than `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected {least} or more; got {value}")
    return int(value)


def expect_unmasked(value: Any, name: str) -> None:
    """Raise TypeError for a ``numpy.ma.MaskedArray``, as the core does: masked elements would be counted.

    Raises
    ------
    TypeError
        `value` is a masked array, whether or not its mask hides any element.
    """
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, {value.dtype} of shape {value.shape}; "
            "fill or drop what is masked first"
        )
