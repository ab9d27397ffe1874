"""torch-fidelity's network, its spatial features and logits, and its precision and recall of the same features."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from stubs import weights_with_classifier
from tolerances import FEATURES_MIXED, PEERS_LOGITS, U_FLOAT32

from fastfid.features.inception import InceptionV3
from fastfid.metrics import prdc
from fastfid.metrics.nearest import search


@pytest.fixture
def peer(environment):
    return importlib.import_module("torch_fidelity.metric_prc").prc_features_to_metric


def features(n, d, seed, scale=1.0):
    return (np.abs(np.random.default_rng(seed).standard_normal((n, d))) * scale).astype(np.float32)


def counts(peer, real, fake):
    """Generated rows in a real ball, real rows in a generated ball. torch-fidelity's first side is the generated."""
    found = peer(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
    return round(found["precision"] * len(fake)), round(found["recall"] * len(real))


def undecided(real, fake, k):
    """Pairs that the rounding of float32 squares and products leaves undecided, in a distance or a radius."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)
    between = squares - 2 * x @ y.T
    error = 2 * (x.shape[1] + 2) * U_FLOAT32 * squares.max()
    of_real, of_fake = (search(rows, None, k).kth_squared_distances() for rows in (real, fake))
    radii = of_real[:, None], of_fake
    return [np.count_nonzero(np.abs(between - radius) <= 2 * error) for radius in radii]


@pytest.mark.parametrize(("m", "n", "d"), [(500, 400, 64), (900, 1100, 512)])
def test_precision_and_recall(peer, m, n, d):
    real, fake = features(m, d, 1), features(n, d, 2, scale=0.97)
    ours = prdc(real, fake, protocol="torch-fidelity")
    found = round(ours.precision * n), round(ours.recall * m)
    assert 0 < found[0] < n
    assert 0 < found[1] < m
    assert counts(peer, real.astype(np.float64), fake.astype(np.float64)) == found
    for theirs, mine, open_pairs in zip(counts(peer, real, fake), found, undecided(real, fake, 3), strict=True):
        assert abs(theirs - mine) <= open_pairs < m * n // 50


@pytest.fixture(scope="module")
def file_with_classifier(tmp_path_factory):
    return weights_with_classifier(tmp_path_factory.mktemp("weights"), 11)


@pytest.fixture(scope="module")
def images(few):
    """Photographs and white noise, of one size."""
    noise = np.random.default_rng(12).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    return np.stack([*(np.asarray(Image.open(path)) for path in sorted(few[0].iterdir())[:4]), *noise])


@pytest.mark.parametrize(
    ("module", "name", "protocol"),
    [
        ("torch_fidelity.feature_extractor_inceptionv3", "FeatureExtractorInceptionV3", "tensorflow"),
        ("torchmetrics.image.fid", "NoTrainInceptionV3", "torchmetrics"),
    ],
)
def test_logits_and_spatial_features(module, name, protocol, environment, file_with_classifier, images):
    """Of the same pictures and the same file, with a classifier of random numbers."""
    kind = getattr(importlib.import_module(module), name)
    network = kind("inception-v3-compat", ["2048", "logits_unbiased"], str(file_with_classifier)).eval()
    outputs_of = getattr(network, "_torch_fidelity_forward", network)  # torchmetrics calls itself for one output
    kept = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda layer, given, output: kept.append(output))
    with torch.inference_mode():
        features, logits = (x.numpy() for x in outputs_of(torch.from_numpy(images).permute(0, 3, 1, 2)))
    spatial = kept[0].permute(0, 2, 3, 1)[..., :7].reshape(len(images), -1).numpy()

    ours = InceptionV3(protocol=protocol, weights=file_with_classifier, outputs=("features", "spatial"), device="cpu")
    found = ours.forward(np.stack([ours.prepare(image) for image in images]))
    np.testing.assert_allclose(found["features"], features, rtol=0, atol=FEATURES_MIXED)
    np.testing.assert_allclose(found["spatial"], spatial, rtol=0, atol=FEATURES_MIXED)
    scores = found["features"].astype(np.float64) @ ours.classifier().T.astype(np.float64)
    assert scores.shape == (6, 1008)
    assert scores.std() > 0.5
    np.testing.assert_allclose(scores, logits, rtol=0, atol=PEERS_LOGITS)
