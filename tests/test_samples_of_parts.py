"""Parts of nodes have only those rows of the sample of the standard error that the whole set can need."""

import numpy as np
import pytest
from PIL import Image
from stubs import AllOutputs, GridMeans

from fastfid import compute_statistics, evaluate, reservoir, segments
from fastfid.errors import SkippedImagesWarning
from fastfid.reservoir import ALL_KEYS, RESERVOIR_ROWS, RowReservoir, sample_below
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two folders of 250 and of 130 pictures, segments of 20, three of which are a node, and a sample of 10 rows."""
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(segments, "RADIX", 3)
    monkeypatch.setattr(reservoir, "RESERVOIR_ROWS", 10)
    rng = np.random.default_rng(0)
    for name, high, number in (("real", 256, 250), ("fake", 200, 130)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.fromarray(rng.integers(0, high, (5, 5, 3), dtype=np.uint8)).save(tmp_path / name / f"{i:03}.bmp")
    return tmp_path / "real", tmp_path / "fake"


def in_nodes(monkeypatch, level):
    images = 20 * 3**level
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, wanted: Sizing(images, level, sample_below(n)))


@pytest.mark.parametrize("level", [0, 1])
def test_the_sample_has_the_bits_of_one_process_and_parts_have_few_rows(pictures, tmp_path, monkeypatch, level):
    plain = evaluate(*pictures, metrics="all", extractor=AllOutputs())
    in_nodes(monkeypatch, level)
    found = evaluate(*pictures, metrics="all", extractor=AllOutputs(), run_dir=tmp_path / "run")
    assert found["fid"].standard_error is not None
    assert dict(found) == dict(plain)
    parts = list((tmp_path / "run" / "parts" / "real").glob("*.npz"))
    rows = [len(np.load(path)["state/moments/features/reservoir_rows"]) for path in parts]
    assert len(parts) == -(-250 // (20 * 3**level))
    assert 10 <= sum(rows) <= 45  # about 20 of 250 rows; 250 without the bound at level 0


def test_images_that_are_left_out_leave_enough(pictures, tmp_path, monkeypatch):
    for i in range(0, 250, 4):
        (pictures[0] / f"{i:03}.bmp").write_bytes(b"no picture")
    options = {"metrics": "all", "extractor": AllOutputs(), "on_error": "skip"}
    with pytest.warns(SkippedImagesWarning):
        plain = evaluate(*pictures, **options)
    in_nodes(monkeypatch, 0)
    with pytest.warns(SkippedImagesWarning):
        found = evaluate(*pictures, **options, run_dir=tmp_path / "run")
    assert found["fid"].standard_error is not None
    assert dict(found) == dict(plain)


def test_where_most_images_are_left_out_there_is_no_standard_error(pictures, tmp_path, monkeypatch):
    for i in range(250):
        if i % 5:
            (pictures[1] / f"{i:03}.bmp").write_bytes(b"no picture")
    options = {"extractor": GridMeans(), "on_error": "skip"}
    with pytest.warns(SkippedImagesWarning):
        plain = evaluate(*pictures[::-1], **options)
    in_nodes(monkeypatch, 0)
    with pytest.warns(SkippedImagesWarning):
        found = evaluate(*pictures[::-1], **options, run_dir=tmp_path / "run")
    assert found["fid"].value == plain["fid"].value
    assert found["fid"].standard_error_of == "generated"


def test_a_set_to_which_images_are_added_keeps_its_bound(pictures, tmp_path, monkeypatch):
    in_nodes(monkeypatch, 0)
    compute_statistics(pictures[0], extractor=GridMeans(), run_dir=tmp_path / "run")
    for path in pictures[1].iterdir():
        path.rename(pictures[0] / f"x{path.name}")
    run = RunDirectory(tmp_path / "run", changed="extend")
    found = compute_statistics(pictures[0], extractor=GridMeans(), run_dir=run)
    assert (run.found, run.done) == (12, 7)
    assert run.plan.sides["real"].sizing.sample_below == sample_below(250)
    plain = compute_statistics(pictures[0], extractor=GridMeans())
    assert found.sigma.tobytes() == plain.sigma.tobytes()
    assert found.reservoir.rows.tobytes() == plain.reservoir.rows.tobytes()


def test_about_twice_the_rows_of_the_sample_are_below_the_bound():
    for n in (RESERVOIR_ROWS * 2 + 1, 20_000, 300_000):
        keys = reservoir._keys(np.arange(n))
        below = int((keys < sample_below(n)).sum())
        assert abs(below - 2 * RESERVOIR_ROWS) < 6 * np.sqrt(2 * RESERVOIR_ROWS)  # six standard deviations
    assert sample_below(2 * RESERVOIR_ROWS) == ALL_KEYS
    assert sample_below(10**12) > 0


def test_states_with_a_bound_come_back_and_wrong_ones_do_not():
    sample = RowReservoir(3)
    sample.update(np.ones((5000, 3), np.float32), np.arange(5000))
    state = sample.state(sample_below(10**7))
    again = RowReservoir.from_state(state, 3, 5000)
    assert again.rows.shape == (len(state["reservoir_keys"]), 3)
    assert 0 < len(again.keys) < 20
    assert not again.is_whole
    assert sample.is_whole
    for change in ({"reservoir_below": 5}, {"reservoir_below": None}):
        with pytest.raises(ValueError, match="reservoir_keys: expected shape"):
            RowReservoir.from_state({**state, **change}, 3, 5000)
