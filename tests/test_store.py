"""Stores of features: what they hold, interrupted runs, and what is refused."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import AllOutputs, GridMeans

from fastfid import FID, Evaluator, compare, compute_fid, compute_statistics, evaluate, segments, store
from fastfid.errors import ImageError, NumericalError, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.metrics.base import Metric, Result
from fastfid.scale.plan import Sizing
from fastfid.store import FeatureStore, StoreWriter

SIDECAR = "fastfid-store.json"
METRICS = ["fid", "kid", "prdc"]


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("real", "fake")]
    for path, high in zip(paths, (256, 200), strict=True):
        path.mkdir()
        for i in range(30):
            Image.fromarray(rng.integers(0, high, (9, 11, 3), dtype=np.uint8)).save(path / f"{i:02}.png")
    return paths


def only_store(root, name):
    (found,) = root.glob(f"{name}-*")
    return found


class Counting(GridMeans):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, batch):
        self.seen += len(batch)
        return super().forward(batch)


class Unused(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network ran")


def test_a_second_run_reads_no_image(folders, tmp_path):
    root = tmp_path / "features"
    plain = evaluate(*folders, metrics=METRICS, extractor=GridMeans())
    first = evaluate(*folders, metrics=METRICS, extractor=GridMeans(), store=root)
    assert first.cached == {"real": False, "fake": False}
    again = evaluate(*folders, metrics=METRICS, extractor=Unused(), store=root)
    assert again.cached == {"real": True, "fake": True}
    stores = [only_store(root, name) for name in ("real", "fake")]
    given = evaluate(*stores, metrics=METRICS)
    for found in (first, again, given):
        assert dict(found) == dict(plain)
    assert (given.real.n, given.dims, given.device) == (30, 12, None)
    assert compute_fid(*stores) == plain["fid"].value
    assert compute_fid(stores[0], folders[1], extractor=GridMeans()) == plain["fid"].value
    assert compute_statistics(stores[0]).n == 30
    rows = np.load(stores[0] / "features.npy", mmap_mode="r")
    expected = [GridMeans().prepare(np.asarray(Image.open(path))) for path in sorted(folders[0].iterdir())]
    np.testing.assert_array_equal(rows, expected)


def test_other_options_and_networks_have_stores_of_their_own(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    evaluate(*folders, extractor=GridMeans(3), store=root)
    evaluate(*folders, extractor=GridMeans(), store=root, num=20)
    assert sorted(len(np.load(path / "features.npy")) for path in root.glob("real-*")) == [20, 30, 30]


def test_a_store_without_an_output_is_made_anew(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=AllOutputs(), store=root)
    assert FeatureStore(only_store(root, "real")).outputs == {"features": 12}
    with pytest.raises(
        ValueError,
        match=r"^sfid: needs the output spatial; the store .*real-\w+ has features; make a store with this metric$",
    ):
        evaluate(only_store(root, "real"), only_store(root, "fake"), metrics=["sfid"])
    both = evaluate(*folders, metrics=["fid", "sfid"], extractor=AllOutputs(), store=root)
    assert FeatureStore(only_store(root, "real")).outputs == {"features": 12, "spatial": 12}
    assert both["sfid"].value == both["fid"].value
    evaluate(*folders, extractor=Unused(), store=root)


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from stubs import GridMeans
from fastfid import evaluate

class Slow(GridMeans):
    def forward(self, batch):
        time.sleep(0.05)
        return super().forward(batch)

evaluate({a!r}, {b!r}, extractor=Slow(), store={root!r})
"""


