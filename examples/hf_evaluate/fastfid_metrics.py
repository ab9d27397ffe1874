"""fastfid's metrics as a module of Hugging Face's package evaluate, which loads it by its path, without a network.

::

    import evaluate
    fid = evaluate.load("examples/hf_evaluate/fastfid_metrics.py")
    fid.compute(predictions=generated, references="real/")   # {"fid": ..., "fid_standard_error": ..., ...}

``pip install evaluate`` has what this file imports beside fastfid.
"""

from typing import Any

import datasets
import evaluate

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
        """Add one generated image. ValueError for a reference."""
        _refuse(reference)
        super().add(prediction=prediction, **others)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **others: Any) -> None:
        """Add generated images. ValueError for references."""
        _refuse(references)
        super().add_batch(predictions=predictions, **others)

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
