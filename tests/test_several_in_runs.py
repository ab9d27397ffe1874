"""Several extractors in a run directory: one decoding of each image, the bits of each alone, and what is refused."""

import pickle
import shutil
import tarfile

import launching
import numpy as np
import pytest
from stubs import GridMeans
from test_other_networks import here  # noqa: F401 - a fixture
from test_several_extractors import Fixed, Spatial, decoded, same  # noqa: F401 - a fixture too

import fastfid
from fastfid import cli, segments
from fastfid.evaluation.joint_steps import reading_of_all
from fastfid.metrics.several import Accumulators
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing


def three():
    return {"a": Fixed(2), "spatial": Spatial(), "b": Fixed(3)}


def alone(metrics, **options):
    return {
        name: fastfid.evaluate("real", "fake", metrics=metrics, extractor=one, **options)
        for name, one in three().items()
    }


@pytest.mark.parametrize("level", [None, 0])
def test_each_has_the_bits_that_it_has_alone(here, decoded, monkeypatch, level):  # noqa: F811
    """Parts with rows, and Parts with what the metrics of each have accumulated."""
    if level is not None:
        monkeypatch.setattr(segments, "SEGMENT", 4)
        monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(4, level))
    expected = alone("all")
    decoded.clear()
    directory = RunDirectory("run")
    found = fastfid.evaluate_extractors("real", "fake", three(), metrics="all", run_dir=directory)
    assert len(decoded) == 60 == len(set(decoded))
    for name, one in expected.items():
        same(found[name], one)
    assert (directory.done, directory.found) == (16, 0)
    assert found.to_dict()["run"]["resumed"] == 0


def test_moments_alone_are_merged(here, monkeypatch):  # noqa: F811
    monkeypatch.setattr(segments, "SEGMENT", 4)
    monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(4, 0))
    expected = alone(["fid"])
    found = fastfid.evaluate_extractors("real", "fake", three(), run_dir="run")
    for name, one in expected.items():
        same(found[name], one)
    left = sorted(path.name.split("-")[-1] for path in (here / "run" / "parts" / "real").iterdir())
    assert left == ["node0.npz", "node0.npz", "node1.npz", "node1.npz"]


def test_what_was_killed_goes_on(here, decoded, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(5))
    expected = alone(["fid", "kid"])
    fastfid.evaluate_extractors("real", "fake", three(), metrics=["fid", "kid"], run_dir="run")
    for path in sorted((here / "run" / "parts" / "fake").iterdir())[2:]:
        path.unlink()
    decoded.clear()
    directory = RunDirectory("run")
    found = fastfid.evaluate_extractors("real", "fake", three(), metrics=["fid", "kid"], run_dir=directory)
    assert (directory.done, directory.found, len(decoded)) == (4, 8, 20)
    for name, one in expected.items():
        same(found[name], one)


@pytest.mark.parametrize("level", [None, 0])
def test_the_order_of_the_extractors_does_not_matter(here, decoded, monkeypatch, level):  # noqa: F811
    """A run goes on with the extractors in another order, and each has the results that it has alone."""
    if level is not None:
        monkeypatch.setattr(segments, "SEGMENT", 4)
        monkeypatch.setattr(segments, "RADIX", 100)  # no node replaces what the tasks have made
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(4, level))
    expected = alone("all")
    fastfid.evaluate_extractors("real", "fake", three(), metrics="all", run_dir="run")
    for path in sorted((here / "run" / "parts" / "fake").iterdir())[2:]:
        path.unlink()
    decoded.clear()
    directory, turned = RunDirectory("run"), dict(reversed(three().items()))
    found = fastfid.evaluate_extractors("real", "fake", turned, metrics="all", run_dir=directory)
    assert (directory.done, directory.found, len(decoded)) == (6, 10, 22)
    assert list(found) == ["b", "spatial", "a"]
    for name, one in expected.items():
        same(found[name], one)


class Elsewhere:
    """An engine that sends its work to another process, as pickles."""

    def run(self, tasks, work):
        for task in tasks[::-1]:
            yield task, pickle.loads(pickle.dumps(work))(task)


def test_an_engine_and_lost_images(here):  # noqa: F811
    (here / "real" / "07.png").write_bytes(b"no picture")
    options = {"on_error": "skip"}
    with pytest.warns(fastfid.SkippedImagesWarning):
        expected = alone(["fid"], **options)
    for store in (None, "kept"):
        with pytest.warns(fastfid.SkippedImagesWarning):
            found = fastfid.evaluate_extractors("real", "fake", three(), engine=Elsewhere(), store=store, **options)
        for name, one in expected.items():
            assert found[name]["fid"].to_dict() == one["fid"].to_dict()
            assert found[name].skipped == one.skipped
        assert found["a"].run["engine"] == "Elsewhere"


@pytest.mark.parametrize("options", [{}, {"run_dir": "run"}])
def test_a_shard_that_is_damaged_is_left_out(here, options):  # noqa: F811
    with tarfile.open("0.tar", "w") as archive:
        archive.add("real", filter=lambda entry: None if entry.name.endswith("07.png") else entry)
    (here / "1.tar").write_bytes(b"no tar")
    with pytest.warns(fastfid.SkippedImagesWarning, match="skipped 1 unreadable images: 1.tar"):
        expected = fastfid.evaluate("*.tar", "fake", extractor=Fixed(2), on_error="skip")
    with pytest.warns(fastfid.SkippedImagesWarning, match="skipped 1 unreadable images: 1.tar"):
        found = fastfid.evaluate_extractors("*.tar", "fake", three(), on_error="skip", **options)
    same(found["a"], expected)
    assert found["a"].skipped == expected.skipped


