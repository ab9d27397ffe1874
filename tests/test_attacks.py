"""Damaged and hostile input from fixed seeds: every case gives an image or a documented error that names the file."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tolerances import LOSSY_LEVELS, NETWORKS_INPUT

from fastfid import Statistics, _core
from fastfid.errors import ImageError, WeightsError
from fastfid.features.weights import find_weights
from fastfid.protocols import input_spec
from fastfid.sources import is_statistics_file, open_source
from fastfid.sources.picture import FORMATS, Decoder

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns about many of these files

SEED = 20261122
MAX_PIXELS = 2**20

# Every format that Pillow both writes and reads. The content determines the format, not the extension.
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
    """Return whether `data` is an image. Other results than an image or an ImageError with the name fail the test."""
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
    """All formats of Pillow are classified. A format that a later Pillow adds is refused until it is listed here."""
    Image.init()
    refused = {
        *("EPS", "WMF"),  # start a program, or ask Windows
        *("BUFR", "GRIB", "HDF5", "MPEG"),  # are only recognised
        *("IPTC", "ICO", "CUR", "ICNS", "BLP", "DCX"),  # open another picture inside
        *("DDS", "FITS", "FLI", "FTEX", "GBR", "IM", "IMT", "MCIDAS", "MSP", "PCD", "PIXAR", "PSD", "SPIDER", "XBM"),
        *("XPM", "XVTHUMB"),  # no set of images for evaluation comes in these
    }
    assert set(Image.OPEN) <= set(FORMATS) | refused  # an older Pillow has fewer
    assert not set(FORMATS) & refused


Image.init()


@pytest.mark.parametrize("form", [form for form in WRITTEN if form in Image.SAVE])
def test_damaged_pictures(form):
    data = encoded(form, **WRITTEN[form])
    assert decode(data) == (form in {*FORMATS, "MPO"})
    outcomes = [decode(broken) for broken in mutations(data, SEED, 120)]
    assert not all(outcomes)


def iptc(payload):
    """A picture of 40 x 40 in the IPTC format, around another file that Pillow opens with any plugin."""

    def field(tag, data):
        if len(data) < 32768:
            return bytes([0x1C, *tag]) + struct.pack(">H", len(data)) + data
        return bytes([0x1C, *tag, 132, 0]) + struct.pack(">I", len(data)) + data

    head = field((3, 60), b"\1\0") + field((3, 20), b"\0\x28") + field((3, 30), b"\0\x28")
    return head + field((3, 120), b"\5") + field((8, 10), payload)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("payload", [EPS, encoded("PNG")])
def test_a_picture_inside_another_is_not_opened(tmp_path, monkeypatch, payload):
    """No program is started. A program called gs is on the PATH and would write a file."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\necho 10.0\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Image.open(io.BytesIO(iptc(payload))) as opened:  # Pillow itself does
        assert opened.format == "IPTC"
    for data in (iptc(payload), EPS):
        with pytest.raises(ImageError, match="of no format that is read"):
            Decoder().decode_bytes(data, "x.png")
        with (
            Image.open(io.BytesIO(data)) as opened,
            pytest.raises(ImageError, match=r"is (EPS|IPTC), which starts a program"),
        ):
            Decoder().to_rgb(opened, "image 0")
    assert not (tmp_path / "started").exists()


def tiled_tiff(side, tile):
    """A grey TIFF of side x side black pixels in one deflated tile of tile x tile."""
    data = zlib.compress(bytes(tile * tile), 9)
    offset = 8 + 2 + 10 * 12 + 4
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: offset, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_tiles_count_as_pixels():
    small = tiled_tiff(10, 64)
    np.testing.assert_array_equal(Decoder(max_pixels=100_000).decode_bytes(small, "x.tif"), np.zeros((10, 10, 3)))
    with pytest.raises(ImageError, match=r"x\.tif: declares tiles of 5000 x 5000 pixels; at most 100000 are decoded"):
        Decoder(max_pixels=100_000).decode_bytes(tiled_tiff(10, 5000), "x.tif")


