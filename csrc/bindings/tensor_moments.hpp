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

// The moments, and the tensors that the device may not have read yet. The tensors are kept until the device has read
// them: a library that does not know the stream might use their memory for other data.
class TensorMoments {
 public:
  TensorMoments(int d, int device, cuda::Arithmetic arithmetic)
      : moments_(std::make_unique<cuda::DeviceMoments>(d, device, arithmetic)) {}
  TensorMoments(const Moments& moments, int device)
      : moments_(std::make_unique<cuda::DeviceMoments>(moments, device)) {}
  // Waits, without the GIL, until the device has read all tensors.
  ~TensorMoments();

  cuda::DeviceMoments& get() { return *moments_; }

  void update(const pybind11::object& x, std::optional<std::uintptr_t> stream);

  // Drops the tensors that the device has read. Must be called with the GIL held.
  void give_back();

 private:
  cuda::DeviceRows as_device_rows(const ImportedTensor& tensor) const;

  std::unique_ptr<cuda::DeviceMoments> moments_;
  std::deque<std::pair<cuda::Event, ImportedTensor>> in_flight_;  // guarded by the GIL
};

}  // namespace fastfid::bindings
