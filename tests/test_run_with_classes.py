"""Run directories together with classes, and with stores of features."""

import json

import numpy as np
import pytest
from PIL import Image
from stubs import AllOutputs, GridMeans

from fastfid import cli, evaluate, segments
from fastfid.errors import SkippedImagesWarning, SuspiciousInputWarning
from fastfid.evaluation import steps
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing
from fastfid.sources import open_source
from fastfid.store import FeatureStore


@pytest.fixture
def pictures(tmp_path):
    """Two folders with a folder for each of two classes, of 130 and of 70 pictures."""
    rng = np.random.default_rng(0)
    for name, high, number in (("real", 256, 130), ("fake", 200, 70)):
        for i in range(number):
            folder = tmp_path / name / ("cat" if i % 3 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, high, (5, 5, 3), dtype=np.uint8)).save(folder / f"{i:03}.bmp")
    return tmp_path / "real", tmp_path / "fake"


class Unused(AllOutputs):
    def forward(self, batch):
        raise AssertionError("the network ran")


BY_FOLDER = {"recursive": True, "labels": "folder", "per_class": True}


def same(found, plain):
    without = {"seconds": 0, "date": 0, "run": 0}
    assert {**found.to_dict(), **without} == {**plain.to_dict(), **without}


@pytest.mark.parametrize("level", [None, 0])
def test_classes_of_a_run_are_those_of_one_process(pictures, tmp_path, monkeypatch, level):
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(20, level))
    plain = evaluate(*pictures, extractor=AllOutputs(), **BY_FOLDER)
    assert set(plain.per_class) == {"cat", "dog"}
    same(evaluate(*pictures, extractor=AllOutputs(), **BY_FOLDER, run_dir=tmp_path / "run"), plain)
    same(evaluate(*pictures, extractor=Unused(), **BY_FOLDER, run_dir=tmp_path / "run"), plain)
    assert len(list((tmp_path / "run" / "parts" / "real").iterdir())) == 7


def test_labels_of_nodes_that_are_merged_stay_in_order(pictures, tmp_path, monkeypatch):
    """Without per_class no rows are kept, so that Parts of nodes replace those below them, with their labels."""
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(20, 0))
    source = open_source(pictures[0], recursive=True, labels="folder")
    given = {"recursive": True, "labels": "folder"}
    evaluate(*pictures, extractor=AllOutputs(), run_dir=tmp_path / "run", **given)
    parts = sorted((tmp_path / "run" / "parts" / "real").glob("*.npz"))
    merged = [path for path in parts if not path.stem.endswith("node0")]
    assert merged
    labels = [str(label) for path in parts for label in np.load(path)["labels"]]
    assert labels == [str(item.label) for item in source]


def test_classes_go_through_plan_part_and_reduce(pictures, tmp_path):
    for i in (7, 8, 50):
        next(pictures[1].rglob(f"{i:03}.bmp")).write_bytes(b"no picture")
    options = {**BY_FOLDER, "metrics": ["fid", "kid"], "on_error": "skip"}
    with pytest.warns(SkippedImagesWarning):
        plain = evaluate(*pictures, extractor=AllOutputs(), **options)
    steps.plan(*pictures, tmp_path / "run", extractor=AllOutputs(), **options)
    for index in (1, 0):
        steps.part(tmp_path / "run", index, 2, extractor=AllOutputs())
    with pytest.warns(SkippedImagesWarning):
        same(steps.reduce(tmp_path / "run"), plain)


def test_labels_that_changed_are_refused(pictures, tmp_path):
    names = {side: sorted(str(p.relative_to(side)) for p in side.rglob("*.bmp")) for side in pictures}
    for side in pictures:
        lines = [f"{name},{i % 2}" for i, name in enumerate(names[side])]
        (tmp_path / f"{side.name}.csv").write_text("\n".join(["name,label", *lines]) + "\n")
    labels = {side.name: str(tmp_path / f"{side.name}.csv") for side in pictures}
    options = {"recursive": True, "labels": labels, "per_class": True, "extractor": GridMeans()}
    evaluate(*pictures, **options, run_dir=tmp_path / "run")
    lines = [f"{name},{(i + 1) % 2}" for i, name in enumerate(names[pictures[0]])]
    (tmp_path / "real.csv").write_text("\n".join(["name,label", *lines]) + "\n")
    with pytest.raises(ValueError, match=r"is of another run: labels real is .* there, .* here; --fresh starts over"):
        evaluate(*pictures, **options, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="per_class: neither side has labels"):
        steps.plan(*pictures, tmp_path / "other", extractor=GridMeans(), recursive=True, per_class=True)


