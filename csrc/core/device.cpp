#include "core/device.hpp"

#include <dlfcn.h>

#include <array>

namespace fastfid {
namespace {

void* driver_library() {
  // The handle stays open: the driver does not survive being unloaded.
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return library;
}

}  // namespace

CudaDriver cuda_driver() {
  void* const library = driver_library();
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

std::string cuda_device_name(int device) {
  if (device < 0 || device >= cuda_driver().devices) return "";
  // cuDeviceGet(CUdevice*, int), cuDeviceGetName(char*, int, CUdevice); CUdevice is int.
  const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver_library(), "cuDeviceGet"));
  const auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver_library(), "cuDeviceGetName"));
  int handle = 0;
  if (get == nullptr || name == nullptr || get(&handle, device) != 0) return "";
  std::array<char, 256> text{};
  return name(text.data(), static_cast<int>(text.size()) - 1, handle) == 0 ? std::string(text.data()) : "";
}

}  // namespace fastfid
