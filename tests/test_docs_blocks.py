"""Every block of code in README.md and docs/ is run: here, by another test that is named here, or it says why not.

Here the blocks of a page run one after the other, as a reader would run them, in a folder with small pictures: commands
by bash, Python in one namespace. What cannot run begins with "# not run here: needs ...".
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pages
import pytest

from fastfid import InputSpec

IMAGES = 12  # of each set: the neighbours of precision and recall need six
COMMANDS = {"", "sh", "console", "bash"}
# Output, files of data, citations, and the navigation.
NO_CODE = {"text", "json", "bibtex", "{toctree}"}
# Files that stand in full on a page, their name above them, and commands that end in the name of one.
FILES = {
    "training.md": ("test_training.py", "training/test_packages.py"),
    "reporting.md": ("test_reporting.py",),
    "extractors.md": ("test_exported_networks.py",),
}
# Blocks that another test runs: page, first line, where it is run, and what is written there.
ELSEWHERE = {
    ("README.md", 'pip install ".[demo]" && fastfid demo'): ("tests/test_demo.py", "def test_the_whole_demo"),
    ("README.md", 'pip install ".[test]" && python -m pytest'): (
        ".ci/run",
        'pip install ".[test]" && python -m pytest',
    ),
    ("training.md", "fastfid stats real/ -o real.npz"): ("tests/pages.py", '["fastfid", "stats"]'),
    ("training.md", "fastfid compare real.npz epoch-0.npz epoch-1.npz"): (
        "tests/test_training.py",
        '"compare" in words',
    ),
    ("training.md", "python examples/lightning_callback.py real.npz --processes 2"): (
        "tests/training/test_examples.py",
        '"examples/lightning_callback.py" in words',
    ),
    ("extractors.md", "fastfid extractors export dinov2-vitl14/dgm-eval dinov2_vitl14_pretrain.pth -o dinov2.onnx"): (
        "tests/test_known_extractors.py",
        '"dinov2_vitl14_pretrain.pth"',
    ),
    ("reporting.md", "fastfid train/ generated/ --append results.jsonl"): ("tests/test_reporting.py", '"--append"'),
    ("reporting.md", "fastfid compare train/ run-a/ run-b/ --json"): ("tests/test_reporting.py", '"compare"'),
}
# A reader runs the line on several machines, or once for each index.
PART = "fastfid part --run-dir run --index {} --of 8"
INSTEAD = {PART.format(0): "; ".join(PART.format(i) for i in range(8))}
PAGES = ["README.md", *sorted(path.name for path in (pages.ROOT / "docs").glob("*.md"))]


def where(page, above, text):
    """The files that run a block, and the words by which they name it; None: the block is to be run here."""
    first = text.splitlines()[0]
    if (page, first) in ELSEWHERE:
        file, word = ELSEWHERE[page, first]
        return (file,), word
    name = re.fullmatch(r"`(\w+\.py)`", above) or re.search(r"^[^#]*torchrun .* (\w+\.py)$", first)
    if name:
        return tuple(f"tests/{file}" for file in FILES[page]), f'"{name[1]}"'
    return None


def test_every_block_is_run_or_says_why_not():
    used = set()
    for page in PAGES:
        for above, language, text in pages.blocks(page):
            assert language in COMMANDS | NO_CODE | {"python"}, f"{page}: a block of the unknown language {language!r}"
            if language in NO_CODE:
                continue
            first = text.splitlines()[0]
            if first.startswith("# not run here"):
                assert re.match(rf"{pages.MARK}\w+", first), f"{page}: {first}"
            elif found := where(page, above, text):
                used.add((page, first))
                files, word = found
                assert any(word in (pages.ROOT / file).read_text() for file in files), (
                    f"{page}: {word} in none of {files}"
                )
    assert set(ELSEWHERE) <= used, "a row of ELSEWHERE is about no block"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with what the pages read: sets of pictures, archives, arrays, networks."""
    folder = tmp_path_factory.mktemp("template")
    sets = {"real": 256, "train": 255, "generated": 236, "fake": 230, "run-a": 240, "run-b": 220, "step9": 210}
    for seed, (name, high) in enumerate(sets.items()):
        pages.noise(folder / name, IMAGES, seed, high)
    for archive in ("generated", "shards"):
        with zipfile.ZipFile(folder / f"{archive}.zip", "w") as made:
            for picture in sorted((folder / "generated").iterdir()):
                made.write(picture, picture.name)
    rng = np.random.default_rng(0)
    for array in ("VIRTUAL_imagenet256_labeled.npz", "samples.npz"):
        np.savez(folder / array, arr_0=rng.integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8))
    network = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 3, 224, 224] x) => (float[n, 3] embedding)'
    model = onnx.parser.parse_model(f"{network} {{ embedding = ReduceMean <axes = [2, 3], keepdims = 0> (x) }}")
    for name, size in (("vit", (224, 224)), ("dinov2", (224, 224)), ("clip", (224, 224))):
        model.doc_string = name  # the networks differ, so that each has an identity of its own
        onnx.save(model, folder / f"{name}.onnx")
        InputSpec(size, filter="bicubic").save(folder / f"{name}.fastfid.json")
    return folder