def test_a_run_fills_a_store(pictures, tmp_path):
    plain = evaluate(*pictures, metrics="all", extractor=AllOutputs(), **BY_FOLDER, store=tmp_path / "plain")
    options = {"metrics": "all", **BY_FOLDER, "store": tmp_path / "stores"}
    same(evaluate(*pictures, extractor=AllOutputs(), **options, run_dir=tmp_path / "run"), plain)
    for side in ("real", "fake"):
        a, b = (FeatureStore(next((tmp_path / folder).glob(f"{side}-*"))) for folder in ("plain", "stores"))
        for output in ("features", "spatial"):
            assert np.array_equal(a.rows(output), b.rows(output))
        assert np.array_equal(a.labels().codes, b.labels().codes)
    same_but_for_cached = evaluate(*pictures, extractor=Unused(), **options, run_dir=tmp_path / "run")
    assert dict(same_but_for_cached) == dict(plain)


def test_one_set_on_both_sides_fills_one_store(pictures, tmp_path):
    """The second side finds the store complete, and does no task."""
    given = {"recursive": True, "extractor": AllOutputs(), "metrics": ["fid", "kid"]}
    run = RunDirectory(tmp_path / "run")
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        found = evaluate(pictures[0], pictures[0], store=tmp_path / "store", run_dir=run, **given)
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        assert dict(found) == dict(evaluate(pictures[0], pictures[0], **given))
    assert len(list((tmp_path / "store").iterdir())) == 1
    assert list((tmp_path / "run" / "parts" / "fake").glob("*.npz")) == []


def test_a_store_that_a_killed_process_left_goes_on(pictures, tmp_path, monkeypatch):
    plain = evaluate(*pictures, extractor=GridMeans(), recursive=True)
    options = {"extractor": GridMeans(), "recursive": True, "store": tmp_path / "stores"}
    add, calls = steps.Reading.__init__.__globals__["StoreWriter"].add, []

    def failing(self, outputs, indices):
        calls.append(len(indices))
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, outputs, indices)

    monkeypatch.setattr("fastfid.store.StoreWriter.add", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate(*pictures, **options, run_dir=tmp_path / "run")
    assert dict(evaluate(*pictures, **options, run_dir=tmp_path / "run")) == dict(plain)
    assert sum(calls) == 130 + 70 + calls[2]


def test_a_store_needs_the_rows_of_large_sets(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(20, 0))
    options = {"extractor": GridMeans(), "recursive": True}
    evaluate(*pictures, **options, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=r"run: its Parts have not the features of each image, as a store; --fresh"):
        evaluate(*pictures, **options, run_dir=tmp_path / "run", store=tmp_path / "stores")
    run = RunDirectory(tmp_path / "run", changed="fresh")
    evaluate(*pictures, **options, run_dir=run, store=tmp_path / "stores")
    assert run.plan.sides["real"].sizing.level is None


def test_the_commands_print_the_classes(weights, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in pictures:
        for path in sorted(folder.rglob("*.bmp")):
            if int(path.stem) >= 24:
                path.unlink()

    def run(*words):
        code = cli.main([*words, "--quiet"])
        return code, *capsys.readouterr()

    options = ("--dims", "64", "--labels", "folder", "--recursive", "--per-class")
    plain = run("real", "fake", *options)
    assert plain[0] == 0
    assert "dog" in plain[1]
    assert run("real", "fake", *options, "--run-dir", "one") == plain
    assert run("plan", "real", "fake", *options, "--run-dir", "run") == (0, "", "")
    assert run("part", "--run-dir", "run", "--index", "0", "--of", "1") == (0, "", "")
    assert run("reduce", "--run-dir", "run") == plain
    assert "per_class" in json.loads(run("reduce", "--run-dir", "run", "--json")[1])
    assert run("real", "fake", *options, "--run-dir", "one", "--store", "stores") == plain
