"""Every source gives its pictures in the documented order, and reports the ignored entries."""

import bz2
import gzip
import inspect
import io
import lzma
import os
import pathlib
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from tolerances import ONE_LEVEL

from fastfid.cli.commands import parser_of
from fastfid.cli.options import fid_options
from fastfid.errors import ImageError, SuspiciousInputWarning
from fastfid.options import SourceOptions
from fastfid.sources import ImageSource, is_statistics_file, open_source
from fastfid.sources.base import SubsetSource
from fastfid.sources.picture import IMAGE_EXTENSIONS, Decoder

SEED = 20261122


def test_every_option_of_a_source_is_everywhere():
    """In the types of keywords, in open_source, and on the command line."""
    named = list(SourceOptions.__annotations__)
    assert [p.name for p in inspect.signature(open_source).parameters.values() if p.kind is p.KEYWORD_ONLY] == [
        *named,
        "on_error",
    ]
    words = ["a", "b", "--value-range", "0", "1", "--key", "x", "--match", "y", "--num", "3", "--max-pixels", "9"]
    words += ["--labels", "auto", "--column", "image", "--to-uint8", "truncate"]
    given = fid_options(parser_of("").parse_args(words), reads_images=True)
    assert set(named) - {"layout"} <= set(given)  # it has no flag


def pictures(n=6, seed=SEED):
    """Small RGB pictures of different sizes, by sorted name."""
    rng = np.random.default_rng(seed)
    return {f"{i:03}.png": rng.integers(0, 256, (5 + i % 7, 9 - i % 5, 3), dtype=np.uint8) for i in range(n)}


def encoded(array, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def loaded(source):
    return {item.name: item.load() for item in source}


def texts(source):
    return [str(note) for note in source.notes]


def assert_same(source, expected, prefix=""):
    got = loaded(source)
    assert list(got) == [prefix + name for name in expected]
    assert len(source) == len(expected)
    for name, array in expected.items():
        assert got[prefix + name].dtype == np.uint8
        np.testing.assert_array_equal(got[prefix + name], array)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    for name, array in reversed(pictures().items()):
        (path / name).write_bytes(encoded(array))
    return path


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_tar(path, members, opener=open, form=tarfile.PAX_FORMAT):
    with opener(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# Folders


def test_a_device_among_the_pictures_is_not_read_to_its_end(tmp_path):
    os.symlink("/dev/zero", tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: is not a regular file"):
        next(iter(open_source(tmp_path))).load()
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "pipe", tmp_path / "aa.png")  # nobody writes to it
    with pytest.raises(ImageError, match=r"aa\.png: is not a regular file"):
        list(open_source(tmp_path))[1].load()
    os.symlink("/proc/self/status", tmp_path / "b.png")  # a regular file that says it has no bytes
    with pytest.raises(ImageError, match=r"b\.png: cannot be read as a picture"):
        list(open_source(tmp_path))[2].load()


def test_folder_sorted_by_name(folder):
    assert_same(open_source(folder), pictures(), f"{folder}/")
    assert texts(open_source(str(folder))) == []


def test_folder_lists_what_pytorch_fid_lists(tmp_path):
    names = ["b.png", "a.PNG", "a.png", ".hidden.png", ".png", "x.jpeg", "x.JPG", "y.gif", "é.webp", "png", "z.tar.png"]
    names += ["A b.bmp", "10.png", "9.png", "c.tif", "c.tiff", "d.pgm", "d.ppm", "e.Png"]
    for name in names:
        (tmp_path / name).touch()
    # pytorch_fid.fid_score.compute_statistics_of_path, v0.3.0
    peer = sorted([file for ext in IMAGE_EXTENSIONS for file in pathlib.Path(tmp_path).glob(f"*.{ext}")])
    assert [item.name for item in open_source(tmp_path)] == [str(file) for file in peer]


def test_folder_says_what_it_passes_over(folder):
    (folder / "A.PNG").write_bytes(encoded(pictures()["000.png"]))
    (folder / "B.Jpg").write_bytes(b"")
    (folder / "sub").mkdir()
    (folder / "sub" / "x.png").write_bytes(encoded(pictures()["001.png"]))
    (folder / "notes.txt").touch()
    (folder / "more.txt").touch()
    (folder / "README").touch()
    os.mkfifo(folder / "pipe.png")
    source = open_source(folder)
    assert len(source) == 6
    assert texts(source) == [
        f"{folder}: 2 files with upper-case extensions not read (--any-case reads them)",
        f"{folder}: 1 sub-folder not entered (--recursive enters them)",
        f"{folder}: 3 other files not read (.txt, no extension)",
        f"{folder}: 1 entry not read: links, devices or pipes",
    ]
    any_case = [os.path.basename(item.name) for item in open_source(folder, any_case=True)]
    assert any_case == ["000.png", "001.png", "002.png", "003.png", "004.png", "005.png", "A.PNG", "B.Jpg"]
    recursive = [item.name.removeprefix(f"{folder}/") for item in open_source(folder, recursive=True)]
    assert recursive == [*pictures(), "sub/x.png"]


def test_recursion_sorts_paths_and_survives_loops(tmp_path):
    for name in ("b/1.png", "a/2.png", "a-1.png", "a/b/3.png", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(pictures()["000.png"]))
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    source = open_source(tmp_path, recursive=True)
    got = [item.name.removeprefix(f"{tmp_path}/") for item in source]
    assert got == sorted(got) == ["a-1.png", "a/2.png", "a/b/3.png", "b/1.png", "c.png"]
    assert texts(source) == [f"{tmp_path}: 1 entry not read: links, devices or pipes"]


def test_links_to_pictures_are_read_and_broken_ones_are_errors(folder):
    os.symlink(folder / "000.png", folder / "link.png")
    os.symlink(folder / "nothing", folder / "broken.png")
    items = {os.path.basename(item.name): item for item in open_source(folder)}
    np.testing.assert_array_equal(items["link.png"].load(), pictures()["000.png"])
    with pytest.raises(ImageError, match=r"broken\.png: No such file or directory"):
        items["broken.png"].load()


def test_folder_without_pictures(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}: no images found \(extensions bmp, jpeg, .*\); it is empty"):
        open_source(tmp_path)
    (tmp_path / "A.PNG").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=r"1 file with upper-case extensions not read .*; 1 sub-folder not entered"):
        open_source(tmp_path)


def test_paths_that_are_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "x.png").touch()
    with pytest.raises(ValueError, match=r"x\.png: expected a folder, or a file that ends in \.zip"):
        open_source(tmp_path / "x.png")


