"""Images of a function of seeds: any part is the part of the whole, and run directories know what made it."""

import numpy as np
import pytest
import torch
from PIL import Image
from stubs import GridMeans

from fastfid import compute_statistics, evaluate
from fastfid.errors import ImageError
from fastfid.sources import GeneratedSource

REAL = np.random.default_rng(10**6).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def generate(seeds):
    assert isinstance(seeds, list)
    assert all(type(seed) is int for seed in seeds)
    return np.stack([image(seed) for seed in seeds])


def pixels(items):
    return np.stack([item.load() for item in items])


@pytest.mark.parametrize("batch_size", [1, 4, 7, 30, 100])
@pytest.mark.parametrize("seed", [0, 1000])
def test_image_i_has_the_seed_of_i(batch_size, seed):
    source = GeneratedSource(generate, 30, batch_size=batch_size, seed=seed)
    expected = np.stack([image(seed + i) for i in range(30)])
    np.testing.assert_array_equal(pixels(source), expected)
    for first, count in ((0, 30), (3, 10), (29, 1), (7, 7), (10, 0)):
        part = source.slice(first, count)
        assert [item.name for item in part] == [f"generate: image {i}" for i in range(first, first + count)]
        if count:
            np.testing.assert_array_equal(pixels(part), expected[first : first + count])


def test_parts_are_made_in_the_batches_of_the_whole():
    calls = []

    def record(seeds):
        calls.append(seeds)
        return generate(seeds)

    source = GeneratedSource(record, 10, batch_size=4)
    list(source.slice(5, 2))
    assert calls == [[4, 5, 6, 7]]
    list(source.slice(7, 3))  # goes on in the batch that is there
    assert calls == [[4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    "made",
    [
        lambda seeds: [Image.fromarray(image(seed)) for seed in seeds],
        lambda seeds: torch.from_numpy(generate(seeds).transpose(0, 3, 1, 2).copy()),
        lambda seeds: [image(seed) for seed in seeds],
        lambda seeds: [torch.from_numpy(image(seed)) for seed in seeds],
    ],
)
def test_what_may_be_returned(made):
    np.testing.assert_array_equal(pixels(GeneratedSource(made, 5, batch_size=2)), generate(list(range(5))))


def test_floats_by_a_rule():
    def floats(seeds):
        return generate(seeds).astype(np.float32) / 255

    np.testing.assert_array_equal(pixels(GeneratedSource(floats, 5, value_range=(0, 1))), generate(list(range(5))))
    with pytest.raises(TypeError, match=r"floats: batch of seed 0: image 0: .*value_range"):
        list(GeneratedSource(floats, 5))


def test_what_is_refused():
    with pytest.raises(ValueError, match="generate: returned 3 images for the 2 seeds from 8 on"):
        list(GeneratedSource(lambda seeds: generate([*seeds, 0]), 5, batch_size=3, seed=5, name="generate").slice(3, 2))
    for options, error, said in (
        ({"num": 0}, ValueError, "num: expected 1 or more"),
        ({"num": 2.5}, TypeError, "num: expected an integer"),
        ({"num": 2, "batch_size": 0}, ValueError, "batch_size: expected 1"),
        ({"num": 2, "seed": -1}, ValueError, "seed: expected 0"),
        ({"num": 2, "to_uint8": "ceil"}, ValueError, "to_uint8"),
    ):
        with pytest.raises(error, match=said):
            GeneratedSource(generate, **options)
    with pytest.raises(TypeError, match="generate: expected a function of seeds, got list"):
        GeneratedSource([1], 2)
    with pytest.raises(ValueError, match="generate: has 5 images; a slice ends at 6"):
        GeneratedSource(generate, 5).slice(3, 3)


def test_an_error_of_the_generator_comes_through():
    def breaks(seeds):
        raise MemoryError("the device is full")

    with pytest.raises(MemoryError, match="the device is full"):
        compute_statistics(GeneratedSource(breaks, 5), extractor=GridMeans())


def test_a_damaged_picture_is_named():
    source = GeneratedSource(lambda seeds: [b"none"] * len(seeds), 2, name="pipe")
    with pytest.raises(ImageError, match=r"^pipe: image 0: cannot be read as a picture"):
        compute_statistics(source, extractor=GridMeans())


class Killed(BaseException):
    """As a process that ends in the middle."""


def test_a_run_that_goes_on_has_the_same_images(tmp_path):
    made = []

    def until(seeds):
        if len(made) == stop:
            raise Killed
        made.append(seeds)
        return generate(seeds)

    def run(**options):
        source = GeneratedSource(until, 200, batch_size=7, seed=3, identity="checkpoint 1", **options)
        return evaluate(real, source, metrics=["fid"], extractor=GridMeans(), run_dir=tmp_path / "run")["fid"].value

    real = tmp_path / "real.npy"
    np.save(real, REAL)
    stop = 15
    with pytest.raises(Killed):
        run()
    stop = None
    value = run()
    again = [seed for seeds in made[15:] for seed in seeds]
    assert min(again) == 3 + 91  # of 105 images three tasks of 32 were done; image 96 is in the batch from 91 on
    whole = np.stack([image(3 + i) for i in range(200)])
    assert value == evaluate(real, whole, metrics=["fid"], extractor=GridMeans())["fid"].value


def test_a_run_directory_knows_another_generator(tmp_path):
    real = tmp_path / "real.npy"
    np.save(real, REAL)

    def run(**options):
        source = GeneratedSource(generate, 40, **options)
        return evaluate(real, source, metrics=["fid"], extractor=GridMeans(), run_dir=tmp_path / "run")

    with pytest.raises(ValueError, match="generate: say by identity= what makes the images"):
        run()
    run(identity="checkpoint 1")
    for other in ({"identity": "checkpoint 2"}, {"identity": "checkpoint 1", "seed": 1}):
        with pytest.raises(ValueError, match="--fresh"):
            run(**other)


def test_what_needs_files(tmp_path):
    with pytest.raises(ValueError, match="generate: is not made of files"):
        compute_statistics(GeneratedSource(generate, 5), extractor=GridMeans(), cache=True)
    np.save(tmp_path / "real.npy", REAL)
    with pytest.raises(ValueError, match="store: generate: is not made of files"):
        evaluate(
            tmp_path / "real.npy", GeneratedSource(generate, 5), extractor=GridMeans(), metrics=["fid"], store=tmp_path
        )
