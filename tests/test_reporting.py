"""docs/reporting.md: its commands and its script run, and its example is what they print."""

import json
import re
import subprocess
import sys

import pages
import pytest

import fastfid


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("reporting")
    pages.noise(folder / "train", 150)
    for seed, (name, high) in enumerate({"generated": 236, "run-a": 240, "run-b": 220}.items(), 1):
        pages.noise(folder / name, 150, seed, high)
    for name, text in pages.files("reporting.md").items():
        (folder / name).write_text(text)
    return folder


def run(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(word):
    (words,) = [words for words in pages.commands("reporting.md") if word in words]
    return ["-m", *words, "--dims", "64"]


def test_the_example_is_what_the_script_prints(folder):
    run(folder, *command("--append"))
    printed = run(folder, "report.py").replace(f"fastfid {fastfid.__version__} ", "fastfid 0.1.0 ")
    examples = [text for _, language, text in pages.blocks("reporting.md") if language == "text"]
    assert " ".join(printed.split()) in [" ".join(text.split()) for text in examples]
    record = json.loads((folder / "results.jsonl").read_text())
    page = (pages.ROOT / "docs" / "reporting.md").read_text()
    rows = [row.split("|")[2] for row in re.findall(r"^\| .* \|$", page, re.MULTILINE)[1:]]
    named = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert len(named) > 10
    assert set(named) <= set(record)


def test_a_sentence_without_a_standard_error_says_why(folder, monkeypatch, capsys):
    record = fastfid.compute_fid(folder / "train", folder / "generated", dims=64, num=20, return_info=True)
    (folder / "few").mkdir()
    (folder / "few" / "results.jsonl").write_text(json.dumps({**record, "command": ["fastfid"]}) + "\n")
    monkeypatch.chdir(folder / "few")
    exec((folder / "report.py").read_text(), {})
    assert "(no standard error: " in capsys.readouterr().out


def test_a_comparison_has_what_its_sentence_needs(folder):
    found = json.loads(run(folder, *command("compare")))
    (row,) = found["differences"]
    assert {"difference", "standard_error", "verdict"} <= set(row)
    assert row["verdict"].startswith("run-a/ is better by ")
