"""Inputs that are probably mistakes: each is reported, with --quiet too, and the result does not change."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import FID, compute_fid, compute_statistics
from fastfid.errors import FastfidWarning, ImageError, SuspiciousInputWarning
from fastfid.mistakes import mixed_kinds
from fastfid.sources import open_source


def images(n, seed, low=0, high=256, size=(9, 11)):
    return np.random.default_rng(seed).integers(low, high, (n, *size, 3), dtype=np.uint8)


def folder(path, n, seed, name="{:04}.png"):
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images(n, seed)):
        Image.fromarray(image).save(path / name.format(i))
    return path


def said(call, kind=SuspiciousInputWarning):
    """The warnings of `kind` that a call makes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if w.category is kind]


def fid(real, fake, **options):
    return compute_fid(real, fake, extractor=GridMeans(), **options)


def test_sound_sets_are_not_suspicious(tmp_path):
    a, b = folder(tmp_path / "a", 30, 1), folder(tmp_path / "b", 30, 2)
    assert said(lambda: fid(a, b)) == []


# Hidden folders and what macOS leaves


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".Trash-1000", ".thumbnails", "@eaDir/0001.png"])
def test_hidden_folders_are_not_entered(tmp_path, hidden):
    plain = folder(tmp_path / "plain", 6, 1)
    full = shutil.copytree(plain, tmp_path / "full")
    folder(full / hidden, 2, 9)
    folder(full / "sub" / hidden, 2, 9)
    with zipfile.ZipFile(tmp_path / "full.zip", "w") as archive:
        for path in sorted(full.rglob("*.png")):
            if path.is_file():
                archive.write(path, path.relative_to(full))
    with tarfile.open(tmp_path / "full.tar", "w") as archive:
        archive.add(full, ".")  # as `tar cf full.tar .`
    expected = fid(plain, images(30, 2))
    found = []
    for source in (full, tmp_path / "full.zip", tmp_path / "full.tar"):
        (text,) = said(lambda source=source: found.append(fid(source, images(30, 2), recursive=True)))
        assert "2 hidden folders not entered (" in text
        assert hidden.partition("/")[0] in text
    assert found == [expected] * 3


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    path = folder(tmp_path / ".cache" / "real", 4, 1)
    assert len(open_source(path)) == 4
    assert open_source(path).notes == []
    assert len(open_source(tmp_path / ".cache", recursive=True)) == 4


def test_resource_forks_are_passed_over_and_counted(tmp_path):
    path = folder(tmp_path / "mac", 4, 1)
    (path / "._0000.png").write_bytes(b"\0\5\26\7")
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for each in sorted(path.iterdir()):
            archive.write(each, each.name)
    with tarfile.open(tmp_path / "mac.tar", "w") as archive:
        archive.add(path, "mac")
    for source in (path, tmp_path / "mac.zip", tmp_path / "mac.tar"):
        opened = open_source(source)
        assert len(opened) == 4
        assert [str(note) for note in opened.notes] == [f"{source}: 1 macOS resource fork (._*, __MACOSX/) not read"]


def test_links_that_lead_nowhere(tmp_path):
    path = folder(tmp_path / "links", 4, 1)
    os.symlink("loop", path / "loop")
    source = open_source(path, recursive=True)
    assert len(source) == 4
    assert [str(note) for note in source.notes] == [f"{path}: 1 entry not read: links, devices or pipes"]
    os.symlink("loop.png", path / "loop.png")  # called like a picture, it is one that cannot be read
    items = list(open_source(path))
    with pytest.raises(ImageError, match=r"loop\.png: Too many levels of symbolic links"):
        items[-1].load()


# Values


