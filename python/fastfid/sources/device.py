"""uint8 images in a tensor on a CUDA device. Images are copied to the host only if they are read on the host."""

import sys
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from fastfid.sources.arrays import (
    Scale,
    channels_last,
    dtype_name,
    expect_grey_levels,
    roots,
    scaled,
    to_host,
    view_items,
)
from fastfid.sources.base import ImageItem, ImageSource

__all__ = ["DeviceImages", "callers_stream", "device_of"]

# DLPack's device types for CUDA and for CUDA managed memory.
_DLPACK_CUDA = (2, 13)


def device_of(images: Any) -> str | None:
    """Return ``cuda:N`` for a tensor on a CUDA device, and None for anything else."""
    if isinstance(images, np.ndarray) or not hasattr(images, "__dlpack_device__") or not hasattr(images, "shape"):
        return None
    try:
        kind, index = images.__dlpack_device__()
    except (ValueError, BufferError):  # DLPack has no type for the device, such as torch's meta device
        return None
    return f"cuda:{int(index)}" if int(kind) in _DLPACK_CUDA else None


def callers_stream(images: Any, stream: Any = None) -> int | None:
    """Return the handle of the stream on which the caller uses `images`, or None if it is unknown.

    Parameters
    ----------
    images : tensor
        A tensor on a CUDA device.
    stream : optional
        A handle (int) or a stream object of torch, of CuPy, or with ``__cuda_stream__``. Default: the current stream of
        torch or CuPy, for a tensor of this library.

    Raises
    ------
    TypeError
        `stream` is not a stream.
    """
    if stream is None:
        packages = roots(images)  # includes base classes: torchvision's images are torch tensors
        if "torch" in packages:
            stream = sys.modules["torch"].cuda.current_stream(images.device)
        elif "cupy" in packages:
            stream = sys.modules["cupy"].cuda.get_current_stream(images.device.id)
        else:
            return None
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):  # (version of the protocol, handle)
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):  # torch, CuPy
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise TypeError(f"stream: expected a CUDA stream or its handle, got {type(stream).__name__}")


class DeviceImages(ImageSource):
    """A tensor (n, h, w, 3) or (n, 3, h, w) on a CUDA device: uint8, or a float tensor of torch with a `scale`.

    Iterating copies the whole tensor to the host. An extractor that takes images on the device
    (``FeatureExtractor.on_device``) uses the attributes instead.

    Attributes
    ----------
    tensor : object
        The given tensor. A float tensor is scaled to uint8 on its device.
    device : str
        ``cuda:N``.
    channels_last : bool
        True for (n, h, w, 3), False for (n, 3, h, w).
    height, width : int
        Size in pixels.

    Raises
    ------
    TypeError
        The tensor is neither uint8 nor, with a `scale`, a float tensor of torch.
    ValueError
        The tensor has another shape, or no images (see :func:`fastfid.sources.arrays.channels_last`), or values outside
        the range.
    """

    def __init__(
        self,
        tensor: Any,
        layout: Literal["nhwc", "nchw"] | None = None,
        scale: Scale | None = None,
    ):
        self.name = "tensor"
        self.notes = []
        shape = tuple(int(length) for length in tensor.shape)
        if len(shape) != 4:
            raise ValueError(f"tensor: expected shape (n, h, w, 3) or (n, 3, h, w); got {shape}")
        self.channels_last = channels_last(shape, layout, self.name)
        if shape[0] == 0:
            raise ValueError(f"tensor: has no images (shape {shape})")
        expect_grey_levels(tensor, self.name, scale if "torch" in roots(tensor) else None)
        if scale is not None and dtype_name(tensor) != "uint8":
            tensor = _to_uint8(tensor, scale)
        device = device_of(tensor)
        if device is None:
            raise ValueError("tensor: expected one on a CUDA device")
        self.tensor = tensor
        self.device = device
        self.height, self.width = shape[1:3] if self.channels_last else shape[2:]

    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def __iter__(self) -> Iterator[ImageItem]:
        return view_items(to_host(self.tensor, self.name), self.channels_last, "tensor[{}]".format)


def _to_uint8(tensor: Any, scale: Scale) -> Any:
    """Convert a float tensor of torch to grey levels on its device. The host waits to check the range."""
    low, high = scale.low, scale.high
    if scale.rule == "round":
        levels = ((tensor.double() - low) * (255 / (high - low))).round()
        is_inside = levels.min().item() >= 0 and levels.max().item() <= 255  # False for NaN
    else:
        levels = scaled(tensor, scale).floor()
        is_inside = tensor.min().item() >= low and tensor.max().item() <= high
    if not is_inside:
        raise ValueError(
            f"tensor: has values from {tensor.min().item():.6g} to {tensor.max().item():.6g}, outside of"
            f" value_range=({low:g}, {high:g}); cut them off first: x.clamp({low:g}, {high:g})"
        )
    return levels.to(sys.modules["torch"].uint8)
