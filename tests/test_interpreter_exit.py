"""The program ends while threads are inside the core: exit code 0, whatever they are at.

Up to Python 3.13 a daemon thread that asks for the GIL while the interpreter ends is ended by pthread_exit(), which
unwinds the C++ frames of the thread; csrc/bindings/gil.hpp says what comes of it.
"""

import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINDINGS = ROOT / "csrc" / "bindings"
TESTS = Path(__file__).parent

SETUP = """
import atexit, sys, threading, time
import numpy as np
from fastfid.protocols import input_spec
import fastfid
from fastfid import _core

rng = np.random.default_rng(20261122)
x = rng.random((500, 200))
flat, radii = x.astype(np.float32), np.full(500, 30.0)
subsets = np.full((500, 1, 2), 7, np.uint64), np.full((500, 2), 30.0), np.full((500, 2, 1), 7, np.uint64)
wide = rng.random((40, 200))  # fewer rows than features: they are kept
mu, sigma = np.zeros(200), np.cov(x, rowvar=False)
images = [rng.integers(0, 256, (299, 299, 3), dtype=np.uint8)] * 4
full, thin = fastfid.Moments(200), fastfid.Moments(200)
full.update(x), thin.update(wide)
merged, fresh = fastfid.Moments(200), fastfid.Moments(200)
state = full.state()
sums = np.zeros(200), np.zeros((200, 200))

class Slow:  # written in Python, whose bytecode gives the GIL away in the middle
    def __init__(self, value):
        self.value = value
    def __dlpack__(self, **options):
        return [self.value for _ in range(300)][0].__dlpack__()
    def __dlpack_device__(self):
        return [(1, 0) for _ in range(300)][0]
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return [self.value for _ in range(300)][0]

__import__("collections").abc.Sequence.register(Slow)

def fails(call, *arguments):
    try:
        call(*arguments)
    except (TypeError, ValueError):
        return
    raise AssertionError("no error")
"""

# Every binding that gives the GIL back, by its file and how often WithoutGil and without_gil() stand there; what needs
# a CUDA device is compiled only with CUDA and has no case.
CASES = {
    "bind_cuda.cpp": (8, {}),
    "bind_cuda_image.cpp": (1, {}),
    "bind_cuda_network.cpp": (3, {}),
    "bind_features.cpp": (
        1,
        {"spatial_mean": "_core.spatial_mean(np.ones((8, 64, 35, 35), np.float32))"},
    ),
    "bind_frechet.cpp": (
        5,  # two of them for devices
        {
            "trace_sqrt_product": "_core.trace_sqrt_product(sigma, sigma)",
            "trace_sqrt_product, eigen": "_core.trace_sqrt_product(sigma, sigma, method='eigen')",
            "frechet_distance": "_core.frechet_distance(_core.Gaussian(mu, sigma), _core.Gaussian(mu, rows=wide))",
            "influence": "_core.influence(_core.Gaussian(mu, sigma), _core.Gaussian(mu, sigma), rows_a=wide)",
        },
    ),
    "bind_kernel_sums.cpp": (
        2,
        {
            "kernel_sums": "_core.kernel_sums(flat, flat, 0)",
            "kernel_sums_within": "_core.kernel_sums_within(flat, 0)",
        },
    ),
    "bind_image.cpp": (
        2,
        {
            "preprocess": "_core.preprocess(images, input_spec('clean'))",
            "resize": "_core.resize(images[0], 200, 200, 'bicubic-antialias')",
        },
    ),
    "bind_moments.cpp": (
        10,
        {
            "update": "full.update(x)",
            "merge": "merged.merge(full)",
            "reset": "fresh.reset(), fresh.update(wide)",
            "n": "full.n",
            "mean": "full.mean",
            "covariance": "full.covariance()",
            "rows": "thin.rows",
            "state": "full.state()",
            "from_state": "fastfid.Moments.from_state(state)",
            "repr": "repr(full)",
        },
    ),
    "bind_neighbours.cpp": (
        3,
        {
            "NeighbourSearch": "_core.NeighbourSearch(flat, flat, 3)",
            "step": "_core.NeighbourSearch(flat, None, 3).step()",
            "count_in_balls": "_core.count_in_balls(flat, radii, flat, radii, True)",
            "subsets": "_core.count_in_balls(flat, radii, flat, radii, True, subsets, subsets)",
        },
    ),
    "bind_raw_moments.cpp": (1, {"add_raw_moments": "_core.add_raw_moments(x, *sums)"}),
    "bind_runtime.cpp": (
        2,
        {"cuda_driver": "_core.cuda_driver()", "cuda_device_name": "_core.cuda_device_name(0)"},
    ),
}
CALLS = {name: call for _, calls in CASES.values() for name, call in calls.items()}

# Errors of the core, and code in Python that the core calls.
OTHERS = {
    "an error in the core": "fails(full.update, np.full((2, 200), np.nan))",
    "an error before the core": "fails(full.update, np.zeros((2, 200), np.int32))",
    "a tensor of Python": "_core.tensor_info(Slow(x))",
    "a sequence of Python": "_core.preprocess(Slow(images[0]), input_spec('tensorflow'))",
}

