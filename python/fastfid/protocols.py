"""How a uint8 image becomes the Inception network's input: the named protocols of the FID.

The protocols in use under the name FID are one table, of words for people and numbers for the core. Two statistics
made under different protocols do not belong together. The arithmetic is in ``csrc/core/image.cpp`` and
``csrc/cuda/preprocess.cu``, which are handed the numbers as a ``_core.InputSpec``. For other networks there is
:class:`fastfid.InputSpec`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfid import _core

__all__ = ["PROTOCOLS", "SIDE", "Protocol", "get_protocol", "input_spec"]

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
