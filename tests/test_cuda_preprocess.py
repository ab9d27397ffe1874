"""The preprocessing kernel of csrc/cuda without a GPU: emulated, beside the CPU's preprocess, bit for bit."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastfid import _core

ROOT = Path(__file__).resolve().parents[1]
EMULATION = ROOT / "tests" / "cuda_emulation"
ORDERS = {"forwards": 0, "backwards": 1, "shuffled": 2}
RESIZING = ["pytorch-fid", "tensorflow", "clean", "torchmetrics"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The emulation, compiled."""
    out = tmp_path_factory.mktemp("emulation") / "preprocess.so"
    sources = [ROOT / "csrc" / "core" / f"{name}.cpp" for name in ("image", "parallel")]
    sources += [EMULATION / "preprocess.cpp", EMULATION / "runtime.cpp", "-x", "c++", ROOT / "csrc/cuda/preprocess.cu"]
    flags = [
        "-std=c++20",
        "-O2",
        "-fPIC",
        "-shared",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-ffp-contract=off",
        "-pthread",
    ]
    includes = [f"-I{path}" for path in (ROOT / "csrc", EMULATION)]
    subprocess.run(["c++", *flags, *includes, "-DFASTFID_CUDA_EMULATION", "-o", out, *sources], check=True)
    library = ctypes.CDLL(out)
    yield library
    library.set_order(0)


def emulate(library, images, protocol, *, layout="nhwc", dtype=np.float32, skew=0):
    """images (n, h, w, 3) through the kernel, in memory that begins `skew` bytes after an aligned address."""
    n, h, w, _ = images.shape
    stored = images if layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    memory = np.empty(stored.size + 64, np.uint8)
    start = -memory.ctypes.data % 32 + skew
    memory[start : start + stored.size] = stored.ravel()
    before = memory.copy()
    strides = (3 * h * w, 3 * w, 1) if layout == "nhwc" else (3 * h * w, w, h * w)
    height, width = (h, w) if protocol == "none" else (299, 299)
    # Poisoned, and with a margin that must stay as it is. The output begins at an odd element.
    out = np.full(n * 3 * height * width + 9, -77, dtype)
    error = ctypes.create_string_buffer(1024)
    library.preprocess(
        protocol.encode(),
        ctypes.c_void_p(memory.ctypes.data + start),
        (ctypes.c_long * 3)(n, h, w),
        (ctypes.c_long * 3)(*strides),
        int(layout == "nhwc"),
        ctypes.c_void_p(out.ctypes.data + 5 * out.itemsize),
        int(dtype == np.float16),
        error,
    )
    if error.value:
        raise ValueError(error.value.decode())
    np.testing.assert_array_equal(memory, before)
    assert (out[:5] == -77).all()
    assert (out[-4:] == -77).all()
    return out[5:-4].reshape(n, 3, height, width)


def noise(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def check(library, images, protocol, **options):
    want = _core.preprocess(images, protocol)
    got = emulate(library, images, protocol, **options)
    if options.get("dtype") == np.float16:
        want = want.astype(np.float16)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("protocol", RESIZING)
class TestResize:
    @pytest.mark.parametrize(
        ("h", "w"),
        # One pixel, thin, smaller, the network's own side, larger, many taps (bicubic: 17 rows of 1000), two segments
        [(1, 1), (1, 37), (32, 32), (299, 299), (298, 301), (1000, 513), (3, 3000)],
    )
    def test_sizes(self, library, protocol, h, w):
        check(library, noise(1, h, w, 3), protocol)

    @pytest.mark.parametrize("order", ORDERS)
    def test_any_order_of_threads(self, library, protocol, order):
        library.set_order(ORDERS[order])
        check(library, noise(1, 700, 64, 3), protocol)
        library.set_order(0)

    @pytest.mark.parametrize(("h", "w"), [(1, 1), (50, 71), (640, 411)])
    def test_planes(self, library, protocol, h, w):
        check(library, noise(1, h, w, 3), protocol, layout="nchw")

    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    def test_float16(self, library, protocol, layout):
        check(library, noise(1, 80, 60, 3), protocol, layout=layout, dtype=np.float16)

    def test_batches(self, library, protocol):
        check(library, noise(3, 20, 31, 3), protocol)

    def test_extremes_are_limited(self, library, protocol):
        """Black beside white: bicubic overshoots."""
        images = (np.indices((40, 40)).sum(0) // 5 % 2 * 255).astype(np.uint8)[None, ..., None].repeat(3, -1)
        check(library, np.ascontiguousarray(images), protocol)


@pytest.mark.parametrize("skew", range(0, 16, 3))
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_any_alignment(library, skew, layout):
    """Rows of 75 and 81 pixels begin at every place of a 16-byte word."""
    check(library, noise(1, 75, 81, 3), "none", layout=layout, skew=skew)


@pytest.mark.parametrize(("h", "w"), [(75, 75), (76, 2500)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_no_resize(library, h, w, dtype):
    check(library, noise(2, h, w, 3), "none", dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "protocol", "words"),
    [
        ((1, 74, 80, 3), "none", "at least 75"),
        ((1, 0, 80, 3), "clean", "expected an image of 1 to"),
        ((1, 1, 1000000, 3), "clean", "preprocess them on the CPU"),
    ],
)
def test_refused(library, shape, protocol, words):
    with pytest.raises(ValueError, match=words):
        emulate(library, np.zeros(shape, np.uint8), protocol)


def test_no_images(library):
    assert emulate(library, np.zeros((0, 20, 20, 3), np.uint8), "clean").shape == (0, 3, 299, 299)
