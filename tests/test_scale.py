"""Run directories: the bits of one process, whatever is killed, retried, damaged or done by others."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import launching
import numpy as np
import pytest
from PIL import Image
from stubs import AllOutputs, GridMeans

from fastfid import cli, evaluate, segments
from fastfid.errors import ImageError, NumericalError, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.evaluation import steps
from fastfid.evaluation.planned import Planned, PlannedSource, request_of
from fastfid.metrics import make_metrics
from fastfid.metrics.several import Accumulators
from fastfid.reservoir import sample_below
from fastfid.scale import RunDirectory
from fastfid.scale.part import Part, run_task
from fastfid.scale.plan import Sizing
from fastfid.scale.reduce import Reduction
from fastfid.sources import open_source

METRICS = ["fid", "kid", "prdc"]
TESTS = str(Path(__file__).parent)


@pytest.fixture
def pictures(tmp_path):
    """Two folders, of 130 and of 95 pictures."""
    return launching.make_pictures(tmp_path)


@pytest.fixture
def small(monkeypatch):
    """Segments of 20 images, three of which are a node."""
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(segments, "RADIX", 3)


class Unused(AllOutputs):
    def forward(self, batch):
        raise AssertionError("the network ran")


class UnusedMeans(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network ran")


def without_run(record):
    """What a record has that does not depend on how and when the run was done."""
    return {key: value for key, value in record.items() if key not in ("seconds", "date", "run")}


def files(run):
    return sorted((Path(run) / "parts").rglob("*.npz"))


SIZINGS = [Sizing(1), Sizing(7), Sizing(20), Sizing(20, 0), Sizing(60, 1), Sizing(180, 2)]


@pytest.mark.parametrize("sizing", SIZINGS, ids=str)
@pytest.mark.parametrize("processes", [1, 3])
def test_tasks_of_any_size_give_the_bits_of_one_process(pictures, tmp_path, small, monkeypatch, sizing, processes):
    plain = evaluate(*pictures, metrics="all", extractor=AllOutputs())
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: sizing)
    run = tmp_path / "run"
    tasks = steps.plan(*pictures, run, metrics="all", extractor=AllOutputs())
    assert tasks == -(-130 // sizing.images) + -(-95 // sizing.images)
    indices = list(range(processes))
    random.Random(processes).shuffle(indices)
    assert sum(steps.part(run, index, processes, extractor=AllOutputs()) for index in indices) == tasks
    assert steps.part(run, extractor=Unused()) == 0
    directory = RunDirectory(run)
    found = evaluate(*pictures, metrics="all", extractor=Unused(), run_dir=directory)
    assert (directory.done, directory.found) == (0, tasks)
    assert dict(found) == dict(plain)
    assert without_run(found.to_dict()) == without_run(plain.to_dict())


@pytest.mark.parametrize("n", [2, 19, 20, 21, 59, 60, 61, 130])
def test_sets_of_any_size_count_every_image_once(pictures, tmp_path, small, n):
    plain = evaluate(*pictures, extractor=GridMeans(), num=min(n, 95))
    run = RunDirectory(tmp_path / "run", task_images=20)
    found = evaluate(*pictures, extractor=GridMeans(), num=min(n, 95), run_dir=run)
    assert found.real.n == min(n, 95)
    assert found["fid"].value == plain["fid"].value


def test_the_reduction_reads_no_image_and_needs_no_network(pictures, tmp_path):
    plain = evaluate(*pictures, metrics=METRICS, extractor=GridMeans())
    steps.plan(*pictures, tmp_path / "run", metrics=METRICS, extractor=GridMeans())
    with pytest.raises(
        ValueError, match=r"8 of 8 Parts are missing, first that of images 0 to 31 of real; fastfid part"
    ):
        steps.reduce(tmp_path / "run")
    steps.part(tmp_path / "run", extractor=GridMeans())
    for folder in pictures:
        shutil.rmtree(folder)
    found = steps.reduce(tmp_path / "run")
    assert dict(found) == dict(plain)
    with pytest.raises(ValueError, match="was made with the network grid-means; pass it"):
        steps.part(tmp_path / "run")


def test_a_plan_is_of_the_folder_it_was_made_in(pictures, tmp_path, monkeypatch):
    """Relative paths mean in another folder what they meant; where the folder is gone, a reduction needs none."""
    plain = evaluate(*pictures, extractor=AllOutputs())
    monkeypatch.chdir(tmp_path)
    steps.plan("real", "fake", tmp_path / "run", extractor=AllOutputs(), num=np.int64(90), value_range=None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    steps.part(tmp_path / "run", extractor=AllOutputs())
    plain = evaluate(*pictures, extractor=AllOutputs(), num=90)
    assert dict(steps.reduce(tmp_path / "run")) == dict(plain)
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path / "made")
    steps.plan(*pictures, tmp_path / "other", extractor=AllOutputs(), num=90)
    steps.part(tmp_path / "other", extractor=AllOutputs())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").rmdir()
    assert steps.work_where_planned("other") == str(tmp_path / "other")
    assert os.getcwd() == str(tmp_path)
    assert dict(steps.reduce("other")) == dict(plain)


def test_a_set_by_another_path_is_that_set(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = evaluate(*pictures, extractor=AllOutputs(), run_dir="run")
    run = RunDirectory("run")
    found = evaluate("real", "fake", extractor=Unused(), run_dir=run)
    assert (dict(found), run.done, run.found) == (dict(plain), 0, len(run.plan.tasks))
    assert [side.name for side in run.plan.sides.values()] == ["real", "fake"]


def test_what_stands_for_sets_and_networks_in_a_reduction_reads_nothing(pictures, tmp_path):
    steps.plan(*pictures, tmp_path / "run", extractor=AllOutputs())
    run = RunDirectory(tmp_path / "run", reads_images=False)
    source = PlannedSource("real", run.plan)
    assert (source.name, len(source)) == (str(pictures[0]), 130)
    with pytest.raises(RuntimeError, match="real: a reduction reads no image"):
        list(source)
    network = Planned(request_of(run)["networks"][0], None)
    assert (network.dims, network.identity) == (12, "grid-means")
    for call in (network.prepare, network.forward):
        with pytest.raises(RuntimeError, match="a reduction reads no image"):
            call(np.zeros((1, 2, 2, 3), np.uint8))


def test_statistics_on_one_side(pictures, tmp_path):
    from fastfid import compute_statistics

    file = compute_statistics(pictures[0], extractor=GridMeans()).save(tmp_path / "real.npz")
    plain = evaluate(file, pictures[1], extractor=GridMeans())
    assert steps.plan(file, pictures[1], tmp_path / "run", extractor=GridMeans()) == 3
    steps.part(tmp_path / "run", extractor=GridMeans())
    assert dict(steps.reduce(tmp_path / "run")) == dict(plain)
    with pytest.raises(ValueError, match="both sets are statistics or stores: there are no images to read"):
        steps.plan(file, file, tmp_path / "other", extractor=GridMeans())


def test_a_store_on_one_side(pictures, tmp_path):
    evaluate(*pictures, extractor=GridMeans(), store=tmp_path / "stores")
    store = next((tmp_path / "stores").glob("real-*"))
    plain = evaluate(store, pictures[1], metrics=METRICS, extractor=GridMeans())
    assert steps.plan(store, pictures[1], tmp_path / "run", metrics=METRICS, extractor=GridMeans()) == 3
    steps.part(tmp_path / "run", extractor=GridMeans())
    assert dict(steps.reduce(tmp_path / "run")) == dict(plain)


def test_shards_that_are_damaged_have_tasks_too(pictures, tmp_path, small):
    """What is lost counts as one image; the images after it keep their index."""
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for i in range(40):
                archive.add(pictures[0] / f"{40 * shard + i:03}.png", f"{shard}-{i:02}.png")
    data = bytearray((tmp_path / "1.tar").read_bytes())
    data[data.index(b"1-25.png") + 3] ^= 1
    (tmp_path / "1.tar").write_bytes(data)
    (tmp_path / "2.tar").rename(tmp_path / "3.tar")
    (tmp_path / "2.tar").write_bytes(b"no tar")
    sides, options = (f"{tmp_path}/*.tar", str(pictures[1])), {"extractor": GridMeans(), "on_error": "skip"}
    with pytest.warns(SkippedImagesWarning, match="skipped 2 unreadable images"):
        plain = evaluate(*sides, metrics=METRICS, **options)
    assert plain.real.n == 40 + 25 + 40
    steps.plan(*sides, RunDirectory(tmp_path / "run", task_images=9), metrics=METRICS, **options)
    for index in (1, 0):
        steps.part(tmp_path / "run", index, 2, extractor=GridMeans())
    with pytest.warns(SkippedImagesWarning, match="skipped 2 unreadable images"):
        found = steps.reduce(tmp_path / "run")
    assert (dict(found), found.skipped) == (dict(plain), plain.skipped)


def test_labels_and_rules_of_float_images_go_through_a_plan(pictures, tmp_path):
    floats = tmp_path / "floats.npy"
    np.save(floats, np.random.default_rng(2).uniform(-1, 1, (50, 9, 11, 3)).astype(np.float32))
    options = {"value_range": (-1, 1), "to_uint8": "truncate", "labels": {"real": None, "fake": None}}
    plain = evaluate(floats, pictures[1], extractor=GridMeans(), **options)
    steps.plan(floats, pictures[1], tmp_path / "run", extractor=GridMeans(), **options)
    steps.part(tmp_path / "run", extractor=GridMeans())
    found = steps.reduce(tmp_path / "run")
    assert dict(found) == dict(plain)
    assert found.real.meta == plain.real.meta
    assert found.real.meta["to_uint8"] == "truncate"


@pytest.mark.parametrize("sizing", [Sizing(20), Sizing(20, 0), Sizing(60, 1)], ids=str)
def test_skipped_images_are_counted_over_all_tasks(pictures, tmp_path, small, monkeypatch, sizing):
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: sizing)
    for i in (0, 25, 26, *range(40, 60), 129):  # all of the third segment
        (pictures[0] / f"{i:03}.png").write_bytes(b"no picture")

    skipping = {"metrics": METRICS, "extractor": GridMeans(), "on_error": "skip"}

    def run(**options):
        with pytest.warns(SkippedImagesWarning, match="skipped 24 unreadable images"):
            return evaluate(*pictures, **skipping, **options)

    plain, found = run(), run(run_dir=tmp_path / "run")
    assert found.skipped == plain.skipped
    assert found.real.n == 106
    assert dict(found) == dict(plain)
    assert dict(run(run_dir=tmp_path / "run", max_errors=24)) == dict(plain)
    with pytest.raises(ImageError, match=r"000\.png .*: 24 unreadable images, at most 23 are accepted"):
        evaluate(*pictures, **skipping, run_dir=tmp_path / "run", max_errors=23)
    shutil.copy(pictures[0] / "001.png", pictures[0] / "000.png")
    with pytest.raises(ImageError, match=r"025\.png"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "other")
    assert len(files(tmp_path / "other")) == 20 // sizing.images  # what was done before the error is kept


def test_likely_mistakes_are_found_over_all_tasks(tmp_path):
    for name, number in (("real", 90), ("fake", 90)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.fromarray(np.full((9, 11, 3), 3 + i % 50, np.uint8)).save(tmp_path / name / f"{i:03}.png")
    sets = [tmp_path / "real", tmp_path / "fake"]

    def remarks(**options):
        with pytest.warns(SuspiciousInputWarning) as found:
            evaluate(*sets, extractor=GridMeans(), force=True, **options)
        return [str(one.message) for one in found]

    plain = remarks()
    assert len(plain) == 3
    assert remarks(run_dir=tmp_path / "run") == plain == remarks(run_dir=tmp_path / "run")


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from stubs import GridMeans
from fastfid import evaluate
from fastfid.scale import RunDirectory

class Slow(GridMeans):
    def forward(self, batch):
        time.sleep({seconds})
        return super().forward(batch)

evaluate({a!r}, {b!r}, metrics=["fid", "kid", "prdc"], extractor=Slow(), run_dir=RunDirectory({run!r}, task_images=10))
"""


