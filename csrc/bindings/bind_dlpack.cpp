// DLPack import, and a function that describes the imported tensor.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"
#ifdef FASTFID_WITH_CUDA
#include "cuda/runtime.hpp"
#endif

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

constexpr char kName[] = "dltensor";
constexpr char kUsedName[] = "used_dltensor";
constexpr char kVersionedName[] = "dltensor_versioned";
constexpr char kUsedVersionedName[] = "used_dltensor_versioned";
constexpr std::uint32_t kMajor = 1;
constexpr std::uint32_t kMinor = 1;

// Calls __dlpack__ with a version, and again without a version where the producer does not know this argument.
py::object call_dlpack(py::handle object, dlpack::Device device, std::optional<std::uintptr_t> stream) {
#ifdef FASTFID_WITH_CUDA
  // torch exports only tensors of the current device. The current device is the driver's current context, which all
  // copies of the CUDA runtime in a process share. A device that is set through this library's copy is therefore the
  // device that torch sees.
  std::optional<cuda::DeviceGuard> guard;
  if (stream && device.id >= 0 && device.id < cuda::device_count()) guard.emplace(device.id);
#else
  static_cast<void>(device);
#endif
  py::dict keywords;
  if (stream) keywords["stream"] = py::int_(*stream);
  py::dict versioned = object_from_python(PyDict_Copy, keywords.ptr());
  versioned["max_version"] = py::make_tuple(kMajor, kMinor);
  const py::object method = attribute(object, "__dlpack__");
  try {
    return call(method, py::tuple(), versioned);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return call(method, py::tuple(), keywords);
}

}  // namespace

void ImportedTensor::swap(ImportedTensor& other) noexcept {
  std::swap(static_cast<dlpack::View&>(*this), static_cast<dlpack::View&>(other));
  std::swap(managed_, other.managed_);
  std::swap(managed_versioned_, other.managed_versioned_);
}

void ImportedTensor::release() noexcept {
  if (managed_ == nullptr && managed_versioned_ == nullptr) return;
  const WithGil guard;
  if (managed_ != nullptr && managed_->deleter != nullptr) call_python(managed_->deleter, managed_);
  if (managed_versioned_ != nullptr && managed_versioned_->deleter != nullptr) {
    call_python(managed_versioned_->deleter, managed_versioned_);
  }
  managed_ = nullptr;
  managed_versioned_ = nullptr;
}

std::optional<std::uintptr_t> callers_stream(py::handle tensor, int device) {
  // The library is never imported here: code that made a tensor has imported the tensor's library.
  const py::dict modules = attribute(py::module_::import("sys"), "modules");
  if (modules.contains("torch")) {
    const py::object torch = modules["torch"];
    if (is_instance(tensor, attribute(torch, "Tensor"))) {
      const py::object current = attribute(attribute(torch, "cuda"), "current_stream");
      return py::cast<std::uintptr_t>(attribute(call(current, py::make_tuple(device)), "cuda_stream"));
    }
  }
  if (modules.contains("cupy")) {
    const py::object cupy = modules["cupy"];
    if (is_instance(tensor, attribute(cupy, "ndarray"))) {
      const py::object current = attribute(attribute(cupy, "cuda"), "get_current_stream");
      return py::cast<std::uintptr_t>(attribute(call(current, py::make_tuple(device)), "ptr"));
    }
  }
  return std::nullopt;
}

dlpack::Device tensor_device(py::handle object, const char* argument) {
  if (!has_attribute(object, "__dlpack__") || !has_attribute(object, "__dlpack_device__")) {
    throw py::type_error(
        message(argument, ": expected a tensor that speaks DLPack (torch, CuPy, JAX), got ", type_name(object)));
  }
  const py::object device = call(attribute(object, "__dlpack_device__"));
  if (!PyTuple_Check(device.ptr()) || PyTuple_Size(device.ptr()) != 2) {
    throw py::type_error(message(argument, ": its __dlpack_device__ returned no (type, id) but ", type_name(device)));
  }
  // The device type is an enum.IntEnum in some libraries.
  const auto number = [&](py::ssize_t i) {
    const std::int64_t value = as_integer(PyTuple_GetItem(device.ptr(), i), message(argument, ": __dlpack_device__"));
    FASTFID_EXPECT(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), InvalidArgument, argument,
                   ": its __dlpack_device__ returned ", value);
    return static_cast<std::int32_t>(value);
  };
  return {number(0), number(1)};
}

ImportedTensor import_tensor(py::handle object, const char* argument, std::optional<std::uintptr_t> stream) {
  const dlpack::Device device = tensor_device(object, argument);
  const bool is_cuda = dlpack::is_cuda(device);
  FASTFID_EXPECT(is_cuda || device.type == dlpack::kCpu || device.type == dlpack::kCudaHost, InvalidArgument, argument,
                 ": expected a tensor on a CUDA device or the CPU, got one on ", dlpack::device_name(device));
  FASTFID_EXPECT(is_cuda ? stream.has_value() : true, InvalidArgument, argument,
                 ": a tensor on a CUDA device needs a stream");
  // 0 is ambiguous in the protocol and not allowed. Here 0 means the legacy default stream, whose number is 1.
  if (stream == std::uintptr_t{0}) stream = std::uintptr_t{1};
  const py::object result = call_dlpack(object, device, is_cuda ? stream : std::nullopt);
  PyObject* const capsule = result.ptr();

  ImportedTensor out;
  const dlpack::Tensor* tensor = nullptr;
  // Renaming the capsule transfers the ownership of the tensor: after that the capsule's destructor does nothing.
  if (PyCapsule_IsValid(capsule, kVersionedName)) {
    auto* const managed = static_cast<dlpack::ManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kVersionedName));
    FASTFID_EXPECT(managed->version.major == kMajor, InvalidArgument, argument, ": expected DLPack ", kMajor,
                   ", got version ", managed->version.major);
    if (PyCapsule_SetName(capsule, kUsedVersionedName) != 0) throw py::error_already_set();
    out.managed_versioned_ = managed;
    tensor = &managed->tensor;
  } else if (PyCapsule_IsValid(capsule, kName)) {
    auto* const managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, kName));
    if (PyCapsule_SetName(capsule, kUsedName) != 0) throw py::error_already_set();
    out.managed_ = managed;
    tensor = &managed->tensor;
  } else {
    throw py::type_error(
        message(argument, ": its __dlpack__ returned no fresh DLPack capsule but ", type_name(result)));
  }
  static_cast<dlpack::View&>(out) = dlpack::view(*tensor, argument);
  return out;
}

void bind_dlpack(py::module_& module) {
  module.def(
      "tensor_info",
      [](const py::object& tensor, std::optional<std::uintptr_t> stream) {
        const ImportedTensor imported = import_tensor(tensor, "tensor", stream);
        py::dict info;
        info["device_type"] = imported.device.type;
        info["device_id"] = imported.device.id;
        info["dtype"] = dlpack::dtype_name(imported.dtype);
        info["shape"] = py::tuple(py::cast(imported.shape));
        info["strides"] = py::tuple(py::cast(imported.strides));
        info["is_contiguous"] = imported.is_contiguous();
        info["data"] = reinterpret_cast<std::uintptr_t>(imported.data);
        info["description"] = imported.describe();
        return info;
      },
      py::arg("tensor"), py::kw_only(), py::arg("stream") = py::none(),
      "DLPack's description of a tensor: device_type and device_id, dtype, shape, strides (in elements), "
      "is_contiguous, "
      "data "
      "(the address, valid as long as the tensor exists), description.");
}

}  // namespace fastfid::bindings
