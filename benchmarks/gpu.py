"""Everything about the GPU in one command: build, check against the CPU, measure, and write the results down.

    python -m benchmarks.gpu [--smoke] [--stage NAME ...] [--no-build] [--output FOLDER]
    python -m benchmarks.gpu --join RESULT.json ... [--output FOLDER]    (without a device: parts to one result)

It needs one CUDA device, nvcc 13, torch with CUDA, and what the build needs (pybind11, scikit-build-core,
scipy-openblas32); no index. What else is missing (CuPy, torchmetrics, pytorch-fid, an ONNX Runtime with CUDA, the
weights, compute-sanitizer) is written into the result as "not measured: why". ``--smoke`` takes two minutes: build, the
tests that need a device, the checks, one figure. The results go to ``benchmarks/results/gpu-<card>-<date>.json`` and
``.md``; ``make figures`` then puts a line into README. Exit code 1: no device, something failed, or an answer
disagreed. A missed target is reported and is no failure.
"""

import argparse
import ctypes
import datetime
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import gpu_report, machine, report

if TYPE_CHECKING:
    from benchmarks.cuda_cases import Cases, DistanceCase, ImagesCase, MapCase, MomentsCase, TraceCase

REPOSITORY = Path(__file__).resolve().parent.parent
DEVICE = "cuda:0"
D = 2048
IMAGES = 256  # of 512 x 512 in a call of the preprocessing
COPY_BYTES = 1 << 30
UPDATES = 50
BUSY_CYCLES = 2_000_000  # of the device's clock, about a millisecond
FLUSH_BYTES = 512 << 20  # several times the largest L2 there is
# In these two stages, errors in the kernels of NVIDIA's libraries are not errors of fastfid.
OURS_ONLY = ("--kernel-name", "kns=fastfid")
SANITIZERS = {"memcheck": (), "racecheck": OURS_ONLY, "initcheck": OURS_ONLY, "synccheck": ()}


class NotMeasured(Exception):
    """Something that a stage needs is missing. The message names it."""


def missing_device() -> str | None:
    """Return why there is no CUDA device, or None. Queries the driver, before fastfid is built."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) was found"
    if code := driver.cuInit(0):
        return f"cuInit failed with CUDA error {code}"
    count = ctypes.c_int()
    if code := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"cuDeviceGetCount failed with CUDA error {code}"
    return None if count.value else "the NVIDIA driver reports no device"


def need(*modules: str) -> None:
    """Raise NotMeasured unless all the packages are installed."""
    if (why := missing_packages(*modules)) is not None:
        raise NotMeasured(why)


def missing_packages(*modules: str) -> str | None:
    """Return a sentence that names the packages that are not installed; None if all are installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None


# ---------------------------------------------------------------------------------------------------------- the run


@dataclass
class Run:
    """One run: its record, and the data that stages share."""

    record: dict[str, Any]
    is_smoke: bool
    seed: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    _flush: Any = None

    def rng(self, *key: int) -> np.random.Generator:
        """Return a random generator for each key, which the record's seed reproduces."""
        return np.random.default_rng((self.seed, *key))

    def check(self, what: str, error: float, limit: float) -> None:
        """Record the difference of an answer from the CPU's answer. NaN fails the check."""
        ok = bool(error <= limit)
        self.record["checks"].append({"what": what, "error": float(error), "limit": limit, "ok": ok})
        print(f"  {'holds' if ok else 'DOES NOT HOLD'}: {what}: {error:.3g} (limit {limit:.3g})", flush=True)

    def row(self, case: str, contender: str, seconds: Sequence[float], **more: Any) -> float:
        """Record a measurement and return its median. With `count` and `unit`, record a rate too."""
        median = statistics.median(seconds) if seconds else float("nan")
        count = more.pop("count", None)
        entry = {"case": case, "contender": contender, "median": median, "low": min(seconds), "high": max(seconds)}
        entry |= {"seconds": list(seconds), "rate": count / median if count else None, "unit": more.pop("unit", "")}
        entry |= {"note": more.pop("note", ""), **more}
        self.rows.append(entry)
        rate = f", {report.number(entry['rate'])} {entry['unit']}" if count else ""
        print(f"  {case} | {contender}: {report.duration(median)}{rate} {entry['note']}", flush=True)
        return median

    def missing(self, case: str, contender: str, why: object) -> None:
        """Record that a contender was not measured."""
        self.rows.append({"case": case, "contender": contender, "note": f"not measured: {why}"})
        print(f"  {case} | {contender}: not measured: {why}", flush=True)

    def events(self, function: Callable[[], object], *, stream: Any = None, repeats: int = 20) -> list[float]:
        """Return the seconds between CUDA events before and after each call, after a warm-up, with L2 cache flushed.

        `stream`: the stream of the function's work. Default: torch's current stream. The stream is kept busy for a
        millisecond before each call, so that the host has enqueued most of the work when the first event is reached.
        """
        import torch

        if self._flush is None:
            self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=DEVICE)
        stream = stream or torch.cuda.current_stream()
        for _ in range(3):
            function()
        torch.cuda.synchronize()
        times = []
        for _ in range(5 if self.is_smoke else repeats):
            self._flush.random_()
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.cuda.stream(stream):
                torch.cuda._sleep(BUSY_CYCLES)
            start.record(stream)
            function()
            end.record(stream)
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return times

    def clock(self, function: Callable[[], object], *, repeats: int = 7) -> list[float]:
        """Return the seconds of calls that end on the host, measured by the host's clock."""
        import torch

        function()
        times = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            function()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return times


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of an element divided by the largest element. NaN gives NaN."""
    if found.shape != expected.shape:
        return float("nan")
    return float(np.abs(found.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-300))


def device_array(values: np.ndarray, stream: Any) -> Any:
    """Return a copy of a host array on the device."""
    from fastfid import _core

    array = _core.CudaArray(values.shape, values.dtype, stream)
    array.copy_from(np.ascontiguousarray(values))
    return array


def poisoned(shape: tuple[int, ...], dtype: str, stream: Any) -> Any:
    """Return device memory in which every element is NaN."""
    from fastfid import _core

    array = _core.CudaArray(shape, dtype, stream)
    array.fill_bytes(0xFF)
    return array


def features_like(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return float32 rows similar to features of a network: not negative, correlated, of decreasing scale."""
    mixing = rng.standard_normal((d, min(d, 256))).astype(np.float32)
    rows = rng.standard_normal((n, mixing.shape[1])).astype(np.float32) @ mixing.T / 16
    rows += rng.standard_normal((n, d)).astype(np.float32) * np.float32(0.3)
    return np.abs(rows * np.logspace(0, -1, d, dtype=np.float32)).astype(np.float32)