def killed(pictures, run, seconds, when):
    """Start a run, and kill it as soon as `when` returns true; return whether it ended by itself."""
    script = SLOW.format(tests=TESTS, a=str(pictures[0]), b=str(pictures[1]), run=str(run), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not when():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == 0


def test_a_run_that_was_killed_does_again_only_what_was_in_flight(pictures, tmp_path, capsys):
    run = tmp_path / "run"
    assert not killed(pictures, run, 0.02, lambda: len(files(run)) >= 6)
    kept = len(files(run))
    assert 6 <= kept < 23
    capsys.readouterr()
    directory = RunDirectory(run)
    found = evaluate(*pictures, metrics=METRICS, extractor=GridMeans(), run_dir=directory)
    assert (directory.found, directory.done) == (kept, 23 - kept)
    assert f"fastfid: {pictures[0]}: {min(kept, 13)} of 13 tasks were done before\n" in capsys.readouterr().err
    assert dict(found) == dict(evaluate(*pictures, metrics=METRICS, extractor=GridMeans()))


def test_a_kill_at_any_moment_leaves_no_torn_part(pictures, tmp_path):
    """Most of the time of this run is the writing of Parts."""
    run = tmp_path / "run"
    rng = random.Random(0)
    for _ in range(6):
        limit = len(files(run)) + 1
        moment = time.monotonic() + 60

        def when(limit=limit):
            nonlocal moment
            if len(files(run)) >= limit:
                moment = min(moment, time.monotonic() + rng.random() * 0.03)
            return time.monotonic() >= moment

        if killed(pictures, run, 0, when):
            break
        for path in files(run):
            with np.load(path) as part:  # whole
                assert all(part[name] is not None for name in part.files)
    found = evaluate(*pictures, metrics=METRICS, extractor=GridMeans(), run_dir=run)
    assert dict(found) == dict(evaluate(*pictures, metrics=METRICS, extractor=GridMeans()))


def test_two_runs_at_once_on_one_folder_do_no_harm(pictures, tmp_path):
    run = tmp_path / "run"
    script = SLOW.format(tests=TESTS, a=str(pictures[0]), b=str(pictures[1]), run=str(run), seconds=0.002)
    both = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    found = evaluate(*pictures, metrics=METRICS, extractor=UnusedMeans(), run_dir=run)
    assert dict(found) == dict(evaluate(*pictures, metrics=METRICS, extractor=GridMeans()))


def test_parts_of_different_machines_are_said(pictures, tmp_path, monkeypatch, capsys):
    steps.plan(*pictures, tmp_path / "run", extractor=GridMeans())
    steps.part(tmp_path / "run", 0, 2, extractor=GridMeans())
    monkeypatch.setattr("fastfid.scale.part.build_info", lambda: {"blas": "another processor"})
    steps.part(tmp_path / "run", 1, 2, extractor=GridMeans())
    steps.reduce(tmp_path / "run")
    said = capsys.readouterr().err
    assert f"{pictures[0]}: its Parts are of different machines" in said
    assert "another processor" in said


def test_what_killed_writers_left_is_removed_after_a_day(pictures, tmp_path):
    evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    old, young = (tmp_path / "run" / "parts" / "real" / f".x.{age}.tmp" for age in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half a Part")
    os.utime(old, (0, 0))
    evaluate(*pictures, extractor=Unused(), run_dir=tmp_path / "run")
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("where", [0.001, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_byte_is_said_and_the_part_made_again(pictures, tmp_path, capsys, where):
    run = tmp_path / "run"
    plain = evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    path = files(run)[1]
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0x10
    path.write_bytes(data)
    directory = RunDirectory(run)
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir=directory)) == dict(plain)
    said = capsys.readouterr().err
    if directory.done:  # else a byte that means nothing, such as the date of a member
        assert directory.done == 1
        assert f"{path}: is damaged" in said
        assert Path(f"{path}.bad").exists()
        path.write_bytes(b"")
        steps.plan(*pictures, run, extractor=GridMeans())
        with pytest.raises(ValueError, match="1 of 8 Parts are missing"):
            steps.reduce(run)


def test_every_damage_of_the_content_is_found(pictures, tmp_path):
    run = RunDirectory(tmp_path / "run")
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    task = run.plan.tasks[0]
    path = run.file_of(task)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["rows/features"] = arrays["rows/features"] * 2
    np.savez(path, **arrays)
    assert run.load(task) is None
    for data in (b"", b"no zip", path.with_suffix(".npz.bad").read_bytes()[:-30]):
        path.write_bytes(data)
        assert run.load(task) is None


class Other(GridMeans):
    identity = "another network"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"extractor": Other()}, "extractor is grid-means there, another network here; --fresh starts over"),
        ({"extractor": GridMeans(3)}, "dims is 12 there, 27 here"),
        ({"alpha": True}, "options alpha is False there, True here"),
        ({"on_error": "skip"}, "on_error is raise there, skip here"),
        ({"metrics": ["fid", "kid"]}, "metrics is "),
    ],
)
def test_runs_of_something_else_are_refused(pictures, tmp_path, change, text):
    run = tmp_path / "run"
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    with pytest.raises(ValueError, match=rf"run: is of another run: {text}"):
        evaluate(*pictures, run_dir=run, **{"extractor": GridMeans(), **change})
    fresh = evaluate(*pictures, run_dir=RunDirectory(run, changed="fresh"), **{"extractor": GridMeans(), **change})
    assert dict(fresh) == dict(evaluate(*pictures, **{"extractor": GridMeans(), **change}))


