"""Valid input in other forms than fastfid's: it is read, or one sentence states how to convert it."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from stubs import GridMeans
from tolerances import SINGULAR_FROM_FILE

from fastfid import FID, FeatureExtractor, InceptionV3, Statistics, compute_fid, compute_statistics, frechet_distance
from fastfid._checks import check_device
from fastfid._progress import show_progress
from fastfid.errors import FastfidWarning, ImageError, SkippedImagesWarning
from fastfid.features import session
from fastfid.features.weights import describe, find_weights
from fastfid.features.weights.known import FIDELITY_NAME, OFFICIAL_NAME
from fastfid.sources import open_source


def images(n, seed, low=0, high=256, size=(9, 11)):
    return np.random.default_rng(seed).integers(low, high, (n, *size, 3), dtype=np.uint8)


def folder(path, n, seed, name="{:04}.png"):
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images(n, seed)):
        Image.fromarray(image).save(path / name.format(i))
    return path


def loaded(source):
    return np.stack([item.load() for item in source])


def png(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", **options)
    return buffer.getvalue()


# Pictures


@pytest.mark.parametrize("is_compressed", [True, False])
@pytest.mark.parametrize("exif", [True, False])
def test_long_texts_in_a_png(tmp_path, is_compressed, exif):
    (image,) = images(1, 1)
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 80_000_000 if is_compressed else "x" * 3_000_000, zip=is_compressed)
    info.add_itxt("prompt", "y" * 3_000_000, zip=is_compressed)
    (tmp_path / "x.png").write_bytes(png(image, pnginfo=info))
    np.testing.assert_array_equal(loaded(open_source(tmp_path, exif=exif))[0], image)


def test_an_orientation_in_a_text_of_a_png_still_counts(tmp_path):
    (image,) = images(1, 1)
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    (tmp_path / "x.png").write_bytes(png(image, pnginfo=info))
    np.testing.assert_array_equal(loaded(open_source(tmp_path))[0], image)
    np.testing.assert_array_equal(loaded(open_source(tmp_path, exif=True))[0], np.rot90(image, -1))


def test_the_limit_of_pixels_can_be_raised_above_pillows_own(tmp_path):
    folder(tmp_path / "a", 3, 1)
    Image.new("1", (14_000, 14_000), 1).save(tmp_path / "a" / "large.png")  # 196 million pixels in 50 KB
    source = open_source(tmp_path / "a", max_pixels=300_000_000)
    assert list(source)[-1].load().shape == (14_000, 14_000, 3)
    command = [sys.executable, "-m", "fastfid", "stats", tmp_path / "a", "-o", tmp_path / "s.npz", "--dims", "64"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "declares 14000 x 14000 pixels; at most 89478485 are decoded (--max-pixels" in done.stderr


# Arrays


class Foreign:
    """An array of a library whose dtypes print with a prefix, as TensorFlow's do."""

    def __init__(self, array):
        self._array = array
        self.shape = array.shape
        self.dtype = types.SimpleNamespace()
        self.dtype = type("DType", (), {"__str__": lambda _: f"<dtype: '{array.dtype}'>"})()

    def __array__(self, dtype=None, copy=None):
        return self._array


def test_arrays_of_libraries_with_other_names_of_dtypes():
    array = images(4, 1)
    np.testing.assert_array_equal(loaded(open_source(Foreign(array))), array)
    np.testing.assert_array_equal(loaded(open_source([Foreign(array)])), array)
    metric = FID(extractor=GridMeans())
    metric.update(Foreign(array), real=True)
    assert metric.real.n == 4
    with pytest.raises(TypeError, match=r"expected uint8 images with values 0\.\.255, got int32"):
        open_source(Foreign(array.astype(np.int32)))


