"""Fixtures that several test files share."""

import os
import signal

import pytest

from benchmarks import peers
from fastfid.cli import main
from fastfid.features.weights import find_weights

# CI is unset so that tests and their child processes behave as for users: some packages, such as ONNX Runtime, are
# silent if CI is set.
IS_CI = bool(os.environ.pop("CI", ""))

# A job that a shell started in the background ignores SIGINT, and so would the programs that the tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Their packages are not in the test extra, or they take minutes; a script of tools/ names each, which collects it.
collect_ignore = ["extractors_truth", "remote_s3", "report_browser", "scale", "scale_spark", "training"]


@pytest.fixture(scope="session")
def weights():
    """The real Inception weights, found as for a user: FASTFID_WEIGHTS, the cache, or fetched once."""
    return find_weights()


@pytest.fixture
def run(capsys):
    """The command line in this process: ``run("info", "--json")`` returns the exit code, stdout and stderr."""

    def run(*argv):
        try:
            code = main([str(a) for a in argv])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def torchvision_importable():
    """Let ``import torchvision`` work here, as torchmetrics and the peers need it; see benchmarks/peers.py."""
    if peers.torchvision_needs_stub():
        peers.install_torchvision_stub()


@pytest.fixture(scope="session")
def emulated_moments(tmp_path_factory):
    """Moments and distance of csrc/cuda on the emulation: C functions of the former, and a Python module _emulated."""
    from emulation import NUMERICS, compile_library

    out = tmp_path_factory.mktemp("emulation") / "_emulated.so"
    compile_library(
        out,
        core=("dlpack", "influence", "parallel", *NUMERICS),
        machine=("cuda_driver",),
        host=("math_libraries", "polar"),
        kernels=("polar_kernels",),
        bindings=("bind_cuda", "bind_dlpack", "bind_frechet", "bind_gaussian", "bind_moments"),
        emulated=("bindings", "moments"),
    )
    return out


# The skip reason of tests for machines without a device. On a machine with a device, this skip is accepted.
HAS_DEVICE = "there is a CUDA device"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI, turn a skip into a failure: peers, weights and pictures are required, a CUDA device is not."""
    report = yield
    is_about_absence = isinstance(report.longrepr, tuple) and report.longrepr[2] == f"Skipped: {HAS_DEVICE}"
    if report.skipped and not is_about_absence and not hasattr(report, "wasxfail"):
        about_cuda = item.get_closest_marker("cuda") is not None
        if os.environ.get("FASTFID_REQUIRE_CUDA") if about_cuda else IS_CI:
            report.outcome = "failed"
            report.longrepr = f"skipped, which is not accepted here: {report.longrepr}"
    return report
