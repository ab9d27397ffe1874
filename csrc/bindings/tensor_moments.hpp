// The Python class DeviceMoments, for every binding that takes one. Only in builds with CUDA.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/dlpack.hpp"
#include "cuda/moments.hpp"

namespace fastfid::bindings {

// The moments, and the tensors that the device may not have read yet. Those are kept until it has: a library that does
// not know our stream might give their memory to somebody else.
class TensorMoments {
 public:
  TensorMoments(int d, int device, cuda::Arithmetic arithmetic)
      : moments_(std::make_unique<cuda::DeviceMoments>(d, device, arithmetic)) {}
  TensorMoments(const Moments& moments, int device)
      : moments_(std::make_unique<cuda::DeviceMoments>(moments, device)) {}
  // Waits, outside the GIL, for what is still being read.
  ~TensorMoments();

  cuda::DeviceMoments& get() { return *moments_; }

  void update(const pybind11::object& x, std::optional<std::uintptr_t> stream);

  // Drops the tensors that have been read. With the GIL held.
  void give_back();

 private:
  cuda::DeviceRows as_device_rows(const ImportedTensor& tensor) const;

  std::unique_ptr<cuda::DeviceMoments> moments_;
  std::deque<std::pair<cuda::Event, ImportedTensor>> in_flight_;  // guarded by the GIL
};

}  // namespace fastfid::bindings
