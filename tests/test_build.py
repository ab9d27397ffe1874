"""The build by CMake: a failing CUDA compiler switches the CUDA part off with a reason; presets; what is installed."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fastfid import _core

ROOT = Path(__file__).resolve().parents[1]

# The lines of the real one that matter.
PROJECT = """
cmake_minimum_required(VERSION 3.26)
project(probe LANGUAGES CXX)
include("{root}/cmake/cuda.cmake")
add_executable(say say.cpp)
target_compile_definitions(say PRIVATE FASTFID_CUDA_STATUS="${{FASTFID_CUDA_STATUS}}")
"""

NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo "Cuda compilation tools, release {version}, V{version}.88" ;;
  *cuda_probe.cu*) {probe} ;;
  *) echo "error: an option that it does not know"; exit 1 ;;
esac
"""

GCC_IS_TOO_NEW = (
    """cat <<'TEXT'
host_config.h:139:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not supported! The nvcc
flag '-allow-unsupported-compiler' can be used to override this version check; however, they may fail,
"$(HOME)" `x` %s ${x} $<1:y> \\ é
"""
    + "and more of it " * 100
    + """
TEXT
exit 1"""
)


@pytest.fixture(scope="module")
def cmake():
    import cmake  # the package: what runs the tests on a GPU alone may lack it

    return Path(cmake.CMAKE_BIN_DIR) / "cmake"


@pytest.fixture
def configure(cmake, tmp_path):
    def run(version, probe, wish):
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text(NVCC.format(version=version, probe=probe))
        nvcc.chmod(0o755)
        (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(root=ROOT))
        (tmp_path / "say.cpp").write_text("#include <cstdio>\nint main() { std::puts(FASTFID_CUDA_STATUS); }\n")
        away = ("CUDACXX", "CUDA_HOME", "CUDA_PATH", "CMAKE_ARGS")
        environment = {key: value for key, value in os.environ.items() if key not in away}
        environment["PATH"] = f"{nvcc.parent}{os.pathsep}{environment['PATH']}"
        command = [cmake, "-S", tmp_path, "-B", tmp_path / "build", f"-DFASTFID_CUDA={wish}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def status(cmake, folder):
    """Return the CUDA status that a build reports."""
    subprocess.run([cmake, "--build", folder / "build"], capture_output=True, check=True)
    return subprocess.run([folder / "build" / "say"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("version", "probe", "reason"),
    [
        ("12.9", "exit 0", "nvcc 12.9 is too old"),
        (
            "13.0",
            GCC_IS_TOO_NEW,
            "nvcc 13.0 failed to compile and link a kernel: host_config.h:139:2: error: 'error -- ",
        ),
        ("13.0", "exit 0", r"CMake [\d.]+ cannot use nvcc 13.0$"),
    ],
    ids=["too old", "fails", "unknown to CMake"],
)
def test_a_compiler_that_fails_is_done_without(configure, cmake, tmp_path, version, probe, reason):
    configured = configure(version, probe, "AUTO")
    assert configured.returncode == 0, configured.stderr
    said = status(cmake, tmp_path)
    assert re.match("not built: " + reason, said)
    assert len(said) <= 300
    if probe == GCC_IS_TOO_NEW:
        assert "#error -- unsupported GNU version!" in configured.stdout  # the log has it whole
        assert "check; however" in configured.stdout


def test_where_it_is_asked_for_its_failure_is_an_error(configure):
    configured = configure("13.0", GCC_IS_TOO_NEW, "ON")
    assert configured.returncode != 0
    words = " ".join(configured.stderr.split())  # CMake breaks lines
    assert "FASTFID_CUDA=ON, but nvcc 13.0 failed to compile and link a kernel" in words


def test_openblas_is_carried_without_destructors():
    """OpenBLAS must not unmap its buffers when the process exits, because a daemon thread may be using them."""
    data = Path(_core.__file__).with_name("libfastfid_lapack.so").read_bytes()
    (headers,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    programs = [struct.unpack_from("<IIQ8xQQ", data, headers + i * size) for i in range(count)]
    [(entry, length)] = [(offset, length) for kind, _, offset, _, length in programs if kind == 2]  # PT_DYNAMIC
    dynamic = dict(struct.iter_unpack("<QQ", data[entry : entry + length]))
    assert dynamic[28] == 0  # DT_FINI_ARRAYSZ
    assert dynamic[27] > 0  # DT_INIT_ARRAYSZ


PRESETS = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]


@pytest.mark.parametrize("preset", [preset["name"] for preset in PRESETS if not preset.get("hidden")])
def test_a_preset_needs_nothing_but_the_packages_of_the_build(cmake, tmp_path, preset):
    command = [cmake, "--preset", preset, "-S", ROOT, "-B", tmp_path, f"-DPython_EXECUTABLE={sys.executable}"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False)
    assert configured.returncode == 0, configured.stderr
    commands = (tmp_path / "compile_commands.json").read_text()
    assert ("-fsanitize=address,undefined" in commands) == (preset == "asan")
    assert ("-fsanitize=thread" in commands) == (preset == "tsan")
