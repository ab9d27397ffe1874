"""Tensors of other libraries through DLPack: what the importer says of them, whose they are, and what is refused."""

import ctypes
import gc
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch

from fastfid import _core

DTYPES = [
    (torch.float32, "float32"),
    (torch.float64, "float64"),
    (torch.float16, "float16"),
    (torch.bfloat16, "bfloat16"),
    (torch.uint8, "uint8"),
    (torch.int32, "int32"),
    (torch.bool, "bool"),
    (torch.complex64, "complex64"),
]


class OldProducer:
    """A library that knows DLPack before version 1: no max_version, a capsule named "dltensor"."""

    def __init__(self, array):
        self.array = array
        self.capsules = []

    def __dlpack__(self, stream=None):
        capsule = self.array.__dlpack__()
        self.capsules.append(capsule)
        return capsule

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class NewProducer(OldProducer):
    """A library that hands out versioned capsules when asked for them."""

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        assert stream is None
        assert max_version[0] == 1
        capsule = self.array.__dlpack__(max_version=max_version)
        self.capsules.append(capsule)
        return capsule


class Elsewhere:
    """A tensor on a device that is not there; it remembers the stream it was asked for."""

    def __init__(self, device_type, device_id=0):
        self.device = device_type, device_id
        self.array = np.zeros((2, 3), np.float32)
        self.streams = []

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


def capsule_name(capsule):
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return get_name(capsule).decode()


@pytest.mark.parametrize(("dtype", "name"), DTYPES, ids=[name for _, name in DTYPES])
def test_dtype_shape_strides_and_address_of_a_torch_tensor(dtype, name):
    tensor = torch.zeros(6, 5, 4, dtype=dtype)[1::2, :, 1:]
    info = _core.tensor_info(tensor)
    assert (info["dtype"], info["shape"], info["strides"]) == (name, (3, 5, 3), (40, 4, 1))
    assert info["data"] == tensor.data_ptr()
    assert not info["is_contiguous"]
    assert info["description"] == f"{name} (3, 5, 3) on cpu"
    assert _core.tensor_info(tensor.contiguous())["is_contiguous"]


def test_numpy_and_the_strides_of_one_element_axes():
    array = np.zeros((4, 1, 6), np.uint8)
    info = _core.tensor_info(array.transpose(1, 0, 2))
    assert (info["shape"], info["is_contiguous"]) == ((1, 4, 6), True)
    assert info["data"] == array.ctypes.data
    assert (info["device_type"], info["device_id"]) == (1, 0)
    assert _core.tensor_info(np.zeros((), np.float32))["shape"] == ()


@pytest.mark.parametrize(("producer", "name"), [(OldProducer, "dltensor"), (NewProducer, "dltensor_versioned")])
def test_capsules_are_consumed_once_and_their_memory_is_given_back(producer, name):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    source = producer(array)
    before = sys.getrefcount(array)
    assert _core.tensor_info(source)["shape"] == (2, 3)
    assert capsule_name(source.capsules[0]) == f"used_{name}"
    gc.collect()
    assert sys.getrefcount(array) == before  # the deleter has run, once


def test_a_used_capsule_is_refused():
    array = np.zeros(3, np.float32)
    capsule = array.__dlpack__()

    class Again:
        def __dlpack__(self, **_):
            return capsule

        def __dlpack_device__(self):
            return 1, 0

    again = Again()
    _core.tensor_info(again)
    with pytest.raises(TypeError, match="tensor: its __dlpack__ returned no fresh DLPack capsule but PyCapsule"):
        _core.tensor_info(again)


def test_the_tensor_lives_no_longer_than_the_call():
    tensor = torch.zeros(10)
    alive = weakref.ref(tensor)
    _core.tensor_info(tensor)
    del tensor
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("bad", [[1.0], 3, None, "x"])
def test_what_is_no_tensor_is_refused(bad):
    with pytest.raises(TypeError, match=rf"tensor: expected a tensor that speaks DLPack .* got {type(bad).__name__}"):
        _core.tensor_info(bad)


def test_what_the_producer_refuses_goes_through_unchanged():
    with pytest.raises(BufferError, match=r"require"):
        _core.tensor_info(torch.zeros(3, requires_grad=True))
    with pytest.raises(BufferError):
        _core.tensor_info(np.zeros(3, ml_dtypes.bfloat16))  # NumPy exports none of its user's dtypes


def test_other_devices_are_refused_and_cuda_needs_a_stream():
    with pytest.raises(ValueError, match="tensor: expected a tensor on a CUDA device or the CPU, got one on a device"):
        _core.tensor_info(Elsewhere(10))  # ROCm
    with pytest.raises(ValueError, match="tensor: a tensor on a CUDA device needs a stream"):
        _core.tensor_info(Elsewhere(2))


@pytest.mark.parametrize(("stream", "asked"), [(0, 1), (1, 1), (2, 2), (0x7F0012345678, 0x7F0012345678)])
def test_the_stream_reaches_the_producer(stream, asked):
    tensor = Elsewhere(2, 1)
    _core.tensor_info(tensor, stream=stream)
    assert tensor.streams == [asked]