def sort_into_classes(folder):
    for side in ("real", "fake"):
        for i, picture in enumerate(sorted((folder / side).iterdir())):
            target = folder / side / ("cat" if i % 2 else "dog")
            target.mkdir(exist_ok=True)
            picture.rename(target / picture.name)


def given(page):
    """The names that the Python blocks of a page have from the reader's own program."""
    rng = np.random.default_rng(1)
    images, rows = rng.integers(0, 256, (2, IMAGES, 16, 16, 3), dtype=np.uint8), rng.normal(0, 1, (2, 50, 8))
    return {
        "README.md": {"real_batch": images[0], "fake_batch": images[1]},
        "metrics.md": {"real_features": rows[0], "fake_features": rows[1]},
        "adm.md": {"some_images": images[0]},
    }.get(page, {})


def to_run(page):
    """(language, text) of the blocks of a page that this file runs."""
    return [
        (language, text)
        for above, language, text in pages.blocks(page)
        if language not in NO_CODE and not text.startswith(pages.MARK) and where(page, above, text) is None
    ]


def bash(text, folder):
    """Run commands in a folder, with the programs of the environment that runs the tests, until one fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_the_blocks_of_a_page_run(page, template, weights, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    shutil.copytree(template, folder)
    if page == "classes.md":
        sort_into_classes(folder)
    monkeypatch.chdir(folder)
    # For Python blocks that start commands.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names = given(page)
    for language, text in to_run(page):
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line, instead in INSTEAD.items():
            text = text.replace(f"{line}\n", f"{instead}\n")
        bash(text, folder)


def six_digits(text):
    """The text without what may differ between machines: digits behind the sixth, and what is said of the device."""
    text = re.sub(r"^fastfid: running on .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\d+\.\d{6,}", lambda number: f"{float(number[0]):.6g}", text)


def test_the_start_page_shows_what_comes(weights, tmp_path):
    blocks = pages.blocks("start.md")
    shown = [six_digits(text) for _, language, text in blocks if language == "text"]
    install, *others = [
        line for _, language, text in blocks if not language for line in text.splitlines() if line[0] != "#"
    ]
    assert install == "pip install ."
    fid, stats, compare, metrics, *_ = others
    for images in (IMAGES, 150):
        (tmp_path / str(images)).mkdir()
        for seed, (name, high) in enumerate({"real": 256, "generated": 236, "run-a": 240, "run-b": 220}.items()):
            pages.noise(tmp_path / str(images) / name, images, seed, high)
    runs = [
        bash(fid, tmp_path / str(IMAGES)),
        bash(f"{fid} --dims 64", tmp_path / "150"),
        bash(f"{stats} --dims 64 --quiet; {compare} --quiet", tmp_path / "150"),
        bash(f"{metrics} --dims 64 --quiet", tmp_path / "150"),
    ]
    assert [six_digits(done.stderr) + six_digits(done.stdout) for done in runs] == shown
