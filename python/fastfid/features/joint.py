"""Several extractors that see each image once: the image is decoded, and prepared for each of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.extractor import FEATURES, FeatureExtractor, outputs_of

__all__ = ["JointExtractor"]


class JointExtractor(FeatureExtractor):
    """Several extractors as one, whose input of an image is those of all, one behind the other in one vector.

    The outputs are those of the extractors, as ``0/features``, ``1/features``; and the first one's features.

    Raises
    ------
    ValueError
        An extractor takes inputs of several sizes, or of a size that it does not say.
    """

    def __init__(self, extractors: Mapping[str, FeatureExtractor]):
        self._extractors = list(extractors.values())
        self._shapes: list[tuple[int, ...]] = []
        for name, one in extractors.items():
            if one.input_shape is None:
                raise ValueError(
                    f"extractor {name}: has inputs of any size ({one.protocol}): beside others it needs a size, by"
                    " another protocol or InputSpec, or an input_shape of its class"
                )
            self._shapes.append(one.input_shape)
        ends = np.cumsum([math.prod(shape) for shape in self._shapes]).tolist()
        self._parts = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.input_shape = (ends[-1],)
        first = self._extractors[0]
        self.dims, self.device = first.dims, first.device
        # One network may give features of several lengths, as Inception does; `dims` is that of the first alone.
        self.identity = ", ".join(f"{one.identity} ({one.dims} dims)" for one in self._extractors)
        for name in ("protocol", "precision"):
            setattr(self, name, ", ".join(getattr(one, name) for one in self._extractors))
        self.runtime = ", ".join(dict.fromkeys(one.runtime for one in self._extractors if one.runtime))
        self.batch_size = max(one.batch_size for one in self._extractors)
        self.concurrency = min(one.concurrency for one in self._extractors)
        outputs = {FEATURES: first.dims}
        for i, one in enumerate(self._extractors):
            outputs |= {f"{i}/{name}": length for name, length in outputs_of(one).items()}
        self.outputs = outputs

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the inputs of all extractors, float32 (length,)."""
        assert self.input_shape is not None
        out = np.empty(self.input_shape, np.float32)
        self.prepare_into(image, out)
        return out

    def prepare_into(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write the input of each extractor to its part of `out`."""
        for one, part, shape in zip(self._extractors, self._parts, self._shapes, strict=True):
            one.prepare_into(image, out[part].reshape(shape))  # a view, as `out` is contiguous

    def forward(self, batch: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs of all extractors; each gets no more images at a time than it takes."""
        found: dict[str, NDArray[np.float32]] = {}
        for i, (one, part, shape) in enumerate(zip(self._extractors, self._parts, self._shapes, strict=True)):
            inputs = np.ascontiguousarray(batch[:, part]).reshape(len(batch), *shape)
            steps = range(0, len(batch), one.batch_size)
            runs = [_by_name(one.forward(inputs[start : start + one.batch_size])) for start in steps]
            found |= {f"{i}/{name}": np.concatenate([run[name] for run in runs]) for name in outputs_of(one)}
        found[FEATURES] = found[f"0/{FEATURES}"]
        return found

    def outputs_of_one(self, number: int) -> dict[str, int]:
        """Return the lengths of the outputs of one of the extractors, under its own names."""
        return dict(outputs_of(self._extractors[number]))

    @staticmethod
    def name_of(number: int, name: str) -> str:
        """Return what an output of one of the extractors is called here; the first one's features keep their name."""
        return name if (number, name) == (0, FEATURES) else f"{number}/{name}"

    def of(self, number: int, outputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs of one of the extractors, counted from 0, under its own names."""
        return {name: outputs[f"{number}/{name}"] for name in outputs_of(self._extractors[number])}


def _by_name(
    outputs: NDArray[np.float32] | Mapping[str, NDArray[np.float32]],
) -> Mapping[str, NDArray[np.float32]]:
    return outputs if isinstance(outputs, Mapping) else {FEATURES: outputs}
