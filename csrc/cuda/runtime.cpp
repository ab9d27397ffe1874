#include "cuda/runtime.hpp"

#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>

#include "cuda/check.hpp"
#include "host/cuda_driver.hpp"

namespace fastfid::cuda {
namespace {

constexpr int kMinimumMajor = 8;  // cp.async and float64 tensor cores

// The freed memory that the pool of a device keeps. By default CUDA returns all freed memory whenever a stream is
// synchronised, and maps memory again at the next allocation, which takes longer than the kernels in between. A trace
// at d = 2048 needs 0.3 GiB.
constexpr std::uint64_t kKeptBytes = std::uint64_t{1} << 30;

// This library's own pool of the device. The default pool is shared with all other code in the process, so this library
// must not change its settings. The pool is never destroyed, because the driver may be unloaded earlier.
cudaMemPool_t memory_pool(int device) {
  static std::mutex mutex;
  static auto* const pools = new std::map<int, cudaMemPool_t>;
  const std::lock_guard lock(mutex);
  const auto found = pools->find(device);
  if (found != pools->end()) return found->second;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;  // the only kind that exists; it is device memory
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  FASTFID_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
  std::uint64_t kept = kKeptBytes;
  FASTFID_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));
  pools->emplace(device, pool);
  return pool;
}

}  // namespace

void check(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // unless the device is broken, the next call must not report this error again
  // "cudaFunction(arguments)" -> "cudaFunction"
  const std::string name(call, std::strcspn(call, "("));
  throw DeviceError(message(name, " failed: ", cudaGetErrorName(code), " (", cudaGetErrorString(code), ")"));
}

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

void expect_device(int device) {
  int count = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess || count == 0) {
    cudaGetLastError();
    const CudaDriver driver = cuda_driver();
    throw BackendUnavailable(
        message("no CUDA device: ", driver.devices == 0 ? driver.reason : std::string(cudaGetErrorString(code))));
  }
  FASTFID_EXPECT(device >= 0 && device < count, BackendUnavailable, "no CUDA device ", device, ": there are ", count,
                 ", counted from 0");
  int major = 0;
  int minor = 0;
  FASTFID_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  FASTFID_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  FASTFID_EXPECT(major >= kMinimumMajor, BackendUnavailable, "CUDA device ", device, " is of compute capability ",
                 major, ".", minor, "; at least ", kMinimumMajor, ".0 is needed");
}

DeviceProperties device_properties(int device) {
  expect_device(device);
  // Asking CUDA takes up to a millisecond, and a function of this library may ask at every call.
  static std::mutex mutex;
  static auto* const known = new std::map<int, DeviceProperties>;
  const std::lock_guard lock(mutex);
  if (const auto found = known->find(device); found != known->end()) return found->second;
  cudaDeviceProp read{};
  FASTFID_CUDA_CHECK(cudaGetDeviceProperties(&read, device));
  int ratio = 1;
  FASTFID_CUDA_CHECK(cudaDeviceGetAttribute(&ratio, cudaDevAttrSingleToDoublePrecisionPerfRatio, device));
  const DeviceProperties properties{
      read.name, read.major, read.minor, read.multiProcessorCount, static_cast<std::size_t>(read.l2CacheSize), ratio};
  known->emplace(device, properties);
  return properties;
}

DeviceGuard::DeviceGuard(int device) {
  int current = 0;
  FASTFID_CUDA_CHECK(cudaGetDevice(&current));
  if (current == device) return;
  void* const context = primary_cuda_context(device);
  former_ = reinterpret_cast<std::uintptr_t>(current_cuda_context());
  has_changed_ = true;
  set_current_cuda_context(context);
}

DeviceGuard::~DeviceGuard() {
  if (has_changed_) set_current_cuda_context(reinterpret_cast<void*>(former_));
}

DeviceBytes::DeviceBytes(std::size_t bytes, Stream stream) : bytes_(bytes), stream_(stream) {
  if (bytes == 0) return;
  const DeviceGuard guard(stream.device);
  const cudaError_t code = cudaMallocFromPoolAsync(&data_, bytes, memory_pool(stream.device), stream.handle);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw DeviceError(message("CUDA device ", stream.device, " has no memory left for ", bytes, " bytes"));
  }
  check(code, "cudaMallocFromPoolAsync");
}

void DeviceBytes::reset() noexcept {
  if (data_ == nullptr) return;
  try {
    const DeviceGuard guard(stream_.device);
    cudaFreeAsync(data_, stream_.handle);
  } catch (const std::exception&) {
    // An error here comes from earlier work or from the end of the process, and cannot be reported.
  }
  data_ = nullptr;
  bytes_ = 0;
}

PinnedBytes::PinnedBytes(std::size_t bytes) { FASTFID_CUDA_CHECK(cudaMallocHost(&data_, bytes)); }

PinnedBytes::~PinnedBytes() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

OwnedStream::OwnedStream(int device) : stream_{device, nullptr} {
  const DeviceGuard guard(device);
  FASTFID_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_.handle, cudaStreamNonBlocking));
}

OwnedStream::~OwnedStream() {
  if (stream_.handle != nullptr) cudaStreamDestroy(stream_.handle);
}

Event::Event(int device, bool with_timing) : device_(device) {
  const DeviceGuard guard(device);
  FASTFID_CUDA_CHECK(cudaEventCreateWithFlags(&event_, with_timing ? cudaEventDefault : cudaEventDisableTiming));
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

void Event::record(Stream stream) {
  const DeviceGuard guard(device_);  // the default streams are those of the current device
  FASTFID_CUDA_CHECK(cudaEventRecord(event_, stream.handle));
}

void Event::wait_on(Stream stream) const {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaStreamWaitEvent(stream.handle, event_, 0));
}

bool Event::is_done() const {
  const cudaError_t code = cudaEventQuery(event_);
  if (code == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(code, "cudaEventQuery");
  return true;
}

void Event::synchronize() const { FASTFID_CUDA_CHECK(cudaEventSynchronize(event_)); }

double Event::elapsed_ms(const Event& start) const {
  synchronize();
  float milliseconds = 0;
  FASTFID_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event_, event_));
  return static_cast<double>(milliseconds);
}

Graph::Graph(Stream stream, const std::function<void()>& work) : stream_(stream) {
  const DeviceGuard guard(stream.device);
  // Other threads, for example a training loop, may allocate and wait during the capture.
  FASTFID_CUDA_CHECK(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream.handle, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  FASTFID_CUDA_CHECK(cudaStreamEndCapture(stream.handle, &graph));
  const cudaError_t code = cudaGraphInstantiate(&executable_, graph, 0);
  cudaGraphDestroy(graph);
  check(code, "cudaGraphInstantiate");
}

Graph::~Graph() {
  // CUDA frees a running graph when it is done.
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
}

void Graph::launch() const {
  const DeviceGuard guard(stream_.device);
  FASTFID_CUDA_CHECK(cudaGraphLaunch(executable_, stream_.handle));
}

void synchronize(Stream stream) {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaStreamSynchronize(stream.handle));
}

void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream.handle));
}

void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream.handle));
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle));
}

void fill_bytes(void* to, int value, std::size_t bytes, Stream stream) {
  const DeviceGuard guard(stream.device);
  FASTFID_CUDA_CHECK(cudaMemsetAsync(to, value, bytes, stream.handle));
}

}  // namespace fastfid::cuda