def crops(count: int, seed: int, size: int = 256) -> np.ndarray:
    """Return parts of real photographs, uint8 (count, size, size, 3)."""
    need("skimage", "PIL")
    from benchmarks.images import photograph

    return np.stack([photograph(seed + i, size, size) for i in range(count)])


# ------------------------------------------------------------------------------------------------- checks against CPU


def exercise(run: Run, cases: "Cases") -> None:
    """Every kernel on new random numbers and on photographs, outputs poisoned, against the CPU. Uses no torch."""
    from fastfid import _core

    stream = _core.CudaStream(0)
    check_moments(run, stream, cases.moments)
    check_spatial_mean(run, stream, cases.maps)
    check_preprocess(run, stream, cases.images)
    check_trace(run, stream, cases.traces)
    check_distance(run, stream, cases.distances)


def check_moments(run: Run, stream: Any, cases: Sequence["MomentsCase"]) -> None:
    from fastfid import Moments, _core

    for k, case in enumerate(cases):
        if case.dtype == "bfloat16" or case.layout != "contiguous":
            continue  # no CudaArray is either; stage_oracle has them as torch's tensors
        rows = (features_like(run.rng(1, k), case.n, case.d) + np.float32(case.offset)).astype(case.dtype)
        expected = Moments(case.d)
        found = _core.DeviceMoments(case.d, device=0)
        for start in range(0, case.n, case.batch):
            part = rows[start : start + case.batch]
            expected.update(part)
            found.update(device_array(part, stream), stream=stream.handle)
        host = found.to_host()
        what = f"moments, {case.n} x {case.d} {case.dtype}, {found._arithmetic}"
        limit = 1e-12 if found._arithmetic == "float64" else 1e-6
        run.check(f"{what}: mean", relative(host.mean, expected.mean), limit)
        run.check(f"{what}: covariance", relative(host.covariance(), expected.covariance()), limit)
        run.check(f"{what}: n", abs(host.n - expected.n), 0)

    if importlib.util.find_spec("skimage") is not None:
        # Real data without a network: 8 x 8 means of photographs, 192 of each.
        parts = crops(600, run.seed % 1000, 64).reshape(600, 8, 8, 8, 8, 3).mean((2, 4), dtype=np.float32)
        rows = np.ascontiguousarray(parts.reshape(600, 192))
        expected, found = Moments(192), _core.DeviceMoments(192, device=0)
        expected.update(rows)
        found.update(device_array(rows, stream), stream=stream.handle)
        error = relative(found.to_host().covariance(), expected.covariance())
        run.check(
            "moments of photographs, 600 x 192: covariance", error, 1e-12 if found._arithmetic == "float64" else 1e-6
        )


def check_spatial_mean(run: Run, stream: Any, cases: Sequence["MapCase"]) -> None:
    from fastfid import _core

    for k, case in enumerate(cases):
        map = (run.rng(2, k).standard_normal(case.shape) * 10).astype(case.dtype)
        out = poisoned(case.shape[:2], "float32", stream)
        _core.cuda_spatial_mean(device_array(map, stream), out)
        expected = _core.spatial_mean(map.astype(np.float32))
        run.check(f"spatial mean, {case.shape} {case.dtype}", relative(out.numpy(), expected), 2.0**-23)