def test_a_run_that_was_killed_goes_on(folders, tmp_path):
    root = tmp_path / "features"
    script = SLOW.format(tests=str(Path(__file__).parent), a=str(folders[0]), b=str(folders[1]), root=str(root))
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        for _ in range(600):
            time.sleep(0.05)
            if any(path.stat().st_size > 128 + 4 * 48 for path in root.glob("real-*/features.npy.new")):
                break
        with pytest.raises(ValueError, match="another process is writing to this store"):
            evaluate(*folders, extractor=GridMeans(), store=root)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    path = only_store(root, "real")
    with pytest.raises(ValueError, match="is not complete, as its run was interrupted"):
        compute_statistics(path)
    kept = ((path / "features.npy.new").stat().st_size - 128) // 48
    assert 0 < kept < 30
    with open(path / "features.npy.new", "ab") as file:
        file.write(b"half a row")
    extractor = Counting()
    found = evaluate(*folders, metrics=METRICS, extractor=extractor, store=root)
    assert extractor.seen == 60 - kept
    assert dict(found) == dict(evaluate(*folders, metrics=METRICS, extractor=GridMeans()))


def test_images_that_may_have_been_left_out_are_read_again(folders, tmp_path):
    root = tmp_path / "features"
    (folders[0] / "05.png").write_bytes(b"no picture")

    class Failing(Counting):
        def forward(self, batch):
            if self.seen >= 20:
                raise RuntimeError("no more")
            return super().forward(batch)

    with pytest.raises(RuntimeError, match="no more"):
        evaluate(*folders, extractor=Failing(), store=root, on_error="skip")
    extractor = Counting()
    with pytest.warns(SkippedImagesWarning):
        found = evaluate(*folders, extractor=extractor, store=root, on_error="skip")
    assert extractor.seen == 59
    with pytest.warns(SkippedImagesWarning, match=r"real: skipped 1 unreadable images: .*05\.png \("):
        again = evaluate(*folders, extractor=Unused(), store=root, on_error="skip")
    assert again.skipped == found.skipped
    assert [one["name"] for one in found.skipped["real"]] == [str(folders[0] / "05.png")]


def test_a_store_of_files_that_changed_is_stale(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    Image.new("RGB", (9, 11)).save(folders[0] / "30.png")
    with pytest.raises(ValueError, match=r"real-\w+: is stale: the files of .*real have changed since; delete the"):
        evaluate(*folders, extractor=GridMeans(), store=root)


def test_what_cannot_be_compared_with_a_store(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    real = only_store(root, "real")

    class Other(GridMeans):
        identity = "another network"

    with pytest.raises(ValueError, match=r"real-\w+ was made with extractor grid-means, .* another network"):
        evaluate(real, folders[1], extractor=Other())
    with pytest.raises(ValueError, match=r"real-\w+ was made with dims 12"):
        evaluate(real, folders[1], extractor=GridMeans(3))


def change(path, **values):
    sidecar = json.loads((path / SIDECAR).read_text())
    (path / SIDECAR).write_text(json.dumps({**sidecar, **values}))


LEFT_OUT = {"name": "x.png", "reason": "cut short"}


def put(path, value):
    np.load(path / "features.npy", mmap_mode="r+")[7, 3] = value


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: os.truncate(path / "features.npy", 1000), r"features\.npy: has 1000 bytes, expected 1568"),
        (lambda path: (path / "features.npy").unlink(), "No such file"),
        (lambda path: (path / SIDECAR).write_text("{"), r"store\.json: is damaged; delete the folder"),
        (lambda path: (path / SIDECAR).write_text("[" * 100_000), r"store\.json: is damaged"),
        (lambda path: change(path, schema=2), "is no sidecar of a store of this version"),
        (lambda path: change(path, outputs={"../../features": 12, "features": 12}), "is no sidecar"),
        (lambda path: change(path, n=10**12), "expected 48000000000128"),
        (lambda path: change(path, n=-3), "is no sidecar"),
        (lambda path: change(path, format="x"), "is no sidecar"),
        (lambda path: change(path, remarks=[1]), "is no sidecar"),
        (lambda path: change(path, skipped=[{"name": 3}]), "is no sidecar"),
        (lambda path: change(path, skipped_at=None), "is no sidecar"),
        (lambda path: change(path, skipped_at=[3]), "is no sidecar"),
        (lambda path: change(path, skipped=[LEFT_OUT], skipped_at=[]), "is no sidecar"),
        (lambda path: change(path, skipped=[LEFT_OUT], skipped_at=[31]), "is no sidecar"),
        (lambda path: change(path, skipped=[LEFT_OUT] * 2, skipped_at=[5, 5]), "is no sidecar"),
        (
            lambda path: put(path, np.nan),
            r"features\.npy: row 7, counted from 0, has NaN .* delete the folder .*real-\w+",
        ),
        (lambda path: put(path, np.inf), r"features\.npy: row 7, counted from 0, has NaN or infinite values"),
    ],
)
def test_a_damaged_store_is_refused(folders, tmp_path, damage, text):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    real = only_store(root, "real")
    damage(real)
    with pytest.raises((OSError, ValueError), match=text):
        compute_statistics(real)


