"""Damaged and hostile input, seeded: every case ends in an image or in a documented exception that names the file."""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from fastfid import _core
from fastfid.errors import ImageError
from fastfid.sources import is_statistics_file, open_source
from fastfid.sources.picture import FORMATS, Decoder

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow remarks on many of them

SEED = 20261122
MAX_PIXELS = 2**20

# Every format that Pillow both writes and reads, also those whose extensions a folder does not list: content decides.
WRITTEN = {
    **{form: {} for form in ("AVIF", "BMP", "DDS", "DIB", "EPS", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000")},
    **{form: {} for form in ("MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")},
    "BLP": {"mode": "P"},
    "MSP": {"mode": "1"},
    "SPIDER": {"mode": "F"},
    "XBM": {"mode": "1"},
}


def encoded(form, mode="RGB", **options):
    rng = np.random.default_rng(SEED)
    image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def mutations(data, seed, n):
    """Yield n damaged forms of `data`: bits, header fields, cuts, repeats, noise behind the magic number."""
    rng = np.random.default_rng(seed)
    extremes = [
        b"\x00",
        b"\xff",
        b"\x00" * 4,
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\x80\x00\x00\x00",
    ]
    for i in range(n):
        broken = bytearray(data)
        kind = i % 6
        if kind == 0:  # single bits
            for _ in range(int(rng.integers(1, 8))):
                broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        elif kind == 1:  # extreme values in the header
            at = int(rng.integers(4, 80)) % len(broken)
            value = extremes[rng.integers(len(extremes))]
            broken[at : at + len(value)] = value
        elif kind == 2:  # extreme values anywhere
            at = int(rng.integers(len(broken)))
            value = extremes[rng.integers(len(extremes))]
            broken[at : at + len(value)] = value
        elif kind == 3:  # cut
            del broken[rng.integers(len(broken)) :]
        elif kind == 4:  # a part twice, or left out
            first, last = sorted(int(j) for j in rng.integers(len(broken), size=2))
            broken[first:last] = broken[first:last] * int(rng.integers(0, 3))
        else:  # noise behind the magic number
            broken[int(rng.integers(4, 24)) :] = rng.bytes(int(rng.integers(200)))
        yield bytes(broken)


def decode(data, name="the picture"):
    """Whether `data` is an image; anything but an image or an ImageError that begins with the name fails the test."""
    try:
        image = Decoder(max_pixels=MAX_PIXELS).decode_bytes(data, name)
    except ImageError as error:
        assert str(error).startswith(f"{name}: ")  # noqa: PT017
        return False
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert 1 <= image.shape[0] * image.shape[1] <= MAX_PIXELS
    return True


def test_every_plugin_of_pillow_is_read_or_refused_by_intention():
    """A format that a later Pillow adds is refused until it is decided here what it may start and declare."""
    Image.init()
    refused = {
        *("EPS", "WMF"),  # start a program, or ask Windows
        *("BUFR", "GRIB", "HDF5", "MPEG"),  # are only recognised
        *("IPTC", "ICO", "CUR", "ICNS", "BLP", "DCX"),  # open another picture inside
        *("DDS", "FITS", "FLI", "FTEX", "GBR", "IM", "IMT", "MCIDAS", "MSP", "PCD", "PIXAR", "PSD", "SPIDER", "XBM"),
        *("XPM", "XVTHUMB"),  # no set of images for evaluation comes in these
    }
    assert set(FORMATS) | refused == set(Image.OPEN)
    assert not set(FORMATS) & refused


@pytest.mark.parametrize("form", WRITTEN)
def test_damaged_pictures(form):
    data = encoded(form, **WRITTEN[form])
    assert decode(data) == (form in {*FORMATS, "MPO"})
    outcomes = [decode(broken) for broken in mutations(data, SEED, 120)]
    assert not all(outcomes)


def test_random_bytes_are_no_picture():
    rng = np.random.default_rng(SEED)
    assert not any(decode(rng.bytes(int(size))) for size in rng.integers(0, 300, 500))


def without_pixels(form, width, height):
    """An image file whose header declares that size."""
    if form == "PPM":
        return b"P6 %d %d 255\n" % (width, height)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, form)
    data = bytearray(buffer.getvalue())
    if form == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_pictures_without_pixels(form, size):
    assert decode(without_pixels(form, 1, 1)) == (form != "PPM")  # which has its pixels behind the header
    assert not decode(without_pixels(form, *size))


@pytest.mark.parametrize("form", ["BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300), (2, 1)])
def test_pictures_of_one_pixel_a_side(form, size):
    colour = Image.new("RGB", size, (200, 100, 50))
    buffer = io.BytesIO()
    colour.save(buffer, form)
    image = Decoder().decode_bytes(buffer.getvalue(), "strip")
    assert image.shape == (size[1], size[0], 3)
    np.testing.assert_allclose(
        image, np.broadcast_to((200, 100, 50), image.shape), atol=3
    )  # JPEG and WebP lose a little
    for protocol, scaled in (("pytorch-fid", image[0, 0] / 127.5 - 1), ("clean", (image[0, 0] - 128.0) / 128)):
        prepared = _core.preprocess([np.broadcast_to(image[0, 0], image.shape)], protocol)[0]
        np.testing.assert_allclose(prepared, np.broadcast_to(scaled[:, None, None], (3, 299, 299)), atol=1e-5)


def container(kind):
    """Return a small valid container of two images."""
    image = np.random.default_rng(SEED).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, image)
    elif kind == "npz":
        np.savez(buffer, image)
    elif kind == "deflated.npz":
        np.savez_compressed(buffer, image)
    elif kind.endswith("zip"):
        method = {"zip": zipfile.ZIP_STORED, "deflated.zip": zipfile.ZIP_DEFLATED, "lzma.zip": zipfile.ZIP_LZMA}[kind]
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a.png", encoded("PNG"))
            archive.writestr("b.jpg", encoded("JPEG"))
    else:
        form = tarfile.GNU_FORMAT if "gnu" in kind else tarfile.PAX_FORMAT
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name, data in (("a.png", encoded("PNG")), ("é" * 120 + ".jpg", encoded("JPEG"))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(path):
    """Number of images that can be read; anything but the documented exceptions fails the test."""
    assert not is_statistics_file(path)
    try:
        items = list(open_source(path, max_pixels=MAX_PIXELS))
    except (ValueError, TypeError) as error:
        assert str(error).startswith(str(path))  # noqa: PT017
        return 0
    readable = 0
    for item in items:
        try:
            image = item.load()
        except ImageError as error:
            assert str(error).startswith(f"{item.name}: ")  # noqa: PT017
            assert item.name.startswith(str(path))
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            readable += 1
    return readable


@pytest.mark.parametrize("kind", ["npy", "npz", "deflated.npz", "zip", "deflated.zip", "lzma.zip", "tar", "gnu.tar"])
def test_damaged_containers(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    data = container(kind)
    path.write_bytes(data)
    assert read(path) == 2
    outcomes = []
    for broken in mutations(data, SEED, 300):
        path.write_bytes(broken)
        outcomes.append(read(path))
    assert 0 in outcomes


@pytest.mark.parametrize("kind", ["npz", "zip", "tar"])
def test_damage_near_the_structures(tmp_path, kind):
    """Headers and directories are a small part of the bytes: here they are hit every time."""
    path = tmp_path / f"x.{kind}"
    data = container(kind)
    marks = {"npz": (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"), "tar": (b"ustar",)}
    marks["zip"] = marks["npz"][:3]
    places = [i for mark in marks[kind] for i in range(len(data)) if data.startswith(mark, i)]
    rng = np.random.default_rng(SEED)
    outcomes = []
    for _ in range(400):
        broken = bytearray(data)
        at = max(0, int(places[rng.integers(len(places))] + rng.integers(-257 if kind == "tar" else 0, 60)))
        value = [rng.bytes(1), rng.bytes(4), b"\xff" * 4, b"\x00" * 8, b"\xff" * 12][rng.integers(5)]
        broken[at : at + len(value)] = value
        if kind == "tar" and rng.integers(2):
            # With its checksum right, so that the header is believed.
            header = at // 512 * 512
            broken[header + 148 : header + 156] = b" " * 8
            broken[header + 148 : header + 156] = b"%06o\0 " % sum(broken[header : header + 512])
        path.write_bytes(broken)
        outcomes.append(read(path))
    assert 0 in outcomes


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_damaged_compressed_tar(tmp_path, opener):
    path = tmp_path / "x.tar"
    with opener(path, "wb") as stream:
        stream.write(container("tar"))
    data = path.read_bytes()
    assert read(path) == 2
    outcomes = []
    for broken in mutations(data, SEED, 60):
        path.write_bytes(broken)
        outcomes.append(read(path))
    assert 0 in outcomes


@pytest.mark.parametrize("suffix", ["npy", "npz", "zip", "tar", "tar.gz"])
def test_random_bytes_are_no_container(tmp_path, suffix):
    rng = np.random.default_rng(SEED)
    magics = {
        "npy": b"\x93NUMPY\x01\x00",
        "npz": b"PK\x03\x04",
        "zip": b"PK\x05\x06",
        "tar": b"",
        "tar.gz": b"\x1f\x8b\x08",
    }
    path = tmp_path / f"x.{suffix}"
    for i in range(100):
        path.write_bytes(magics.get(suffix, b"") * (i % 2) + rng.bytes(int(rng.integers(2000))))
        assert read(path) == 0


def test_a_bomb_is_one_sentence_on_the_command_line(tmp_path, weights):
    header = bytearray(encoded("PNG"))
    header[16:24] = (12_000).to_bytes(4, "big") + (9_000).to_bytes(4, "big")
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(header)
    (tmp_path / "y.png").write_bytes(encoded("PNG"))
    command = [sys.executable, "-m", "fastfid", str(tmp_path), str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[1:] == [
        f"fastfid: error: {tmp_path}/x.png: declares 12000 x 9000 pixels; at most 89478485 are decoded "
        "(--max-pixels, max_pixels=)"
    ]
