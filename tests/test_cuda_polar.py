"""The polar route of csrc/cuda: its kernels emulated, cuBLAS and cuSOLVER played by OpenBLAS; and on a real device.

The truth is NumPy for the kernels and the CPU route, itself tested against closed forms and mpmath, for the whole.
What emulation cannot show: speed, NVIDIA's own libraries, and whatever only a GPU does.
"""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from emulation import NUMERICS, ORDERS, compile_library
from tolerances import (
    ANOTHER_ORDER,
    ANOTHER_SCALE,
    COVARIANCE,
    DEFAULT_TOL,
    DISTANCE_ON_DEVICE,
    FACTOR_RESIDUAL,
    FEW_ROUNDINGS,
    LATE_FLOAT32,
    NEWTON_SCHULZ,
    ROUNDED_ROOTS,
    TWO_ROUTES,
    U_FLOAT32,
)

import fastfid
from benchmarks.cuda_cases import DEVICE, EMULATED, TraceCase
from fastfid import _core

devices, reason = _core.cuda_driver()

LATE = {"device": 0, "float64": 1, "float32": 2}


class Outcome(ctypes.Structure):
    """As tests/cuda_emulation/polar.cpp has it."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("value", "lower", "upper", "gemms", "factor_residual")),
        ("iterations", ctypes.c_int),
        *((name, ctypes.c_char * 1024) for name in ("method", "note", "error")),
    ]


@pytest.fixture(scope="module")
def adversaries():
    """A module of its own: mpmath is not where these files run on a device."""
    import trace_adversaries

    return trace_adversaries


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The emulation, compiled, with the two libraries it looks for beside it."""
    folder = tmp_path_factory.mktemp("emulation")
    compile_library(folder / "libcublas.so.13", emulated=("fake_math",))
    (folder / "libcusolver.so.12").write_bytes((folder / "libcublas.so.13").read_bytes())
    host = ("math_libraries", "polar")
    out = folder / "polar.so"
    library = compile_library(
        out,
        core=("parallel", *NUMERICS),
        machine=("cuda_driver",),
        host=host,
        kernels=("moments",),
        emulated=("polar",),
    )
    library.first_scale.restype = ctypes.c_double
    library.set_folder(str(folder).encode())
    library.cublas = ctypes.CDLL(folder / "libcublas.so.13")
    library.cusolver = ctypes.CDLL(folder / "libcusolver.so.12")
    for fake in (library.cublas, library.cusolver):
        fake.ask_for_device(library.emulated_current_device)
    yield library
    library.emulation_order(0)


def pointer(array):
    assert array.flags.c_contiguous
    kind = ctypes.c_float if array.dtype == np.float32 else ctypes.c_double
    return array.ctypes.data_as(ctypes.POINTER(kind))


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def upper_only(a):
    """A symmetric matrix whose lower triangle must not be read."""
    return np.ascontiguousarray(np.where(np.tri(len(a), k=-1, dtype=bool), np.nan, a))


