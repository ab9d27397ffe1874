"""uint8 images in arrays: in memory, in a ``.npy`` file, and in an ``.npz`` under ``arr_0`` (the samples of ADM)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import expect_unmasked
from fastfid._remote import ReadsAt, known_file, random_access
from fastfid.errors import ImageError
from fastfid.npz import ArrayHeader, open_npz, read_header
from fastfid.sources.base import FileSource, ImageItem, ImageSource, Labels
from fastfid.sources.labels import labels_of_array

__all__ = [
    "ArraySource",
    "NpySource",
    "NpzSource",
    "Scale",
    "channels_last",
    "check_value_range",
    "expect_grey_levels",
    "is_array",
    "make_scale",
    "roots",
    "scaled",
    "to_host",
    "view_items",
]


def roots(obj: Any) -> set[str]:
    """Return the packages that the object's classes come from, without importing any of them."""
    return {cls.__module__.partition(".")[0] for cls in type(obj).__mro__}


def is_array(obj: Any) -> bool:
    """Return whether `obj` is a NumPy array, a tensor, or another object that exports an array."""
    return hasattr(obj, "shape") and hasattr(obj, "dtype") and (hasattr(obj, "__array__") or hasattr(obj, "__dlpack__"))


def dtype_name(obj: Any) -> str:
    """Return NumPy's name for the dtype of an array or tensor of any library."""
    name = str(obj.dtype).removeprefix("torch.")
    if name.isidentifier() or not hasattr(obj, "__array__"):
        return name
    return str(np.asarray(obj).dtype)  # for libraries with other dtype texts, such as <dtype: 'uint8'>


def check_value_range(value_range: Any) -> tuple[float, float]:
    """Return `value_range` as two floats. Raises ValueError unless they are finite and the first is the smaller."""
    try:
        if isinstance(value_range, str):
            raise TypeError
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        raise ValueError(f"value_range: expected (low, high), such as (-1, 1); got {value_range!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range: expected two finite numbers, the first the smaller; got {value_range!r}")
    return low, high


@dataclass(frozen=True)
class Scale:
    """How float images become uint8: the values of black and white, and the rule for what lies between grey levels.

    Attributes
    ----------
    low, high : float
        Values of black and white.
    rule : str
        "round": scaled to 0..255 in float64 and rounded, a half to the even level. "truncate": scaled in the dtype of
        the array, and the fraction is dropped. "floor-127.5" and "floor-128", of values in -1..1 and in the dtype of
        the array: ``floor((x + 1) * 127.5)`` and ``floor(127.5 x + 128)``.
    """

    low: float
    high: float
    rule: str = "round"


# What values are taken for black and white where value_range does not say it.
_RANGES = {"round": (0.0, 1.0), "truncate": (0.0, 1.0), "floor-127.5": (-1.0, 1.0), "floor-128": (-1.0, 1.0)}


def make_scale(value_range: Any, to_uint8: str | None) -> Scale | None:
    """Return the scale that two options ask for; None: float images are refused.

    Raises
    ------
    ValueError
        The rule is unknown, the range is none, or the rule is of another range.
    """
    if to_uint8 is not None and to_uint8 not in _RANGES:
        raise ValueError(f"to_uint8: expected {', '.join(map(repr, _RANGES))}; got {to_uint8!r}")
    found = None if value_range is None else check_value_range(value_range)
    if to_uint8 is None:
        return None if found is None else Scale(*found)
    if found is None:
        return Scale(*_RANGES[to_uint8], to_uint8)
    if to_uint8.startswith("floor") and found != _RANGES[to_uint8]:
        raise ValueError(f"to_uint8: {to_uint8!r} is of values in -1..1; got value_range={value_range!r}")
    return Scale(*found, to_uint8)


def expect_grey_levels(obj: Any, name: str, scale: Scale | None = None) -> None:
    """Raise TypeError unless an array or tensor is uint8, or float with a `scale`.

    The message states how to convert the images.
    """
    dtype = dtype_name(obj)
    if dtype == "uint8" or ("float" in dtype and scale is not None):
        return
    how = f"; {_how_to_convert(obj)}" if "float" in dtype else ""
    raise TypeError(f"{name}: expected uint8 images with values 0..255, got {dtype}{how}")


