// Streaming moments of feature rows on a CUDA device, for rows that are in device memory already; core/moments.hpp is
// the counterpart on the CPU. Includes no CUDA header.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "core/moments.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// n rows of d features in device memory, float32, float16 or bfloat16, strides in elements. DeviceRows does not own the
// memory.
struct DeviceRows {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t n = 0;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 0;
};

// The arithmetic in which products are summed.
//   kFloat64: float64 throughout, on the tensor cores.
//   kFloat32: float32 over 256 rows at a time; the sums of 256 rows are added in float64. For devices whose float64
//     rate is a small fraction of the float32 rate. The elements of the covariance are off by up to 4e-7 of the largest
//     element (emulated; tests/tolerances.py). On Inception features (d = 2048, n > d) float32 sums moved the FID by
//     less than 1.5e-7 (NumPy model). For n <= d no products are summed (see below).
enum class Arithmetic { kFloat64, kFloat32 };

// The rows, or mean and covariance, of a DeviceMoments at one moment, in device memory.
struct DeviceSnapshot {
  std::int64_t n = 0;
  DeviceArray<float> rows;  // (n, row_stride), of which d columns are used; only while n <= d. For n > d:
  std::int64_t row_stride = 0;
  DeviceArray<double> mean;        // (d,)
  DeviceArray<double> covariance;  // (d, d), row-major, divisor n - 1
};

// n, mean and covariance of a stream of d-dimensional rows on one device.
//
// Rows are collected into blocks of kBlockRows in device memory (as float32; float16 and bfloat16 are exact in
// float32). The shift is the mean of the first 256 rows of the stream. A complete block adds to
//   S = sum (x - shift)(x - shift)^T   and   s = sum (x - shift)
// in one pass, in float64. Only the 64 x 64 tiles of the lower triangle of S are kept. Then
//   scatter = S - s s^T / n.
// Cancellation costs a factor 1 + (shift - mean)^2 / variance of relative accuracy. The m = 256 rows behind the shift
// belong to the sample, so the factor is at most 1 + n / m, and cancellation costs nothing on rows in random order. The
// bound also holds for merged moments, and for moments made from moments of the host, where the shift is the mean of
// all m rows of the host's moments. Complete blocks of a large aligned update are read where they are. No temporary
// array has the size of the input.
//
// Blocks, tiles and the order of summation are fixed. The result is therefore the same, bit for bit, for every split of
// the rows into calls, for any streams, and on every device with the same arithmetic. While n <= d the rows themselves
// are the result, as in core/moments.hpp. Merged moments, and moments that continue moments of the host with n > d,
// agree with one pass to rounding: their sums were taken in another order and about another shift.
//
// Memory on the device: 4 max(d, kBlockRows) d bytes, and once a block is complete about 4 d^2 bytes (d = 2048: 17 MB
// each). Time: n d^2 flops.
//
// Streams: update() enqueues its work on the caller's stream, merge() and reset() on a stream of the object. In these
// three functions the host neither waits nor reads anything back. Calls on different streams are ordered by events.
// Thread-safe: every member locks the object; merge() locks both objects.
class DeviceMoments {
 public:
  static constexpr int kBlockRows = 2048;
  static constexpr int kMaxDims = 1 << 14;

  // Throws InvalidArgument unless 1 <= d <= kMaxDims, BackendUnavailable if there is no such device. Tests use smaller
  // blocks. The bits of the result depend on the size of the blocks.
  DeviceMoments(int d, int device, Arithmetic arithmetic = Arithmetic::kFloat64, int block_rows = kBlockRows);
  // The inverse of to_host(): continues `moments`, which no thread may change during the call. While n <= d the rows of
  // `moments` are added as rows, and every later result has the bits of a stream that never left the device. For n > d,
  // S and s about the mean, rounded to float32, are computed from n, mean and scatter. Waits for the device. Needs 12
  // d^2 bytes on the host during the call. Throws as the other constructor does. Also throws InvalidArgument if the
  // rows are float64 while n <= d, or if a mean is beyond float32, and NumericalError if mean or scatter overflow.
  DeviceMoments(const Moments& moments, int device, Arithmetic arithmetic = Arithmetic::kFloat64,
                int block_rows = kBlockRows);
  // Frees the memory in stream order, after the last work on it. Does not wait.
  ~DeviceMoments();
  DeviceMoments(const DeviceMoments&) = delete;
  DeviceMoments& operator=(const DeviceMoments&) = delete;

  // Adds the rows, which must stay unchanged until the stream has passed this point. Throws InvalidArgument for float64
  // rows, a stream of another device, or more than kMaxRows in all. Throws DeviceError if memory runs out; then no row
  // has been added. A NaN or an infinity cannot be seen without waiting, and is reported by the next member that
  // returns numbers.
  void update(const DeviceRows& rows, Stream stream);

  // Adds the rows that `other` has seen, as if they came after the rows of this object. `other` may be this object;
  // otherwise `other` is not changed. While n <= d the rows are appended. For n > d, let n', S', s' be the sums of
  // `other` about its shift'. Then
  //   S += S' + s' delta^T + delta s'^T + n' delta delta^T,   s += s' + n' delta,   delta = shift' - shift,
  // and the rows of the incomplete block of `other` are added as by update(). Two threads may merge a into b and b into
  // a at the same time. A non-finite row of `other` is reported as update() says; its index counts after the rows of
  // this object.
  // Throws InvalidArgument if `other` is on another device, has another d or arithmetic, or if there would be more than
  // kMaxRows in all. Throws DeviceError if memory runs out; then no row has been added. Time: d^2 additions, and the
  // time of update() for less than a block. Memory: for a merge with itself, a copy of the incomplete block.
  void merge(DeviceMoments& other);

  // Forgets all rows, including non-finite rows, and frees the memory.
  void reset();

  int d() const { return d_; }
  int device() const { return device_; }
  Arithmetic arithmetic() const { return arithmetic_; }
  std::int64_t n() const;

  // Writes covariance (d, d), row-major, exactly symmetric, divisor n - ddof, and mean (d,) to device memory, float64.
  // Does not wait, and hence cannot report a non-finite row; expect_finite() reports it. Does not disturb later
  // updates. Throws InvalidArgument if ddof < 0 or n <= ddof.
  void covariance(std::int64_t ddof, double* covariance, double* mean, Stream stream);

  // Waits for all updates and merges; throws NumericalError, naming the first row with a NaN or an infinity.
  void expect_finite();

  // Waits for all updates and returns the moments without a copy to the host. The arrays belong to `stream`. Does not
  // disturb later updates. Throws as expect_finite() does.
  DeviceSnapshot snapshot(Stream stream);

  // Waits for all updates and returns these moments on the host: the rows while n <= d, and otherwise n, mean and
  // scatter. Throws as expect_finite() does. The state of the result is the state of this object: a constructor above
  // continues from it, on this device or another.
  std::unique_ptr<Moments> to_host();

 private:
  struct Sums;  // S and s

  std::size_t row_length() const;  // of buffer_, in elements: d rounded up to whole pairs of tiles; the rest is zeros
  std::int64_t seen() const { return folded_ + pending_; }
  void expect_room(std::int64_t rows, const char* what) const;
  void begin(Stream stream);  // orders later work on the stream after all earlier work
  void end(Stream stream);
  void allocate(bool with_sums);
  void add(const DeviceRows& rows, bool stays_thin, Stream stream);  // update(), between begin() and end()
  void add_sums(const DeviceMoments& other, Stream stream);          // precondition: other.folded_ > 0
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
