"""Lightning, accelerate, TensorBoard, Weights & Biases and MLflow: the files of docs/training.md that use them.

``bash tools/training_loops.sh`` runs these tests, in an environment of their own; ``python -m pytest`` does not collect
them.
"""

import contextlib
import sqlite3

import pages
import pytest
import torch
from tolerances import PRINTED_6_DIGITS

N = pages.IMAGES


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, weights):
    return pages.Workspace(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def untrained(workspace):
    """Lightning's file keeps the weights of the seed, so that the images are known."""
    path = workspace.folder / "lightning_metric.py"
    text = path.read_text()
    assert text.count("Adam(self.parameters())") == 1
    path.write_text(text.replace("Adam(self.parameters())", "Adam(self.parameters(), lr=0)"))
    return workspace


def latents():
    return torch.randn(N, 8)


def test_lightning_adds_up_the_metric_of_two_processes(untrained):
    output = untrained.run("lightning_metric.py")
    expected = untrained.expected([], protocol="torchmetrics", before=latents).value
    assert pages.value(output) == pytest.approx(expected, rel=PRINTED_6_DIGITS)


def test_accelerate_merges_what_each_process_has_seen(workspace):
    output = workspace.torchrun("accelerate_merge.py")
    assert f" of {N} images\n" in output
    assert pages.value(output) == pytest.approx(workspace.expected([(45, 0), (45, 1)]).value, rel=PRINTED_6_DIGITS)


def test_accelerate_gathers_every_image_once(workspace):
    output = workspace.torchrun("accelerate_gather.py")
    assert f" of {N} images\n" in output
    assert pages.value(output) == pytest.approx(workspace.expected([], before=latents).value, rel=PRINTED_6_DIGITS)


def test_tensorboard_shows_value_and_standard_error(workspace):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workspace.run("log_tensorboard.py")
    events = EventAccumulator(str(workspace.folder / "logs")).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves.keys() == {"fid/value", "fid/standard_error"}
    for curve in curves.values():
        assert [step for step, _ in curve] == [0, 1000]
        assert all(value > 0 for _, value in curve)


def test_wandb_keeps_value_and_standard_error_offline(workspace):
    workspace.run("log_wandb.py")
    (log,) = (workspace.folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"fid_standard_error" in content
    assert b"pytorch-fid" in content


LOGGED = {"fid", "fid_standard_error", "kid", "kid_standard_error", "images_real", "images_fake"}


def test_an_evaluator_logs_to_tensorboard(workspace):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workspace.run("log_evaluator_tensorboard.py")
    events = EventAccumulator(str(workspace.folder / "logs-evaluator")).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves.keys() == LOGGED
    assert [step for step, _ in curves["fid"]] == [0, 1000]
    assert curves["fid"][0][1] == pytest.approx(workspace.expected([(N, 0)]).value, rel=PRINTED_6_DIGITS)
    assert curves["images_fake"] == [(0, N), (1000, N)]


def test_an_evaluator_logs_to_wandb(workspace):
    before = set((workspace.folder / "wandb").glob("offline-run-*")) if (workspace.folder / "wandb").exists() else set()
    workspace.run("log_evaluator_wandb.py")
    (run,) = set((workspace.folder / "wandb").glob("offline-run-*")) - before
    (log,) = run.glob("run-*.wandb")
    content = log.read_bytes()
    assert all(name.encode() in content for name in LOGGED)


def test_an_evaluator_logs_to_mlflow(workspace):
    workspace.run("log_evaluator_mlflow.py")
    with contextlib.closing(sqlite3.connect(workspace.folder / "mlflow.db")) as base:
        rows = base.execute("SELECT key, step, value FROM metrics").fetchall()
    assert {key for key, _, _ in rows} == LOGGED
    curve = {step: value for key, step, value in rows if key == "fid"}
    assert curve.keys() == {0, 1000}
    assert curve[0] == pytest.approx(workspace.expected([(N, 0)]).value, rel=PRINTED_6_DIGITS)
