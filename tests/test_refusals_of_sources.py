"""What sources and files refuse, and what they do where a system lacks something: what no test of the whole meets."""

import errno
import io
import os
import re
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from stubs import GridMeans

import fastfid
from fastfid import ImageError, Statistics, _files
from fastfid._files import DamagedFile
from fastfid.sources import listing, open_source, pages, picture
from fastfid.sources.archive import reading_as
from fastfid.sources.arrays import Scale
from fastfid.sources.base import SubsetSource
from fastfid.sources.device import DeviceImages
from fastfid.sources.labels import labels_of_side
from fastfid.sources.samples import SampleLabels
from fastfid.store import FeatureStore, check_identity


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 5)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path, files):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def no_memory(*_, **__):
    raise MemoryError


# Memory that is not there is said of the file, whatever reads it.


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(MemoryError, match=r"^x: not enough memory to read it"), reading_as("x", "zip archive"):
        raise MemoryError
    decoder = picture.Decoder()
    opened = Image.new("RGB", (4, 5))
    with monkeypatch.context() as patch:
        patch.setattr(picture, "_open", no_memory)
        with pytest.raises(MemoryError, match=r"^x: not enough memory to read it"):
            decoder.decode_bytes(png(), "x")
    with pytest.raises(MemoryError, match=r"^x: not enough memory to read it"):
        decoder.read(type("Stream", (), {"read": no_memory})(), "x", 10)
    with monkeypatch.context() as patch:
        patch.setattr(opened, "load", no_memory)
        patch.setattr(opened, "convert", no_memory)
        with pytest.raises(MemoryError, match="not enough memory to decode it"):
            next(iter(open_source([opened]))).load()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", png())
    (item,) = open_source(tmp_path / "x.zip")
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", no_memory)
        with pytest.raises(MemoryError, match=r"^.*x\.zip/a\.png: not enough memory to read it"):
            item.load()


def test_an_error_of_the_system_stays_one():
    with pytest.raises(PermissionError), reading_as("x", "zip archive"):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(DamagedFile, match=r"^x: not a readable zip archive"), reading_as("x", "zip archive"):
        raise OSError(errno.EINVAL, "a seek")


# Pictures


def test_a_picture_whose_format_starts_a_program():
    image = Image.new("RGB", (4, 5))
    image.format = "EPS"
    with pytest.raises(ImageError, match="is EPS, which starts a program or opens another picture"):
        next(iter(open_source([image]))).load()


def test_what_a_picture_does_not_say(monkeypatch):
    class Animated:
        format = "GIF"

        @property
        def is_animated(self):
            raise OSError("a later frame is damaged")

    assert not picture._has_frames(Animated())
    for tags, value in (({258: (1, 8)}, 8), ({258: ()}, 0), ({}, 0), ({258: 16}, 16)):
        assert picture._tag(SimpleNamespace(tag_v2=tags), 258) == value
    monkeypatch.setattr(picture, "FORMATS", ("NOT IN THIS PILLOW", *picture.FORMATS))
    assert picture.Decoder().decode_bytes(png(), "x").shape == (5, 4, 3)


def test_pillows_own_limit_is_named():
    assert "PIL.Image.MAX_IMAGE_PIXELS = None lifts it" in picture.reason(Image.DecompressionBombError("too large."))


# Labels


def test_shards_whose_labels_are_names(tmp_path):
    shards = [
        tar(tmp_path / f"{i}.tar", {f"{i}.png": png(), f"{i}.json": f'{{"label": "{name}"}}'.encode()})
        for i, name in enumerate(("cat", "dog"))
    ]
    source = open_source(shards, labels="auto")
    assert [item.label for item in source] == ["cat", "dog"]
    assert source.slice(1, 1).state_of(0, 1) == source.state_of(1, 2)


def test_shards_without_labels(tmp_path):
    source = open_source([tar(tmp_path / f"{i}.tar", {f"{i}.png": png()}) for i in range(2)], labels="auto")
    assert not source.has_labels
    assert any("carries no labels" in str(note) for note in source.notes)


def test_keys_of_labels():
    with pytest.raises(ValueError, match="labels: expected the keys 'real' and 'fake', got 'reel'"):
        labels_of_side({"reel": "auto"}, "real")


