"""The preprocessing kernel of csrc/cuda beside the CPU's preprocess, bit for bit: emulated, and on a device."""

import ctypes

import numpy as np
import pytest
from emulation import ORDERS, compile_library

from benchmarks.cuda_cases import DEVICE, EMULATED, RESIZING, ImagesCase, in_layout
from fastfid import _core
from fastfid.protocols import PROTOCOLS, input_spec

devices, reason = _core.cuda_driver()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The emulation, compiled."""
    out = tmp_path_factory.mktemp("emulation") / "preprocess.so"
    library = compile_library(out, core=("image", "parallel"), emulated=("preprocess",))
    yield library
    library.emulation_order(0)


def emulate(library, images, protocol, *, layout="nhwc", dtype=np.float32, skew=0, scale=None):
    """images (n, h, w, 3) through the kernel, in memory that begins `skew` bytes after an aligned address."""
    n, h, w, _ = images.shape
    stored = in_layout(images, layout)
    memory = np.empty(stored.size + 64, np.uint8)
    start = -memory.ctypes.data % 32 + skew
    memory[start : start + stored.size] = stored.ravel()
    before = memory.copy()
    strides = (3 * h * w, 3 * w, 1) if layout == "nhwc" else (3 * h * w, w, h * w)
    height, width = PROTOCOLS[protocol].size or (h, w)
    # Poisoned, and with a margin that must stay as it is. The output begins at an odd element.
    out = np.full(n * 3 * height * width + 9, -77, dtype)
    error = ctypes.create_string_buffer(1024)
    row = PROTOCOLS[protocol]
    scale = [value for value in (row.divisor, row.factor, 1.0) for _ in range(3)] if scale is None else scale
    library.preprocess(
        f"{protocol} {scale}".encode(),
        (ctypes.c_long * 3)(*((0, 0, 75) if row.filter is None else (299, 299, 75))),
        (row.filter or "bilinear").encode(),
        int(row.clip),
        (ctypes.c_float * 9)(*scale),
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
    want = _core.preprocess(images, input_spec(protocol))
    got = emulate(library, images, protocol, **options)
    if options.get("dtype") == np.float16:
        want = want.astype(np.float16)
    np.testing.assert_array_equal(got, want)


def test_each_channel_has_its_scale(library):
    images = noise(2, 40, 50, 3)
    scale = [200.0, 128.0, 255.0, 2.0, 1.5, 1.0, 1.0, 0.5, 0.25]
    spec = _core.InputSpec(
        name="ours", size=(299, 299), filter="bilinear", divisor=scale[:3], factor=scale[3:6], offset=scale[6:]
    )
    got = emulate(library, images, "pytorch-fid", scale=scale)
    np.testing.assert_array_equal(got, _core.preprocess(images, spec))


@pytest.mark.parametrize("case", EMULATED.images, ids=str)
def test_bits_of_the_cpu(library, case):
    check(library, case.images(), case.protocol, layout=case.layout, dtype=np.dtype(case.dtype).type)


@pytest.mark.parametrize("protocol", RESIZING)
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_threads(library, protocol, order):
    library.emulation_order(ORDERS[order])
    check(library, noise(1, 700, 64, 3), protocol)
    library.emulation_order(0)


@pytest.mark.parametrize("protocol", RESIZING)
def test_extremes_are_limited(library, protocol):
    """Black beside white: bicubic overshoots."""
    images = (np.indices((40, 40)).sum(0) // 5 % 2 * 255).astype(np.uint8)[None, ..., None].repeat(3, -1)
    check(library, np.ascontiguousarray(images), protocol)


@pytest.mark.parametrize("skew", range(0, 16, 3))
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_any_alignment(library, skew, layout):
    """Rows of 75 and 81 pixels begin at every place of a 16-byte word."""
    check(library, noise(1, 75, 81, 3), "none", layout=layout, skew=skew)


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


@pytest.mark.cuda
@pytest.mark.skipif(not devices, reason=f"no CUDA device: {reason}")
class TestDevice:
    """The same on a real device, from the extension's own arrays: no library of tensors is needed."""

    @pytest.fixture(scope="class")
    def stream(self):
        return _core.CudaStream(0)

    def run(self, stream, case, start=0):
        stored = case.stored()
        images = _core.CudaArray(stored.shape, np.dtype(np.uint8), stream)
        images.copy_from(stored)
        preprocessor = _core.CudaPreprocessor(input_spec(case.protocol), 0)
        height, width = preprocessor.output_size(case.h, case.w)
        out = _core.CudaArray((case.n - start, 3, height, width), np.dtype(case.dtype), stream)
        out.fill_bytes(0xFF)
        preprocessor.run(images.rows(start, case.n), out, channels_last=case.layout == "nhwc", stream=stream.handle)
        np.testing.assert_array_equal(images.numpy(), stored)
        return out.numpy()

    @pytest.mark.parametrize("case", DEVICE.images, ids=str)
    def test_bits_of_the_cpu(self, stream, case):
        want = _core.preprocess(case.images(), input_spec(case.protocol)).astype(case.dtype)
        np.testing.assert_array_equal(self.run(stream, case), want)

    @pytest.mark.parametrize("start", range(1, 16, 2))
    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    def test_any_alignment(self, stream, start, layout):
        """An image of 75 x 81 is 1 byte more than whole words: the images of a batch begin everywhere."""
        case = ImagesCase("none", 75, 81, n=16, layout=layout)
        want = _core.preprocess(case.images()[start:], input_spec(case.protocol))
        np.testing.assert_array_equal(self.run(stream, case, start), want)

    def test_bad_arguments(self, stream):
        preprocessor = _core.CudaPreprocessor(input_spec("clean"), 0)
        images = _core.CudaArray((2, 20, 20, 3), np.dtype(np.uint8), stream)
        out = _core.CudaArray((2, 3, 299, 299), np.dtype(np.float32), stream)

        def run(images=images, out=out, channels_last=True):
            preprocessor.run(images, out, channels_last=channels_last, stream=stream.handle)

        run()
        with pytest.raises(ValueError, match=r"images: expected shape \(n, 3, h, w\)"):
            run(channels_last=False)
        with pytest.raises(TypeError, match="images: expected a uint8 tensor"):
            run(images=out)
        with pytest.raises(TypeError, match="out: expected float32 or float16"):
            run(out=images)
        with pytest.raises(ValueError, match="out: expected a contiguous tensor"):
            run(out=out.rows(0, 1))
        with pytest.raises(ValueError, match="images: expected a tensor on cuda:0, got one elsewhere"):
            run(images=np.zeros((2, 20, 20, 3), np.uint8))
