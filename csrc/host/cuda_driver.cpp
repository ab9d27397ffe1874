#include "host/cuda_driver.hpp"

#include <dlfcn.h>

#include <array>
#include <map>
#include <mutex>

#include "core/errors.hpp"

namespace fastfid {
namespace {

// Null where there is no driver. The handle stays open, because the driver must not be unloaded.
void* driver_library() {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return library;
}

// Null where the driver, or the symbol in it, is missing. CUresult and CUdevice are int in its prototypes.
template <class Function>
Function* driver_function(const char* symbol) {
  void* const library = driver_library();
  return library == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(library, symbol));
}

}  // namespace

void* current_cuda_context() noexcept {
  static auto* const get = driver_function<int(void**)>("cuCtxGetCurrent");
  void* context = nullptr;
  // The call fails before cuInit(); then there is no context.
  return get != nullptr && get(&context) == 0 ? context : nullptr;
}

void set_current_cuda_context(void* context) noexcept {
  static auto* const set = driver_function<int(void*)>("cuCtxSetCurrent");
  if (set != nullptr) set(context);  // an error here comes from earlier work and cannot be reported
}

void* primary_cuda_context(int device) {
  static std::mutex mutex;
  static auto* const retained = new std::map<int, void*>;  // never destroyed: the driver may be unloaded earlier
  const std::lock_guard lock(mutex);
  if (const auto found = retained->find(device); found != retained->end()) return found->second;
  const auto get = driver_function<int(int*, int)>("cuDeviceGet");
  const auto retain = driver_function<int(void**, int)>("cuDevicePrimaryCtxRetain");
  const CudaDriver driver = cuda_driver();  // initialises the driver
  FASTFID_EXPECT(driver.devices > 0 && get != nullptr && retain != nullptr, BackendUnavailable,
                 "no CUDA device: ", driver.devices > 0 ? "libcuda.so.1 is not an NVIDIA driver" : driver.reason);
  int handle = 0;
  void* context = nullptr;
  int code = get(&handle, device);
  if (code == 0) code = retain(&context, handle);
  FASTFID_EXPECT(code == 0, DeviceError, "CUDA device ", device, " cannot be used: CUDA error ", code);
  retained->emplace(device, context);
  return context;
}

CudaDriver cuda_driver() {
  void* const library = driver_library();
  if (library == nullptr) return {0, "no NVIDIA driver (libcuda.so.1) was found"};
  const auto init = driver_function<int(unsigned)>("cuInit");
  const auto count = driver_function<int(int*)>("cuDeviceGetCount");
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
  const auto get = driver_function<int(int*, int)>("cuDeviceGet");
  const auto name = driver_function<int(char*, int, int)>("cuDeviceGetName");
  int handle = 0;
  if (get == nullptr || name == nullptr || get(&handle, device) != 0) return "";
  std::array<char, 256> text{};
  return name(text.data(), static_cast<int>(text.size()) - 1, handle) == 0 ? std::string(text.data()) : "";
}

}  // namespace fastfid