def test_floats_cast_to_uint8(tmp_path):
    dark = images(30, 1, high=2)
    np.save(tmp_path / "dark.npy", dark)
    for i, image in enumerate(dark):
        (tmp_path / "dark").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "dark" / f"{i}.png")
    for source in (dark, tmp_path / "dark.npy", tmp_path / "dark", iter(dark)):
        (text,) = said(lambda source=source: fid(images(30, 2), source))
        assert "no value of its 30 images exceeds 1: were images in 0..1 cast to uint8?" in text
    assert said(lambda: fid(images(30, 2), np.concatenate([dark, dark[:1] + 1]))) == []


def test_floats_from_minus_1_to_1_cast_to_uint8():
    cast = np.random.default_rng(1).choice(np.array([0, 1, 255], np.uint8), (30, 9, 11, 3))  # -1 becomes 255
    (text,) = said(lambda: fid(images(30, 2), cast))
    assert "30 images have the values 0, 1 and 255 only: were images in -1..1 cast to uint8?" in text
    black_and_white = np.where(images(30, 3) < 128, 0, 255).astype(np.uint8)
    assert said(lambda: fid(images(30, 2), black_and_white)) == []


def test_a_metric_that_grows_says_it_once_of_all_its_images():
    """One batch of black images gives no remark. A run of black images only gives a remark."""
    dark = images(30, 1, high=2)
    metric = FID(extractor=GridMeans())
    assert said(lambda: [metric.update(batch, real=True) for batch in np.split(dark, 10)]) == []
    assert said(lambda: metric.update(images(30, 2), real=False)) == []
    (text,) = said(metric.compute)
    assert text.startswith("real: no value of its 30 images exceeds 1")
    metric.update(images(1, 3), real=True)
    assert said(metric.compute) == []
    metric.reset()
    metric.update(dark, real=True)
    metric.update(images(30, 2), real=False)
    assert len(said(metric.compute)) == 1


def test_the_cache_says_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    path = folder(tmp_path / "a", 6, 1)
    for i in range(6):
        shutil.copy(path / f"{i:04}.png", path / f"copy-{i}.png")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)  # fresh files are not kept

    def run():
        return compute_statistics(path, extractor=GridMeans(), cache=True)

    statistics = []
    first, again = said(run), said(lambda: statistics.append(run()))
    assert first == again == [f"{path}: 6 of its 12 images only repeat others exactly"]
    assert "remarks" not in statistics[0].meta


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.2, 0.9)])
def test_float_pictures_that_would_become_black_are_errors(tmp_path, low, high):
    values = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=r"x\.tif: is a float picture with values from .* Multiply such pictures"):
        next(iter(open_source(tmp_path))).load()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float_pictures_that_are_not_finite_are_errors(tmp_path, bad):
    values = np.full((8, 8), 100, np.float32)
    values[3, 3] = bad
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=r"x\.tif: is a float picture with NaN or infinite values"):
        next(iter(open_source(tmp_path))).load()


def test_pictures_of_16_bits_are_said_with_quiet_too(tmp_path, weights):
    for i, values in enumerate(np.random.default_rng(0).integers(0, 65536, (4, 40, 40), dtype=np.uint16)):
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    command = [sys.executable, "-m", "fastfid", "stats", tmp_path, "-o", tmp_path / "s.npz", "--dims", "64", "--quiet"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert ".png: has more than 8 bits a pixel" in done.stderr
    assert done.stderr.count("\n") == 1


def test_dark_pictures_of_16_bits_lose_nothing(tmp_path):
    Image.fromarray(np.full((8, 8), 200, np.uint16)).save(tmp_path / "x.png")
    item = next(iter(open_source(tmp_path)))
    assert said(item.load) == []
    assert item.load().max() == 200


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_pictures_that_are_transparent_everywhere(tmp_path, mode):
    image = Image.fromarray(images(1, 1)[0]).convert(mode)
    image.putalpha(0)
    image.save(tmp_path / "x.png")
    (text,) = said(next(iter(open_source(tmp_path))).load)
    assert "x.png: is transparent everywhere: its hidden colours are read" in text
    (text,) = said(next(iter(open_source(tmp_path, alpha=True))).load)
    assert "x.png: is transparent everywhere: shows white only" in text
    image.putalpha(Image.fromarray(np.eye(11, 9, dtype=np.uint8).T))
    image.save(tmp_path / "x.png")
    assert said(next(iter(open_source(tmp_path))).load) == []


def test_frames_that_are_not_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "b.tiff", save_all=True, append_images=frames[1:])
    items = list(open_source(tmp_path))
    (text,) = said(lambda: [item.load() for item in items])
    assert "a.webp: has several frames; the first is read" in text