def test_metrics_that_need_what_the_parts_have_share_a_run(pictures, tmp_path):
    evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=tmp_path / "run")
    names = ["fid", "fid-infinity", "kid", "prdc"]
    found = evaluate(*pictures, metrics=names, extractor=UnusedMeans(), run_dir=tmp_path / "run")
    assert dict(found) == dict(evaluate(*pictures, metrics=names, extractor=GridMeans()))


def test_other_versions_are_refused(pictures, tmp_path, monkeypatch):
    run = tmp_path / "run"
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    monkeypatch.setattr("fastfid.scale.plan.__version__", "9.9")
    with pytest.raises(ValueError, match=r"fastfid is .* there, 9\.9 here"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    monkeypatch.undo()
    monkeypatch.setattr("fastfid.scale.plan.package_versions", lambda: {"pillow": "0.1"})
    with pytest.raises(ValueError, match="is of another run: versions "):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)


def test_a_part_of_another_plan_is_refused(pictures, tmp_path):
    evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "a")
    evaluate(*pictures, extractor=GridMeans(), exif=True, run_dir=tmp_path / "b")
    shutil.copy(files(tmp_path / "a")[0], files(tmp_path / "b")[0])
    with pytest.raises(ValueError, match=r"b/parts/.*npz: is a Part of another plan"):
        evaluate(*pictures, extractor=GridMeans(), exif=True, run_dir=tmp_path / "b")