def interrupt(path):
    """Leave the folder of a store as a run that was killed before its end leaves it."""
    for name in (SIDECAR, "features.npy"):
        (path / name).rename(path / f"{name}.new")


def test_an_interrupted_run_of_other_versions_is_not_continued(folders, tmp_path, monkeypatch):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    interrupt(only_store(root, "real"))
    monkeypatch.setattr(store, "package_versions", lambda: {"numpy": "0.1"})
    with pytest.raises(
        ValueError, match=r"had other versions, and cannot be continued; delete the file .*\.json\.new to begin"
    ):
        evaluate(*folders, extractor=GridMeans(), store=root)


def test_features_that_are_not_finite_are_not_stored(folders, tmp_path):
    class Failing(GridMeans):
        def forward(self, batch):
            return np.full((len(batch), 12), np.nan, np.float32)

    with pytest.raises(NumericalError, match=r"real: images from number 0 on, counted from 0: the output features has"):
        evaluate(*folders, extractor=Failing(), store=tmp_path / "features")


def test_a_full_disk_names_the_file(folders, tmp_path):
    script = textwrap.dedent(
        f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from stubs import GridMeans
        from fastfid import evaluate
        evaluate({str(folders[0])!r}, {str(folders[1])!r}, extractor=GridMeans(), store={str(tmp_path / "f")!r})
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "/f/real-" in done.stderr.splitlines()[-1]


def test_rows_that_memory_cannot_hold_are_refused_before_they_are_read(folders, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(ValueError, match=r"the features of the 30 images of .*real and the 30 .*--store"):
        evaluate(*folders, metrics=["kid"], extractor=Unused())
    monkeypatch.undo()


def test_rows_of_both_sides_are_in_memory_at_once(folders, tmp_path, monkeypatch):
    one_side = 8 * 12 * 30
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * one_side}[name])
    with pytest.raises(ValueError, match="keep them on disk by --store"):
        evaluate(*folders, metrics=["kid"], extractor=Unused())
    monkeypatch.undo()
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * one_side}[name])
    evaluate(only_store(tmp_path, "real"), folders[1], metrics=["kid"], extractor=GridMeans())
    monkeypatch.undo()


def test_a_writer_keeps_what_it_has_if_the_block_fails(tmp_path):
    identity = {"meta": {"source": "x"}, "options": {}, "outputs": {"features": 3}, "files": {}, "versions": {}}

    def write():
        with StoreWriter(tmp_path / "s", identity, can_resume=True) as writer:
            done = writer.done
            writer.add({"features": np.ones((2, 3), np.float32)}, np.arange(2))
            if done == 0:
                raise KeyboardInterrupt
            return writer.finish([], [])

    with pytest.raises(KeyboardInterrupt):
        write()
    assert write().n == 4


