"""The pipeline: equal bits for any batching, order of outputs and errors, bounded look-ahead, and a clean end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans
from terminal import on_terminal

from fastfid.errors import ImageError
from fastfid.features.joint import JointExtractor
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source
from fastfid.sources.base import ImageItem, ImageSource

SEED = 20261122


def write_pictures(folder, n=25):
    rng = np.random.default_rng(SEED)
    for i in range(n):
        array = rng.integers(0, 256, (8 + i % 5, 9 + i % 7, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


class Extractor(GridMeans):
    """GridMeans with a configurable batch size and concurrency."""

    def __init__(self, batch_size=2, concurrency=1):
        super().__init__()
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.threads = set()
        self.sizes = []

    def forward(self, batch):
        self.threads.add(threading.current_thread().name)
        self.sizes.append(len(batch))
        return super().forward(batch)


class InPlace(Extractor):
    """Has its inputs written into batches, and records which batches it got as they were made."""

    input_shape = (12,)

    def forward(self, batch):
        assert batch.dtype == np.float32
        # A stacked copy has no base and no room beyond its rows.
        self.threads.add("made" if batch.base is not None and len(batch.base) == self.batch_size else "copied")
        self.sizes.append(len(batch))
        return np.array(batch)


class Item(ImageItem):
    def __init__(self, index, load):
        self.name = f"picture {index}"
        self._index = index
        self._load = load

    def load(self):
        return self._load(self._index)


class Source(ImageSource):
    """Pictures made by a function; records how far it has been read."""

    def __init__(self, n, load):
        self.name = "made"
        self.notes = []
        self._n = n
        self._load = load
        self.given = 0

    def __len__(self):
        return self._n

    def __iter__(self):
        for i in range(self._n):
            self.given = i + 1
            yield Item(i, self._load)


def picture(i):
    return np.full((4, 4, 3), i % 256, np.uint8)


def features_of(source, extractor=None, **options):
    rows = []
    report = extract(source, extractor or Extractor(), only_features(rows.append), **options)
    assert report.n == sum(len(r) for r in rows)
    return np.concatenate(rows) if rows else np.empty((0, 12), np.float32), report


def no_threads_left():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastfid-")] == []


@pytest.mark.parametrize("num_workers", [None, 0, 1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 25, 64])
@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_features_do_not_depend_on_how_the_work_is_cut(folder, num_workers, batch_size, concurrency):
    stub = GridMeans()
    expected = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            expected.append(stub.prepare(np.asarray(image.convert("RGB"))))
    extractor = Extractor(batch_size, concurrency)
    got, report = features_of(open_source(folder), extractor, num_workers=num_workers)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.stack(expected))
    assert report.n == 25
    assert report.skipped == []
    size = min(batch_size, -(-25 // concurrency))
    assert sorted(extractor.sizes, reverse=True) == [size] * (25 // size) + [25 % size] * (25 % size > 0)
    assert no_threads_left()


def test_where_the_network_runs(folder):
    extractor = Extractor()
    features_of(open_source(folder), extractor)
    assert extractor.threads == {threading.current_thread().name}
    extractor = Extractor(concurrency=3)
    features_of(open_source(folder), extractor)
    assert extractor.threads <= {f"fastfid-network-{i}" for i in range(3)}


def test_runs_of_the_network_overlap():
    class Meeting(Extractor):
        barrier = threading.Barrier(3)

        def forward(self, batch):
            self.barrier.wait(timeout=30)  # passes only while three runs are under way
            return super().forward(batch)

    got, _ = features_of(Source(18, picture), Meeting(batch_size=2, concurrency=3))
    np.testing.assert_array_equal(got[:, 0], np.arange(18))


def test_order_is_the_sources_whatever_the_timing():
    rng = np.random.default_rng(SEED)
    delays = rng.uniform(0, 0.01, 60)

    def load(i):
        time.sleep(delays[i])
        return picture(i)

    class Uneven(Extractor):
        def forward(self, batch):
            time.sleep(delays[int(batch[0, 0])])
            return super().forward(batch)

    got, _ = features_of(Source(60, load), Uneven(batch_size=3, concurrency=3), num_workers=8)
    np.testing.assert_array_equal(got[:, 0], np.arange(60))


@pytest.mark.parametrize(("num_workers", "batch_size", "concurrency"), [(0, 1, 1), (1, 1, 1), (4, 8, 1), (2, 4, 3)])
def test_look_ahead_is_bounded(num_workers, batch_size, concurrency):
    source = Source(400, picture)
    consumed = 0
    furthest = 0

    def consume(features):
        nonlocal consumed, furthest
        consumed += len(features)
        furthest = max(furthest, source.given - consumed)

    extract(source, Extractor(batch_size, concurrency), only_features(consume), num_workers=num_workers)
    assert consumed == 400
    prepared = batch_size * (concurrency + 1) + 2 * num_workers
    running = 2 * concurrency * batch_size if concurrency > 1 else 0
    assert furthest <= prepared + running + batch_size


def test_decoding_overlaps_with_the_network():
    decoded = threading.Event()

    def load(i):
        if i == 4:
            decoded.set()
        return picture(i)

    class Waiting(Extractor):
        def forward(self, batch):
            assert decoded.wait(timeout=30)  # the first run sees later pictures being decoded
            return super().forward(batch)

    features_of(Source(8, load), Waiting(batch_size=2), num_workers=1)


# Errors


def broken_at(*bad, slow=()):
    def load(i):
        if i in slow:
            time.sleep(0.05)
        if i in bad:
            raise ImageError(f"picture {i}: cannot be read")
        return picture(i)

    return load


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_first_unreadable_image_in_order_is_raised(num_workers, concurrency):
    # Number 7 fails long before number 6 does.
    source = Source(40, broken_at(6, 7, 20, slow=(6,)))
    with pytest.raises(ImageError, match=r"^picture 6: cannot be read$"):
        features_of(source, Extractor(concurrency=concurrency), num_workers=num_workers)
    assert no_threads_left()


@pytest.mark.parametrize("num_workers", [0, 3])
def test_skipping(num_workers):
    source = Source(30, broken_at(0, 6, 7, 29))
    got, report = features_of(source, Extractor(4), num_workers=num_workers, on_error="skip")
    assert report.n == 26
    assert report.skipped == [(f"picture {i}", "cannot be read") for i in (0, 6, 7, 29)]
    np.testing.assert_array_equal(got[:, 0], [i for i in range(30) if i not in (0, 6, 7, 29)])
    features_of(Source(30, broken_at(0, 6, 7, 29)), on_error="skip", max_errors=4)
    message = (
        r"^picture 0 \(cannot be read\); picture 6 \(cannot be read\); picture 7 \(cannot be read\); \.\.\.:"
        r" 4 unreadable images, at most 3 are accepted$"
    )
    with pytest.raises(ImageError, match=message):
        features_of(Source(30, broken_at(0, 6, 7, 29)), on_error="skip", max_errors=3)
    with pytest.raises(
        ImageError, match=r"^picture 0 \(cannot be read\): 1 unreadable images, at most 0 are accepted$"
    ):
        features_of(Source(30, broken_at(0, 6)), on_error="skip", max_errors=0)


def test_everything_skipped():
    got, report = features_of(Source(3, broken_at(0, 1, 2)), on_error="skip")
    assert len(got) == report.n == 0
    assert len(report.skipped) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ValueError("too small"), ValueError, "^picture 3: too small$"),
        (TypeError("not so"), TypeError, "^picture 3: not so$"),
        (MemoryError(), MemoryError, "^picture 3: not enough memory$"),
        (KeyError("x"), RuntimeError, "^picture 3: KeyError: 'x'$"),
    ],
)
def test_a_failing_worker_names_its_image(num_workers, on_error, error, raised, message):
    class Refusing(Extractor):
        def prepare(self, image):
            if image[0, 0, 0] == 3:
                raise error
            return super().prepare(image)

    with pytest.raises(raised, match=message) as caught:
        features_of(Source(20, picture), Refusing(), num_workers=num_workers, on_error=on_error)
    assert caught.value.__cause__ is error
    assert no_threads_left()


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_inputs_of_two_shapes(batch_size, concurrency):
    class Whole(Extractor):
        def prepare(self, image):
            return image.astype(np.float32)

        def forward(self, batch):
            return np.repeat(batch.mean((1, 2, 3))[:, None], 12, axis=1)

    def load(i):
        return np.full((4 + (i >= 5), 4, 3), i, np.uint8)

    message = r"^picture 5: gives the network an input of shape \(5, 4, 3\), the first image one of \(4, 4, 3\)"
    with pytest.raises(ValueError, match=message):
        features_of(Source(9, load), Whole(batch_size, concurrency))
    mixed = Whole(batch_size, concurrency)
    mixed.mixed_sizes = True
    got, _ = features_of(Source(9, load), mixed)
    np.testing.assert_array_equal(got[:, 0], np.arange(9))


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("where", ["forward", "consume", "source"])
def test_errors_elsewhere_pass_through(where, concurrency):
    class Failing(Extractor):
        def forward(self, batch):
            if where == "forward":
                raise ZeroDivisionError("forward")
            return super().forward(batch)

    class Breaking(Source):
        def __iter__(self):
            for item in super().__iter__():
                yield item
                if where == "source" and self.given == 10:
                    raise ZeroDivisionError("source")

    rows = []

    def consume(features):
        rows.append(features)
        if where == "consume":
            raise ZeroDivisionError("consume")

    with pytest.raises(ZeroDivisionError, match=where):
        extract(Breaking(50, picture), Failing(2, concurrency), only_features(consume), num_workers=2)
    assert no_threads_left()


def test_a_source_that_breaks_comes_after_the_images_before_it():
    def images():
        yield from (picture(i) for i in range(3))
        yield np.zeros((4, 4, 3))

    source = open_source(images(), layout="nhwc")
    rows = []
    with pytest.raises(TypeError, match="images: image 3: expected uint8"):
        extract(source, Extractor(1), only_features(rows.append), num_workers=2)
    np.testing.assert_array_equal(np.concatenate(rows)[:, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'skip'; got 'ignore'"),
        ({"max_errors": -1}, "max_errors: expected 0 or more; got -1"),
        ({"num_workers": -1}, "num_workers: expected 0 or more; got -1"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        features_of(Source(3, picture), **options)


# Interruptions. A process of its own, that reads pictures slowly and says when it has begun.

SLOW = """
import sys, time, signal
sys.path.insert(0, sys.argv[1])
import numpy as np
from fastfid.pipeline import extract, only_features
from fastfid.sources.base import ImageItem, ImageSource
from stubs import GridMeans

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to Ctrl-C

