// Asks the CUDA driver, if there is one, without linking to the driver.
#pragma once

#include <string>

namespace fastfid {

struct CudaDriver {
  int devices = 0;     // usable CUDA devices; 0 where there are none
  std::string reason;  // why devices == 0; empty otherwise
};

// Loads the driver library at run time (dlopen), initialises it and counts the devices. Never throws. The answer holds
// at the time of the call: CUDA_VISIBLE_DEVICES is read when the driver is first initialised in the process.
CudaDriver cuda_driver();

// The driver's name of the device, for example "NVIDIA H100 80GB HBM3"; empty where there is no such device. Never
// throws.
std::string cuda_device_name(int device);

// The CUcontext that is current in this thread, as an opaque address; null where there is no context or no driver.
// Every copy of the CUDA runtime in a process uses this context: it determines the "current device". A function that
// changes the context should restore the former value, even null. No other way both keeps a context of the caller's own
// and creates no context on a device that the caller does not use. cudaSetDevice() would create one there, which takes
// hundreds of megabytes. Neither function throws.
void* current_cuda_context() noexcept;
void set_current_cuda_context(void* context) noexcept;

// The primary context of a device, which the CUDA runtime uses. The context is created where necessary, and kept for
// the life of the process. Throws BackendUnavailable where there is no driver, DeviceError where the context cannot be
// made.
void* primary_cuda_context(int device);

}  // namespace fastfid