def test_outputs_of_other_images_are_given_up(tmp_path):
    def write(output, n, skipped):
        identity = {"meta": {"source": "x"}, "options": {}, "files": {}, "versions": {}}
        identity["outputs"] = dict.fromkeys({"features", output}, 3)
        with StoreWriter(tmp_path / "s", identity, can_resume=True) as writer:
            writer.add({name: np.ones((n, 3), np.float32) for name in identity["outputs"]}, np.arange(n))
            return writer.finish(skipped, range(len(skipped)))

    assert write("spatial", 3, []).outputs == {"features": 3, "spatial": 3}
    assert write("features", 3, []).outputs == {"features": 3, "spatial": 3}
    again = write("features", 2, [{"name": "a", "reason": "b"}])
    assert (again.n, again.outputs) == (2, {"features": 3})


class FailingAfter(AllOutputs):
    """Fails after some batches of two."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def forward(self, batch):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("no more")
        return super().forward(batch)


def test_a_complete_store_stays_until_one_with_more_outputs_is_complete(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=AllOutputs(), store=root)
    real = only_store(root, "real")
    mapped = np.load(real / "features.npy", mmap_mode="r")
    rows = np.array(mapped)
    before = {path.name: path.read_bytes() for path in real.iterdir()}
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(*folders, metrics=["sfid"], extractor=FailingAfter(5), store=root)
    assert {name: (real / name).read_bytes() for name in before} == before
    evaluate(*folders, extractor=Unused(), store=root)  # needs no more than what is complete
    extractor = FailingAfter(10 + 15)  # of the 15 + 15 batches of both sides, 5 are kept
    found = evaluate(*folders, metrics=["sfid"], extractor=extractor, store=root)
    assert extractor.left == 0
    assert found["sfid"].value == evaluate(*folders, extractor=GridMeans())["fid"].value
    np.testing.assert_array_equal(mapped, rows)  # the old file is still there for those who have mapped it
    assert sorted(path.name for path in real.iterdir()) == [SIDECAR, "features.npy", "names.json", "spatial.npy"]


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_run_that_ends_while_files_are_replaced(folders, tmp_path, monkeypatch, renamed):
    evaluate(*folders, extractor=AllOutputs(), store=tmp_path)
    plain = evaluate(*folders, extractor=AllOutputs())["fid"].value
    replace = os.replace
    targets = []

    def only_some(old, new):
        if str(new).endswith((".npy", SIDECAR)):
            targets.append(new)
            if len(targets) > renamed:
                raise OSError("the power failed")
        replace(old, new)

    monkeypatch.setattr(os, "replace", only_some)
    with pytest.raises(OSError, match="the power failed"):
        evaluate(*folders, metrics=["sfid"], extractor=AllOutputs(), store=tmp_path)
    monkeypatch.undo()
    assert evaluate(*folders, extractor=Unused(), store=tmp_path)["fid"].value == plain
    assert evaluate(*folders, metrics=["sfid"], extractor=AllOutputs(), store=tmp_path)["sfid"].value == plain


def test_a_store_of_fewer_outputs_keeps_those_of_an_interrupted_run_apart(folders, tmp_path):
    root = tmp_path / "features"
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(*folders, metrics=["sfid"], extractor=FailingAfter(5), store=root)
    with pytest.raises(ValueError, match=r"an interrupted run had other outputs, .* delete the file .*\.json\.new"):
        evaluate(*folders, extractor=AllOutputs(), store=root)


def test_rows_without_a_sidecar_are_not_taken(folders, tmp_path):
    root = tmp_path / "features"
    plain = evaluate(*folders, extractor=GridMeans(), store=root)["fid"].value
    real = only_store(root, "real")
    interrupt(real)
    (real / f"{SIDECAR}.new").unlink()
    put_new = np.load(real / "features.npy.new", mmap_mode="r+")
    put_new[:] = 3.0
    assert evaluate(*folders, extractor=GridMeans(), store=root)["fid"].value == plain


def test_a_folder_of_images_with_a_store_json_is_no_store(folders):
    plain = compute_fid(*folders, extractor=GridMeans())
    (folders[0] / "store.json").write_text("{}")
    with pytest.warns(match=r"1 other file not read \(\.json\)"):
        assert compute_fid(*folders, extractor=GridMeans()) == plain


def test_nothing_but_files_of_the_store_is_to_be_deleted(folders, tmp_path):
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    real = only_store(tmp_path, "real")
    (real / "mine.txt").write_text("of the user")
    (real / SIDECAR).write_text("{")
    with pytest.raises(ValueError, match=rf"is damaged; delete {real}/{SIDECAR}, and run again"):
        compute_statistics(real)
    (real / SIDECAR).unlink()
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    assert (real / "mine.txt").read_text() == "of the user"
    assert compute_statistics(real).n == 30


def test_a_store_is_known_by_its_content(folders, tmp_path):
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    real, fake = (only_store(tmp_path, name) for name in ("real", "fake"))
    first = evaluate(real, fake, hash_inputs=True).inputs
    assert first["real"]["files"] == 3  # the sidecar, the names and the features
    assert first["real"]["bytes"] == sum(path.stat().st_size for path in real.iterdir())
    assert first["real"]["sha256"] != first["fake"]["sha256"]
    np.load(real / "features.npy", mmap_mode="r+")[7, 3] += 1
    second = evaluate(real, fake, hash_inputs=True).inputs
    assert second["real"]["sha256"] != first["real"]["sha256"]
    assert second["fake"] == first["fake"]


class Brightest(Metric):
    """A metric whose accumulator is its own: the distance of the largest features."""

    name = "brightest"
    needs = frozenset({"features"})
    accumulates = ("largest", "features")
    kept = None  # what its state has besides

    def accumulator(self, lengths):
        return _Largest(0, np.zeros(lengths["features"]), self.kept)

    def restored(self, state):
        return _Largest(int(state["n"]), state["largest"], None)

    def result(self, real, fake):
        return Result(float(np.abs(real.seen.largest - fake.seen.largest).max()))


class _Largest:
    def __init__(self, n, largest, kept):
        self.n, self.largest, self.kept = n, largest, kept

    def update(self, outputs):
        self.n += len(outputs["features"])
        self.largest = np.maximum(self.largest, outputs["features"].max(0))

    def merge(self, other):
        self.n += other.n
        self.largest = np.maximum(self.largest, other.largest)

    def reset(self):
        self.n, self.largest = 0, np.zeros_like(self.largest)

    def state(self):
        more = {} if self.kept is None else {"kept": self.kept}
        return {"n": self.n, "largest": self.largest, **more}


def test_an_accumulator_of_ones_own_is_filled_from_stores_and_in_tasks(folders, tmp_path, monkeypatch):
    metrics = ["fid", Brightest()]
    plain = evaluate(*folders, metrics=metrics, extractor=GridMeans())
    rows = [np.stack([GridMeans().prepare(np.array(Image.open(path))) for path in side.iterdir()]) for side in folders]
    assert plain["brightest"].value == np.abs(rows[0].max(0).astype(float) - rows[1].max(0)).max() > 0
    for extractor in (GridMeans(), Unused()):
        found = evaluate(*folders, metrics=metrics, extractor=extractor, store=tmp_path / "store")
        assert dict(found) == dict(plain)
    monkeypatch.setattr(segments, "SEGMENT", 5)
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(5, 0))
    plain = evaluate(*folders, metrics=metrics, extractor=GridMeans())
    found = evaluate(*folders, metrics=metrics, extractor=GridMeans(), run_dir=tmp_path / "run")
    assert dict(found) == dict(plain)
    wrong = Brightest()
    wrong.kept = {"a": "dict"}
    with pytest.raises(TypeError, match=r"largest/features: its state has kept of type dict; expected an array"):
        evaluate(*folders, metrics=[wrong], extractor=GridMeans(), run_dir=tmp_path / "wrong")


class Interrupted(GridMeans):
    batch_size = 1
    left = 10

    def forward(self, batch):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(batch)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_interrupt_says_what_is_kept_where_a_run_goes_on(folders, tmp_path, capsys, on_error):
    """Where images may have been left out, a run does not go on."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(*folders, extractor=Interrupted(), store=tmp_path / "store", on_error=on_error)
    said = capsys.readouterr().err
    assert ("images are kept; the same command goes on after them" in said) == (on_error == "raise")