def test_frames_that_are_damaged_or_no_frames_of_a_film(tmp_path):
    frames = [Image.fromarray(frame) for frame in images(6, 1, size=(60, 60))]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    data = (tmp_path / "film.gif").read_bytes()
    (tmp_path / "film.gif").unlink()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 3])  # the first frame is whole
    frames[0].save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[frames[1].resize((8, 8))])
    first, preview = open_source(tmp_path)
    with pytest.warns(SuspiciousInputWarning, match="has several frames; the first is read"):
        assert first.load().shape == (60, 60, 3)
    assert said(preview.load) == []


# Sets


def test_images_of_one_set_in_the_other():
    real, fake = images(40, 1), images(30, 2)
    (text,) = said(lambda: fid(real, np.concatenate([fake, real[:3]])))
    assert text == "3 of the 33 generated images are also among the real ones, with the same features to the bit"
    (text,) = said(lambda: fid(real, real[::-1]))
    assert text == "both sides hold the same images"


def test_repeats_within_a_set():
    one = images(1, 1)
    (text,) = said(lambda: compute_statistics(np.repeat(one, 5, axis=0), extractor=GridMeans()))
    assert text == "array: all 5 images are the same"
    (text,) = said(lambda: compute_statistics(np.tile(images(25, 1), (4, 1, 1, 1)), extractor=GridMeans()))
    assert text == "array: 75 of its 100 images only repeat others exactly"

    def with_repeats(n, k):  # one in a hundred is accepted
        return lambda: compute_statistics(np.concatenate([images(n, 1), images(k, 1)]), extractor=GridMeans())

    assert said(with_repeats(198, 2)) == []
    assert len(said(with_repeats(198, 3))) == 1


def test_the_same_place_twice(tmp_path):
    path = folder(tmp_path / "a", 6, 1)
    os.symlink(path, tmp_path / "link")
    assert said(lambda: fid(path, tmp_path / "link")) == [f"both sides are the same: {path}"]
    statistics = compute_statistics(path, extractor=GridMeans()).save(tmp_path / "a.npz")
    assert said(lambda: compute_fid(statistics, statistics)) == [f"both sides are the same: {statistics}"]


def test_a_folder_inside_the_other(tmp_path):
    outer = folder(tmp_path / "all", 6, 1)
    inner = folder(outer / "part", 6, 2)
    assert said(lambda: fid(outer, inner)) == []
    (text,) = said(lambda: fid(outer, inner, recursive=True))
    assert text == f"{inner} is inside {outer}: with --recursive its images count on both sides"


@pytest.mark.parametrize(
    "names",
    [
        ["{}_real_B.png", "{}_fake_B.png"],
        ["{}_real_A.png", "{}_fake_B.png", "{}_real_B.png"],
        ["{}.input.png", "{}.target.png"],
        ["{}.png", "{}_thumb.png"],
        ["{}.png", "thumbs/{}.png"],
        ["train/{}.png", "test/x{}.png"],
        ["real/a{}.png", "generated/b{}.png"],
    ],
)
def test_pictures_of_several_kinds(tmp_path, names):
    for seed, name in enumerate(names):
        path = tmp_path / name
        folder(path.parent, 6, seed, path.name)
    (text,) = said(lambda: fid(tmp_path, images(30, 99), recursive=True))
    assert text.startswith(f"{tmp_path}: holds pictures of different kinds (")
    assert "--match PATTERN takes one kind" in text