# Pictures


def transparent_palette():
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).convert("P")
    image.info["transparency"] = 7
    return image


def pillow_modes():
    rng = np.random.default_rng(SEED)
    rgba = Image.fromarray(rng.integers(0, 256, (7, 5, 4), dtype=np.uint8))
    rgb = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (7, 5), dtype=np.uint16))
    return {
        "rgb.png": rgb,
        "grey.png": rgb.convert("L"),
        "bit.png": rgb.convert("1"),
        "palette.png": rgb.quantize(7),
        "transparent-palette.png": transparent_palette(),
        "rgba.png": rgba,
        "grey-alpha.png": rgba.convert("LA"),
        "deep.png": deep,
        "deep.tif": deep,
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycbcr.jpg": rgb,
        "lab.tif": rgb.convert("LAB"),
        "float.tif": rgb.convert("F"),
        "grey.pgm": rgb.convert("L"),
        "rgb.ppm": rgb,
        "rgb.bmp": rgb,
        "rgba.webp": rgba,
    }


# That such a picture is remarked on has tests of its own.
@pytest.mark.filterwarnings("ignore:.*(has more than 8 bits a pixel|is a float picture)")
@pytest.mark.parametrize("name", pillow_modes())
def test_every_mode_is_pillows_rgb(tmp_path, name):
    pillow_modes()[name].save(tmp_path / name)
    item = next(iter(open_source(tmp_path)))
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB"))
    got = item.load()
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "b.tiff", save_all=True, append_images=frames[1:])
    animation, pages = open_source(tmp_path)
    with pytest.warns(SuspiciousInputWarning, match="has several frames; the first is read"):
        np.testing.assert_array_equal(animation.load(), np.full((4, 6, 3), 10))
    np.testing.assert_array_equal(pages.load(), np.full((4, 6, 3), 10))


def test_content_counts_not_the_extension(tmp_path):
    (tmp_path / "really-a.jpg").write_bytes(encoded(pictures()["000.png"], "PNG"))
    np.testing.assert_array_equal(next(iter(open_source(tmp_path))).load(), pictures()["000.png"])


def test_alpha_is_dropped_or_composited_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 0], [0, 100, 200, 128], [9, 8, 7, 255]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    np.testing.assert_array_equal(next(iter(open_source(tmp_path))).load(), rgba[..., :3])
    composited = next(iter(open_source(tmp_path, alpha=True))).load()
    a = rgba[..., 3:] / 255.0
    np.testing.assert_allclose(composited, a * rgba[..., :3] + (1 - a) * 255, rtol=0, atol=ONE_LEVEL)
    assert composited[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["transparent-palette.png", "grey-alpha.png"])
def test_alpha_of_other_modes(tmp_path, name):
    pillow_modes()[name].save(tmp_path / name)
    got = next(iter(open_source(tmp_path, alpha=True))).load()
    with Image.open(tmp_path / name) as image:
        rgba = np.asarray(image.convert("RGBA")).astype(float)
    a = rgba[..., 3:] / 255.0
    assert a.min() < 1
    np.testing.assert_allclose(got, a * rgba[..., :3] + (1 - a) * 255, rtol=0, atol=ONE_LEVEL)


