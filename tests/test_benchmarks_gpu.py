"""benchmarks/gpu.py without a GPU: its messages, its report, and its stages with stand-ins for the device."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import OnDevice

from benchmarks import cuda_cases, figures, gpu, gpu_report, report
from fastfid import Moments, _core

REPOSITORY = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------------------ command line


@pytest.mark.skipif(gpu.missing_device() is None, reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("benchmarks.gpu needs a CUDA device and measured nothing: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_it_starts_before_fastfid_is_built():
    code = "import sys; sys.modules['fastfid'] = None; import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_options():
    options = gpu.parse(["--stage", "trace", "moments", "--stage", "network", "--seed", "7", "--no-build"])
    assert (options.stage, options.seed, options.no_build) == (["trace", "moments", "network"], 7, True)
    assert gpu.parse([]).output == report.RESULTS
    with pytest.raises(SystemExit):
        gpu.parse(["--stage", "nonsense"])
    assert set(gpu.SMOKE) <= set(gpu.STAGES)
    assert {target.stage for target in gpu_report.TARGETS} <= set(gpu.STAGES)


# ------------------------------------------------------------------------------------------------------------ report


def record(**values):
    made = gpu_report.new_record(
        card="NVIDIA H200",
        driver="580.1",
        memory="1 MiB",
        mode="full",
        date="2026-12-01T10:00:00+00:00",
        commit="abc",
        command="c",
        seed=1,
        versions={"python": "3.12"},
    )
    row = {
        "case": "a | b",
        "contender": "fastfid",
        "median": 2e-3,
        "low": 1e-3,
        "high": 3e-3,
        "rate": 5e3,
        "unit": "x/s",
    }
    made["stages"] = {
        "moments": {"state": "measured", "why": "", "rows": [row]},
        "network": {"state": "not measured", "why": "no CUDA provider", "rows": []},
    }
    made["checks"] = [{"what": "moments", "error": 1e-14, "limit": 1e-12, "ok": True}]
    made["values"] = values
    return made


def verdicts(made):
    return {entry["target"].name: entry["verdict"] for entry in gpu_report.judge(made)}


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("moments_of_dsyrk", 0.6, "met"),
        ("moments_of_dsyrk", 0.59, "not met"),
        ("trace_ms", 15.0, "met"),
        ("trace_ms", 15.1, "not met"),
        ("fid_change_float16", float("nan"), "not met"),
        ("sanitizer_errors", 0.0, "met"),
        ("sanitizer_errors", 1.0, "not met"),
    ],
)
def test_targets(name, value, verdict):
    assert verdicts(record(**{name: value}))[name] == verdict


def test_what_was_not_measured_says_why():
    found = verdicts(record())
    assert found["network_float16"] == "not measured: no CUDA provider"
    assert found["moments_of_dsyrk"] == "not measured: the stage gave no such value"
    assert found["trace_ms"] == "not measured: not asked for"
    text = gpu_report.markdown(record(trace_ms=20.0))
    assert "| certified trace at d = 2048, ms | at most 15 | 20 | **not met** |" in text
    assert "**not measured: no CUDA provider**" in text
    assert "| a | b | fastfid | 2 ms (1 ms to 3 ms) | 5,000 x/s |  |" in text


def test_failures():
    made = record()
    assert gpu_report.failures(made) == []
    made["checks"].append({"what": "trace", "error": float("nan"), "limit": 1.0, "ok": False})
    made["stages"]["oracle"] = {"state": "failed", "why": "2 failed", "rows": []}
    assert gpu_report.failures(made) == ["oracle: 2 failed", "trace: -"]


def test_files_and_readmes_line(tmp_path):
    assert gpu_report.readme_row(tmp_path).startswith(f"| {gpu_report.WHAT} | **never run on a GPU** |")
    smoke = record(trace_ms=1.0)
    smoke["mode"] = "smoke"
    gpu_report.write({**smoke, "card": "Small"}, tmp_path)
    assert "never run on a GPU" in gpu_report.readme_row(tmp_path)  # a part is not a run
    path = gpu_report.write(record(trace_ms=1.0, moments_of_dsyrk=0.1), tmp_path)
    assert path.name == "gpu-nvidia-h200-2026-12-01.json"
    assert json.loads(path.read_text()) == record(trace_ms=1.0, moments_of_dsyrk=0.1)
    assert path.with_suffix(".md").read_text() == gpu_report.markdown(record(trace_ms=1.0, moments_of_dsyrk=0.1))
    line = gpu_report.readme_row(tmp_path)
    assert "never run" not in line
    assert "NVIDIA H200, 2026-12-01" in line
    assert "1 of 10 targets met" in line
    assert "cuBLAS dsyrk: not met" in line
    assert line.count("|") == 6  # five cells, as the table's other lines


def test_results_of_cards_are_no_machines(tmp_path):
    gpu_report.write(record(), tmp_path)
    assert figures.machine_results(tmp_path) == []
    (tmp_path / "box.json").write_text("{}")
    assert [path.stem for path in figures.machine_results(tmp_path)] == ["box"]


def test_sanitizers_summary():
    assert gpu.sanitizer_errors("x\n========= ERROR SUMMARY: 0 errors\n") == 0
    assert gpu.sanitizer_errors("========= ERROR SUMMARY: 1 error\n========= ERROR SUMMARY: 3 errors") == 4
    assert gpu.sanitizer_errors("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)") == 2
    assert gpu.sanitizer_errors("killed") is None


# ------------------------------------------------------------------------------------------------- stages, on stand-ins


class Stream:
    def __init__(self, device=0):
        self.handle = 11


class Array:
    """A CudaArray in host memory."""

    def __init__(self, shape, dtype, stream):
        self.values = np.empty(shape, dtype)

    def copy_from(self, source):
        assert source.flags.c_contiguous
        self.values[...] = source

    def fill_bytes(self, byte):
        self.values.view(np.uint8)[...] = byte

    def numpy(self):
        return self.values.copy()


def host(tensor):
    if isinstance(tensor, Array):
        return tensor.values
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


class DeviceMoments(Moments):
    _arithmetic = "float64"

    def __init__(self, d, *, device):
        super().__init__(d)
        self.device = device

    def update(self, x, *, stream=None):
        super().update(host(x))

    def to_host(self):
        return self


class Preprocessor:
    def __init__(self, spec, device):
        self._spec = spec

    def run(self, images, out, *, channels_last, stream):
        values = host(images) if channels_last else np.moveaxis(host(images), 1, -1)
        host(out)[...] = _core.preprocess(np.ascontiguousarray(values), self._spec)


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        self.at = time.perf_counter()

    def elapsed_time(self, end):
        return 1e3 * (end.at - self.at)


@pytest.fixture
def stand_ins(monkeypatch):
    """Host memory in place of the device's, torch's CPU in place of its GPU, and small sizes."""
    trace = _core.trace_sqrt_product

    def trace_on_device(a, b, *, device, **options):
        assert device == "cuda:0"
        return trace(*(np.asarray(x) if isinstance(x, np.ndarray) else host(x) for x in (a, b)), **options)

    distance, host_gaussian = _core.frechet_distance, _core.Gaussian

    class Gaussian:
        """What stands on the device is on the host."""

        def __init__(self, *arguments, **keywords):
            self.host, self.is_on_device = host_gaussian(*arguments, **keywords), False

        @classmethod
        def on_device(cls, moments, *, name=""):
            sigma = None if moments.n <= moments.d else moments.covariance()
            made = cls(moments.mean, sigma, rows=moments.rows, name=name)
            made.is_on_device = True
            return made

    def of_moments(*gaussians, device="cpu", **options):
        assert device in ("cuda:0", "cpu")
        # Those of fastfid.statistics are on the host.
        assert device != "cpu" or not any(getattr(given, "is_on_device", False) for given in gaussians)
        return distance(*(getattr(given, "host", given) for given in gaussians), **options)

    def spatial_mean(map, out):
        out.values[...] = _core.spatial_mean(map.values.astype(np.float32))

    def preferring_the_host(a, b, **options):
        return trace_on_device(a, b, **options) if "device" in options else trace(a, b, **options)

    monkeypatch.setattr(_core, "CudaStream", Stream, raising=False)
    monkeypatch.setattr(_core, "CudaArray", Array, raising=False)
    monkeypatch.setattr(_core, "DeviceMoments", DeviceMoments, raising=False)
    monkeypatch.setattr(_core, "CudaPreprocessor", Preprocessor, raising=False)
    monkeypatch.setattr(_core, "cuda_spatial_mean", spatial_mean, raising=False)
    monkeypatch.setattr(_core, "trace_sqrt_product", preferring_the_host)
    monkeypatch.setattr(_core, "frechet_distance", of_moments)
    monkeypatch.setattr(_core, "Gaussian", Gaussian)
    monkeypatch.setattr("fastfid.statistics.Gaussian", Gaussian)
    for name in ("empty", "full", "randint", "zeros", "rand"):
        made = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, made=made, device=None, **options: made(*args, **options))
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, where, to=torch.Tensor.to: x if where == "cuda:0" else to(x, where)
    )
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, where: module)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(torch, "Generator", lambda device, made=torch.Generator: made())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *device: types.SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle: handle)
    for name, value in (("D", 64), ("IMAGES", 1), ("COPY_BYTES", 1 << 16), ("FLUSH_BYTES", 1 << 10), ("UPDATES", 2)):
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(cuda_cases, "DEVICE", cuda_cases.SMALL)
    return gpu.Run(gpu_report.new_record(), is_smoke=False, seed=5)


def states(run):
    return {name: (stage["state"], stage["why"]) for name, stage in run.record["stages"].items()}


def test_the_oracle_runs_every_file_with_tests_on_a_device():
    tests = (REPOSITORY / "tests").glob("test_*.py")
    marked = [path for path in tests if re.search(r"pytest\.mark\.cuda\b", path.read_text())]
    assert {f"tests/{path.name}" for path in marked} == {*gpu.ORACLE_TESTS, gpu.NETWORK_TESTS}


@pytest.mark.parametrize(("is_smoke", "has_network"), [(False, True), (True, True), (False, False)])
def test_what_the_oracle_runs(is_smoke, has_network, monkeypatch):
    calls = []
    monkeypatch.setattr(gpu, "network_is_missing", lambda: None if has_network else "no weights")
    monkeypatch.setattr(
        gpu.subprocess,
        "run",
        lambda command, **options: (
            calls.append((command, options)) or types.SimpleNamespace(stdout="3 passed", returncode=0)
        ),
    )
    run = gpu.Run(gpu_report.new_record(), is_smoke=is_smoke, seed=5)
    gpu.stage_oracle(run)
    ((command, options),) = calls
    assert options["env"]["FASTFID_REQUIRE_CUDA"] == "1"
    assert (gpu.NETWORK_TESTS in command) == (has_network and not is_smoke)
    assert [row["note"] for row in run.rows] == [*([] if has_network else ["not measured: no weights"]), "3 passed"]


def test_the_oracle_needs_no_more_than_it_says():
    """Without pytest's plugins and other packages, the test files are collected, and their device tests are skipped."""
    hidden = ("hypothesis", "mpmath", "scipy", "skimage", "matplotlib", "torchmetrics", "pytest_timeout", "psutil")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({hidden}))
