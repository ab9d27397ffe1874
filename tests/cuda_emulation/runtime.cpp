// csrc/cuda/runtime.hpp without a device: memory is host memory, and work on a stream is done at once. Fresh memory is
// poisoned, with kGuard more bytes on either side. A write into these bytes stops the test, and a read gives NaN.
#include "cuda/runtime.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/errors.hpp"

namespace fastfid::cuda {

namespace {
int devices = 1;
}  // namespace

// For tests: sets the number of devices. The memory of all devices is this machine's memory.
extern "C" __attribute__((visibility("default"))) void emulated_devices(int count) { devices = count; }

int device_count() noexcept { return devices; }
void expect_device(int device) {
  FASTFID_EXPECT(device >= 0 && device < devices, BackendUnavailable, "no CUDA device ", device, ": there are ",
                 devices, ", counted from 0");
}
DeviceProperties device_properties(int) { return {"emulated", 9, 0, 132, std::size_t{50} << 20}; }

namespace {
thread_local int current_device = -1;  // no device: code that needs a device must set it
}  // namespace

// For tests: the current device that the libraries would find.
extern "C" __attribute__((visibility("default"))) int emulated_current_device() { return current_device; }

DeviceGuard::DeviceGuard(int device) : former_(static_cast<std::uintptr_t>(current_device)) { current_device = device; }
DeviceGuard::~DeviceGuard() { current_device = static_cast<int>(former_); }

constexpr std::size_t kGuard = 4096;

DeviceBytes::DeviceBytes(std::size_t bytes, Stream stream) : bytes_(bytes), stream_(stream) {
  if (bytes == 0) return;
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes + 2 * kGuard) != 0) throw DeviceError("no memory");
  std::memset(memory, 0xff, bytes + 2 * kGuard);
  data_ = static_cast<unsigned char*>(memory) + kGuard;
}
void DeviceBytes::reset() noexcept {
  if (data_ == nullptr) return;
  auto* const begin = static_cast<unsigned char*>(data_) - kGuard;
  for (std::size_t i = 0; i < kGuard; ++i) {
    if (begin[i] != 0xff || begin[kGuard + bytes_ + i] != 0xff) {
      std::fprintf(stderr, "CUDA emulation: a write outside an allocation of %zu bytes\n", bytes_);
      std::abort();
    }
  }
  std::free(begin);
  data_ = nullptr;
  bytes_ = 0;
}

PinnedBytes::PinnedBytes(std::size_t bytes) : data_(std::malloc(bytes)) {}
PinnedBytes::~PinnedBytes() { std::free(data_); }

OwnedStream::OwnedStream(int device) : stream_{device, nullptr} {}
OwnedStream::~OwnedStream() = default;

Event::Event(int device, bool) : device_(device) {}
Event::~Event() = default;
void Event::record(Stream) {}
void Event::wait_on(Stream) const {}
namespace {
bool are_streams_slow = false;
}  // namespace
// For tests: from now on, no work (slow) or all work on the streams seems to be done.
extern "C" __attribute__((visibility("default"))) void emulated_slow_streams(int slow) { are_streams_slow = slow != 0; }
bool Event::is_done() const { return !are_streams_slow; }
void Event::synchronize() const {}
double Event::elapsed_ms(const Event&) const { return 0; }

void synchronize(Stream) {}
void copy_to_device(void* to, const void* from, std::size_t bytes, Stream) { std::memcpy(to, from, bytes); }
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream) { std::memcpy(to, from, bytes); }
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream) { std::memcpy(to, from, bytes); }
void fill_bytes(void* to, int value, std::size_t bytes, Stream) { std::memset(to, value, bytes); }

}  // namespace fastfid::cuda