SIZES = [1, 2, 31, 32, 33, 70]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", SIZES)
class TestKernels:
    @pytest.fixture(autouse=True)
    def _order(self, library, order):
        library.emulation_order(ORDERS[order])

    def symmetric(self, n, seed=0):
        a = random(n, n, seed=seed)
        return a + a.T

    def test_mirror(self, library, n):
        a = self.symmetric(n)
        got = upper_only(a)
        library.mirror(pointer(got), n)
        np.testing.assert_array_equal(got, a)

    @pytest.mark.parametrize("scale", [None, 1.7])
    def test_polynomial(self, library, n, scale):
        y, y2 = self.symmetric(n), self.symmetric(n, seed=1)
        c = np.array([1.5, -0.25, 3.0])
        s = 1.0 if scale is None else scale
        want = c[0] * s * np.eye(n) + c[1] * s**3 * y + c[2] * s**5 * y2
        argument = None if scale is None else pointer(np.array([scale]))
        got = upper_only(y)
        library.polynomial(pointer(got), pointer(upper_only(y2)), n, pointer(c), argument)
        largest = c[0] * s - c[1] * s**3 * np.abs(y).max() + c[2] * s**5 * np.abs(y2).max()  # of all terms, c[1] < 0
        np.testing.assert_allclose(got, want, rtol=0, atol=FEW_ROUNDINGS * largest)
        np.testing.assert_array_equal(got, got.T)
        got32 = upper_only(y).astype(np.float32)
        library.polynomial_single(pointer(got32), pointer(upper_only(y2).astype(np.float32)), n, pointer(c), argument)
        np.testing.assert_allclose(got32, want, rtol=0, atol=9 * U_FLOAT32 * largest)  # few roundings there

    def test_shifted_symmetric_part(self, library, n):
        h = random(n, n)
        got = np.full((n, n), np.nan)
        library.shifted_symmetric_part(pointer(h), n, ctypes.c_double(0.5), pointer(got))
        upper = np.triu_indices(n)
        np.testing.assert_array_equal(got[upper], ((h + h.T) / 2 + 0.5 * np.eye(n))[upper])

    def test_measures(self, library, n):
        y, h = self.symmetric(n), random(n, n)
        got = np.empty(6)
        library.measure(pointer(y), pointer(h), n, ctypes.c_double(2.0), pointer(got))
        estimate = (3 * np.trace(h) - np.sum(y * h)) / 2
        shift = max(0.0, (estimate - np.trace(h)) / n) + 4 * 2.0**-53 * 2.0
        want = [np.linalg.norm(y), np.linalg.norm(h), np.sum(y * h), np.trace(y), np.trace(h), shift]
        np.testing.assert_allclose(got, want, rtol=ANOTHER_ORDER)

    def test_trial(self, library, n):
        rows = n + 3
        c, w, m, wc = upper_only(self.symmetric(n)), random(rows, n), random(rows, n, seed=1), random(rows, n, seed=2)
        got = np.empty(3)
        library.measure_trial(pointer(c), n, pointer(w), pointer(m), pointer(wc), rows, pointer(got))
        norms = [np.linalg.norm(np.triu(c)[np.triu_indices(n)]), np.linalg.norm(w), np.linalg.norm(m - wc)]
        np.testing.assert_allclose(got, norms, rtol=ANOTHER_ORDER)

    def test_first_scale(self, library, n):
        y2 = self.symmetric(n)
        alpha = min(1.0, np.linalg.norm(y2) ** 0.25) * (1 + 1e-12)
        assert library.first_scale(pointer(upper_only(y2)), n) == pytest.approx(1 / alpha, rel=FEW_ROUNDINGS)

    @pytest.mark.parametrize("d", [1, 33, 70])
    def test_rows_become_a_factor(self, library, n, d):
        n += 1
        rows = (random(n, d + 5) + 1e4).astype(np.float32)  # longer than wide: what lies between is not read
        rows[:, d:] = np.nan
        f, mean = np.full((n, d), np.nan), np.full(d, np.nan)
        library.centre_rows(pointer(rows), d + 5, n, d, pointer(f), pointer(mean))
        x = rows[:, :d].astype(np.longdouble)
        centred = x - x.mean(axis=0)
        np.testing.assert_allclose(mean, x.mean(axis=0).astype(float), rtol=FEW_ROUNDINGS)
        np.testing.assert_allclose(f, centred.astype(float), rtol=0, atol=FEW_ROUNDINGS * np.abs(f).max())
        library.reflect_rows(pointer(f), n, d, ctypes.c_double(2.0))
        # F^T F / 4 is the scatter matrix, with one row less.
        scatter = (centred.T @ centred).astype(float)
        np.testing.assert_allclose(4 * f[:-1].T @ f[:-1], scatter, rtol=0, atol=COVARIANCE * scatter.max())

    def test_facts(self, library, n):
        s = random(n, n)
        got = np.empty(3)
        library.symmetric_facts(pointer(s), n, pointer(got))
        want = [np.trace(s), np.abs(s).max(), np.abs(s - s.T).max()]
        np.testing.assert_allclose(got, want, rtol=ANOTHER_ORDER)
        s[n // 2, 0] = np.nan
        library.symmetric_facts(pointer(s), n, pointer(got))
        assert np.isnan(got[1])


def covariance(n, d, seed=0):
    return np.cov(random(n, d, seed=seed) @ (np.eye(d) + random(d, d, seed=seed + 9) / 3), rowvar=False)


class TestTrace:
    """cuda::trace_sqrt_product beside the CPU's eigenvalues."""

    def run(self, library, first, second, tol=None, late="float64", is_on_device=True):
        out = Outcome()
        rows = [0 if x.shape[0] == x.shape[1] else x.shape[0] for x in (first, second)]
        library.trace_sqrt_product(
            pointer(first),
            rows[0],
            pointer(second),
            rows[1],
            first.shape[1],
            int(is_on_device),
            ctypes.c_double(-1 if tol is None else tol),
            LATE[late],
            ctypes.byref(out),
        )
        return out

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("case", EMULATED.traces, ids=str)
    def test_positive_definite(self, library, case, order):
        library.emulation_order(ORDERS[order])
        a, b = case.covariances()
        want = fastfid.trace_sqrt_product(a, b)
        got = self.run(library, a, b, tol=case.tol)
        assert not got.error
        assert (got.method, got.note) == (b"newton-schulz", b"")
        assert got.lower <= want.value <= got.upper
        assert got.upper - got.lower <= 1.01 * case.tol * got.upper
        assert got.value == pytest.approx(want.value, rel=case.tol)
        assert got.factor_residual <= FACTOR_RESIDUAL

    def test_the_libraries_find_the_device_current_and_the_caller_what_he_had(self, library):
        """Each call of the played libraries fails where the current device is not the one of the handle."""
        before = library.emulated_current_device()
        assert before == -1
        assert not self.run(library, covariance(60, 12), covariance(60, 12, seed=1)).error
        assert library.emulated_current_device() == before

    @pytest.mark.parametrize(("value", "is_refused"), [("1", True), ("yes", True), ("0", False), ("", False)])
    def test_emulated_float64_is_refused(self, library, value, is_refused, monkeypatch):
        """cuBLAS would read it, and no bound would hold."""
        monkeypatch.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", value)
        error = self.run(library, covariance(60, 12), covariance(60, 12, seed=1)).error.decode()
        assert error.startswith(f"the environment variable CUBLAS_EMULATE_DOUBLE_PRECISION is '{value}'") == is_refused
        assert bool(error) == is_refused

    def test_same_as_the_host_route(self, library):
        """One algorithm: the operations differ in rounding only."""
        a, b = covariance(200, 48), covariance(150, 48, seed=3)
        host = fastfid.trace_sqrt_product(a, b, method="newton-schulz", tol=1e-10)
        got = self.run(library, a, b, tol=1e-10)
        assert got.iterations == host.iterations
        assert got.value == pytest.approx(host.value, rel=TWO_ROUTES)
        # What rounding may do in the factors is measured there, and bounded by Cholesky's theorem here.
        assert 0.5 * (host.upper - host.lower) <= got.upper - got.lower <= 1.5 * (host.upper - host.lower)

    def test_covariances_on_the_host_are_copied(self, library):
        a, b = covariance(100, 20), covariance(90, 20, seed=2)
        one, other = (self.run(library, a, b, is_on_device=where) for where in (True, False))
        assert (one.value, one.lower, one.upper) == (other.value, other.lower, other.upper)

    def test_late_iterations_in_float32(self, library):
        a, b = covariance(200, 40), covariance(150, 40, seed=3)
        want = fastfid.trace_sqrt_product(a, b).value
        got = self.run(library, a, b, late="float32")
        assert b"float32" in got.note
        assert got.lower <= want <= got.upper
        assert got.upper - got.lower <= LATE_FLOAT32 * got.upper
        # Float64 gives a narrower bracket: the switch does something; and a tolerance it could not meet turns it off.
        double = self.run(library, a, b)
        assert double.upper - double.lower < got.upper - got.lower
        assert b"float32" not in self.run(library, a, b, tol=1e-9, late="float32").note

    def test_an_inaccurate_solve_widens_the_bounds(self, library):
        """Nothing is assumed of cuBLAS's triangular solve: a smaller W alone would prove too small an upper bound."""
        a, b = covariance(200, 40), covariance(150, 40, seed=3)
        want = fastfid.trace_sqrt_product(a, b).value
        exact = self.run(library, a, b)
        error = 1e-8
        library.cublas.spoil(ctypes.c_double(error), 0)
        try:
            got = self.run(library, a, b)
        finally:
            library.cublas.spoil(ctypes.c_double(0), 0)
        assert got.lower <= want <= got.upper
        assert got.upper > exact.upper
        assert got.upper - got.lower <= len(a) ** 0.5 * error * got.upper  # the root of n before what the solve leaves

    def test_a_covariance_whose_factorisation_fails_goes_to_the_host(self, library):
        a, b = covariance(200, 40), covariance(150, 40, seed=3)
        want = fastfid.trace_sqrt_product(a, b).value
        library.cusolver.spoil(ctypes.c_double(0), 1)
        got = self.run(library, a, b)
        assert got.note == b"sigma1 was factored on the host"
        assert got.lower <= want <= got.upper

    def test_further_shifts(self, library):
        """Rows need no factorisation: the first is the certificate's. After a failure a larger shift follows."""
        a, b = random(20, 40), random(30, 40, seed=1)
        exact = self.run(library, a, b)
        library.cusolver.spoil(ctypes.c_double(0), 2)
        got = self.run(library, a, b)
        assert got.method == b"newton-schulz"
        assert (got.value, got.lower) == (exact.value, exact.lower)
        assert exact.upper < got.upper
        assert got.upper - got.lower <= DEFAULT_TOL * got.upper
        assert got.gemms > exact.gemms  # three trials

    @pytest.mark.parametrize(("n1", "n2"), [(20, 200), (200, 20), (12, 20)])
    def test_thin_sides(self, library, n1, n2):
        d = 40
        sides = []
        for seed, n in enumerate((n1, n2)):
            rows = random(n, d, seed=seed)
            sides.append((rows if n <= d else np.cov(rows, rowvar=False), rows))
        (a, rows1), (b, rows2) = sides
        want = np.linalg.svd(
            (rows1 - rows1.mean(0)) @ (rows2 - rows2.mean(0)).T / np.sqrt((n1 - 1) * (n2 - 1)), compute_uv=False
        ).sum()
        got = self.run(library, a, b)
        assert not got.error
        assert got.lower <= want * (1 + ROUNDED_ROOTS)
        assert want * (1 - ROUNDED_ROOTS) <= got.upper
        assert got.value == pytest.approx(want, rel=NEWTON_SCHULZ)

    def test_a_singular_covariance_is_factored_on_the_host(self, library):
        a, b = covariance(20, 40), covariance(200, 40, seed=1)
        want = fastfid.trace_sqrt_product(a, b)
        got = self.run(library, a, b)
        assert b"sigma1 was factored on the host" in got.note
        assert b"rank 19 of 40" in got.note
        assert got.lower <= want.upper
        assert want.lower <= got.upper
        assert got.value == pytest.approx(want.value, rel=NEWTON_SCHULZ)

    def test_further_stages_and_the_last_resort(self, library):
        """Condition 1e12 needs a second stage; a tolerance beyond float64 ends at the singular values."""
        a, b = np.diag(np.logspace(0, -12, 50)), np.eye(50)
        want = np.sqrt(np.diag(a)).sum()
        tol = 1e-8
        second = self.run(library, a, b, tol=tol)
        assert second.iterations > 10
        assert second.lower <= want <= second.upper
        assert second.upper - second.lower <= 1.01 * tol * second.upper
        last = self.run(library, a, b, tol=1e-16)
        assert last.method == b"svd"
        assert b"taken on the host" in last.note
        assert last.value == pytest.approx(want, rel=ROUNDED_ROOTS)

    @pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
    def test_any_scale(self, library, scale):
        a, b = covariance(100, 16), covariance(100, 16, seed=1)
        want = self.run(library, a, b).value * scale
        assert self.run(library, a * scale, b * scale).value == pytest.approx(want, rel=ANOTHER_SCALE, abs=0)

    def test_bounds_hold_for_the_matrices_as_given(self, library, adversaries):
        """As on the host: tests/test_trace_bounds.py."""
        for index, pair in enumerate(adversaries.pairs(200, 1)):
            rows = [side for side, are_rows in zip(pair.sides, pair.are_rows, strict=True) if are_rows]
            if any(len(x) >= x.shape[1] for x in rows):
                continue  # run() takes square rows for a covariance, the device thin ones only
            got = self.run(library, *pair.sides)
            assert not got.error
            assert adversaries.violation(got, adversaries.truth(pair).trace) == 0, (index, pair.family)
            if got.upper - got.lower > 2 * DEFAULT_TOL * got.upper:
                assert b"rounding" in got.note, (index, pair.family)

    def test_an_inaccurate_solve_gives_no_narrow_bounds(self, library, adversaries):
        """F^-1 comes from cuBLAS's solve too; what it leaves is measured."""
        pair = next(pair for pair in adversaries.pairs(100, 1) if pair.family == "opposed")
        exact = adversaries.truth(pair).trace
        widths = []
        for error in (0, 0.3, 0.9):
            library.cublas.spoil(ctypes.c_double(error), 0)
            try:
                got = self.run(library, *pair.sides)
            finally:
                library.cublas.spoil(ctypes.c_double(0), 0)
            assert adversaries.violation(got, exact) == 0
            widths.append(got.upper - got.lower)
        assert widths[2] > widths[0]

    def test_zero(self, library):
        got = self.run(library, np.zeros((5, 5)), np.eye(5))
        assert (got.value, got.lower, got.upper, got.error) == (0, 0, 0, b"")

    def test_disjoint_supports(self, library):
        """M = 0 although neither side is."""
        rows = np.zeros((2, 3, 8))
        rows[0, :, :2], rows[1, :, 4:6] = random(3, 2), random(3, 2, seed=1)
        got = self.run(library, rows[0], rows[1])
        assert (got.value, got.lower, got.error) == (0, 0, b"")

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda a: np.where(np.eye(len(a)), np.nan, a), "sigma2: contains NaN or infinity"),
            (lambda a: a - 3 * np.eye(len(a)) * a.max(), "Imaginary component"),
            (lambda a: a + np.tri(len(a)), "sigma2: expected a symmetric matrix"),
        ],
    )
    def test_bad_covariances_raise_what_the_host_raises(self, library, spoil, words):
        a = covariance(60, 12)
        assert words in self.run(library, a, np.ascontiguousarray(spoil(a))).error.decode()


