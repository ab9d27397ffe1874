"""Several extractors in one pass: the numbers of each alone, bit for bit, and every image decoded once."""

import errno
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from stubs import AllOutputs, GridMeans
from test_other_networks import SPEC, here  # noqa: F401 - fixtures

import fastfid
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.opening import load_store
from fastfid.sources.folder import FileItem
from fastfid.store import FeatureStore, is_store


class Fixed(GridMeans):
    """Of one size of inputs; more images at a time than the others, several calls at a time."""

    batch_size = 3
    concurrency = 2

    def __init__(self, cells=2):
        super().__init__(cells)
        self.input_shape = (self.dims,)
        self.identity = f"grid-means-{cells}"
        self.most = 0

    def forward(self, batch):
        self.most = max(self.most, len(batch))
        return super().forward(batch)


class Spatial(AllOutputs):
    def __init__(self):
        super().__init__()
        self.input_shape = (self.dims,)


def images(seed, n=40):
    return np.random.default_rng(seed).integers(0, 256 - 40 * seed, (n, 12, 9, 3), dtype=np.uint8)


def same(a, b):
    """Whether two evaluations have the same results, to the bit."""
    assert list(a) == list(b)
    for name in a:
        assert a[name].to_dict() == b[name].to_dict(), name
    assert (a.missing, a.dims, a.real.n, a.fake.n) == (b.missing, b.dims, b.real.n, b.fake.n)
    assert (a.real.meta, a.fake.meta) == (b.real.meta, b.fake.meta)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_has_the_numbers_that_it_has_alone(here, num_workers):  # noqa: F811
    onnx = fastfid.OnnxExtractor("net.onnx", device="cpu")
    extractors = {"a": Fixed(2), "net": onnx, "b": Fixed(3), "spatial": Spatial()}
    found = fastfid.evaluate_extractors("real", "fake", extractors, metrics="all", num_workers=num_workers)
    assert list(found) == list(extractors)
    for name, one in extractors.items():
        same(found[name], fastfid.evaluate("real", "fake", metrics="all", extractor=one))
    assert extractors["a"].most <= 3


def test_inception_beside_another(here, weights):  # noqa: F811
    inception = fastfid.InceptionV3(64, device="cpu")
    onnx = fastfid.OnnxExtractor("net.onnx", device="cpu")
    found = fastfid.evaluate_extractors("real", "fake", {"inception": inception, "net": onnx}, metrics=["kid"])
    for name, one in (("inception", inception), ("net", onnx)):
        same(found[name], fastfid.evaluate("real", "fake", metrics=["kid"], extractor=one))


def test_every_image_is_decoded_once(here, monkeypatch):  # noqa: F811
    seen, lock = [], threading.Lock()
    load = FileItem.load

    def counted(item):
        with lock:
            seen.append(item.name)
        return load(item)

    monkeypatch.setattr(FileItem, "load", counted)
    fastfid.evaluate_extractors("real", "fake", {"a": Fixed(2), "b": Fixed(3), "c": Fixed(1)})
    assert len(seen) == 60 == len(set(seen))


def test_streams_and_lost_images(here):  # noqa: F811
    (here / "real" / "07.png").write_bytes(b"no picture")
    with pytest.raises(fastfid.ImageError, match=r"07\.png"):
        fastfid.evaluate_extractors("real", "fake", {"a": Fixed(2)})
    with pytest.warns(fastfid.SkippedImagesWarning, match=r"07\.png"):
        found = fastfid.evaluate_extractors("real", "fake", {"a": Fixed(2), "b": Fixed(3)}, on_error="skip")
    for one in found.values():
        assert [lost["name"].endswith("07.png") for lost in one.skipped["real"]] == [True]
        assert (one.real.n, one.fake.n, one.skipped["fake"]) == (29, 30, [])
    streams = [iter(np.array_split(images(seed), 7)) for seed in (1, 2)]
    found = fastfid.evaluate_extractors(*streams, {"a": Fixed(2), "b": Fixed(3)})
    same(found["b"], fastfid.evaluate(*(iter(np.array_split(images(seed), 7)) for seed in (1, 2)), extractor=Fixed(3)))