def test_exif_orientation_is_ignored_unless_asked_for(tmp_path):
    array = pictures()["000.png"]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    Image.fromarray(array).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(next(iter(open_source(tmp_path))).load(), array)
    upright = next(iter(open_source(tmp_path, exif=True))).load()
    np.testing.assert_array_equal(upright, np.rot90(array, -1))
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(upright, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"])
def test_truncated_pictures_are_errors(tmp_path, form):
    data = encoded(np.random.default_rng(SEED).integers(0, 256, (64, 64, 3), dtype=np.uint8), form)
    for keep in (0, 5, len(data) // 3, len(data) * 2 // 3):
        (tmp_path / "x.png").write_bytes(data[:keep])
        with pytest.raises(ImageError, match=rf"^{tmp_path}/x\.png: cannot be "):
            next(iter(open_source(tmp_path))).load()


def test_unreadable_file(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(pictures()["000.png"]))
    item = next(iter(open_source(tmp_path)))
    (tmp_path / "x.png").unlink()
    with pytest.raises(ImageError, match=rf"^{tmp_path}/x\.png: No such file"):
        item.load()


def test_pixel_limit_is_checked_before_decoding(tmp_path):
    with Image.new("RGB", (1000, 400)) as image:
        image.save(tmp_path / "x.png")
    assert next(iter(open_source(tmp_path, max_pixels=400_000))).load().shape == (400, 1000, 3)
    # Cut off after its header: had it been decoded, the message would be another one.
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:60])
    with pytest.raises(ImageError, match=r"x\.png: declares 1000 x 400 pixels; at most 399999"):
        next(iter(open_source(tmp_path, max_pixels=399_999))).load()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(2**15, 2**14), (12_000, 9_000)])
