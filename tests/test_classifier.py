"""The classifier behind the features: where it is found, what is refused, and what lacks it."""

import hashlib
import json
import pickle
import re

import numpy as np
import pytest
import skimage.data
import torch
from stubs import GridMeans, classifier_of, weights_with_classifier

from fastfid.errors import WeightsError
from fastfid.evaluation.planned import Planned, network_in_request
from fastfid.features.inception import InceptionV3
from fastfid.features.make import classifier_of as stored_classifier_of
from fastfid.features.weights import IDENTITY, describe, fetch, find_classifier, find_weights, keep_in_cache
from fastfid.features.weights.known import FIDELITY_NAME, OFFICIAL_NAME, OFFICIAL_URL
from fastfid.metrics import make_metrics


@pytest.fixture
def alone(monkeypatch, tmp_path, weights):
    """A cache with the weights without classifier, no FASTFID_WEIGHTS, no files of other tools."""
    monkeypatch.delenv("FASTFID_WEIGHTS", raising=False)
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    keep_in_cache(find_weights(weights_with_classifier(tmp_path, 0, changes=NO_CLASSIFIER)))
    return tmp_path / "torch" / "hub" / "checkpoints"


NO_CLASSIFIER = {"fc.weight": None, "fc.bias": None}


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_the_matrix_of_the_file(zip_format, tmp_path):
    path = weights_with_classifier(tmp_path, 3, zip_format=zip_format)
    extractor = InceptionV3(weights=path, device="cpu")
    assert extractor.identity == IDENTITY  # with or without a classifier
    matrix = extractor.classifier()
    np.testing.assert_array_equal(matrix, classifier_of(3))
    assert matrix.dtype == np.float32
    assert not matrix.flags.writeable
    assert matrix.base is None  # nor is the file kept in memory
    assert extractor.classifier() is matrix
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).classifier(), matrix)


@pytest.mark.parametrize("has_classifier", [True, False])
def test_a_reduction_has_what_the_network_of_the_plan_had(alone, tmp_path, has_classifier):
    path = weights_with_classifier(tmp_path, 3, changes={} if has_classifier else NO_CLASSIFIER)
    metrics = make_metrics(["is"]).values()
    said = json.loads(json.dumps(network_in_request("", InceptionV3(weights=path, device="cpu"), metrics)))
    planned = Planned(said, path)
    if has_classifier:
        np.testing.assert_array_equal(planned.classifier(), classifier_of(3))
    else:
        with pytest.raises(ValueError, match="holds the network without its classifier"):
            planned.classifier()


def test_the_network_starts_without_it(tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("nobody asked for the classifier")

    path = weights_with_classifier(tmp_path, 3)
    monkeypatch.setattr(fetch, "read_classifier", never)
    InceptionV3(weights=path, device="cpu").forward(np.zeros((1, 3, 299, 299), np.float32))


def test_files_without_it(alone, tmp_path):
    sentence = (
        f"holds the network without its classifier; pytorch-fid's {OFFICIAL_NAME} has it: `curl -LO {OFFICIAL_URL}`"
    )
    with pytest.raises(WeightsError, match=re.escape(sentence)) as caught:
        InceptionV3(device="cpu").classifier()
    assert f"`fastfid weights get --weights {OFFICIAL_NAME}`" in str(caught.value)
    # A file that is named is the only one that counts.
    alone.mkdir(parents=True)
    weights_with_classifier(tmp_path, 4).rename(alone / OFFICIAL_NAME)
    named = weights_with_classifier(tmp_path, 5, changes=NO_CLASSIFIER)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(named))}: holds the network without"):
        find_classifier(named)