def test_a_member_without_an_extension_belongs_to_no_sample():
    found = SampleLabels("x.tar")
    found.add("a/.hidden", 1, no_memory, is_picture=False)
    found.add("README", 1, no_memory, is_picture=False)
    assert found.labels([]) is None


# Arrays and statistics


def test_a_tensor_of_the_host_is_none_of_a_device():
    floats = torch.zeros(2, 3, 4, 4)  # in 0..1
    with pytest.raises(ValueError, match="tensor: expected one on a CUDA device"):
        DeviceImages(floats, scale=Scale(0.0, 1.0, "round"))


def test_tensors_and_features_that_have_no_values(tmp_path):
    with pytest.raises(ValueError, match="is on torch's meta device, where tensors have no values"):
        open_source(torch.empty(2, 3, 4, 4, dtype=torch.uint8, device="meta"))
    with pytest.raises(TypeError, match=r"features: expected a NumPy array \(n, d\), got list"):
        Statistics.from_features([[1.0, 2.0]])
    with pytest.raises(TypeError, match=r"features: expected a NumPy array \(n, d\), got shape \(3,\)"):
        Statistics.from_features(np.zeros(3))
    np.savez(tmp_path / "x.npz", mu=np.zeros(16385), sigma=np.eye(2))
    with pytest.raises(ValueError, match=r"x\.npz: mu: has 16385 dims; at most \d+ are read"):
        Statistics.load(tmp_path / "x.npz")


def test_a_state_of_what_is_in_no_file():
    first_two = SubsetSource(open_source(iter([np.zeros((4, 4, 3), np.uint8)] * 3)), 2, 0)
    with pytest.raises(ValueError, match="list_iterator: is not made of files"):
        first_two.state_of(0, 2)


def test_headers_in_archives_are_those_of_the_pictures(tmp_path):
    tar(tmp_path / "x.tar", {"a.png": png()})
    tar(tmp_path / "x.tar.gz", {"a.png": png()})
    for name in ("x.tar", "x.tar.gz"):
        (item,) = open_source(tmp_path / name)
        header = item.header()
        assert (header.width, header.height, header.mode, header.format) == (4, 5, "RGB", "PNG")


def test_a_member_of_a_compressed_tar_that_is_too_large(tmp_path):
    path = tar(tmp_path / "x.tar.gz", {"a.png": png(), "b.png": bytes(9999), "c.png": png()})
    source = open_source(path)
    source._decoder = SmallDecoder()
    items = list(source)
    assert [item.name for item in items] == [f"{path}/{name}.png" for name in "abc"]
    with pytest.raises(ImageError, match=r"b\.png: has 9999 bytes; at most 999 are read"):
        items[1].load()
    np.testing.assert_array_equal(items[2].load(), items[0].load())


class SmallDecoder(picture.Decoder):
    max_bytes = 999


# Names


def test_a_hidden_folder_too_many_is_counted_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_MOST_NAMES", 2)
    tar(tmp_path / "x.tar", {"a.png": png(), **{f".{name}/b.png": png() for name in "xyz"}})
    (note,) = open_source(tmp_path / "x.tar").notes
    assert re.search(r"2 hidden folders or more not entered \(\.x, \.y\)", str(note))


def test_files_beside_a_picture_of_another_name(tmp_path):
    """The first is beside no picture, the second beside its own."""
    tar(tmp_path / "x.tar", {"a.cls": b"1", "b.png": png(), "b.cls": b"2"})
    (note,) = open_source(tmp_path / "x.tar").notes
    assert str(note).endswith("x.tar: 1 other file not read (.cls)")


# Parquet


def test_parquet_files_that_declare_what_they_have_not(tmp_path):
    rows = [{"bytes": png(), "path": "a.png"}] * 2
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    source._rows += 1
    with pytest.raises(DamagedFile, match=r"x\.parquet: declares 3 rows but has 2"):
        list(source)
    pq.write_table(pa.table({"image": pa.nulls(100_000, pa.binary())}), tmp_path / "y.parquet")
    with pytest.raises(ValueError, match=r"y\.parquet: declares 100000 rows, but has \d+ bytes"):
        open_source(tmp_path / "y.parquet")


def field(number, kind, value, before=0):
    return bytes([(number - before) << 4 | kind]) + value


def zigzag(number):
    number = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def page(unpacked, packed, data=b""):
    """The head of a page, in Thrift's compact protocol: its type, its bytes unpacked and packed."""
    sizes = field(1, 5, zigzag(0)) + field(2, 5, zigzag(unpacked), 1) + field(3, 5, zigzag(packed), 2)
    return sizes + b"\0" + data


