"""The feature vectors in the output of a network, as an InputSpec says: one token, a mean, unit length."""

import numpy as np
from numpy.typing import NDArray

from fastfid.input_spec import InputSpec

__all__ = ["check_rank", "finish", "select"]

# Axes of the output, as messages name them.
_TOKENS = "(n, tokens, d)"
_MAPS = {"nchw": "(n, d, h, w)", "nhwc": "(n, h, w, d)"}


def _axes(spec: InputSpec) -> str:
    if spec.select == "all":
        return "(n, d)"
    return _MAPS[spec.layout] if spec.select == "mean-spatial" else _TOKENS


def check_rank(file: str, output: str, shape: tuple[object, ...], spec: InputSpec) -> None:
    """Raise ValueError unless an output of this shape has the axes that `spec.select` needs."""
    axes = _axes(spec)
    if len(shape) != axes.count(",") + 1:
        got = f"({', '.join('?' if length is None else str(length) for length in shape)})"
        raise ValueError(
            f"{file}: expected the output {output} as {axes} for select {spec.select!r}, got {got}. Select 'all' is for"
            " (n, d), 'token:0' and 'mean-tokens' for (n, tokens, d), 'mean-spatial' for a map; or take another output"
        )


def select(file: str, output: str, found: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Return the vectors, (n, d), of an output with the right axes. Means are taken in float64 and rounded once."""
    if spec.select == "all":
        return found
    if (token := spec.token) is not None:
        if token >= found.shape[1]:
            raise ValueError(
                f"{file}: select {spec.select!r}: {output} has {found.shape[1]} tokens, 0 to {found.shape[1] - 1}"
            )
        return np.ascontiguousarray(found[:, token])
    axis: tuple[int, ...] = (1,)
    if spec.select == "mean-spatial":
        axis = (2, 3) if spec.layout == "nchw" else (1, 2)
    if 0 in (found.shape[i] for i in axis):
        raise ValueError(f"{file}: {output} of shape {found.shape} has nothing to take a mean of")
    mean: NDArray[np.float64] = found.mean(axis=axis, dtype=np.float64)
    return mean.astype(np.float32)


def finish(file: str, output: str, vectors: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Return the vectors after `spec.post`, which is computed in float64 and rounded once."""
    if spec.post == "none":
        return vectors
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not norms.all():
        raise ValueError(f"{file}: gives {output} = 0 for an image, which has no direction: expected post 'none'")
    root = np.sqrt(vectors.shape[1]) if spec.post == "l2-sqrt-d" else 1.0
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and is refused with the other features
        wide *= (root / norms)[:, None]
    return wide.astype(np.float32)