def test_bombs_are_errors_at_the_default_limit(tmp_path, width, height):
    header = bytearray(encoded(np.zeros((1, 1, 3), np.uint8)))
    header[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(header)
    with pytest.raises(ImageError, match=r"x\.png: .*(pixels|exceeds limit)"):
        next(iter(open_source(tmp_path))).load()


def test_oversized_files_are_refused_before_reading(tmp_path):
    with open(tmp_path / "x.webp", "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(2**31)
    with pytest.raises(ImageError, match=r"x\.webp: has 2147483648 bytes; at most 716\d+ are read"):
        next(iter(open_source(tmp_path))).load()


def test_postscript_is_not_given_to_ghostscript(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(
        ImageError, match=r"x\.png: cannot be read as a picture \(its content is of no format that is read"
    ):
        next(iter(open_source(tmp_path))).load()


def test_pillows_settings_are_left_alone(folder):
    script = (
        "import sys; from PIL import Image, ImageFile\n"
        "before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES\n"
        "from fastfid.sources import open_source\n"
        "[item.load() for item in open_source(sys.argv[1], max_pixels=1000)]\n"
        "assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)


@pytest.mark.parametrize("limit", [0, -1, 2**62])
def test_impossible_pixel_limit(folder, limit):
    with pytest.raises(ValueError, match=r"max_pixels: expected 1 to \d+; got"):
        open_source(folder, max_pixels=limit)


# Archives


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip(tmp_path, method):
    members = {name: encoded(array) for name, array in reversed(pictures().items())}
    path = write_zip(tmp_path / "x.zip", members, compression=method)
    assert_same(open_source(path), pictures(), f"{path}/")


@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(tmp_path, opener, form):
    long = "long/" * 19 + "x.png"  # a prefix, a GNU long name or an extended header
    expected = {**pictures(), "b/é.png" if form != tarfile.USTAR_FORMAT else "b/e.png": pictures()["003.png"]}
    expected[long] = pictures()["004.png"]
    members = {name: encoded(array) for name, array in reversed(expected.items())}
    path = write_tar(tmp_path / "x.tar", members, opener, form)
    # A plain archive is read in sorted order, a compressed one can only be read in its own.
    order = expected if opener is open else dict(reversed(expected.items()))
    assert_same(open_source(path), order, f"{path}/")


def test_archives_are_read_by_many_threads(tmp_path):
    expected = pictures(40)
    members = {name: encoded(array) for name, array in expected.items()}
    for path in (
        write_zip(tmp_path / "x.zip", members, compression=zipfile.ZIP_DEFLATED),
        write_tar(tmp_path / "x.tar", members),
    ):
        items = list(open_source(path))
        wrong = []

        def work(items=items, wrong=wrong):
            for _ in range(5):
                for item, array in zip(items, expected.values(), strict=True):
                    if not np.array_equal(item.load(), array):
                        wrong.append(item.name)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_hostile_names_are_only_names(tmp_path):
    data = encoded(pictures()["000.png"])
    names = ["../../../escape.png", "/absolute.png", "a/../b.png", "C:\\x.png", "nul\n.png"]
    inside = tmp_path / "inside"
    inside.mkdir()
    for path in (
        write_zip(inside / "x.zip", dict.fromkeys(names, data)),
        write_tar(inside / "x.tar", dict.fromkeys(names, data)),
    ):
        got = loaded(open_source(path))
        assert list(got) == [f"{path}/{name}" for name in sorted(names)]
    assert sorted(os.listdir(tmp_path)) == ["inside"]
    assert sorted(os.listdir(inside)) == ["x.tar", "x.zip"]


def test_archive_says_what_it_passes_over(tmp_path):
    data = encoded(pictures()["000.png"])
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "b.PNG", "c.cls", "c.json", "__MACOSX/._a.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
        for kind in kinds:
            info = tarfile.TarInfo(f"type{kind!r}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_source(path)
    assert list(loaded(source)) == [f"{path}/a.png"]
    assert texts(source) == [
        f"{path}: 1 file with upper-case extensions not read (--any-case reads them)",
        f"{path}: 2 other files not read (.cls, .json)",
        f"{path}: 5 entries not read: links, devices or pipes",
        f"{path}: 1 macOS resource fork (._*, __MACOSX/) not read",
    ]
    assert list(loaded(open_source(path, any_case=True))) == [f"{path}/a.png", f"{path}/b.PNG"]
    path = write_zip(
        tmp_path / "x.zip", {"deep/er/a.png": data, "__MACOSX/deep/._a.png": b"x", "d/": b"", "e.txt": b""}
    )
    source = open_source(path)
    assert list(loaded(source)) == [f"{path}/deep/er/a.png"]
    assert texts(source) == [
        f"{path}: 1 other file not read (.txt)",
        f"{path}: 1 macOS resource fork (._*, __MACOSX/) not read",
    ]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.npz", "x.npy"])
@pytest.mark.parametrize("data", [b"", b"junk" * 500])
def test_archives_that_are_none(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{name}: not a (readable|NumPy)|no images found"):
        open_source(tmp_path / name)


def test_archives_without_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"x\.zip: no images found .*1 other file not read \(\.txt\)"):
        open_source(write_zip(tmp_path / "x.zip", {"a.txt": b""}))
    with pytest.raises(ValueError, match=r"x\.tar: no images found .*it is empty"):
        open_source(write_tar(tmp_path / "x.tar", {}))


def test_encrypted_member(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": encoded(pictures()["000.png"])})
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"x\.zip/a\.png: is encrypted"):
        loaded(open_source(path))


def test_zip_member_with_a_wrong_checksum(tmp_path):
    data = encoded(pictures()["000.png"])
    path = write_zip(tmp_path / "x.zip", {"a.png": data})
    broken = bytearray(path.read_bytes())
    broken[broken.index(data) + len(data) - 20] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ImageError, match=r"x\.zip/a\.png: cannot be read from the archive \(Bad CRC-32"):
        loaded(open_source(path))


def test_zip_bomb_is_refused_by_its_declared_size(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as member:
        for _ in range(3):
            member.write(bytes(2**20))
    with pytest.raises(ImageError, match=r"a\.png: has 3145728 bytes; at most \d+ are read"):
        next(iter(open_source(path, max_pixels=1000))).load()


def test_zip_bomb_that_declares_little_stays_packed(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    script = (
        "import resource, sys; from fastfid.errors import ImageError; from fastfid.sources import open_source\n"
        "import PIL.Image\n"
        "item = next(iter(open_source(sys.argv[1])))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: item.load()\n"
        "except ImageError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    message, growth = done.stdout.splitlines()
    assert "a.png: cannot be read from the archive (Bad CRC-32" in message
    assert int(growth) < 100


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_damaged_tar_loses_nothing_silently(tmp_path, opener):
    members = {name: encoded(array) for name, array in pictures().items()}
    plain = write_tar(tmp_path / "plain.tar", members, form=tarfile.USTAR_FORMAT).read_bytes()
    path = tmp_path / "x.tar"

    def write(data):
        with opener(path, "wb") as stream:
            stream.write(data)

    write(plain[:1000])  # within a member's data
    with pytest.raises(ValueError, match=r"x\.tar: not a readable tar archive"):
        open_source(path)
    header = plain.index(b"003.png")
    write(plain[: header + 7] + b"!" + plain[header + 8 :])  # the standard library takes this for the end
    with pytest.raises(ValueError, match=rf"x\.tar: not a readable tar archive \(damaged header at byte {header}\)"):
        open_source(path)
    write(plain[:header])  # no end mark: complete all the same
    assert len(open_source(path)) == 3


def test_tar_with_a_negative_size(tmp_path):
    data = bytearray(write_tar(tmp_path / "x.tar", {"a.png": b"x", "b.png": b"y"}).read_bytes())
    second = data.index(b"b.png")
    data[second + 124 : second + 136] = b"\xff" * 11 + b"\x00"  # -256
    data[second + 148 : second + 156] = b" " * 8
    data[second + 148 : second + 156] = b"%06o\0 " % sum(data[second : second + 512])
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(ValueError, match=r"not a readable tar archive"):
        open_source(tmp_path / "x.tar")


def test_tar_header_bomb_stays_packed(tmp_path):
    path = tmp_path / "x.tar.gz"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**31
    with gzip.open(path, "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            stream.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"a header declares 2147483648 bytes"):
        open_source(path)


def test_tar_cut_short_after_opening(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": encoded(pictures()["000.png"])})
    source = open_source(path)
    items = list(source)
    os.truncate(path, 600)
    with pytest.raises(ImageError, match=r"x\.tar/a\.png: has 88 bytes, the archive declares \d+"):
        items[0].load()
    with pytest.raises(ValueError, match=r"x\.tar: has changed since it was listed"):
        loaded(source)


@pytest.mark.parametrize("pattern", ["s-{000..002}.tar", "s-*.tar", "s-{000,001,002}.tar", "{s}-*.tar", "s-[0-9]*.tar"])
def test_shards(tmp_path, pattern):
    if pattern.startswith("{s}"):
        pattern = pattern.replace("{s}", "?")
    expected = {}
    for shard in range(3):
        members = {f"{shard}{name}": array for name, array in pictures(3, shard).items()}
        # As WebDataset writes them: samples of several files each.
        encoded_members = {name: encoded(array) for name, array in members.items()}
        write_tar(tmp_path / f"s-{shard:03}.tar", {**encoded_members, f"{shard}.cls": b"7"})
        expected |= {f"{tmp_path}/s-{shard:03}.tar/{name}": array for name, array in members.items()}
    source = open_source(tmp_path / pattern)
    assert_same(source, expected)
    assert texts(source) == [f"{tmp_path / pattern}: 3 other files not read (.cls)"]
    assert source.name == str(tmp_path / pattern)


def test_brace_lists(tmp_path):
    for i in (0, 1):
        write_tar(tmp_path / f"s-{i}.tar", {})
    with pytest.raises(FileNotFoundError, match=r"s-2\.tar: no such file"):
        open_source(tmp_path / "s-{0..3}.tar")
    for name in ("a1", "a0", "b1", "b0"):
        write_zip(tmp_path / f"{name}.zip", {f"{name}.png": encoded(pictures()["000.png"])})
    names = [item.name[-6:] for item in open_source(tmp_path / "{b,a}{1..0}.zip")]
    assert names == ["b1.png", "b0.png", "a1.png", "a0.png"]
    with pytest.raises(ValueError, match="more than a million"):
        open_source("x{0..99999999}.tar")
    write_zip(tmp_path / "{x}[0].zip", {"a.png": encoded(pictures()["000.png"])})
    assert len(open_source(tmp_path / "{x}[0].zip")) == 1  # a name that exists is no pattern


# Arrays


def batch(n=5, h=6, w=4, seed=SEED):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def assert_batch(source, expected):
    got = [item.load() for item in source]
    assert len(source) == len(got) == len(expected)
    np.testing.assert_array_equal(np.stack(got), expected)


def test_array_layouts():
    images = batch()
    assert_batch(open_source(images), images)
    assert_batch(open_source(images.transpose(0, 3, 1, 2)), images)
    assert_batch(open_source(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), images)
    both = batch(2, 3, 4)  # (2, 3, 4, 3)
    with pytest.raises(ValueError, match=r"two axes of 3 .* pass layout='nhwc' or 'nchw'"):
        open_source(both)
    assert_batch(open_source(both, layout="nhwc"), both)
    assert_batch(open_source(both, layout="nchw"), both.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed"])
@pytest.mark.parametrize("nchw", [False, True])
def test_array_files(tmp_path, kind, nchw):
    images = batch(7)
    stored = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if nchw else images
    path = tmp_path / f"x.{kind[:3]}"
    if kind == "npy":
        np.save(path, stored)
    else:
        (np.savez_compressed if kind == "npz-compressed" else np.savez)(path, stored, np.arange(7))  # ADM adds labels
    source = open_source(path)
    assert_batch(source, images)
    prefix = str(path) if kind == "npy" else f"{path}: arr_0"
    assert [item.name for item in source] == [f"{prefix}[{i}]" for i in range(7)]
    assert_batch(open_source(path, num=3, seed=1), images[np.sort(np.random.RandomState(1).permutation(7)[:3])])


def save(path, array):
    (np.save if path.suffix == ".npy" else np.savez)(path, array)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", None])
@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (batch().astype(np.float32), TypeError, r"got float32; .*value_range=\(0, \d+\)"),
        (batch().astype(np.int64), TypeError, "expected uint8 images with values 0..255, got int64$"),
        (batch() > 9, TypeError, "got bool"),
        (batch()[..., :2], ValueError, r"expected RGB images of shape \(n, h, w, 3\) or \(n, 3, h, w\)"),
        (batch()[..., :1], ValueError, "repeat a grey channel three times"),
        (batch()[0], ValueError, r"got (shape )?\(6, 4, 3\)"),
        (batch(0), ValueError, r"\(0, 6, 4, 3\)"),
        (batch(2, 0), ValueError, "have no pixels"),
        (batch()[..., 0], ValueError, r"got (shape )?\(5, 6, 4\)"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, suffix, array, error, message):
    obj = array if suffix is None else save(tmp_path / f"x{suffix}", array)
    with pytest.raises(error, match=message):
        open_source(obj)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_array_files_that_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save(path, np.asfortranarray(batch()))
    with pytest.raises(ValueError, match=r"Fortran order, .* np.ascontiguousarray"):
        open_source(path)
    with pytest.raises(ValueError, match=r"images of shape \(6, 4, 3\) exceed 23 pixels"):
        open_source(save(path, batch()), max_pixels=23)
    save(path, np.array([[None]], dtype=object))
    with pytest.raises(ValueError, match=r"Python objects .* refused"):
        open_source(path)
    buffer = io.BytesIO()
    np.save(buffer, batch())
    computed = buffer.getvalue().replace(b"(5, 6, 4, 3)", b"(9**99,4,3) ")
    if suffix == ".npy":
        path.write_bytes(computed)
    else:
        write_zip(path, {"arr_0.npy": computed})
    with pytest.raises(ValueError, match="not a NumPy array file"):
        open_source(path)


@pytest.mark.parametrize("shape", [b"(6, 6, 4, 3)", b"(4, 6, 4, 3)", b"(5,6000000000000,400000000,3)"])
def test_array_files_of_another_size_than_declared(tmp_path, shape):
    np.save(tmp_path / "x.npy", batch())
    data = (tmp_path / "x.npy").read_bytes()
    old = b"(5, 6, 4, 3), }"
    data = data.replace(old + b" " * (len(shape) - 12), shape + b", }")
    (tmp_path / "x.npy").write_bytes(data)
    write_zip(tmp_path / "x.npz", {"arr_0.npy": data})
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match=r"declares \d+ bytes of data .* but has 360$"):
            open_source(tmp_path / name)


def test_npz_without_images(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(3), other=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected images under arr_0, or statistics .*; it holds mu, other"):
        open_source(tmp_path / "x.npz")
    write_zip(tmp_path / "x.npz", {})
    with pytest.raises(ValueError, match="it holds no arrays"):
        open_source(tmp_path / "x.npz")


def test_npy_cut_short_after_opening(tmp_path):
    np.save(tmp_path / "x.npy", batch())
    source = open_source(tmp_path / "x.npy")
    items = iter(source)
    next(items).load()
    os.truncate(tmp_path / "x.npy", 128 + 100)
    with pytest.raises(ImageError, match=r"x\.npy\[1\]: has 28 bytes of 72"):
        next(items).load()
    with pytest.raises(ValueError, match=r"x\.npy: has changed since it was listed"):
        next(iter(source))


def test_npz_with_damaged_data(tmp_path):
    rng = np.random.default_rng(SEED)
    np.savez_compressed(tmp_path / "x.npz", rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.npz: arr_0: cannot be read from the archive"):
        loaded(open_source(tmp_path / "x.npz"))


def test_statistics_are_told_from_images(tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "both.npz", np.zeros((1, 2, 2, 3), np.uint8), mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "i.npz", np.zeros((1, 2, 2, 3), np.uint8))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with open(tmp_path / "s.zip", "wb") as file:
        np.savez(file, mu=np.zeros(3), sigma=np.eye(3))
    assert is_statistics_file(tmp_path / "s.npz")
    assert is_statistics_file(str(tmp_path / "both.npz"))
    for other in ("i.npz", "junk.npz", "nowhere.npz", "s.zip", ""):
        assert not is_statistics_file(tmp_path / other)
    assert not is_statistics_file(np.zeros(3))


# Tensors


def test_torch_tensors():
    import torch

    images = batch()
    tensor = torch.from_numpy(images.copy())
    assert_batch(open_source(tensor), images)
    assert_batch(open_source(tensor.permute(0, 3, 1, 2)), images)
    assert_batch(open_source(torch.nn.Parameter(tensor, requires_grad=False)), images)
    assert_batch(open_source(tensor[::2]), images[::2])
    with pytest.raises(TypeError, match=r"got float32; .*or x\.round\(\)\.clamp\(0, 255\)\.to\(torch\.uint8\)"):
        open_source(tensor.float())
    loader = torch.utils.data.DataLoader(tensor, batch_size=2)
    assert [len(b) for b in loader] == [2, 2, 1]
    got = [item.load() for item in open_source(loader)]
    np.testing.assert_array_equal(np.stack(got), images)
    labelled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensor, torch.arange(5)), batch_size=2)
    np.testing.assert_array_equal(np.stack([item.load() for item in open_source(labelled)]), images)


def test_torch_is_not_imported_for_others():
    script = (
        "import sys; import numpy as np; from fastfid.sources import open_source\n"
        "list(open_source(np.zeros((2, 4, 4, 3), np.uint8))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Iterables


def test_elements_of_iterables(tmp_path):
    images = batch(9)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    elements = [
        str(tmp_path / "a.png"),
        images[1],
        images[2:4],
        Image.fromarray(images[4]),
        [Image.fromarray(images[5]), images[6].transpose(2, 0, 1)],
        images[7:].transpose(0, 3, 1, 2),
    ]
    for source in (open_source(iter(elements)), open_source(lambda: iter(elements))):
        got = [item.load() for item in source]
        np.testing.assert_array_equal(np.stack(got), images)
        with pytest.raises(TypeError, match="the number of images is not known"):
            len(source)
    source = open_source(elements)
    assert len(source) == 9
    names = [item.name for item in source]
    assert names[1:] == [f"list: image {i}" for i in range(1, 9)]
    assert names[0] == str(tmp_path / "a.png")


def test_a_producer_may_reuse_its_buffer():
    images = batch()

    def producer():
        buffer = np.empty_like(images[:1])
        for image in images:
            buffer[0] = image
            yield buffer
            buffer[:] = 0

    items = list(open_source(producer()))
    np.testing.assert_array_equal(np.stack([item.load() for item in items]), images)


def test_a_producer_may_close_its_pictures(tmp_path):
    for name, array in pictures().items():
        (tmp_path / name).write_bytes(encoded(array))

    def producer():
        for name in pictures():
            with Image.open(tmp_path / name) as image:
                yield image

    items = list(open_source(producer()))
    for item, array in zip(items, pictures().values(), strict=True):
        np.testing.assert_array_equal(item.load(), array)


def test_a_damaged_picture_of_a_producer_fails_in_its_turn():
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    elements = [Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data[:-900])), Image.open(io.BytesIO(data))]
    first, second, third = open_source(elements)
    assert first.load().shape == third.load().shape == (64, 64, 3)
    with pytest.raises(ImageError, match=r"^list: image 1: cannot be decoded"):
        second.load()


def test_callables():
    images = batch(8)
    calls = iter(range(100))

    def generate():
        i = next(calls)
        return images[2 * i : 2 * i + 2]

    source = open_source(generate, num=5)
    assert len(source) == 5
    np.testing.assert_array_equal(np.stack([item.load() for item in source]), images[:5])
    assert next(calls) == 3  # no call more than needed
    with pytest.raises(ValueError, match=r"generate: returns images for ever; say how many to take \(num=\)"):
        list(open_source(generate))

    def generator():
        yield from images

    assert len(list(open_source(generator))) == 8


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (42, "expected a folder, .* or callable that gives images; got int"),
        (None, "got NoneType"),
        ({"a": 1}, "got dict"),
        ({"a.png"}, "got set"),
        (b"x.png", "got bytes"),
    ],
)
def test_objects_that_are_no_source(obj, message):
    with pytest.raises(TypeError, match=message):
        open_source(obj)


def test_a_masked_array_is_no_source():
    with pytest.raises(TypeError, match=r"array: expected an array without a mask, got a masked array, uint8 of shape"):
        open_source(np.ma.MaskedArray(np.zeros((2, 4, 4, 3), np.uint8)))


@pytest.mark.parametrize(
    ("element", "error", "message"),
    [
        (
            {"picture": 1},
            TypeError,
            r"list: image 0: expected uint8 images, .*; got dict with 'picture' \(column= names the key of the images",
        ),
        (7, TypeError, "got int"),
        (np.zeros((4, 4, 3)), TypeError, "list: image 0: expected uint8 images with values 0..255, got float64"),
        (np.ma.MaskedArray(np.zeros((4, 4, 3), np.uint8), mask=True), TypeError, "list: image 0: .* without a mask"),
        (np.zeros((4, 4), np.uint8), ValueError, r"list: image 0: expected shape"),
        (np.zeros((3, 4, 3), np.uint8), ValueError, r"list: image 0: shape \(3, 4, 3\) has two axes of 3"),
    ],
)
def test_elements_that_are_no_images(element, error, message):
    with pytest.raises(error, match=message):
        list(open_source([element]))


def test_layout_of_elements():
    element = np.random.default_rng(SEED).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    (item,) = open_source([element], layout="nchw")
    np.testing.assert_array_equal(item.load(), element.transpose(1, 2, 0))
    with pytest.raises(ValueError, match="layout: expected 'nhwc' or 'nchw'; got 'hwc'"):
        open_source([element], layout="hwc")


# Subsets


def test_subsets_are_those_of_edm(folder):
    # edm's dataset: shuffle arange(n) with RandomState(seed), take the first, sort.
    index = np.arange(6, dtype=np.int64)
    np.random.RandomState(3).shuffle(index)
    expected = [f"{folder}/{i:03}.png" for i in np.sort(index[:4])]
    source = open_source(folder, num=4, seed=3)
    assert [item.name for item in source] == expected
    assert len(source) == 4
    assert [item.name for item in open_source(folder, num=6)] == [item.name for item in open_source(folder)]


def test_subsets_of_streams_are_their_beginning():
    source = open_source(iter(batch(8)), num=3, seed=5)
    assert len(list(source)) == 3
    assert len(source.notes) == 1
    assert "the first 3 are taken" in texts(source)[0]
    with pytest.raises(ValueError, match=r"num: 9 images were asked for, .* gave 8"):
        list(open_source(iter(batch(8)), num=9))


def test_impossible_subsets(folder):
    with pytest.raises(ValueError, match=rf"num: 7 images were asked for, {folder} has 6: ask for 6 at most"):
        open_source(folder, num=7)
    for num in (0, -1):
        with pytest.raises(ValueError, match="num: expected a positive number"):
            open_source(folder, num=num)
    with pytest.raises(ValueError, match="seed: expected 0 to"):
        open_source(folder, num=2, seed=-1)


def test_a_source_that_ends_before_its_length_is_said():
    class Short(ImageSource):
        name, notes = "short", ()

        def __len__(self):
            return 9

        def __iter__(self):
            return iter(open_source(batch(3)))

    with pytest.raises(ValueError, match="num: short ended before its 9 images, of which 8 were chosen"):
        list(SubsetSource(Short(), 8, 0))


def test_decoder_names_what_it_is_given():
    with pytest.raises(ImageError, match=r"^here: cannot be read as a picture"):
        Decoder().decode_bytes(b"nothing", "here")


class Exported:
    """An array of some other library."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype


class ByDLPack(Exported):
    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class ByArray(Exported):
    def __array__(self, dtype=None, copy=None):
        return self._array


class OnDevice(Exported):
    """As CuPy's arrays: no way to the host but an explicit one."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def get(self):
        return self._array


OnDevice.__module__ = "cupy"


@pytest.mark.parametrize("kind", [ByDLPack, ByArray, OnDevice])
@pytest.mark.parametrize("given", [(2, 6, 6, 3), (5, 6, 6, 3), (4, 6, 5, 3), (4, 3, 6, 6), (4, 108)])
def test_an_array_gives_the_images_that_its_shape_says(kind, given):
    array = kind(np.zeros(given, np.uint8))
    array.shape = (4, 6, 6, 3)
    with pytest.raises(ValueError, match=r"array: has shape \(4, 6, 6, 3\), but gives values of shape") as error:
        open_source(array)
    assert str(error.value).endswith(str(given))


def test_an_array_gives_the_dtype_that_it_says():
    array = ByArray(np.full((4, 6, 6, 3), 0.5))
    array.dtype = np.dtype(np.uint8)
    with pytest.raises(TypeError, match=r"expected uint8 images with values 0\.\.255, got float64"):
        open_source(array)


@pytest.mark.parametrize("kind", [ByDLPack, ByArray, OnDevice])
def test_arrays_of_other_libraries(kind):
    images = batch()
    assert_batch(open_source(kind(images)), images)
    np.testing.assert_array_equal(
        np.stack([i.load() for i in open_source([kind(images), kind(images[0])])])[:5], images
    )
    with pytest.raises(TypeError, match=r"expected uint8 images with values 0..255, got float64"):
        open_source(kind(images.astype(float)))


def test_joined_tars_are_not_read_by_half(tmp_path, folder):
    parts = []
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in sorted(folder.iterdir())[:2]:
                archive.add(path, f"{number}/{path.name}")
        parts.append((tmp_path / f"{number}.tar").read_bytes())
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"both\.tar: .*more follows the end of the archive"):
        open_source(tmp_path / "both.tar")
    assert len(open_source(str(tmp_path / "[01].tar"))) == 4


def test_statistics_are_no_images(tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ValueError, match=r"s\.npz: holds statistics \(mu, sigma\), which cannot be used as images"):
        open_source(tmp_path / "s.npz")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_last_of_a_repeated_name_counts(tmp_path, kind):
    """As unpacking leaves it: `tar -r` and zips that are written to again repeat names."""
    path = tmp_path / f"a.{kind}"
    shades = [("b.png", 1), ("a.png", 2), ("b.png", 3), ("c.png", 4), ("b.png", 5)]
    data = {shade: encoded(np.full((4, 4, 3), shade, np.uint8)) for _, shade in shades}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's own
            for name, shade in shades:
                archive.writestr(name, data[shade])
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, shade in shades:
                info = tarfile.TarInfo(name)
                info.size = len(data[shade])
                archive.addfile(info, io.BytesIO(data[shade]))
    source = open_source(path)
    assert len(source) == 3
    found = {item.name.rpartition("/")[2]: int(item.load()[0, 0, 0]) for item in source}
    assert found == {"a.png": 2, "b.png": 5, "c.png": 4}
    assert any("2 pictures are replaced by later ones of the same name" in note for note in texts(source))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("deep.png", np.full((4, 4), 3000, np.uint16), "has more than 8 bits a pixel"),
        ("float.tif", np.full((4, 4), 99.5, np.float32), "is a float picture .* values below 1 become black"),
    ],
)
def test_pictures_of_more_than_8_bits_are_said_once(tmp_path, name, values, said):
    for i in range(3):
        Image.fromarray(values).save(tmp_path / f"{i}{name}")
    items = list(open_source(tmp_path))
    with pytest.warns(SuspiciousInputWarning, match=rf"0{name}: {said}") as caught:
        [item.load() for item in items]
    assert len(caught) == 1
