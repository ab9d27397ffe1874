"""fastfid's metrics as a module of Hugging Face's package evaluate, which loads it by its path, without a network.

::

    import evaluate
    fid = evaluate.load("examples/hf_evaluate/fastfid_metrics.py")
    fid.compute(predictions=generated, references="real/")   # {"fid": ..., "fid_standard_error": ..., ...}

``pip install evaluate`` has what this file imports beside fastfid.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from PIL import Image

import fastfid

_DESCRIPTION = "FID, KID, precision, recall and other metrics of sets of images, by fastfid."
_INPUTS = """
Args:
    predictions: list of generated images: pictures of Pillow, uint8 arrays (h, w, 3), paths or encoded pictures.
    references: the real images, of any number: a folder, an archive, a list of images, a Dataset; or statistics, where
        the FID is all that is asked for. Only `compute` takes them.
    metrics: list of names. Default: ["fid"].
    Other keywords are those of fastfid.evaluate, such as dims, device or batch_size.
Returns:
    dict: each metric by its name; `fid_standard_error` and so on, where it is known; the numbers of images.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class FastfidMetrics(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the images that were added, beside the references given to `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        # The pictures stay encoded, so that fastfid decodes them, by its own rules. References are no column: a table
        # has as many of one as of the other.
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Image(decode=False)}),
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **others: Any) -> None:
        """Add one generated image. ValueError for a reference, and for an array that is not of uint8."""
        _refuse(reference)
        super().add(prediction=_kept(prediction), **others)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **others: Any) -> None:
        """Add generated images. ValueError for references, and for an array that is not of uint8."""
        _refuse(references)
        given: Sequence[Any] | None = predictions
        super().add_batch(predictions=None if given is None else [_kept(one) for one in given], **others)

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, float] | None:
        """Return the values of all images that were added and of `predictions`."""
        if references is None:
            raise ValueError("references: expected the real images or their statistics, got None")
        found: dict[str, float] | None = super().compute(predictions=predictions, real=references, **options)
        return found

    def _compute(
        self, predictions: list[dict[str, Any]], real: Any, metrics: Any = ("fid",), **options: Any
    ) -> dict[str, float]:
        found = fastfid.evaluate(real, predictions, metrics=metrics, **options)
        values: dict[str, float] = {}
        for name, result in found.items():
            values[name] = result.value
            if result.standard_error is not None:
                values[f"{name}_standard_error"] = result.standard_error
        for side, one in (("real", found.real), ("fake", found.fake)):
            if one.n is not None:
                values[f"images_{side}"] = one.n
        return values


def _refuse(references: Any) -> None:
    if references is not None:
        raise ValueError("references: expected None here; give all real images to compute(references=...)")


def _kept(image: Any) -> Any:
    """Return an image as datasets keeps all of its grey levels. ValueError for an array that is not of uint8."""
    if isinstance(image, Image.Image):
        # A copy has no format and no name. Of a picture that has, datasets writes a JPEG again as a JPEG, with other
        # levels, or takes the file, whatever was done to the picture since it was opened.
        return image.copy()
    if isinstance(image, np.ndarray) and image.dtype != np.uint8:
        raise ValueError(f"predictions: expected arrays of uint8, got {image.dtype}; scale and round them first")
    return image
