"""fastfid.DeviceMoments, the Python class, on the emulation: tensors that only say they are on a CUDA device."""

import ctypes
import importlib.util
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from emulation import compile_library
from stubs import HostArray, OnDevice
from stubs import Tensor as GpuTensor
from test_moments import HOSTILE, large_state
from tolerances import ANOTHER_ORDER, COVARIANCE, DISTANCE_ON_DEVICE, MOMENTS

import fastfid
from benchmarks.cuda_cases import EMULATED, MomentsCase
from fastfid.metrics.moments import FeatureMoments
from fastfid.protocols import input_spec


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def emulated(emulated_moments):
    return load("_emulated", emulated_moments)


@pytest.fixture(scope="module")
def emulated_image(tmp_path_factory):
    """The library of csrc/cuda/preprocess.cu on the emulation, as a Python module."""
    out = tmp_path_factory.mktemp("emulation") / "_emulated_image.so"
    bindings = ("bind_cuda_image", "bind_dlpack")
    compile_library(out, core=("dlpack", "image", "parallel"), bindings=bindings, emulated=("bindings_image",))
    return load("_emulated_image", out)


class Tensor:
    """An array that says it is on a CUDA device, and remembers the streams it was asked for."""

    def __init__(self, array, device=(2, 0)):
        self.array, self.device, self.streams = array, device, []

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_comes_back_is_what_the_cpu_makes(emulated, dtype):
    for n in (50, 100):  # with and without rows
        rows = MomentsCase(64, n, dtype, layout="strided").rows()
        moments, cpu = emulated.DeviceMoments(64), fastfid.Moments(64)
        for start in range(0, n, 30):
            moments.update(Tensor(rows[start : start + 30]))
        cpu.update(rows)
        host = moments.to_host()
        assert isinstance(host, fastfid.Moments)
        assert (moments.n, moments.d, moments.device, moments._arithmetic) == (n, 64, 0, "float64")
        assert host.n == n
        expected = cpu.covariance()
        np.testing.assert_allclose(host.covariance(), expected, rtol=0, atol=COVARIANCE * expected.max())
        assert (host.rows is None) == (n > 64)
        moments.reset()
        assert (moments.n, moments.to_host().n) == (0, 0)


def test_the_arithmetic_is_the_one_asked_for(emulated):
    assert emulated.DeviceMoments._summed_in("float32", 4)._arithmetic == "float32"
    with pytest.raises(ValueError, match="arithmetic: expected 'float64' or 'float32', got 'tf32'"):
        emulated.DeviceMoments._summed_in("tf32", 4)


@pytest.mark.parametrize(("given", "asked"), [(None, 1), (0, 1), (2, 2), (0x7F00_1234_5678, 0x7F00_1234_5678)])
def test_the_tensor_is_asked_for_the_stream(emulated, given, asked):
    tensor = Tensor(np.ones((3, 4), np.float32))
    emulated.DeviceMoments(4).update(tensor, stream=given)
    assert tensor.streams == [asked]


@pytest.mark.parametrize("module", ["torch", "cupy"])
def test_the_callers_stream_is_that_of_its_library(emulated, module, monkeypatch):
    cuda = SimpleNamespace(
        current_stream=lambda device: SimpleNamespace(cuda_stream=1000 + device),
        get_current_stream=lambda device: SimpleNamespace(ptr=1000 + device),
    )
    Library = SimpleNamespace(cuda=cuda, Tensor=Tensor, ndarray=Tensor)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, module, Library)
    tensor = Tensor(np.ones((3, 4), np.float32))
    emulated.DeviceMoments(4).update(tensor)
    assert tensor.streams == [1000]


def test_tensors_are_given_back_once_they_have_been_read(emulated):
    rows = np.ones((3, 4), np.float32)
    before = sys.getrefcount(rows)
    moments = emulated.DeviceMoments(4)
    moments.update(Tensor(rows))  # streams of the emulation are done at once
    assert sys.getrefcount(rows) == before


