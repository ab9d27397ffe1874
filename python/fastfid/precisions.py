"""The table of precisions in which the network can run."""

from dataclasses import dataclass

__all__ = ["PRECISIONS", "Precision", "check_precision", "check_precision_name"]


@dataclass(frozen=True)
class Precision:
    """A precision of the network.

    Attributes
    ----------
    dtype : str
        Dtype of the image, the weights, the values between layers, and the feature map. Sums are always float32.
    use_tf32 : bool
        ONNX Runtime's option of this name. It decides whether a convolution of any dtype may run on tensor cores. For
        float32, tensor cores use TF32: factors are rounded to 10 bits of mantissa.
    tolerance : float
        Largest accepted difference between a session's features of a fixed input and the stored features of float64
        PyTorch. Features are of order 1. A missing or exchanged tensor changes them by 0.1 and more.
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
    """Raise ValueError unless `precision` is in `PRECISIONS`, whether or not a device supports it."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")


def check_precision(precision: str, device: str) -> None:
    """Check that `precision` is known and that `device` ("cpu" or "cuda:N") supports it.

    Raises
    ------
    ValueError
        `precision` is not in `PRECISIONS`, or the device is the CPU, which supports float32 only.
    """
    check_precision_name(precision)
    if device == "cpu" and precision != "float32":
        raise ValueError(f"precision: the CPU has 'float32' only, got {precision!r}; it needs a CUDA device")