import pytest
sys.exit(pytest.main([*{gpu.ORACLE_OPTIONS}, *{gpu.ORACLE_TESTS}]))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "FASTFID_REQUIRE_CUDA")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert " skipped" in last
    assert "passed" not in last


def test_checks_hold_where_the_device_is_right(stand_ins, monkeypatch):
    monkeypatch.setattr(cuda_cases, "DEVICE", cuda_cases.EMULATED + cuda_cases.SMALL)
    gpu.run_stage(stand_ins, "checks")
    assert states(stand_ins) == {"checks": ("measured", "")}
    what = " ".join(check["what"] for check in stand_ins.record["checks"])
    expected = ("moments, 2500 x 65", "photographs", "spatial mean", "preprocess clean", "trace, d = 257, device")
    for subject in (*expected, "device and host"):
        assert subject in what


@pytest.mark.parametrize("broken", ["covariance", "mean", "preprocess", "nothing written"])
def test_checks_see_what_is_wrong(stand_ins, monkeypatch, broken):
    if broken == "covariance":
        monkeypatch.setattr(DeviceMoments, "update", lambda self, x, stream: Moments.update(self, 1.0001 * host(x)))
    elif broken == "mean":
        monkeypatch.setattr(_core, "cuda_spatial_mean", lambda map, out: out.values.fill(0))
    elif broken == "preprocess":
        run = Preprocessor.run
        monkeypatch.setattr(Preprocessor, "run", lambda *a, **k: [run(*a, **k), host(a[2]).__imul__(1 + 2.0**-9)])
    else:
        monkeypatch.setattr(_core, "cuda_spatial_mean", lambda map, out: None)  # NaN stays
    monkeypatch.setattr(gpu, "check_trace", lambda *_: None)
    gpu.run_stage(stand_ins, "checks")
    state, why = states(stand_ins)["checks"]
    assert state == "failed"
    assert why.startswith("disagrees with the CPU: ")
    assert gpu_report.failures(stand_ins.record)


