// Imports tensors of other libraries through DLPack: torch, CuPy, JAX and NumPy, on the CPU or a CUDA device. None of
// these libraries is a dependency.
//
// core/dlpack.hpp has the structures and reads them. The Python side (`__dlpack__`, `__dlpack_device__`, capsule names,
// stream numbers) follows the Python array API standard, 2023.12.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "core/dlpack.hpp"

namespace fastfid::bindings {

// A tensor borrowed from another library. The memory is valid until this object is destroyed, and must not be written
// to. The destructor takes the GIL, since the deleters of some producers need it. Movable.
class ImportedTensor : public dlpack::View {
 public:
  ImportedTensor() = default;
  ~ImportedTensor() { release(); }
  ImportedTensor(ImportedTensor&& other) noexcept { swap(other); }
  ImportedTensor& operator=(ImportedTensor&& other) noexcept {
    ImportedTensor(std::move(other)).swap(*this);
    return *this;
  }

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
// which the memory will be read. The producer makes this stream wait for the work that fills the tensor. For tensors in
// host memory `stream` is ignored. No host synchronisation takes place in torch, CuPy or JAX.
//
// Throws TypeError for an object that is not such a tensor. Throws ValueError for a tensor on another kind of device
// (ROCm, for example), for a tensor on a CUDA device without a stream, and for a description that dlpack::view()
// refuses. An exception that the producer raises is passed on unchanged, for example BufferError for a tensor that
// requires grad.
ImportedTensor import_tensor(pybind11::handle object, const char* argument, std::optional<std::uintptr_t> stream);

// The stream on which the caller works with a tensor. For a tensor of torch or CuPy this is the library's current
// stream of the device. For tensors of other libraries the stream is unknown: nothing is returned, as by
// fastfid.sources.device.callers_stream.
std::optional<std::uintptr_t> callers_stream(pybind11::handle tensor, int device);

// (type, id) from `__dlpack_device__`. Throws TypeError for an object without `__dlpack_device__`.
dlpack::Device tensor_device(pybind11::handle object, const char* argument);

}  // namespace fastfid::bindings
