"""Starts the command line as several ranks: with torchrun, or with a launcher's variables set by hand.

As a program it is the command line with a tiny extractor in the place of FILE.onnx, and with short waits.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

TESTS = Path(__file__).parent
# Of the variables of launchers none comes from the process of the tests.
OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "TORCHELASTIC_", "GROUP_", "ROLE_", "OMP_NUM")


METRICS = ["fid", "kid", "prdc"]


def make_pictures(folder, numbers=(130, 95), highs=(256, 200)):
    """Make two folders of pictures, with levels below `highs`. 130 and 95 are 5 and 3 tasks of 32 at most."""
    rng = np.random.default_rng(0)
    paths = [folder / name for name in ("real", "fake")]
    for path, high, number in zip(paths, highs, numbers, strict=True):
        path.mkdir()
        for i in range(number):
            Image.fromarray(rng.integers(0, high, (9, 11, 3), dtype=np.uint8)).save(path / f"{i:03}.png")
    return paths


def expected(pictures):
    """The metrics of two folders, in this process."""
    from stubs import AllOutputs

    from fastfid import evaluate

    found = evaluate(*pictures, metrics=METRICS, extractor=AllOutputs())
    return {name: one.value for name, one in found.items()}


def words(pictures, *more):
    """The command line that prints the record of :func:`expected`."""
    return [*pictures, "--extractor", "tiny.onnx", "--metrics", ",".join(METRICS), "--json", *more]


def values(out):
    """The values of a record, which is all that was printed; "" if nothing was."""
    return out and {one["metric"]: one["value"] for one in json.loads(out)["metrics"]}


def parts(run):
    """The files of Parts, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*.npz")}


def check_clean(folder):
    """No temporary file or folder is left."""
    assert list((folder / "temporary").glob("fastfid*")) == []
    assert list(folder.rglob("*.tmp")) == []


def environment(folder, settings=None, **variables):
    """The variables of a process whose temporary files are in `folder`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(OF_LAUNCHERS)}
    temporary = Path(folder) / "temporary"
    temporary.mkdir(exist_ok=True)
    shown = {"TMPDIR": str(temporary), "RANK_SETTINGS": json.dumps(settings or {}), "PYTHONPATH": python_path()}
    return {**mine, **shown, **{name: str(value) for name, value in variables.items()}}


def python_path():
    return os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_free(port):
    """Whether a process of a test can open this port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError:
            return False
        return True


def variables_of_ranks(size, **more):
    """The variables that torchrun sets, but for those of its agent, for each rank."""
    port = free_port()
    return [
        {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}  # more wins
        for rank in range(size)
    ]


def start(folder, words, variables, settings=None, command=(str(TESTS / "launching.py"),)):
    """Start a process for each element of `variables`; `words` and `settings` may be lists with one element a process.

    `settings` are those of :func:`prepare`.
    """
    several = words if isinstance(words[0], list | tuple) else [words] * len(variables)
    each = settings if isinstance(settings, list) else [settings] * len(variables)
    return [
        subprocess.Popen(
            [sys.executable, *command, *map(str, own)],
            env=environment(folder, setting, **one),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, setting, one in zip(several, each, variables, strict=True)
    ]


def torchrun(folder, words, size, settings=None, restarts=0, command=(str(TESTS / "launching.py"),)):
    """Start torchrun, in a session of its own, so that a signal to its group is a terminal's Ctrl-C."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size, "--max-restarts", restarts]
    return subprocess.Popen(
        [sys.executable, *map(str, launcher), *command, *map(str, words)],
        env=environment(folder, settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(processes, seconds=120):
    """(exit code, stdout, stderr) of each process; all must end by themselves."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=seconds)
            found.append((process.returncode, out, err))
    finally:
        for process in processes:
            process.kill()
    return found


def wait_until(condition, seconds=90):
    """Wait until `condition()` is true, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)
    return value


def prepare():
    """Replace what a test does not want as it is.

    The settings are ``slow``: seconds that each image takes, by rank; ``host``: the machine's name, by rank; constants
    of scale/ranks.py; ``without_torch``.
    """
    from stubs import AllOutputs

    from fastfid.cli import options
    from fastfid.scale import ranks

    settings = json.loads(os.environ["RANK_SETTINGS"])
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    slow = settings.pop("slow", {}).get(rank, 0)
    host = settings.pop("host", {}).get(rank)
    if settings.pop("without_torch", False):
        sys.modules["torch.distributed"] = None
    for name, value in settings.items():
        assert hasattr(ranks, name)
        setattr(ranks, name, value)
    if host is not None:
        uname = os.uname()
        os.uname = lambda: os.uname_result((uname[0], host, *uname[2:]))

    class Tiny(AllOutputs):
        def __init__(self):
            super().__init__()
            self.input_shape = (self.dims,)  # as several extractors need it

        def forward(self, batch):
            Path(os.environ["TMPDIR"], f"begun-{rank}").touch()
            time.sleep(slow * len(batch))
            return super().forward(batch)

    options.open_network = lambda args, name: Tiny()


if __name__ == "__main__":
    prepare()
    from fastfid import cli

    cli.run()