def test_metrics_that_some_have():
    extractors = {"a": Fixed(2), "spatial": Spatial()}
    found = fastfid.evaluate_extractors(images(1), images(2), extractors, metrics=["fid", "sfid"])
    assert (list(found["a"]), list(found["spatial"])) == (["fid"], ["fid", "sfid"])
    assert found["a"].missing == {"sfid": "needs the output spatial; the extractor gives features at 12 dims"}
    rows = found.to_dict()["metrics"]
    assert [(row["metric"], row["value"] is None) for row in rows] == [
        ("fid", False),
        ("sfid", True),
        ("fid", False),
        ("sfid", False),
    ]
    for metrics in (["fid", "sfid"], ["sfid"]):
        with pytest.raises(ValueError, match=r"sfid: cannot .* of the extractors: a: needs .* 12 dims; b: needs"):
            fastfid.evaluate_extractors(images(1), images(2), {"a": Fixed(2), "b": Fixed(3)}, metrics=metrics)


def test_an_extractor_without_any_of_the_metrics_does_not_run(here, run, weights, decoded):  # noqa: F811
    idle = Fixed(3)
    idle.forward = idle.prepare = None
    found = fastfid.evaluate_extractors("real", "fake", {"a": idle, "b": Spatial()}, metrics=["sfid"], store="kept")
    assert len(decoded) == 60
    assert sum(is_store(path) for path in (here / "kept").iterdir()) == 2
    same(found["b"], fastfid.evaluate("real", "fake", metrics=["sfid"], extractor=Spatial(), store="alone"))
    reason = "needs the output spatial; the extractor gives features at 27 dims"
    assert (dict(found["a"]), found["a"].missing) == ({}, {"sfid": reason})
    with pytest.raises(KeyError, match="sfid could not be computed: needs the output spatial"):
        found["a"]["sfid"]
    record = found.to_dict()
    assert (record["n"], record["extractor"]["real"], record["dims"]) == ({"real": 30, "fake": 30}, idle.identity, 27)
    assert [(row["value"] is None, row["n_real"]) for row in record["metrics"]] == [(True, 30), (False, 30)]
    assert [one["name"] for one in record["extractors"]] == ["a", "b"]
    code, out, err = run("real", "fake", "--extractor", "net.onnx", "--extractor", "inception", "--metrics", "sfid")
    assert (code, [line.split()[:2] for line in out.splitlines()[1:]]) == (0, [["inception", "sFID"]])
    assert "net.onnx: sfid: not computed: needs the output spatial" in err
    code, out, err = run("real", "fake", "--extractor", "net.onnx", "--extractor", "inception", "--metrics", "fid,is")
    assert (code, out) == (1, "")
    assert re.search("error: is: cannot be .*: net.onnx: .* has no classifier; .*; inception: ", err), err


