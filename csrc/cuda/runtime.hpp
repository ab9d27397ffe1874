// The parts of the CUDA runtime that every file of csrc/cuda needs, as C++ objects. Includes no CUDA header, so that
// the bindings may include this file. The check macro, for files that include CUDA's headers, is in check.hpp.
//
// Nothing here waits for the device unless its comment says so. Every function that needs a device throws
// BackendUnavailable where there is no device, and DeviceError, with the name of the CUDA error and of the call, where
// a call fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

struct CUstream_st;  // CUDA's own types behind cudaStream_t and cudaEvent_t
struct CUevent_st;
struct CUgraphExec_st;

namespace fastfid::cuda {

// A stream of the caller on one device. Stream does not own the handle, which is a cudaStream_t. The handle may be one
// of the two streams that are numbers in CUDA: legacy default (1) and per-thread default (2).
struct Stream {
  int device = 0;
  CUstream_st* handle = nullptr;
};

// Facts about one device, read once.
struct DeviceProperties {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::size_t l2_bytes = 0;
  int float32_per_float64 = 1;  // ratio of the rates of plain arithmetic: 2 on A100 and H100, 32 or 64 on workstations
};

// Number of devices; 0 where there is no driver. Never throws.
int device_count() noexcept;

// Throws BackendUnavailable, with the reason, unless 0 <= device < device_count() and the device is of compute
// capability 8.0 or newer.
void expect_device(int device);

// Throws as expect_device() does.
DeviceProperties device_properties(int device);

// Makes `device` the current device of this thread. The destructor restores what was current before: another device, a
// context of the caller, or none (host/cuda_driver.hpp).
class DeviceGuard {
 public:
  // Throws DeviceError where the device cannot be used.
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  bool has_changed_ = false;   // false: the device was current already
  std::uintptr_t former_ = 0;  // the former context
};

// Device memory that is allocated and freed in the order of a stream, from a pool of this library, which keeps up to 1
// GiB of freed memory. Neither allocation nor freeing waits for the device.
// Before the memory is freed (destructor, reset), set_stream() must name the stream of its last use. The default is the
// stream of the allocation. Movable. The memory is not initialised.
class DeviceBytes {
 public:
  DeviceBytes() = default;
  // Throws DeviceError with the number of bytes if there is not enough memory.
  DeviceBytes(std::size_t bytes, Stream stream);
  ~DeviceBytes() { reset(); }
  DeviceBytes(DeviceBytes&& other) noexcept { swap(other); }
  DeviceBytes& operator=(DeviceBytes&& other) noexcept {
    DeviceBytes(std::move(other)).swap(*this);
    return *this;
  }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  bool is_empty() const { return data_ == nullptr; }
  // All later work on the memory, freeing included, is ordered by this stream.
  void set_stream(Stream stream) { stream_ = stream; }
  void reset() noexcept;

 private:
  void swap(DeviceBytes& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(stream_, other.stream_);
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Stream stream_;
};

// An array of `size()` elements of T in device memory; see DeviceBytes.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(std::size_t size, Stream stream) : bytes_(size * sizeof(T), stream), size_(size) {}

  T* data() const { return static_cast<T*>(bytes_.data()); }
  std::size_t size() const { return size_; }
  bool is_empty() const { return bytes_.is_empty(); }
  void set_stream(Stream stream) { bytes_.set_stream(stream); }
  void reset() noexcept {
    bytes_.reset();
    size_ = 0;
  }

 private:
  DeviceBytes bytes_;
  std::size_t size_ = 0;
};

// Page-locked host memory, which the device copies to and from directly. Allocation is slow; objects should be kept.
class PinnedBytes {
 public:
  PinnedBytes() = default;
  explicit PinnedBytes(std::size_t bytes);
  ~PinnedBytes();
  PinnedBytes(PinnedBytes&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PinnedBytes& operator=(PinnedBytes&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// A stream that this object owns, independent of the default stream. The destructor does not wait: CUDA releases the
// stream once its work is done.
class OwnedStream {
 public:
  explicit OwnedStream(int device);
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;

  Stream get() const { return stream_; }

 private:
  Stream stream_;
};

// A point in a stream. Movable. elapsed_ms() needs events with timing.
class Event {
 public:
  explicit Event(int device, bool with_timing = false);
  ~Event();
  Event(Event&& other) noexcept : device_(other.device_), event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(event_, other.event_);
    return *this;
  }

  void record(Stream stream);
  // Later work on `stream` waits for the point that was recorded last. The host does not wait.
  void wait_on(Stream stream) const;
  // True if all work before the recorded point is done. Does not wait.
  bool is_done() const;
  void synchronize() const;  // waits
  // Milliseconds from `start` to this point. Waits for this point.
  double elapsed_ms(const Event& start) const;

 private:
  int device_ = 0;
  CUevent_st* event_ = nullptr;
};

// A recording of the work that a piece of code enqueues on a stream; one call enqueues all of it again. Movable.
class Graph {
 public:
  // Calls `work` and records the work that it enqueues on the stream from this thread; this work is not executed. The
  // recording holds addresses, not the contents of memory. Operations that cannot be recorded (waiting, allocating)
  // fail when `work` calls them. Throws DeviceError, and whatever `work` throws; the stream then is as before.
  Graph(Stream stream, const std::function<void()>& work);
  ~Graph();
  Graph(Graph&& other) noexcept : stream_(other.stream_), executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(executable_, other.executable_);
    return *this;
  }

  // Enqueues all recorded work on the stream. Does not wait.
  void launch() const;

 private:
  Stream stream_;
  CUgraphExec_st* executable_ = nullptr;
};

// Waits until all work on the stream is done.
void synchronize(Stream stream);

// Asynchronous copies and fill, in bytes. A copy from or to pageable host memory may wait.
void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream);
void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream);
void fill_bytes(void* to, int value, std::size_t bytes, Stream stream);

}  // namespace fastfid::cuda
