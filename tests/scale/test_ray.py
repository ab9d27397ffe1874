"""Ray for real: the bits of one process, whoever is killed, stopped or fails. ``bash tools/scale_engines.sh`` runs it.

The cluster is one machine that says that it has 2 CPUs, and in one test a second one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import launching
import numpy as np
import psutil
import pytest
import ray
from packed import pack
from PIL import Image
from ray.cluster_utils import Cluster
from ray_networks import DiesOfWhite, Fails, Fixed, Once, Slow, Transient
from remote_files import serving
from stubs import AllOutputs, GridMeans

import fastfid
from fastfid import cli, compute_fid, compute_statistics, evaluate, evaluate_extractors, segments
from fastfid.errors import ImageError, SkippedImagesWarning
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing
from fastfid.scale.ray import RayEngine

HERE = Path(__file__).parent
# What workers and drivers import.
PATH = os.pathsep.join([str(Path(fastfid.__file__).parents[1]), str(HERE), str(HERE.parent)])
WAIT_S = 120  # for what must happen at last

# Ray leaves files and sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of 2 CPUs to which this process is not connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield found
        found.shutdown()


@pytest.fixture
def engine(cluster):
    """Two workers."""
    with RayEngine(2, address=cluster.address) as found:
        yield found


@pytest.fixture
def pictures(tmp_path):
    """Two folders, of 130 and of 95 pictures."""
    return launching.make_pictures(tmp_path)


@pytest.fixture
def plain(pictures):
    """What one process has."""
    return evaluate(*pictures, extractor=GridMeans())


def until(condition, what):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def parts(run):
    return sorted((Path(run) / "parts").rglob("*.npz"))


def leftovers(folder):
    return [path.name for path in Path(folder).rglob("*.tmp")] + [path.name for path in Path(folder).glob("fastfid-*")]


@pytest.mark.parametrize("workers", [1, 2, 3, (1, 2)], ids=str)
def test_any_number_of_workers_gives_the_bits_of_one_process(cluster, pictures, tmp_path, monkeypatch, workers):
    """Two workers take both CPUs, and the third one never starts."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain = evaluate(*pictures, metrics="all", extractor=AllOutputs())
    with RayEngine(workers, address=cluster.address) as engine:
        found = evaluate(*pictures, metrics="all", extractor=AllOutputs(), engine=engine)
    assert dict(found) == dict(plain)
    assert (found.real.n, found.fake.n) == (130, 95)
    assert {**found.to_dict(), "seconds": 0, "date": 0, "run": 0} == {
        **plain.to_dict(),
        "seconds": 0,
        "date": 0,
        "run": 0,
    }
    assert found.run["engine"] == "ray"
    assert found.run["workers"] in {1: {1}, 2: {2}, 3: {2}, (1, 2): {1, 2}}[workers]
    assert (found.run["retries"], found.run["resumed"], len(found.run["runtimes"])) == (0, 0, 1)
    assert leftovers(tmp_path) == []


def test_the_functions_that_have_an_engine_agree(engine, pictures, plain, tmp_path):
    assert compute_fid(*pictures, extractor=GridMeans(), engine=engine) == plain["fid"].value
    statistics = compute_statistics(pictures[0], extractor=GridMeans(), engine=engine, run_dir=tmp_path / "run")
    expected = compute_statistics(pictures[0], extractor=GridMeans())
    np.testing.assert_array_equal(statistics.mu, expected.mu)
    np.testing.assert_array_equal(statistics.sigma, expected.sigma)
    assert statistics.meta == expected.meta


def sources(folder, pictures):
    """One set in every form that has tasks."""
    pack(folder, pictures)
    labelled = {"labels": {"real": "auto", "fake": None}}
    return [
        (str(pictures), {}),
        (f"{pictures}/*.png", {}),
        (f"{folder}/a.zip", {}),
        (f"{folder}/a.tar", {}),
        (f"{folder}/a.tar.gz", {}),
        (f"{folder}/*.shard.tar", {}),
        (f"{folder}/{{0..1}}.shard.tar", {}),
        (f"{folder}/a.npz", {}),
        (f"{folder}/a.npy", {}),
        (f"{folder}/a.parquet", {}),
        (f"{folder}/a.tar", labelled),
        (f"{folder}/a.parquet", labelled),
        (f"{folder}/a.zip", {"num": 90}),
        (f"{folder}/a.zip", {"on_error": "skip"}),
    ]