def check_preprocess(run: Run, stream: Any, cases: Sequence["ImagesCase"]) -> None:
    """Outputs are the CPU's, bit for bit; in float16 they are the CPU's, rounded."""
    from benchmarks.cuda_cases import ImagesCase, in_layout
    from fastfid import _core
    from fastfid.protocols import PROTOCOLS, input_spec

    photographs = [] if importlib.util.find_spec("skimage") is None else [crops(2, 7), crops(2, 9, 400)]
    for protocol in PROTOCOLS:
        preprocessor = _core.CudaPreprocessor(input_spec(protocol), 0)
        different = 0
        count = 0
        of_case = ((noise(run, k, case), case) for k, case in enumerate(cases) if case.protocol == protocol)
        of_photographs = (
            (images, ImagesCase(protocol, *images.shape[1:3], len(images), layout, dtype))
            for images in photographs
            for layout in ("nhwc", "nchw")
            for dtype in ("float32", "float16")
        )
        for images, case in (*of_case, *of_photographs):
            wanted = _core.preprocess(images, input_spec(protocol)).astype(case.dtype)
            out = poisoned(wanted.shape, case.dtype, stream)
            tensor = device_array(in_layout(images, case.layout), stream)
            preprocessor.run(tensor, out, channels_last=case.layout == "nhwc", stream=stream.handle)
            bits = np.uint32 if case.dtype == "float32" else np.uint16
            different += int((out.numpy().view(bits) != wanted.view(bits)).sum())
            count += wanted.size
        run.check(f"preprocess {protocol}: values that differ in any bit, of {count}", different, 0)


def noise(run: Run, k: int, case: "ImagesCase") -> np.ndarray:
    """Return new images of case number `k`, uint8 (n, h, w, 3)."""
    return run.rng(3, k).integers(0, 256, (case.n, case.h, case.w, 3), dtype=np.uint8)


def check_trace(run: Run, stream: Any, cases: Sequence["TraceCase"]) -> None:
    from fastfid import _core

    for j, case in enumerate(cases):
        rows = (features_like(run.rng(4, j, k), case.n, case.d).astype(np.float64) for k in (0, 1))
        sigma1, sigma2 = (np.atleast_2d(np.cov(side.T)) for side in rows)
        expected = _core.trace_sqrt_product(sigma1, sigma2)
        for kind, sides in (
            ("host", (sigma1, sigma2)),
            ("device", (device_array(sigma1, stream), device_array(sigma2, stream))),
        ):
            found = _core.trace_sqrt_product(*sides, tol=case.tol, device=DEVICE)
            what = f"trace, d = {case.d}, {kind} covariances of {case.n} rows, tol {case.tol:g}"
            error = abs(found.value - expected.value) / expected.value
            run.check(f"{what}: value", error, max(1e-8, case.tol))
            outside = max(found.lower - expected.upper, expected.lower - found.upper, 0.0)
            run.check(f"{what}: brackets that do not meet", outside / expected.value, 0)
            width = (found.upper - found.lower) / expected.value
            limit = max(1e-6, 1.01 * case.tol)
            run.check(f"{what}: width of the certified bracket", width if width >= 0 else float("nan"), limit)


def check_distance(run: Run, stream: Any, cases: Sequence["DistanceCase"]) -> None:
    """Of moments that stay on the device, thin and full; and of one side there, one on the host."""
    from fastfid import Moments, _core

    for k, case in enumerate(cases):
        there, here = [], []
        for side, n in enumerate((case.n1, case.n2)):
            rows = features_like(run.rng(7, k, side), n, case.d)
            moments, on_device = Moments(case.d), _core.DeviceMoments(case.d, device=0)
            moments.update(rows)
            on_device.update(device_array(rows, stream), stream=stream.handle)
            sigma = None if n <= case.d else moments.covariance()
            here.append(_core.Gaussian(moments.mean, sigma, rows=moments.rows))
            there.append(_core.Gaussian.on_device(on_device))
        expected = _core.frechet_distance(*here)
        size = expected.trace1 + expected.trace2
        for kind, sides in (("device and device", there), ("device and host", (there[0], here[1]))):
            found = _core.frechet_distance(*sides, tol=1e-9, device=DEVICE)
            what = f"distance, {case.n1} x {case.d} and {case.n2} x {case.d}, {kind}"
            run.check(f"{what}: value", abs(found.value - expected.value) / size, 1e-8)
            run.check(f"{what}: |mu1 - mu2|^2", abs(found.mean_term - expected.mean_term) / size, 1e-12)
            outside = max(found.lower - expected.upper, expected.lower - found.upper, 0.0)
            run.check(f"{what}: brackets that do not meet", outside / size, 0)


# ------------------------------------------------------------------------------------------------------------ stages


# The files with tests that are marked cuda. Other files need packages that a machine with a GPU may lack.
ORACLE_TESTS = ("tests/test_cuda_device.py", "tests/test_cuda_polar.py", "tests/test_cuda_preprocess.py")
NETWORK_TESTS = "tests/test_cuda_network.py"
# Packages that the import of ORACLE_TESTS needs.
ORACLE_PACKAGES = ("pytest", "torch", "ml_dtypes", "pybind11", "scipy_openblas32")

# pyproject.toml's options would make an error of its timeout where pytest-timeout is missing.
# Plugins that are not there, and whose options pyproject.toml names, are no error.
PLUGINLESS = ("-W", "ignore::pytest.PytestConfigWarning")
ORACLE_OPTIONS = ("-q", "-m", "cuda", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers", *PLUGINLESS)


def stage_oracle(run: Run) -> None:
    """The repository's own tests on the device."""
    need(*ORACLE_PACKAGES)
    files = list(ORACLE_TESTS)
    if not run.is_smoke:
        if (why := network_is_missing() or missing_packages("skimage")) is not None:
            run.missing("tests on the device", NETWORK_TESTS, why)
        else:
            files.append(NETWORK_TESTS)
    arguments = [*ORACLE_OPTIONS, *files]
    if run.is_smoke:
        arguments += ["--maxfail", "3"]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "FASTFID_REQUIRE_CUDA": "1"},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    summary = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1]
    run.row("tests on the device", "pytest -m cuda", [time.perf_counter() - begin], note=summary)
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        raise RuntimeError(f"pytest -m cuda: {summary}")


