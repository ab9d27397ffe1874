"""What a run says of its sources: sizes, modes and formats of the images it has decoded, counted by hand."""

import copy
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import evaluate
from fastfid.errors import FastfidWarning
from fastfid.evaluation.extractors import evaluate_extractors
from fastfid.tally import Tally

FILES = [
    ("0.png", (8, 6), "RGB"),
    ("1.png", (8, 6), "L"),
    ("2.jpg", (6, 8), "RGB"),
    ("3.webp", (40, 30), "RGB"),
    ("4.png", (5, 5), "P"),
]
EXPECTED = {
    "images": 6,
    "decoded": 5,
    "sizes": 4,
    "smallest": [5, 5],
    "largest": [40, 30],
    "most_common": [8, 6],
    "modes": {"RGB": 3, "L": 1, "P": 1},
    "formats": {"PNG": 3, "JPEG": 1, "WEBP": 1},
    "notes": ["1 other file not read (.txt)"],
}
ARRAY = np.random.default_rng(0).integers(0, 256, (4, 7, 9, 3), dtype=np.uint8)
OF_ARRAY = {
    "images": 4,
    "decoded": 4,
    "sizes": 1,
    "smallest": [9, 7],
    "largest": [9, 7],
    "most_common": [9, 7],
    "modes": {"RGB": 4},
    "formats": {"array": 4},
    "notes": [],
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    rng = np.random.default_rng(1)
    for name, (width, height), mode in FILES:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path / name)
    (path / "5.png").write_bytes(b"damaged")
    (path / "notes.txt").write_text("")
    return path


def found(real, fake, **options):
    with pytest.warns(FastfidWarning):  # of the damaged picture
        record = evaluate(real, fake, metrics=["fid"], extractor=GridMeans(), on_error="skip", **options).to_dict()
    return json.loads(json.dumps(record))["sources"]


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_images_are_counted_as_they_are_decoded(folder, num_workers):
    sides = found(folder, ARRAY, num_workers=num_workers)
    assert sides == {"real": EXPECTED, "fake": OF_ARRAY}


def test_parts_of_a_run_directory_add_up(folder, tmp_path):
    (tmp_path / "fake.npy").write_bytes(b"")
    np.save(tmp_path / "fake.npy", ARRAY)
    assert found(folder, tmp_path / "fake.npy", run_dir=tmp_path / "run")["real"] == EXPECTED
    assert found(folder, tmp_path / "fake.npy", run_dir=tmp_path / "run") == {"real": EXPECTED, "fake": OF_ARRAY}


def test_a_store_decodes_nothing_again(folder, tmp_path):
    assert found(folder, ARRAY[:4].copy(), num_workers=1)["real"] == EXPECTED
    np.save(tmp_path / "fake.npy", ARRAY)
    assert found(folder, tmp_path / "fake.npy", store=tmp_path / "store")["real"] == EXPECTED
    again = found(folder, tmp_path / "fake.npy", store=tmp_path / "store")["real"]
    assert (again["images"], again["decoded"], again["smallest"], again["modes"]) == (6, 0, None, {})


def test_streams_and_pictures_of_python(folder):
    def pictures():
        for name, _, _ in FILES:
            with Image.open(folder / name) as picture:
                yield picture

    side = found(folder, pictures())["fake"]
    assert (side["images"], side["decoded"], side["sizes"], side["formats"]) == (5, 5, 4, {"array": 5})


def test_encoded_pictures_keep_their_formats(folder):
    data = [(folder / name).read_bytes() for name, _, _ in FILES]
    side = found(folder, iter(data), num_workers=2)["fake"]
    assert side == {**EXPECTED, "images": 5, "notes": []}


class Fixed(GridMeans):
    """As several extractors need it: with inputs of one shape."""

    def __init__(self):
        super().__init__()
        self.input_shape = (self.dims,)


def test_several_extractors(folder):
    with pytest.warns(FastfidWarning):
        every = evaluate_extractors(folder, ARRAY, {"a": Fixed()}, metrics=["fid"], on_error="skip")
    assert every["a"].to_dict()["sources"] == {"real": EXPECTED, "fake": OF_ARRAY}


def test_a_state_is_the_counts():
    tally = Tally()
    for size in ((3, 4), (1, 2), (3, 4)):
        tally.add(*size, "L", "PNG")
    other = Tally()
    for size in ((1, 2), (3, 4), (3, 4)):  # another order, as threads have it
        other.add(*size, "L", "PNG")
    states = tally.state(), other.state()
    for name in Tally.STATE:
        np.testing.assert_array_equal(*(state[name] for state in states))
    again = Tally.from_state(states[0])
    again.merge(other)
    assert (again.sizes, again.modes, again.number) == ({(3, 4): 4, (1, 2): 2}, {"L": 6}, 6)
    assert Tally.from_state(Tally().state()).to_dict()["smallest"] is None


def test_it_is_pickled_and_copied():
    """Objects of a training loop that are pickled have one."""
    tally = Tally()
    tally.add(3, 4, "L", "PNG")
    for again in (pickle.loads(pickle.dumps(tally)), copy.deepcopy(tally)):
        again.add(3, 4, "L", "PNG")
        assert (again.number, tally.number) == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"tally_sizes": np.zeros((1, 2), np.int64)},
        {"tally_sizes": np.zeros((1, 3))},
        {"tally_sizes": np.zeros(3, np.int64)},
        {"tally_kinds": np.array("{")},
        {"tally_kinds": np.array("[" * 100_000)},
        {"tally_kinds": np.array("[1, 2]")},
        {"tally_kinds": np.array('[{"L": "x"}, {}]')},
        {"tally_kinds": np.array('[{"L": null}, {}]')},
    ],
)
def test_a_state_that_is_damaged(change):
    with pytest.raises(ValueError, match="the counts of sizes, modes and formats are damaged"):
        Tally.from_state({**Tally().state(), **change})
