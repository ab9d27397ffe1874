"""Plans with other networks than Inception, and with several: each process opens them. The digits are those of one."""

import json
import shutil

import pytest
from test_other_networks import here  # noqa: F401 - a fixture
from test_several_extractors import decoded, same  # noqa: F401 - a fixture too
from test_several_in_runs import three

import fastfid
from fastfid import segments
from fastfid.scale.plan import Sizing


def in_parts(run, folder, processes=2):
    """Do the tasks of a plan in several processes' turns, and return what the reduction prints."""
    for index in range(processes):
        assert run("part", "--run-dir", folder, "--index", index, "--of", processes, "--quiet")[0] == 0
    return run("reduce", "--run-dir", folder, "--quiet")


@pytest.mark.parametrize("more", [[], ["--metrics", "fid,kid", "--num", "20"]])
def test_a_network_of_a_file(here, run, monkeypatch, more):  # noqa: F811
    words = ["real", "fake", "--extractor", "net.onnx", *more, "--quiet"]
    plain = run(*words)
    assert plain[0] == 0
    (here / "elsewhere").mkdir()
    (here / "net.fastfid.json").rename(here / "other.json")
    assert run("plan", *words, "--input", "other.json", "--run-dir", "run")[0] == 0
    (here / "other.json").unlink()  # the plan has it
    monkeypatch.chdir("elsewhere")
    assert in_parts(run, here / "run") == plain
    monkeypatch.chdir("elsewhere")
    shutil.rmtree(here / "real")
    (here / "net.onnx").unlink()
    assert run("reduce", "--run-dir", "../run", "--quiet") == plain


def test_a_file_that_has_changed_is_another_network(here, run):  # noqa: F811
    assert run("plan", "real", "fake", "--extractor", "net.onnx", "--run-dir", "run")[0] == 0
    data = (here / "net.onnx").read_bytes()
    (here / "net.onnx").write_bytes(data.replace(b"square", b"SQUARE"))
    code, _, err = run("part", "--run-dir", "run", "--index", 0, "--of", 1)
    assert code == 1
    assert "run: is of another run: extractor is onnx:y:" in err
    (here / "net.onnx").unlink()
    code, _, err = run("part", "--run-dir", "run", "--index", 0, "--of", 1)
    assert code == 1
    assert f"{here}/net.onnx: " in err


def test_networks_that_python_gives_are_opened_again(here, weights):  # noqa: F811
    """But not those of a class of the caller's."""

    class Own(fastfid.OnnxExtractor):
        pass

    inception = fastfid.InceptionV3(64, protocol="tensorflow", device="cpu")
    for network in (inception, fastfid.OnnxExtractor("net.onnx", device="cpu", name="mine")):
        fastfid.plan("real", "fake", "run", extractor=network)
        assert fastfid.part("run") == 2
        expected = fastfid.evaluate("real", "fake", extractor=network)
        assert dict(fastfid.reduce("run")) == dict(expected)
        shutil.rmtree("run")
    fastfid.plan("real", "fake", "run", extractor=Own("net.onnx", device="cpu"))
    with pytest.raises(ValueError, match=r"was made with the network onnx:y:.*; pass it: part\(..., extractor=\)"):
        fastfid.part("run")
    assert json.loads((here / "run" / "plan.json").read_text())["request"]["networks"][0]["file"] is None


@pytest.mark.parametrize("level", [None, 0])
def test_several_have_the_bits_that_one_process_gives(here, decoded, monkeypatch, level):  # noqa: F811
    """Parts with rows, and Parts with what the metrics of each have accumulated."""
    if level is not None:
        monkeypatch.setattr(segments, "SEGMENT", 4)
        monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(4, level))
    metrics = ["fid", "sfid", "kid", "prdc"]  # sfid is of one of them alone
    expected = fastfid.evaluate_extractors("real", "fake", three(), metrics=metrics)
    decoded.clear()
    assert fastfid.plan_extractors("real", "fake", three(), "run", metrics=metrics) == 16
    turned = dict(reversed(three().items()))
    assert [fastfid.part("run", index, 3, extractor=turned) for index in (2, 0, 1)] == [5, 6, 5]
    assert len(decoded) == 60 == len(set(decoded))
    shutil.rmtree("real")
    found = fastfid.reduce_extractors("run")
    assert list(found) == list(expected)
    for name, one in expected.items():
        same(found[name], one)
    timed = ("seconds", "date", "run")
    records = [{key: x for key, x in one.to_dict().items() if key not in timed} for one in (found, expected)]
    assert records[0] == records[1]


def test_the_commands_take_several(here, run, weights, monkeypatch):  # noqa: F811
    """Also where an image is lost."""
    (here / "real" / "07.png").write_bytes(b"no picture")
    words = ["real", "fake", "--extractor", "net.onnx", "--extractor", "inception", "--dims", "64"]
    words += ["--metrics", "fid,kid", "--on-error", "skip", "--quiet"]
    plain, record = run(*words), json.loads(run(*words, "--json")[1])
    assert (plain[0], "skipped 1 unreadable images" in plain[2]) == (0, True)
    assert run("plan", *words, "--run-dir", "run", "--workers", 2)[0] == 0
    code, _, err = run("reduce", "--run-dir", "run")
    assert (code, "2 of 2 Parts are missing" in err) == (1, True)
    monkeypatch.chdir("fake")
    assert in_parts(run, here / "run") == plain
    reduced = json.loads(run("reduce", "--run-dir", here / "run", "--quiet", "--json")[1])
    assert {key for key in record if record[key] != reduced[key]} == {"seconds", "date", "command", "run"}
    code, _, err = run("plan", *words, "--run-dir", "run", "--metrics", "sfid")
    assert (code, "sfid: cannot be computed for any of the extractors: net.onnx: " in err) == (1, True)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--force"], "--force: is for one extractor"),
        (["--per-class"], "--per-class: is for one extractor"),
        (["--extractor", "net.onnx"], "--extractor: net.onnx comes twice"),
    ],
)
def test_what_the_command_refuses(here, run, more, text):  # noqa: F811
    words = ["plan", "real", "fake", "--run-dir", "run", "--extractor", "net.onnx", "--extractor", "inception", *more]
    code, _, err = run(*words)
    assert (code, text in err) == (2, True)


def test_what_is_refused_of_several(here):  # noqa: F811
    fastfid.plan_extractors("real", "fake", three(), "run")
    with pytest.raises(ValueError, match=r"made with the network grid-means-2; pass it: part\(..., extractor=\)"):
        fastfid.part("run")
    for given, got in ((three()["a"], "Fixed"), ({"a": three()["a"]}, "a")):
        with pytest.raises(ValueError, match=f"extractor: expected a dict of a, spatial, b, .*; got {got}$"):
            fastfid.part("run", extractor=given)
    others = {**three(), "b": three()["a"]}
    with pytest.raises(ValueError, match="run: is of another run: extractor is"):
        fastfid.part("run", extractor=others)
    with pytest.raises(ValueError, match="run: is the plan of several networks; reduce it by "):
        fastfid.reduce("run")
    fastfid.plan("real", "fake", "one", extractor=three()["a"])
    with pytest.raises(ValueError, match="one: is the plan of one network; reduce it by "):
        fastfid.reduce_extractors("one")
    statistics = fastfid.compute_statistics("real", extractor=three()["a"]).save("real.npz")
    with pytest.raises(ValueError, match="several extractors need the images of both sides"):
        fastfid.plan_extractors(statistics, "fake", three(), "run")