def _how_to_convert(obj: Any) -> str:
    """Return a text on how to convert float images to uint8, depending on their values."""
    is_torch = "torch" in roots(obj)
    try:
        low, high = float(obj.min()), float(obj.max())
    except Exception:  # methods of other libraries may raise anything; the values are then unknown
        return f"{_conversion('x * 255', is_torch)} for values in 0..1, or value_range=(0, 1)"
    found = f"its values go from {low:.4g} to {high:.4g} (to_uint8= says how they are rounded)"
    if low < 0:
        return f"{found}: pass value_range=(-1, 1), or {_conversion('(x + 1) * 127.5', is_torch)}"
    if high > 1:
        return f"{found}: pass value_range=(0, 255), or {_conversion('x', is_torch)}"
    return f"{found}: pass value_range=(0, 1), or {_conversion('x * 255', is_torch)}"


def _conversion(scaled: str, is_torch: bool) -> str:
    scaled = f"({scaled})" if " " in scaled else scaled
    if is_torch:
        return f"{scaled}.round().clamp(0, 255).to(torch.uint8)"
    return f"{scaled}.round().clip(0, 255).astype('uint8')"


def to_uint8(image: NDArray[Any], scale: Scale | None) -> NDArray[np.uint8]:
    """Convert a float image to grey levels 0..255. A uint8 image is returned unchanged.

    Raises
    ------
    ValueError
        A value is outside of the scale, or NaN or infinite. With the rule "round", a value that rounds to a grey level
        is inside.
    """
    if image.dtype == np.uint8 or scale is None:
        return image
    if not np.isfinite(image).all():
        raise ValueError("has NaN or infinite values")
    low, high = scale.low, scale.high
    least, most = image.min(), image.max()
    if scale.rule == "round":
        levels = np.rint((image.astype(np.float64) - low) * (255 / (high - low)))
        is_outside = levels.min() < 0 or levels.max() > 255
    else:
        # In the dtype of the array, as the scripts that use these rules compute: a float64 would give other levels.
        levels = np.floor(scaled(image, scale))
        is_outside = least < low or most > high
    if is_outside:
        raise ValueError(
            f"has values from {least:.6g} to {most:.6g}, outside of value_range=({low:g},"
            f" {high:g}); cut them off first: x.clip({low:g}, {high:g})"
        )
    return levels.astype(np.uint8)


def scaled(image: Any, scale: Scale) -> Any:
    """Scale an array or tensor to grey levels, in its dtype and without rounding, as the rule of the scale says."""
    if scale.rule == "floor-127.5":
        return (image + 1) * 127.5
    if scale.rule == "floor-128":
        return 127.5 * image + 128
    return (image - scale.low if scale.low else image) * (255 / (scale.high - scale.low))


def to_host(obj: Any, name: str, scale: Scale | None = None) -> NDArray[Any]:
    """View an array or tensor of images as a NumPy array. A tensor on a GPU is copied to the host.

    Raises
    ------
    TypeError
        The dtype is neither uint8 nor, with a `value_range`, float; the message states how to convert. Or the array has
        a mask.
    ValueError
        The tensor has no values, or its values have another shape than it declares.
    """
    expect_unmasked(obj, name)
    expect_grey_levels(obj, name, scale)
    packages = roots(obj)
    if "torch" in packages:
        if obj.device.type == "meta":
            raise ValueError(f"{name}: is on torch's meta device, where tensors have no values")
        obj = obj.detach().cpu()
        array = (obj.float() if dtype_name(obj) == "bfloat16" else obj).numpy()
    elif "cupy" in packages:
        array = obj.get()
    elif hasattr(obj, "__array__"):
        array = np.asarray(obj)
    else:
        array = np.from_dlpack(obj)
    if tuple(array.shape) != tuple(obj.shape):
        raise ValueError(f"{name}: has shape {tuple(obj.shape)}, but gives values of shape {tuple(array.shape)}")
    expect_grey_levels(array, name, scale)
    return array  # type: ignore[no-any-return]