def test_a_tensor_of_the_host_is_asked_for_no_stream():
    tensor = Elsewhere(1)
    _core.tensor_info(tensor, stream=5)
    assert tensor.streams == [None]


class TensorStruct(ctypes.Structure):
    """DLManagedTensor of DLPack."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Foreign:
    """A tensor of 24 bytes that says of itself what it is told to."""

    def __init__(self, shape, strides=None, data=True, dtype=(2, 32, 1), byte_offset=0, ndim=None, device=(1, 0)):
        self.memory = (ctypes.c_float * 6)(*range(6))
        shape = (2, 3) if shape is None else shape
        self.lists = [(ctypes.c_int64 * 64)(*values) if values else None for values in (shape, strides)]
        lists = [ctypes.cast(values, ctypes.POINTER(ctypes.c_int64)) if values else None for values in self.lists]
        address = ctypes.addressof(self.memory) if data is True else data
        ndim = len(shape) if ndim is None else ndim
        self.struct = TensorStruct(address, *device, ndim, *dtype, *lists, byte_offset, None, None)
        self.device = device

    def __dlpack__(self, **_):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self.struct), b"dltensor", None)

    def __dlpack_device__(self):
        return self.device


def test_a_foreign_tensor_is_read_as_it_says():
    info = _core.tensor_info(Foreign((2, 3)))
    assert (info["shape"], info["strides"], info["is_contiguous"]) == ((2, 3), (3, 1), True)
    info = _core.tensor_info(Foreign((2, 3), strides=(-3, -1), byte_offset=20))
    assert (info["strides"], info["is_contiguous"]) == ((-3, -1), False)
    assert _core.tensor_info(Foreign((0, 2**40), data=None))["is_contiguous"]
    assert _core.tensor_info(Foreign((2**40,), strides=(0,)))["shape"] == (2**40,)


LIES = {
    "a negative length": ({"shape": (2, -3)}, "no negative length, got float32 (2, -3) on cpu"),
    "axes below zero": ({"shape": (2,), "ndim": -1}, "0 to 64 axes, got -1"),
    "axes without end": ({"shape": (2,), "ndim": 2**31 - 1}, "0 to 64 axes, got 2147483647"),
    "no shape": ({"shape": (), "ndim": 2}, "the lengths of 2 axes, got none"),
    "no memory": ({"shape": (2, 3), "data": None}, "a tensor with memory, got float32 (2, 3) on cpu without"),
    "no bits": ({"shape": (2, 3), "dtype": (2, 0, 1)}, "a dtype of at least one bit"),
    "no lanes": ({"shape": (2, 3), "dtype": (2, 32, 0)}, "a dtype of at least one bit"),
    "a length that wraps": ({"shape": (2**32, 2**32)}, "its strides: 4294967296 * 4294967296 does not fit"),
    "bytes that wrap": ({"shape": (2**62, 1)}, "its number of bytes: 4 * 4611686018427387904 does not fit"),
    "many bytes in one place": (
        {"shape": (2**40, 2**40), "strides": (0, 0)},
        "its number of bytes: 4398046511104 * 1099511627776 does not fit",
    ),
    "a stride that wraps": ({"shape": (3, 3), "strides": (2**62, 1)}, "an element's address: 2 * 4611686018427387904"),
    "strides that wrap together": (
        {"shape": (2, 2), "strides": (2**62, 2**62)},
        "an element's address: 4611686018427387904 + 4611686018427387904",
    ),
    "a stride that wraps in bytes": ({"shape": (2,), "strides": (2**61,)}, "an element's address"),
    "a stride whose bytes have no opposite": (
        {"shape": (2,), "strides": (-(2**61),)},
        "an element's address: -2305843009213693952 * -4 does not fit",
    ),
    "an offset that wraps": ({"shape": (2, 3), "byte_offset": 2**64 - 8}, "an element's address"),
    "addresses below zero": ({"shape": (2,), "strides": (-(2**60),)}, "an element's address is negative"),
    "an address beyond the last": ({"shape": (6,), "data": 2**64 - 16}, "an element's address"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_cannot_be_is_refused(lie):
    arguments, said = LIES[lie]
    with pytest.raises(ValueError, match=r"^tensor: ") as error:
        _core.tensor_info(Foreign(**arguments))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("device", "error", "said"),
    [
        ((1,), TypeError, r"returned no \(type, id\) but tuple"),
        ([1, 0], TypeError, r"returned no \(type, id\) but list"),
        (None, TypeError, r"returned no \(type, id\) but NoneType"),
        ((1.5, 0), TypeError, "__dlpack_device__: expected an integer, got float"),
        ((1, 2**70), ValueError, "__dlpack_device__: expected an integer of 64 bits"),
        ((2**40, 0), ValueError, "__dlpack_device__ returned 1099511627776"),
        ((1, -1), ValueError, "__dlpack_device__ returned -1"),
    ],
)
def test_a_device_that_is_none_is_refused(device, error, said):
    foreign = Foreign((2, 3))
    foreign.device = device
    with pytest.raises(error, match=f"^tensor: .*{said}"):
        _core.tensor_info(foreign)