class Item(ImageItem):
    def load(self):
        time.sleep(float(sys.argv[3]))
        return np.zeros((4, 4, 3), np.uint8)

class Endless(ImageSource):
    name, notes = "endless", []
    def __len__(self):
        raise TypeError
    def __iter__(self):
        while True:
            item = Item()
            item.name = "x"
            yield item

extractor = GridMeans()
extractor.concurrency = int(sys.argv[2])
print("begun", flush=True)
extract(Endless(), extractor, only_features(lambda features: None), num_workers=2)
"""


# "At once": a picture takes 0.05 s. One that hangs, as on a network drive that has gone, is waited for a moment.
@pytest.mark.parametrize(
    ("number", "concurrency", "picture_s", "within_s"),
    [
        (signal.SIGINT, 1, 0.05, 5),
        (signal.SIGINT, 2, 0.05, 5),
        (signal.SIGTERM, 1, 0.05, 5),
        (signal.SIGTERM, 2, 0.05, 5),
        (signal.SIGINT, 2, 3600, 15),
    ],
)
def test_a_signal_ends_it_at_once(number, concurrency, picture_s, within_s):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(Path(__file__).parent), str(concurrency), str(picture_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == b"begun\n"
        time.sleep(0.3)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=within_s)
        assert process.returncode == -number
        if number == signal.SIGINT:
            assert stderr.rstrip().endswith(b"KeyboardInterrupt")
        with pytest.raises(ProcessLookupError):  # nothing of its session is left
            os.killpg(process.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_keyboard_interrupt_leaves_no_thread():
    def consume(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(Source(100, picture), Extractor(2, 2), only_features(consume), num_workers=3)
    assert no_threads_left()


# Memory

FLAT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source
from stubs import GridMeans

class Large(GridMeans):
    batch_size, concurrency = 4, 2
    def prepare(self, image):
        # As large as the real network's input: one that is kept would show.
        return np.full((3, 299, 299), image[0, 0, 0], np.float32)
    def forward(self, batch):
        return np.repeat(batch[:, 0, 0, :1], self.dims, axis=1)

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
n = 0
def consume(features):
    global n
    n += len(features)
    if n == 400:
        print(peak())
print(extract(open_source(sys.argv[2]), Large(), only_features(consume), num_workers=2).n)
print(peak())
"""


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_memory_stays_flat(tmp_path, kind):
    n = 2000
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        Image.fromarray(np.random.default_rng(SEED).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            tmp_path / "x.png"
        )
        data = (tmp_path / "x.png").read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(n):
                archive.writestr(f"{i:05}.png", data)
    else:
        np.savez_compressed(path, np.zeros((n, 128, 128, 3), np.uint8))  # 98 MB if it were loaded
    command = [sys.executable, "-c", FLAT, str(Path(__file__).parent), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    early, count, final = map(int, done.stdout.split())
    assert count == n
    assert final - early < 25  # MiB; 1600 images more, of which one in 70 kept would be 25


# Progress


PROGRESS = """
import sys
sys.path.insert(0, sys.argv[1])
from fastfid.pipeline import extract, only_features
from fastfid.sources import open_source
from stubs import GridMeans
extract(open_source(sys.argv[2]), GridMeans(), lambda outputs, indices: None, progress="auto", description="real")
"""


def test_progress(folder, capsys):
    features_of(open_source(folder), progress=False)
    features_of(open_source(folder), progress="auto")  # not a terminal here
    assert capsys.readouterr() == ("", "")
    features_of(open_source(folder), progress=True, description="fake")
    out, err = capsys.readouterr()
    assert out == ""
    assert "fake: 100%" in err
    assert "25/25" in err
    assert "img/s" in err
    features_of(open_source(folder), progress=True)
    assert folder.name in capsys.readouterr().err  # a long path loses its front
    features_of(open_source(folder), progress=True, description="/one/long" * 20 + "/name")
    assert "/one/long/name: 100%" in (err := capsys.readouterr().err)
    assert "img/s" in err
    features_of(open_source(picture(i) for i in range(9)), progress=True)
    assert "9img" in capsys.readouterr().err.replace(" ", "")
    shown = on_terminal(PROGRESS, str(Path(__file__).parent), str(folder))
    assert "real: 100%" in shown
    assert "25/25" in shown


# The whole command with the real network


def test_bits_of_the_real_network_do_not_depend_on_the_cut(folder, weights):
    from fastfid import _core
    from fastfid.features.inception import InceptionV3

    before = _core.num_threads()
    features = {}
    try:
        for threads, workers, batch_size in ((1, 0, 1), (1, 1, 4), (2, 2, 4), (4, 3, 3), (2, 1, 16)):
            _core.set_num_threads(threads)
            extractor = InceptionV3(192)
            extractor.batch_size = batch_size
            features[threads, workers, batch_size], _ = features_of(open_source(folder), extractor, num_workers=workers)
    finally:
        _core.set_num_threads(before)
    first = features.pop((1, 0, 1))
    assert first.shape == (25, 192)
    for got in features.values():
        np.testing.assert_array_equal(got, first)


CUTS = (
    "--threads 1 --num-workers 0 --batch-size 1",
    "--threads 2 --num-workers 3 --batch-size 50",
    "--threads 5 --num-workers 1 --batch-size 7",
)


@pytest.mark.parametrize(
    ("dims", "n"),
    [(64, 70), (2048, 6)],  # more images than dimensions, and fewer
)
def test_bits_of_the_whole_command_do_not_depend_on_the_cut(tmp_path, weights, dims, n):
    folders = []
    for name, number in (("real", n), ("fake", n - 2)):
        (tmp_path / name).mkdir()
        folders.append(write_pictures(tmp_path / name, number))
    for i in range(n - 2):  # other pictures than the real ones
        Image.new("RGB", (9, 9 + i % 4), (i, 2 * i, 200 - i)).save(folders[1] / f"{i:03}.png")
    printed, saved = set(), set()
    for number, cut in enumerate(CUTS):
        command = [sys.executable, "-m", "fastfid"]
        options = ["--dims", str(dims), "--device", "cpu", *cut.split()]
        done = subprocess.run([*command, *folders, *options], capture_output=True, text=True, check=True)
        printed.add(done.stdout)
        out = tmp_path / f"{number}.npz"
        subprocess.run([*command, "stats", folders[0], "-o", out, *options], capture_output=True, check=True)
        with np.load(out) as arrays:
            saved.add((arrays["mu"].tobytes(), arrays["sigma"].tobytes()))
    assert len(printed) == len(saved) == 1
    assert float(printed.pop().removeprefix("FID:  ")) > 0.01


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("bad", [0, 1, 5, 7])
def test_exactly_the_images_before_the_bad_one_are_consumed(tmp_path, num_workers, bad):
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / f"{bad:02}.png").write_bytes(b"broken")
    seen = []
    with pytest.raises(ImageError, match=rf"{bad:02}\.png"):
        extract(open_source(tmp_path), GridMeans(), only_features(seen.append), num_workers=num_workers)
    assert sum(len(features) for features in seen) == bad