DAEMON = """
def loop():
    while True:
        {call}

{call}
_core.set_num_threads({threads})
for _ in range({number}):
    threading.Thread(target=loop, daemon=True).start()
time.sleep({seconds})
"""

BOUNDED = """
def loop(call):
    for _ in range(5):
        exec(call)
    sys.stdout.write("done\\n")

_core.set_num_threads({threads})
for call in {calls!r}:
    threading.Thread(target=loop, args=(call,)).start()
time.sleep(0.1)
"""


def program(body):
    """Outcome of a program of its own: (exit code, output, errors)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SETUP + textwrap.dedent(body)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return run.returncode, run.stdout, run.stderr


def failures(bodies):
    """The outcomes, by name, that are not a quiet end; several programs at a time."""
    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip(bodies, pool.map(program, bodies.values()), strict=True))
    return {name: outcome for name, outcome in outcomes.items() if outcome != (0, "", "")}


def test_every_binding_that_gives_the_gil_back_is_here():
    found = {}
    for path in sorted(BINDINGS.iterdir()):
        code = re.sub(r"//.*", "", path.read_text())
        if path.name == "gil.hpp":
            continue
        assert not re.search(r"gil_scoped|PyEval_|PyGILState_", code), f"{path.name}: the GIL is gil.hpp's"
        # What may run code in Python is called through gil.hpp too, since that code may end in the middle.
        direct = re.search(r"\.attr\(|py::str\(|py::hasattr\(|py::int_\([a-z]+\[|PyObject_Call|\.operator\(\)", code)
        assert not direct, f"{path.name}: {direct.group()} goes round gil.hpp"
        if number := len(re.findall(r"WithoutGil|without_gil\(", code)):
            found[path.name] = number
    assert found == {name: number for name, (number, _) in CASES.items()}


@pytest.mark.parametrize("threads", [1, 2])
def test_daemon_threads_in_every_binding(threads):
    bodies = {
        name: DAEMON.format(call=call, threads=threads, number=1, seconds=0.3)
        for name, call in (CALLS | OTHERS).items()
    }
    assert failures(bodies) == {}


def test_daemon_threads_in_long_calls_of_blas():
    """OpenBLAS would unmap its buffers when the process exits; see cmake/carry_openblas.py."""
    call = "_core.trace_sqrt_product(large, large, method='eigen')"
    large = "large = np.diag(np.arange(1.0, 801)) + 1\n"
    bodies = {str(i): large + DAEMON.format(call=call, threads=1, number=3, seconds=0.4) for i in range(6)}
    assert failures(bodies) == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_other_threads_are_waited_for(threads):
    calls = [*CALLS.values(), *OTHERS.values()]
    assert program(BOUNDED.format(calls=calls, threads=threads)) == (0, "done\n" * len(calls), "")


def test_the_thread_that_ends_the_interpreter_may_use_the_core():
    body = """
        def at_exit():
            print("exit", fastfid.Moments.from_state(state).n, _core.preprocess(images, input_spec("clean")).shape)

        def loop():
            while True:
                full.update(x)

        atexit.register(at_exit)
        threading.Thread(target=loop, daemon=True).start()
        time.sleep(0.2)
    """
    assert program(body) == (0, "exit 500 (4, 3, 299, 299)\n", "")


def test_objects_that_end_with_the_interpreter_may_use_the_core():
    body = """
        import os

        class Last:  # ends when the module's names are gone, sys.stdout too
            def __del__(self, moments=fastfid.Moments, state=state, x=x, write=os.write):
                copy = moments.from_state(state)
                copy.update(x)
                write(1, b"last %d" % copy.n)

        last = Last()
    """
    assert program(body) == (0, "last 1000", "")


FID_UPDATE = """
from stubs import GridMeans
class Extractor(GridMeans):
    batch_size, concurrency = 2, 2
fid = fastfid.FID(extractor=Extractor(), num_workers={workers})
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_daemon_threads_in_a_pipeline(workers):
    setup = FID_UPDATE.format(workers=workers)
    bodies = {
        str(threads): setup
        + DAEMON.format(call="fid.update(images, real=True)", threads=threads, number=1, seconds=0.4)
        for threads in (1, 2)
    }
    assert failures(bodies) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_daemon_threads_in_the_network(workers, weights):
    """ONNX Runtime takes the GIL in a destructor; see python/fastfid/at_exit.py."""
    setup = f"fid = fastfid.FID(dims=64, device='cpu', weights={str(weights.path)!r}, num_workers={workers})\n"
    body = setup + DAEMON.format(call="fid.update(np.stack(images), real=True)", threads=2, number=2, seconds=0.4)
    assert failures({str(i): body for i in range(2)}) == {}


def test_a_forked_child_waits_for_no_thread_of_its_parent():
    body = """
        import os
        from fastfid import at_exit

        def loop():
            with at_exit.awaited():
                time.sleep(2)

        threading.Thread(target=loop, daemon=True).start()
        time.sleep(0.2)
        before = time.monotonic()
        if os.fork() == 0:
            sys.exit()
        os.wait()
        print(time.monotonic() - before < 1.5)
        before = time.monotonic()
        atexit._run_exitfuncs()
        print(time.monotonic() - before > 1)
    """
    returncode, out, _ = program(body)  # Python may warn of the fork
    assert (returncode, out) == (0, "True\nTrue\n")
