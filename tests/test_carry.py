"""tools/carry.py: what is cut here arrives there whole, or not at all."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def carry():
    path = Path(__file__).resolve().parents[1] / "tools" / "carry.py"
    spec = importlib.util.spec_from_file_location("carry", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    contents = {"a.whl": 2500, "empty": 0, "exact.pt": 1000, "b.bin": 10}
    for k, (name, size) in enumerate(contents.items()):
        (tmp_path / name).write_bytes(np.random.default_rng(k).bytes(size))
    return [tmp_path / name for name in contents]


@pytest.mark.parametrize("order", ["as cut", "backwards", "twice"])
def test_files_arrive(carry, files, tmp_path, order):
    loads = carry.split(files, tmp_path / "loads", 1000)
    assert all(sum(p.stat().st_size for p in load.iterdir() if p.name != carry.MANIFEST) <= 1000 for load in loads)
    if order == "backwards":
        loads.reverse()
    arrived = [file for load in loads for file in carry.join(load, tmp_path / "there")]
    if order == "twice":
        for load in loads:
            carry.join(load, tmp_path / "there")
    assert sorted(file.name for file in arrived) == sorted(file.name for file in files)
    for file in files:
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()


def test_loads_hold_something(carry, files, tmp_path):
    (tmp_path / "loads").mkdir()
    kept = tmp_path / "loads" / "kept"
    kept.touch()
    with pytest.raises(ValueError, match="load_bytes: expected at least 1, got 0"):
        carry.split(files, tmp_path / "loads", 0)
    command = [sys.executable, carry.__file__, "split", *files, "--to", tmp_path / "loads", "--mib"]
    for mib in ("0", "-1", "0.9", "nan"):
        done = subprocess.run([*command, mib], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert f"--mib: expected at least 1, got {mib}" in done.stderr
    assert kept.exists()  # refused before anything goes


def test_a_damaged_piece_is_noticed(carry, files, tmp_path):
    first, *others = carry.split(files[:1], tmp_path / "loads", 1000)
    piece = next(path for path in first.iterdir() if path.name != carry.MANIFEST)
    piece.write_bytes(b"x" * 1000)
    carry.join(first, tmp_path / "there")
    *between, last = others
    for load in between:
        carry.join(load, tmp_path / "there")
    with pytest.raises(ValueError, match=r"a.whl: expected SHA-256"):
        carry.join(last, tmp_path / "there")
    assert not (tmp_path / "there" / "a.whl").exists()
