"""How a uint8 image becomes a network's input: the named protocols of the FID, and a spec for any other network.

The protocols in use under the name FID are one table, of words for people and numbers for the core. Two statistics
made under different protocols, or different specs, do not belong together. The arithmetic is in
``csrc/core/image.cpp`` and ``csrc/cuda/preprocess.cu``, which are handed the numbers as a ``_core.InputSpec``.
"""

import math
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfid import _core

__all__ = ["PROTOCOLS", "SIDE", "InputSpec", "Protocol", "get_protocol", "input_spec"]

SIDE = 299  # height and width of the Inception network's input, in pixels
LEAST_SIDE = 75  # smallest height and width of the input, for which the network's last map is 1 x 1


@dataclass(frozen=True)
class Protocol:
    """A preprocessing protocol, from a uint8 image to the network's input.

    Attributes
    ----------
    name : str
        Value of ``--protocol`` and ``protocol=``.
    resize : str
        Description of the resampling to 299 x 299.
    scale : str
        Formula from grey level 0..255 to the network's input.
    same_numbers_as : str
        The tools that give the same FID.
    in_help : str
        What ``--help`` puts behind the name; empty: nothing.
    filter : str or None
        Name of the resampling filter in the core. None: images keep their size.
    divisor, factor : float
        The input is ``grey / divisor * factor - 1``, evaluated in this order, so that the bits are those of the tools.
    clip : bool
        Whether grey levels are clipped to [0, 255] after the resampling.
    """

    name: str
    resize: str
    scale: str
    same_numbers_as: str
    in_help: str
    filter: str | None
    divisor: float
    factor: float
    clip: bool = False

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the network's input; None: those of the images."""
        return (SIDE, SIDE) if self.filter is not None else None

    @cached_property
    def input(self) -> "_core.InputSpec":
        """The numbers, as the core takes them."""
        from fastfid import _core

        return _core.InputSpec(
            name=self.name,
            size=self.size,
            least=LEAST_SIDE,
            filter=self.filter or "bilinear",
            clip=self.clip,
            divisor=(self.divisor,) * 3,
            factor=(self.factor,) * 3,
            offset=(1.0,) * 3,
        )


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "pytorch-fid",
            "bilinear, half-pixel centres, no antialias",
            "2 x / 255 - 1",
            "pytorch-fid; clean-fid mode legacy_pytorch",
            "default",
            filter="bilinear",
            divisor=255.0,
            factor=2.0,
        ),
        Protocol(
            "tensorflow",
            "TensorFlow 1 bilinear, asymmetric (source position x * in / out), no antialias",
            "(x - 128) / 128",
            "TTUR; torch-fidelity; ADM; torchmetrics < 1.8 or antialias=False; clean-fid mode legacy_tensorflow",
            "TTUR, torch-fidelity, ADM",
            filter="bilinear-tf1",
            divisor=128.0,
            factor=1.0,
        ),
        Protocol(
            "clean",
            "bicubic (a = -1/2), antialiased, float32, clipped to 0..255, not rounded",
            "(x - 128) / 128",
            "clean-fid mode clean",
            "clean-fid",
            filter="bicubic-antialias",
            divisor=128.0,
            factor=1.0,
            clip=True,
        ),
        Protocol(
            "torchmetrics",
            "bilinear, half-pixel centres, antialiased",
            "(x - 128) / 128",
            "torchmetrics >= 1.8",
            ">= 1.8",
            filter="bilinear-antialias",
            divisor=128.0,
            factor=1.0,
        ),
        Protocol(
            "none",
            "none: the images keep their common size, at least 75 pixels a side",
            "2 x / 255 - 1",
            "jax-fid",
            "",
            filter=None,
            divisor=255.0,
            factor=2.0,
        ),
    )
}


# Tools that are no names of protocols, and the protocol that is theirs.
OF_TOOLS = {"torch-fidelity": "tensorflow", "adm": "tensorflow", "ttur": "tensorflow", "clean-fid": "clean"}


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`. Raises ValueError, which lists the known protocols, if there is none.

    >>> get_protocol("pytorch-fid").scale
    '2 x / 255 - 1'
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        hint = f"; {name} resizes as {OF_TOOLS[name]}" if isinstance(name, str) and name in OF_TOOLS else ""
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}; got {name!r}{hint}")
    return PROTOCOLS[name]


def input_spec(name: str) -> "_core.InputSpec":
    """Return what the core needs to know of the protocol called `name`; ValueError as :func:`get_protocol`."""
    return get_protocol(name).input


@dataclass(frozen=True)
class InputSpec:
    """How a uint8 RGB image becomes the input of a network that is not the FID's; for :class:`fastfid.OnnxExtractor`.

    The image is resized to `size`, whatever its own proportions; then channel c is ``(grey / 255 - mean[c]) / std[c]``,
    in float32.

    Parameters
    ----------
    size : (int, int) or None
        Height and width of the input, in pixels. None: images keep their size, which is one for all images.
    mean, std : three floats
        Of red, green and blue, in the units of ``grey / 255``, as model cards state them. Default: 0 and 1.
    filter : str
        Of the resize: ``"bilinear"`` (PyTorch's, without antialias), ``"bilinear-tf1"`` (TensorFlow 1's),
        ``"bilinear-antialias"`` (PyTorch's) or ``"bicubic-antialias"`` (Pillow's, not rounded).
    clip : bool
        Limit grey levels to [0, 255] after the resize.

    Raises
    ------
    TypeError
        `size` is not two integers, or `mean` or `std` not three numbers.
    ValueError
        A side of 0 or above 1048576, an unknown filter, a number that is not finite, an `std` of 0.

    Examples
    --------
    >>> imagenet = InputSpec((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> imagenet.protocol
    '224x224 bilinear-antialias mean 0.485,0.456,0.406 std 0.229,0.224,0.225'
    """

    size: tuple[int, int] | None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    filter: str = "bilinear-antialias"
    clip: bool = False

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", _two_integers(self.size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if 0 in self.std:
            raise ValueError(f"std: expected numbers other than 0, got {self.std}")
        if not isinstance(self.filter, str) or not isinstance(self.clip, bool):
            raise TypeError(f"filter, clip: expected a name, and True or False; got {self.filter!r}, {self.clip!r}")
        self.to_core()  # refuses what the core refuses

    @property
    def protocol(self) -> str:
        """What statistics say of their making: equal for equal specs, different for different ones."""
        size = "no resize" if self.size is None else f"{self.size[0]}x{self.size[1]} {self.filter}"
        clip = " clip" if self.clip and self.size is not None else ""  # as they come, grey levels need none
        mean, std = (",".join(map(repr, numbers)) for numbers in (self.mean, self.std))
        return f"{size}{clip} mean {mean} std {std}"

    def to_core(self) -> "_core.InputSpec":
        """Return the numbers as the core takes them."""
        from fastfid import _core

        return _core.InputSpec(
            name=self.protocol,
            size=self.size,
            filter=self.filter,
            clip=self.clip,
            divisor=[255 * s for s in self.std],
            factor=(1.0,) * 3,
            offset=[m / s for m, s in zip(self.mean, self.std, strict=True)],
        )


def _two_integers(size: Any) -> tuple[int, int]:
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        raise TypeError(f"size: expected (height, width) in pixels, or None; got {size!r}") from None
    return height, width


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values if not isinstance(value, str))
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected three numbers, of red, green and blue; got {values!r}") from None
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return red, green, blue
