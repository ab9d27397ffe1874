"""uint8 images in arrays: in memory, in a ``.npy`` file, and in an ``.npz`` under ``arr_0`` (the samples of ADM)."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.errors import ImageError
from fastfid.masked import expect_unmasked
from fastfid.npz import ArrayHeader, member_names, open_npz, read_header
from fastfid.sources.archive import RandomAccessFile
from fastfid.sources.base import FileSource, ImageItem, ImageSource

__all__ = [
    "ArraySource",
    "NpySource",
    "NpzSource",
    "channels_last",
    "expect_uint8",
    "is_array",
    "roots",
    "to_host",
    "view_items",
]


def roots(obj: Any) -> set[str]:
    """Return the packages that the object's classes come from, without importing any of them."""
    return {cls.__module__.partition(".")[0] for cls in type(obj).__mro__}


def is_array(obj: Any) -> bool:
    """Whether `obj` is a NumPy array, a tensor or anything that exports itself as one."""
    return hasattr(obj, "shape") and hasattr(obj, "dtype") and (hasattr(obj, "__array__") or hasattr(obj, "__dlpack__"))


def expect_uint8(obj: Any, name: str) -> None:
    """Raise TypeError unless an array or tensor is uint8; the message says how to convert."""
    dtype = str(obj.dtype).removeprefix("torch.")
    if dtype != "uint8":
        rounded = (
            "(x * 255).round().clamp(0, 255).to(torch.uint8)"
            if "torch" in roots(obj)
            else "(x * 255).round().clip(0, 255).astype('uint8')"
        )
        how = f"; values in 0..1 are converted by {rounded}" if "float" in dtype else ""
        raise TypeError(f"{name}: expected uint8 images with values 0..255, got {dtype}{how}")


def to_host(obj: Any, name: str) -> NDArray[np.uint8]:
    """View a uint8 array or tensor as a NumPy array; one on a GPU is copied to the host.

    Raises
    ------
    TypeError
        It is not uint8, and the message says how to convert; or it has a mask.
    ValueError
        It has no values, or others than its shape says.
    """
    expect_unmasked(obj, name)
    expect_uint8(obj, name)
    packages = roots(obj)
    if "torch" in packages:
        if obj.device.type == "meta":
            raise ValueError(f"{name}: is on torch's meta device, where tensors have no values")
        array = obj.detach().cpu().numpy()
    elif "cupy" in packages:
        array = obj.get()
    elif hasattr(obj, "__array__"):
        array = np.asarray(obj)
    else:
        array = np.from_dlpack(obj)
    if tuple(array.shape) != tuple(obj.shape):
        raise ValueError(f"{name}: has shape {tuple(obj.shape)}, but gives values of shape {tuple(array.shape)}")
    expect_uint8(array, name)
    return array  # type: ignore[no-any-return]


def channels_last(shape: Sequence[int], layout: str | None, name: str) -> bool:
    """Whether the last three axes are (height, width, 3) rather than (3, height, width).

    Raises
    ------
    ValueError
        Neither is, or both are and no `layout` says which; an image has no pixels.
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
    __slots__ = ("_image",)

    def __init__(self, name: str, image: NDArray[np.uint8]):
        self.name = name
        self._image = image

    def load(self) -> NDArray[np.uint8]:
        """Return the image, a view of the caller's array."""
        return self._image


def view_items(array: NDArray[np.uint8], is_last: bool, name_of: Callable[[int], str]) -> Iterator[ImageItem]:
    """Yield the images of a batch (n, ...) as views; `name_of` an index names each."""
    for index, image in enumerate(array):
        yield _ViewItem(name_of(index), image if is_last else np.moveaxis(image, 0, -1))


class ArraySource(ImageSource):
    """A uint8 array or tensor (n, h, w, 3) or (n, 3, h, w), in its order. It is viewed, not copied.

    Raises
    ------
    TypeError
        It is not uint8, or has a mask.
    ValueError
        It has another shape, or no images; see :func:`channels_last`.
    """

    def __init__(self, images: Any, layout: str | None):
        self.name = "array"
        self.notes = []
        if len(images.shape) != 4:
            raise ValueError(f"array: expected shape (n, h, w, 3) or (n, 3, h, w); got {tuple(images.shape)}")
        self._is_last = channels_last(images.shape, layout, self.name)
        if images.shape[0] == 0:
            raise ValueError(f"array: has no images (shape {tuple(images.shape)})")
        self._images = to_host(images, self.name)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[ImageItem]:
        return view_items(self._images, self._is_last, "array[{}]".format)