@pytest.mark.parametrize(
    "names",
    [
        [f"a real cat {i}.png" for i in range(20)],
        [f"class{i % 3}/{i}.png" for i in range(20)],
        ["a real dog.png", "a fake plant.png", "the mask of zorro.png", "plain.png", "other.png"],
        [f"real/{i}.png" for i in range(20)],
        [f"{name}/{i}.jpg" for name in ("dog", "mask", "test", "volcano") for i in range(20)],
        [f"{name}/{i}.jpg" for name in ("ski", "ski_mask", "ski-mask", "boat") for i in range(20)],
    ],
)
def test_words_that_mean_nothing(names):
    assert mixed_kinds("x", names, len(names)) is None


def test_of_many_names_a_sample_is_looked_at():
    names = [f"{i:06}_{kind}.png" for i in range(50_000) for kind in ("fake", "real")]
    text = mixed_kinds("x", iter(names), len(names))
    assert "among 20,000 names looked at" in text


def test_an_archive_that_was_cut_between_two_members(tmp_path):
    path = folder(tmp_path / "a", 6, 1)
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        for each in sorted(path.iterdir()):
            archive.add(each, each.name)
    content = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        offset = archive.getmembers()[4].offset
    for padding, name in ((0, "cut.tar"), (512, "lone.tar")):
        (tmp_path / name).write_bytes(content[:offset] + bytes(padding))
        source = open_source(tmp_path / name)
        assert len(source) == 4
        assert [str(note) for note in source.notes if isinstance(note, SuspiciousInputWarning)] == [
            f"{tmp_path / name}: has no end mark (two blocks of zeros); it may be cut short, and pictures missing"
        ]
    assert open_source(tmp_path / "whole.tar").notes == []
    (tmp_path / "end.tar").write_bytes(content[:offset] + bytes(1024))
    assert open_source(tmp_path / "end.tar").notes == []


def test_a_pattern_that_matches_folders_and_pictures(tmp_path):
    folder(tmp_path, 4, 1)
    folder(tmp_path / "old", 3, 2)
    source = open_source(tmp_path / "*")
    assert len(source) == 7
    (note,) = source.notes
    assert isinstance(note, SuspiciousInputWarning)
    assert "matches folders or archives (1) beside files (4)" in str(note)


def test_kinds_that_are_written_out_are_meant(tmp_path):
    for name in ("label", "target"):
        folder(tmp_path / name, 6, 1)
    assert open_source(tmp_path / "{label,target}" / "*.png").notes == []
    assert open_source([tmp_path / "label", tmp_path / "target"]).notes == []
    assert len(open_source(tmp_path, recursive=True).notes) == 1


def test_a_hidden_folder_beside_folders_that_are_not_entered_is_a_remark(tmp_path):
    path = folder(tmp_path / "a", 4, 1)
    (path / ".cache").mkdir()
    (note,) = open_source(path).notes
    assert type(note) is FastfidWarning
    (note,) = open_source(path, recursive=True).notes
    assert type(note) is SuspiciousInputWarning


def test_the_line_of_the_caller_is_named():
    with pytest.warns(FastfidWarning) as caught:
        fid(images(30, 1), images(30, 1))
    assert {w.filename for w in caught} == {__file__}


def test_remarks_of_pillow_name_the_picture(tmp_path, weights):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\xff\xff"
    for i, image in enumerate(images(3, 1, size=(40, 40))):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", exif=exif if i == 1 else b"")
        (tmp_path / f"{i}.jpg").write_bytes(buffer.getvalue())
    command = [sys.executable, "-m", "fastfid", "stats", tmp_path, "-o", tmp_path / "s.npz", "--dims", "64", "--exif"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    remarks = [line for line in done.stderr.splitlines() if "EXIF" in line]
    assert len(remarks) == 1
    assert remarks[0].startswith(f"fastfid: {tmp_path}/1.jpg: ")
    os.unlink(tmp_path / "s.npz")
    done = subprocess.run([*map(str, command), "--quiet"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