class TestDistance:
    def run(self, library, mu1, side1, mu2, side2):
        out = np.empty(6)
        n1, n2 = (0 if side.shape[0] == side.shape[1] else side.shape[0] for side in (side1, side2))
        library.frechet_distance(
            pointer(mu1), pointer(side1), n1, pointer(mu2), pointer(side2), n2, len(mu1), pointer(out)
        )
        return dict(zip(("value", "lower", "upper", "mean_term", "trace1", "trace2"), out, strict=True))

    @pytest.mark.parametrize("n1", [25, 300])
    def test_beside_the_cpu(self, library, n1):
        rows1, rows2 = random(n1, 30), random(200, 30, seed=1) + 0.2
        mu1, mu2 = rows1.mean(0), rows2.mean(0)
        sigma2 = np.cov(rows2, rowvar=False)
        thin = n1 < 30
        sigma1 = None if thin else np.cov(rows1, rowvar=False)
        first = _core.Gaussian(mu1, rows=rows1) if thin else _core.Gaussian(mu1, sigma1)
        want = _core.frechet_distance(first, _core.Gaussian(mu2, sigma2))
        got = self.run(library, mu1, rows1 if thin else sigma1, mu2, sigma2)
        assert got["lower"] <= want.value <= got["upper"]
        off = DISTANCE_ON_DEVICE * (want.trace1 + want.trace2)
        assert got["value"] == pytest.approx(want.value, rel=0, abs=off)
        for name in ("mean_term", "trace1", "trace2"):
            assert got[name] == pytest.approx(getattr(want, name), rel=ANOTHER_ORDER)