MEMORY = """
import resource, sys
from PIL import Image
from stubs import GridMeans
from fastfid import compute_statistics
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (600 << 20), resource.RLIM_INFINITY))
try:
    compute_statistics(sys.argv[1], extractor=GridMeans(), on_error="skip", num_workers=int(sys.argv[2]))
    print("done")
except MemoryError as error:
    print(error)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_that_runs_out_ends_the_run(tmp_path, workers):
    """Skipping applies only to pictures that cannot be read. Small pictures take no more memory than necessary."""
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encoded("PNG"))

    def run():
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(workers)]
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "MALLOC_ARENA_MAX": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert run() == "done\n"
    Image.new("L", (9400, 9400)).save(tmp_path / "9.png")  # 88 million pixels, 265 MB as RGB, twice
    assert run().startswith(f"{tmp_path}/9.png: not enough memory")


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
    np.testing.assert_allclose(image, np.broadcast_to((200, 100, 50), image.shape), rtol=0, atol=LOSSY_LEVELS)
    for protocol, scaled in (("pytorch-fid", image[0, 0] / 127.5 - 1), ("clean", (image[0, 0] - 128.0) / 128)):
        prepared = _core.preprocess([np.broadcast_to(image[0, 0], image.shape)], input_spec(protocol))[0]
        expected = np.broadcast_to(scaled[:, None, None], prepared.shape)
        np.testing.assert_allclose(prepared, expected, rtol=0, atol=NETWORKS_INPUT)


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
    elif kind == "parquet":
        pictures = [{"bytes": encoded("PNG"), "path": "a.png"}, {"bytes": encoded("JPEG"), "path": None}]
        pq.write_table(pa.table({"image": pictures, "label": [1, 0]}), buffer)
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
        items = list(open_source(path, max_pixels=MAX_PIXELS, labels="auto"))
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


@pytest.mark.parametrize(
    "kind", ["npy", "npz", "deflated.npz", "zip", "deflated.zip", "lzma.zip", "tar", "gnu.tar", "parquet"]
)
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


@pytest.mark.parametrize("suffix", ["npy", "npz", "zip", "tar", "tar.gz", "parquet"])
def test_random_bytes_are_no_container(tmp_path, suffix):
    rng = np.random.default_rng(SEED)
    magics = {
        "npy": b"\x93NUMPY\x01\x00",
        "npz": b"PK\x03\x04",
        "zip": b"PK\x05\x06",
        "tar": b"",
        "tar.gz": b"\x1f\x8b\x08",
        "parquet": b"PAR1",
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


# Files that are not regular files


@pytest.mark.parametrize("name", ["x.npz", "x.tar", "x.tar.gz", "x.zip", "x.npy", "x.parquet", "weights.pth"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/full", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)
    if name == "weights.pth":
        with pytest.raises(WeightsError, match=r"weights\.pth: (is not a regular file|cannot be read: Is a directory)"):
            find_weights(path)
        return
    assert not is_statistics_file(path)
    with pytest.raises(ValueError, match=rf"{name}: (is not a regular file|no images found)"):
        open_source(path)
    if name == "x.npz":
        with pytest.raises((ValueError, OSError), match=r"is not a regular file|Is a directory"):
            Statistics.load(path)


def test_more_shards_than_files_may_be_open(tmp_path):
    for i in range(300):
        with zipfile.ZipFile(tmp_path / f"{i:03}.zip", "w") as archive:
            archive.writestr("a.png", encoded("PNG"))
        np.save(tmp_path / f"{i:03}.npy", np.zeros((1, 4, 4, 3), np.uint8))
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    script += "from fastfid.sources import open_source\n"
    script += "print(sum(item.load().size > 0 for item in open_source(sys.argv[1])))"
    for pattern in ("*.zip", "*.npy"):
        command = [sys.executable, "-c", script, str(tmp_path / pattern)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "300\n"


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.zip", "x.tar", "x.tar.gz"])
def test_a_file_that_is_exchanged_before_its_turn(tmp_path, name):
    """The file is replaced by another file of the same size, whose pictures do not match the old header."""

    def write(path, shade):
        array = np.full((3, 8, 8, 3), shade, np.uint8)
        if name == "x.npy":
            np.save(path, array)
        elif name == "x.npz":
            np.savez(path, array)
        elif name == "x.zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.ppm", b"P6 8 8 255\n" + array[0].tobytes())
        else:
            with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
                member = tarfile.TarInfo("a.ppm")
                data = b"P6 8 8 255\n" + array[0].tobytes()
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    write(tmp_path / name, 1)
    source = open_source(tmp_path / name)
    assert all((item.load() == 1).all() for item in source)
    write(tmp_path / f"new-{name}", 2)
    os.replace(tmp_path / f"new-{name}", tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: has changed since it was listed"):
        list(source)


def test_a_tar_with_absurd_sizes(tmp_path):
    for digits in ("9" * 20, "9" * 4000, "-1", str(2**63)):
        with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("a.png")
            member.pax_headers = {"size": digits}
            archive.addfile(member)
        with pytest.raises(ValueError, match=r"x\.tar: not a readable tar archive"):
            open_source(tmp_path / "x.tar")


def page_header(unpacked, packed, more=b""):
    """A page header in Thrift's compact protocol: a dictionary page of one value."""

    def number(value):
        value, out = value << 1, bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    return b"\x15\x04\x15" + number(unpacked) + b"\x15" + number(packed) + more + b"\x4c\x15\x02\x15\x00\x00\x00"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (page_header(2**31 - 1, 50), r"the page at byte 4 declares 2147483647 bytes in 50 compressed ones"),
        (page_header(100, 2**31 - 1), r"a page goes beyond the end of the file"),
        (page_header(100, 2**40), r"a page goes beyond the end of the file"),
        (b"\x15\x04\x15\x02\x00", r"the page header at byte 4 declares no size"),
        (page_header(1, 1, b"\x1c" * 30), r"a header nests too deep"),
        (page_header(1, 1, b"\x19\xf9\xff\xff\xff\xff\x0f"), r"a header has a list of \d+ elements"),
        (b"\x15" + b"\xff" * 20, r"a number in a header does not end"),
        (b"\x1e\x00", r"a header has a value of the unknown type 14"),
    ],
)
def test_pages_that_claim_memory(tmp_path, header, said):
    """pyarrow would allocate what the header declares."""
    data = bytearray(container("parquet"))
    data[4 : 4 + len(header)] = header
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=rf"x\.parquet: not a readable parquet file \({said}"):
        open_source(tmp_path / "x.parquet")