def test_moments_and_trace_and_preprocess(stand_ins, monkeypatch):
    monkeypatch.setattr(gpu, "dsyrk", lambda rows: lambda: rows.t() @ rows)
    for name in ("moments", "trace", "preprocess"):
        gpu.run_stage(stand_ins, name)
    assert states(stand_ins) == dict.fromkeys(("moments", "trace", "preprocess"), ("measured", ""))
    wanted = {target.name for target in gpu_report.TARGETS if target.stage in stand_ins.record["stages"]}
    assert wanted <= set(stand_ins.record["values"])
    # CuPy is not here, and says so; everything else was measured.
    rows = [row for stage in stand_ins.record["stages"].values() for row in stage["rows"]]
    absent = [row["contender"] for row in rows if row["note"].startswith("not measured")]
    assert absent == ["cuSOLVER eigvalsh through CuPy"]
    assert gpu_report.markdown({**record(), **stand_ins.record})


def test_the_network_and_a_training_loop(stand_ins, monkeypatch, weights):
    import fastfid.features.inception as inception
    import fastfid.sources.device as device
    import fastfid.sources.open as opening

    class Extractor(OnDevice):
        def __init__(
            self,
            dims,
            *,
            protocol="pytorch-fid",
            precision="float32",
            device="auto",
            weights=None,
            outputs=("features",),
        ):
            super().__init__(dims, protocol, 4)
            self.precision = precision

    monkeypatch.setattr(inception, "InceptionV3", Extractor)
    for module in (device, opening):
        monkeypatch.setattr(module, "device_of", lambda x: "cuda:0" if isinstance(x, torch.Tensor) else None)
    monkeypatch.setattr(gpu, "network_is_missing", lambda: None)
    monkeypatch.setattr(gpu, "time_extractor", lambda run, extractor, images, case, name: run.row(case, name, [1.0]))
    monkeypatch.setattr(torch.Tensor, "half", lambda x: x)
    monkeypatch.setattr(torch.nn.Module, "half", lambda x: x)
    gpu.run_stage(stand_ins, "network")
    assert states(stand_ins)["network"] == ("measured", "")
    wanted = {target.name for target in gpu_report.TARGETS if target.stage == "network"}
    assert wanted <= set(stand_ins.record["values"])
    assert stand_ins.record["values"]["fid_change_float16"] == 0

    monkeypatch.setattr(
        gpu, "need", lambda *modules: (_ for _ in ()).throw(gpu.NotMeasured("x")) if len(modules) > 1 else None
    )
    gpu.run_stage(stand_ins, "whole")
    assert states(stand_ins)["whole"] == ("measured", "")
    rows = stand_ins.record["stages"]["whole"]["rows"]
    assert [row["contender"] for row in rows if "median" in row] == [
        "fastfid.FID, tf32",
        "fastfid.FID, tf32, compute alone",
        "fastfid.FID, tf32, compute on the device",
        "fastfid.FID, float16",
        "fastfid.FID, float16, compute alone",
        "fastfid.FID, float16, compute on the device",
    ]


