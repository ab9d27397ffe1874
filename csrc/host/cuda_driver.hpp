// Asks the CUDA driver, if there is one, without linking to it.
#pragma once

#include <string>

namespace fastfid {

struct CudaDriver {
  int devices = 0;     // usable CUDA devices; 0 where there are none
  std::string reason;  // why devices == 0; empty otherwise
};

// Loads the driver library at run time (dlopen), initialises it and counts the devices. Never throws. The answer is
// that of the moment: CUDA_VISIBLE_DEVICES counts when the driver is first initialised in the process.
CudaDriver cuda_driver();

// What the driver calls the device, "NVIDIA H100 80GB HBM3"; empty where there is no such device. Never throws.
std::string cuda_device_name(int device);

// The CUcontext that is current in this thread, as an opaque address; null: none, or no driver. Every copy of the CUDA
// runtime in a process goes by it: it is what the "current device" comes to. Putting back what was found, null too, is
// the one way that neither takes a context of the caller's own from him nor creates one on a device that he does not
// use, as cudaSetDevice() does (hundreds of megabytes there). Never throw.
void* current_cuda_context() noexcept;
void set_current_cuda_context(void* context) noexcept;

// The primary context of a device, the one that the CUDA runtime uses; created if need be, and kept for the life of the
// process. Throws BackendUnavailable where there is no driver, DeviceError where the context cannot be made.
void* primary_cuda_context(int device);

}  // namespace fastfid