def stage_checks(run: Run) -> None:
    """The kernels against the CPU."""
    from benchmarks import cuda_cases

    exercise(run, cuda_cases.SMALL if run.is_smoke else cuda_cases.DEVICE)


def stage_moments(run: Run) -> None:
    """Rows to sums, beside cuBLAS dsyrk on ready float64 rows and torchmetrics' update."""
    need("torch")
    import torch

    from fastfid import _core

    n = 16384 if run.is_smoke else 65536
    rows = torch.from_numpy(features_like(run.rng(5), 8192, D)).to(DEVICE).repeat(n // 8192, 1)
    case, flops = f"{n} rows, d = {D}", float(n) * D * D
    rate = {"count": flops / 1e12, "unit": "TFLOP/s (n d^2)"}
    for dtype in ("float32", "float16", "bfloat16"):
        given = rows.to(getattr(torch, dtype))
        moments = _core.DeviceMoments(D, device=0)
        times = run.events(lambda given=given, moments=moments: moments.update(given))
        note = f"sums in {moments._arithmetic}"
        median = run.row(case, f"fastfid, {dtype} rows", times, note=note, **rate)
        if dtype == "float32":
            ours = median
    small = rows[:64].contiguous()
    moments = _core.DeviceMoments(D, device=0)
    run.row(
        "64 rows at a time",
        "fastfid, float32 rows",
        run.events(lambda: moments.update(small)),
        **rate | {"count": 64 * D * D / 1e12},
    )
    wide = rows.double()
    try:
        syrk = dsyrk(wide)
        theirs = run.row(case, "cuBLAS dsyrk, float64 rows", run.events(syrk), **rate)
        run.record["values"]["moments_of_dsyrk"] = theirs / ours
    except (OSError, RuntimeError) as error:
        run.missing(case, "cuBLAS dsyrk", error)
    # The work of torchmetrics 1.9 on features (image/fid.py, update): conversion to float64, a sum, a full product.
    sums, cross = (
        torch.zeros(D, dtype=torch.float64, device=DEVICE),
        torch.zeros(D, D, dtype=torch.float64, device=DEVICE),
    )

    def as_torchmetrics() -> None:
        double = rows.double()
        sums.add_(double.sum(dim=0))
        cross.add_(double.t().mm(double))

    try:
        need("torchmetrics")
        from torchmetrics.image.fid import FrechetInceptionDistance

        class Rows(torch.nn.Module):
            num_features = D

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x

        metric = FrechetInceptionDistance(feature=Rows()).to(DEVICE)
        update, name = (lambda: metric.update(rows, real=True)), "torchmetrics update, its own code"
        update()
    except Exception as error:
        update, name = (
            as_torchmetrics,
            f"torchmetrics' update, its lines (the package: {type(error).__name__}: {error})",
        )
    theirs = run.row(case, name, run.events(update, repeats=10), **rate)
    run.record["values"]["moments_of_torchmetrics"] = theirs / ours


def dsyrk(rows: Any) -> Callable[[], None]:
    """Return a call of cublasDsyrk on the lower triangle of rows^T rows; `rows` float64 (n, d) on the device."""
    import torch

    library = ctypes.CDLL(f"libcublas.so.{torch.version.cuda.partition('.')[0]}")  # torch has loaded it
    n, d = rows.shape
    out = torch.empty(d, d, dtype=torch.float64, device=rows.device)
    handle = ctypes.c_void_p()

    def expect(status: int, call: str) -> None:
        if status:
            raise RuntimeError(f"{call} failed with status {status}")

    expect(library.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    expect(library.cublasSetStream_v2(handle, stream), "cublasSetStream")
    one, zero = ctypes.c_double(1), ctypes.c_double(0)
    # Row-major (n, d) is column-major (d, n): A A^T of it, lower triangle (0), not transposed (0).
    arguments = (handle, 0, 0, d, n, ctypes.byref(one), ctypes.c_void_p(rows.data_ptr()), d)
    arguments += (ctypes.byref(zero), ctypes.c_void_p(out.data_ptr()), d)

    def call() -> None:
        expect(library.cublasDsyrk_v2(*arguments), "cublasDsyrk")

    call.out = out  # type: ignore[attr-defined]  # keeps the output alive while there are calls
    call()
    triangle = torch.triu(out)  # column-major lower is row-major upper
    expected = torch.triu(rows.t() @ rows)
    error = float((triangle - expected).abs().max() / expected.abs().max())
    if not error < 1e-12:
        raise RuntimeError(f"cublasDsyrk was called wrongly: off by {error:.3g}")
    return call


def stage_trace(run: Run) -> None:
    """Two covariances on the device to a certified trace, beside what the peers call on the same card."""
    need("torch")
    import torch

    from fastfid import _core

    rng = run.rng(6)
    sigma1, sigma2 = (torch.cov(torch.from_numpy(features_like(rng, k * D, D)).to(DEVICE).double().T) for k in (3, 4))
    case = f"d = {D}, full rank, float64"

    def ours() -> Any:
        return _core.trace_sqrt_product(sigma1, sigma2, tol=1e-6, device=DEVICE)

    result = ours()
    width = (result.upper - result.lower) / result.value
    note = f"bracket {width:.1e}, {result.gemms:.1f} products; host clock"
    median = run.row(case, "fastfid, certified", run.clock(ours, repeats=20), note=note)
    run.record["values"]["trace_ms"] = median * 1e3

    for n in (D // 2, 3 * D):
        sides = []
        for side in (0, 1):
            moments = _core.DeviceMoments(D, device=0)
            moments.update(torch.from_numpy(features_like(run.rng(8, n, side), n, D)).to(DEVICE))
            sides.append(_core.Gaussian.on_device(moments))
        times = run.clock(lambda sides=sides: _core.frechet_distance(*sides, device=DEVICE), repeats=20)
        note = "whole distance, nothing but the means comes to the host; host clock"
        run.row(f"moments of {n} + {n} rows on the device, d = {D}", "fastfid, certified", times, note=note)

    def eigvals() -> float:
        return float(torch.linalg.eigvals(sigma1 @ sigma2).sqrt().real.sum())

    name = "torch.linalg.eigvals (torchmetrics)"
    try:
        found = eigvals()
    except RuntimeError as error:  # a torch without MAGMA or a new enough cuSOLVER
        run.missing(case, name, error)
    else:
        run.check("trace: torch.linalg.eigvals on the card", abs(found - result.value) / result.value, 1e-6)
        theirs = run.row(case, name, run.clock(eigvals, repeats=3), note="host clock")
        run.record["values"]["trace_of_eigvals"] = theirs / median

    factor = torch.linalg.cholesky(sigma1)
    symmetric = factor.T @ sigma2 @ factor

    def eigvalsh_torch() -> float:
        return float(torch.linalg.eigvalsh(symmetric).clamp(min=0).sqrt().sum())

    run.row(case, "torch.linalg.eigvalsh of the symmetric form", run.clock(eigvalsh_torch), note="host clock")
    try:
        need("cupy")
        import cupy

        there = cupy.from_dlpack(symmetric)
        run.row(
            case,
            "cuSOLVER eigvalsh through CuPy",
            run.clock(lambda: float(cupy.sqrt(cupy.clip(cupy.linalg.eigvalsh(there), 0, None)).sum())),
            note="host clock",
        )
    except Exception as error:
        run.missing(case, "cuSOLVER eigvalsh through CuPy", f"{type(error).__name__}: {error}")


def stage_preprocess(run: Run) -> None:
    """uint8 images to the network's input, as a fraction of the bandwidth of a copy."""
    need("torch")
    import torch

    from fastfid import _core
    from fastfid.protocols import input_spec

    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    moved = 2 * COPY_BYTES
    times = run.events(lambda: target.copy_(source))
    bandwidth = moved / run.row("copy, read and written", "torch copy_", times, count=moved / 1e9, unit="GB/s")
    fractions = []
    stream = torch.cuda.current_stream().cuda_stream
    for protocol, size, dtype, is_last in (
        ("pytorch-fid", 512, "float32", True),
        ("pytorch-fid", 512, "float16", True),
        ("pytorch-fid", 512, "float16", False),
        ("pytorch-fid", 32, "float16", True),
        ("clean", 512, "float16", True),
        ("torchmetrics", 512, "float16", True),
        ("tensorflow", 512, "float16", True),
    ):
        n = IMAGES if size > 100 else 2 * IMAGES
        shape = (n, size, size, 3) if is_last else (n, 3, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE)
        out = torch.full((n, 3, 299, 299), float("nan"), dtype=getattr(torch, dtype), device=DEVICE)
        preprocessor = _core.CudaPreprocessor(input_spec(protocol), 0)

        def ours(preprocessor: Any = preprocessor, images: Any = images, out: Any = out, last: bool = is_last) -> None:
            preprocessor.run(images, out, channels_last=last, stream=stream or 1)

        total = images.numel() + out.numel() * out.element_size()
        case = f"{protocol}, {n} of {size} x {size}, {'NHWC' if is_last else 'NCHW'}, {dtype}"
        median = run.row(case, "fastfid", run.events(ours), count=total / 1e9, unit="GB/s")
        run.rows[-1]["note"] = f"{total / median / bandwidth:.0%} of the copy, {n / median:,.0f} images/s"
        if protocol == "pytorch-fid" and size == 512:
            fractions.append(total / median / bandwidth)
        run.check(f"{case}: values not written", int(out.isnan().sum()), 0)
        if protocol == "pytorch-fid" and is_last:

            def torchs(images: Any = images, dtype: str = dtype) -> Any:
                x = images.permute(0, 3, 1, 2).float() / 255
                x = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
                return (2 * x - 1).to(getattr(torch, dtype))

            run.row(case, "torch interpolate", run.events(torchs, repeats=10), count=total / 1e9, unit="GB/s")
    run.record["values"]["preprocess_of_copy"] = min(fractions)


def network_is_missing() -> str | None:
    """Return why ONNX Runtime cannot run the network on the device, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime not installed"
    from fastfid.features.session import load_onnxruntime

    onnxruntime = load_onnxruntime()
    providers = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        return f"this onnxruntime ({onnxruntime.__version__}) has no CUDA provider: {', '.join(providers)}"
    from fastfid.errors import WeightsError
    from fastfid.features.weights import find_weights

    try:
        find_weights()
    except WeightsError as error:
        return f"no weights: {str(error).splitlines()[0]}"
    return None


def eager_network(precision: str) -> tuple[str, Callable[[Any], Any]]:
    """Return pytorch-fid's eager PyTorch network in a precision, with fastfid's weights; inputs (n, 3, 299, 299)."""
    import torch

    from fastfid.features.inception_torch import FIDInception, load_weights
    from fastfid.features.weights import find_weights

    name = "pytorch-fid's layers in eager PyTorch (fastfid's definition)"
    model: Any = FIDInception(D)
    load_weights(model, find_weights())
    model = model.to(DEVICE).eval()
    if precision == "float16":
        model = model.half()

    def forward(inputs: Any) -> Any:
        # Of convolutions; PyTorch's default is True, and that is pytorch-fid's.
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        with torch.inference_mode():
            return torch.nn.functional.adaptive_avg_pool2d(model(inputs), (1, 1)).flatten(1)

    return name, forward


def stage_network(run: Run) -> None:
    """Images to moments through ONNX Runtime, beside the eager network; and what each precision does to the FID."""
    need("torch")
    if (why := network_is_missing()) is not None:
        raise NotMeasured(why)
    import torch

    from fastfid.features.inception import InceptionV3

    n, values = 8 * IMAGES, run.record["values"]
    images = torch.randint(0, 256, (n, 256, 256, 3), dtype=torch.uint8, device=DEVICE)
    inputs = torch.rand(64, 3, 299, 299, device=DEVICE) * 2 - 1
    case = f"{n} uint8 images of 256 x 256, dims {D}"
    eager: dict[str, float] = {}
    for precision in ("float32", "tf32", "float16"):
        name, forward = eager_network(precision)
        given = inputs.half() if precision == "float16" else inputs

        def batches(forward: Any = forward, given: Any = given) -> None:
            for _ in range(n // 64):
                forward(given)

        times = run.events(batches, repeats=5)
        eager[precision] = n / run.row(
            case, f"{name}, {precision}", times, count=n, unit="images/s", note="network alone"
        )
    ours: dict[str, float] = {}
    extractors = {}
    for precision in ("float32", "tf32", "float16"):
        extractor = InceptionV3(D, precision=precision, device=DEVICE)
        extractors[precision] = extractor
        ours[precision] = n / time_extractor(run, extractor, images, case, f"fastfid, {precision}")
    values["network_float32"] = ours["float32"] / eager["float32"]
    values["network_tf32"] = ours["tf32"] / eager["tf32"]
    values["network_float16"] = ours["float16"] / eager["tf32"]
    precision_errors(run, extractors)
    session_options(run, images, case)

    host_time(run, extractors["float16"], images, "fastfid update, float16, time of the host")


def host_time(run: Run, extractor: Any, images: Any, name: str) -> None:
    """The host's part of an update: what a training loop pays."""
    import torch

    from fastfid.metrics.moments import FeatureMoments
    from fastfid.pipeline import DeviceFeed
    from fastfid.sources.device import DeviceImages

    feed = DeviceFeed(extractor.on_device(DEVICE), FeatureMoments(extractor.dims).update)
    batch = DeviceImages(images[:64])
    times = []
    for _ in range(UPDATES):
        begin = time.perf_counter()
        feed.add(batch, torch.cuda.current_stream().cuda_stream)
        times.append(time.perf_counter() - begin)
        torch.cuda.synchronize()
    run.row("64 images", name, times, note="host clock, without waiting for the device")


def time_extractor(run: Run, extractor: Any, images: Any, case: str, name: str) -> float:
    """Return the median seconds from device images to moments."""
    import torch

    from fastfid.metrics.moments import FeatureMoments
    from fastfid.pipeline import DeviceFeed
    from fastfid.sources.device import DeviceImages

    network = extractor.on_device(DEVICE)
    feed = DeviceFeed(network, FeatureMoments(extractor.dims).update)
    stream = torch.cuda.ExternalStream(network.new_rows(1).stream.handle)
    source = DeviceImages(images)
    caller = torch.cuda.current_stream().cuda_stream
    times = run.events(lambda: feed.add(source, caller), stream=stream, repeats=5)
    note = "resize, network, spatial mean, moments"
    return run.row(case, name, times, count=len(source), unit="images/s", note=note)


def precision_errors(run: Run, extractors: dict[str, Any]) -> None:
    """Features against the CPU's, and the FID of photographs in each precision against float32's."""
    import fastfid
    from fastfid.features.inception import InceptionV3

    sides = [crops(2 * IMAGES, seed) for seed in (0, 1_000_000)]
    expected = InceptionV3(D, device="cpu")(sides[0][:32])
    distances = {}
    for precision, extractor in extractors.items():
        rows = [extractor(side) for side in sides]
        error = float(np.abs(rows[0][:32] - expected).max())
        run.check(f"features in {precision} against the CPU's", error, 1e-4 if precision == "float32" else 5e-2)
        again = extractor(sides[0][:3])
        run.check(f"features in {precision}: elements that depend on the batch", int((again != rows[0][:3]).sum()), 0)
        statistics_ = []
        for side_rows in rows:
            moments = fastfid.Moments(D)
            moments.update(side_rows)
            statistics_.append(fastfid.Statistics.from_moments(moments))
        distances[precision] = fastfid.frechet_distance(*statistics_)
    for precision, value in distances.items():
        change = abs(value - distances["float32"]) / distances["float32"]
        run.rows.append(
            {
                "case": f"FID of {2 * IMAGES} + {2 * IMAGES} crops of photographs",
                "contender": f"fastfid, {precision}",
                "note": f"{value:.6g}, changed by {change:.2e}",
            }
        )
        run.record["values"][f"fid_change_{precision}"] = change


def session_options(run: Run, images: Any, case: str) -> None:
    """Images a second with other options of ONNX Runtime's CUDA provider than the ones in use."""
    from fastfid.features.inception import InceptionV3
    from fastfid.features.session import CudaSettings

    algorithms = (
        {"cudnn_conv_algo_search": "EXHAUSTIVE"},
        {"cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1"},
        {"cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"},
    )
    variants = {
        "TensorRT": CudaSettings(provider="tensorrt"),
        "CUDA graph": CudaSettings(graph=True),
        **{", ".join(f"{k}={v}" for k, v in options.items()): CudaSettings(options=options) for options in algorithms},
    }
    for variant, settings in variants.items():
        made = type("InceptionV3", (InceptionV3,), {"_cuda_settings": settings})
        for precision in ("tf32", "float16"):
            try:
                extractor = made(D, precision=precision, device=DEVICE)
                time_extractor(run, extractor, images, case, f"fastfid, {precision}, {variant}")
                if settings.graph:
                    host_time(run, extractor, images, f"fastfid update, {precision}, CUDA graph, time of the host")
            except Exception as error:
                run.missing(case, f"fastfid, {precision}, {variant}", f"{type(error).__name__}: {error}")


def stage_whole(run: Run) -> None:
    """A training loop's FID: updates with device tensors, then compute; beside torchmetrics with its own network."""
    need("torch")
    if (why := network_is_missing()) is not None:
        raise NotMeasured(why)

    import fastfid

    n = 20 * IMAGES
    batch = min(64, n)
    sides = {real: smooth_images(n, seed) for real, seed in ((True, 1), (False, 2))}
    case = f"{n} + {n} images of 256 x 256 in batches of {batch}"

    def whole(metric: Any) -> float:
        for real, images in sides.items():
            for start in range(0, n, batch):
                metric.update(images[start : start + batch], real=real)
        return float(metric.compute())

    for precision in ("tf32", "float16"):
        metric = fastfid.FID(device=DEVICE, precision=precision)
        whole(metric)
        metric.reset()
        begin = time.perf_counter()
        whole(metric)
        elapsed = [time.perf_counter() - begin]
        run.row(case, f"fastfid.FID, {precision}", elapsed, count=2 * n, unit="images/s", note="host clock, one run")
        compute = run.clock(metric.compute, repeats=3)
        run.row(case, f"fastfid.FID, {precision}, compute alone", compute, note="host clock, trace on the CPU")
        on_device = run.clock(lambda metric=metric: metric.compute(device=DEVICE), repeats=3)
        run.row(case, f"fastfid.FID, {precision}, compute on the device", on_device, note="host clock")
    name = "torchmetrics FrechetInceptionDistance"
    try:
        need("torchmetrics", "torch_fidelity", "torchvision")
        from benchmarks import peers

        os.environ.update(peers.prepare(Path(tempfile.mkdtemp(prefix="fastfid-gpu-")), weights=True))
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=D).to(DEVICE)
        begin = time.perf_counter()
        whole(metric)
        run.row(
            case, name, [time.perf_counter() - begin], count=2 * n, unit="images/s", note="host clock, one run, cold"
        )

        def compute() -> float:
            metric._computed = None  # else torchmetrics returns the last result
            return float(metric.compute())

        run.row(case, f"{name}, compute alone", run.clock(compute, repeats=3), note="host clock")
    except Exception as error:
        run.missing(case, name, f"{type(error).__name__}: {error}")


def smooth_images(n: int, seed: int) -> Any:
    """Return different images, uint8 (n, 3, 256, 256), on the device: blots of colour with noise."""
    import torch

    generator = torch.Generator(DEVICE).manual_seed(seed)
    out = torch.empty((n, 3, 256, 256), dtype=torch.uint8, device=DEVICE)
    for start in range(0, n, 64):
        part = out[start : start + 64]
        blots = torch.rand((len(part), 3, 8, 8), device=DEVICE, generator=generator)
        smooth = torch.nn.functional.interpolate(blots, size=256, mode="bilinear")
        noise = torch.rand(part.shape, device=DEVICE, generator=generator)
        part.copy_((smooth * 224 + noise * 31).to(torch.uint8))
    return out


def stage_sanitizer(run: Run) -> None:
    """Every kernel under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        raise NotMeasured("compute-sanitizer not found")
    total = 0
    unfinished = []
    for name, options in SANITIZERS.items():
        begin = time.perf_counter()
        command = [tool, "--tool", name, *options, sys.executable, "-m", "benchmarks.gpu", "--exercise"]
        command += ["--seed", str(run.seed)]
        try:
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
        except subprocess.TimeoutExpired:
            run.missing(f"every kernel, {name}", "compute-sanitizer", "it did not end within 240 s")
            unfinished.append(name)
            continue
        text = done.stdout + done.stderr
        errors = sanitizer_errors(text)
        if errors is None or (done.returncode and not errors):
            print(text[-4000:], file=sys.stderr)
            raise RuntimeError(f"{name}: exit code {done.returncode} and no summary")
        total += errors
        run.row(f"every kernel, {name}", "compute-sanitizer", [time.perf_counter() - begin], note=f"{errors} errors")
        if errors:
            print(text[-6000:], file=sys.stderr)
    if not unfinished:  # else the target would be met by what was not looked at
        run.record["values"]["sanitizer_errors"] = float(total)


def sanitizer_errors(text: str) -> int | None:
    """Return the number of errors (racecheck: hazards too) in compute-sanitizer's summary; None where there is none."""
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)", text)
    return sum(map(int, found)) if found else None


STAGES: dict[str, Callable[[Run], None]] = {
    "checks": stage_checks,
    "oracle": stage_oracle,
    "moments": stage_moments,
    "trace": stage_trace,
    "preprocess": stage_preprocess,
    "network": stage_network,
    "whole": stage_whole,
    "sanitizer": stage_sanitizer,
}
SMOKE = ("checks", "oracle", "moments")


# ------------------------------------------------------------------------------------------------------------- main


def run_stage(run: Run, name: str) -> None:
    """Run one stage. If it fails, the record contains the reason."""
    print(f"== {name}: {(STAGES[name].__doc__ or '').splitlines()[0]}", flush=True)
    run.rows = []
    state, why = "measured", ""
    checks = len(run.record["checks"])
    try:
        STAGES[name](run)
    except NotMeasured as error:
        state, why = "not measured", str(error)
    except Exception as error:
        traceback.print_exc()
        state, why = "failed", f"{type(error).__name__}: {error}"
    broken = [check["what"] for check in run.record["checks"][checks:] if not check["ok"]]
    if broken and state == "measured":
        state, why = "failed", f"disagrees with the CPU: {', '.join(broken)}"
    if why:
        print(f"  {state}: {why}", flush=True)
    run.record["stages"][name] = {"state": state, "why": why, "rows": run.rows}


def card() -> dict[str, str]:
    """Return the card's name, its driver and memory, as nvidia-smi says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        name, driver, memory = (part.strip() for part in text.split(","))
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        name, driver, memory = "unknown card", "unknown", "unknown"
    return {"card": name, "driver": driver, "memory": memory}


def versions() -> dict[str, str]:
    """Return the versions of the packages and tools of the run."""
    from importlib import metadata

    found = machine.versions()
    for name in ("cupy-cuda13x", "torchmetrics", "torch-fidelity"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        from fastfid import _core

        found["fastfid CUDA part"] = str(_core.build_info()["cuda"])
    except ImportError as error:
        found["fastfid"] = f"cannot be imported: {error}"
    return found


def build() -> str | None:
    """Install this checkout with its CUDA part, without an index. Return the end of the log if this fails."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
    command += ["--config-settings=cmake.define.FASTFID_CUDA=ON", "--force-reinstall", str(REPOSITORY)]
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr)[-4000:] if done.returncode else None


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--smoke", action="store_true", help="two minutes: build, tests, checks, one figure")
    parser.add_argument("--stage", nargs="+", action="extend", choices=tuple(STAGES), help="only these")
    parser.add_argument("--no-build", action="store_true", help="use the fastfid that is installed")
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help="results of parts, to be made one")
    parser.add_argument("--seed", type=int, help="of the random inputs (default: the time)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument(
        "--exercise", action="store_true", help="every kernel once, nothing written (for the sanitizer)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parse(arguments)
    if options.join:
        return conclude(
            gpu_report.join([json.loads(path.read_text(encoding="utf-8")) for path in options.join], tuple(STAGES)),
            options.output,
        )
    if (why := missing_device()) is not None:
        print(f"benchmarks.gpu needs a CUDA device and measured nothing: {why}", file=sys.stderr)
        return 1
    seed = options.seed if options.seed is not None else int(time.time())
    if options.exercise:
        run = Run(gpu_report.new_record(), is_smoke=True, seed=seed)
        from benchmarks import cuda_cases

        exercise(run, cuda_cases.SMALL)
        return 1 if gpu_report.failures(run.record) else 0
    if not options.no_build:
        begin = time.perf_counter()
        if (log := build()) is not None:
            print(log, "benchmarks.gpu: the build failed, nothing was measured", sep="\n", file=sys.stderr)
            return 1
        print(f"built in {time.perf_counter() - begin:.0f} s", flush=True)
    record = gpu_report.new_record(
        **card(),
        mode="smoke" if options.smoke else "part" if options.stage else "full",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=machine.commit(),
        command=f"{gpu_report.COMMAND} {' '.join(sys.argv[1:] if arguments is None else arguments)}".strip(),
        seed=seed,
        versions=versions(),
    )
    run = Run(record, is_smoke=options.smoke, seed=seed)
    for name in options.stage or (SMOKE if options.smoke else tuple(STAGES)):
        run_stage(run, name)
        gpu_report.write(record, options.output)  # after each stage, so that an interrupted run keeps its results
    return conclude(record, options.output)


def conclude(record: dict[str, Any], folder: Path) -> int:
    """Write the record, print the verdicts, and return the exit code."""
    path = gpu_report.write(record, folder)
    print()
    for entry in gpu_report.judge(record):
        value = "" if entry["value"] is None else f"{report.number(entry['value'])}: "
        print(f"{entry['target'].text}: {value}{entry['verdict']}")
    failed = gpu_report.failures(record)
    print(f"written: {path} and {path.with_suffix('.md').name}")
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