def test_damage_in_the_footer_of_a_parquet_file(tmp_path):
    """In a process with little memory, which a crash of the reader would end."""
    script = (
        "import resource, sys, pathlib, numpy as np; import pyarrow.parquet\n"
        "import test_attacks\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), resource.RLIM_INFINITY))\n"
        "data, rng = test_attacks.container('parquet'), np.random.default_rng(int(sys.argv[2]))\n"
        "footer = int.from_bytes(data[-8:-4], 'little')\n"
        "path, found = pathlib.Path(sys.argv[1]), set()\n"
        "values = [b'\\xff' * 4, bytes(8), b'\\xff\\xff\\xff\\xff\\x0f', b'\\xff' * 9 + b'\\x01', None, None]\n"
        "for _ in range(400):\n"
        "    broken = bytearray(data)\n"
        "    at = len(data) - 8 - int(rng.integers(1, footer)) if rng.integers(4) else int(rng.integers(4, 60))\n"
        "    value = values[rng.integers(6)] or rng.bytes(int(rng.integers(1, 5)))\n"
        "    broken[at : at + len(value)] = value\n"
        "    path.write_bytes(broken)\n"
        "    found.add(test_attacks.read(path))\n"
        "print(sorted(found))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.parquet"), str(SEED)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "[0, 1, 2]\n", done.stderr[-2000:]


# Statistics and arrays


