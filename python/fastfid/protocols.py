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
        Protocol(
            "tensorflow",
            "TensorFlow 1 bilinear, asymmetric (source position x * in / out), no antialias",
            "(x - 128) / 128",
            "TTUR; torch-fidelity; ADM; torchmetrics < 1.8 or antialias=False; clean-fid mode legacy_tensorflow",
        ),
        Protocol(
            "clean",
            "bicubic (a = -1/2), antialiased, float32, clipped to 0..255, not rounded",
            "(x - 128) / 128",
            "clean-fid mode clean",
        ),
        Protocol(
            "torchmetrics",
            "bilinear, half-pixel centres, antialiased",
            "(x - 128) / 128",
            "torchmetrics >= 1.8",
        ),
        Protocol(
            "none",
            "none: the images keep their common size, at least 75 pixels a side",
            "2 x / 255 - 1",
            "jax-fid",
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
