"""fastfid compare --metrics: the numbers of one evaluation for each candidate, and every set read once."""

import json

import numpy as np
import pytest
from stubs import AllOutputs, GridMeans

from fastfid import Statistics, compare, compute_statistics, evaluate
from fastfid.evaluation.compared_metrics import compare_metrics

RNG = np.random.default_rng(0)
SETS = [RNG.integers(0, high, (60, 8, 8, 3), dtype=np.uint8) for high in (256, 250, 200)]


@pytest.fixture
def paths(tmp_path):
    found = [str(tmp_path / f"{name}.npy") for name in ("real", "a", "b")]
    for path, images in zip(found, SETS, strict=True):
        np.save(path, images)
    return found


class Counting(AllOutputs):
    seen = 0

    def forward(self, batch):
        type(self).seen += len(batch)
        return super().forward(batch)


@pytest.mark.parametrize("metrics", [["kid", "fid", "prdc"], "all"])
def test_the_numbers_are_those_of_each_evaluation(paths, metrics):
    real, *others = paths
    Counting.seen = 0
    found = compare_metrics(real, others, metrics=metrics, extractor=Counting())
    assert Counting.seen == 180
    assert [one.name for one in found.candidates] == others
    for path, one in zip(others, found.candidates, strict=True):
        alone = evaluate(real, path, metrics=metrics, extractor=AllOutputs())
        assert dict(one.results) == dict(alone.results)
        assert one.n == 60
    together = compare(real, others, extractor=GridMeans())
    assert {frozenset((pair.a, pair.b)) for pair in found.differences} == {frozenset(others)}
    assert found.differences[0].difference == together.differences[0].difference
    assert found.differences[0].verdict == together.differences[0].verdict


def test_without_the_fid_there_are_no_differences(paths):
    found = compare_metrics(paths[0], paths[1:], metrics=["prdc"], extractor=GridMeans(), names=["x", "y"])
    assert found.differences == ()
    assert [one.name for one in found.candidates] == ["x", "y"]
    assert set(found.candidates[0].results) == {"precision", "recall", "density", "coverage"}


def test_a_store_is_used_again(paths, tmp_path):
    def run():
        return compare_metrics(paths[0], paths[1:], metrics=["kid"], extractor=Counting(), store=tmp_path / "store")

    Counting.seen = 0
    first = run()
    assert Counting.seen == 180
    assert run() == first
    assert Counting.seen == 180


def test_stores_instead_of_images(paths, tmp_path):
    real, *others = paths
    expected = compare_metrics(real, others, metrics=["fid", "kid"], extractor=AllOutputs(), store=tmp_path)
    stores = [str(next(tmp_path.glob(f"{name}-*"))) for name in ("real", "a", "b")]
    found = compare_metrics(stores[0], stores[1:], metrics=["fid", "kid"])
    assert [dict(one.results) for one in found.candidates] == [dict(one.results) for one in expected.candidates]
    assert [one.n for one in found.candidates] == [60, 60]


def test_statistics_beside_images(paths):
    real = compute_statistics(paths[0], extractor=GridMeans())
    found = compare_metrics(real, paths[1:], metrics=["fid"], extractor=GridMeans())
    for path, one in zip(paths[1:], found.candidates, strict=True):
        assert one.results["fid"].value == evaluate(real, path, metrics=["fid"], extractor=GridMeans())["fid"].value
    with pytest.raises(ValueError, match="prdc"):
        compare_metrics(real, paths[1:], metrics=["prdc"], extractor=GridMeans())


def test_what_is_refused(paths):
    with pytest.raises(ValueError, match="candidates: expected 2 or more"):
        compare_metrics(paths[0], paths[1:2], metrics=["fid"], extractor=GridMeans())
    with pytest.raises(ValueError, match="fidd"):
        compare_metrics(paths[0], paths[1:], metrics=["fidd"], extractor=GridMeans())
    with pytest.raises(TypeError, match="unexpected keyword arguments: recursiv"):
        compare_metrics(paths[0], paths[1:], metrics=["fid"], recursiv=True)


def statistics(tmp_path):
    files = []
    for name, shift in (("real", 0.0), ("near", 0.1), ("far", 1.0)):
        rows = np.random.default_rng(len(files)).normal(shift, 1, (400, 4))
        files.append(str(Statistics.from_features(rows, {"protocol": "none"}).save(tmp_path / f"{name}.npz")))
    return files


def test_the_command(tmp_path, capsys):
    from fastfid import cli

    files = statistics(tmp_path)
    assert cli.main(["compare", *files, "--metrics", "fid,fid-infinity"]) == 0
    head, near, far, verdict = capsys.readouterr().out.splitlines()
    assert head.split() == ["candidate", "FID", "FID-infinity", "n"]
    assert near.startswith(files[1])
    assert far.startswith(files[2])
    assert near.endswith(" 400")
    assert verdict.startswith(f"{files[1]} and {files[2]}, FID: {files[1]} is better by")
    assert cli.main(["compare", *files, "--metrics", "fid,fid-infinity", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"schema", "reference", "candidates", "differences", "missing", "extractor"}
    rows = found["candidates"][0]["metrics"]
    assert [row["metric"] for row in rows] == ["fid", "fid-infinity"]
    assert rows[0]["n_real"] == rows[0]["n_generated"] == 400
    assert cli.main(["compare", *files, "--metrics", "prdc"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    for words, said in (
        ([*files, "--store", "x"], "--store: is for --metrics NAMES"),
        (["--records", files[0], "--metrics", "fid"], "--records: have metrics of their own"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["compare", *words])
        assert said in capsys.readouterr().err
