"""How a uint8 image becomes the input of a network in an ONNX file, and what of its output are the features."""

import json
import math
import operator
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastfid._files import atomic_file, open_regular

if TYPE_CHECKING:
    from fastfid import _core

__all__ = ["InputSpec", "spec_path"]

Resize = Literal["none", "squash", "shorter"]
Filter = Literal["bilinear", "bicubic", "tf1-bilinear"]
Rounding = Literal["none", "clip", "pillow-uint8"]
Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Post = Literal["none", "l2", "l2-sqrt-d"]

# The core's filters. What is not here does not exist: TensorFlow 1 has no antialias, and no tool's number needs a
# bicubic filter without it.
_FILTERS = {
    ("bilinear", False): "bilinear",
    ("bilinear", True): "bilinear-antialias",
    ("bicubic", True): "bicubic-antialias",
    ("tf1-bilinear", False): "bilinear-tf1",
}
_CHOICES = {
    "resize": get_args(Resize),
    "filter": get_args(Filter),
    "rounding": get_args(Rounding),
    "layout": get_args(Layout),
    "channels": get_args(Channels),
    "post": get_args(Post),
}
_TOKEN = re.compile(r"token:(0|[1-9][0-9]{0,5})")
_MOST_BYTES = 1 << 20  # of a file
_MOST_PIXELS = 1 << 24  # of an input: 200 MB of float32
# So that no grey level divided by 255 std is infinite in float32, or loses digits as a subnormal number, where a filter
# overshoots too.
_LEAST_STD, _MOST_STD = 1e-30, 1e30


def spec_path(model: str | os.PathLike[str]) -> str:
    """Return the path of the spec that belongs to an ONNX file: ``model.fastfid.json`` beside ``model.onnx``."""
    return os.path.splitext(os.fspath(model))[0] + ".fastfid.json"


