"""The cache of statistics: a hit if nothing has changed, and never a stale entry."""

import io
import os
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans
from tolerances import SINGULAR_FROM_FILE

from fastfid import compute_fid, compute_statistics
from fastfid.errors import FastfidWarning, ImageError, SkippedImagesWarning, SuspiciousInputWarning


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counting(GridMeans):
    """Counts the images that the network saw."""

    seen = 0

    def forward(self, batch):
        self.seen += len(batch)
        return super().forward(batch)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path / f"{i:02}.bmp")
    return path


@pytest.fixture
def settled(monkeypatch):
    """Set the clock an hour ahead, so that the files are old enough for the cache."""
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + 3600)


def seen(folder, **options):
    extractor = Counting()
    statistics = compute_statistics(folder, extractor=extractor, cache=options.pop("cache", True), **options)
    return extractor.seen, statistics


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_a_second_time_nothing_is_read(folder, settled, mode):
    first, a = seen(folder, cache=mode)
    second, b = seen(folder, cache=mode)
    assert (first, second) == (20, 0)
    np.testing.assert_array_equal(a.sigma, b.sigma)
    assert b.n == 20
    assert b.meta["extractor"] == "grid-means"


def test_off_by_default(folder, settled, cache):
    extractor = Counting()
    compute_statistics(folder, extractor=extractor)
    compute_statistics(folder, extractor=extractor)
    assert extractor.seen == 40
    assert not cache.exists()


def test_the_record_says_so(folder, settled):
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        fresh = compute_fid(folder, folder, extractor=Counting(), cache=True, return_info=True)
    assert fresh["cached"] == {"real": False, "fake": True}
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        again = compute_fid(folder, folder, extractor=Counting(), cache=True, return_info=True)
    assert again["cached"] == {"real": True, "fake": True}
    assert again["fid"] == pytest.approx(fresh["fid"], abs=SINGULAR_FROM_FILE)


