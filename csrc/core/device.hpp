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

}  // namespace fastfid
