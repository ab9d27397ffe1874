"""Arrays with a mask, which NumPy's conversions drop in silence."""

from typing import Any

import numpy as np

__all__ = ["expect_unmasked"]


def expect_unmasked(value: Any, name: str) -> None:
    """Refuse a ``numpy.ma.MaskedArray``, as the core does: what is behind the mask would count.

    Raises
    ------
    TypeError
        It is one, whether or not its mask hides anything.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, {value.dtype} of shape {value.shape}; "
            "fill or drop what is masked first"
        )
