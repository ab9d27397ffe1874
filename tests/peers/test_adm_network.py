"""``fastfid adm`` with the real network: torch-fidelity's features and logits, the evaluator's formulas in NumPy."""

import importlib

import numpy as np
import pytest
import torch
from adm_evaluator import frechet, gaussian, inception_score, precision_recall
from PIL import Image
from stubs import weights_with_classifier
from tolerances import ADM_OF_TWO_NETWORKS

from fastfid.cli import main

LABELS = ["Inception Score", "FID", "sFID", "Precision", "Recall"]


@pytest.fixture(scope="module")
def with_classifier(tmp_path_factory):
    return str(weights_with_classifier(tmp_path_factory.mktemp("weights"), 11))


@pytest.fixture(scope="module")
def sets(few):
    return [np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]) for folder in few]


@pytest.fixture(scope="module")
def outputs(environment, with_classifier, sets):
    """Features, spatial features and logits of each set, float64, from torch-fidelity's network."""
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], with_classifier)
    network.eval()
    kept = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda layer, given, output: kept.append(output))
    found = []
    for pictures in sets:
        with torch.inference_mode():
            features, logits = network(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        spatial = kept.pop().permute(0, 2, 3, 1)[..., :7].reshape(len(pictures), -1)
        found.append([x.numpy().astype(float) for x in (features, spatial, logits)])
    return found


def printed(capfd, *argv):
    assert main(["adm", *map(str, argv), "--quiet", "--device", "cpu"]) == 0
    lines = dict(line.split(": ") for line in capfd.readouterr().out.splitlines())
    assert list(lines) == LABELS
    return [float(value) for value in lines.values()]


@pytest.mark.parametrize("stored", [False, True], ids=["images", "statistics of other images too"])
def test_the_five_numbers(tmp_path, sets, outputs, with_classifier, stored, capfd):
    (real, real_s, _), (fake, fake_s, logits) = outputs
    references = [real, real_s]
    arrays = {}
    if stored:  # of another set: the images are those of precision and recall alone
        references = [np.concatenate([rows, 1.1 * rows[::-1] + 0.01]) for rows in references]
        for end, rows in zip(("", "_s"), references, strict=True):
            arrays |= {f"mu{end}": rows.mean(axis=0), f"sigma{end}": np.cov(rows.T)}
    np.savez(tmp_path / "ref.npz", arr_0=sets[0], **arrays)
    np.savez(tmp_path / "samples.npz", arr_0=sets[1])
    found = printed(capfd, tmp_path / "ref.npz", tmp_path / "samples.npz", "--weights", with_classifier)
    distances = [frechet(gaussian(a), gaussian(b)) for a, b in zip(references, (fake, fake_s), strict=True)]
    expected = [inception_score(logits), *distances]
    np.testing.assert_allclose(found[:3], expected, rtol=ADM_OF_TWO_NETWORKS)
    assert found[3:] == list(precision_recall(real, fake))