def test_the_file_of_another_tool(alone, tmp_path, monkeypatch, capfd):
    """Where nobody names a file, it brings what the cached file lacks; a bad one is passed over."""
    extractor = InceptionV3(device="cpu")
    alone.mkdir(parents=True)
    (alone / OFFICIAL_NAME).write_bytes(b"cut off")
    other = weights_with_classifier(tmp_path, 4).rename(alone / FIDELITY_NAME)
    # Its convolutions are the known ones; its classifier may be anything.
    assert "classifier, for the Inception Score: not here: " in describe()
    assert f"{other}: is not the file of that name: its classifier is not taken" in capfd.readouterr().err
    monkeypatch.setattr(fetch, "OFFICIAL_SHA256_PREFIX", hashlib.sha256(other.read_bytes()).hexdigest()[:8])
    np.testing.assert_array_equal(extractor.classifier(), classifier_of(4))
    text = "classifier, for the Inception Score: here, 1008 classes of 2048 features; the hash above does not cover it"
    assert text in describe().splitlines()
    assert f"weights {alone / OFFICIAL_NAME}: not a file of Inception weights" in capfd.readouterr().err


def test_the_remedy(alone, tmp_path):
    """As the message says: hand the file to `fastfid weights get`, which replaces the cached one."""
    keep_in_cache(find_weights(weights_with_classifier(tmp_path, 6)))
    np.testing.assert_array_equal(InceptionV3(device="cpu").classifier(), classifier_of(6))


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (torch.zeros(1000, 2048), r"expected float32 \(torch.FloatStorage\) \(1008, 2048\), got .* \(1000, 2048\)"),
        (torch.zeros(1008, 2048).half(), r"expected float32 .*, got torch.HalfStorage"),
        (torch.zeros(2048, 1008).T, r"expected a contiguous tensor, got strides \(1, 1008\)"),
        (torch.full((1008, 2048), torch.nan), "expected finite values, got NaN or infinity"),
    ],
)
def test_a_classifier_that_is_none(matrix, text, tmp_path):
    path = weights_with_classifier(tmp_path, 3, changes={"fc.weight": matrix})
    assert find_weights(path).identity == IDENTITY  # the features are what they are
    with pytest.raises(WeightsError, match=f"the classifier in .*pth cannot be used: fc.weight: {text}"):
        find_classifier(path)
    assert "classifier, for the Inception Score: not here: the classifier in" in describe(path)


@pytest.mark.parametrize("make", [GridMeans, lambda: InceptionV3(768, device="cpu")])
def test_extractors_without_a_classifier(make):
    with pytest.raises(
        ValueError, match=r"^extractor: \w+(\(dims=768\))? has no classifier; the Inception Score needs"
    ):
        make().classifier()


def test_the_classifier_of_stored_features(tmp_path):
    path = weights_with_classifier(tmp_path, 3)
    meta = {"extractor": IDENTITY, "dims": 2048, "source": "real.store"}
    np.testing.assert_array_equal(stored_classifier_of(meta, path), classifier_of(3))
    for other in ({"extractor": "onnx:x"}, {"dims": 64}, {"extractor": None}):
        with pytest.raises(ValueError, match=r"real\.store: its features are not those of InceptionV3\(dims=2048\)"):
            stored_classifier_of({**meta, **other}, path)


def test_without_a_home_there_are_no_files_of_other_tools(monkeypatch):
    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch.Path, "expanduser", nobody)
    assert fetch._files_of_other_tools() == []


def test_the_real_classifier_where_it_is():
    """It is in no file of the package index: elsewhere the message says what to do."""
    extractor = InceptionV3(device="cpu")
    try:
        matrix = extractor.classifier()
    except WeightsError as error:
        assert OFFICIAL_NAME in str(error)  # noqa: PT017
        return
    features = extractor([getattr(skimage.data, name)() for name in ("chelsea", "coffee", "rocket")])
    logits = features.astype(np.float64) @ matrix.T.astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    # A cat, a cup and a rocket: three classes, of which the network is sure.
    assert len(set(shares.argmax(1))) == 3
    assert (shares.max(1) > 0.2).all()
