"""`--hash-inputs`: what the files of a set are, by their names and contents, as sha256sum says it."""

import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import Statistics, compute_fid, evaluate
from fastfid._files import FileSet
from fastfid.cli import main
from fastfid.errors import FastfidWarning

# "b.png" before "ä.png": sorted as bytes; sha256sum puts a backslash before the line of "\".
NAMES = ("b.png", "a.png", "ä.png", "sp ace.png", "back\\slash.png", "new\nline.png")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(tmp_path / "real" / name)
    return tmp_path / "real"


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.npy"
    np.save(path, np.random.default_rng(1).integers(0, 200, (7, 9, 11, 3), dtype=np.uint8))
    return path


def identities(real, fake, **options):
    return evaluate(real, fake, extractor=GridMeans(), hash_inputs=True, **options).to_dict()["inputs"]


def summed(folder, *files):
    """The same by coreutils."""
    command = '(export LC_ALL=C; cd "$0" && sha256sum -- "$@" | sha256sum)'
    done = subprocess.run(["sh", "-c", command, folder, *files], capture_output=True, text=True, check=True)
    return {
        "files": len(files),
        "bytes": sum(os.path.getsize(os.path.join(folder, file)) for file in files),
        "sha256": done.stdout.split()[0],
    }


def test_the_hash_is_that_of_sha256sum(folder, other):
    expected = {
        "real": summed(folder, *sorted(NAMES, key=os.fsencode)),
        "fake": summed(other.parent, other.name),
    }
    assert identities(folder, other) == expected
    assert evaluate(folder, other, extractor=GridMeans()).to_dict()["inputs"] is None
    assert compute_fid(folder, other, extractor=GridMeans(), hash_inputs=True, return_info=True)["inputs"] == expected
    # A subset is drawn from all files.
    assert identities(folder, other, num=4) == expected


def test_the_command_of_the_page(folder, other):
    for name in NAMES[2:]:
        (folder / name).unlink()
    command = "(export LC_ALL=C; cd real && sha256sum *.png | sha256sum)"
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text()
    assert command.replace("|", "\\|") in page
    done = subprocess.run(["sh", "-c", command], cwd=folder.parent, capture_output=True, text=True, check=True)
    assert identities(folder, other)["real"]["sha256"] == done.stdout.split()[0]


def test_every_kind_of_file(folder, tmp_path):
    arrays = np.random.default_rng(1).integers(0, 256, (5, 9, 11, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", arrays)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(3):
            archive.write(folder / NAMES[i], f"{i}.png")
    for i in range(2):
        with tarfile.open(tmp_path / f"{i}.tar", "w") as archive:
            archive.add(folder / NAMES[i], f"{i}.png")
    found = identities(tmp_path / "x.npz", tmp_path / "x.zip")
    assert found == {"real": summed(tmp_path, "x.npz"), "fake": summed(tmp_path, "x.zip")}
    assert identities(tmp_path / "{0,1}.tar", arrays) == {"real": summed(tmp_path, "0.tar", "1.tar"), "fake": None}
    statistics = Statistics(np.zeros(12), np.eye(12), 50, {"protocol": "none"})
    path = statistics.save(tmp_path / "s.npz")
    assert identities(path, statistics) == {"real": summed(tmp_path, "s.npz"), "fake": None}


def test_a_set_that_was_moved_is_the_same_and_one_that_differs_is_not(folder, tmp_path):
    (folder / "below").mkdir()
    shutil.copy(folder / "a.png", folder / "below" / "c.png")

    def hashed(root):
        return FileSet(os.path.join(here, name) for here, _, names in os.walk(root) for name in names).identity()

    shutil.copytree(folder, tmp_path / "moved" / "there")
    assert hashed(folder) == hashed(tmp_path / "moved" / "there")
    (folder / "a.png").rename(folder / "A.png")
    assert hashed(folder) != hashed(tmp_path / "moved" / "there")
    (folder / "A.png").rename(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes() + b"x")
    assert hashed(folder) != hashed(tmp_path / "moved" / "there")


def test_files_that_change_meanwhile_are_not_identified(folder, other):
    class Touching(GridMeans):
        def forward(self, batch):
            (folder / "a.png").touch()
            return super().forward(batch)

    with pytest.warns(FastfidWarning, match=r"real: not identified: its files changed meanwhile"):
        found = evaluate(folder, other, extractor=Touching(), hash_inputs=True).to_dict()["inputs"]
    assert found == {"real": None, "fake": summed(other.parent, other.name)}


def test_a_file_that_was_skipped_counts(folder, other):
    whole = identities(folder, other)["real"]
    os.symlink(folder / "nowhere", folder / "link.png")
    with pytest.warns(FastfidWarning, match="skipped 1 unreadable images"):
        found = identities(folder, other, on_error="skip")["real"]
    assert (found["files"], found["bytes"]) == (whole["files"] + 1, whole["bytes"])
    assert found["sha256"] != whole["sha256"]


def test_the_command_line(tmp_path, capsys):
    for i in (1, 2):
        Statistics(np.full(8, i), np.eye(8), 50, {"protocol": "none"}).save(tmp_path / f"{i}.npz")
    paths = [str(tmp_path / "1.npz"), str(tmp_path / "2.npz")]
    assert main([*paths, "--hash-inputs", "--append", str(tmp_path / "runs.jsonl")]) == 0
    assert capsys.readouterr().out.startswith("FID:  ")
    assert main([*paths, "--hash-inputs", "--json"]) == 0
    expected = {"real": summed(tmp_path, "1.npz"), "fake": summed(tmp_path, "2.npz")}
    assert json.loads(capsys.readouterr().out)["inputs"] == expected
    assert json.loads((tmp_path / "runs.jsonl").read_text())["inputs"] == expected