@pytest.mark.parametrize("shape", [(1, 12), (3, 12), (12,)])
def test_an_extractor_that_loses_features_is_caught(shape):
    class Wrong(GridMeans):
        def forward(self, batch):
            return np.zeros(shape, np.float32)

    with pytest.raises(ValueError, match=r"Wrong\.forward: expected features of 2 images, got shape"):
        extract(open_source(np.zeros((6, 5, 5, 3), np.uint8)), Wrong(), print)


def test_errors_of_prepare_keep_their_words():
    class Picky(GridMeans):
        def prepare(self, image):
            return b"\xff".decode("ascii")

    with pytest.raises(ValueError, match="can't decode byte"):
        extract(open_source(np.zeros((6, 5, 5, 3), np.uint8)), Picky(), print)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 1), (4, 1), (4, 2), (32, 1)])
def test_inputs_written_into_batches_give_the_same_features(folder, workers, batch_size, concurrency):
    expected, rows = [], []
    extract(open_source(folder), Extractor(), only_features(expected.append), num_workers=0)
    extractor = InPlace(batch_size, concurrency)
    report = extract(open_source(folder), extractor, only_features(rows.append), num_workers=workers)
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(expected))
    assert report.n == 25
    assert sum(extractor.sizes) == 25
    assert extractor.threads == {"made"}


