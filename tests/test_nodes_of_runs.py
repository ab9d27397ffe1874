"""Parts of nodes replace those of their children: the same bits, a small directory, and nothing lost by a kill."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import AllOutputs, GridMeans

from fastfid import evaluate, segments
from fastfid.errors import ImageError, SkippedImagesWarning
from fastfid.evaluation import steps
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing
from fastfid.scale.run import RunDirectory as Run

TESTS = str(Path(__file__).parent)
METRICS = ["fid", "sfid"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two folders of 250 and of 130 pictures; segments of 10, three of which are a node."""
    monkeypatch.setattr(segments, "SEGMENT", 10)
    monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(10, 0))
    rng = np.random.default_rng(0)
    for name, high, number in (("real", 256, 250), ("fake", 200, 130)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.fromarray(rng.integers(0, high, (5, 5, 3), dtype=np.uint8)).save(tmp_path / name / f"{i:03}.bmp")
    return tmp_path / "real", tmp_path / "fake"


class Unused(AllOutputs):
    def forward(self, batch):
        raise AssertionError("the network ran")


def kinds(run, side):
    """The images and levels of the Parts of a side."""
    names = [path.stem.split("-") for path in sorted((Path(run) / "parts" / side).glob("*.npz"))]
    return [f"{count}-{kind}" for _, count, kind in names]


REAL = ["90-node2", "90-node2", "30-node1", "30-node1", "10-node0"]  # of 250
FAKE = ["90-node2", "30-node1", "10-node0"]  # of 130


def test_complete_nodes_replace_their_children_with_the_same_bits(pictures, tmp_path):
    plain = evaluate(*pictures, metrics=METRICS, extractor=AllOutputs())
    run = RunDirectory(tmp_path / "run")
    found = evaluate(*pictures, metrics=METRICS, extractor=AllOutputs(), run_dir=run)
    assert dict(found) == dict(plain)
    assert (run.done, run.found) == (25 + 13, 0)
    assert (kinds(run.path, "real"), kinds(run.path, "fake")) == (REAL, FAKE)
    again = RunDirectory(tmp_path / "run")
    assert dict(evaluate(*pictures, metrics=METRICS, extractor=Unused(), run_dir=again)) == dict(plain)
    assert (again.done, again.found) == (0, 25 + 13)


@pytest.mark.parametrize("level", [1, 2])
def test_tasks_may_be_nodes_themselves(pictures, tmp_path, monkeypatch, level):
    plain = evaluate(*pictures, extractor=GridMeans())
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(10 * 3**level, level))
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")) == dict(plain)
    assert kinds(tmp_path / "run", "real") == {1: ["90-node2", "90-node2", "30-node1", "30-node1", "10-node1"]}.get(
        level, ["90-node2", "90-node2", "70-node2"]
    )


class Shuffled:
    """Does the tasks in another order, and writes every second Part itself."""

    def __init__(self, run, seed):
        self._run, self._random = run, random.Random(seed)

    def run(self, tasks, work):
        tasks = list(tasks)
        self._random.shuffle(tasks)
        for number, task in enumerate(tasks):
            part = work(task)
            if number % 2:
                part.save(self._run.file_of(task))
            yield task, None if number % 2 else part


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_arrival_has_no_effect(pictures, tmp_path, seed):
    plain = evaluate(*pictures, metrics=METRICS, extractor=AllOutputs())
    run = RunDirectory(tmp_path / "run")
    run._engine = Shuffled(run, seed)
    assert dict(evaluate(*pictures, metrics=METRICS, extractor=AllOutputs(), run_dir=run)) == dict(plain)
    assert (kinds(run.path, "real"), kinds(run.path, "fake")) == (REAL, FAKE)


def test_the_directory_stays_small_while_the_tasks_are_done(pictures, tmp_path, monkeypatch):
    most, keep = 0, Run.keep

    def counting(self, task, part):
        nonlocal most
        keep(self, task, part)
        most = max(most, len(kinds(tmp_path / "run", "real")))

    monkeypatch.setattr(Run, "keep", counting)
    evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    assert most == 2 + 1 + 3  # two of level 2, one of level 1 and three segments, before these are merged


def test_rows_of_all_images_are_not_merged(pictures, tmp_path):
    plain = evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans())
    found = evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=tmp_path / "run")
    assert dict(found) == dict(plain)
    assert kinds(tmp_path / "run", "fake") == ["10-node0"] * 13