def test_what_is_refused(here):  # noqa: F811
    with pytest.raises(TypeError, match="extractors: expected a dict of names and extractors, got list"):
        fastfid.evaluate_extractors("real", "fake", [Fixed(2)])
    with pytest.raises(TypeError, match=r"got list; fastfid\.evaluate_extractors takes several"):
        fastfid.evaluate("real", "fake", extractor=[Fixed(2)])
    with pytest.raises(ValueError, match="extractors: expected at least one, got none"):
        fastfid.evaluate_extractors("real", "fake", {})
    with pytest.raises(TypeError, match=r"extractor: expected a fastfid\.FeatureExtractor, got str"):
        fastfid.evaluate_extractors("real", "fake", {"a": "inception"})
    with pytest.raises(
        ValueError, match=r"extractor b: has inputs of any size \(none\): beside others it needs a size"
    ):
        fastfid.evaluate_extractors("real", "fake", {"a": Fixed(2), "b": GridMeans()})
    fastfid.compute_statistics("real", extractor=Fixed(2)).save("real.npz")
    with pytest.raises(ValueError, match=r"real\.npz: has the features of one extractor; several extractors need the"):
        fastfid.evaluate_extractors("real.npz", "fake", {"a": Fixed(2), "b": Fixed(3)})
    fastfid.evaluate("real", "fake", extractor=Fixed(2), store="kept")
    store = next(path for path in (here / "kept").iterdir() if is_store(path))
    with pytest.raises(ValueError, match="has the features of one extractor"):
        fastfid.evaluate_extractors(store, "fake", {"a": Fixed(2), "b": Fixed(3)})
    broken = Fixed(3)
    broken.forward = lambda batch: np.full((len(batch), 27), np.nan, np.float32)
    with pytest.raises(fastfid.NumericalError, match="real: b: fid: images from number 0 on"):
        fastfid.evaluate_extractors("real", "fake", {"a": Fixed(2), "b": broken})


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded."""
    seen, lock = [], threading.Lock()
    load = FileItem.load

    def counted(item):
        with lock:
            seen.append(item.name)
        return load(item)

    monkeypatch.setattr(FileItem, "load", counted)
    return seen


def alone(name, one, **options):
    return fastfid.evaluate("real", "fake", metrics=METRICS_KEPT, extractor=one, **options)


METRICS_KEPT = ["fid", "kid"]


def test_each_has_a_store_of_its_own(here, decoded):  # noqa: F811
    extractors = {"a": Fixed(2), "net": fastfid.OnnxExtractor("net.onnx", device="cpu"), "b": Fixed(3)}
    expected = {name: alone(name, one) for name, one in extractors.items()}
    alone("net", extractors["net"], store="kept")  # what one has stored by itself
    decoded.clear()
    first = fastfid.evaluate_extractors("real", "fake", extractors, metrics=METRICS_KEPT, store="kept")
    assert len(decoded) == 60 == len(set(decoded))  # for the other two
    assert [one.cached["real"] for one in first.values()] == [False, True, False]
    decoded.clear()
    again = fastfid.evaluate_extractors("real", "fake", extractors, metrics=METRICS_KEPT, store="kept")
    later = {name: alone(name, one, store="kept") for name, one in extractors.items()}
    assert decoded == []
    for found in (first, again, later):
        for name, one in found.items():
            for metric in METRICS_KEPT:
                assert one[metric].to_dict() == expected[name][metric].to_dict(), (name, metric)
    assert all(one.cached == {"real": True, "fake": True} for one in again.values())
    assert sum(is_store(path) for path in (here / "kept").iterdir()) == 6


def test_stores_of_an_interrupted_run_go_on(here, decoded):  # noqa: F811
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    expected = fastfid.evaluate_extractors("real", "fake", extractors, metrics=METRICS_KEPT)
    forward, calls = extractors["b"].forward, []

    def interrupted(batch):
        calls.append(len(batch))
        if len(calls) > 6:
            raise KeyboardInterrupt
        return forward(batch)

    extractors["b"].concurrency = extractors["a"].concurrency = 1
    extractors["b"].forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        fastfid.evaluate_extractors("real", "fake", extractors, metrics=METRICS_KEPT, store="kept", num_workers=0)
    rows = [len(np.load(path)) for path in (here / "kept").glob("*/features.npy.new")]
    # One store has more rows than the other, as after a kill between two writes.
    path = next(path for path in (here / "kept").glob("*/features.npy.new") if path.stat().st_size % (27 * 4) == 20)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 2 * 27 * 4 - 5)
    extractors["b"].forward = forward
    decoded.clear()
    found = fastfid.evaluate_extractors("real", "fake", extractors, metrics=METRICS_KEPT, store="kept")
    assert rows
    assert 60 > len(set(decoded)) > 40
    for name, one in found.items():
        for metric in METRICS_KEPT:
            assert one[metric].to_dict() == expected[name][metric].to_dict(), (name, metric)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_interrupt_says_what_is_kept_where_a_run_goes_on(here, capsys, on_error):  # noqa: F811
    """Where images may have been left out, a run does not go on."""
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    forward, calls = extractors["b"].forward, []

    def interrupted(batch):
        calls.append(len(batch))
        if len(calls) > 6:
            raise KeyboardInterrupt
        return forward(batch)

    extractors["b"].forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        fastfid.evaluate_extractors("real", "fake", extractors, store="kept", num_workers=0, on_error=on_error)
    said = capsys.readouterr().err
    assert ("images are kept; the same command goes on after them" in said) == (on_error == "raise")


def test_stores_of_an_interrupted_run_keep_the_labels(here):  # noqa: F811
    for side in ("real", "fake"):
        for i, path in enumerate(sorted((here / side).iterdir())):
            (here / side / f"class-{i % 2}").mkdir(exist_ok=True)
            path.rename(here / side / f"class-{i % 2}" / path.name)
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    options = {"recursive": True, "labels": "folder"}
    forward, calls = extractors["b"].forward, []

    def interrupted(batch):
        calls.append(len(batch))
        if len(calls) > 6:
            raise KeyboardInterrupt
        return forward(batch)

    extractors["b"].concurrency = extractors["a"].concurrency = 1
    extractors["b"].forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        fastfid.evaluate_extractors("real", "fake", extractors, store="kept", num_workers=0, **options)
    extractors["b"].forward = forward
    fastfid.evaluate_extractors("real", "fake", extractors, store="kept", **options)
    expected = [f"class-{i}" for i in (0, 1) for _ in range(15)]
    stores = [FeatureStore(path) for path in (here / "kept").iterdir()]
    assert len(stores) == 4
    for one in stores:
        labels = one.labels()
        assert [labels.classes[code] for code in labels.codes] == expected


def test_likely_mistakes_are_said_once(here):  # noqa: F811
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same") as said:
        fastfid.evaluate_extractors("real", "real", extractors)
    assert len(said) == 1
    for path in sorted((here / "real").iterdir())[:4]:
        (here / "fake" / path.name).write_bytes(path.read_bytes())
    with pytest.warns(SuspiciousInputWarning, match="4 of the 30 generated images are also among the real") as said:
        fastfid.evaluate_extractors("real", "fake", extractors)
    assert len(said) == 1


def test_one_network_under_two_names(here, decoded):  # noqa: F811
    extractors = {"a": Fixed(2), "b": Fixed(2)}
    found = fastfid.evaluate_extractors("real", "fake", extractors)
    assert found["a"]["fid"].value == found["b"]["fid"].value
    decoded.clear()
    with pytest.raises(
        ValueError, match="store: extractors a and b are one network, with one InputSpec: leave one out"
    ):
        fastfid.evaluate_extractors("real", "fake", extractors, store="kept")
    assert decoded == []


def test_other_dims_of_one_network_have_stores_of_their_own(here):  # noqa: F811
    """As Inception, whose identity is one at 64 and at 192 dims."""
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    for one in extractors.values():
        one.identity = "grid-means"
    expected = fastfid.evaluate_extractors("real", "fake", extractors)
    for _ in range(2):
        found = fastfid.evaluate_extractors("real", "fake", extractors, store="kept")
        assert {name: one["fid"].value for name, one in found.items()} == {
            name: one["fid"].value for name, one in expected.items()
        }
    assert len([path for path in (here / "kept").iterdir() if is_store(path)]) == 4


def test_each_has_a_cache_entry_of_its_own(here, decoded, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FASTFID_CACHE", str(here / "cache"))
    for path in [*(here / "real").iterdir(), *(here / "fake").iterdir()]:
        os.utime(path, (0, 0))
    monkeypatch.setattr("fastfid.cache._CLOCK_S", -1e9)  # the pictures were written just now
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    expected = fastfid.evaluate_extractors("real", "fake", extractors)
    fastfid.compute_fid("real", "fake", extractor=extractors["b"], cache=True)
    decoded.clear()
    first = fastfid.evaluate_extractors("real", "fake", extractors, cache=True)
    assert len(decoded) == 60
    again = fastfid.evaluate_extractors("real", "fake", extractors, cache=True, hash_inputs=True)
    assert len(decoded) == 60
    for name, one in expected.items():
        assert first[name]["fid"].value == again[name]["fid"].value == one["fid"].value
    assert [one.cached["fake"] for one in first.values()] == [False, True]
    assert (
        again.to_dict()["inputs"]["real"]
        == fastfid.evaluate("real", "fake", extractor=extractors["a"], hash_inputs=True).to_dict()["inputs"]["real"]
    )


def test_the_command_line_keeps_what_it_has_read(here, run, weights):  # noqa: F811
    both = ["--extractor", "inception", "--extractor", "net.onnx", "--dims", "64", "--metrics", "fid,kid"]
    plain = run("real", "fake", *both)
    first = run("real", "fake", *both, "--store", "kept")
    again = run("real", "fake", *both, "--store", "kept")
    assert plain[:2] == first[:2] == again[:2]
    assert "net.onnx: fake: features from kept" in again[2]
    code, out, _ = run("real", "fake", *both, "--json", "--hash-inputs")
    assert code == 0
    assert json.loads(out)["inputs"]["real"]["sha256"]


def test_the_command_line(here, run, weights):  # noqa: F811
    both = ["--extractor", "inception", "--extractor", "net.onnx", "--dims", "64"]
    code, out, _ = run("real", "fake", *both, "--metrics", "fid,kid")
    assert code == 0
    head, *lines = (line.split() for line in out.splitlines())
    assert head == ["extractor", "metric", "value", "standard", "error"]
    assert [line[:2] for line in lines] == [
        ["inception", "FID"],
        ["inception", "KID"],
        ["net.onnx", "FD"],
        ["net.onnx", "KD"],
    ]
    code, out, _ = run("real", "fake", *both, "--metrics", "fid,kid", "--json", "--append", "runs.jsonl")
    record = json.loads(out)
    assert [one["name"] for one in record["extractors"]] == ["inception", "net.onnx"]
    assert [one["protocol"] for one in record["extractors"]] == ["pytorch-fid", SPEC.protocol]
    assert [one["dims"] for one in record["extractors"]] == [64, 6]
    alone = [run("real", "fake", "--dims", "64", "--json", "--metrics", "fid,kid")[1]]
    alone += [run("real", "fake", "--extractor", "net.onnx", "--json", "--metrics", "fid,kid")[1]]
    assert record["metrics"] == [row for one in alone for row in json.loads(one)["metrics"]]
    assert json.loads((here / "runs.jsonl").read_text()) == record
    assert record["fid"] == json.loads(alone[0])["fid"]


def test_each_side_has_labels_of_its_own(here, run):  # noqa: F811
    """The stores keep them."""
    code, _, err = run("real", "fake", "--extractor", "inception", "--extractor", "net.onnx", "--fake-labels", "no.csv")
    assert code == 1
    assert "no.csv" in err
    labels = {"real": ["a", "b"] * 15, "fake": None}
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    fastfid.evaluate_extractors("real", "fake", extractors, metrics=["fid"], store="kept", labels=labels)
    stores = [load_store(path) for path in (here / "kept").iterdir() if is_store(path)]
    sides = sorted((Path(store.name).name.partition("-")[0], store.has_labels) for store in stores)
    assert sides == [("fake", False), ("fake", False), ("real", True), ("real", True)]


def test_a_file_that_cannot_be_appended_to_at_the_end_costs_no_result(here, run, monkeypatch):  # noqa: F811
    def full(path, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr("fastfid._files.append_line", full)
    both = ["--extractor", "inception", "--extractor", "net.onnx", "--dims", "64"]
    code, out, err = run("real", "fake", *both, "--append", "runs.jsonl", "--quiet")
    assert (code, err) == (1, "fastfid: error: runs.jsonl: No space left on device\n")
    assert [line.split()[0] for line in out.splitlines()] == ["extractor", "inception", "net.onnx"]


@pytest.mark.parametrize(
    ("command", "words", "text"),
    [
        (["real", "fake"], ["--extractor", "net.onnx"], "--extractor: net.onnx comes twice"),
        (
            ["real", "fake"],
            ["--extractor", "b.onnx", "--input", "x"],
            "--input: is of one network, and there are several",
        ),
        (["real", "fake"], ["--extractor", "b.onnx", "--dims", "64"], "--dims: is of the Inception network"),
        (["real", "fake"], ["--extractor", "inception", "--per-class"], "--per-class: is for one extractor"),
        (
            ["real", "fake"],
            ["--extractor", "clip-vitb32"],
            "got 'clip-vitb32', a known network: fastfid extractors export clip-vitb32 CHECKPOINT -o",
        ),
        (["real", "fake"], ["--extractor", "clip"], "expected inception or FILE.onnx, got 'clip' (fastfid --help)"),
        (["real", "fake"], ["--extractor", "inception", "--force"], "--force: is for one extractor"),
        (["stats", "real", "-o", "x"], ["--extractor", "inception"], "statistics are of one extractor"),
        (["compare", "real", "fake", "other"], ["--extractor", "inception"], "fastfid compare takes one"),
        (["report", "real", "fake", "-o", "x.html"], ["--extractor", "inception"], "fastfid report takes one"),
    ],
)
def test_wrong_usage(here, run, command, words, text):  # noqa: F811
    code, out, err = run(*command, "--extractor", "net.onnx", *words)
    assert (code, out) == (2, "")
    assert text in err