def test_a_stage_whose_needs_are_missing(stand_ins, monkeypatch):
    monkeypatch.setattr(gpu, "network_is_missing", lambda: "this onnxruntime (1.30.0) has no CUDA provider")
    gpu.run_stage(stand_ins, "network")
    gpu.run_stage(stand_ins, "whole")
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    gpu.run_stage(stand_ins, "sanitizer")
    assert states(stand_ins) == {
        "network": ("not measured", "this onnxruntime (1.30.0) has no CUDA provider"),
        "whole": ("not measured", "this onnxruntime (1.30.0) has no CUDA provider"),
        "sanitizer": ("not measured", "compute-sanitizer not found"),
    }
    assert gpu_report.failures(stand_ins.record) == []


def test_main_writes_what_it_has_and_fails_where_a_stage_does(stand_ins, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "missing_device", lambda: None)
    monkeypatch.setitem(
        gpu.STAGES, "trace", lambda run: run.row("c", "fastfid", [1.0, 2.0, 3.0], count=4, unit="x/s") and None
    )

    def broken(run):
        """It fails."""
        raise ZeroDivisionError("no")

    monkeypatch.setitem(gpu.STAGES, "whole", broken)
    for stage in ("trace", "whole"):
        gpu.STAGES[stage].__doc__ = "What it does."
    assert gpu.main(["--no-build", "--stage", "trace", "whole", "--seed", "3", "--output", str(tmp_path)]) == 1
    written = json.loads(next(tmp_path.glob("gpu-*.json")).read_text())
    assert written["stages"]["trace"]["rows"][0]["rate"] == 2.0
    assert written["stages"]["whole"]["why"] == "ZeroDivisionError: no"
    assert (written["mode"], written["seed"]) == ("part", 3)
    out, err = capsys.readouterr()
    assert "failed: whole: ZeroDivisionError: no" in err
    assert "certified trace at d = 2048, ms: not measured: the stage gave no such value" in out