def test_every_kind_of_source_goes_to_the_workers(engine, pictures, tmp_path):
    values = set()
    for path, options in sources(tmp_path, pictures[0]):
        plain = evaluate(path, pictures[1], extractor=GridMeans(), **options)
        found = evaluate(path, pictures[1], extractor=GridMeans(), engine=engine, **options)
        assert (dict(found), found.real.n) == (dict(plain), plain.real.n), path
        values |= {found["fid"].value} if "num" not in options else set()
    assert len(values) == 1


def test_a_url_goes_to_the_workers(engine, pictures, tmp_path):
    sources(tmp_path, pictures[0])
    plain = evaluate(tmp_path / "a.tar", pictures[1], extractor=GridMeans())
    served = {path.name: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    with serving(served) as server:
        for name in ("a.tar", "a.zip", "a.parquet", "{0..1}.shard.tar"):
            found = evaluate(f"{server.url}/{name}", pictures[1], extractor=GridMeans(), engine=engine)
            assert dict(found) == dict(plain), name


def test_several_extractors_share_a_decoding(engine, pictures):
    extractors = {"a": Fixed(2), "b": Fixed(3)}
    found = evaluate_extractors(*pictures, extractors, engine=engine)
    for name, one in extractors.items():
        assert dict(found[name]) == dict(evaluate(*pictures, extractor=one))


@pytest.mark.parametrize("level", [None, 0])
def test_whole_segments_count_every_image_once(engine, tmp_path, monkeypatch, level):
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"{name}.npy" for name in ("real", "fake")]
    for path, n in zip(paths, (segments.SEGMENT + 1, segments.SEGMENT), strict=True):
        np.save(path, rng.integers(0, 256, (n, 2, 2, 3), dtype=np.uint8))
    plain = evaluate(*paths, extractor=GridMeans())
    monkeypatch.setattr(Sizing, "choose", lambda n, workers, images: Sizing(segments.SEGMENT, level))
    found = evaluate(*paths, extractor=GridMeans(), engine=engine)
    assert (found.real.n, found.fake.n) == (segments.SEGMENT + 1, segments.SEGMENT)
    assert dict(found) == dict(plain)


def test_a_worker_that_is_killed_costs_its_task_alone(engine, pictures, plain, tmp_path, capsys):
    (tmp_path / "mark").touch()
    network = Once(tmp_path / "mark", signal.SIGKILL)
    found = evaluate(*pictures, extractor=network, engine=engine)
    assert not (tmp_path / "mark").exists()
    assert (found.real.n, found.fake.n) == (130, 95)
    assert dict(found) == dict(plain)
    assert found.run["retries"] == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "read again" in line]
    assert "as the worker is lost" in line
    assert "its process died, by a signal or a crash" in line


@pytest.mark.parametrize("number", [signal.SIGSTOP, None], ids=["stopped", "hangs"])
def test_a_worker_that_stalls_is_ended(cluster, pictures, plain, tmp_path, capsys, number):
    (tmp_path / "mark").touch()
    with RayEngine(2, address=cluster.address, stall_timeout=15) as engine:
        found = evaluate(*pictures, extractor=Once(tmp_path / "mark", number), engine=engine)
    assert dict(found) == dict(plain)
    assert (found.real.n, found.fake.n, found.run["retries"]) == (130, 95, 1)
    assert "no image was finished for 15 s" in capsys.readouterr().err


def test_a_task_that_always_kills_is_an_error_that_names_it(engine, pictures, tmp_path, capsys):
    Image.new("RGB", (11, 9), "white").save(pictures[0] / "070.png")
    with pytest.raises(RuntimeError) as raised:
        evaluate(*pictures, extractor=DiesOfWhite(), engine=engine, run_dir=tmp_path / "run")
    text = str(raised.value)
    assert text.startswith(f"{pictures[0]}: images 64 to 95 ended the worker that read them, 4 times, last process ")
    assert text.endswith(f"the last image begun was {pictures[0]}/070.png")
    assert "\n" not in text
    assert engine.retries == 3
    # What others have done is kept.
    assert {path.name for path in parts(tmp_path / "run")} >= {"000000000000-32-rows.npz"}


def test_a_failure_that_passes_is_tried_again(engine, pictures, plain, tmp_path, capsys):
    marks = tmp_path / "marks"
    marks.mkdir()
    for i in range(2):
        (marks / str(i)).touch()
    found = evaluate(*pictures, extractor=Transient(marks), engine=engine)
    assert dict(found) == dict(plain)
    assert found.run["retries"] == 2
    assert "are read again: [Errno 5] Input/output error: '/far/away.tar'" in capsys.readouterr().err


