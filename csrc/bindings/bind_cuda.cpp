// The functions and classes that run on a CUDA device. In builds without CUDA, their names exist and report that CUDA
// was not built.
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"

#ifdef FASTFID_WITH_CUDA
#include <pybind11/stl.h>

#include <exception>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/moments_state.hpp"
#include "bindings/tensor_moments.hpp"
#endif

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

constexpr char kDeviceMomentsDoc[] =
    R"(Number, mean and covariance of a stream of feature rows that are on a CUDA device.

The counterpart of `Moments` on a device: the rows are never copied to the host. Sums are in float64. The result is the
same, bit for bit, for every split of the rows into calls of `update` and for any streams. Merged objects agree with one
pass to rounding. While n <= d the rows themselves are kept. Memory on the device: 4 max(d, 2048) d bytes, then 4 d^2
bytes more.

Parameters
----------
d : int
    Number of features, 1 to 16384.
device : int, optional
    Number of the CUDA device.

Raises
------
ValueError
    If d is out of range.
BackendUnavailable
    If fastfid was built without CUDA, or there is no such device.

Examples
--------
>>> import fastfid
>>> import torch
>>> if torch.cuda.is_available():
...     moments = fastfid.DeviceMoments(2048)
...     moments.update(torch.rand(50, 2048, device="cuda"))
...     assert moments.to_host().n == 50
)";

#ifdef FASTFID_WITH_CUDA

using cuda::Arithmetic;
using cuda::DeviceMoments;

Arithmetic parse_arithmetic(const std::string& name) {
  if (name == "float64") return Arithmetic::kFloat64;
  if (name == "float32") return Arithmetic::kFloat32;
  throw InvalidArgument(message("arithmetic: expected 'float64' or 'float32', got '", name, "'"));
}

void bind_device_moments(py::module_& module) {
  py::options options;
  options.disable_function_signatures();
  // Local to this module, because the tests load an emulation of the class beside it.
  py::class_<TensorMoments>(module, "DeviceMoments", py::module_local(), kDeviceMomentsDoc)
      .def(py::init([](int d, int device) { return std::make_unique<TensorMoments>(d, device, Arithmetic::kFloat64); }),
           py::arg("d"), py::kw_only(), py::arg("device") = 0)
      // For tests and benchmarks: sums in float32 have not been measured on a device.
      .def_static(
          "_summed_in",
          [](const std::string& arithmetic, int d, int device) {
            return std::make_unique<TensorMoments>(d, device, parse_arithmetic(arithmetic));
          },
          py::arg("arithmetic"), py::arg("d"), py::kw_only(), py::arg("device") = 0)
      .def("update", &TensorMoments::update, py::arg("x"), py::kw_only(), py::arg("stream") = py::none(),
           R"(Add rows. The host does not wait for the device.

Parameters
----------
x : tensor
    (n, d), float32, float16 or bfloat16, on the object's device, any strides; from torch, CuPy, JAX or another
    library with DLPack. Not modified; kept until the device has read it.
stream : int, optional
    The CUDA stream to work on (cudaStream_t as a number). Default: the current stream of torch or CuPy for their
    tensors, the legacy default stream for others.

Raises
------
TypeError
    If x is not such a tensor.
ValueError
    If x has another number of features, or is on another device.
DeviceError
    If the device's memory is exhausted; then no row has been added.

Notes
-----
A NaN or an infinity cannot be seen without waiting. The next call that returns numbers raises NumericalError.
)")
      .def(
          "merge",
          [](TensorMoments& self, TensorMoments& other) {
            // Safe: the call only launches work, as update does, and the caller keeps both objects alive.
            const WithoutGil guard;
            self.get().merge(other.get());
          },
          py::arg("other"),
          R"(Add all rows that `other` has seen, after the rows of this object. The host does not wait for the device.

While the sum of both n is <= d, the rows are appended.

Parameters
----------
other : DeviceMoments
    On the same device and with the same d; not modified. It may be this object itself.

Raises
------
ValueError
    If d or the devices differ, or there would be more than 2^62 rows in all.
DeviceError
    If the device's memory is exhausted; then no row has been added.
)")
      .def(
          "to_host",
          [](TensorMoments& self) {
            std::unique_ptr<Moments> moments;
            {
              // Safe: the call waits for the device, the object has its own lock, and no Python object is touched.
              const WithoutGil guard;
              moments = self.get().to_host();
            }
            self.give_back();
            return moments;
          },
          R"(Wait for the device and return these moments on the CPU.

Returns
-------
Moments
    A new object, with the rows while n <= d, and otherwise with n, mean and scatter.

Raises
------
NumericalError
    If a row had NaN or infinity; the message names the row. `reset` starts anew.
)")
      .def(
          "state",
          [](TensorMoments& self) {
            std::unique_ptr<Moments> moments;
            {
              const WithoutGil guard;  // as in to_host
              moments = self.get().to_host();
            }
            self.give_back();
            return state_of(*moments);
          },
          R"(Wait for the device and return ``to_host().state()``.

Returns
-------
dict
    A dict like that of :meth:`fastfid.Moments.state`. `Moments.from_state` continues from it on the CPU.

Raises
------
NumericalError
    If a row had NaN or infinity; the message names the row.
)")
      .def_static(
          "from_state",
          [](const py::object& state, int device) {
            const std::unique_ptr<Moments> moments = moments_from_state(state);
            return without_gil([&] { return std::make_unique<TensorMoments>(*moments, device); });
          },
          py::arg("state"), py::kw_only(), py::arg("device") = 0,
          R"(Make an object on a device from the state of a `DeviceMoments` or of a `Moments`. Waits for the device.

While n <= d, the object continues bit for bit. For n > d, numbers agree with those of an uninterrupted stream to
rounding (1e-12 of the largest); the last bits may differ.

Parameters
----------
state : dict
    As `state` returns it. Rows in the state must be float32.
device : int, optional
    Number of the CUDA device.

Raises
------
TypeError, ValueError, NumericalError
    As `Moments.from_state` raises them. Also ValueError for float64 rows while n <= d, and for a mean beyond float32.
BackendUnavailable
    If fastfid was built without CUDA, or there is no such device.
DeviceError
    If the device's memory is exhausted.
)")
      .def(
          "reset",
          [](TensorMoments& self) {
            {
              const WithoutGil guard;  // as in to_host
              self.get().reset();
            }
            self.give_back();
          },
          "Forget all rows and free the memory.")
      .def_property_readonly(
          "d", [](TensorMoments& self) { return self.get().d(); }, "Number of features.")
      .def_property_readonly(
          "n",
          [](TensorMoments& self) {
            const WithoutGil guard;  // another thread may hold the lock while it waits for the device
            return self.get().n();
          },
          "Number of rows seen.")
      .def_property_readonly(
          "device", [](TensorMoments& self) { return self.get().device(); }, "Number of the CUDA device.")
      .def_property_readonly(
          "_arithmetic",
          [](TensorMoments& self) { return self.get().arithmetic() == Arithmetic::kFloat64 ? "float64" : "float32"; },
          "The arithmetic of the sums: 'float64' or 'float32'.");
}

