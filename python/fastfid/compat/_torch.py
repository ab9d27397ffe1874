"""Import of PyTorch where objects passed by the user need it."""

from types import ModuleType

__all__ = ["require_torch"]


def require_torch(what: str) -> ModuleType:
    """Return the module ``torch``. ImportError states that `what` needs PyTorch, and how to install it."""
    try:
        import torch
    except ImportError:
        raise ImportError(f"{what} works on torch tensors: install PyTorch with `pip install torch`") from None
    return torch