def test_parts_of_several_processes_are_reduced_without_a_change_of_the_directory(pictures, tmp_path):
    plain = evaluate(*pictures, extractor=GridMeans())
    steps.plan(*pictures, tmp_path / "run", extractor=GridMeans())
    for index in (2, 0, 1):
        steps.part(tmp_path / "run", index, 3, extractor=GridMeans())
    before = kinds(tmp_path / "run", "real")
    assert dict(steps.reduce(tmp_path / "run")) == dict(plain)
    assert kinds(tmp_path / "run", "real") == before == ["10-node0"] * 25
    evaluate(*pictures, extractor=Unused(), run_dir=tmp_path / "run")  # merges
    assert kinds(tmp_path / "run", "real") == REAL
    assert steps.part(tmp_path / "run", extractor=Unused()) == 0
    assert dict(steps.reduce(tmp_path / "run")) == dict(plain)


def test_a_damaged_node_is_made_again_from_its_images(pictures, tmp_path, capsys):
    plain = evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    path = sorted((tmp_path / "run" / "parts" / "real").glob("*node2.npz"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    run = RunDirectory(tmp_path / "run")
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir=run)) == dict(plain)
    assert run.done == 9
    assert kinds(tmp_path / "run", "real") == REAL
    assert f"{path}: is damaged" in capsys.readouterr().err


def test_images_that_are_added_leave_the_nodes(pictures, tmp_path):
    evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    for i in range(40):
        (pictures[0] / f"{i:03}.bmp").rename(pictures[1] / f"x{i:03}.bmp")
    for i in range(40):
        Image.new("RGB", (5, 5), (i, 3 * i, 9)).save(pictures[0] / f"{i:03}.bmp")
    run = RunDirectory(tmp_path / "run", changed="fresh")
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    for i in range(40):
        (pictures[1] / f"y{i:03}.bmp").write_bytes((pictures[1] / f"{i:03}.bmp").read_bytes())
    run = RunDirectory(tmp_path / "run", changed="extend")
    options = {"extractor": GridMeans(), "force": True}
    with pytest.warns(match="only repeat others exactly"):
        plain = evaluate(*pictures, **options)
    with pytest.warns(match="only repeat others exactly"):
        found = evaluate(*pictures, **options, run_dir=run)
    assert dict(found) == dict(plain)
    assert run.done == 4
    assert kinds(run.path, "fake") == ["90-node2", "90-node2", "30-node1"]


def test_too_many_unreadable_images_end_the_run_early(pictures, tmp_path):
    for i in (3, 14, 15):
        (pictures[0] / f"{i:03}.bmp").write_bytes(b"no picture")
    options = {"extractor": GridMeans(), "on_error": "skip", "run_dir": tmp_path / "run"}
    with pytest.raises(ImageError, match=r"003\.bmp .*: 3 unreadable images, at most 2 are accepted"):
        evaluate(*pictures, **options, max_errors=2)
    assert kinds(tmp_path / "run", "real") == ["10-node0"] * 2
    with pytest.warns(SkippedImagesWarning, match="skipped 3 unreadable images"):
        found = evaluate(*pictures, **options, max_errors=3)
    assert found.real.n == 247


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from stubs import GridMeans
from fastfid import evaluate, segments
from fastfid.scale.plan import Sizing

segments.SEGMENT, segments.RADIX = 10, 3
Sizing.choose = lambda n, workers, images: Sizing(10, 0)
left = {moment}

def counted(call):
    def until(*args, **options):
        global left
        if "parts" in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        found = call(*args, **options)
        if "parts" in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return found
    return until

os.replace, Path.unlink = counted(os.replace), counted(Path.unlink)
evaluate({a!r}, {b!r}, extractor=GridMeans(), run_dir={run!r})
"""


def test_a_kill_around_each_rename_and_each_removal_loses_nothing(pictures, tmp_path):
    """Killed before and after the renames and removals of the first nodes, on one directory again and again."""
    plain = evaluate(*pictures, extractor=GridMeans())
    for moment in (7, 9, 10, 11, 13, 2, 5, 31):
        script = KILLED.format(
            tests=TESTS, moment=moment, a=str(pictures[0]), b=str(pictures[1]), run=str(tmp_path / "run")
        )
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        for path in (tmp_path / "run" / "parts").glob("*/*.npz"):
            assert np.load(path).files  # whole
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")) == dict(plain)
    assert (kinds(tmp_path / "run", "real"), kinds(tmp_path / "run", "fake")) == (REAL, FAKE)