def test_with_more_images_than_features_the_digits_are_those_of_a_fresh_run(folder, settled, tmp_path):
    options = {"extractor": GridMeans(2), "return_info": True}  # 12 features of 20 images
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())[:17]):
        Image.fromarray(np.asarray(Image.open(path)) // 2 + number).save(other / path.name)
    fresh = compute_fid(folder, other, **options)
    compute_fid(folder, other, cache=True, **options)
    again = compute_fid(folder, other, cache=True, **options)
    compute_statistics(folder, extractor=options["extractor"]).save(tmp_path / "kept.npz")
    of_file = compute_fid(tmp_path / "kept.npz", other, **options)
    assert again["cached"] == {"real": True, "fake": True}
    for name in ("fid", "numerical_lower", "numerical_upper", "standard_error"):
        assert again[name] == of_file[name] == fresh[name]


def another_picture(path):
    """The bytes of the picture with another pixel."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    return bytes(data)


def rewrite_same_size_same_mtime(folder):
    path = folder / "07.bmp"
    before = path.stat()
    path.write_bytes(another_picture(path))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("mode", [True, "hashes"])
@pytest.mark.parametrize(
    "change",
    [
        rewrite_same_size_same_mtime,
        lambda folder: (folder / "07.bmp").unlink(),
        lambda folder: os.rename(folder / "07.bmp", folder / "99.bmp"),
        lambda folder: (folder / "zz.bmp").write_bytes(another_picture(folder / "07.bmp")),
    ],
    ids=["rewritten", "deleted", "renamed", "added"],
)
def test_any_change_is_seen(folder, settled, change, mode):
    seen(folder, cache=mode)
    time.sleep(0.02)  # beyond the tick of the file system's clock; real runs wait out two seconds
    change(folder)
    number, statistics = seen(folder, cache=mode)
    np.testing.assert_array_equal(statistics.sigma, compute_statistics(folder, extractor=GridMeans()).sigma)
    assert number == statistics.n


def test_other_conditions_are_other_entries(folder, settled):
    assert seen(folder)[0] == 20
    assert seen(folder, num=5, seed=1)[0] == 5
    assert seen(folder, num=5, seed=2)[0] == 5
    assert seen(folder, num=5, seed=1)[0] == 0
    assert seen(folder, exif=True)[0] == 20

    class Other(Counting):
        identity = "other"

    extractor = Other()
    compute_statistics(folder, extractor=extractor, cache=True)
    assert extractor.seen == 20


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": True},
        {"exif": True},
        {"recursive": True},
        {"any_case": True},
        {"max_pixels": 1000},
        {"layout": "nchw"},
        {"num": 20},
        {"num": 20, "seed": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [True, "hashes"])
def test_every_way_of_reading_is_another_entry(folder, settled, options, mode):
    seen(folder, cache=mode)
    assert [seen(folder, cache=mode, **options)[0] for _ in range(2)] == [20, 0]
    assert seen(folder, cache=mode)[0] == 0


@pytest.mark.parametrize(
    "differs",
    [
        {"identity": "other"},
        {"protocol": "clean"},
        {"precision": "float16"},
        {"device": "cuda:0"},
        {"runtime": "tensorrt on NVIDIA H100"},
        {"cells": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [True, "hashes"])
def test_every_other_network_is_another_entry(folder, settled, differs, mode):
    seen(folder, cache=mode)

    def other():
        extractor = Counting(differs.get("cells", 2))
        for name, value in differs.items():
            setattr(extractor, name, value)
        compute_statistics(folder, extractor=extractor, cache=mode)
        return extractor.seen

    assert [other() for _ in range(2)] == [20, 0]


def test_content_travels_with_the_files(folder, settled, tmp_path):
    seen(folder, cache="hashes")
    moved = tmp_path / "elsewhere"
    os.rename(folder, moved)
    number, statistics = seen(moved, cache="hashes")
    assert number == 0
    assert statistics.name == statistics.meta["source"] == str(moved)
    assert seen(moved)[0] == 20  # by path and times it is another place


def test_fresh_files_are_not_kept(folder):
    with pytest.warns(FastfidWarning, match="not kept in the cache: its files changed less than two seconds"):
        seen(folder)
    with pytest.warns(FastfidWarning):
        assert seen(folder)[0] == 20


def test_files_that_change_meanwhile_are_not_kept(folder, settled):
    class Meddler(Counting):
        def forward(self, batch):
            (folder / "03.bmp").touch()
            return super().forward(batch)

    with pytest.warns(FastfidWarning, match="changed while they were read"):
        compute_statistics(folder, extractor=Meddler(), cache=True)
    assert seen(folder)[0] == 20


def zip_of(path, seed):
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "BMP")
            archive.writestr(f"{i:02}.bmp", buffer.getvalue())
    return path


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_an_archive_that_is_replaced_once_it_is_listed_is_an_error(tmp_path, monkeypatch, mode):
    """Loading the network takes time, and the archive may be replaced meanwhile."""
    monkeypatch.setattr("fastfid.cache._CLOCK_S", 0.1)
    path, other = zip_of(tmp_path / "a.zip", 1), zip_of(tmp_path / "b.zip", 2)
    extractor = Counting()

    def load_network(*args):
        os.replace(other, path)
        time.sleep(0.2)
        return extractor

    monkeypatch.setattr("fastfid.evaluation.evaluate.make_extractor", load_network)
    time.sleep(0.2)
    with pytest.raises(ValueError, match=r"a\.zip: has changed since it was listed"):
        compute_statistics(path, cache=mode)
    number, statistics = seen(path, cache=mode)
    assert number == 20
    np.testing.assert_array_equal(statistics.mu, compute_statistics(path, extractor=GridMeans()).mu)


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_a_file_that_is_exchanged_and_put_back_meanwhile_is_noticed(folder, tmp_path, settled, mode):
    victim, aside = folder / "19.bmp", tmp_path / "aside.bmp"
    before = victim.stat()

    class Meddler(Counting):
        prepared = 0

        def prepare(self, image):
            self.prepared += 1
            if self.prepared == 1:
                os.rename(victim, aside)
                victim.write_bytes(another_picture(folder / "18.bmp"))
            elif self.prepared == 20:
                os.rename(aside, victim)
            return super().prepare(image)

    time.sleep(0.02)
    with pytest.warns(FastfidWarning, match="changed while they were read"):
        compute_statistics(folder, extractor=Meddler(), cache=mode, num_workers=0)
    assert (victim.stat().st_ino, victim.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert seen(folder, cache=mode)[0] == 20


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_a_file_that_takes_the_name_of_another_of_its_size_and_times(folder, tmp_path, settled, mode):
    """A file after cp -p and mv: only the inode and the change time differ."""
    seen(folder, cache=mode)
    victim, other = folder / "07.bmp", tmp_path / "other.bmp"
    other.write_bytes(another_picture(folder / "08.bmp"))
    times = victim.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    time.sleep(0.02)
    os.replace(other, victim)
    assert (victim.stat().st_size, victim.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert seen(folder, cache=mode)[0] == 20


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_the_same_bytes_read_in_another_way(tmp_path, settled, mode):
    """A file that is an .npz with images and a .zip of pictures at once."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, zipfile.ZipFile(zip_of(tmp_path / "b.zip", 1)) as other:
        for name in other.namelist():
            archive.writestr(name, other.read(name))
    os.symlink(tmp_path / "a.npz", tmp_path / "a.zip")
    first, a = seen(tmp_path / "a.npz", cache=mode)
    with pytest.warns(FastfidWarning, match=r"1 other file not read \(\.npy"):
        second, b = seen(tmp_path / "a.zip", cache=mode)
    assert (first, second) == (20, 20)
    assert not np.array_equal(a.mu, b.mu)


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_a_missing_file_is_the_readers_business(folder, settled, mode):
    os.symlink(folder / "nothing", folder / "zz.bmp")
    for _ in range(2):
        with pytest.warns(FastfidWarning, match=r"zz\.bmp .*No such file|not kept in the cache"):
            assert seen(folder, cache=mode, on_error="skip")[0] == 20
    with pytest.raises(ImageError, match=r"zz\.bmp: No such file"):
        seen(folder, cache=mode)


@pytest.mark.parametrize("mode", [True, "hashes"])
def test_a_file_that_appears_while_its_folder_is_read_is_not_kept(folder, tmp_path, settled, mode):
    """A file is missing at the first look, exists when it is read, and is missing again."""
    data = another_picture(folder / "07.bmp")
    os.symlink(tmp_path / "target", folder / "zz.bmp")

    class Meddler(Counting):
        prepared = 0

        def prepare(self, image):
            self.prepared += 1
            if self.prepared == 1:
                (tmp_path / "target").write_bytes(data)
            elif self.prepared == 21:
                (tmp_path / "target").unlink()
            return super().prepare(image)

    extractor = Meddler()
    with pytest.warns(FastfidWarning, match="not kept in the cache: its files changed"):
        compute_statistics(folder, extractor=extractor, cache=mode, num_workers=0)
    assert extractor.seen == 21


def test_losses_are_not_kept(folder, settled):
    (folder / "03.bmp").write_bytes(b"broken")
    not_kept = pytest.warns(FastfidWarning, match="not kept in the cache: images were skipped")
    with pytest.warns(SkippedImagesWarning, match="skipped 1"), not_kept:
        seen(folder, on_error="skip")
    with pytest.warns(FastfidWarning):
        assert seen(folder, on_error="skip")[0] == 19


def test_archives_are_files_too(folder, settled, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    assert [seen(tmp_path / "a.zip")[0] for _ in range(2)] == [20, 0]


def test_arrays_have_no_files():
    with pytest.raises(ValueError, match="array: is not made of files"):
        seen(np.zeros((3, 8, 8, 3), np.uint8))


def test_a_damaged_entry_is_said_and_made_anew(folder, settled, cache):
    seen(folder)
    (entry,) = (cache / "statistics").iterdir()
    entry.write_bytes(b"junk")
    with pytest.warns(FastfidWarning, match=r"not taken from the cache: .*\.npz: not a readable"):
        assert seen(folder)[0] == 20
    assert seen(folder)[0] == 0


def test_an_unwritable_cache_loses_nothing(folder, settled, cache):
    cache.mkdir()
    (cache / "statistics").write_text("a file where the folder should be")
    with pytest.warns(FastfidWarning, match=r"not (taken from|kept in) the cache") as caught:
        assert seen(folder)[1].n == 20
    assert len(caught) == 2


def test_what_cannot_be_cached_is_refused_before_anything_is_read(folder, settled):
    extractor = Counting()
    with pytest.raises(ValueError, match="array: is not made of files"):
        compute_fid(folder, np.zeros((3, 8, 8, 3), np.uint8), extractor=extractor, cache=True)
    assert extractor.seen == 0


def test_a_hit_keeps_the_name_of_its_source(folder, settled):
    seen(folder)
    assert seen(folder)[1].name == str(folder)


def test_other_versions_are_other_entries(folder, settled, monkeypatch):
    seen(folder)
    for name, value in (
        ("package_versions", lambda: {"pillow": "99"}),
        ("_codec_versions", lambda: {"libjpeg_turbo": "99"}),
        ("__version__", "99"),
    ):
        monkeypatch.setattr(f"fastfid.cache.{name}", value)
        assert [seen(folder)[0] for _ in range(2)] == [20, 0]


def test_cached_statistics_have_the_sample_for_the_standard_error(tmp_path, settled, cache):
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.bmp")
    options = {"extractor": Counting(), "cache": True, "return_info": True}
    records = [compute_fid(tmp_path / "a", tmp_path / "b", **options) for _ in range(2)]
    assert records[0]["standard_error"] > 0
    assert records[1]["standard_error"] == records[0]["standard_error"]
    assert records[1]["cached"] == {"real": True, "fake": True}