def test_a_deleter_in_python_may_call_update_again(emulated):
    """The last reference to the rows is the tensor's: dropping it runs Python, which may run another update."""
    moments = emulated.DeviceMoments(4)
    again = []

    class Rows(np.ndarray):
        def __del__(self):
            again.append(moments.n)
            moments.update(Tensor(np.ones((2, 4), np.float32)))

    class GivenAway(Tensor):
        def __dlpack__(self, **keywords):
            capsule = super().__dlpack__(**keywords)
            del self.array
            return capsule

    moments.update(GivenAway(np.ones((3, 4), np.float32).view(Rows)))
    assert again == [3]
    assert moments.n == moments.to_host().n == 5


EXIT = """
import sys, threading, time
import numpy as np
import fastfid
from test_cuda_bindings import Tensor, load

emulated = load("_emulated", sys.argv[1])
moments, other = emulated.DeviceMoments(64), emulated.DeviceMoments(64)
rows = Tensor(np.random.default_rng(0).random((200, 64), np.float32))
moments.update(rows), other.update(rows)
state = other.state()

def loop():
    while True:
        exec(sys.argv[2])

threading.Thread(target=loop, daemon=True).start()
time.sleep(0.3)
"""


@pytest.mark.parametrize(
    "call",
    [
        "moments.update(rows)",
        "moments.to_host()",
        "moments.merge(other)",
        "moments.state()",
        "emulated.DeviceMoments.from_state(state)",
        "moments.n",
        "moments.reset()",
        "emulated.DeviceMoments(64).update(rows)",
    ],
)
def test_daemon_threads_when_the_interpreter_ends(emulated_moments, call):
    """As tests/test_interpreter_exit.py, for what is compiled with CUDA only."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", EXIT, str(emulated_moments), call]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_tensors_device_is_current_while_it_is_asked(emulated):
    """Else torch raises BufferError, unless its current device happens to be that one."""
    current = []

    class Asks(Tensor):
        def __dlpack__(self, **keywords):
            current.append(emulated.current_device())
            return super().__dlpack__(**keywords)

    emulated.DeviceMoments(4).update(Asks(np.ones((3, 4), np.float32)))
    assert current == [0]
    assert emulated.current_device() == -1  # the former one: none


@pytest.mark.parametrize("channels_last", [True, False])
def test_preprocessing_takes_a_part_of_a_tensor(emulated_image, channels_last):
    images = np.random.default_rng(1).integers(0, 256, (5, 80, 91, 3), dtype=np.uint8)
    stored = images if channels_last else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    tensor, preprocessor = Tensor(stored), emulated_image.CudaPreprocessor(input_spec("none"), 0)

    def run(count, **start):
        out = np.full((count, 3, 80, 91), np.nan, np.float32)
        preprocessor.run(tensor, Tensor(out), channels_last=channels_last, stream=7, **start)
        return out

    expected = fastfid._core.preprocess(images, input_spec("none"))
    np.testing.assert_array_equal(run(5), expected)
    for start, count in ((0, 2), (3, 2), (1, 3)):
        np.testing.assert_array_equal(run(count, start=start), expected[start : start + count])
    assert set(tensor.streams) == {7}
    with pytest.raises(ValueError, match="out: expected a contiguous tensor"):
        run(4)
    for start in (-1, 4):
        with pytest.raises(ValueError, match=f"start: expected 0 to 3 for 2 of 5 images, got {start}"):
            run(2, start=start)


@pytest.fixture
def slow_streams(emulated_moments):
    """A function: nothing seems to be done (True), or everything (False)."""
    library = ctypes.CDLL(emulated_moments)
    yield library.emulated_slow_streams
    library.emulated_slow_streams(0)
    library.emulation_fail_after(-1)


@pytest.mark.parametrize("name", ["to_host", "state", "reset"])
def test_what_waits_gives_tensors_back_too(emulated, slow_streams, name):
    rows = np.ones((3, 4), np.float32)
    before = sys.getrefcount(rows)
    moments = emulated.DeviceMoments(4)
    slow_streams(True)
    moments.update(Tensor(rows))
    assert sys.getrefcount(rows) > before
    slow_streams(False)
    getattr(moments, name)()
    assert sys.getrefcount(rows) == before


def test_a_tensor_is_kept_when_an_update_fails_half_way(emulated, emulated_moments, slow_streams):
    """What was launched before the failure may be reading it."""
    rows = np.ones((4100, 64), np.float32)
    before = sys.getrefcount(rows)
    moments = emulated.DeviceMoments(64)
    slow_streams(True)
    ctypes.CDLL(emulated_moments).emulation_fail_after(1)
    with pytest.raises(fastfid.DeviceError, match="a launch that was told to fail"):
        moments.update(Tensor(rows))
    assert sys.getrefcount(rows) > before
    slow_streams(False)
    moments.reset()
    assert sys.getrefcount(rows) == before


def test_a_nonfinite_row_is_named_by_the_first_call_that_returns_numbers(emulated):
    rows = np.ones((7, 4), np.float32)
    rows[5, 1] = np.nan
    moments = emulated.DeviceMoments(4)
    moments.update(Tensor(rows))
    with pytest.raises(fastfid.NumericalError, match=r"row 5 of those given to update\(\), counted from 0, has NaN or"):
        moments.to_host()
    moments.reset()
    moments.update(Tensor(rows[:5]))
    assert moments.to_host().n == 5


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (
            np.ones((3, 4), np.float32),
            ValueError,
            "x: expected a tensor on cuda:0, got one that is not on a CUDA device",
        ),
        (Tensor(np.ones((3, 4), np.float32), (2, 1)), ValueError, "x: expected a tensor on cuda:0, got one on cuda:1"),
        (Tensor(np.ones((3, 5), np.float32)), ValueError, r"x: expected shape \(n, 4\), got float32 \(3, 5\)"),
        (Tensor(np.ones(4, np.float32)), TypeError, r"x: expected a tensor with 2 dimensions, got float32 \(4,\)"),
        (Tensor(np.ones((3, 4))), TypeError, "x: expected float32, float16 or bfloat16, got float64"),
        (Tensor(np.ones((3, 4), np.uint8)), TypeError, "x: expected float32, float16 or bfloat16, got uint8"),
        (
            Tensor(np.ones((3, 4), ml_dtypes.bfloat16)),
            BufferError,
            "unsupported|not supported|dtype|only supports",
        ),  # NumPy cannot export it
        ([[1.0]], TypeError, "x: expected a tensor that speaks DLPack"),
    ],
)
def test_what_is_refused_changes_nothing(emulated, x, error, text):
    moments = emulated.DeviceMoments(4)
    moments.update(Tensor(np.ones((2, 4), np.float32)))
    with pytest.raises(error, match=text):
        moments.update(x)
    assert moments.n == 2


def test_devices_that_are_not_there(emulated):
    for device in (-1, 1):
        with pytest.raises(fastfid.BackendUnavailable, match=f"no CUDA device {device}: there are 1, counted from 0"):
            emulated.DeviceMoments(4, device=device)
    for d in (0, 16385):
        with pytest.raises(ValueError, match=f"d: expected 1 to 16384, got {d}"):
            emulated.DeviceMoments(d)


def test_calls_from_several_threads_take_turns(emulated):
    """The emulation runs on one thread at a time by the object's own lock; all rows are counted."""
    moments = emulated.DeviceMoments(4)
    rows = [Tensor(np.full((5, 4), i, np.float32)) for i in range(8)]
    threads = [threading.Thread(target=moments.update, args=(x,)) for x in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moments.to_host().n == 40


# ------------------------------------------------------------------------------------------------- merging and states


def of(kind, rows):
    moments = kind(rows.shape[1])
    moments.update(Tensor(rows) if kind is not fastfid.Moments else rows)
    return moments


@pytest.mark.parametrize(("n1", "n2"), [(10, 20), (20, 60), (200, 30), (2100, 100), (2100, 2200)])
def test_a_merge_is_that_of_the_cpu(emulated, n1, n2):
    rows = some_rows(n1, 64, 1), 0.9 * some_rows(n2, 64, 2)
    moments, other = (of(emulated.DeviceMoments, x) for x in rows)
    cpu, cpus_other = (of(fastfid.Moments, x) for x in rows)
    moments.merge(other)
    cpu.merge(cpus_other)
    host = moments.to_host()
    assert (moments.n, host.n, other.n) == (n1 + n2, n1 + n2, n2)
    np.testing.assert_allclose(host.mean, cpu.mean, rtol=MOMENTS)
    np.testing.assert_allclose(host.covariance(), cpu.covariance(), rtol=0, atol=MOMENTS)
    if n1 + n2 <= 64:
        np.testing.assert_array_equal(host.rows, cpu.rows)


@pytest.mark.parametrize("n", [0, 1, 64, 65, 2100])
def test_a_state_goes_from_the_device_to_the_host_and_back(emulated, n):
    rows, more = some_rows(n, 64, 3), some_rows(50, 64, 4)
    moments = of(emulated.DeviceMoments, rows)
    state = moments.state()
    assert list(state) == list(fastfid.Moments(64).state())
    host = fastfid.Moments.from_state(state)
    back = emulated.DeviceMoments.from_state(host.state(), device=0)
    cpu = of(fastfid.Moments, rows)
    from_the_cpu = emulated.DeviceMoments.from_state(cpu.state())
    assert (host.n, back.n, back.d, back.device, back._arithmetic) == (n, n, 64, 0, "float64")
    for each in (moments, back, from_the_cpu):
        each.update(Tensor(more))
    for each in (host, cpu):
        each.update(more)
    for each in (moments, back, from_the_cpu):
        np.testing.assert_allclose(each.to_host().mean, cpu.mean, rtol=MOMENTS)
        np.testing.assert_allclose(each.to_host().covariance(), cpu.covariance(), rtol=0, atol=MOMENTS)
    np.testing.assert_allclose(host.covariance(), cpu.covariance(), rtol=0, atol=MOMENTS)
    if n <= 64:
        for each in (back, from_the_cpu):
            np.testing.assert_array_equal(each.to_host().covariance(), moments.to_host().covariance())


def test_merges_that_are_refused(emulated, emulated_moments):
    moments = of(emulated.DeviceMoments, some_rows(9, 4, 1))
    with pytest.raises(ValueError, match="merge: expected d = 4, got 5"):
        moments.merge(emulated.DeviceMoments(5))
    for other in (fastfid.Moments(4), None, {}):
        with pytest.raises(TypeError):
            moments.merge(other)
    library = ctypes.CDLL(emulated_moments)
    library.emulated_devices(2)
    try:
        there = emulated.DeviceMoments.from_state(moments.state(), device=1)
        assert (there.device, there.n) == (1, 9)
        with pytest.raises(ValueError, match="merge: expected moments on cuda:0, got moments on cuda:1"):
            moments.merge(there)
    finally:
        library.emulated_devices(1)
    assert moments.n == 9


def test_merges_into_each_other_do_not_wait_for_ever(emulated):
    sides = [of(emulated.DeviceMoments, some_rows(n, 4, n)) for n in (2, 3)]

    def merge(one, other):
        for _ in range(4):
            one.merge(other)

    threads = [threading.Thread(target=merge, args=pair, daemon=True) for pair in (sides, sides[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert all(side.to_host().n == side.n > 5 for side in sides)


def test_rows_are_counted_up_to_2_to_the_62(emulated):
    moments = emulated.DeviceMoments.from_state(large_state())
    one = of(emulated.DeviceMoments, np.ones((1, 8), np.float32))
    for self, other in ((moments, moments), (moments, one), (one, moments)):
        with pytest.raises(
            ValueError, match=rf"merge: expected at most 2\^62 rows in all, got {self.n} and {other.n} "
        ):
            self.merge(other)
    assert (moments.n, one.n) == (2**62, 1)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_state_is_refused(emulated, kind):
    changes, said = HOSTILE[kind]
    with pytest.raises(ValueError, match=r"^state") as error:
        emulated.DeviceMoments.from_state(large_state(**changes))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (large_state(shift=np.full((1, 8), 1e39)), ValueError, "mean: feature 0 has .*, which is beyond float32"),
        (large_state(shift=np.full((1, 8), np.nan)), fastfid.NumericalError, r"state\['shift'\]: contains NaN or"),
        (large_state(scatter=np.full((1, 36), np.inf)), fastfid.NumericalError, r"state\['scatter'\]: contains NaN or"),
        (large_state(scatter=np.zeros((1, 36), np.float32)), TypeError, r"state\['scatter'\]: expected"),
        (fastfid.Moments(16385).state(), ValueError, "d: expected 1 to 16384, got 16385"),
        (of(fastfid.Moments, np.ones((3, 4))).state(), ValueError, "rows: expected float32, .*, got float64"),
        (None, TypeError, "state: expected a dict"),
        ({}, ValueError, "state: the key 'd' is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_a_device_cannot_go_on_from(emulated, state, error, text):
    with pytest.raises(error, match=text):
        emulated.DeviceMoments.from_state(state)


def test_a_state_goes_to_devices_that_are_there(emulated):
    with pytest.raises(fastfid.BackendUnavailable, match="no CUDA device 1: there are 1, counted from 0"):
        emulated.DeviceMoments.from_state(fastfid.Moments(4).state(), device=1)


def test_sums_of_float64_rows_go_to_a_device(emulated):
    rows = np.random.default_rng(1).standard_normal((500, 8)) + 30
    moments = emulated.DeviceMoments.from_state(of(fastfid.Moments, rows).state())
    np.testing.assert_allclose(moments.to_host().mean, rows.mean(0), rtol=MOMENTS)
    np.testing.assert_allclose(moments.to_host().covariance(), np.cov(rows, rowvar=False), rtol=0, atol=MOMENTS)


@pytest.mark.parametrize("own", [True, False])
def test_feature_moments_on_one_device_are_merged_there(emulated, monkeypatch, own):
    waits = []

    class Accumulator(emulated.DeviceMoments):
        def to_host(self):
            waits.append(self.n)
            return super().to_host()

    class Rows(Tensor):
        stream = SimpleNamespace(device=0, handle=5)
        shape = property(lambda self: self.array.shape)

        def take(self, indices):
            return HostArray(self.array[indices])

    monkeypatch.setattr(fastfid._core, "DeviceMoments", Accumulator)
    rows = some_rows(9, 8, 1), some_rows(20, 8, 2), some_rows(7, 8, 3)
    sides = [FeatureMoments(8) for _ in range(2)]
    if own:
        sides[0].update({"features": Rows(rows[0])})
    sides[1].update({"features": Rows(rows[1])})
    sides[1].update({"features": rows[2]})
    sides[0].merge(sides[1])
    assert waits == ([] if own else [20])
    want = of(fastfid.Moments, np.concatenate(rows if own else rows[1:]))
    assert sides[0].n == want.n
    assert sides[1].n == 27
    np.testing.assert_allclose(sides[0].total().covariance(), want.covariance(), rtol=0, atol=MOMENTS)
    other = FeatureMoments(7)
    other.update({"features": Rows(some_rows(3, 7, 1))})
    with pytest.raises(ValueError, match="merge: expected d = 8, got 7"):
        sides[0].merge(other)
    assert sides[0].n == want.n


# ------------------------------------------------------------------------------------------------------- the distance


@pytest.fixture
def libraries(emulated, emulated_moments, tmp_path, monkeypatch):
    """cuBLAS and cuSOLVER, played by OpenBLAS, where pip would put them."""
    folder = emulated_moments.parent / "packages" / "nvidia" / "cu13" / "lib"
    if not folder.exists():  # they are loaded once a process
        folder.mkdir(parents=True)
        compile_library(folder / "libcublas.so.13", emulated=("fake_math",))
        (folder / "libcusolver.so.12").write_bytes((folder / "libcublas.so.13").read_bytes())
    monkeypatch.syspath_prepend(str(folder.parents[2]))
    asked = ctypes.CDLL(emulated.__file__).emulated_current_device
    for name in ("libcublas.so.13", "libcusolver.so.12"):
        ctypes.CDLL(folder / name).ask_for_device(asked)


def on_device(emulated, rows):
    moments = emulated.DeviceMoments(rows.shape[1])
    moments.update(Tensor(rows))
    return moments


def host_gaussian(module, rows, name=""):
    """A Gaussian of one of the two modules."""
    moments = fastfid.Moments(rows.shape[1])
    moments.update(rows)
    sigma = None if len(rows) <= rows.shape[1] else moments.covariance()
    return module.Gaussian(moments.mean, sigma, rows=moments.rows, name=name)


def device_gaussian(emulated, rows, name=""):
    return emulated.Gaussian.on_device(on_device(emulated, rows), name=name)


def some_rows(n, d, seed):
    return (3 + np.random.default_rng((seed, n, d)).standard_normal((n, d))).astype(np.float32)


@pytest.mark.parametrize("case", EMULATED.distances, ids=str)
@pytest.mark.parametrize("kinds", ["device device", "device host", "host device"])
def test_distance_of_moments_that_stay_on_the_device(emulated, libraries, case, kinds):
    rows = some_rows(case.n1, case.d, 1), 0.9 * some_rows(case.n2, case.d, 2)
    tol = 1e-8
    want = fastfid._core.frechet_distance(*(host_gaussian(fastfid._core, given) for given in rows), tol=tol)
    sides = [
        (device_gaussian if kind == "device" else host_gaussian)(emulated, given)
        for kind, given in zip(kinds.split(), rows, strict=True)
    ]
    got = emulated.frechet_distance(*sides, tol=tol, device="cuda:0")
    # Sums of the same float64 terms in another order; the value is known to the width of its bracket.
    assert got.mean_term == pytest.approx(want.mean_term, rel=ANOTHER_ORDER)
    assert (got.trace1, got.trace2) == pytest.approx((want.trace1, want.trace2), rel=ANOTHER_ORDER)
    assert got.lower <= want.upper
    assert want.lower <= got.upper
    assert got.upper - got.lower <= 2.02 * tol * got.trace.upper
    assert got.value == pytest.approx(want.value, rel=0, abs=tol * want.trace1)
    assert got.trace.rank == want.trace.rank
    assert got.trace.note == ""  # nothing was factored on the host


def test_the_moments_may_grow_on(emulated, libraries):
    rows = some_rows(90, 32, 3)
    grown = on_device(emulated, rows[:20])
    other = on_device(emulated, some_rows(50, 32, 4))
    for stop in (20, 60, 90):
        if stop > 20:
            grown.update(Tensor(rows[grown.n : stop]))
        made = [emulated.Gaussian.on_device(moments) for moments in (grown, on_device(emulated, rows[:stop]), other)]
        found, expected = (emulated.frechet_distance(each, made[2], device="cuda") for each in made[:2])
        assert (found.value, found.lower, found.upper) == (expected.value, expected.lower, expected.upper)


def test_rows_that_are_all_alike(emulated, libraries):
    alike = device_gaussian(emulated, np.full((5, 8), 7.0, np.float32))
    other = some_rows(6, 8, 5)
    got = emulated.frechet_distance(alike, host_gaussian(emulated, other), device="cuda")
    centred = other.astype(np.float64) - other.mean(0, dtype=np.float64)
    # The other side's covariance drops out: closed form, to rounding.
    want = np.sum((other.mean(0, dtype=np.float64) - 7) ** 2) + np.sum(centred**2) / 5
    assert got.value == pytest.approx(want, rel=ANOTHER_ORDER)


def test_gaussians_that_are_refused(emulated, libraries):
    moments = device_gaussian(emulated, some_rows(9, 4, 6), "first")
    one = device_gaussian(emulated, some_rows(1, 4, 6), "second")
    none = emulated.Gaussian.on_device(emulated.DeviceMoments(4), name="none")
    bad = device_gaussian(emulated, np.where(np.eye(9, 4) > 0, np.nan, 1).astype(np.float32), "bad")
    host = host_gaussian(emulated, some_rows(9, 4, 7))
    assert (moments.d, moments.n, moments.name) == (4, 9, "first")

    def distance(a, b, **keywords):
        return emulated.frechet_distance(a, b, **{"device": "cuda", **keywords})

    with pytest.raises(ValueError, match=r"^second: rows: expected at least 2 samples, got 1"):
        distance(moments, one)
    with pytest.raises(ValueError, match=r"^none: rows: expected at least 2 samples, got 0"):
        distance(none, moments)
    with pytest.raises(fastfid.NumericalError, match=r"^bad: rows: .*row 0 of those given"):
        distance(bad, host)
    with pytest.raises(ValueError, match="of different dimension: first: d = 4, d = 5"):
        distance(moments, host_gaussian(emulated, some_rows(9, 5, 8)))
    with pytest.raises(ValueError, match="'eigen' runs on the CPU only"):
        distance(moments, moments, method="eigen")
    with pytest.raises(ValueError, match=r"^first: moments on cuda:0 are for a distance that is taken there"):
        distance(moments, host, device="cpu")
    with pytest.raises(RuntimeError, match="cast"):
        emulated.Gaussian.on_device(fastfid.Moments(4))


def test_fid_takes_its_distance_where_the_images_came(emulated, libraries, monkeypatch):
    """FID.compute(device="cuda"), and frechet_distance of one's own moments."""
    calls = []

    class Accumulator(emulated.DeviceMoments):
        def update(self, rows, *, stream):  # HostArrays
            super().update(Tensor(rows.values.copy()))

        def to_host(self):
            calls.append("to_host")
            return super().to_host()

    monkeypatch.setattr(fastfid._core, "DeviceMoments", Accumulator)
    images = np.random.default_rng(9).integers(0, 256, (2, 7, 80, 80, 3), dtype=np.uint8)
    images[1] //= 2
    fid = fastfid.FID(extractor=OnDevice(64, "none", 4))
    for real, side in ((True, images[0]), (False, images[1])):
        fid.update(GpuTensor(side), real=real, stream=5)
    want = fid.compute()
    assert calls == ["to_host", "to_host"]
    monkeypatch.setattr(fastfid._core, "frechet_distance", emulated.frechet_distance)
    monkeypatch.setattr(fastfid.statistics, "Gaussian", emulated.Gaussian)
    for device in ("cuda", "cuda:0"):
        assert fid.compute(device=device, tol=1e-9) == pytest.approx(want, rel=DISTANCE_ON_DEVICE)
    assert len(calls) == 2
    fid.reset(fake=False)
    with pytest.raises(ValueError, match="real: a covariance needs at least 2 images, got 0"):
        fid.compute(device="cuda")
    fid.update(GpuTensor(images[0][:1]), real=True, stream=5)
    with pytest.raises(ValueError, match="real: a covariance needs at least 2 images, got 1"):
        fid.compute(device="cuda")
    fid.update(images[0][1:], real=True)  # from the host: then the side is put together there
    calls.clear()
    assert fid.compute(device="cuda", tol=1e-9) == pytest.approx(want, rel=DISTANCE_ON_DEVICE)
    assert calls == ["to_host"]

    monkeypatch.setattr(fastfid.metrics.fid, "DeviceMoments", emulated.DeviceMoments)
    moments, own = on_device(emulated, some_rows(70, 16, 1)), fastfid.Moments(16)
    own.update(some_rows(90, 16, 2))
    statistics = fastfid.Statistics.from_moments(own)
    record = fastfid.frechet_distance(moments, statistics, device="cuda", return_info=True)
    assert (record["n"], record["dims"], record["method"]) == ({"real": 70, "fake": 90}, 16, "newton-schulz")
    expected = fastfid.frechet_distance(fastfid.Statistics.from_moments(moments.to_host()), statistics)
    assert record["fid"] == pytest.approx(expected, rel=DISTANCE_ON_DEVICE)
    with pytest.raises(ValueError, match=r"a: moments on cuda:0 need device='cuda:0', got 'cpu'"):
        fastfid.frechet_distance(moments, statistics)
    with pytest.raises(ValueError, match="has 16 dims"):
        fastfid.frechet_distance(moments, ([0.0], [[1.0]]), device="cuda")
