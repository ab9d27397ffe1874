// Streaming moments of feature rows on a CUDA device: what core/moments.hpp does on the CPU, for rows that are there
// already. Includes no CUDA header.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "core/moments.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// n rows of d features in device memory, float32, float16 or bfloat16, strides in elements. Does not own.
struct DeviceRows {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t n = 0;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 0;
};

// How products are summed.
//   kFloat64: float64 throughout, on the tensor cores.
//   kFloat32: float32 over 256 rows at a time, these added in float64. For devices whose float64 is a small fraction of
//     their float32. The elements of the covariance are off by up to 4e-7 of its largest (emulated;
//     tests/cuda_cases.py). On Inception features (d = 2048, n > d) such sums moved the FID by less than 1.5e-7 (NumPy
//     model). For n <= d nothing is summed at all (see below).
enum class Arithmetic { kFloat64, kFloat32 };

// What DeviceMoments had seen at one moment, in device memory.
struct DeviceSnapshot {
  std::int64_t n = 0;
  DeviceArray<float> rows;  // (n, row_stride), of which d columns count; only while n <= d, else:
  std::int64_t row_stride = 0;
  DeviceArray<double> mean;        // (d,)
  DeviceArray<double> covariance;  // (d, d), row-major, divisor n - 1
};

// n, mean and covariance of a stream of d-dimensional rows on one device.
//
// Rows are collected into blocks of kBlockRows in device memory (float32; float16 and bfloat16 are exact in it). With
// the mean of the first 256 rows of the stream as shift, a complete block adds to
//   S = sum (x - shift)(x - shift)^T   and   s = sum (x - shift)
// in one pass, in float64, of which only 64 x 64 tiles of the lower triangle are kept; then
//   scatter = S - s s^T / n.
// Cancellation costs a factor 1 + (shift - mean)^2 / variance of relative accuracy: as the m = 256 rows behind the
// shift are of the sample, at most 1 + n / m, and nothing on rows in random order. That holds for moments that were
// merged too, and for those made of a host's moments, where the shift is the mean of all m rows of these. Complete
// blocks of a large aligned update are read from where they are. No temporary is of the size of the input.
//
// Blocks, tiles and the order of summation are fixed: the result is the same, bit for bit, however the rows were split
// into calls, on whichever streams, and on every device of the same arithmetic. While n <= d the rows themselves are
// the result, as in core. Parts that are merged, and moments that go on from a host's with n > d, agree with one pass
// to rounding: their sums were taken in another order, about another shift.
//
// Memory on the device: 4 max(d, kBlockRows) d bytes, and once a block is complete about 4 d^2 bytes (d = 2048: 17 MB
// each). Time: n d^2 flops.
//
// Streams: update() puts its work on the caller's stream, merge() and reset() on one of the object's, and they return;
// the host never waits in them, nor does it read anything back. Calls on different streams are ordered by events.
// Thread-safe: every member locks the object, merge() both.
class DeviceMoments {
 public:
  static constexpr int kBlockRows = 2048;
  static constexpr int kMaxDims = 1 << 14;

  // Throws InvalidArgument unless 1 <= d <= kMaxDims, BackendUnavailable if there is no such device. Tests take smaller
  // blocks; the bits of the result depend on their size.
  DeviceMoments(int d, int device, Arithmetic arithmetic = Arithmetic::kFloat64, int block_rows = kBlockRows);
  // The inverse of to_host(): goes on from `moments`, which nobody may change meanwhile. While n <= d its rows are
  // added as rows, and every later result has the bits of a stream that never left the device; beyond that S and s
  // about the mean, rounded to float32, are made of n, mean and scatter. Waits for the device. On the host 12 d^2 bytes
  // for that long. Throws as the other constructor does; InvalidArgument too if the moments have groups, if their rows
  // are float64 while n <= d, or a mean is beyond float32; NumericalError if mean or scatter overflow.
  DeviceMoments(const Moments& moments, int device, Arithmetic arithmetic = Arithmetic::kFloat64,
                int block_rows = kBlockRows);
  // Orders the end of the memory after the last work on it; waits for nothing.
  ~DeviceMoments();
  DeviceMoments(const DeviceMoments&) = delete;
  DeviceMoments& operator=(const DeviceMoments&) = delete;

