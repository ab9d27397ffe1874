"""Compiles device code against the emulation of CUDA in tests/cuda_emulation, into a library for ctypes."""

import ctypes
import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import scipy_openblas32

from fastfid import _core

ROOT = Path(__file__).resolve().parents[1]
EMULATION = ROOT / "tests" / "cuda_emulation"
# Files of csrc/core that compute the distance.
NUMERICS = (
    *("band", "band_root", "blas", "congruence", "covariance", "decompositions", "factor", "factorisation", "frechet"),
    *("matrix", "moments", "packed_symmetric", "polar", "products", "residual", "row_elements", "rows", "tiles"),
    "trace_sqrt",
)
ORDERS = {"forwards": 0, "backwards": 1, "shuffled": 2}  # orders in which the threads of a block run: emulation::Order


def compile_library(out, *, core=(), machine=(), host=(), kernels=(), bindings=(), emulated=()):
    """Build `out` from files of csrc and of tests/cuda_emulation, named without their suffix; return it loaded.

    `core` names files of csrc/core, `machine` those of csrc/host, `host` the C++ of csrc/cuda and `kernels` the CUDA,
    `bindings` files of csrc/bindings, `emulated` those of tests/cuda_emulation. With bindings, C functions are found
    only if they ask for default visibility.
    """
    lapack = Path(_core.__file__).with_name("libfastfid_lapack.so")
    folders = [ROOT / "csrc", EMULATION, scipy_openblas32.get_include_dir()]
    flags = ["-DFASTFID_CUDA_EMULATION", "-DBLAS_SYMBOL_PREFIX=scipy_"]
    if bindings:
        folders += [pybind11.get_include(), sysconfig.get_path("include")]
        flags += ["-DFASTFID_WITH_CUDA", "-fvisibility=hidden"]
    sources = [ROOT / "csrc" / "core" / f"{name}.cpp" for name in core]
    sources += [ROOT / "csrc" / "host" / f"{name}.cpp" for name in machine]
    sources += [ROOT / "csrc" / "cuda" / f"{name}.cpp" for name in host]
    sources += [ROOT / "csrc" / "cuda" / f"{name}.cu" for name in kernels]
    sources += [ROOT / "csrc" / "bindings" / f"{name}.cpp" for name in bindings]
    sources += [EMULATION / f"{name}.cpp" for name in (*emulated, "runtime")]
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", *(f"-I{folder}" for folder in folders)]

    def compile_file(source):
        target = f"{out}.{source.parent.name}.{source.name}.o"
        command = ["c++", "-std=c++20", "-O1", "-fPIC", "-pthread", "-ffp-contract=off", *flags]
        subprocess.run([*command, "-x", "c++", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_file, sources))
    link = ["c++", "-shared", "-pthread", "-o", out, *objects, lapack, f"-Wl,-rpath,{lapack.parent}", "-ldl"]
    subprocess.run(link, check=True)
    return ctypes.CDLL(out)
