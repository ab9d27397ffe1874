"""Another network on the command line: its file and spec, what is printed, recorded and refused."""

import json
import re

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from tolerances import FLOAT32_FEATURES

import fastfid
from fastfid.evaluation import steps
from fastfid.metrics import METRICS

SIX = """{
  first = ReduceMean <axes = [2, 3], keepdims = 0> (x)
  square = Mul (x, x)
  second = ReduceMean <axes = [2, 3], keepdims = 0> (square)
  y = Concat <axis = 1> (first, second)
}"""
SPEC = fastfid.InputSpec((16, 16), filter="bicubic", rounding="pillow-uint8", mean=(0.5, 0.4, 0.3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two sets of pictures, a network and its spec."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, high in (("real", 256), ("fake", 200), ("other", 230)):
        (tmp_path / name).mkdir()
        for i in range(30):
            picture = rng.integers(0, high, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{i:02}.png")
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[n, 3, 16, 16] x) => (float[n, 6] y) {SIX}'
    )
    onnx.save(model, "net.onnx")
    SPEC.save("net.fastfid.json")
    return tmp_path


def test_the_number_is_that_of_python(here, run):
    extractor = fastfid.OnnxExtractor("net.onnx", SPEC, device="cpu")
    expected = fastfid.compute_fid("real", "fake", extractor=extractor)
    code, out, err = run("real", "fake", "--extractor", "net.onnx")
    assert (code, out) == (0, f"FD:  {expected}\n")
    assert "standard error" in err
    # Brute force: Pillow's picture, float64 means and second moments.
    rows = []
    for name in ("real", "fake"):
        pictures = [Image.open(path).resize((16, 16), Image.BICUBIC) for path in sorted((here / name).iterdir())]
        x = np.stack([np.asarray(picture, np.float64) / 255 - SPEC.mean for picture in pictures])
        rows.append(np.concatenate([x.mean((1, 2)), (x * x).mean((1, 2))], 1))
    gaussians = [(x.mean(0), np.cov(x, rowvar=False)) for x in rows]
    assert expected == pytest.approx(fastfid.frechet_distance(*gaussians), rel=FLOAT32_FEATURES)


def test_the_record_names_the_network(here, run):
    identity = fastfid.OnnxExtractor("net.onnx", device="cpu").identity
    code, out, _ = run("real", "fake", "--extractor", "net.onnx", "--json", "--metrics", "fid,kid")
    record = json.loads(out)
    assert code == 0
    assert record["extractor"] == {"real": identity, "fake": identity}
    assert record["protocol"] == dict.fromkeys(("real", "fake"), SPEC.protocol)
    assert [row["extractor"] for row in record["metrics"]] == [identity] * 2
    assert record["command"][3:5] == ["--extractor", "net.onnx"]


def test_without_the_fid_nothing_is_said_of_its_bias(here, run):
    few = ("real", "fake", "--extractor", "net.onnx", "--num", "5")
    assert "sampling bias dominates" in run(*few, "--metrics", "fid,kid")[2]
    code, out, err = run(*few, "--metrics", "kid")
    assert (code, out.split()[0]) == (0, "KD:")
    assert "bias" not in err


def test_all_metrics_of_an_embedding(here, run):
    code, out, err = run("real", "fake", "--extractor", "net.onnx", "--metrics", "all")
    assert code == 0
    labels = [line.split(":")[0] for line in out.splitlines()]
    expected = ["FD", "KD", "Precision", "Recall", "Density", "Coverage", "MIND", "MIFD", "Vendi", "CMMD"]
    assert labels == [*expected, "FD-infinity"]
    assert "sfid: not computed: needs the output spatial; the extractor gives features at 6 dims" in err
    assert re.search("is: not computed: .*: OnnxExtractor has no classifier; the Inception Score needs one", err)
    assert len(labels) + 2 == sum(len(row.labels) for row in METRICS.values())


def test_a_plan_for_all_metrics_of_an_embedding(here):
    extractor = fastfid.OnnxExtractor("net.onnx", device="cpu")
    plain = fastfid.evaluate("real", "fake", extractor=extractor, metrics="all")
    steps.plan("real", "fake", "run", extractor=extractor, metrics="all")
    steps.part("run", extractor=extractor)
    found = steps.reduce("run")
    assert (dict(found), found.missing) == (dict(plain), plain.missing)


def test_the_inception_score_of_an_embedding_is_refused(here, run):
    code, out, err = run("real", "fake", "--extractor", "net.onnx", "--metrics", "is")
    assert (code, out) == (1, "")
    assert "OnnxExtractor has no classifier; the Inception Score needs one" in err


def test_statistics_stores_and_candidates(here, run):
    expected = run("real", "fake", "--extractor", "net.onnx")[1]
    assert run("stats", "real", "-o", "real.npz", "--extractor", "net.onnx")[0] == 0
    assert run("real.npz", "fake", "--extractor", "net.onnx")[:2] == (0, expected)
    assert run("stats", "fake", "-o", "fake.npz", "--extractor", "net.onnx")[0] == 0
    assert run("real.npz", "fake.npz")[:2] == (0, expected)
    assert run("real", "fake", "--extractor", "net.onnx", "--store", "kept")[:2] == (0, expected)
    folders = sorted((here / "kept").iterdir())
    assert len(folders) == 2
    for _ in range(2):
        code, out, err = run("real", "fake", "--extractor", "net.onnx", "--store", "kept")
        assert (code, out) == (0, expected)
        assert "features from kept" in err
    assert run("real", "fake", "--extractor", "net.onnx", "--run-dir", "run")[:2] == (0, expected)
    assert run("real", "fake", "--extractor", "net.onnx", "--run-dir", "run")[:2] == (0, expected)
    code, _, err = run("real", "fake", "--run-dir", "run", "--dims", "64")
    assert (code, "is of another run: dims is 6 there, 64 here" in err) == (1, True)
    code, out, _ = run("compare", "real.npz", "fake", "other", "--extractor", "net.onnx")
    assert code == 0
    assert re.match(r"candidate +FD +standard error +n\n", out)
    code, out, _ = run("compare", "real", "fake", "other", "--extractor", "net.onnx", "--json")
    assert json.loads(out)["extractor"].startswith("onnx:y:")


def test_what_does_not_go_together_is_refused(here, run, weights):
    assert run("stats", "real", "-o", "real.npz", "--extractor", "net.onnx")[0] == 0
    code, out, err = run("real.npz", "fake")
    assert (code, out) == (1, "")
    assert re.search(r"real\.npz was made with extractor onnx:y:\w+, .* give that extractor too, by --extractor", err)
    fastfid.InputSpec((16, 16)).save("other.json")
    code, out, err = run("real.npz", "fake", "--extractor", "net.onnx", "--input", "other.json")
    assert (code, out) == (1, "")
    assert re.search(r"real\.npz was made with protocol 16x16 squash bicubic .* has 16x16 squash bilinear", err)
    model = onnx.load("net.onnx")
    model.doc_string = "other bytes"
    onnx.save(model, "other.onnx")
    code, out, err = run("real.npz", "fake", "--extractor", "other.onnx", "--input", "net.fastfid.json")
    assert re.search(r"real\.npz was made with extractor onnx:y:\w+, and the extractor of the other side has", err)
    code, out, _ = run("real.npz", "fake", "--extractor", "other.onnx", "--input", "net.fastfid.json", "--force")
    assert (code, out[:3]) == (0, "FD:")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--extractor", "net.onnx", "--dims", "64"],
            "--dims: is of the Inception network, and --extractor is net.onnx",
        ),
        (["--extractor", "net.onnx", "--protocol", "clean"], "--protocol: is of the Inception network"),
        (["--extractor", "net.onnx", "--weights", "w"], "--weights: is of the Inception network"),
        (["--input", "net.fastfid.json"], "--input: is of another network, which --extractor FILE.onnx names"),
        (["--extractor", "inception", "--input", "x"], "--input: is of another network"),
        (["--extractor", "dinov2"], "expected inception or FILE.onnx, got 'dinov2'"),
    ],
)
@pytest.mark.parametrize(
    "command", [["real", "fake"], ["stats", "real", "-o", "x"], ["compare", "real", "fake", "other"]]
)
def test_wrong_usage(here, run, command, words, text):
    code, out, err = run(*command, *words)
    assert (code, out) == (2, "")
    assert text in err


