"""The named preprocessing protocols: one table.

A protocol says how a uint8 image becomes the network's input. There are five in use under the name FID; two statistics
made under different protocols do not belong together. The arithmetic is in ``csrc/core/image.cpp``.
"""

from dataclasses import dataclass

__all__ = ["PROTOCOLS", "Protocol", "get_protocol"]


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
    """

    name: str
    resize: str
    scale: str
    same_numbers_as: str


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "pytorch-fid",
            "bilinear, half-pixel centres, no antialias",
            "2 x / 255 - 1",
            "pytorch-fid; clean-fid mode legacy_pytorch",
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`; ValueError lists the known ones.

    >>> get_protocol("pytorch-fid").scale
    '2 x / 255 - 1'
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}; got {name!r}") from None
