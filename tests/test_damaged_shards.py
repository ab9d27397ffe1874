"""on_error="skip" and damaged files: what can be read is read, and what is lost is counted where that can be known."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid.errors import ImageError
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source


def encoded(i):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tar(names, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.USTAR_FORMAT) as archive:
        for i, name in enumerate(names):
            for member, data in ((f"{name}.png", encoded(i)), (f"{name}.cls", b"%d" % (5 + i))):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(obj, **options):
    """Names of the images that can be read, and what the pipeline says of the others."""
    source = open_source(obj, on_error="skip", **options)
    seen = []
    report = extract(source, GridMeans(), only_features(seen.append), on_error="skip")
    assert report.n + len(report.skipped) == len(source)
    return report.n, report.skipped


@pytest.fixture
def shards(tmp_path):
    for shard in "abc":
        (tmp_path / f"{shard}.tar").write_bytes(tar([f"{shard}{i}" for i in range(4)]))
    return tmp_path


def damage_header(path, name):
    data = bytearray(path.read_bytes())
    at = data.index(name)
    data[at + 7] ^= 1
    path.write_bytes(data)
    return at


def test_a_damaged_header_in_a_shard(shards):
    at = damage_header(shards / "b.tar", b"b2.png")
    with pytest.raises(ValueError, match=rf"b\.tar: not a readable tar archive \(damaged header at byte {at}\)"):
        open_source(shards / "*.tar")
    n, skipped = read(shards / "*.tar")
    assert n == 4 + 2 + 4
    ((name, reason),) = skipped
    assert name == f"{shards}/b.tar"
    assert f"damaged header at byte {at}); how many images are lost is not known" in reason
    source = open_source(shards / "*.tar", on_error="skip", labels="auto")
    labels = {item.name[-6:]: item.label for item in source if item.name.endswith("png")}
    assert labels == {f"{s}{i}.png": 5 + i for s in "abc" for i in range(4) if s != "b" or i < 2}


def test_a_shard_that_is_cut_short(shards):
    """The picture in which the file ends is one that cannot be read."""
    data = (shards / "b.tar").read_bytes()
    (shards / "b.tar").write_bytes(data[: data.index(b"b2.png") + 600])
    n, skipped = read(shards / "{a..c}.tar".replace("{a..c}", "{a,b,c}"))
    assert n == 4 + 2 + 4
    assert [name for name, _ in skipped] == [f"{shards}/b.tar/b2.png", f"{shards}/b.tar"]


@pytest.mark.parametrize("name", ["b.tar", "b.zip", "b.npz", "b.parquet"])
def test_a_file_that_is_none(shards, name):
    (shards / "b.tar").unlink()
    (shards / name).write_bytes(b"junk" * 1000)
    paths = [shards / x for x in ("a.tar", name, "c.tar")]
    n, skipped = read(paths)
    assert n == 8
    assert [x for x, _ in skipped] == [str(shards / name)]
    assert "how many images are lost is not known" in skipped[0][1]


def test_a_picture_of_a_zip(shards):
    with zipfile.ZipFile(shards / "x.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}.png", encoded(i))
    data = bytearray((shards / "x.zip").read_bytes())
    data[data.index(encoded(1)) + 30] ^= 1
    (shards / "x.zip").write_bytes(data)
    n, skipped = read(shards / "x.zip")
    assert (n, [x for x, _ in skipped]) == (3, [f"{shards}/x.zip/1.png"])


def test_damage_in_the_middle_of_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "x.npz", images)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "x.npz").write_bytes(data)
    n, skipped = read(tmp_path / "x.npz")
    assert n + len(skipped) == 40  # all that are lost are counted
    assert 0 < n < 40
    assert skipped[0][0] == f"{tmp_path}/x.npz: image {n}"


def test_damage_in_the_middle_of_a_parquet_file(tmp_path):
    rows = [encoded(i) for i in range(60)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet", row_group_size=20, compression="gzip")
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    at = len(data) // 2
    data[at : at + 60] = bytes(60)
    (tmp_path / "x.parquet").write_bytes(data)
    n, skipped = read(tmp_path / "x.parquet")
    assert n + len(skipped) == 60
    assert 0 < len(skipped) <= 40


def test_damage_in_the_middle_of_a_compressed_tar(tmp_path):
    data = bytearray(gzip.compress(tar([f"{i:02}" for i in range(20)])))
    data[len(data) // 2] ^= 255
    (tmp_path / "x.tar.gz").write_bytes(data)
    n, skipped = read(tmp_path / "x.tar.gz")
    assert 0 < n < 20
    assert skipped[-1][0] == f"{tmp_path}/x.tar.gz"


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nowhere.tar", FileNotFoundError, "no such file"),
        ("floats.npy", TypeError, "expected uint8 images"),
        ("other.npz", ValueError, "expected images under arr_0"),
    ],
)
def test_mistakes_are_not_skipped(shards, name, error, said):
    np.save(shards / "floats.npy", np.zeros((2, 4, 4, 3)))
    np.savez(shards / "other.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(error, match=said):
        open_source([shards / "a.tar", shards / name], on_error="skip")


def test_without_skip_the_file_is_named(shards):
    damage_header(shards / "b.tar", b"b2.png")
    for options in ({}, {"on_error": "raise"}):
        with pytest.raises(ValueError, match=r"b\.tar: not a readable tar archive"):
            open_source(shards / "*.tar", **options)
    with pytest.raises(ValueError, match=r"on_error: expected 'raise' or 'skip'; got 'ignore'"):
        open_source(shards / "a.tar", on_error="ignore")
    items = list(open_source(shards / "b.tar", on_error="skip"))
    with pytest.raises(ImageError, match="how many images are lost is not known"):
        items[-1].load()