class TestArguments:
    def test_a_device_that_is_not_there(self):
        with pytest.raises(fastfid.BackendUnavailable, match=r"no CUDA device|built without its CUDA part"):
            fastfid.trace_sqrt_product(np.eye(2), np.eye(2), device="cuda:99")
        with pytest.raises(fastfid.BackendUnavailable, match=r"no CUDA device|built without its CUDA part"):
            fastfid.frechet_distance((np.zeros(2), np.eye(2)), (np.zeros(2), np.eye(2)), device="cuda:99")

    @pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""])
    def test_no_device(self, device):
        with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N'"):
            fastfid.trace_sqrt_product(np.eye(2), np.eye(2), device=device)


def test_missing_libraries_say_what_to_install(library, tmp_path):
    """In a process of its own: the libraries are looked for once."""
    code = f"""
import ctypes, numpy as np
library = ctypes.CDLL({str(library._name)!r})
library.set_folder({str(tmp_path)!r}.encode())
a = np.eye(2)
out = ctypes.create_string_buffer(8192)
p = a.ctypes.data_as(ctypes.c_void_p)
library.trace_sqrt_product(p, 0, p, 0, 2, 1, ctypes.c_double(-1), 0, out)
print(out.raw.replace(b"\\0", b" ").decode(errors="replace"))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs libcublas.so.13" in printed
    assert "pip install nvidia-cublas" in printed


@pytest.mark.cuda
@pytest.mark.skipif(not devices, reason=f"no CUDA device: {reason}")
class TestDevice:
    """On a real device, with NVIDIA's libraries."""

    @pytest.mark.parametrize("case", DEVICE.traces, ids=str)
    def test_beside_the_cpu(self, case):
        a, b = case.covariances()
        want = fastfid.trace_sqrt_product(a, b)
        got = fastfid.trace_sqrt_product(a, b, device="cuda", tol=case.tol)
        assert got.lower <= want.upper
        assert want.lower <= got.upper
        assert got.upper - got.lower <= 1.01 * case.tol * got.upper
        assert got.value == pytest.approx(want.value, rel=case.tol)
        assert ("factored on the host" in got.note) == case.is_singular
        again = fastfid.trace_sqrt_product(a, b, device="cuda", tol=case.tol)
        assert (again.value, again.lower, again.upper) == (got.value, got.lower, got.upper)

    def test_covariances_that_are_there_already(self):
        a, b = TraceCase(2048, 5000).covariances()
        stream = _core.CudaStream(0)
        there = []
        for sigma in (a, b):
            there.append(_core.CudaArray(sigma.shape, np.dtype(np.float64), stream))
            there[-1].copy_from(sigma)
        got = fastfid.trace_sqrt_product(*there, device="cuda")
        want = fastfid.trace_sqrt_product(a, b, device="cuda")
        assert (got.value, got.lower, got.upper) == (want.value, want.lower, want.upper)
        np.testing.assert_array_equal(there[0].numpy(), a)

    def test_distance(self):
        rows = random(500, 64), random(300, 64, seed=1) + 0.1
        sides = [_core.Gaussian(r.mean(0), np.cov(r, rowvar=False)) for r in rows]
        want = _core.frechet_distance(*sides)
        got = _core.frechet_distance(*sides, device="cuda")
        assert got.lower <= want.value <= got.upper
        off = DISTANCE_ON_DEVICE * (want.trace1 + want.trace2)
        assert got.value == pytest.approx(want.value, rel=0, abs=off)

    def test_bad_arguments(self):
        a = np.eye(4)
        with pytest.raises(ValueError, match="'eigen' runs on the CPU only"):
            fastfid.trace_sqrt_product(a, a, device="cuda", method="eigen")
        with pytest.raises(TypeError, match="sigma2"):
            fastfid.trace_sqrt_product(a, a.astype(np.float32), device="cuda")
        with pytest.raises(ValueError, match="differ in dimension"):
            fastfid.trace_sqrt_product(a, np.eye(3), device="cuda")
        with pytest.raises(fastfid.NumericalError, match="contains NaN"):
            fastfid.trace_sqrt_product(a, a * np.nan, device="cuda")