def file_of_one_column(*, start, nbytes, body, has_place=True):
    meta = field(3, 9, b"\x18\5image") + field(7, 6, zigzag(nbytes), 3)
    meta += (field(9, 6, zigzag(start), 7) if has_place else b"") + b"\0"
    column = field(3, 12, meta) + b"\0"
    group = field(1, 9, b"\x1c" + column) + b"\0"
    footer = field(4, 9, b"\x1c" + group) + b"\0"
    return io.BytesIO(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"start": 4, "nbytes": 10**9, "body": b"PAR1" + page(-1, 3)}, "the page header at byte 4 declares no size"),
        ({"start": 10**6, "nbytes": 10, "body": b"PAR1"}, "the column image has 10 bytes at byte 1000000"),
        ({"start": 4, "nbytes": 40, "body": b"PAR1" + page(2**40, 3, b"abc")}, "declares 1099511627776 bytes in 3"),
        ({"start": 4, "nbytes": 9, "body": b"PAR1" + page(9, 500, bytes(3))}, "a page goes beyond the end of the file"),
        ({"start": 4, "nbytes": 9, "body": b"PAR1", "has_place": False}, "does not say where the column image is"),
    ],
)
def test_pages_that_lie_elsewhere(file, said):
    with pytest.raises(ValueError, match=said):
        pages.check_pages(file_of_one_column(**file), "image")


def test_pages_that_are_sound():
    body = b"PAR1" + page(3, 3, b"abc")
    pages.check_pages(file_of_one_column(start=4, nbytes=len(body) - 4, body=body), "image")
    with pytest.raises(ValueError, match="the footer declares 4294967295 bytes"):
        pages.check_pages(io.BytesIO(b"PAR1" + b"\xff" * 4 + b"PAR1"), "image")


# Files


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    Statistics([0.0], [[1.0]]).save(tmp_path / "x.npz")
    assert os.listdir(tmp_path) == ["x.npz"]


def test_the_cache_without_a_home(monkeypatch):
    for name in ("FASTFID_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(_files.cache_folder()) == "/x/fastfid"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_files.Path, "home", classmethod(nobody))
    with pytest.raises(RuntimeError, match=r"there is no home folder for the cache .*; set FASTFID_CACHE"):
        _files.cache_folder()


def test_files_that_went_away_are_unreadable(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"x")
    files = _files.FileSet(map(str, paths))
    assert files.identity()["files"] == 2
    sizes = files.sizes()
    paths[1].unlink()
    assert files.sizes() != sizes
    assert files.identity() is None  # it has changed since
    gone = _files.FileSet(map(str, paths))
    assert gone.identity() == _files.FileSet(map(str, paths)).identity()


def test_a_store_of_other_labels_or_of_another_network(tmp_path):
    identity = {"files": {"count": 1}, "meta": {"source": "x"}, "options": {}, "labels": None}
    sidecar = {**identity, "outputs": {"features": 4}}
    check_identity(tmp_path, sidecar, identity)
    for change, said in (
        ({"labels": "auto"}, "is stale: the labels of x have changed since"),
        ({"meta": {"source": "x", "dims": 3}}, "is of another network"),
        ({"options": {"exif": True}}, "is of another choice of options"),
    ):
        with pytest.raises(ValueError, match=f"{said}; delete the folder"):
            check_identity(tmp_path, sidecar, identity | change)


@pytest.mark.filterwarnings("ignore::fastfid.errors.SuspiciousInputWarning")
def test_damaged_labels_of_a_store_are_named(tmp_path):
    pictures = tmp_path / "pictures"
    for name in ("a", "b"):
        (pictures / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), (i, i, 9 * i)).save(pictures / name / f"{i}.png")
    fastfid.evaluate(pictures, pictures, extractor=GridMeans(), store=tmp_path / "s", labels="folder")
    (store,) = (tmp_path / "s").iterdir()
    found = FeatureStore(store)
    assert len(found.labels().codes) == 6
    (file,) = [path for path in store.iterdir() if "labels" in path.name]
    file.write_bytes(b"{")
    with pytest.raises(ValueError, match=rf"{file.name}: .*; delete"):
        found.labels()
    file.unlink()
    assert found.labels() is None