@pytest.mark.parametrize("workers", [0, 3])
def test_inputs_written_into_batches_with_pictures_left_out(tmp_path, workers):
    write_pictures(tmp_path)
    for i in (0, 6, 7, 24):
        (tmp_path / f"{i:03}.png").write_bytes(b"no picture")
    expected, rows = [], []
    extract(open_source(tmp_path), Extractor(), only_features(expected.append), on_error="skip")
    extractor = InPlace(4)
    report = extract(open_source(tmp_path), extractor, only_features(rows.append), num_workers=workers, on_error="skip")
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(expected))
    assert report.n == 21
    assert extractor.threads >= {"copied"}


def test_the_input_of_several_is_that_of_each():
    class Sized(GridMeans):
        input_shape = property(lambda self: (self.dims,))

    several = JointExtractor({"a": Sized(2), "b": Sized(3)})
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    expected = np.concatenate([GridMeans(cells).prepare(image) for cells in (2, 3)])
    np.testing.assert_array_equal(several.prepare(image), expected)


@pytest.mark.parametrize("wrong", [np.zeros(12), np.zeros(1, np.float32), np.zeros((1, 12), np.float32)])
def test_inputs_that_do_not_fit_their_place_are_refused(folder, wrong):
    extractor = InPlace()
    extractor.prepare = lambda image: wrong
    with pytest.raises(ValueError, match=r"000\.png: InPlace\.prepare: expected float32 \(12,\), its input_shape; got"):
        extract(open_source(folder), extractor, print)
