"""The command line: stdout and stderr, exit codes, and one sentence for every invalid input."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from tolerances import SCIPYS_ROOT_SMALL, SINGULAR_FROM_FILE

from fastfid import Statistics, __version__
from fastfid.cli import main


def gaussian(seed, d=64, n=200):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x.mean(0), np.cov(x.T)


@pytest.fixture
def two_files(tmp_path):
    paths = []
    for seed in (1, 2):
        mu, sigma = gaussian(seed)
        paths.append(tmp_path / f"{seed}.npz")
        np.savez_compressed(paths[-1], mu=mu, sigma=sigma)
    return paths


def failing(result, *patterns):
    """Assert exit code 1, an empty stdout, one sentence on stderr that matches all patterns, and no traceback."""
    code, out, err = result
    assert code == 1
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("fastfid: error: ")
    for pattern in patterns:
        assert re.search(pattern, last), (pattern, last)


# stdout


def test_stdout_is_pytorch_fids(run, two_files):
    code, out, err = run(*two_files)
    assert code == 0
    assert re.fullmatch(r"FID:  \d+\.\d+\n", out)
    assert re.fullmatch(r"fastfid: neither \S+ nor \S+ says its protocol: [^\n]*\n", err)
    assert run(*two_files, "--quiet")[2] == ""
    mu1, sigma1 = gaussian(1)
    mu2, sigma2 = gaussian(2)
    import scipy.linalg

    truth = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * scipy.linalg.sqrtm(sigma1 @ sigma2).real)
    assert float(out.split()[-1]) == pytest.approx(truth, rel=SCIPYS_ROOT_SMALL)


def test_json(run, two_files):
    code, out, _ = run(*two_files, "--json")
    record = json.loads(out)
    assert code == 0
    assert record["numerical_lower"] <= record["fid"] <= record["numerical_upper"]
    assert record["n"] == {"real": None, "fake": None}
    assert record["versions"]["fastfid"] == __version__
    assert {"protocol", "extractor", "seconds", "dims"} <= set(record)
    assert record["command"] == ["fastfid", *map(str, two_files), "--json"]
    assert record["host"] == os.uname().nodename
    again = json.loads(run(*two_files, "--metrics", "fid", "--json")[1])
    timed = ("seconds", "date", "command")
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in record.items() if k not in timed}


def test_the_standard_error_is_said(run, tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((500, 6)) * scale for scale in (1, 1.2)]
    sides = [Statistics.from_features(x, {"protocol": "clean"}, f"{k}") for k, x in enumerate(rows)]
    paths = [side.save(tmp_path / f"{k}.npz") for k, side in enumerate(sides)]
    code, out, err = run(*paths)
    assert code == 0
    assert re.fullmatch(r"FID:  \d+\.\d+\n", out)
    record = json.loads(run(*paths, "--json")[1])
    assert f"standard error of sampling: {record['standard_error']:.4g} (itself good to " in err
    assert run(*paths, "--quiet")[1:] == (out, "")
    bare = sides[0].save(tmp_path / "bare.npz", rows=False)
    assert ", of the second set alone: the first counts as fixed)" in run(bare, paths[1])[2]
    assert "standard error" not in run(paths[1], bare)[2]
    record = json.loads(run(paths[1], bare, "--json")[1])
    assert (record["standard_error"], record["standard_error_of"]) == (None, None)
    assert record["no_standard_error"].startswith(f"{bare}: holds no sample of its features")


def test_precision_that_the_cpu_does_not_have(run, tmp_path, two_files):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    code, out, err = run(folder, folder, "--device", "cpu", "--precision", "float16")
    assert (code, out) == (1, "")
    assert "precision: the CPU has 'float32' only, got 'float16'; it needs a CUDA device" in err
    assert run(*two_files, "--precision", "half")[0] == 2


def test_dims_are_ignored_for_two_statistics(run, two_files):
    assert run(*two_files, "--dims", 768)[1] == run(*two_files)[1]


def test_two_statistics_load_no_network(two_files):
    code = (
        "import sys; from fastfid.cli import main; main(sys.argv[1:]);"
        "print(sorted({'onnxruntime', 'torch', 'scipy', 'fastfid.features.inception'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code, *map(str, two_files)], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_help_teaches(run):
    code, out, err = run("--help")
    assert code == 0
    assert err == ""
    flags = (
        "--batch-size --num-workers --device --dims --save-stats --protocol --recursive --json --on-error --max-errors"
        " --append --hash-inputs"
    )
    for flag in (flags + " --weights --num --seed --alpha --force --threads --quiet --version").split():
        assert flag in out
    for word in ("examples:", "FASTFID_WEIGHTS", "exit codes", "fastfid stats"):
        assert word in out


@pytest.mark.parametrize("command", ["stats", "weights", "info", "demo"])
def test_help_of_commands(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"usage: fastfid {command}" in out


def test_version(run):
    assert run("--version")[:2] == (0, f"fastfid {__version__}\n")


# usage errors


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["one"],
        ["a", "b", "c"],
        ["a", "b", "--dims", "100"],
        ["a", "b", "--batch-size", "0"],
        ["a", "b", "--batch-size", "x"],
        ["a", "b", "--num-workers", "-1"],
        ["a", "b", "--on-error", "ignore"],
        ["a", "b", "--on-error", "skip", "--max-errors", "-1"],
        ["a", "b", "--max-errors", "3"],
        ["stats", "a", "-o", "b", "--max-errors", "3"],
        ["a", "b", "--threads", "0"],
        ["a", "b", "--unknown"],
        ["a", "b", "--metrics", "kid,fid,kid"],
        ["a", "b", "--hash-inputs"],
        ["a", "b", "--protocol", "best"],
        ["a", "b", "--device", "tpu"],
        ["a", "b", "--device", "cuda:x"],
        ["stats", "x"],
        ["weights", "steal"],
    ],
)
def test_wrong_usage_is_2(run, argv):
    code, out, err = run(*argv)
    assert code == 2
    assert out == ""
    assert "usage: fastfid" in err


def test_a_path_that_is_called_like_a_command(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stats").mkdir()
    monkeypatch.setattr(sys, "argv", ["fastfid", "stats", "other"])
    code, _, err = run("stats", "other")
    assert code == 2
    assert "./stats" in err


# bad input


def test_missing_path_is_said_before_any_work(run, two_files, tmp_path):
    failing(run(two_files[0], tmp_path / "nowhere"), "Invalid path: .*nowhere")


@pytest.mark.parametrize("name", ["empty", "text only"])
def test_folder_without_images(run, two_files, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    if name != "empty":
        (folder / "readme.md").write_text("x")
    failing(run(folder, two_files[0], "--dims", 64), re.escape(str(folder)), "png")


@pytest.mark.parametrize(
    ("arrays", "patterns"),
    [
        ({"mu": np.zeros(64)}, ["sigma"]),
        ({"nothing": np.zeros(3)}, ["mu|arr_0"]),
        ({"mu": np.full(64, np.nan), "sigma": np.eye(64)}, ["NaN"]),
        ({"mu": np.zeros(32), "sigma": np.eye(32)}, ["32", "64"]),
        ({"mu": np.zeros(64), "sigma": np.diag([-1.0] + [1.0] * 63)}, ["Imaginary component"]),
        ({"mu": np.array([{}] * 64), "sigma": np.eye(64)}, ["objects"]),
    ],
)
def test_bad_statistics_are_named(run, two_files, tmp_path, arrays, patterns):
    bad = tmp_path / "bad.npz"
    np.savez(bad, **arrays)
    failing(run(two_files[0], bad), r"bad\.npz", *patterns)
    failing(run(bad, two_files[0]), r"bad\.npz", *patterns)


@pytest.mark.parametrize("name", ["junk.npz", "junk.zip", "junk.tar", "junk.npy", "junk.txt", "junk"])
def test_junk_files(run, two_files, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is not what its name says")
    failing(run(path, two_files[0], "--dims", 64), re.escape(str(path)))


def folder_of(tmp_path, name, n, size=(40, 50)):
    folder = tmp_path / name
    folder.mkdir()
    rng = np.random.default_rng(n)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


def test_one_image(run, two_files, tmp_path, weights):
    failing(run(folder_of(tmp_path, "one", 1), two_files[0], "--dims", 64), "one", "at least 2 images, got 1")


@pytest.mark.parametrize("damage", ["truncated", "junk", "empty"])
def test_unreadable_image_is_named(run, two_files, tmp_path, damage, weights):
    folder = folder_of(tmp_path, "some", 4)
    victim = folder / "002.png"
    data = victim.read_bytes()
    victim.write_bytes({"truncated": data[: len(data) // 2], "junk": b"junk", "empty": b""}[damage])
    failing(run(folder, two_files[0], "--dims", 64), r"002\.png")
    code, out, err = run(folder, two_files[0], "--dims", 64, "--on-error", "skip", "--quiet")
    assert code == 0
    assert out.startswith("FID:  ")
    assert "skipped 1 unreadable images" in err
    assert "002.png" in err
    failing(run(folder, two_files[0], "--dims", 64, "--on-error", "skip", "--max-errors", 0), r"002\.png")


def test_an_image_that_is_too_small_for_the_network_is_named(run, two_files, tmp_path, weights):
    result = run(folder_of(tmp_path, "some", 3), two_files[0], "--dims", 64, "--protocol", "none")
    failing(result, r"error: \S+/some/000\.png: protocol 'none' does not resize .* got height 40, width 50$")


def test_statistics_of_other_dims_are_refused_before_the_network(run, two_files, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_WEIGHTS", str(tmp_path / "no-such-weights"))  # would fail if it were reached
    failing(run(folder_of(tmp_path, "two", 2), two_files[0], "--dims", 192), "64 dims", "192")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_such_device_is_said_before_weights_are_fetched(run, two_files, tmp_path, monkeypatch, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FASTFID_WEIGHTS", str(tmp_path / "no-such-weights"))
    failing(run(folder_of(tmp_path, "two", 2), two_files[0], "--dims", 64, "--device", device), "device|CUDA", device)


def test_wrong_weights(run, two_files, tmp_path):
    junk = tmp_path / "weights.pth"
    junk.write_bytes(b"junk" * 100)
    failing(run(folder_of(tmp_path, "two", 2), two_files[0], "--dims", 64, "--weights", junk), r"weights\.pth")
    failing(run("weights", "verify", "--weights", junk), r"weights\.pth")


def test_weights_come_into_the_cache_from_a_file(run, tmp_path, monkeypatch, weights):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    carried = tmp_path / "default_1.pt"
    carried.write_bytes(weights.content)
    code, out, _ = run("weights", "get", "--weights", carried)
    assert code == 0
    assert out.startswith(str(tmp_path / "cache"))
    carried.unlink()
    assert weights.identity in run("weights", "verify")[1]
    assert str(tmp_path / "cache") in run("weights", "show")[1]


def test_verifying_fetches_nothing(run, tmp_path, monkeypatch):
    def reached(*args):
        raise AssertionError

    monkeypatch.setattr("fastfid.features.weights.fetch._fetch", reached)
    monkeypatch.delenv("FASTFID_WEIGHTS", raising=False)
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    code, out, err = run("weights", "verify")
    assert (code, out) == (1, "")
    assert "not in the cache" in err
    assert "`fastfid weights get` fetches them" in err
    assert run("weights", "show")[0] == 0


# statistics out


def test_save_stats(run, tmp_path, weights):
    folder = folder_of(tmp_path, "some", 4)
    out_file = tmp_path / "out.npz"
    code, out, err = run("--save-stats", folder, out_file, "--dims", 64)
    assert (code, out) == (0, "")
    assert f"Saving statistics for {folder}" in err
    saved = Statistics.load(out_file)
    assert saved.n == 4
    assert saved.d == 64
    assert saved.meta["protocol"] == "pytorch-fid"
    # A second time: refused, and the file is as it was.
    before = out_file.read_bytes()
    failing(run("--save-stats", folder, out_file, "--dims", 64), r"Existing output file: .*out\.npz")
    failing(run("--save-stats", folder, tmp_path / "out", "--dims", 64), r"Existing output file: .*out\.npz")
    failing(run("stats", folder, "-o", out_file, "--dims", 64), "Existing output file")
    assert out_file.read_bytes() == before
    # The file stands for the folder.
    direct = run(folder, folder, "--dims", 64)[1]
    via_file = run(folder, out_file, "--dims", 64)[1]
    assert float(via_file.split()[-1]) == pytest.approx(float(direct.split()[-1]), abs=SINGULAR_FROM_FILE)


def test_save_stats_never_takes_the_name_of_anything_that_is_there(run, two_files, tmp_path):
    (tmp_path / "folder").mkdir()
    failing(run("--save-stats", two_files[0], tmp_path / "folder"), "Existing output file: .*folder$")


def test_save_stats_resaves_statistics(run, two_files, tmp_path):
    assert run("--save-stats", two_files[0], tmp_path / "copy.npz")[0] == 0
    np.testing.assert_array_equal(Statistics.load(tmp_path / "copy.npz").sigma, Statistics.load(two_files[0]).sigma)


def test_save_stats_into_no_folder(run, two_files, tmp_path):
    failing(run("--save-stats", two_files[0], tmp_path / "no" / "x.npz"), "there is no folder")


def test_an_output_that_cannot_be_written_is_said_before_any_work(run, tmp_path, monkeypatch):
    def full(**options):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / ".out.npz.tmp"))

    monkeypatch.setattr("fastfid._files.tempfile.mkstemp", full)
    monkeypatch.setenv("FASTFID_WEIGHTS", str(tmp_path / "no-such-weights"))  # would fail if it were reached
    failing(
        run("stats", folder_of(tmp_path, "some", 4), "-o", tmp_path / "out.npz", "--dims", 64),
        r"error: .*/out\.npz: Read-only file system$",
    )


def test_stats_command(run, tmp_path, weights):
    folder = folder_of(tmp_path, "some", 5)
    code, out, err = run("stats", folder, "-o", tmp_path / "s.npz", "--dims", 192, "--num", 3, "--seed", 1)
    assert (code, out) == (0, "")
    assert "n = 3, d = 192" in err
    assert Statistics.load(tmp_path / "s.npz").n == 3


@pytest.mark.parametrize("flag", ["--cache", "--cache-hashes"])
def test_the_cache_of_statistics(run, two_files, tmp_path, monkeypatch, weights, flag):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    carried = tmp_path / "default_1.pt"
    carried.write_bytes(weights.content)
    folder = folder_of(tmp_path, "some", 4)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)  # fresh files are not kept
    argv = [folder, two_files[0], "--dims", 64, "--weights", carried, flag]
    first, again = run(*argv), run(*argv)
    remark = f"fastfid: {folder}: statistics from the cache"
    assert first[0] == again[0] == 0
    assert remark not in first[2]
    assert remark in again[2]
    assert float(first[1].split()[-1]) == pytest.approx(float(again[1].split()[-1]), abs=SINGULAR_FROM_FILE)
    assert remark not in run(*argv, "--alpha")[2]


def test_different_protocols_are_refused(run, two_files, tmp_path):
    mu, sigma = gaussian(3)
    paths = [Statistics(mu, sigma, 200, {"protocol": p}).save(tmp_path / f"{p}.npz") for p in ("pytorch-fid", "clean")]
    failing(run(*paths), r"pytorch-fid\.npz was made with protocol pytorch-fid, .*clean\.npz with clean", "--force")
    assert run(*paths, "--force")[0] == 0


# the process


def fastfid(*argv, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "fastfid", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def wait_for(text, process):
    """Return whether the process prints `text` on stderr before it ends."""
    return any(text in line for line in iter(process.stderr.readline, ""))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path, number, code, weights):
    folder = folder_of(tmp_path, "many", 400)
    process = fastfid("stats", folder, "-o", tmp_path / "s.npz", "--dims", 2048)
    assert wait_for("Saving statistics", process)
    time.sleep(2.0)  # into the network
    assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["many"]


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the system refuses every byte beyond, as on a full disk
from fastfid.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_is_full_while_statistics_are_saved(two_files, tmp_path):
    (tmp_path / "out").mkdir()
    argv = ["stats", two_files[0], "-o", tmp_path / "out" / "s.npz"]
    command = [sys.executable, "-c", FULL, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failing((done.returncode, done.stdout, done.stderr), r"s\.npz: File too large$")
    assert os.listdir(tmp_path / "out") == []
    done = subprocess.run([*command[:2], FULL.replace("4096", "1 << 30"), *command[3:]], check=True)
    assert os.listdir(tmp_path / "out") == ["s.npz"]


SAVING = """
import sys, time
import numpy as np
def slowly(stream, **arrays):
    stream.write(bytes(5000))
    stream.flush()
    print("saving", flush=True)
    time.sleep(60)
