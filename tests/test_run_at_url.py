"""Run directories at URLs: the bits, the messages and the refusals of those in folders."""

import errno
import shutil
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from stubs import GridMeans

from fastfid import _remote, cli, evaluate, segments
from fastfid.evaluation import steps
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing


@pytest.fixture
def pictures(tmp_path):
    """Two folders, of 100 and of 40 pictures."""
    rng = np.random.default_rng(0)
    for name, high, number in (("real", 256, 100), ("fake", 200, 40)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.fromarray(rng.integers(0, high, (5, 5, 3), dtype=np.uint8)).save(tmp_path / name / f"{i:03}.bmp")
    return tmp_path / "real", tmp_path / "fake"


class FailingFileSystem(MemoryFileSystem):
    """A file system in memory whose requests to write fail as often as they are told."""

    protocol = "failing"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    failures: ClassVar[list] = []

    def pipe_file(self, path, value, mode="overwrite", **options):
        if self.failures:
            raise self.failures.pop(0)
        return super().pipe_file(path, value, mode, **options)


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    """Nothing at memory:// and failing://, and no delays before requests are made again."""
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    monkeypatch.setattr(_remote, "_DELAYS_S", (0, 0, 0, 0))
    for kind in (MemoryFileSystem, FailingFileSystem):
        kind.store.clear()
    FailingFileSystem.failures = []


class Unused(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network ran")


def files():
    return sorted(name for name in MemoryFileSystem.store if name.endswith(".npz"))


def test_a_run_at_a_url_has_the_bits_of_one_process_and_goes_on(pictures):
    plain = evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans())
    run = RunDirectory("memory://bucket/run")
    assert dict(evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=run)) == dict(plain)
    assert (run.done, run.found, str(run.path)) == (6, 0, "memory://bucket/run")
    assert files()[0] == "/bucket/run/parts/fake/000000000000-32-rows.npz"
    for name in files()[1:3]:
        del MemoryFileSystem.store[name]
    run = RunDirectory("memory://bucket/run/")
    assert dict(evaluate(*pictures, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=run)) == dict(plain)
    assert (run.done, run.found) == (2, 4)
    assert dict(evaluate(*pictures, metrics=["fid", "kid"], extractor=Unused(), run_dir="memory://bucket/run")) == dict(
        plain
    )


def test_nodes_replace_their_children_there_too(pictures, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 10)
    monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(10, 0))
    plain = evaluate(*pictures, extractor=GridMeans())
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir="memory://run")) == dict(plain)
    assert [name.rpartition("/")[2] for name in files() if "/real/" in name] == [
        "000000000000-90-node2.npz",
        "000000000090-10-node0.npz",
    ]
    assert dict(evaluate(*pictures, extractor=Unused(), run_dir="memory://run")) == dict(plain)


def test_the_three_steps_and_their_commands(pictures, capsys, weights, monkeypatch):
    plain = evaluate(*pictures, extractor=GridMeans())
    assert steps.plan(*pictures, "memory://steps", extractor=GridMeans()) == 6
    with pytest.raises(ValueError, match=r"memory://steps: 6 of 6 Parts are missing, first that of images 0 to 31"):
        steps.reduce("memory://steps")
    assert [steps.part("memory://steps", index, 2, extractor=GridMeans()) for index in (1, 0)] == [3, 3]
    assert dict(steps.reduce("memory://steps")) == dict(plain)
    sides = [str(path) for path in pictures]
    for path in sorted(pictures[0].iterdir())[20:] + sorted(pictures[1].iterdir())[20:]:
        path.unlink()
    assert cli.main([*sides, "--dims", "64", "--quiet"]) == 0
    expected = capsys.readouterr().out
    assert cli.main([*sides, "--dims", "64", "--quiet", "--run-dir", "memory://cli"]) == 0
    assert cli.main(["reduce", "--run-dir", "memory://cli", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == expected
    assert "memory://cli: was not made by fastfid plan" in err


def test_damage_and_changes_are_found(pictures, capsys):
    plain = evaluate(*pictures, extractor=GridMeans(), run_dir="memory://run")
    file = MemoryFileSystem.store[files()[1]]
    data = bytearray(file.getvalue())
    data[len(data) // 2] ^= 1
    fsspec.filesystem("memory").pipe_file(files()[1], bytes(data))
    run = RunDirectory("memory://run")
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir=run)) == dict(plain)
    assert run.done == 1
    assert "memory://run/parts/fake/000000000032-8-rows.npz: is damaged" in capsys.readouterr().err
    assert f"{files()[1]}.bad" in MemoryFileSystem.store
    with pytest.raises(ValueError, match="memory://run: is of another run: dims is 12 there, 27 here"):
        evaluate(*pictures, extractor=GridMeans(3), run_dir="memory://run")
    fsspec.filesystem("memory").pipe_file("/run/parts/real/theirs.npz", b"of the user")
    evaluate(*pictures, extractor=GridMeans(3), run_dir=RunDirectory("memory://run", changed="fresh"))
    assert "/run/parts/real/theirs.npz" in MemoryFileSystem.store
    assert f"{files()[1]}.bad" not in MemoryFileSystem.store
    shutil.copy(pictures[0] / "000.bmp", pictures[1] / "a.bmp")
    run = RunDirectory("memory://run", changed="extend")
    with pytest.warns(match="also among the real ones"):
        evaluate(*pictures, extractor=GridMeans(3), run_dir=run)
    assert run.done == 1


def test_requests_that_fail_are_made_again_and_the_last_failure_names_the_url(pictures):
    plain = evaluate(*pictures, extractor=GridMeans())
    FailingFileSystem.failures = [OSError("no answer"), TimeoutError("too slow")] * 2
    assert dict(evaluate(*pictures, extractor=GridMeans(), run_dir="failing://run")) == dict(plain)
    FailingFileSystem.failures = [OSError("no answer")] * 5
    where = r"failing://other/plan\.json"
    with pytest.raises(OSError, match=r"cannot be written \(no answer\)") as raised:
        evaluate(*pictures, extractor=GridMeans(), run_dir="failing://other")
    assert raised.value.filename == "failing://other/plan.json"
    FailingFileSystem.failures = [PermissionError("no right")]
    with pytest.raises(PermissionError, match=rf"access is denied \(no right\): '{where}'"):
        evaluate(*pictures, extractor=GridMeans(), run_dir="failing://other")
    FailingFileSystem.failures = [FileNotFoundError("no bucket")]
    with pytest.raises(FileNotFoundError, match=where):
        evaluate(*pictures, extractor=GridMeans(), run_dir="failing://other")
    FailingFileSystem.failures = [OSError(errno.ENOSPC, "quota exceeded")] * 5
    with pytest.raises(OSError, match="quota exceeded"):
        evaluate(*pictures, extractor=GridMeans(), run_dir="failing://other")


def test_places_that_cannot_be_written_to_are_refused(pictures, tmp_path):
    with pytest.raises(
        ValueError, match=r"https://host/run: nothing can be written to a web server; expected a folder"
    ):
        RunDirectory("https://host/run")
    with pytest.raises(ValueError, match="nowhere://run: "):
        RunDirectory("nowhere://run")
    run = RunDirectory(f"file://{tmp_path}/run")
    evaluate(*pictures, extractor=GridMeans(), run_dir=run)
    assert (tmp_path / "run" / "plan.json").exists()
    assert run.path == tmp_path / "run"