def npy(descr, shape, data=b""):
    body = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body + data


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("'<f8'", "(True, 2)"),
        ("'|S0'", "(2,)"),
        ("'|V0'", "(2,)"),
        ("[('a', '<f8')]", "(2,)"),
        ("('<f8', (3,))", "(2,)"),
        ("'<f8'", "(1,) * 2"),
        ("'<f8'", str((1,) * 100)),
        ("'<f8'", f"({2**70},)"),
        ("'O'", "(2,)"),
        ("'<M8[ns]'", "(2,)"),
        ("'<f8'", "2"),
    ],
)
def test_headers_of_arrays_that_are_none(tmp_path, descr, shape):
    for name, key in (("x.npz", "mu"), ("y.npz", "arr_0")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{key}.npy", npy(descr, shape, bytes(64)))
            if key == "mu":
                archive.writestr("sigma.npy", npy("'<f8'", "(2, 2)", bytes(32)))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/x\.npz: mu: "):
        Statistics.load(tmp_path / "x.npz")
    with pytest.raises((ValueError, TypeError), match=rf"^{tmp_path}/y\.npz: arr_0: "):
        open_source(tmp_path / "y.npz")
    (tmp_path / "z.npy").write_bytes(npy(descr, shape, bytes(64)))
    with pytest.raises((ValueError, TypeError), match=rf"^{tmp_path}/z\.npy: "):
        open_source(tmp_path / "z.npy")


def test_names_and_offsets_of_a_zip_that_are_none(tmp_path):
    np.savez(tmp_path / "good.npz", mu=np.zeros(2), sigma=np.eye(2))
    good = (tmp_path / "good.npz").read_bytes()
    at = good.rindex(b"PK\x01\x02")
    flagged = bytearray(good)
    flagged[at + 8 : at + 10] = struct.pack("<H", 0x800)  # the name is said to be UTF-8
    flagged[at + 46] = 0xFF
    far = bytearray(good)
    far[at + 42 : at + 46] = b"\xff\xff\xff\xfe"
    for data in (bytes(flagged), bytes(far)):
        (tmp_path / "bad.npz").write_bytes(data)
        with pytest.raises(ValueError, match=rf"^{tmp_path}/bad\.npz: "):
            Statistics.load(tmp_path / "bad.npz")


def test_a_small_file_of_large_statistics(tmp_path):
    d = 20_000
    np.savez_compressed(tmp_path / "x.npz", mu=np.zeros(d, np.int8), sigma=np.zeros((d, 1), np.int8))
    with pytest.raises(ValueError, match=r"x\.npz: mu: has 20000 dims; at most 16384 are read"):
        Statistics.load(tmp_path / "x.npz")


# Weights


def deep(opcode, n):
    return b"\x80\x02})" + opcode * n + b"K\x01s."


def doubling(n):
    """A tuple of itself twice, n times over, as a key: its hash takes 2^n steps."""
    steps = [bytes([*b"h", i, *b"h", i, 0x86, *b"q", i + 1]) for i in range(n)]
    return b"\x80\x02}K\x01K\x02\x86q\x00" + b"".join(steps) + b"K\x01s."


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        deep(b"\x85", 1_000_000),  # a tuple in a tuple, a million deep: its hash recurses
        deep(b"\x85", 60),
        doubling(45),
        b"\x80\x02(" + b"X\x00\x00\x01\x00" + b"1" * 65536 + b"q\x00" + b"h\x00" * 3000 + b"t.",  # 200 MB
        b"\x80\x02}r\xff\xff\xff\x0f.",  # a memo entry far away: 4 GB
        b"\x80\x02}q\x05.",
        b"\x80\x02h\x05.",
        b"\x80\x04\x96\xff\xff\xff\xff\x00\x00\x00\x00.",  # a bytearray of 4 GB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02(((((t.",
        b"\x80\x02ss.",
        b"\x80\x02(u.",
        b"\x80\x02" + b"K\x01" * 600_000 + b".",
        b"\x80\x02" + b"0" * 10 + b".",
        b"",
    ],
)
def test_pickles_that_would_crash_or_take_memory(tmp_path, legacy, content):
    path = tmp_path / "weights.pth"
    if legacy:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    script += "from fastfid.features.weights import find_weights\n"
    script += "try:\n    find_weights(sys.argv[1])\nexcept Exception as error:\n    print(type(error).__name__, error)"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"WeightsError weights {path}: ")
    # Refused before anything is executed, by the intended check.
    reasons = "nests too deep|too large|memo entry|no state dict: operation|a mark |stack is empty|pickle exhausted"
    reasons += r"|expected \d+ bytes in a|expected torch's magic number|expected a state dict"
    assert re.search(reasons, done.stdout), done.stdout
