#include "core/device.hpp"

#include <dlfcn.h>

namespace fastfid {

CudaDriver cuda_driver() {
  // The handle stays open: the driver does not survive being unloaded.
  static void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {0, "no NVIDIA driver (libcuda.so.1) was found"};
  // Prototypes of the driver API, CUresult and CUdevice being int there: cuInit(unsigned), cuDeviceGetCount(int*).
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(library, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDeviceGetCount"));
  if (init == nullptr || count == nullptr) return {0, "libcuda.so.1 is not an NVIDIA driver: cuInit is missing"};
  if (const int code = init(0); code != 0) return {0, "cuInit failed with CUDA error " + std::to_string(code)};
  int devices = 0;
  if (const int code = count(&devices); code != 0) {
    return {0, "cuDeviceGetCount failed with CUDA error " + std::to_string(code)};
  }
  if (devices == 0) return {0, "the NVIDIA driver reports no device"};
  return {devices, ""};
}

}  // namespace fastfid
