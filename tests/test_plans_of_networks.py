"""Plans with other networks than Inception: each process opens them, and the digits are those of one process."""

import json
import shutil

import pytest
from test_other_networks import here, run  # noqa: F401 - fixtures

import fastfid


def in_parts(run, folder, processes=2):  # noqa: F811
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