class _Rows:
    """What the header of an array file promises: `n` images of one shape, one after the other."""

    def __init__(self, header: ArrayHeader, name: str, layout: str | None, max_pixels: int):
        shape = header.shape
        if header.dtype != np.uint8:
            how = "; values in 0..1 are converted by (x * 255).round().clip(0, 255).astype('uint8')"
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
        self.nbytes = header.nbytes // self.n
        if self.nbytes > 3 * max_pixels:
            raise ValueError(f"{name}: images of shape {self._shape} exceed {max_pixels} pixels (max_pixels)")

    def name_of(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def image(self, data: bytes, index: int) -> NDArray[np.uint8]:
        if len(data) != self.nbytes:
            raise ImageError(f"{self.name_of(index)}: has {len(data)} bytes of {self.nbytes}")
        image = np.frombuffer(data, np.uint8).reshape(self._shape)
        return image if self._is_last else np.moveaxis(image, 0, -1)


class _RowItem(ImageItem):
    __slots__ = ("_file", "_index", "_offset", "_rows")

    def __init__(self, rows: _Rows, index: int, file: RandomAccessFile, offset: int):
        self.name = rows.name_of(index)
        self._rows = rows
        self._index = index
        self._file = file
        self._offset = offset

    def load(self) -> NDArray[np.uint8]:
        """Read the image's bytes."""
        return self._rows.image(self._file.read(self._offset, self._rows.nbytes), self._index)


class NpySource(FileSource):
    """The images of a ``.npy`` file, uint8 (n, h, w, 3) or (n, 3, h, w), in its order, each read when its turn comes.

    Not ``np.memmap``: mapped pages count as the process's memory until the system takes them back, and a file that is
    cut short meanwhile kills the process, where a read says so.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError, ValueError
        It is not such a file; its size is not what its header declares; an image exceeds `max_pixels`.
    """

    def __init__(self, path: str, layout: str | None, max_pixels: int):
        self.name = path
        self.notes = []
        with open(path, "rb") as file:
            header = read_header(file, path)
            self._start = file.tell()
            size = os.fstat(file.fileno()).st_size - self._start
        if size != header.nbytes:
            raise ValueError(f"{path}: declares {header.nbytes} bytes of data ({header.shape}) but has {size}")
        self._rows = _Rows(header, path, layout, max_pixels)

    def __len__(self) -> int:
        return self._rows.n

    def __iter__(self) -> Iterator[ImageItem]:
        file = RandomAccessFile(self.name)
        for index in range(self._rows.n):
            yield _RowItem(self._rows, index, file, self._start + index * self._rows.nbytes)


class NpzSource(FileSource):
    """The images under ``arr_0`` of an ``.npz``, uint8 (n, h, w, 3) or (n, 3, h, w), in their order.

    Read from front to back, a row at a time, compressed or not, so that the archive's checksum is verified and no more
    than a few images are in memory.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError, ValueError
        It is not such a file; the member's size is not what its header declares; an image exceeds `max_pixels`.
    """

    def __init__(self, path: str, layout: str | None, max_pixels: int):
        self.name = path
        self.notes = []
        name = f"{path}: arr_0"
        with open_npz(path) as archive:
            names = member_names(archive)
            if {"mu", "sigma"} <= set(names) and "arr_0" not in names:
                raise ValueError(f"{path}: holds statistics (mu, sigma), which cannot be used as images here")
            if "arr_0" not in names:
                there = ", ".join(names[:8]) or "no arrays"
                raise ValueError(
                    f"{path}: expected images under arr_0, or statistics under mu and sigma; it holds {there}"
                )
            info = archive.getinfo("arr_0.npy")
            if info.flag_bits & 1:
                raise ValueError(f"{name}: is encrypted")
            with archive.open(info) as stream:
                header = read_header(stream, name)
                self._start = stream.tell()
        size = info.file_size - self._start
        if size != header.nbytes:
            raise ValueError(f"{name}: declares {header.nbytes} bytes of data ({header.shape}) but has {size}")
        self._rows = _Rows(header, name, layout, max_pixels)

    def __len__(self) -> int:
        return self._rows.n

    def __iter__(self) -> Iterator[ImageItem]:
        with open_npz(self.name) as archive, archive.open("arr_0.npy") as stream:
            stream.read(self._start)
            for index in range(self._rows.n):
                image = self._rows.image(stream.read(self._rows.nbytes), index)
                yield _ViewItem(self._rows.name_of(index), image)