@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (-1.0, 3.0), (0, 255)])
def test_float_images_with_their_range(tmp_path, value_range):
    low, high = value_range
    expected = images(5, 1)
    floats = (expected / 255 * (high - low) + low).astype(np.float32)
    np.save(tmp_path / "x.npy", floats)
    np.savez(tmp_path / "x.npz", samples=floats.transpose(0, 3, 1, 2))
    for source, options in (
        (floats, {}),
        (floats.transpose(0, 3, 1, 2), {}),
        (torch.from_numpy(floats), {}),
        (list(floats), {}),
        (tmp_path / "x.npy", {}),
        (tmp_path / "x.npz", {"key": "samples"}),
    ):
        np.testing.assert_array_equal(loaded(open_source(source, value_range=value_range, **options)), expected)
    np.testing.assert_array_equal(loaded(open_source(expected, value_range=value_range)), expected)


def test_half_precision_with_its_range():
    floats = torch.from_numpy(images(5, 1) / 255.0)
    for dtype in (torch.float16, torch.bfloat16):
        got = loaded(open_source(floats.to(dtype), value_range=(0, 1)))
        expected = (floats.to(dtype).double() * 255).round().numpy()
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("bad", [1.02, -0.01, np.nan, np.inf])
def test_float_images_outside_of_their_range(bad):
    floats = (images(3, 1) / 255).astype(np.float32)
    floats[1, 2, 3, 0] = bad
    with pytest.raises(ValueError, match=r"^array\[1\]: has (values from .* outside of|NaN or infinite values)"):
        compute_statistics(floats, value_range=(0, 1), extractor=GridMeans())
    floats[1, 2, 3, 0] = 1.0005  # rounds to 255
    assert loaded(open_source(floats, value_range=(0, 1)))[1, 2, 3, 0] == 255


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0,), "01", (0, np.nan), (0, np.inf), 1])
def test_ranges_that_are_none(value_range):
    with pytest.raises(ValueError, match="value_range: expected"):
        open_source(images(3, 1), value_range=value_range)


