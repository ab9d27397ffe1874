"""The arithmetics that the network can run in: one table."""

from dataclasses import dataclass

__all__ = ["PRECISIONS", "Precision", "check_precision", "check_precision_name"]


@dataclass(frozen=True)
class Precision:
    """One arithmetic of the network.

    Attributes
    ----------
    dtype : str
        Of the image, the weights, what lies between layers, and the map. Sums are float32 in all of them.
    use_tf32 : bool
        ONNX Runtime's option of that name, which decides whether a convolution may run on tensor cores, whatever its
        dtype. In float32 that is TF32: factors rounded to 10 bits of mantissa.
    tolerance : float
        Largest accepted difference between a session's features of the fixed input and the stored ones (float64
        PyTorch). Features are of order 1; a missing or exchanged tensor moves them by 0.1 and more.
    """

    dtype: str
    use_tf32: bool
    tolerance: float


PRECISIONS = {
    # Measured on the CPU: 1e-6.
    "float32": Precision("float32", use_tf32=False, tolerance=5e-5),
    # Simulated (tools/precision_error.py): 1e-3 at dims 64, 2.4e-3 at 192, 1.2e-2 at 2048.
    "tf32": Precision("float32", use_tf32=True, tolerance=4e-2),
    # On ONNX Runtime's CPU provider: 2.1e-3 at dims 64, 3.8e-3 at 192, 1.2e-2 at 2048.
    "float16": Precision("float16", use_tf32=True, tolerance=4e-2),
}


def check_precision_name(precision: object) -> None:
    """Raise ValueError unless `precision` is in `PRECISIONS`; no device need have it."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")


def check_precision(precision: str, device: str) -> None:
    """Refuse an unknown precision, and one that `device` ("cpu" or "cuda:N") does not have.

    Raises
    ------
    ValueError
        It is not in `PRECISIONS`; or the device is the CPU, which has float32 only.
    """
    check_precision_name(precision)
    if device == "cpu" and precision != "float32":
        raise ValueError(f"precision: the CPU has 'float32' only, got {precision!r}; it needs a CUDA device")
