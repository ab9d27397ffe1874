"""Stores of features: what they hold, interrupted runs, and what is refused."""

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

from fastfid import compute_fid, compute_statistics, evaluate, store
from fastfid.errors import NumericalError, SkippedImagesWarning
from fastfid.store import FeatureStore, StoreWriter

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
    with pytest.raises(ValueError, match=r"^sfid: needs the output spatial; the store .*real-\w+ has features$"):
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
            if any(path.stat().st_size > 128 + 4 * 48 for path in root.glob("real-*/features.npy")):
                break
        with pytest.raises(ValueError, match="another process is writing to this store"):
            evaluate(*folders, extractor=GridMeans(), store=root)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    path = only_store(root, "real")
    with pytest.raises(ValueError, match="is not complete, as its run was interrupted"):
        compute_statistics(path)
    kept = ((path / "features.npy").stat().st_size - 128) // 48
    assert 0 < kept < 30
    with open(path / "features.npy", "ab") as file:
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
    again = evaluate(*folders, extractor=Unused(), store=root, on_error="skip")
    assert again.skipped == found.skipped
    assert [one["name"] for one in found.skipped["real"]] == [str(folders[0] / "05.png")]


def test_a_store_of_files_that_changed_is_stale(folders, tmp_path):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    Image.new("RGB", (9, 11)).save(folders[0] / "30.png")
    with pytest.raises(ValueError, match=r"real-\w+: is stale: the files of .*real have changed since; delete "):
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
    with pytest.raises(ValueError, match="is not made of files"):
        evaluate(np.zeros((9, 8, 8, 3), np.uint8), folders[1], extractor=GridMeans(), store=root)


def change(path, **values):
    sidecar = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**sidecar, **values}))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: os.truncate(path / "features.npy", 1000), r"features\.npy: has 1000 bytes, expected 1568"),
        (lambda path: (path / "features.npy").unlink(), "No such file"),
        (lambda path: (path / "store.json").write_text("{"), r"store\.json: is damaged; delete the folder"),
        (lambda path: (path / "store.json").write_text("[" * 100_000), r"store\.json: is damaged"),
        (lambda path: change(path, schema=2), "is no sidecar of a store of this version"),
        (lambda path: change(path, outputs={"../../features": 12, "features": 12}), "is no sidecar"),
        (lambda path: change(path, n=10**12), "expected 48000000000128"),
        (lambda path: change(path, n=-3), "is no sidecar"),
    ],
)
def test_a_damaged_store_is_refused(folders, tmp_path, damage, text):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    real = only_store(root, "real")
    damage(real)
    with pytest.raises((OSError, ValueError), match=text):
        compute_statistics(real)


def test_an_interrupted_run_of_other_versions_is_not_continued(folders, tmp_path, monkeypatch):
    root = tmp_path / "features"
    evaluate(*folders, extractor=GridMeans(), store=root)
    change(only_store(root, "real"), complete=False)
    monkeypatch.setattr(store, "package_versions", lambda: {"numpy": "0.1"})
    with pytest.raises(ValueError, match="an interrupted run had other versions, and cannot be continued; delete"):
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
    with pytest.raises(ValueError, match=r"the features of 30 images take up to 0 GiB .*--store"):
        evaluate(*folders, metrics=["kid"], extractor=Unused())
    monkeypatch.undo()


def test_a_writer_keeps_what_it_has_if_the_block_fails(tmp_path):
    identity = {"meta": {"source": "x"}, "options": {}, "outputs": {"features": 3}, "files": {}, "versions": {}}

    def write():
        with StoreWriter(tmp_path / "s", identity, can_resume=True) as writer:
            done = writer.done
            writer.add({"features": np.ones((2, 3), np.float32)})
            if done == 0:
                raise KeyboardInterrupt
            return writer.finish([])

    with pytest.raises(KeyboardInterrupt):
        write()
    assert write().n == 4