def channels_last(shape: Sequence[int], layout: str | None, name: str) -> bool:
    """Return whether the last three axes are (height, width, 3) rather than (3, height, width).

    Raises
    ------
    ValueError
        The shape fits neither order, or it fits both orders and `layout` is None, or an image has no pixels.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"{name}: expected shape (n, h, w, 3) or (n, 3, h, w); got {tuple(shape)}")
    last, first = shape[-1] == 3, shape[-3] == 3
    if last and first and layout is None:
        raise ValueError(
            f"{name}: shape {tuple(shape)} has two axes of 3 that may be the channels; pass layout='nhwc' or 'nchw'"
        )
    is_last = last if layout is None else layout == "nhwc"
    if not (last if is_last else first):
        expected = {None: "(n, h, w, 3) or (n, 3, h, w)", "nhwc": "(n, h, w, 3)", "nchw": "(n, 3, h, w)"}[layout]
        grey = "; repeat a grey channel three times" if 1 in (shape[-1], shape[-3]) else ""
        raise ValueError(f"{name}: expected RGB images of shape {expected}; got {tuple(shape)}{grey}")
    if 0 in shape[-3:]:
        raise ValueError(f"{name}: images of shape {tuple(shape[-3:])} have no pixels")
    return is_last


class _ViewItem(ImageItem):
    __slots__ = ("_image", "_scale")

    def __init__(self, name: str, image: NDArray[Any], scale: Scale | None = None):
        self.name = name
        self._image = image
        self._scale = scale

    def load(self) -> NDArray[np.uint8]:
        """Return the image. For uint8, it is a view of the array."""
        return to_uint8(self._image, self._scale)


def view_items(
    array: NDArray[Any],
    is_last: bool,
    name_of: Callable[[int], str],
    scale: Scale | None = None,
) -> Iterator[ImageItem]:
    """Yield the images of a batch (n, ...) as views. `name_of(index)` returns the name of an image."""
    for index, image in enumerate(array):
        yield _ViewItem(name_of(index), image if is_last else np.moveaxis(image, 0, -1), scale)


class ArraySource(ImageSource):
    """An array or tensor (n, h, w, 3) or (n, 3, h, w), in its order. The array is not copied.

    Raises
    ------
    TypeError
        The dtype is neither uint8 nor, with a `value_range`, float, or the array has a mask.
    ValueError
        The array has another shape, or no images; see :func:`channels_last`.
    """

    def __init__(self, images: Any, layout: str | None, scale: Scale | None = None):
        self.name = "array"
        self.notes = []
        if len(images.shape) != 4:
            raise ValueError(f"array: expected shape (n, h, w, 3) or (n, 3, h, w); got {tuple(images.shape)}")
        self._is_last = channels_last(images.shape, layout, self.name)
        if images.shape[0] == 0:
            raise ValueError(f"array: has no images (shape {tuple(images.shape)})")
        self._images = to_host(images, self.name, scale)
        self._scale = scale

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[ImageItem]:
        return view_items(self._images, self._is_last, "array[{}]".format, self._scale)


class _Rows:
    """The layout of an array file according to its header: `n` images of one shape, one after another."""

    def __init__(
        self,
        header: ArrayHeader,
        name: str,
        layout: str | None,
        scale: Scale | None,
        max_pixels: int,
    ):
        shape = header.shape
        is_scaled = header.dtype.kind == "f" and scale is not None
        if header.dtype != np.uint8 and not is_scaled:
            how = "; --value-range 0 1 or value_range=(0, 1) (or -1, 1) scales and rounds them, as --to-uint8 says"
            raise TypeError(
                f"{name}: expected uint8 images with values 0..255, got {header.dtype}"
                f"{how if header.dtype.kind == 'f' else ''}"
            )
        if len(shape) != 4 or shape[0] == 0:
            raise ValueError(f"{name}: expected images (n, h, w, 3) or (n, 3, h, w); got shape {shape}")
        self._is_last = channels_last(shape, layout, name)
        if header.fortran_order:
            raise ValueError(
                f"{name}: is stored in Fortran order, which scatters each image over the file;"
                " save np.ascontiguousarray(images)"
            )
        self.n = shape[0]
        self._name = name
        self._shape = shape[1:]
        self._dtype = header.dtype
        self._scale = scale
        self.nbytes = header.nbytes // self.n
        if math.prod(self._shape) > 3 * max_pixels:
            raise ValueError(f"{name}: images of shape {self._shape} exceed {max_pixels} pixels (max_pixels)")

    def name_of(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def image(self, data: bytes, index: int) -> NDArray[np.uint8]:
        if len(data) != self.nbytes:
            raise ImageError(f"{self.name_of(index)}: has {len(data)} bytes of {self.nbytes}")
        image = to_uint8(np.frombuffer(data, self._dtype).reshape(self._shape), self._scale)
        return image if self._is_last else np.moveaxis(image, 0, -1)


class _RowItem(ImageItem):
    __slots__ = ("_file", "_index", "_offset", "_rows")

    def __init__(self, rows: _Rows, index: int, file: ReadsAt, offset: int):
        self.name = rows.name_of(index)
        self._rows = rows
        self._index = index
        self._file = file
        self._offset = offset

    def load(self) -> NDArray[np.uint8]:
        """Read the image's bytes."""
        return self._rows.image(self._file.read(self._offset, self._rows.nbytes), self._index)