def test_a_failure_that_stays_is_the_error_of_one_process(engine, pictures, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    for i in range(40):
        (marks / str(i)).touch()
    with pytest.raises(OSError, match=r"Input/output error: '/far/away\.tar'"):
        evaluate(*pictures, extractor=Transient(marks), engine=engine)


def test_errors_of_images_are_those_of_one_process(engine, pictures):
    (pictures[0] / "070.png").write_bytes(b"no picture")
    with pytest.raises(ImageError) as expected:
        evaluate(*pictures, extractor=GridMeans())
    with pytest.raises(ImageError) as raised:
        evaluate(*pictures, extractor=GridMeans(), engine=engine)
    assert str(raised.value) == str(expected.value)
    with pytest.warns(SkippedImagesWarning, match="skipped 1 unreadable"):
        plain = evaluate(*pictures, extractor=GridMeans(), on_error="skip")
    with pytest.warns(SkippedImagesWarning, match="skipped 1 unreadable"):
        found = evaluate(*pictures, extractor=GridMeans(), on_error="skip", engine=engine)
    assert (dict(found), found.skipped) == (dict(plain), plain.skipped)


def test_errors_that_cannot_be_pickled_keep_their_text(engine, pictures):
    with pytest.raises(RuntimeError, match=r"^1 of 2$"):
        evaluate(*pictures, extractor=Fails(), engine=engine)


def test_a_network_that_workers_cannot_import_is_said(engine, pictures, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from stubs import GridMeans\n\nclass Mine(GridMeans):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Mine

    with pytest.raises(ImportError, match=r"^engine ray: .*No module named 'only_here': the module of the network"):
        evaluate(*pictures, extractor=Mine(), engine=engine)


def test_workers_for_which_there_is_no_room_are_an_error(cluster, pictures):
    with (
        RayEngine(1, address=cluster.address, threads=64, start_timeout=2) as engine,
        pytest.raises(
            RuntimeError,
            match=r"no worker has started in 2 s: a worker asks for 64 CPUs and 0 GPUs; the cluster has 1 x 2 CPUs",
        ),
    ):
        evaluate(*pictures, extractor=GridMeans(), engine=engine)


def test_no_cluster_at_the_address_is_an_error(pictures):
    with (
        RayEngine(1, address="127.0.0.1:1") as engine,
        pytest.raises(
            ConnectionError, match=r"^engine ray: 127\.0\.0\.1:1: there is no cluster \(.*Connection refused\)$"
        ),
    ):
        evaluate(*pictures, extractor=GridMeans(), engine=engine)


def test_parts_are_checked_and_a_full_disk_is_one_sentence(engine, pictures, plain, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    keep = RunDirectory.keep

    def full(self, task, part):
        if task.first == 64:
            raise OSError(28, os.strerror(28), str(self.file_of(task)))
        keep(self, task, part)

    monkeypatch.setattr(RunDirectory, "keep", full)
    with pytest.raises(OSError, match=r"No space left on device: .*000000000064-32-rows\.npz"):
        evaluate(*pictures, extractor=GridMeans(), engine=engine, run_dir=run)
    monkeypatch.undo()
    kept = parts(run)
    data = bytearray(kept[0].read_bytes())
    data[len(data) // 2] ^= 1
    kept[0].write_bytes(data)
    found = evaluate(*pictures, extractor=GridMeans(), engine=engine, run_dir=run)
    assert dict(found) == dict(plain)
    assert found.run["resumed"] == len(kept) - 1
    assert "is damaged" in capsys.readouterr().err
    assert leftovers(run) == []


def driver(cluster, pictures, run, network="Slow()"):
    """Start a driver of its own."""
    script = textwrap.dedent(
        f"""
        import sys
        from ray_networks import *
        from fastfid import evaluate
        from fastfid.scale.ray import RayEngine
        with RayEngine(2, address={cluster.address!r}) as engine:
            found = evaluate({str(pictures[0])!r}, {str(pictures[1])!r}, extractor={network}, engine=engine,
                             run_dir={str(run)!r})
        print(found["fid"].value.hex(), found.real.n, found.fake.n)
        """
    )
    env = {**os.environ, "PYTHONPATH": PATH}
    return subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)


def test_a_driver_that_is_killed_goes_on_with_what_is_missing(cluster, engine, pictures, plain, tmp_path):
    run = tmp_path / "run"
    with driver(cluster, pictures, run) as process:
        until(lambda: len(parts(run)) >= 2, "no Part was written")
        process.send_signal(signal.SIGKILL)
    done = len(parts(run))
    assert 2 <= done < 8
    directory = RunDirectory(run)
    found = evaluate(*pictures, extractor=GridMeans(), engine=engine, run_dir=directory)
    assert dict(found) == dict(plain)
    assert (directory.found, directory.done) == (done, 8 - done)


def test_two_drivers_on_one_directory_do_no_harm(cluster, pictures, plain, tmp_path):
    expected = f"{plain['fid'].value.hex()} 130 95\n"
    both = [driver(cluster, pictures, tmp_path / "run") for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [expected, expected]
    assert [process.returncode for process in both] == [0, 0]
    assert len(parts(tmp_path / "run")) == 8


def test_a_machine_that_is_lost_costs_what_it_was_doing(pictures, plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", PATH)
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = two.add_node(num_cpus=1)
        with RayEngine(2, address=two.address) as engine:
            thread = threading.Thread(
                target=lambda: (
                    until(lambda: engine.at_work == 2 and parts(tmp_path / "run"), "no two workers"),
                    two.remove_node(second, allow_graceful=False),
                )
            )
            thread.start()
            found = evaluate(*pictures, extractor=Slow(), engine=engine, run_dir=tmp_path / "run")
            thread.join()
        assert dict(found) == dict(plain)
        assert (found.real.n, found.fake.n, found.run["workers"]) == (130, 95, 2)
        assert 1 <= found.run["retries"] <= 2
        assert "as the worker is lost" in capsys.readouterr().err
    finally:
        two.shutdown()


def fastfid_command(*words, **options):
    env = {**os.environ, "PYTHONPATH": PATH, **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "fastfid", *map(str, words)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_the_command_prints_what_one_process_prints(cluster, weights, pictures, capsys):
    network = ("--dims", "64", "--quiet")
    assert cli.main([*map(str, pictures), *network]) == 0
    expected = capsys.readouterr().out
    with fastfid_command(*pictures, *network, "--engine", "ray", "--ray-address", cluster.address) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, expected, "")


def test_the_command_with_a_worker_that_dies_prints_its_record_alone(cluster, weights, pictures, tmp_path):
    """Ray prints on stdout that a worker died."""
    words = (*pictures, "--dims", "64", "--json", "--engine", "ray", "--ray-address", cluster.address)
    with fastfid_command(*words, "--workers", "2", "--run-dir", tmp_path / "run") as process:
        until(lambda: parts(tmp_path / "run"), "no Part was written")
        worker = next(
            one for one in psutil.process_iter(["cmdline"]) if "ray::Worker" in (one.info["cmdline"] or [""])[0]
        )
        worker.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0
    record = json.loads(out)
    assert record["n"] == {"real": 130, "fake": 95}
    assert record["run"]["engine"] == "ray"
    assert record["run"]["retries"] == 1
    assert all(line.startswith("fastfid: ") for line in err.splitlines()), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupt_leaves_no_process_and_no_file(weights, pictures, number):
    """Ray is started by the command itself, and the signal goes to the whole group, as from a terminal."""
    words = (*pictures, "--dims", "64", "--engine", "ray", "--workers", "2")
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # Ray's sockets are in it, and their paths may have 107 bytes
    shared = set(os.listdir("/dev/shm"))
    with fastfid_command(*words, env={"TMPDIR": str(scratch)}, start_new_session=True) as process:
        until(lambda: list(scratch.rglob("*-rows.npz")), "no Part was written")
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) > 3
        os.killpg(process.pid, number)
        out, err = process.communicate()
    assert process.returncode == 128 + number
    assert out == ""
    assert err.splitlines()[-1] == f"fastfid: {'interrupted' if number == signal.SIGINT else 'terminated'}"
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started), started)
    assert leftovers(scratch) == []
    until(lambda: set(os.listdir("/dev/shm")) <= shared, "shared memory is left")
    shutil.rmtree(scratch)


def test_a_cluster_of_the_caller_is_left_running(cluster, pictures, plain):
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with pytest.MonkeyPatch.context():
            found = evaluate(*pictures, extractor=GridMeans(), engine="ray", workers=2)
        assert dict(found) == dict(plain)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