def test_likely_mistakes_are_said_again(folders, tmp_path):
    for path in sorted(folders[1].iterdir())[1:6]:
        path.write_bytes((folders[1] / "00.png").read_bytes())
    text = r"fake: 5 of its 30 images only repeat others exactly"
    for extractor in (GridMeans(), Unused()):
        with pytest.warns(SuspiciousInputWarning, match=text):
            evaluate(*folders, extractor=extractor, store=tmp_path)
    with pytest.warns(SuspiciousInputWarning, match=r"fake-\w+: 5 of its 30 images only repeat others exactly"):
        compute_statistics(only_store(tmp_path, "fake"))


def test_repeats_are_counted_over_all_images_after_an_interruption(folders, tmp_path):
    for path in sorted(folders[0].iterdir())[20:]:
        path.write_bytes((folders[0] / "00.png").read_bytes())
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(*folders, extractor=FailingAfter(5), store=tmp_path)
    with pytest.warns(SuspiciousInputWarning, match="real: 10 of its 30 images only repeat others exactly"):
        evaluate(*folders, extractor=AllOutputs(), store=tmp_path)


def test_images_without_levels_in_the_rest_are_no_mistake_of_the_whole(folders, tmp_path):
    rng = np.random.default_rng(1)
    for path in sorted(folders[0].iterdir())[10:]:
        Image.fromarray(rng.integers(0, 2, (9, 11, 3), dtype=np.uint8)).save(path)
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(*folders, extractor=FailingAfter(5), store=tmp_path)
    evaluate(*folders, extractor=AllOutputs(), store=tmp_path)  # a warning would be an error