def test_what_is_refused(here):  # noqa: F811
    extractors = three()
    fastfid.evaluate_extractors("real", "fake", extractors, run_dir="run")
    del extractors["b"]
    with pytest.raises(ValueError, match="run: is of another run: extractor is "):
        fastfid.evaluate_extractors("real", "fake", extractors, run_dir="run")
    with pytest.raises(ValueError, match="run: is of another run: "):
        fastfid.evaluate("real", "fake", extractor=GridMeans(), run_dir="run")
    with pytest.raises(ValueError, match="run_dir: does not go with cache"):
        fastfid.evaluate_extractors("real", "fake", three(), run_dir="run", cache=True)


def test_other_dims_of_one_network_are_another_run(here):  # noqa: F811
    """Extractors of one identity, as Inception at 64 and at 192 dims, are told apart, whichever comes first."""
    grids = [Fixed(2), Fixed(3)]
    for grid in grids:
        grid.identity = "grid-means"
    fastfid.evaluate_extractors("real", "fake", {"a": Spatial(), "b": grids[0]}, run_dir="run")
    with pytest.raises(ValueError, match=r"run: is of another run: .* \(12 dims\) there, .* \(27 dims\) here; --fresh"):
        fastfid.evaluate_extractors("real", "fake", {"a": Spatial(), "b": grids[1]}, run_dir="run")


def contents(folder):
    """The bytes of the files of stores, by the name of the store and of the file."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupted():
    """The extractors, all of which stop in the middle of a set."""
    found = three()
    for one in found.values():
        one.concurrency, one.left, one.whole = 1, 4, one.forward
        one.forward = lambda batch, one=one: stop_at_zero(one) or one.whole(batch)
    return found


def stop_at_zero(one):
    one.left -= 1
    if one.left < 0:
        raise KeyboardInterrupt


def test_stores_are_filled_with_what_they_have_without_a_run(here, decoded, monkeypatch):  # noqa: F811
    """One whose metrics need no features has them too. One that was cut short goes on; one that is there is taken."""
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(8))
    metrics = ["sfid", "kid"]
    plain = fastfid.evaluate_extractors("real", "fake", three(), metrics=metrics, store="plain")
    decoded.clear()
    found = fastfid.evaluate_extractors("real", "fake", three(), metrics=metrics, store="kept", run_dir="run")
    assert len(decoded) == 60 == len(set(decoded))
    for name, one in plain.items():
        same(found[name], one)
    assert contents(here / "kept") == contents(here / "plain")

    stores = sorted((here / "kept").glob("real-*"))
    for path in stores[1:]:
        shutil.rmtree(path)
    with pytest.raises(KeyboardInterrupt):
        fastfid.evaluate_extractors("real", "fake", interrupted(), metrics=metrics, store="kept")
    assert contents(here / "kept") != contents(here / "plain")
    decoded.clear()
    fastfid.evaluate_extractors("real", "fake", three(), metrics=metrics, store="kept", run_dir="run")
    assert decoded == []
    assert contents(here / "kept") == contents(here / "plain")


def test_metrics_of_the_joint_extractor_only_accumulate(here):  # noqa: F811
    reading = reading_of_all(three(), ["fid", "kid"], 0, "raise", None, {})
    seen = Accumulators(reading.metrics, reading.extractor.outputs)
    outputs = {name: np.ones((2, length), np.float32) for name, length in reading.extractor.outputs.items()}
    seen.update(outputs)
    assert [one.n for one in seen.values()] == [2] * len(seen)
    seen.reset()
    assert [one.n for one in seen.values()] == [0] * len(seen)
    for metric in reading.metrics.values():
        with pytest.raises(TypeError, match=r"(fid|kid): is computed for its extractor alone"):
            metric.result(None, None)


def test_parts_without_rows_fill_no_store(here, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patched:
        patched.setattr(segments, "SEGMENT", 4)
        patched.setattr(Sizing, "choose", lambda n, workers, images: Sizing(4, 0))
        fastfid.evaluate_extractors("real", "fake", three(), run_dir="run")
        with pytest.raises(ValueError, match="its Parts have not the features of each image, as a store; --fresh"):
            fastfid.evaluate_extractors("real", "fake", three(), run_dir="run", store="kept")


def test_the_command_line(here, run, weights):  # noqa: F811
    both = ["--extractor", "inception", "--extractor", "net.onnx", "--dims", "64", "--metrics", "fid,kid"]
    plain = run("real", "fake", *both)
    assert plain[0] == 0
    first = run("real", "fake", *both, "--run-dir", "run")
    again = run("real", "fake", *both, "--run-dir", "run")
    assert plain[:2] == first[:2] == again[:2]
    assert "real: 1 of 1 tasks were done before" in again[2]
    with_stores = run("real", "fake", *both, "--run-dir", "run", "--store", "kept")
    assert plain[:2] == with_stores[:2]
    assert with_stores[2].count("features kept in kept/") == 4


def test_ranks(here, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Two processes, with stand-ins for the networks: the table of one process, once."""
    words = ["real", "fake", "--extractor", "one.onnx", "--extractor", "two.onnx", "--metrics", "fid,kid"]
    found = launching.ended(launching.start(tmp_path, words, launching.variables_of_ranks(2)))
    (code, out, err), other = found
    assert (code, other) == (0, (0, "", "")), err
    monkeypatch.setattr("fastfid.cli.several.open_network", lambda args, name: Spatial())
    assert cli.main(words) == 0
    assert out == capsys.readouterr().out
