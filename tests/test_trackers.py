"""Evaluator.log_to with objects that have the methods of TensorBoard, MLflow and Weights & Biases.

tests/training runs the packages themselves.
"""

import numpy as np
import pytest
from stubs import AllOutputs
from test_fid import images

from fastfid import Evaluator, Statistics
from fastfid.metrics.logits import InceptionScoreMetric

NAMES = ["fid", "fid_standard_error", "kid_torch-fidelity", "images_real", "images_fake"]


class TensorBoard:
    def __init__(self):
        self.said = []

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.said.append((tag, scalar_value, global_step))

    def log(self, *arguments):
        raise AssertionError("add_scalar comes first")


class MLflow:
    def __init__(self):
        self.said = []

    def log_metric(self, key, value, step=None):
        self.said.append((key, value, step))


class WandB:
    def __init__(self):
        self.said = []

    def log(self, data, step=None):
        assert not self.said  # all values of a step at once
        self.said += [(name, value, step) for name, value in data.items()]


@pytest.fixture
def evaluator():
    one = Evaluator(["fid", "kid:torch-fidelity"], extractor=AllOutputs())
    # torch-fidelity's KID draws subsets of 1,000 images.
    one.update(images(1001, 1), real=True)
    one.update(images(1002, 2, high=200), real=False)
    return one


@pytest.mark.parametrize("kind", [TensorBoard, MLflow, WandB])
def test_values_errors_and_numbers_of_images_are_logged(evaluator, kind):
    writer = kind()
    found = evaluator.log_to(writer, np.int64(300))
    assert [name for name, _, _ in writer.said] == NAMES
    values = {name: value for name, value, _ in writer.said}
    assert values["fid"] == found["fid"].value == evaluator.compute()["fid"].value
    assert values["fid_standard_error"] == found["fid"].standard_error > 0
    assert values["kid_torch-fidelity"] == found["kid:torch-fidelity"].value
    assert (values["images_real"], values["images_fake"]) == (1001, 1002)
    assert all(type(value) is float and type(step) is int and step == 300 for _, value, step in writer.said)


def test_a_standard_error_that_is_unknown_is_not_logged():
    one = Evaluator([InceptionScoreMetric()], extractor=AllOutputs())
    one.update(images(20, 1), real=True)
    one.update(images(20, 2), real=False)
    writer = WandB()
    one.log_to(writer, 0)
    assert [name for name, _, _ in writer.said] == ["is", "images_real", "images_fake"]


def test_a_number_of_images_that_is_unknown_is_not_logged():
    meta = {"protocol": "none", "extractor": AllOutputs().identity}
    one = Evaluator(["fid"], real=Statistics(np.zeros(12), np.eye(12), meta=meta), extractor=AllOutputs())
    one.update(images(20, 2))
    writer = WandB()
    one.log_to(writer, 0)
    assert [name for name, _, _ in writer.said] == ["fid", "fid_standard_error", "images_fake"]


@pytest.mark.parametrize(
    ("writer", "step", "said"),
    [
        (object(), 0, r"writer: expected an object with add_scalar .*, log_metric .* or log .*; got object"),
        (MLflow(), 1.5, r"step: expected an integer, got 1\.5"),
        (MLflow(), True, "step: expected an integer, got True"),
        (MLflow(), None, "step: expected an integer, got None"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(evaluator, monkeypatch, writer, step, said):
    monkeypatch.setattr(Evaluator, "compute", lambda self: pytest.fail("was computed"))
    with pytest.raises(TypeError, match=said):
        evaluator.log_to(writer, step)