def test_no_image_is_read_before_the_network_is_known(here, run):
    """The folders do not exist as pictures: an error of theirs would come first."""
    for path in (here / "real").iterdir():
        path.write_bytes(b"no picture")
    (here / "net.fastfid.json").unlink()
    code, _, err = run("real", "fake", "--extractor", "net.onnx")
    assert code == 1
    assert "net.onnx: how its input is made is not known, and there is no net.fastfid.json: write that file" in err
    assert "--input SPEC.json" in err
    (here / "net.fastfid.json").write_text('{"size": [16, 16], "resise": "none"}')
    assert "net.fastfid.json: unknown key 'resise'" in run("real", "fake", "--extractor", "net.onnx")[2]
    assert "missing.onnx: No such file" in run("real", "fake", "--extractor", "missing.onnx")[2]


def test_options_of_the_network_beside_statistics_alone(here, run):
    for name in ("real", "fake"):
        assert run("stats", name, "-o", f"{name}.npz", "--extractor", "net.onnx")[0] == 0
    (here / "net.onnx").unlink()
    code, out, err = run("real.npz", "fake.npz", "--extractor", "net.onnx", "--input", "x.json")
    assert (code, out[:3]) == (0, "FD:")
    assert "fastfid: --extractor, --input: ignored, as no image is read" in err