@dataclass(frozen=True)
class InputSpec:
    """How a uint8 RGB image becomes the input of a network that is not the FID's; for :class:`fastfid.OnnxExtractor`.

    The image is cropped and resized; then channel c is ``(grey / 255 - mean[c]) / std[c]``, in float32. The last three
    fields say what of the network's output are the features. docs/extractors.md has the specs of known networks.

    Parameters
    ----------
    size : (int, int) or None
        Height and width of the input, in pixels. None: images keep their size, which is one for all images.
    resize : {"squash", "shorter", "none"}
        "squash": to `size`, whatever the proportions of the image. "shorter": the shorter side to `shorter_side`, the
        longer side in proportion, its length rounded down, as torchvision does. "none": images are not resized.
    filter : {"bilinear", "bicubic", "tf1-bilinear"}
        Of the resize. "bicubic" is Keys' kernel with a = -1/2, "tf1-bilinear" TensorFlow 1's.
    antialias : bool
        Widen the filter when shrinking, as Pillow always does. True for "bicubic", False for "tf1-bilinear".
    rounding : {"none", "clip", "pillow-uint8"}
        Grey levels after the resize: "none" as they come (bicubic overshoots), "clip" limited to [0, 255],
        "pillow-uint8" resized by Pillow on 8 bits, which rounds after each pass. Weights of "bicubic" are in float32 as
        torch has them with "none", and in float64 as Pillow has them with "clip".
    crop : {None, "center"}
        With "squash", the centre of the image before the resize: a square of its shorter side, its corner rounded down,
        as CMMD's code does; `size` must be a square. With "shorter" and "none", the centre of `size` after the resize,
        its corner rounded to even, as torchvision does. "shorter" needs a crop.
    mean, std : three floats
        Of the input's channels in their order, in the units of ``grey / 255``, as model cards state them. Default: 0
        and 1.
    layout : {"nchw", "nhwc"}
        Axes of the input, (n, 3, h, w) or (n, h, w, 3); also of an output that is a map.
    channels : {"rgb", "bgr"}
        Order of the input's channels.
    shorter_side : int, optional
        Of "shorter", at least the longer side of `size`. Default: the side of `size`, a square.
    output : str, optional
        Name of the output that has the features. Default: the only one there is.
    select : str
        What of the output is the feature vector of an image: "all" of (n, d); "token:0", or another number, of tokens
        (n, t, d); "mean-tokens", the mean of all t; "mean-spatial", the mean over the places of a map.
    post : {"none", "l2", "l2-sqrt-d"}
        "l2" divides the vector by its norm, "l2-sqrt-d" multiplies that by the root of its length.

    Raises
    ------
    TypeError
        `size` is not two integers, `mean` or `std` not three numbers, or another field has the wrong type.
    ValueError
        An unknown word, a side of 0 or above 1048576, more than 16,777,216 pixels, a number that is not finite, an
        `std` that is not from 1e-30 to 1e30, or fields that do not go together. The message names them.

    Examples
    --------
    >>> imagenet = InputSpec((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> imagenet.protocol
    '224x224 squash bilinear antialias mean 0.485,0.456,0.406 std 0.229,0.224,0.225'
    >>> clip = InputSpec((224, 224), "shorter", "bicubic", rounding="pillow-uint8", crop="center", post="l2")
    >>> clip.save("clip.fastfid.json")
    >>> InputSpec.load("clip.fastfid.json") == clip
    True
    """

    size: tuple[int, int] | None
    resize: Resize = "squash"
    filter: Filter = "bilinear"
    antialias: bool = True
    rounding: Rounding = "none"
    crop: Literal["center"] | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Layout = "nchw"
    channels: Channels = "rgb"
    shorter_side: int | None = None
    output: str | None = None
    select: str = "all"
    post: Post = "none"

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", _two_integers(self.size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) < _LEAST_STD or max(self.std) > _MOST_STD:
            raise ValueError(f"std: expected numbers from {_LEAST_STD:g} to {_MOST_STD:g}, got {self.std}")
        for name, known in _CHOICES.items():
            _check_word(name, getattr(self, name), known)
        if self.crop is not None:
            _check_word("crop", self.crop, ("center",), "center, or None (null) for no crop")
        if not isinstance(self.antialias, bool):
            raise TypeError(f"antialias: expected True or False, got {self.antialias!r}")
        if self.output is not None and not (isinstance(self.output, str) and self.output):
            raise TypeError(f"output: expected the name of an output, or None (null), got {self.output!r}")
        if self.output is not None and not self.output.isprintable():
            raise ValueError(f"output: expected printable letters, got {self.output!r}")
        words = ("all", "mean-tokens", "mean-spatial")
        if not (isinstance(self.select, str) and _TOKEN.fullmatch(self.select)):
            _check_word("select", self.select, words, "all, token:0 (or another number), mean-tokens or mean-spatial")
        self._check_sizes()
        self._check_filter()
        self._check_core()

    def _check_sizes(self) -> None:
        if self.size is None and (self.resize != "none" or self.crop is not None):
            raise ValueError(
                f"size: expected (height, width) for resize {self.resize!r} and crop {self.crop!r}, got None: images"
                " keep their size only with resize 'none' and no crop"
            )
        is_square = self.size is None or self.size[0] == self.size[1]
        if self.resize == "squash" and self.crop is not None and not is_square:
            raise ValueError(
                f"crop: with resize 'squash' it cuts out a square, and size is {self.size}: expected a square size, or"
                " crop None (null)"
            )
        if self.resize == "shorter" and self.crop is None:
            raise ValueError("resize: 'shorter' leaves images of several sizes: expected crop 'center' beside it")
        if self.shorter_side is None:
            if self.resize == "shorter" and not is_square:
                raise ValueError(f"shorter_side: expected a length in pixels, as size {self.size} is no square")
            return
        if self.resize != "shorter":
            raise ValueError(f"shorter_side: is for resize 'shorter', and resize is {self.resize!r}: leave one out")
        side = _integer(self.shorter_side)
        if side is None:
            raise TypeError(f"shorter_side: expected a length in pixels, or None (null), got {self.shorter_side!r}")
        if side * side > _MOST_PIXELS:
            raise ValueError(f"shorter_side: expected at most {math.isqrt(_MOST_PIXELS):,} pixels, got {side:,}")
        if self.size is not None and side < max(self.size):
            raise ValueError(f"shorter_side: expected {max(self.size)} or more, so that {self.size} fits, got {side}")
        object.__setattr__(self, "shorter_side", side)

    def _check_core(self) -> None:
        """Refuse what the core refuses, and inputs that are too large."""
        if self.size is not None and max(map(abs, (math.prod(self.size), *self.size))) > _MOST_PIXELS:
            raise ValueError(f"size: expected at most {_MOST_PIXELS:,} pixels, got {self.size[0]} x {self.size[1]}")
        try:
            self.to_core(self.size)
        except ValueError as error:
            if str(error).startswith("size"):
                raise
            raise ValueError(f"mean, std: expected numbers of float32's range, got {self.mean}, {self.std}") from None

    def _check_filter(self) -> None:
        if (self.filter, self.antialias) not in _FILTERS:
            raise ValueError(
                f"antialias: expected {not self.antialias} for filter {self.filter!r}, got {self.antialias}"
            )
        if self.rounding == "pillow-uint8" and not self.antialias:
            raise ValueError(
                f"rounding: 'pillow-uint8' is Pillow's resize, which has antialias True and filter bilinear or bicubic;"
                f" got antialias False and filter {self.filter!r}"
            )
        if self.rounding != "none" and self.resize == "none":
            raise ValueError(f"rounding: expected 'none' where resize is 'none', got {self.rounding!r}")

    @property
    def protocol(self) -> str:
        """What statistics say of their making: equal for equal numbers, different for different ones.

        The output's name is part of the ``identity`` of :class:`fastfid.OnnxExtractor`.
        """
        size = "any size" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        words = [size, *self._words_of_resize()]
        for name in ("mean", "std"):
            words += [name, ",".join(map(repr, getattr(self, name)))]
        defaults = {"layout": "nchw", "channels": "rgb", "select": "all", "post": "none"}
        words += [word for name, default in defaults.items() if (word := getattr(self, name)) != default]
        return " ".join(words)

    def _words_of_resize(self) -> Iterable[str]:
        if self.resize == "none":
            return ["no resize", *(["center crop"] if self.crop else [])]
        side = [str(self.side)] if self.resize == "shorter" else []
        crop = {"squash": "of center square", "shorter": "center crop"}[self.resize] if self.crop else None
        antialias = "antialias" if self.antialias else None
        rounding = self.rounding if self.rounding != "none" else None
        words = [self.resize, *side, crop, self.filter, antialias, rounding]
        return [word for word in words if word is not None]

    @property
    def side(self) -> int:
        """The shorter side after a resize of kind "shorter"."""
        if self.shorter_side is not None:
            return self.shorter_side
        assert self.size is not None
        return self.size[0]

    @property
    def token(self) -> int | None:
        """The number of the token that `select` names, or None."""
        found = _TOKEN.fullmatch(self.select)
        return int(found[1]) if found else None

    def to_core(self, size: tuple[int, int] | None) -> "_core.InputSpec":
        """Return what the core needs to resize to `size` and to scale; None: to scale alone."""
        from fastfid import _core

        return _core.InputSpec(
            name=self.protocol,
            size=size,
            filter=self._core_filter,
            clip=self.rounding == "clip",
            divisor=[255 * s for s in self.std],
            factor=(1.0,) * 3,
            offset=[m / s for m, s in zip(self.mean, self.std, strict=True)],
        )

    @property
    def _core_filter(self) -> str:
        # Pillow computes the weights of its float pictures in float64, torch in float32: up to 4e-3 grey levels apart.
        is_torchs = (self.filter, self.rounding) == ("bicubic", "none")
        return "bicubic-antialias-torch" if is_torchs else _FILTERS[self.filter, self.antialias]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "InputSpec":
        """Return the spec in a JSON file: one object whose keys are the fields; what it leaves out has its default.

        Raises
        ------
        ValueError
            The file holds something else: no object, an unknown key, or what the class refuses. The message names the
            file and the key.
        OSError
            It cannot be read.
        """
        name = os.fspath(path)
        with open_regular(path) as stream:
            content = stream.read(_MOST_BYTES + 1)
        known = [field.name for field in fields(cls)]
        try:
            if len(content) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
            found = json.loads(content, object_pairs_hook=_without_repeats, parse_constant=_not_json)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: expected a JSON object of {', '.join(known)}: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{name}: expected a JSON object of {', '.join(known)}; got {type(found).__name__}")
        if unknown := [key for key in found if key not in known]:
            raise ValueError(f"{name}: unknown key {unknown[0]!r}: expected {', '.join(known)}")
        if "size" not in found:
            raise ValueError(f"{name}: expected the key 'size', [height, width] of the network's input or null")
        try:
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spec as a JSON file, which :meth:`load` and ``--input`` read; a file that exists is replaced.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        with atomic_file(Path(path), overwrite=True) as stream:
            stream.write((json.dumps(asdict(self), indent=2) + "\n").encode())


def _check_word(name: str, value: object, known: Sequence[str], expected: str = "") -> None:
    expected = expected or f"one of {', '.join(known)}"
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {expected}; got {value!r}")
    if value not in known:
        raise ValueError(f"{name}: expected {expected}; got {value!r}")


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _two_integers(size: Any) -> tuple[int, int]:
    sides = [_integer(side) for side in size] if isinstance(size, Iterable) and not isinstance(size, str) else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise TypeError(f"size: expected (height, width) in pixels, or None; got {size!r}")
    return sides[0], sides[1]


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    try:
        first, second, third = (float(value) for value in values if not isinstance(value, str | bool))
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected three numbers, one a channel; got {values!r}") from None
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return first, second, third


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} comes twice")
        found[key] = value
    return found


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