# Appended to the error about Python objects. Some tools save a dict of mu and sigma as such an object.
_OBJECTS = (
    "; in Python, where the file is trusted, convert it by"
    ' numpy.savez("statistics.npz", **numpy.load(FILE, allow_pickle=True).item())'
)


class NpySource(FileSource):
    """The images of a ``.npy`` file (n, h, w, 3) or (n, 3, h, w), in its order. Each image is read when it is loaded.

    The images are uint8, or float with a `value_range`.

    ``np.memmap`` is not used, because mapped pages count as the process's memory until the system reclaims them. Also,
    if the file is truncated meanwhile, accessing a mapped page kills the process, while reading raises an error.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError, ValueError
        The file is not such a file, its size differs from the size in its header, or an image exceeds `max_pixels`.
    """

    def __init__(self, path: str, layout: str | None, scale: Scale | None, max_pixels: int):
        self.name = path
        self.notes = []
        self._file = known_file(path)
        with self._file.open() as file:
            header = read_header(file, path, _OBJECTS)
            self._start = file.tell()
        size = self._file.size - self._start
        if size != header.nbytes:
            raise ValueError(f"{path}: declares {header.nbytes} bytes of data ({header.shape}) but has {size}")
        self._rows = _Rows(header, path, layout, scale, max_pixels)

    def __len__(self) -> int:
        return self._rows.n

    def __iter__(self) -> Iterator[ImageItem]:
        file = random_access(self._file, in_order=True)
        for index in range(self._rows.n):
            yield _RowItem(self._rows, index, file, self._start + index * self._rows.nbytes)


_LABELS = "arr_1"


class NpzSource(FileSource):
    """The images in one array of an ``.npz``, (n, h, w, 3) or (n, 3, h, w), in their order.

    The images are uint8, or float with a `value_range`. Compressed or not, the array is read from front to back, one
    image at a time. In this way the archive's checksum is verified, and only a few images are in memory.

    Parameters
    ----------
    key : str, optional
        Name of the array. Default: ``arr_0``, which contains ADM's samples.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError, ValueError
        The file is not such a file, the size of the array differs from the size in its header, or an image exceeds
        `max_pixels`.
    """

    def __init__(
        self,
        path: str,
        layout: str | None,
        scale: Scale | None,
        max_pixels: int,
        key: str | None = None,
    ):
        self.name = path
        self.notes = []
        self._key = key or "arr_0"
        name = f"{path}: {self._key}"
        self._file = known_file(path)
        with self._file.open() as file, open_npz(path, file) as archive:
            if self._key not in archive.names:
                raise ValueError(f"{path}: {_missing_key(self._key, archive.names)}")
            with archive.stream(self._key) as stream:
                header = read_header(stream, name)
                self._start = stream.tell()
            size = archive.size(self._key) - self._start
        if size != header.nbytes:
            raise ValueError(f"{name}: declares {header.nbytes} bytes of data ({header.shape}) but has {size}")
        self._rows = _Rows(header, name, layout, scale, max_pixels)

    def __len__(self) -> int:
        return self._rows.n

    def own_labels(self) -> Labels | None:
        """Read ``arr_1``, in which ADM keeps the labels of the images in ``arr_0``."""
        name = f"{self.name}: {_LABELS}"
        with self._file.open() as file, open_npz(self.name, file) as archive:
            if self._key != "arr_0" or _LABELS not in archive.names:
                return None
            array = archive.read(_LABELS, 2**20 + 8192 * len(self))  # one-hot rows of 1,000 classes fit
        if len(array) != len(self) if array.ndim else True:
            raise ValueError(f"{name}: expected {len(self):,} labels, one for each image; got shape {array.shape}")
        return labels_of_array(array, _LABELS, name, self._rows.name_of)

    def __iter__(self) -> Iterator[ImageItem]:
        with (
            self._file.open() as file,
            open_npz(self.name, file) as archive,
            archive.stream(self._key) as stream,
        ):
            stream.read(self._start)
            for index in range(self._rows.n):
                image = self._rows.image(stream.read(self._rows.nbytes), index)
                yield _ViewItem(self._rows.name_of(index), image)


def _missing_key(key: str, names: Sequence[str]) -> str:
    """Return the error text for an ``.npz`` without the array `key`."""
    if {"mu", "sigma"} <= set(names):
        return "holds statistics (mu, sigma), which cannot be used as images here"
    there = ", ".join(names[:8]) or "no arrays"
    how = f"; --key {names[0]} or key={names[0]!r} reads another array as images" if names else ""
    return f"expected images under {key}, or statistics under mu and sigma; it holds {there}{how}"
