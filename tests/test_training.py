"""The files of docs/training.md run as they stand there; those of other packages are run by tests/training."""

import re

import numpy as np
import pages
import pytest
import torch
from tolerances import PRINTED_0, PRINTED_4, PRINTED_6_DIGITS

from fastfid import FID, Statistics, evaluate, frechet_distance
from fastfid.batches import gathering
from fastfid.metrics.moments import FeatureMoments


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, weights):
    return pages.Workspace(tmp_path_factory.mktemp("training"))


def test_every_file_of_the_page_is_run_somewhere():
    here = {"run.py", "loop.py", "several.py", "several_torchmetrics.py", "checkpoint.py"}
    here |= {"several_metrics.py"}
    names = set(pages.files("training.md"))
    assert here < names
    for name in names - here:
        assert any(package in name for package in pages.OF_OTHER_PACKAGES), name
        assert f'"{name}"' in (pages.ROOT / "tests" / "training" / "test_packages.py").read_text()


def test_one_process_and_the_comparison_of_its_checkpoints(workspace):
    printed = [float(number) for number in re.findall(r"^epoch \d: FID (\S+)$", workspace.run("loop.py"), re.MULTILINE)]
    assert printed == [pytest.approx(workspace.expected([(90, epoch)]).value, abs=PRINTED_4) for epoch in (0, 1)]
    (command,) = [words for words in pages.commands("training.md") if "compare" in words]
    report = workspace.run("-m", *command)
    assert re.search(r"^epoch-\d\.npz and epoch-\d\.npz: cannot be told apart with these n; ", report, re.MULTILINE)
    saved = [Statistics.load(workspace.folder / name) for name in ("real.npz", "epoch-1.npz")]
    assert frechet_distance(*saved) == pytest.approx(printed[1], abs=PRINTED_4)


def test_several_metrics(workspace):
    printed = re.findall(r"^epoch \d: (.*)$", workspace.run("several_metrics.py"), re.MULTILINE)
    run = workspace.module()
    torch.manual_seed(0)
    model = run.Generator()
    for epoch, line in enumerate(printed):
        fake = np.concatenate(list(run.batches(model, pages.IMAGES, epoch)))
        truth = evaluate(workspace.folder / "real", fake, metrics=["fid", "kid", "prdc"], dims=64)
        found = dict(item.split() for item in line.split(", "))
        assert list(found) == list(truth)
        for name, value in found.items():
            assert float(value) == pytest.approx(truth[name].value, rel=PRINTED_6_DIGITS)
    assert len(printed) == 2


def test_two_processes_score_their_shares(workspace):
    output = workspace.torchrun("several.py")
    assert output.endswith(" of 90 images\n")
    assert pages.value(output) == pytest.approx(workspace.expected([(45, 0), (45, 1)]).value, rel=PRINTED_6_DIGITS)


def test_two_processes_with_the_replacement_for_torchmetrics(workspace):
    output = workspace.torchrun("several_torchmetrics.py")
    printed = dict(re.findall(r"^rank (\d): FID (\S+)$", output, re.MULTILINE))
    expected = workspace.expected([(45, 0), (45, 1)], protocol="torchmetrics").value
    assert printed.keys() == {"0", "1"}
    assert [float(value) for value in printed.values()] == [pytest.approx(expected, rel=PRINTED_6_DIGITS)] * 2


def test_a_checkpoint_in_the_middle(workspace):
    output = workspace.run("checkpoint.py")
    assert output.endswith(" of 90 images\n")
    assert pages.value(output) == pytest.approx(workspace.expected([(45, 0), (45, 1)]).value, rel=PRINTED_6_DIGITS)


def test_the_sizes_are_those_of_2048_dims(tmp_path):
    rows = np.random.default_rng(0).normal(0, 1, (2400, 2048)).astype(np.float32)
    statistics = Statistics.from_features(rows, {"protocol": "pytorch-fid"})
    fid = FID(real=statistics)
    moments = FeatureMoments(2048)
    moments.update({"features": rows})
    state = FID(dims=2048).state_dict()
    fid.load_state_dict({**state, "real": fid.state_dict()["real"], "fake": moments.state()})
    page = (pages.ROOT / "docs" / "training.md").read_text()
    sent = sum(array.nbytes for array in gathering._arrays_of(fid._shared_state()))
    saved = statistics.save(tmp_path / "a.npz").stat().st_size
    for size, text in ((sent, r"sends about (\d+) MB"), (saved, r"# (\d+) MB, for `fastfid compare`")):
        assert size / 1e6 == pytest.approx(float(re.search(text, page)[1]), abs=PRINTED_0)


def test_the_effect_of_n_is_the_measured_one():
    measured = (pages.ROOT / "docs" / "numerics.md").read_text()
    assert re.search(r"50,000 train against 10,000 test, dims 2048 \| 2 \| fastfid \| FID 3\.11", measured)
    assert re.search(r"5,000 train against 5,000 test, dims 2048 \| 2 \| fastfid \| FID 10\.15", measured)
    for page in ("training.md", "reporting.md"):
        text = " ".join((pages.ROOT / "docs" / page).read_text().split())
        assert "the FID is 3.11 with 50,000 and 10,000 images and 10.15 with 5,000 and 5,000" in text
