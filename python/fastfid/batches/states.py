"""Values of a state: PyTorch tensors where the program uses PyTorch, NumPy arrays where it does not."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["as_arrays", "as_tensors"]

_MAX_DEPTH = 8  # of mappings inside mappings; a state from a file may hold itself


def as_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state whose arrays are tensors where torch is imported already, and whose NumPy scalars are numbers.

    ``torch.load`` reads such a state with ``weights_only=True``, its default, which refuses NumPy's arrays. A tensor
    shares its memory with the array. Without torch the arrays stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> as_tensors({"n": np.int64(3), "inner": {"name": "x"}})
    {'n': 3, 'inner': {'name': 'x'}}
    """
    torch = sys.modules.get("torch")
    is_there = hasattr(torch, "from_numpy")  # not so while torch itself is being imported

    def converted(value: Any) -> Any:
        if isinstance(value, np.ndarray) and is_there:
            return torch.from_numpy(value)  # type: ignore[union-attr]
        if isinstance(value, np.generic):
            return value.item()
        return {key: converted(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    return {key: converted(value) for key, value in state.items()}


def as_arrays(state: Mapping[str, Any], name: str = "state") -> dict[str, Any]:
    """Return a state whose tensors, on whatever device, are NumPy arrays.

    Arrays and tensors of rank 0, and NumPy's scalars, become Python's numbers and strings. Tensors on the CPU are not
    copied.

    Parameters
    ----------
    state : mapping
        Of numbers, strings, arrays, tensors and mappings of these.
    name : str
        What messages call it.

    Raises
    ------
    TypeError
        A tensor has no values, or a dtype or a layout that NumPy has not.
    ValueError
        Mappings lie more than eight deep in one another.

    Examples
    --------
    >>> import numpy as np
    >>> as_arrays({"n": np.array(3), "rows": [1.0]})
    {'n': 3, 'rows': [1.0]}
    """
    torch = sys.modules.get("torch")
    tensor: Any = getattr(torch, "Tensor", ())  # nothing is an instance of ()

    def converted(value: Any, place: str, depth: int) -> Any:
        if isinstance(value, Mapping):
            if depth == _MAX_DEPTH:
                raise ValueError(f"{place}: mappings lie more than {_MAX_DEPTH} deep in one another")
            return {key: converted(inner, f"{place}[{key!r}]", depth + 1) for key, inner in value.items()}
        if isinstance(value, tensor):
            try:
                value = value.detach().cpu().numpy()
            except (TypeError, RuntimeError):  # NotImplementedError too
                kind = f"{value.dtype} of layout {value.layout} on {value.device}"
                raise TypeError(f"{place}: expected a tensor that NumPy can hold, got {kind}") from None
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            return value.item()
        return value

    return {key: converted(value, f"{name}[{key!r}]", 1) for key, value in state.items()}
