"""The named preprocessing protocols: one table, of words for people and numbers for the core.

A protocol says how a uint8 image becomes the network's input. There are five in use under the name FID; two statistics
made under different protocols do not belong together. The arithmetic is in ``csrc/core/image.cpp`` and
``csrc/cuda/preprocess.cu``, which are handed the numbers as an ``InputSpec``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfid._core import InputSpec

__all__ = ["PROTOCOLS", "SIDE", "Protocol", "get_protocol", "input_spec"]

SIDE = 299  # of the Inception network's input, in pixels
LEAST_SIDE = 75  # with which the network's last map is 1 x 1


@dataclass(frozen=True)
class Protocol:
    """One way from a uint8 image to the network's input.

    Attributes
    ----------
    name : str
        What ``--protocol`` and ``protocol=`` take.
    resize : str
        The resampling to 299 x 299, in words.
    scale : str
        The map from grey level 0..255 to the network's input.
    same_numbers_as : str
        The tools that give the same FID.
    filter : str or None
        The resampling's filter in the core; None: images keep their size.
    divisor, factor : float
        The input is ``grey / divisor * factor - 1``, in this order: the bits of the tools.
    clip : bool
        Whether grey levels are limited to [0, 255] after the resampling.
    """

    name: str
    resize: str
    scale: str
    same_numbers_as: str
    filter: str | None
    divisor: float
    factor: float
    clip: bool = False

    @cached_property
    def input(self) -> "InputSpec":
        """The numbers, as the core takes them."""
        from fastfid._core import InputSpec

        size = (SIDE, SIDE) if self.filter is not None else None
        return InputSpec(
            name=self.name,
            size=size,
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
            filter="bilinear",
            divisor=255.0,
            factor=2.0,
        ),
        Protocol(
            "tensorflow",
            "TensorFlow 1 bilinear, asymmetric (source position x * in / out), no antialias",
            "(x - 128) / 128",
            "TTUR; torch-fidelity; ADM; torchmetrics < 1.8 or antialias=False; clean-fid mode legacy_tensorflow",
            filter="bilinear-tf1",
            divisor=128.0,
            factor=1.0,
        ),
        Protocol(
            "clean",
            "bicubic (a = -1/2), antialiased, float32, clipped to 0..255, not rounded",
            "(x - 128) / 128",
            "clean-fid mode clean",
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
            filter="bilinear-antialias",
            divisor=128.0,
            factor=1.0,
        ),
        Protocol(
            "none",
            "none: the images keep their common size, at least 75 pixels a side",
            "2 x / 255 - 1",
            "jax-fid",
            filter=None,
            divisor=255.0,
            factor=2.0,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`; ValueError lists the known ones.

    >>> get_protocol("pytorch-fid").scale
    '2 x / 255 - 1'
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}; got {name!r}")
    return PROTOCOLS[name]


def input_spec(name: str) -> "InputSpec":
    """Return what the core needs to know of the protocol called `name`; ValueError as :func:`get_protocol`."""
    return get_protocol(name).input