@pytest.mark.parametrize(
    ("low", "high", "how"),
    [
        (0, 1, r"value_range=\(0, 1\), or \(x \* 255\)\.round\(\)"),
        (-1, 1, r"value_range=\(-1, 1\), or \(\(x \+ 1\) \* 127\.5\)\.round\(\)"),
        (0, 255, r"value_range=\(0, 255\), or x\.round\(\)"),
    ],
)
def test_the_way_to_convert_fits_the_values(low, high, how):
    floats = np.linspace(low, high, 2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    with pytest.raises(TypeError, match=how + r"\.clip\(0, 255\)\.astype\('uint8'\)"):
        open_source(floats)
    with pytest.raises(TypeError, match=how + r"\.clamp\(0, 255\)\.to\(torch\.uint8\)"):
        open_source(torch.from_numpy(floats))


def test_the_way_to_convert_is_right():
    """What the message of [-1, 1] says is what value_range does."""
    x = np.linspace(-1, 1, 2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    pasted = ((x + 1) * 127.5).round().clip(0, 255).astype("uint8")
    # None of these values lies half way between two levels, nor within 1/478 of it.
    np.testing.assert_array_equal(loaded(open_source(x, value_range=(-1, 1))), pasted)


# Datasets, loaders, tables


def test_datasets_of_torch():
    tensors = torch.from_numpy(images(7, 1)).permute(0, 3, 1, 2)
    dataset = torch.utils.data.TensorDataset(tensors)
    np.testing.assert_array_equal(loaded(open_source(dataset)), images(7, 1))
    expected = compute_statistics(tensors, extractor=GridMeans())
    got = compute_statistics(dataset, extractor=GridMeans())
    np.testing.assert_array_equal(got.mu, expected.mu)
    loader = torch.utils.data.DataLoader(dataset, batch_size=3)
    np.testing.assert_array_equal(loaded(open_source(loader)), images(7, 1))


def test_labelled_datasets_and_loaders_are_read_or_say_the_way():
    tensors = torch.from_numpy(images(4, 1)).permute(0, 3, 1, 2)
    labelled = torch.utils.data.TensorDataset(tensors, torch.arange(4))
    pictures = [(Image.fromarray(image), 3) for image in images(4, 1)]
    for source in (labelled, torch.utils.data.DataLoader(labelled, batch_size=2), pictures):
        np.testing.assert_array_equal(loaded(open_source(source)), images(4, 1))
    attributes = torch.utils.data.TensorDataset(tensors, torch.rand(4, 5))
    loader = torch.utils.data.DataLoader(attributes, batch_size=2)
    for source in (attributes, loader):
        with pytest.raises(TypeError, match=r"pass the images alone, as in \(x\[0\] for x in loader\)"):
            loaded(open_source(source))
    batches = (batch[0] for batch in loader)
    assert len(loaded(open_source(batches))) == 4


def test_encoded_pictures(tmp_path):
    array = images(4, 1)
    encoded = [png(image) for image in array]
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path, data in zip(paths, encoded, strict=True):
        with open(path, "wb") as file:
            file.write(data)
    for source in (
        encoded,
        [io.BytesIO(data) for data in encoded],
        [bytearray(data) for data in encoded],
        [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(encoded)],
        iter([{"bytes": data, "path": None} for data in encoded]),
        [{"bytes": None, "path": path} for path in paths],
    ):
        np.testing.assert_array_equal(loaded(open_source(source)), array)
    with pytest.raises(ValueError, match=r"^train/7\.png: cannot be read as a picture"):
        loaded(open_source([{"bytes": b"junk", "path": "train/7.png"}]))
    with pytest.raises(ValueError, match=r"bytes; at most \d+ are read"):
        loaded(open_source([io.BytesIO(bytes(2**21))], max_pixels=1))


@pytest.mark.parametrize("nothing", [[], np.empty((0, 8, 8, 3), np.uint8)])
def test_a_callable_that_returns_nothing_ends(nothing):
    unknown = pytest.warns(FastfidWarning, match="the number of images is not known beforehand")
    with unknown, pytest.raises(ValueError, match="returned no images"):
        compute_fid(images(4, 1), lambda: nothing, num=4, extractor=GridMeans())


# Patterns and lists


def test_patterns_of_pictures(tmp_path):
    expected = {}
    for kind, seed in (("real_B", 1), ("fake_B", 2)):
        folder(tmp_path, 4, seed, f"{{:04}}_{kind}.png")
        expected[kind] = images(4, seed)
    (tmp_path / "0000_fake_B.txt").touch()
    for kind, array in expected.items():
        np.testing.assert_array_equal(loaded(open_source(tmp_path / f"*_{kind}.png")), array)
        np.testing.assert_array_equal(loaded(open_source(tmp_path, match=f"*_{kind}.png")), array)
    source = open_source(tmp_path / "*_fake_B.*")
    assert len(source) == 4
    assert [str(note) for note in source.notes] == [f"{tmp_path}/*_fake_B.*: 1 other file not read (.txt)"]
    assert list(source.files()) == sorted(str(path) for path in tmp_path.glob("*_fake_B.png"))
    real, fake = (tmp_path / f"*_{kind}.png" for kind in ("real_B", "fake_B"))
    assert compute_fid(real, fake, extractor=GridMeans()) == compute_fid(
        expected["real_B"], expected["fake_B"], extractor=GridMeans()
    )


def test_patterns_inside_archives(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i, image in enumerate(images(4, 1)):
            for name in (f"a/{i}.input.png", f"b/{i}.output.png"):
                data = png(image if "input" in name else 255 - image)
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    np.testing.assert_array_equal(loaded(open_source(tmp_path / "x.tar", match="*.input.png")), images(4, 1))
    np.testing.assert_array_equal(loaded(open_source(tmp_path / "x.tar", match="a/*")), images(4, 1))
    source = open_source(tmp_path / "x.tar", match="b/*")
    assert [str(note) for note in source.notes] == [f"{tmp_path}/x.tar: 4 pictures not read, as --match b/* asks"]
    with pytest.raises(ValueError, match=r"no images found .* 8 pictures not read, as --match nothing asks"):
        open_source(tmp_path / "x.tar", match="nothing")


def test_lists_of_folders_and_archives(tmp_path):
    a, b = folder(tmp_path / "a", 3, 1), folder(tmp_path / "b", 4, 2)
    shutil.make_archive(str(tmp_path / "c"), "zip", folder(tmp_path / "c", 2, 3))
    whole = np.concatenate([images(3, 1), images(4, 2), images(2, 3)])
    source = open_source([a, str(b), tmp_path / "c.zip"])
    np.testing.assert_array_equal(loaded(source), whole)
    assert source.name == f"{a} + {b} + {tmp_path}/c.zip"
    np.testing.assert_array_equal(loaded(open_source([tmp_path / "[ab]"])), whole[:7])
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        open_source([a, tmp_path / "nowhere"])
    pictures = sorted(a.iterdir())
    np.testing.assert_array_equal(loaded(open_source(pictures)), images(3, 1))
    np.testing.assert_array_equal(loaded(open_source([*pictures, b])), whole[:7])
    with pytest.warns(SkippedImagesWarning, match=r"skipped 1 unreadable images: .*missing\.png \(No such file"):
        compute_statistics([*pictures, a / "missing.png"], extractor=GridMeans(), on_error="skip")
    with pytest.raises(ImageError, match=r"missing\.png: No such file"):
        compute_statistics([*pictures, a / "missing.png"], extractor=GridMeans())


def test_keys_of_npz(tmp_path):
    np.savez(tmp_path / "x.npz", samples=images(4, 1), labels=np.arange(4))
    np.testing.assert_array_equal(loaded(open_source(tmp_path / "x.npz", key="samples")), images(4, 1))
    with pytest.raises(ValueError, match=r"it holds samples, labels; --key samples or key='samples' reads"):
        open_source(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"expected images under other"):
        open_source(tmp_path / "x.npz", key="other")
    np.savez(tmp_path / "both.npz", images(4, 1), mu=np.zeros(12), sigma=np.eye(12))
    np.savez(tmp_path / "odd.npz", images=images(4, 1), sigma=np.zeros(4))
    for name, key in (("both.npz", "arr_0"), ("odd.npz", "images")):
        statistics = compute_statistics(tmp_path / name, key=key, extractor=GridMeans())
        assert statistics.n == 4
    assert compute_statistics(tmp_path / "both.npz", extractor=GridMeans()).n is None


def test_statistics_in_pickles_say_how_to_convert(tmp_path):
    np.save(tmp_path / "x.npy", {"mu": np.zeros(3), "sigma": np.eye(3)}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"holds Python objects .*numpy\.savez\(\"statistics\.npz\", \*\*numpy\.load"):
        open_source(tmp_path / "x.npy")
    (tmp_path / "x.pkl").touch()
    with pytest.raises(ValueError, match=r"x\.pkl: is a pickle, which is not read .*numpy\.savez"):
        open_source(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "pattern", ["x-{000000..999999}-{000..999}.tar", "{" + "," * 1_000_001 + "}.tar", "x-{0..99999999999}.tar"]
)
def test_brace_lists_of_too_many_files(pattern):
    with pytest.raises(ValueError, match="a brace list of more than a million files"):
        open_source(pattern)


def test_long_brace_lists_are_expanded_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / ("{" + "," * 30_000))
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / ("{" * 2000 + "}" * 2000))


# Devices, threads, weights, stderr


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0, "cuda:0"),
        (np.int64(3), "cuda:3"),
        ("1", "cuda:1"),
        (torch.device("cuda", 2), "cuda:2"),
        (torch.device("cpu"), "cpu"),
        ("auto", "auto"),
    ],
)
def test_names_of_devices(device, name):
    assert check_device(device) == name


