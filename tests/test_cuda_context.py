"""The current CUDA context of a thread is kept. A stub of the driver, in a subprocess, stores one number per thread."""

import subprocess
import sys

import pytest

DRIVER = """
static _Thread_local void* current;
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuCtxGetCurrent(void** context) { *context = current; return 0; }
int cuCtxSetCurrent(void* context) { current = context; return 0; }
"""

NETWORK = """
import gc
import numpy as np
from fastfid import _core
from fastfid.features.inception_network import InceptionNetwork
from fastfid.features.session import load_onnxruntime
from fastfid.features.weights import find_weights

class Meddling:
    # A session of ONNX Runtime that leaves another device current, whatever it does, as the CUDA provider's do.
    def __init__(self, *args, **options):
        _core.set_current_cuda_context(0xBAD)
        self.session = session(*args, **options)
    def __getattr__(self, name):
        _core.set_current_cuda_context(0xBAD)
        return getattr(self.session, name)
    def __del__(self):
        _core.set_current_cuda_context(0xBAD)
        ended.append(True)

ended = []
ort = load_onnxruntime()
session, ort.InferenceSession = ort.InferenceSession, Meddling
weights = find_weights()
x = np.zeros((1, 3, 75, 75), np.float32)
for before in (0x77, 0):
    def check():
        assert _core.current_cuda_context() == before, hex(_core.current_cuda_context())
    _core.set_current_cuda_context(before)
    check()
    network = InceptionNetwork(64, weights, "cpu")
    check()
    network.features(x)
    check()
    map = np.empty(network.map_shape(x.shape), np.float32)
    run = network.bind(x.ctypes.data, x.shape, map.ctypes.data)
    check()
    run()
    check()
    del run, network
    gc.collect()
    check()
assert len(ended) == 2
print("kept")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """It has a libcuda.so.1."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True)
    return folder


def run(code, folder, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_onnx_runtime_leaves_the_callers_device_current(folder, monkeypatch, weights):
    assert run(NETWORK, folder, monkeypatch) == "kept\n"


def test_what_is_current_belongs_to_a_thread(folder, monkeypatch):
    code = """
from concurrent.futures import ThreadPoolExecutor
from fastfid import _core
_core.set_current_cuda_context(5)
with ThreadPoolExecutor(1) as other:
    print(other.submit(_core.current_cuda_context).result(), _core.current_cuda_context())
"""
    assert run(code, folder, monkeypatch) == "0 5\n"


def test_without_a_driver_nothing_is_current(tmp_path, monkeypatch):
    """A file by the driver's name that is none: it cannot be loaded, on a machine with a GPU either."""
    (tmp_path / "libcuda.so.1").write_bytes(b"")
    code = """
from fastfid import _core
_core.set_current_cuda_context(5)
print(_core.current_cuda_context())
"""
    assert run(code, tmp_path, monkeypatch) == "0\n"
