"""An extractor with inputs of different shapes gets batches of equal shape, in order."""

import numpy as np
import pytest

from fastfid.extractor import FeatureExtractor
from fastfid.pipeline import extract, only_features
from fastfid.sources import ImageItem, ImageSource


class Picture(ImageItem):
    def __init__(self, height):
        self.name = f"picture {height}"
        self.height = height

    def load(self):
        return np.zeros((self.height, 4, 3), np.uint8)


class Pictures(ImageSource):
    name = "pictures"
    notes = ()

    def __init__(self, heights):
        self.heights = heights

    def __len__(self):
        return len(self.heights)

    def __iter__(self):
        return map(Picture, self.heights)


class Heights(FeatureExtractor):
    dims = 1
    identity = protocol = "heights"
    precision = "float32"
    device = "cpu"
    batch_size = 3

    def __init__(self, mixed_sizes):
        self.mixed_sizes = mixed_sizes
        self.batches = []

    def prepare(self, image):
        return image

    def forward(self, batch):
        self.batches.append(batch.shape[:2])
        return np.full((len(batch), 1), batch.shape[1], np.float32)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_end_where_the_size_changes(num_workers):
    extractor = Heights(mixed_sizes=True)
    rows = []
    consume = only_features(lambda x: rows.extend(x[:, 0]))
    extract(Pictures([5, 5, 5, 5, 7, 5]), extractor, consume, num_workers=num_workers)
    assert rows == [5, 5, 5, 5, 7, 5]
    assert extractor.batches == [(3, 5), (1, 5), (1, 7), (1, 5)]


def test_other_extractors_refuse_mixed_sizes():
    with pytest.raises(ValueError, match="picture 7"):
        extract(Pictures([5, 7]), Heights(mixed_sizes=False), only_features(lambda x: None))