np.savez_compressed = slowly
from fastfid.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_statistics_are_saved(two_files, tmp_path, number, code):
    (tmp_path / "out").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SAVING, "stats", two_files[0], "-o", tmp_path / "out" / "s.npz"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "saving\n"
    assert len(os.listdir(tmp_path / "out")) == 1  # the temporary file
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert os.listdir(tmp_path / "out") == []


INSIDE_EXEC = """
import sys
from fastfid import cli
from fastfid.cli import stats
string = "import os, signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(5)"
stats.run = lambda argv: exec(string)
sys.exit(cli.main(["stats"]))
"""


@pytest.mark.parametrize(("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_interrupted_inside_exec(tmp_path, name, code, said):
    """An interrupt in exec(), as in an import that defines a namedtuple. The error occurs only with `python -m`."""
    (tmp_path / "inside.py").write_text(INSIDE_EXEC.format(name=name))
    command = [sys.executable, "-m", "inside"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"fastfid: {said}\n")


INSIDE_DEL = """
import os, signal, sys, time
from fastfid import cli
from fastfid.cli import stats

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(5)

def run(words):
    Last()
    time.sleep(20)
    return 0

stats.run = run
sys.exit(cli.main(["stats"]))
"""


@pytest.mark.parametrize(("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_interrupted_where_python_drops_exceptions(name, code, said):
    done = subprocess.run(
        [sys.executable, "-c", INSIDE_DEL.format(name=name)], capture_output=True, text=True, check=False, timeout=15
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"fastfid: {said}\n")


LONG_CLEANUP = """
import os, signal, sys, time
from fastfid import cli
from fastfid.cli import stats

def run(words):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    finally:
        for number, pause in ((signal.SIGINT, 1.1), (signal.SIGINT, 60)):
            os.kill(os.getpid(), number)
            print("cleans up", flush=True)
            time.sleep(pause)

stats.run = run
sys.exit(cli.main(["stats"]))
"""


def test_a_later_signal_ends_the_cleanup():
    """A second signal at once does not; the exit code is that of the first."""
    done = subprocess.run([sys.executable, "-c", LONG_CLEANUP], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleans up\n", "")


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
def test_interrupted_while_it_starts(tmp_path, delay, weights):
    """An interrupt during an import can be replaced by an ImportError."""
    process = fastfid(folder_of(tmp_path, "many", 100), tmp_path / "many", "--dims", 2048)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == ""
    if err.rstrip().endswith("fastfid: interrupted"):
        assert process.returncode == 130
        assert "Traceback" not in err
    else:  # before main() is reached: Python itself ends the process, or the system does while Python starts
        assert process.returncode in ((1, -signal.SIGINT) if "Traceback" in err else (-signal.SIGINT,)), err
        assert "Traceback" in err or not err


@pytest.mark.parametrize(("closed", "argv", "code"), [(1, [], 0), (2, [], 0), (2, ["nowhere"], 1)])
def test_closed_streams(two_files, closed, argv, code):
    paths = [*map(str, two_files)] if not argv else [str(two_files[0]), *argv]
    command = f'exec "$@" {closed}>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "fastfid", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (closed == 2 and code == 0)


CRASH = """
import ctypes, os, signal, sys
from fastfid.cli import main
from fastfid.sources.picture import Decoder
decode = Decoder.decode_file
def crash(self, path):
    if path.endswith("013.png"):
        {how}
    return decode(self, path)
Decoder.decode_file = crash
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("ctypes.string_at(0)", signal.SIGSEGV),
        ("ctypes.CDLL(None).abort()", signal.SIGABRT),
        ("signal.pthread_kill(__import__('threading').get_ident(), signal.SIGBUS)", signal.SIGBUS),
    ],
)
@pytest.mark.parametrize("workers", [0, 3])
def test_a_decoder_that_crashes_is_reported_with_its_file(tmp_path, weights, how, number, workers):
    """A C library that crashes on a picture ends the whole process, including worker threads."""
    folder = folder_of(tmp_path, "some", 20)
    argv = ["stats", folder, "-o", tmp_path / "s.npz", "--dims", 64, "--num-workers", workers]
    command = [sys.executable, "-c", CRASH.format(how=how), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert done.stdout == ""
    name = f"{folder}/013.png: the process crashed while this image was decoded ({number.name})"
    assert done.stderr.splitlines()[-1] == f"fastfid: error: {name}"
    assert sorted(os.listdir(tmp_path)) == ["some"]


def test_a_crash_elsewhere_names_no_image(two_files):
    script = "import ctypes; from fastfid import _core; _core.report_crashes(); _core.set_current_image('x')"
    script += "; _core.set_current_image(''); ctypes.string_at(0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGSEGV, "")


HOSTILE = "é\x1b[31m\nfastfid: ok\x9b\x7f.png"
SHOWN = r"é\x1b[31m\x0afastfid: ok\x9b\x7f.png"


def hostile_tar(path, content):
    with tarfile.open(path, "w") as archive:
        for name in (HOSTILE, "ö.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_name_in_an_archive_writes_no_line_of_its_own(run, tmp_path, weights):
    path = hostile_tar(tmp_path / "x.tar", b"no picture")
    code, out, err = run("stats", path, "-o", tmp_path / "s.npz", "--dims", 64, "--quiet")
    assert (code, out) == (1, "")
    assert err.startswith("fastfid: error: ")
    assert SHOWN in err
    assert err.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)


@pytest.mark.parametrize("name", [HOSTILE, "é\x1b" * 300])
def test_nor_when_the_process_crashes(name):
    script = "import ctypes, sys; from fastfid import _core; _core.report_crashes()"
    script += f"; _core.set_current_image({name!r}); ctypes.string_at(0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    shown = SHOWN if name == HOSTILE else r"é\x1b" * 300
    line = f"fastfid: error: {shown}: the process crashed while this image was decoded (SIGSEGV)\n"
    assert (done.returncode, done.stderr.decode()) == (-signal.SIGSEGV, line)


def test_the_traceback_of_an_error_is_for_who_asks(run, two_files, monkeypatch):
    argv = (two_files[0], two_files[1].with_name("3.npz"))
    failing(run(*argv), r"3\.npz")
    monkeypatch.setenv("FASTFID_TRACEBACK", "1")
    with pytest.raises((OSError, RuntimeError), match=r"3\.npz"):
        run(*argv)


@pytest.mark.parametrize(("text", "said"), [("", "out of memory"), ("1.npz: not enough memory", "1.npz: not enough")])
def test_an_error_of_memory_is_a_sentence(run, monkeypatch, text, said):
    def without_memory(argv):
        raise MemoryError(*filter(None, [text]))

    monkeypatch.setattr("fastfid.cli.stats.run", without_memory)
    failing(run("stats"), f"error: {said}")


def test_what_else_python_drops_goes_to_the_hook_of_the_process(run, monkeypatch):
    class Last:
        def __del__(self):
            raise ValueError("of a __del__")

    def drops(argv):
        Last()
        return 0

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(str(found.exc_value)))
    monkeypatch.setattr("fastfid.cli.stats.run", drops)
    assert run("stats") == (0, "", "")
    assert dropped == ["of a __del__"]


def test_main_leaves_the_process_as_it_was(two_files, capsys):
    import threading
    import warnings

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), warnings.showwarning
    thread = threading.Thread(target=main, args=([*map(str, two_files)],))
    thread.start()
    thread.join()
    assert capsys.readouterr().out.startswith("FID:  ")
    main([*map(str, two_files)])
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), warnings.showwarning)


def test_reader_that_goes_away(two_files):
    process = fastfid(*two_files, "--json")
    process.stdout.close()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "| true"])
def test_nobody_on_stderr_costs_no_result(two_files, tmp_path, stderr):
    """A remark comes before the result."""
    command = '("$@" >fid.txt; echo $? >code) 2>&1 | true'
    if stderr != "| true":
        command = f'"$@" >fid.txt {stderr}; echo $? >code'
    argv = [sys.executable, "-m", "fastfid", *map(str, two_files), "--protocol", "clean"]
    # A buffer keeps what could not be written, and Python would fail to write it at the end.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    subprocess.run(["sh", "-c", command, "sh", *argv], cwd=tmp_path, env=buffered, check=True)
    assert (tmp_path / "code").read_text() == "0\n"
    assert re.fullmatch(r"FID:  \d+\.\d+\n", (tmp_path / "fid.txt").read_text())


def test_help_on_a_terminal_that_knows_ascii():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "fastfid", "--help"], capture_output=True, env=environment, check=True)
    assert b"Fr\\xe9chet Inception Distance" in done.stdout


def test_an_output_without_a_name(run, two_files):
    failing(run("stats", two_files[0], "-o", ""), "the output file has no name")


@pytest.mark.parametrize("option", [["--json"], ["--force"], ["--append", "x"], ["--hash-inputs"]])
def test_save_stats_has_no_distance(run, two_files, tmp_path, option):
    code, out, err = run(two_files[0], tmp_path / "x.npz", "--save-stats", *option)
    assert (code, out) == (2, "")
    assert f"{option[0]}: there is no distance with --save-stats" in err


def test_options_that_statistics_make_superfluous_are_named(run, two_files, tmp_path):
    plain = run(*two_files)
    code, out, err = run(*two_files, "--protocol", "clean", "--num", "10", "--weights", "none")
    assert (code, out) == (0, plain[1])
    assert err == f"{plain[2]}fastfid: --protocol, --weights, --num: ignored, as no image is read\n"
    assert run(*two_files, "--protocol", "clean", "--quiet") == (0, plain[1], "")
    code, _, err = run("stats", two_files[0], "-o", tmp_path / "x.npz", "--protocol", "clean")
    assert code == 0
    assert "1.npz: holds statistics already, which were copied" in err
    assert "--protocol: ignored" in err


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_two_signals_at_once(tmp_path, number, code, pause, weights):
    process = fastfid("stats", folder_of(tmp_path, "many", 400), "-o", tmp_path / "s.npz", "--dims", 2048)
    assert wait_for("Saving statistics", process)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(number)
    time.sleep(pause)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert os.listdir(tmp_path) == ["many"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a", "b", "--protocl", "clean"], "unrecognized arguments: --protocl clean; did you mean --protocol?"),
        (["a", "b", "--protocol", "cleen"], "got 'cleen'; did you mean clean?"),
        (["a", "b", ""], "unrecognized arguments: "),
        (["stat", "a", "-o", "b"], "there is no path and no command stat; did you mean stats?"),
        (
            ["kid", "a", "b"],
            "kid is neither a path nor one of the commands adm, compare, report, stats, inspect, plan, part, reduce,"
            " extractors, study, weights, info, demo, completion",
        ),
        (["stats", "a.tar", "b.tar", "-o", "x"], "a pattern of several files is one path if it is quoted"),
        (["a"], "two PATHs are needed"),
        ([f"{i:06}.png" for i in range(5000)], "000002.png 000003.png 000004.png ... (4998 words)"),
        (["a", "b", "--value-range", "1"], "--value-range: expected 2 arguments"),
        (["a", "b", "--threads", "many"], "expected an integer, got 'many'"),
    ],
)
def test_wrong_usage_says_what_may_be_meant(run, argv, said):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err) < 500


def test_a_command_that_is_misspelt(run):
    failing(run("weigths", "show"), "Invalid path: weigths", "did you mean weights")


@pytest.mark.parametrize("name", ["o", "o.npz"])
def test_overwriting_is_asked_for(run, two_files, tmp_path, name):
    first, second = two_files
    assert run("stats", first, "-o", tmp_path / name)[0] == 0
    failing(run("stats", second, "-o", tmp_path / name), r"Existing output file: .*o\.npz \(--overwrite replaces it\)")
    assert run("stats", second, "-o", tmp_path / name, "--overwrite")[0] == 0
    np.testing.assert_array_equal(Statistics.load(tmp_path / "o.npz").mu, Statistics.load(second).mu)
    (tmp_path / "folder.npz").mkdir()
    failing(run("stats", first, "-o", tmp_path / "folder.npz", "--overwrite"), "Existing output file")


def test_progress_in_a_log_file(run, tmp_path, two_files, weights):
    folder = folder_of(tmp_path, "some", 4)
    argv = [folder, two_files[0], "--dims", 64]
    assert "some: 4 img in 0:0" in run(*argv, "--progress")[2]
    assert "img" not in run(*argv)[2]
    assert "img" not in run(*argv, "--progress", "--quiet")[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fastfid", "sta"], "stats"),
        (["fastfid", "study", "dis"], "disturb"),
        (["fastfid", "real", "--prot"], "--protocol"),
        (["fastfid", "real", "--protocol", "cl"], "clean"),
        (["fastfid", "real", "--app"], "--append"),
        (["fastfid", "stats", "--overw"], "--overwrite"),
        (["fastfid", "weights", "ver"], "verify"),
        (["fastfid", "fol"], "folder"),
    ],
)
def test_completion_in_bash(run, tmp_path, words, expected):
    (tmp_path / "folder").mkdir()
    script = run("completion", "bash")[1]
    quoted = " ".join(f"'{word}'" for word in words)
    script += f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _fastfid; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]
    assert "bashcompinit" in run("completion", "zsh")[1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--protocol", "torch-fidelity"], "did you mean tensorflow?"),
        (["--protocol", "ADM"], "did you mean tensorflow?"),
        (["--protocol", "clean-fid"], "did you mean clean?"),
        (["--nu", "3"], "unrecognized arguments: --nu"),  # of --num and --num-workers
        (["--batch", "3"], "unrecognized arguments: --batch"),
    ],
)
def test_words_that_are_nearly_right(option, said, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["a", "b", *option])
    assert ended.value.code == 2
    assert said in capfd.readouterr().err


def test_statistics_and_stores_are_inspected(tmp_path, capfd, weights):
    folders = [str(folder_of(tmp_path, name, 3)) for name in "ab"]
    options = ["--dims", "64", "--quiet", "--device", "cpu"]
    assert main(["stats", folders[0], "-o", str(tmp_path / "a.npz"), *options]) == 0
    assert main([*folders, "--store", str(tmp_path / "kept"), *options]) == 0
    capfd.readouterr()
    for path, kind in ((tmp_path / "a.npz", "statistics"), (next((tmp_path / "kept").iterdir()), "store of features")):
        assert main(["inspect", str(path), "--json"]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert (facts["kind"], facts["n"], facts["dims"], facts["protocol"]) == (kind, 3, 64, "pytorch-fid")
        assert main(["inspect", str(path)]) == 0
        assert re.search(r"^n +3$", capfd.readouterr().out, re.MULTILINE)


def test_facts_without_a_value_say_so(monkeypatch, capsys):
    monkeypatch.setattr("fastfid.info.gather", lambda: {"build_type": "Release", "sanitizers": "", "environment": {}})
    assert main(["info"]) == 0
    assert capsys.readouterr().out == "build_type   Release\nsanitizers   none\nenvironment  none\n"
