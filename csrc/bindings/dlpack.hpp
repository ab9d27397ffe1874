// Tensors of other libraries in, through DLPack: torch, CuPy, JAX and NumPy, on the CPU or a CUDA device, without any
// of them as a dependency.
//
// The structures are those of DLPack 1.1 (dmlc/dlpack, include/dlpack/dlpack.h), whose layout is fixed for the major
// version 1; the Python side (`__dlpack__`, `__dlpack_device__`, capsule names, stream numbers) is that of the Python
// array API standard, 2023.12.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fastfid::bindings {

namespace dlpack {

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};
struct Device {
  std::int32_t type;
  std::int32_t id;
};
struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};
struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

inline constexpr std::int32_t kCpu = 1;
inline constexpr std::int32_t kCuda = 2;
inline constexpr std::int32_t kCudaHost = 3;
inline constexpr std::int32_t kCudaManaged = 13;

// Memory of a CUDA device; page-locked memory of the host is not.
inline bool is_cuda(Device device) { return device.type == kCuda || device.type == kCudaManaged; }

inline constexpr std::uint8_t kInt = 0;
inline constexpr std::uint8_t kUint = 1;
inline constexpr std::uint8_t kFloat = 2;
inline constexpr std::uint8_t kBFloat = 4;
inline constexpr std::uint8_t kComplex = 5;
inline constexpr std::uint8_t kBool = 6;

}  // namespace dlpack

// A tensor that another library lent us. The memory is valid, and not to be written to, until this object ends; its end
// takes the GIL, since some producers' deleters need it. Movable.
class ImportedTensor {
 public:
  ImportedTensor() = default;
  ~ImportedTensor() { release(); }
  ImportedTensor(ImportedTensor&& other) noexcept { swap(other); }
  ImportedTensor& operator=(ImportedTensor&& other) noexcept {
    ImportedTensor(std::move(other)).swap(*this);
    return *this;
  }

  // Address of the first element, byte_offset included.
  void* data = nullptr;
  dlpack::Device device{};
  dlpack::DataType dtype{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements

  bool is_cuda() const { return dlpack::is_cuda(device); }
  bool is(std::uint8_t code, int bits) const { return dtype.code == code && dtype.bits == bits && dtype.lanes == 1; }
  bool is_contiguous() const;  // row-major
  // "float32 (50, 2048) on cuda:0"
  std::string describe() const;

 private:
  friend ImportedTensor import_tensor(pybind11::handle, const char*, std::optional<std::uintptr_t>);
  void swap(ImportedTensor& other) noexcept;
  void release() noexcept;

  dlpack::ManagedTensor* managed_ = nullptr;  // one of these two, or neither
  dlpack::ManagedTensorVersioned* managed_versioned_ = nullptr;
};

// Takes a tensor from any object with `__dlpack__` and `__dlpack_device__`.
//
// `stream`: the CUDA stream (cudaStream_t as a number; 0 and 1 are the legacy default stream, 2 the per-thread one) on
// which the memory will be read: the producer makes it wait for whatever fills the tensor. For tensors of the host it
// is not used. No host synchronisation takes place in torch, CuPy or JAX.
//
// Throws TypeError for an object that is no such tensor, ValueError for a tensor on another kind of device (ROCm, ...)
// or for a stream given with none; what the producer raises (BufferError for a tensor that requires grad, say) goes
// through unchanged.
ImportedTensor import_tensor(pybind11::handle object, const char* argument, std::optional<std::uintptr_t> stream);

// The stream on which the caller works with such a tensor: torch's or CuPy's current stream of the device, where the
// tensor is one of theirs; for any other library, which has no such notion, the legacy default stream.
std::uintptr_t callers_stream(pybind11::handle tensor, int device);

// (type, id) as `__dlpack_device__` says; throws TypeError for an object that has none.
dlpack::Device tensor_device(pybind11::handle object, const char* argument);

}  // namespace fastfid::bindings