def test_images_that_changed_are_refused(pictures, tmp_path):
    run = tmp_path / "run"
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    Image.new("RGB", (9, 11)).save(pictures[0] / "070.png")
    with pytest.raises(
        ValueError, match=r"the files of 1 of 5 tasks of .*real have changed .* first those of images 64 to 95"
    ):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    with pytest.raises(ValueError, match=r"images 64 to 95 of .*real are others than those of the plan"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=RunDirectory(run, changed="extend"))
    (pictures[1] / "050.png").unlink()
    (pictures[0] / "070.png").unlink()
    with pytest.raises(ValueError, match=r"real had 130 images when the plan was made, and has 129 now; --fresh"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    with pytest.raises(ValueError, match="has fewer images than the 130 of the plan"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=RunDirectory(run, changed="extend"))
    found = evaluate(*pictures, extractor=GridMeans(), run_dir=RunDirectory(run, changed="fresh"))
    assert dict(found) == dict(evaluate(*pictures, extractor=GridMeans()))


def test_images_that_change_while_they_are_read_are_not_counted(pictures, tmp_path):
    class Changing(GridMeans):
        def forward(self, batch):
            (pictures[0] / "040.png").touch()
            return super().forward(batch)

    with pytest.raises(ValueError, match=r"real: the files of images 32 to 63 are others than when the plan was made"):
        evaluate(*pictures, extractor=Changing(), run_dir=tmp_path / "run")
    assert len(files(tmp_path / "run")) == 1


def test_a_set_to_which_images_were_added_goes_on(pictures, tmp_path, small):
    run = tmp_path / "run"
    evaluate(*pictures, extractor=GridMeans(), run_dir=RunDirectory(run, task_images=20))
    for i in range(130, 171):
        shutil.copy(pictures[1] / "003.png", pictures[0] / f"{i}.png")
    with pytest.raises(ValueError, match=r"had 130 images .* has 171 now; --fresh starts over; --extend keeps"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    with pytest.warns(SuspiciousInputWarning):
        plain = evaluate(*pictures, extractor=GridMeans())
    directory = RunDirectory(run, changed="extend")
    with pytest.warns(SuspiciousInputWarning):
        found = evaluate(*pictures, extractor=GridMeans(), run_dir=directory)
    assert (directory.found, directory.done) == (6 + 5, 3)  # the last task of before had 10 images
    assert dict(found) == dict(plain)


def test_each_part_counts_once_and_another_one_is_an_error(pictures, tmp_path, small):
    run = RunDirectory(tmp_path / "run", task_images=20)
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    side = run.plan.sides["real"]
    metrics = make_metrics(["fid"])
    parts = [run.load(task) for task in side.tasks]
    random.Random(1).shuffle(parts)

    def reduced(parts):
        accumulators = Accumulators(metrics, {"features": 12})
        reduction = Reduction(side, accumulators, metrics, None)
        for part in parts:
            reduction.add(part)
        return reduction, accumulators[("fid",)] if ("fid",) in accumulators else next(iter(accumulators.values()))

    once, twice = reduced(parts), reduced([*parts, *parts[::-1], parts[0]])
    assert once[0].report.n == twice[0].report.n == 130
    assert once[1].total().covariance().tobytes() == twice[1].total().covariance().tobytes()
    assert reduced(parts[1:])[0].missing == [next(task for task in side.tasks if task.key == parts[0].key)]
    changed = {**parts[0].arrays, "rows/features": parts[0].arrays["rows/features"] + 1}
    other = Part(parts[0].key, parts[0].n, [], changed)
    with pytest.raises(ValueError, match="gave two Parts that differ"):
        reduced([*parts, other])
    task = next(task for task in side.tasks if task.key == other.key)
    run.keep(task, parts[0])
    with pytest.raises(ValueError, match="two processes made this Part, and the two differ"):
        run.keep(task, other)
    with pytest.raises(ValueError, match="a Part is of another plan"):
        reduced([Part("no key", 0, [], {})])


def test_equal_tasks_give_equal_parts(pictures, tmp_path):
    run = RunDirectory(tmp_path / "run")
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    task = run.plan.tasks[2]
    for workers in (0, 3):
        again = run_task(task, open_source(str(pictures[0])), GridMeans(), make_metrics(["fid"]), num_workers=workers)
        assert again.digest == run.load(task).digest


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(pictures, tmp_path):
    run = tmp_path / "run"
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        sys.path.insert(0, {TESTS!r})
        from stubs import GridMeans
        from fastfid import evaluate
        from fastfid.scale import RunDirectory
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = RunDirectory({str(run)!r}, task_images=20)
        keep = RunDirectory.keep

        def limited(self, task, part):
            if task.first == 60:
                resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
            keep(self, task, part)

        RunDirectory.keep = limited
        evaluate({str(pictures[0])!r}, {str(pictures[1])!r}, extractor=GridMeans(), run_dir=run)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "/run/parts/real/000000000060-20-rows.npz" in done.stderr.splitlines()[-1]
    assert list(run.rglob("*.tmp")) == []
    directory = RunDirectory(run)
    found = evaluate(*pictures, extractor=GridMeans(), run_dir=directory)
    assert directory.found == 3
    assert dict(found) == dict(evaluate(*pictures, extractor=GridMeans()))


def test_features_that_are_not_finite_make_no_part(pictures, tmp_path, small, monkeypatch):
    class Failing(GridMeans):
        def forward(self, batch):
            return np.full((len(batch), 12), np.nan, np.float32)

    with pytest.raises(NumericalError, match=r"real: images from number 0 on, counted from 0: the output features has"):
        evaluate(*pictures, extractor=Failing(), run_dir=tmp_path / "rows")
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(20, 0))
    with pytest.raises(NumericalError, match=r"real: fid: images from number 0 on, counted from 0: "):
        evaluate(*pictures, extractor=Failing(), run_dir=tmp_path / "nodes")
    assert files(tmp_path) == []


def test_tasks_are_small_enough_and_not_too_many():
    for n, workers in ((100, 1), (50_000, 1), (50_000, 8), (1_000_000, 64)):
        sizing = Sizing.choose(n, workers, None)
        assert sizing.level is None
        assert sizing.images <= max(32, -(-n // (20 * workers)))
    large, largest = Sizing.choose(10_000_000, 4, None), Sizing.choose(10**9, 64, None)
    assert large == Sizing(segments.SEGMENT, 0, sample_below(10_000_000))
    assert largest == Sizing(segments.SEGMENT * 16, 1, sample_below(10**9))
    with pytest.raises(ValueError, match="task_images: expected at most a segment, 16,469, got 20,000"):
        Sizing.choose(10, 1, 20_000)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"changed": "maybe"}, "changed: expected one of refuse, fresh, extend; got 'maybe'"),
        ({"workers": 0}, "workers: expected 1 or more, got 0"),
        ({"task_images": -1}, "task_images: expected 1 or more, got -1"),
    ],
)
def test_bad_options(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        RunDirectory(tmp_path, **options)


def test_what_has_no_tasks_is_refused(pictures, tmp_path):
    images = np.zeros((9, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="array: is not made of files"):
        evaluate(images, pictures[1], extractor=GridMeans(), run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="<genexpr>: the number of images is not known, so there are no tasks"):
        evaluate((image for image in images), pictures[1], extractor=GridMeans(), run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="run_dir: does not go with cache"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run", cache=True)
    with pytest.raises(ValueError, match="index: expected 0 to 1, as there are 2 processes; got 2"):
        steps.part(tmp_path / "run", 2, 2)
    evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="was not made by fastfid plan"):
        steps.reduce(tmp_path / "run")


def test_starting_over_removes_nothing_of_others(pictures, tmp_path):
    run = tmp_path / "run"
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    theirs = [run / "notes.txt", run / "parts" / "real" / "list.npz"]
    for path in theirs:
        path.write_text("of the user")
    files(run)[0].with_suffix(".npz.bad").write_text("damaged")
    evaluate(*pictures, extractor=Other(), run_dir=RunDirectory(run, changed="fresh"))
    assert all(path.read_text() == "of the user" for path in theirs)
    assert list(run.rglob("*.bad")) == []
    assert len(files(run)) == 8 + 1


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', '{"schema": 1, "sides": {"real": 3}}', "[" * 100_000])
def test_damaged_plans_are_refused(pictures, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json: is damaged, or is no plan of this version; --fresh starts over"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    evaluate(*pictures, extractor=GridMeans(), run_dir=RunDirectory(tmp_path / "run", changed="fresh"))


@pytest.mark.parametrize("words", [["part", "--index", "0", "--of", "2"], ["reduce"]])
def test_a_folder_without_a_plan_names_the_command_that_makes_it(tmp_path, words, capsys):
    assert cli.main([*words, "--run-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/plan.json: there is no such file" in said
    assert "`fastfid plan A B --run-dir DIR` makes it first" in said


def test_the_commands_print_what_one_process_prints(weights, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in pictures:
        for path in sorted(folder.iterdir())[24:]:
            path.unlink()

    def run(*words):
        code = cli.main([*words, "--quiet"])
        out, err = capsys.readouterr()
        return code, out, err

    network = ("--dims", "64")
    plain = run("real", "fake", *network)
    assert plain[0] == 0
    assert run("real", "fake", *network, "--run-dir", "one") == plain
    before = {path: path.stat().st_mtime_ns for path in files("one")}
    assert run("real", "fake", *network, "--run-dir", "one") == plain
    assert {path: path.stat().st_mtime_ns for path in files("one")} == before
    assert run("plan", "real", "fake", "--run-dir", "run", "--workers", "3", *network) == (0, "", "")
    code, out, err = run("reduce", "--run-dir", "run")
    assert (code, out) == (1, "")
    assert err.startswith("fastfid: error: ")
    assert "2 of 2 Parts are missing" in err
    monkeypatch.chdir(pictures[0])
    for index in ("1", "0"):
        assert run("part", "--run-dir", f"{tmp_path}/run", "--index", index, "--of", "2") == (0, "", "")
        monkeypatch.chdir(pictures[0])
    assert run("reduce", "--run-dir", "../run") == plain
    monkeypatch.chdir(tmp_path)
    record = json.loads(run("real", "fake", *network, "--json")[1])
    reduced = json.loads(run("reduce", "--run-dir", "run", "--json")[1])
    assert {key for key in record if record[key] != reduced[key]} <= {"seconds", "date", "command", "run"}
    code, _, err = run("real", "fake", "--dims", "192", "--run-dir", "run")
    assert (code, "dims is 64 there, 192 here" in err) == (1, True)
    assert run("real", "fake", "--dims", "64", "--run-dir", "run", "--fresh") == plain


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "b", "--fresh"], "--fresh: is of --run-dir"),
        (["a", "b", "--run-dir", "r", "--cache"], "--cache: does not go with --run-dir"),
        (["plan", "a", "b", "--run-dir", "r", "--num-workers", "2"], "unrecognized arguments: --num-workers"),
        (["plan", "a", "b", "--run-dir", "r", "--input", "x.json"], "--input: is of another network"),
        (["a", "b", "--run-dir", "r", "--save-stats"], "--run-dir: there is no distance with --save-stats"),
        (["plan", "a", "b"], "--run-dir"),
        (["part", "--run-dir", "r", "--index", "2", "--of", "2"], "--index: expected 0 to 1, as --of says; got 2"),
    ],
)
def test_wrong_usage(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        np.save(tmp_path / name, np.zeros((3, 8, 8, 3), np.uint8))
        (tmp_path / f"{name}.npy").rename(tmp_path / name)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err