#else

// This build makes no such objects, but the class exists for isinstance().
class DeviceMoments {};

void bind_device_moments(py::module_& module) {
  py::class_<DeviceMoments>(module, "DeviceMoments", kDeviceMomentsDoc)
      .def(py::init([](const py::args&, const py::kwargs&) -> std::unique_ptr<DeviceMoments> { throw_without_cuda(); }))
      .def_static("from_state", [](const py::args&, const py::kwargs&) { throw_without_cuda(); });
}

#endif

}  // namespace

#ifdef FASTFID_WITH_CUDA

TensorMoments::~TensorMoments() {
  const WithoutGil guard;
  for (const auto& [event, tensor] : in_flight_) {
    try {
      event.synchronize();
    } catch (const DeviceError&) {
      // The device is broken and reads no memory any more.
    }
  }
}

void TensorMoments::update(const py::object& x, std::optional<std::uintptr_t> stream) {
  const dlpack::Device where = tensor_device(x, "x");
  FASTFID_EXPECT(dlpack::is_cuda(where), InvalidArgument, "x: expected a tensor on cuda:", moments_->device(),
                 ", got one that is not on a CUDA device");
  FASTFID_EXPECT(where.id == moments_->device(), InvalidArgument, "x: expected a tensor on cuda:", moments_->device(),
                 ", got one on cuda:", where.id);
  if (!stream) stream = callers_stream(x, moments_->device());
  // Where the stream is unknown: __dlpack__ makes the legacy default stream, 1, wait for the tensor, and the tensor is
  // kept until it has been read. So nothing depends on the stream of the caller.
  const std::uintptr_t handle = stream.value_or(1);
  ImportedTensor tensor = import_tensor(x, "x", handle);
  const cuda::DeviceRows rows = as_device_rows(tensor);
  const cuda::Stream on{moments_->device(), reinterpret_cast<CUstream_st*>(handle)};
  cuda::Event read(moments_->device());
  std::exception_ptr failure;
  {
    // Safe: the call only launches work. The object has its own lock, which is never held while the GIL is taken.
    const WithoutGil guard;
    try {
      moments_->update(rows, on);
    } catch (...) {
      failure = std::current_exception();  // work that was launched before the failure may be reading the tensor
    }
    read.record(on);
  }
  in_flight_.emplace_back(std::move(read), std::move(tensor));
  give_back();
  if (failure) std::rethrow_exception(failure);
}

void TensorMoments::give_back() {
  while (!in_flight_.empty() && in_flight_.front().first.is_done()) {
    // The tensor leaves the queue before it is dropped: its deleter may be Python code, which may give the GIL to
    // another update.
    const auto done = std::move(in_flight_.front());
    in_flight_.pop_front();
  }
}

cuda::DeviceRows TensorMoments::as_device_rows(const ImportedTensor& tensor) const {
  cuda::DeviceRows rows;
  if (tensor.is(dlpack::kFloat, 32)) {
    rows.dtype = DType::kFloat32;
  } else if (tensor.is(dlpack::kFloat, 16)) {
    rows.dtype = DType::kFloat16;
  } else if (tensor.is(dlpack::kBFloat, 16)) {
    rows.dtype = DType::kBFloat16;
  } else {
    throw py::type_error(message("x: expected float32, float16 or bfloat16, got ", tensor.describe()));
  }
  if (tensor.shape.size() != 2) {
    throw py::type_error(message("x: expected a tensor with 2 dimensions, got ", tensor.describe()));
  }
  FASTFID_EXPECT(tensor.shape[1] == moments_->d(), InvalidArgument, "x: expected shape (n, ", moments_->d(), "), got ",
                 tensor.describe());
  rows.data = tensor.data;
  rows.n = tensor.shape[0];
  rows.row_stride = tensor.strides[0];
  rows.column_stride = tensor.strides[1];
  return rows;
}

#endif

void bind_cuda(py::module_& module) { bind_device_moments(module); }

}  // namespace fastfid::bindings