def test_a_device_by_number_is_asked_for_by_name():
    from fastfid import BackendUnavailable
    from fastfid.compat.pytorch_fid.fid_score import calculate_fid_given_paths

    with pytest.raises(BackendUnavailable, match="device 'cuda:0'"):
        InceptionV3(64, device=0)
    with pytest.raises((BackendUnavailable, RuntimeError), match=r"device 'cuda:0'|Invalid path"):
        calculate_fid_given_paths(["real", "fake"], 6, 0, 64)


@pytest.mark.parametrize(
    ("rank", "devices", "expected"),
    [(None, 8, 0), ("0", 8, 0), ("5", 8, 5), ("9", 8, 1), ("x", 8, 0), ("", 8, 0), ("3", 1, 0)],
)
def test_each_rank_has_a_device_of_its_own(monkeypatch, rank, devices, expected):
    monkeypatch.setattr(session._core, "cuda_driver", lambda: (devices, ""))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    for device in ("auto", "cuda"):
        assert session.choose_device(device) == f"cuda:{expected}"
    assert session.choose_device("cuda:0") == "cuda:0"


def test_torchs_current_device_comes_first(monkeypatch):
    monkeypatch.setattr(session._core, "cuda_driver", lambda: (8, ""))
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert session.choose_device("auto") == "cuda:2"


