"""Run directories whose files were written by others: one sentence, and nothing outside is touched."""

import json
import math
import os
import time

import launching
import numpy as np
import pytest
from stubs import GridMeans

from fastfid import evaluate, part, plan, reduce, reduce_extractors
from fastfid.scale.part import Part
from fastfid.scale.plan import Plan


@pytest.fixture
def pictures(tmp_path):
    return launching.make_pictures(tmp_path, numbers=(40, 40), highs=(256, 256))


@pytest.fixture
def run(pictures, tmp_path):
    """A run directory that is done."""
    plan(*pictures, tmp_path / "run", extractor=GridMeans())
    part(tmp_path / "run", extractor=GridMeans())
    return tmp_path / "run"


def change(run, *keys, to):
    """Write another value into the plan."""
    found = json.loads((run / "plan.json").read_text())
    inner = found
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    (run / "plan.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("sides", "real", "level"), "0/../../../pwned"),
        (("sides", "real", "level"), 10**9),
        (("sides", "real", "level"), -1),
        (("sides", "real", "level"), 1.5),
        (("sides", "real", "level"), True),
        (("sides", "real", "images"), -5),
        (("sides", "real", "images"), 0),
        (("sides", "real", "images"), 1.5),
        (("sides", "real", "n"), 10**15),
        (("sides", "real", "n"), "many"),
        (("decides",), [1]),
        (("schema",), 99),
    ],
)
def test_plans_that_no_run_has_made(run, pictures, tmp_path, keys, value):
    change(run, *keys, to=value)
    before = sorted(tmp_path.iterdir())
    for call in (lambda: evaluate(*pictures, extractor=GridMeans(), run_dir=run), lambda: reduce(run)):
        with pytest.raises(ValueError, match=r"plan\.json: is damaged, or is no plan of this version; --fresh"):
            call()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("request_", [{}, [], "x", {"folder": 5, "metrics": ["fid"]}])
def test_requests_that_no_plan_has_made(run, request_):
    change(run, "request", to=request_)
    for call in (lambda: part(run, extractor=GridMeans()), lambda: reduce(run)):
        with pytest.raises(ValueError, match="run: its plan is damaged; make it again: fastfid plan --fresh"):
            call()


@pytest.mark.parametrize(
    ("key", "value"),
    [("dims", "12"), ("outputs", {"features": "x"}), ("input_shape", "abc"), ("input_shape", [1.5]), ("file", [1])],
)
def test_networks_that_no_plan_has_made(run, key, value):
    change(run, "request", "networks", 0, key, to=value)
    call = part if key == "file" else reduce
    with pytest.raises(ValueError, match="run: its plan is damaged; make it again: fastfid plan --fresh"):
        call(run)


@pytest.mark.parametrize("change_", [lambda _: [], lambda _: [None], lambda _: {"a": 1}, lambda one: one * 2])
def test_plans_of_no_network_or_of_two_with_one_name(run, change_):
    networks = json.loads((run / "plan.json").read_text())["request"]["networks"]
    change(run, "request", "networks", to=change_(networks))
    with pytest.raises(ValueError, match="run: its plan is damaged"):
        reduce(run)
    change(run, "request", "are_several", to=True)
    with pytest.raises(ValueError, match="run: its plan is damaged"):
        reduce_extractors(run)


def test_a_plan_of_several_networks_for_one_side(run):
    change(run, "request", "are_several", to=True)
    found = json.loads((run / "plan.json").read_text())
    del found["sides"]["real"]
    (run / "plan.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="run: its plan is damaged"):
        reduce_extractors(run)


def test_a_pipe_is_no_plan(run, pictures):
    (run / "plan.json").unlink()
    os.mkfifo(run / "plan.json")
    with pytest.raises(ValueError, match=r"plan\.json: is damaged, or is no plan"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=run)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"indices": None}, "has no indices"),
        ({"skipped_at": None}, "has no skipped_at"),
        ({"indices": np.zeros(32)}, "has not a row and an index for each image"),
        ({"indices": np.full(32, -7)}, "its indices are not those of the task"),
        ({"indices": np.arange(32)[::-1].copy()}, "its indices are not those of the task"),
        ({"rows/features": np.zeros((31, 12), np.float32)}, "has not a row and an index for each image"),
        ({"labels": np.array(["a"])}, "has not a label for each image"),
        ({"labels": np.array("a")}, "len() of unsized object"),
        (5, "has not a row and an index for each image"),
        (-5, "n is -5, and the task has 32 images"),
        (math.inf, "cannot convert float infinity to integer"),
    ],
)
def test_parts_that_no_task_has_made_are_made_again(run, pictures, tmp_path, capsys, changed, why):
    task = Plan.load(run / "plan.json").tasks[0]
    file = run / "parts" / "real" / f"{task.name}.npz"
    there = Part.load(file, task)
    n, new = (changed, {}) if isinstance(changed, int | float) else (there.n, changed)
    arrays = {name: array for name, array in ({**there.arrays, **new}).items() if array is not None}
    Part(there.key, n, there.skipped, arrays, there.made).save(file)
    found = evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    assert f"is damaged ({why})" in capsys.readouterr().err
    assert dict(found) == dict(evaluate(*pictures, extractor=GridMeans()))


def test_files_of_other_programs_stay(run, pictures, tmp_path):
    names = [".important.tmp", "other/deep/.important.tmp", "parts/notes.txt"]
    old = time.time() - 3 * 86_400
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
        os.utime(run / name, (old, old))
    ours = run / "parts" / "real" / ".000000000000-32-rows.npz.x.tmp"
    ours.write_text("half")
    os.utime(ours, (old, old))
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    assert [(run / name).read_text() for name in names] == ["mine"] * 3
    assert not ours.exists()


def test_no_name_is_no_run_directory(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run_dir: expected the path of a folder, or a URL, got ''"):
        evaluate(*pictures, extractor=GridMeans(), run_dir="")
    assert not (tmp_path / "plan.json").exists()
