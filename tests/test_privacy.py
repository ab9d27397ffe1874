"""fastfid sends nothing and writes nothing outside of its cache. CI is not set, because it silences ONNX Runtime."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).parent / "network_watch" / "network_watch.c"

# A FID, then a pause in which ONNX Runtime would send what it has gathered.
SCRIPT = """
import sys, time
import fastfid
fastfid.compute_fid("a", "b", dims=64)
print("computed", flush=True)
time.sleep(float(sys.argv[1]))
"""

FORKS = """
import os, sys
import fastfid
print(fastfid.compute_fid("a", "b", dims=64) > 0, flush=True)
child = os.fork()
if child == 0:
    fid = fastfid.FID(dims=64)
    sys.exit(0)
print(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """The library that watches the network."""
    out = tmp_path_factory.mktemp("watch") / "network_watch.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(out), str(SOURCE), "-ldl"], check=True)
    return out


@pytest.fixture
def user(tmp_path, watch, weights):
    """A folder with two sets of images, and the environment of a user who has a fresh home and nothing set."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    carried = tmp_path / "weights.pt"
    carried.write_bytes(weights.content)
    (tmp_path / "home").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "FASTFID_WEIGHTS": str(carried),
        "LD_PRELOAD": str(watch),
        "NETWORK_WATCH": str(tmp_path / "network"),
    }
    return tmp_path, environment


def start(user, *command, **extra):
    path, environment = user
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=path,
        env={**environment, **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_nothing_is_sent_and_no_file_appears(user):
    """Beside it runs the same with ONNX Runtime's telemetry on, which shows that the watch would see it."""
    path, _ = user
    (path / "other-home").mkdir()
    control = start(
        user,
        *("-c", SCRIPT, "60"),
        ORT_DISABLE_TELEMETRY="0",
        HOME=str(path / "other-home"),
        NETWORK_WATCH=str(path / "control"),
    )
    ours = start(user, "-c", SCRIPT, "60")
    try:
        assert ours.stdout.readline() == "computed\n"
        deadline = time.monotonic() + 60
        while not (path / "control").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "microsoft" in (path / "control").read_text()
        assert "onnxruntime.db" in "".join(files_in(path / "other-home"))
        time.sleep(2)
        assert ours.poll() is None
        assert not (path / "network").exists()
        assert files_in(path / "home") == []
    finally:
        for process in (control, ours):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    "command",
    [
        ["a", "b", "--dims", "64"],
        ["stats", "a", "-o", "s.npz", "--dims", "64"],
        ["info"],
        ["weights", "verify"],
        ["--help"],
    ],
)
@pytest.mark.parametrize("home", ["home", "nowhere"])
def test_the_commands_leave_the_home_alone(user, command, home):
    path, _ = user
    quiet = ["--quiet"] if command[0] in ("a", "stats") else []
    process = start(user, "-m", "fastfid", *command, *quiet, HOME=str(path / home))
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert files_in(path / "home") == []
    assert not (path / "nowhere").exists()
    assert not (path / "network").exists()


@pytest.mark.parametrize("value", ["", "2", "maybe"])
def test_values_that_do_not_switch_it_off_are_replaced(user, value):
    path, _ = user
    process = start(user, "-m", "fastfid", "a", "b", "--dims", "64", "--quiet", ORT_DISABLE_TELEMETRY=value)
    assert process.communicate(timeout=120)[1] == ""
    assert files_in(path / "home") == []


def test_a_forked_child_ends(user):
    """Threads of the telemetry, which a fork does not copy, made it wait for ever."""
    process = start(user, "-c", FORKS)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "True\n0\n", "")


def test_an_onnxruntime_that_came_first_is_said_once(user):
    script = "import onnxruntime, warnings, fastfid\n"
    script += "for _ in range(2):\n    fastfid.InceptionV3(dims=64)\n"
    _, err = start(user, "-c", script).communicate(timeout=60)
    assert err.count("onnxruntime was imported before fastfid needed it") == 1
    assert "ORT_DISABLE_TELEMETRY=1" in err
    process = start(user, "-c", script, ORT_DISABLE_TELEMETRY="1")
    assert process.communicate(timeout=60)[1] == ""