CHOICE = "from fastfid import _core; print(_core.num_threads(), _core.threads_source())"


def threads_chosen(environment):
    names = ("OMP_NUM_THREADS", "FASTFID_NUM_THREADS", "LOCAL_WORLD_SIZE")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", CHOICE], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    number, _, source = done.stdout.strip().partition(" ")
    return int(number), source


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, (1, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "5,2"}, (5, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "3", "FASTFID_NUM_THREADS": "2"}, (2, "FASTFID_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}, (1, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "4", "LOCAL_WORLD_SIZE": "8"}, (4, "OMP_NUM_THREADS")),
        # torchrun's default is not a wish.
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1000"}, (1, "the CPUs / LOCAL_WORLD_SIZE")),
    ],
)
def test_what_decides_the_number_of_threads(environment, expected):
    assert threads_chosen(environment) == expected


def test_processes_of_one_machine_share_its_cpus():
    cpus, source = threads_chosen({})
    assert source == "the CPUs"
    shared = (max(1, cpus // 2), "the CPUs / LOCAL_WORLD_SIZE")
    assert threads_chosen({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}) == shared
    for impossible in ({"OMP_NUM_THREADS": "many"}, {"LOCAL_WORLD_SIZE": "-1"}, {"OMP_NUM_THREADS": "0"}):
        assert threads_chosen(impossible) == (cpus, source)


@pytest.mark.parametrize("name", [OFFICIAL_NAME, FIDELITY_NAME])
@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_weights_that_other_tools_have_fetched(tmp_path, monkeypatch, weights, name, variable):
    below = {"TORCH_HOME": "", "XDG_CACHE_HOME": "torch", "HOME": ".cache/torch"}[variable]
    for each in ("TORCH_HOME", "XDG_CACHE_HOME", "FASTFID_WEIGHTS"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv(variable, str(tmp_path))
    checkpoints = tmp_path / below / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(weights.content)
    found = find_weights(fetch=False)
    assert found.path == checkpoints / name
    assert found.identity == weights.identity
    assert str(checkpoints / name) in describe()


def test_other_weights_of_that_name_are_passed_over(tmp_path, monkeypatch, capsys):
    from fastfid import WeightsError

    monkeypatch.delenv("FASTFID_WEIGHTS", raising=False)
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / OFFICIAL_NAME).write_bytes(b"junk")
    with pytest.raises(WeightsError, match="are not in the cache"):
        find_weights(fetch=False)
    assert f"{OFFICIAL_NAME}: not a file of Inception weights" in capsys.readouterr().err


def test_the_steps_to_weights_are_lines_that_can_be_copied(tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "https_proxy": "http://127.0.0.1:9",  # nobody listens there
    }
    folder(tmp_path / "a", 4, 1)
    command = [sys.executable, "-m", "fastfid", "stats", "a", "-o", "s.npz", "--dims", "64"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "fastfid: error: the Inception weights are not here and cannot be fetched." in lines
    assert f"  curl -LO https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{OFFICIAL_NAME}" in lines
    assert "\\x0a" not in done.stderr


class ToLogger:
    def write(self, text):
        pass

    def flush(self):
        pass


@pytest.mark.parametrize("stderr", [ToLogger(), None])
@pytest.mark.parametrize("progress", ["auto", True, False, "lines"])
def test_stderr_that_is_no_file(monkeypatch, stderr, progress):
    expected = compute_fid(images(30, 1), images(30, 2), extractor=GridMeans())
    monkeypatch.setattr(sys, "stderr", stderr)
    assert compute_fid(images(30, 1), images(30, 2), extractor=GridMeans(), progress=progress) == expected


def test_progress_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr("fastfid._progress.INTERVAL_S", 0.0)
    compute_statistics(images(30, 1), extractor=GridMeans(), progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 10
    assert lines[0].startswith("fastfid: array: 2 of 30 img (7%), ")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("fastfid: array: 30 img in 0:0")
    compute_statistics(iter(images(30, 1)), extractor=GridMeans(), progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"fastfid: .*: 2 img, [\d.]+ img/s", lines[0])


def test_progress_of_work_that_fails(monkeypatch, capsys):
    monkeypatch.setattr("fastfid._progress.INTERVAL_S", 0.0)

    def work():
        with show_progress(4, "lines", "first") as bar:
            bar.set_description("second")
            bar.update(1)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        work()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastfid: second: 1 of 4 img (25%)")


# Extractors


def test_an_extractor_that_is_none():
    class Bare(FeatureExtractor):
        dims = 3

        def prepare(self, image):
            return image

        def forward(self, batch):
            return batch

    for call in (
        lambda extractor: compute_fid(images(4, 1), images(4, 2), extractor=extractor),
        lambda extractor: compute_statistics(images(4, 1), extractor=extractor),
        lambda extractor: FID(extractor=extractor),
    ):
        with pytest.raises(
            TypeError, match=r"expected a fastfid\.FeatureExtractor, got str 'dino\.onnx'; fastfid\.OnnxExtractor"
        ):
            call("dino.onnx")
        with pytest.raises(TypeError, match="extractor: Bare lacks identity, protocol, precision, device, batch_size"):
            call(Bare())


# Dims and protocol of statistics


def test_dims_and_protocol_come_from_the_statistics(tmp_path, weights):
    folder(tmp_path / "a", 5, 1)
    folder(tmp_path / "b", 5, 2)
    real = compute_statistics(tmp_path / "a", dims=64, protocol="clean").save(tmp_path / "real.npz")
    expected = compute_fid(tmp_path / "a", tmp_path / "b", dims=64, protocol="clean")
    with pytest.warns(UserWarning, match=r"images are read with 64 dims and protocol clean, as .*real\.npz was made"):
        assert compute_fid(real, tmp_path / "b") == pytest.approx(expected, abs=SINGULAR_FROM_FILE)
    adopted = pytest.warns(FastfidWarning, match="images are read with 64 dims, as")
    refused = pytest.raises(ValueError, match=r"pass --protocol clean \(protocol='clean'\), or --force \(force=True\)")
    with adopted, refused:
        compute_fid(real, tmp_path / "b", protocol="pytorch-fid", weights="never looked for")
    with pytest.raises(ValueError, match="has 64 dims, but 192 are asked for: leave out --dims"):
        compute_fid(real, tmp_path / "b", dims=192)
    odd = Statistics(np.zeros(5), np.eye(5), 10, name="five.npz")
    with pytest.raises(ValueError, match=r"five\.npz has 5 dims; the layers of the Inception network have 64, 192"):
        compute_fid(odd, tmp_path / "b")


def test_a_refusal_names_no_option_that_does_not_help(tmp_path):
    folder(tmp_path / "b", 5, 2)
    meta = {"protocol": "224x224", "extractor": "another", "precision": "float32"}
    other = Statistics(np.zeros(768), np.eye(768), 1000, meta, name="vit.npz")
    grid = GridMeans(cells=16)  # 768 dims too; its protocol is its own, whatever --protocol says
    with pytest.raises(ValueError, match=r"vit\.npz was made with extractor another, .*: give that extractor too"):
        compute_fid(other, tmp_path / "b", weights="never looked for")
    with pytest.raises(ValueError, match=r"with protocol 224x224, .* has none: pass --force \("):
        compute_fid(other, tmp_path / "b", extractor=grid)


def test_reprs_fit_one_line(weights):
    statistics = Statistics(np.zeros(3), np.eye(3), 10, {"protocol": "clean"}, name="x.npz")
    assert repr(statistics) == "Statistics(d=3, n=10, protocol='clean', name='x.npz')"
    metric = FID(dims=64)
    assert repr(metric) == "FID(dims=64, protocol='pytorch-fid', real=0, fake=0)"
    metric.update(images(3, 1), real=True)
    assert repr(metric) == "FID(dims=64, protocol='pytorch-fid', real=3, fake=0)"
    assert repr(metric.extractor) == "InceptionV3(dims=64, protocol='pytorch-fid', device='cpu', precision='float32')"
    assert frechet_distance(statistics, statistics) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_rang": (0, 1)}, "unexpected keyword arguments: value_rang; did you mean value_range?"),
        ({"match": 3}, "match: expected a pattern, got 3"),
    ],
)
def test_keywords_that_are_none(tmp_path, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        compute_statistics(folder(tmp_path / "a", 3, 1), extractor=GridMeans(), **options)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"'a\\x00b': has a null character"):
        open_source("a\0b")
    with pytest.raises(ValueError, match=r"a\\x00\.png.*null"):
        loaded(open_source(["a\0.png"]))
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png: cannot be read as a picture \(it is empty\)"):
        loaded(open_source(tmp_path))


def test_an_own_pillow_image_may_be_of_any_format_that_starts_nothing():
    buffer = io.BytesIO()
    Image.fromarray(images(1, 1, size=(32, 32))[0]).save(buffer, "ICO", sizes=[(32, 32)])
    with Image.open(buffer) as icon:
        assert loaded(open_source([icon])).shape == (1, 32, 32, 3)


def test_a_known_file_is_told_by_size_and_time(tmp_path):
    """Some network file systems give one file another inode at each look."""
    from fastfid._files import KnownFile

    path = tmp_path / "x"
    path.write_bytes(b"12345")
    known = KnownFile(str(path))
    status = path.stat()
    copy = shutil.copy2(path, tmp_path / "y")
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(copy, path)
    assert path.stat().st_ino != status.st_ino
    with known.open() as file:
        assert file.read() == b"12345"
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="has changed since it was listed"):
        known.open()


def test_a_leased_file_is_waited_for(tmp_path, monkeypatch):
    """Opening without waiting fails where another machine holds a lease (Samba, NFS)."""
    from fastfid import _files

    path = tmp_path / "x.npy"
    np.save(path, images(2, 1))
    real, flags_seen = os.open, []

    def leased(name, flags, *rest):
        if os.fspath(name) == str(path):
            flags_seen.append(flags)
            if flags & os.O_NONBLOCK:
                raise BlockingIOError(11, "Resource temporarily unavailable", str(path))
        return real(name, flags, *rest)

    monkeypatch.setattr(_files.os, "open", leased)
    assert loaded(open_source(path)).shape == (2, 9, 11, 3)
    assert any(not flags & os.O_NONBLOCK for flags in flags_seen)
    path.unlink()
    os.mkfifo(path)
    flags_seen.clear()
    with pytest.raises(BlockingIOError, match="temporarily unavailable"):
        _files.open_regular(path)
    assert len(flags_seen) == 1  # a pipe that has no writer would be waited for without an end


def test_nothing_is_left_open(tmp_path):
    """Python's own check for files that were not closed."""
    np.save(tmp_path / "x.npy", images(3, 1))
    shutil.make_archive(str(tmp_path / "x"), "zip", folder(tmp_path / "a", 3, 1))
    shutil.make_archive(str(tmp_path / "x"), "tar", tmp_path / "a")
    script = "import gc, sys; from fastfid.sources import open_source\n"
    script += "for path in sys.argv[1:]:\n    [item.load() for item in open_source(path)]\n    gc.collect()"
    paths = [str(tmp_path / f"x.{suffix}") for suffix in ("npy", "zip", "tar")]
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", script, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "unclosed" not in done.stderr
