"""The scripts in examples/ run as they are and print a number."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tolerances import PRINTED_4

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, weights):
    root = tmp_path_factory.mktemp("examples")
    for seed, name in enumerate(("real", "generated")):
        (root / name).mkdir()
        rng = np.random.default_rng(seed)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256 - 90 * seed, (40, 40, 3), dtype=np.uint8)).save(
                root / name / f"{i}.png"
            )
    return str(root / "real"), str(root / "generated")


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here_or_where_its_packages_are():
    text = (ROOT / "tests" / "training" / "test_examples.py").read_text()
    elsewhere = {"lightning_callback.py", "fastfid_metrics.py"}
    assert all(f'"{name}"' in text for name in elsewhere)
    assert {path.name for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("hf_evaluate/*.py")]} == elsewhere | {
        "replace_pytorch_fid.py",
        "score_a_generator.py",
        "score_a_pipeline.py",
        "score_two_folders.py",
        "training_loop.py",
    }


def test_two_folders_and_the_script_that_used_pytorch_fid_agree(folders):
    first = run("score_two_folders.py", *folders, "--dims", "64")
    second = run("replace_pytorch_fid.py", *folders, "64")
    assert "6 real and 6 generated images, 64 dimensions" in first
    fid = float(re.search(r"FID ([0-9.]+), standard error of sampling unknown: .* n = 6 <= d = 64", first)[1])
    assert re.search(r"rounding after the network moves it by at most \d\.\de-\d\d$", first, re.MULTILINE)
    assert fid > 0
    number = re.search(r"^FID:  ([0-9.]+)$", second, re.MULTILINE)
    assert float(number[1]) == pytest.approx(fid, abs=PRINTED_4)


def test_the_change_from_pytorch_fid_is_one_line():
    text = (EXAMPLES / "replace_pytorch_fid.py").read_text()
    was, now = re.search(r"^# (from pytorch_fid\S* import .*)\n(from \S+ import .*)$", text, re.MULTILINE).groups()
    assert now == was.replace("pytorch_fid", "fastfid.compat.pytorch_fid", 1)
    assert text.count("fastfid") == 1


def test_fid_falls_in_the_training_loop(weights):
    out = run("training_loop.py", "--steps", "20", "--images", "70")
    found = re.findall(r"FID ([0-9.]+), standard error ([0-9.]+)", out)
    (first, first_error), (last, last_error) = [[float(number) for number in pair] for pair in found]
    assert last + last_error < first - first_error
    assert "standard error unknown" in run("training_loop.py", "--steps", "0", "--images", "16")


def test_a_generator_is_scored(folders):
    out = run("score_a_generator.py", folders[0], "--images", "10", "--dims", "64")
    assert float(re.search(r"FID of 10 generated images: ([0-9.]+)", out)[1]) > 0


def test_a_pipeline_is_scored_and_a_run_goes_on(folders, tmp_path):
    arguments = (folders[0], "--images", "10", "--dims", "64")
    whole = run("score_a_pipeline.py", *arguments)
    for _ in range(2):  # the second takes all of it from the folder
        assert run("score_a_pipeline.py", *arguments, "--run-dir", str(tmp_path / "run")) == whole
    assert float(re.search(r"FID of 10 generated images: ([0-9.]+)", whole)[1]) > 0


def test_every_number_to_expect_names_a_test_beside_the_tool():
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == [
        "pytorch-fid",
        "torchmetrics",
        "clean-fid",
        "torch-fidelity",
    ]
    for section in sections:
        shown = re.search(r"^Shown in (`.*`)\.$", section, re.MULTILINE)[1]
        source = "".join((ROOT / file).read_text() for file in re.findall(r"`(tests/peers/\w+\.py)`", shown))
        rows = re.findall(r"^\| .* \|$", section, re.MULTILINE)[1:]
        assert rows
        for row in rows:
            test = re.search(r"\| `(test_\w+)` \|$", row)
            assert test, row
            assert f"\ndef {test[1]}(" in source, row