def test_images_on_both_sides_are_found_in_stores(folders, tmp_path):
    for path in sorted(folders[0].iterdir())[:4]:
        (folders[1] / path.name).write_bytes(path.read_bytes())
    text = "4 of the 30 generated images are also among the real ones"
    for extractor in (GridMeans(), Unused()):
        with pytest.warns(SuspiciousInputWarning, match=text):
            evaluate(*folders, extractor=extractor, store=tmp_path)
    real, fake = (only_store(tmp_path, name) for name in ("real", "fake"))
    with pytest.warns(SuspiciousInputWarning, match=text):
        evaluate(real, fake)
    with pytest.warns(SuspiciousInputWarning, match=text):
        evaluate(real, folders[1], extractor=GridMeans())


def test_more_images_left_out_than_allowed(folders, tmp_path):
    for name in ("05.png", "06.png"):
        (folders[1] / name).write_bytes(b"no picture")
    with pytest.warns(SkippedImagesWarning):
        evaluate(*folders, extractor=GridMeans(), store=tmp_path, on_error="skip", max_errors=2)
    text = r"05\.png.* 2 images of the store .*fake-\w+ were left out, more than the 1 allowed \(max_errors\)"
    with pytest.raises(ImageError, match=text):
        evaluate(*folders, extractor=Unused(), store=tmp_path, on_error="skip", max_errors=1)
    with pytest.raises(ImageError, match=text):
        compute_statistics(only_store(tmp_path, "fake"), on_error="skip", max_errors=1)


