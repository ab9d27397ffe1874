"""``Dataset`` and ``IterableDataset`` of Hugging Face's package datasets, which is not imported."""

from collections.abc import Mapping
from typing import Any

from fastfid.sources.arrays import Scale, roots
from fastfid.sources.iterable import IterableSource
from fastfid.sources.parquet import class_names_of, column_of_images, column_of_labels
from fastfid.sources.picture import Decoder

__all__ = ["HuggingFaceSource", "is_dataset"]


def is_dataset(obj: Any) -> bool:
    """Return whether `obj` is a ``datasets.Dataset`` or a ``datasets.IterableDataset``."""
    return "datasets" in roots(obj) and hasattr(obj, "cast_column") and not isinstance(obj, Mapping)


class HuggingFaceSource(IterableSource):
    """The images in one column of a dataset, in its order.

    Encoded pictures are taken as they are stored, so that they are decoded once, and by fastfid's rules. A dataset with
    a format or a transform of the user's, or whose pictures are converted to a mode, is read through it instead.

    Parameters
    ----------
    dataset : datasets.Dataset or datasets.IterableDataset
        The images.
    column : str, optional
        Name of the column. Default: ``image``, or the only column of images.

    Raises
    ------
    ValueError
        The dataset has no such column.
    """

    def __init__(
        self,
        dataset: Any,
        decoder: Decoder,
        layout: str | None,
        scale: Scale | None,
        num: int | None,
        column: str | None,
        *,
        takes_labels: bool,
    ):
        name = type(dataset).__name__
        features = dataset.features
        self._labels: str | None = None
        self._features = dict(features) if isinstance(features, Mapping) else {}
        self._size = len(dataset) if hasattr(dataset, "__len__") else None
        if self._features:
            images = [key for key, feature in self._features.items() if type(feature).__name__ == "Image"]
            column = column_of_images(list(self._features), images, column, name)
            if takes_labels:
                self._labels = column_of_labels(list(self._features), self._features, name)
            dataset = _stored(dataset, column, self._features[column], self._labels)
        super().__init__(
            dataset,
            decoder,
            layout,
            scale,
            num,
            column=column,
            label_keys=None if self._labels is None else (self._labels,),
            takes_labels=takes_labels,
        )
        if self.has_labels and self._labels is not None:
            self.labels_from = f"column {self._labels}"
            self.class_names = class_names_of(self._features[self._labels])

    def __len__(self) -> int:
        if self._size is None:
            return super().__len__()  # raises TypeError
        return self._size


def _stored(dataset: Any, column: str, feature: Any, labels: str | None) -> Any:
    """Return the dataset with its pictures as they are stored, where no conversion of the user's would be lost."""
    form = getattr(dataset, "format", None)
    is_formatted = isinstance(form, Mapping) and form.get("type") is not None
    is_formatted = is_formatted or getattr(dataset, "_formatting", None) is not None  # of a stream
    if is_formatted or type(feature).__name__ != "Image" or getattr(feature, "mode", None) not in (None, "RGB"):
        return dataset
    dataset = dataset.select_columns([column] if labels is None else [column, labels])
    return dataset.cast_column(column, type(feature)(decode=False))