  // Adds the rows, which must stay as they are until the stream has passed this point. Throws InvalidArgument for
  // float64 rows, a stream of another device, or more than kMaxRows in all; DeviceError if memory runs out, and then
  // nothing has been added. A NaN or an infinity cannot be seen without waiting: the next member that returns numbers
  // reports it.
  void update(const DeviceRows& rows, Stream stream);

  // Adds what `other` has seen, as if its rows came after those of this object; `other` may be this object, and is not
  // changed. While n <= d the rows are appended. Beyond that, with n', S', s' the other's about its shift',
  //   S += S' + s' delta^T + delta s'^T + n' delta delta^T,   s += s' + n' delta,   delta = shift' - shift,
  // and the rows of its incomplete block are added as by update(). Two threads may merge a into b and b into a. A
  // non-finite row of the other's is reported as update() says, counted after this object's own.
  // Throws InvalidArgument if `other` is on another device, has another d or arithmetic, or if there would be more than
  // kMaxRows in all; DeviceError if memory runs out, and then nothing has been added. Time: d^2 additions, and that of
  // update() for less than a block. Memory: for a merge with itself, a copy of the incomplete block.
  void merge(DeviceMoments& other);

  // Forgets all rows, non-finite ones too, and frees the memory.
  void reset();

  int d() const { return d_; }
  int device() const { return device_; }
  Arithmetic arithmetic() const { return arithmetic_; }
  std::int64_t n() const;

  // Writes covariance (d, d), row-major, exactly symmetric, divisor n - ddof, and mean (d,) to device memory, float64.
  // Does not wait and hence cannot report a non-finite row: expect_finite() does. Does not disturb later updates.
  // Throws InvalidArgument if ddof < 0 or n <= ddof.
  void covariance(std::int64_t ddof, double* covariance, double* mean, Stream stream);

  // Waits for all updates and merges; throws NumericalError, naming the first row with a NaN or an infinity.
  void expect_finite();

  // Waits for all updates and returns them as they are, without a copy to the host; the arrays are the stream's. Does
  // not disturb later updates. Throws as expect_finite() does.
  DeviceSnapshot snapshot(Stream stream);

  // Waits for all updates and returns the same moments on the host: rows while n <= d, else n, mean and scatter. Throws
  // as expect_finite() does. The state of what it returns is that of this object: a constructor above goes on from it,
  // on this device or another.
  std::unique_ptr<Moments> to_host();

 private:
  struct Sums;  // S and s

  std::size_t row_length() const;  // of buffer_, elements: d rounded up to whole pairs of tiles, the rest zeros
  std::int64_t seen() const { return folded_ + pending_; }
  void expect_room(std::int64_t rows, const char* what) const;
  void begin(Stream stream);  // orders what follows on the stream after all that was done before
  void end(Stream stream);
  void allocate(bool with_sums);
  void add(const DeviceRows& rows, bool stays_thin, Stream stream);  // update(), between begin() and end()
  void add_sums(const DeviceMoments& other, Stream stream);          // of which other.folded_ > 0
  void load_rows(const Moments& moments);                            // n <= d
  void load_sums(const Moments& moments);
  void append(const DeviceRows& rows, std::int64_t first, std::int64_t count, Stream stream);
  template <class T>
  void fold(const T* rows, std::int64_t row_stride, std::int64_t count, std::int64_t first_index, const Sums& sums,
            Stream stream);
  void fold_buffer(Stream stream);
  bool can_read_directly(const DeviceRows& rows) const;
  void covariance_locked(double divisor, double* covariance, double* mean, Stream stream);
  void expect_finite_locked();

  const int d_;
  const int device_;
  const Arithmetic arithmetic_;
  const int block_rows_;
  mutable std::mutex mutex_;
  std::int64_t folded_ = 0;   // rows in the sums
  std::int64_t pending_ = 0;  // rows in the buffer; all of them while n <= d
  OwnedStream own_;           // allocations, copies to the host
  Event last_;                // after all work so far
  DeviceArray<float> buffer_;
  DeviceArray<unsigned long long> first_bad_;  // index of the first non-finite row, or all ones
  DeviceArray<float> shift_;
  DeviceArray<double> scatter_;
  DeviceArray<double> sums_;
};

}  // namespace fastfid::cuda
