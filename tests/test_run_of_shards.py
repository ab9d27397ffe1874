"""Runs of shards whose sizes are those at which segments and blocks end, and of sets of which little can be read."""

import io
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import compute_statistics, evaluate
from fastfid.errors import SkippedImagesWarning
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing
from fastfid.segments import SEGMENT

TESTS = str(Path(__file__).parent)


class Mean(GridMeans):
    """The mean of each channel: three features, of which one image in many thousands takes little time."""

    def __init__(self):
        super().__init__(1)

    def prepare(self, image):
        return image.reshape(-1, 3).mean(0, dtype=np.float32)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Tars of 0, 1, 383, 16,469 and 16,470 pictures."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for number, n in enumerate((1, 0, 383, SEGMENT, SEGMENT + 1)):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for i in range(n):
                data = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (1, 1, 3), dtype=np.uint8)).save(data, "ppm")
                member = tarfile.TarInfo(f"{number}-{i:05}.ppm")
                member.size = len(data.getvalue())
                archive.addfile(member, io.BytesIO(data.getvalue()))
    return folder


N = 1 + 383 + SEGMENT + SEGMENT + 1


@pytest.fixture(scope="module")
def plain(shards):
    """The statistics of all shards by one process."""
    with warnings.catch_warnings(action="ignore"):  # a pixel repeats here and there
        return compute_statistics(f"{shards}/*.tar", extractor=Mean(), num_workers=0)


@pytest.mark.filterwarnings("ignore::fastfid.errors.SuspiciousInputWarning")  # a pixel repeats here and there
@pytest.mark.parametrize("sizing", [Sizing(4000), Sizing(SEGMENT, 0)], ids=str)
def test_every_image_of_shards_of_any_size_counts_once(shards, plain, tmp_path, monkeypatch, sizing):
    source, options = f"{shards}/*.tar", {"extractor": Mean(), "num_workers": 0}
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: sizing)
    run = RunDirectory(tmp_path / "run")
    found = compute_statistics(source, **options, run_dir=run)
    assert run.done == -(-N // sizing.images)
    assert found.n == plain.n == N
    assert (found.mu.tobytes(), found.sigma.tobytes()) == (plain.mu.tobytes(), plain.sigma.tobytes())
    assert found.reservoir.rows.tobytes() == plain.reservoir.rows.tobytes()


def test_a_random_subset_of_shards_is_that_of_one_process(shards, tmp_path):
    options = {"extractor": Mean(), "num": 383, "seed": 5}
    some = compute_statistics(f"{shards}/*.tar", **options)
    again = compute_statistics(f"{shards}/*.tar", **options, run_dir=tmp_path / "some")
    assert (again.n, again.sigma.tobytes()) == (383, some.sigma.tobytes())


@pytest.mark.parametrize("level", [None, 0])
def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path, monkeypatch, level):
    for name in ("real", "fake"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.png").write_bytes(b"no picture")
    options = {"extractor": GridMeans(), "on_error": "skip"}
    sides = tmp_path / "real", tmp_path / "fake"

    def error(**more):
        with pytest.warns(SkippedImagesWarning), pytest.raises(ValueError, match="at least 2 images") as raised:
            evaluate(*sides, **options, **more)
        return str(raised.value)

    plain = error()
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(SEGMENT if level == 0 else 4, level))
    assert error(run_dir=tmp_path / "run") == plain


TWO = """
import sys, time
sys.path.insert(0, {tests!r})
from stubs import GridMeans
from fastfid import evaluate, segments
from fastfid.scale.plan import Sizing

segments.SEGMENT, segments.RADIX = 10, 3
Sizing.choose = lambda n, workers, images: Sizing(10, 0)

class Slow(GridMeans):
    def forward(self, batch):
        time.sleep(0.002)
        return super().forward(batch)

print(evaluate({a!r}, {b!r}, extractor=Slow(), run_dir={run!r})["fid"].value)
"""


def test_two_drivers_that_merge_on_one_folder_do_no_harm(tmp_path):
    rng = np.random.default_rng(1)
    for name, high in (("real", 256), ("fake", 200)):
        (tmp_path / name).mkdir()
        for i in range(140):
            Image.fromarray(rng.integers(0, high, (5, 5, 3), dtype=np.uint8)).save(tmp_path / name / f"{i:03}.bmp")
    script = TWO.format(tests=TESTS, a=str(tmp_path / "real"), b=str(tmp_path / "fake"), run=str(tmp_path / "run"))
    command = [sys.executable, "-c", script]
    three = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate() for process in three]
    assert [process.returncode for process in three] == [0, 0, 0], said
    plain = evaluate(tmp_path / "real", tmp_path / "fake", extractor=GridMeans())
    assert {out for out, _ in said} == {f"{plain['fid'].value}\n"}