def part(date, stages, checks=(), **values):
    """A record of some stages of one card."""
    facts = {"card": "NVIDIA H200", "driver": "580", "commit": "abc", "mode": "part", "seed": 1, "versions": {}}
    record = gpu_report.new_record(**facts, date=date, command=f"at {date}")
    record["stages"] = {name: {"state": "measured", "why": "", "rows": []} for name in stages}
    record["checks"] = [{"what": what, "error": 0.0, "limit": 0.0, "ok": ok} for what, ok in checks]
    record["values"] = values
    return record


def test_parts_become_one_result(tmp_path, capsys):
    values = {"trace_ms": 20.0, "moments_of_dsyrk": 0.7}
    first = part("2026-11-27T10:00", ["trace", "moments"], [("a", True), ("b", False)], **values)
    second = part("2026-11-27T10:05", ["trace"], [("a", True), ("b", True)], trace_of_eigvals=120.0)
    joined = gpu_report.join([second, first], ("moments", "trace", "network"))
    assert list(joined["stages"]) == ["moments", "trace"]
    assert joined["mode"] == "part"
    assert joined["values"] == {"moments_of_dsyrk": 0.7, "trace_of_eigvals": 120.0}  # of trace the later run alone
    assert gpu_report.failures(joined) == ["b: 0"]  # what did not hold once is not forgotten
    assert gpu_report.join([first, second], ("moments", "trace"))["mode"] == "full"
    with pytest.raises(ValueError, match="differ in their commit: abc, def"):
        gpu_report.join([first, {**second, "commit": "def"}], ("trace",))
    for name, record in (("1", first), ("2", second)):
        (tmp_path / name).mkdir()
        gpu_report.write(record, tmp_path / name)
    files = [str(path) for path in sorted(tmp_path.glob("*/*.json"))]
    assert gpu.main(["--join", *files, "--output", str(tmp_path)]) == 1  # a check does not hold
    assert "failed: b: 0" in capsys.readouterr().err
    assert "at 2026-11-27T10:00; at 2026-11-27T10:05" in (tmp_path / "gpu-nvidia-h200-2026-11-27.json").read_text()