def test_fewer_than_two_images_make_no_store(folders, tmp_path):
    for path in sorted(folders[0].iterdir())[1:]:
        path.write_bytes(b"no picture")
    root = tmp_path / "features"
    for _ in range(2):
        with (
            pytest.raises(ValueError, match=r"real: a covariance needs at least 2 images, got 1, as 29 could not be"),
            pytest.warns(SkippedImagesWarning),
        ):
            evaluate(*folders, extractor=GridMeans(), store=root, on_error="skip")
    with pytest.raises(ValueError, match="is not complete"):
        compute_statistics(only_store(root, "real"))


@pytest.mark.parametrize("kind", ["array", "generator", "list"])
def test_what_is_not_in_files_is_refused_before_an_image_is_read(folders, tmp_path, kind):
    array = np.zeros((9, 8, 8, 3), np.uint8)
    paths = [str(path) for path in folders[1].iterdir()]
    fake = {"array": array, "generator": (image for image in array), "list": paths}[kind]
    with pytest.raises(ValueError, match=r"^store: .* is not made of files, so .* or leave out --store \(store=\)$"):
        evaluate(folders[0], fake, extractor=Unused(), store=tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_stale_side_is_refused_before_an_image_is_read(folders, tmp_path):
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    Image.new("RGB", (9, 11)).save(folders[1] / "30.png")
    other = tmp_path / "other"
    folders[0].rename(other)
    with pytest.raises(ValueError, match=r"fake-\w+: is stale"):
        evaluate(other, folders[1], extractor=Unused(), store=tmp_path)


def test_times_that_changed_are_told_from_sizes(folders, tmp_path):
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    os.utime(folders[0] / "00.png")
    with pytest.raises(ValueError, match=r"stale: times or inodes .*real have changed since, but neither .*: touch or"):
        evaluate(*folders, extractor=Unused(), store=tmp_path)


def test_equal_patterns_in_two_folders_are_two_sources(folders, tmp_path, monkeypatch):
    root = tmp_path / "features"
    for folder in folders:
        monkeypatch.chdir(folder)
        evaluate("*.png", folders[1 - folders.index(folder)], extractor=GridMeans(), store=root)
    assert len(list(root.glob("png-*"))) == 2
    monkeypatch.chdir(folders[0])
    again = evaluate("*.png", folders[1], extractor=Unused(), store=root)
    assert again.cached == {"real": True, "fake": True}


def test_a_store_of_both_sides_is_read_once(folders, tmp_path):
    extractor = Counting()
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        evaluate(folders[0], folders[0], extractor=extractor, store=tmp_path)
    assert extractor.seen == 30


def test_a_store_is_not_made_in_a_store(folders, tmp_path):
    evaluate(*folders, extractor=GridMeans(), store=tmp_path)
    real = only_store(tmp_path, "real")
    with pytest.raises(ValueError, match=r"^store: .*real-\w+ is a store itself: give the folder that it is in$"):
        evaluate(*folders, extractor=Unused(), store=real)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("", ValueError, "^store: expected the path of a folder, got ''$"),
        (5, TypeError, "^store: expected the path of a folder, got 5$"),
        (__file__, ValueError, "^store: expected the path of a folder, got .*test_store"),
    ],
)
def test_a_store_that_is_no_path_of_a_folder(folders, tmp_path, monkeypatch, value, error, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        evaluate(*folders, extractor=Unused(), store=value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "real"]


def test_a_store_as_the_fixed_real_side(folders, tmp_path):
    plain = evaluate(*folders, metrics=METRICS, extractor=GridMeans(), store=tmp_path)
    real = only_store(tmp_path, "real")
    fid = FID(real=real, extractor=GridMeans())
    fid.update(folders[1])
    assert fid.compute() == plain["fid"].value
    evaluator = Evaluator(METRICS, real=real, extractor=GridMeans())
    evaluator.update(folders[1])
    assert dict(evaluator.compute()) == dict(plain)
    assert dict(copy.deepcopy(evaluator).compute()) == dict(plain)
    state = evaluator.state_dict()
    evaluator.reset()
    evaluator.load_state_dict(state)
    assert dict(evaluator.compute()) == dict(plain)
    with pytest.raises(
        ValueError,
        match=r"^sfid: needs the output spatial; the store .*real-\w+ has features; make a store with this metric$",
    ):
        Evaluator(["sfid"], real=real, extractor=AllOutputs())
    with pytest.raises(ValueError, match=r"real-\w+: is a store of features, not images: give it alone"):
        fid.update(real)
    with pytest.raises(ValueError, match=r"real-\w+: is a store of features, not images: give it alone"):
        compute_fid([real, folders[0]], folders[1], extractor=GridMeans())


def test_images_are_compared_beside_a_store(folders, tmp_path, monkeypatch):
    asked = []

    def make(dims, protocol, *others):
        asked.append((dims, protocol))
        return GridMeans(8)

    evaluate(*folders, extractor=GridMeans(8), store=tmp_path)
    real = only_store(tmp_path, "real")
    folders = [folders[1], tmp_path / "other"]
    folders[1].mkdir()
    for i, path in enumerate(sorted(folders[0].iterdir())):
        Image.open(path).point(lambda grey: grey // 2).save(folders[1] / f"{i}.png")
    change(real, meta={**FeatureStore(real).meta, "protocol": "clean"})
    monkeypatch.setattr("fastfid.evaluation.networks.make_extractor", make)
    monkeypatch.setattr(GridMeans, "protocol", "clean")
    monkeypatch.setattr(
        "fastfid.evaluation.networks.check_inception_beside", lambda known: None
    )  # GridMeans stands for it
    with pytest.warns(match=r"images are read with 192 dims and protocol clean, as .*real-\w+ was made"):
        found = compare(real, folders)
    assert asked == [(192, "clean")]
    expected = {str(folder): compute_fid(real, folder, extractor=GridMeans(8)) for folder in folders}
    assert {one.name: one.fid for one in found.candidates} == expected


def test_names_are_those_of_the_rows(folders, tmp_path):
    (folders[0] / "07.png").write_bytes(b"damaged")
    with pytest.warns(SkippedImagesWarning):
        evaluate(*folders, metrics=["kid"], extractor=GridMeans(), store=tmp_path / "store", on_error="skip")
    real, fake = (FeatureStore(only_store(tmp_path / "store", name)) for name in ("real", "fake"))
    assert real.names() == [str(folders[0] / f"{i:02}.png") for i in range(30) if i != 7]
    assert fake.names() == [str(folders[1] / f"{i:02}.png") for i in range(30)]
    for name, row in zip(real.names(), real.rows("features"), strict=True):
        np.testing.assert_array_equal(row, GridMeans().prepare(np.asarray(Image.open(name))))
    assert f"{real.name}/names.json" in real.files()


def test_names_of_a_run_that_was_interrupted(folders, tmp_path):
    class Stops(Counting):
        def forward(self, batch):
            if self.seen >= 10:
                raise KeyboardInterrupt
            return super().forward(batch)

    stops = Stops()
    stops.batch_size = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate(*folders, metrics=["kid"], extractor=stops, store=tmp_path / "store", num_workers=0)
    again = Counting()
    evaluate(*folders, metrics=["kid"], extractor=again, store=tmp_path / "store", num_workers=0)
    assert again.seen == 60 - 12
    names = FeatureStore(only_store(tmp_path / "store", "real")).names()
    assert names == [str(folders[0] / f"{i:02}.png") for i in range(30)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'["a"]', b"[" * 100_000, b"\xff", b"[1, 2]", b"{}"])
def test_names_that_are_damaged(folders, tmp_path, content):
    evaluate(*folders, metrics=["kid"], extractor=GridMeans(), store=tmp_path / "store")
    found = FeatureStore(only_store(tmp_path / "store", "real"))
    path = only_store(tmp_path / "store", "real") / "names.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"names\.json: expected a list of 30 names; delete"):
        found.names()
    path.unlink()
    assert found.names() is None
