// Feature rows as callers give them, and rows that are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fastfid {

// The most rows that anything here counts: sums of two numbers of rows fit into 64 bits.
inline constexpr std::int64_t kMaxRows = std::int64_t{1} << 62;

enum class DType { kFloat16, kBFloat16, kFloat32, kFloat64 };

// n rows of d features in host memory, any strides (in bytes, also negative or zero), any alignment. Does not own.
struct RowsView {
  const std::byte* data = nullptr;
  DType dtype = DType::kFloat32;
  std::size_t n = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 0;

  // Rows [first, first + count).
  RowsView slice(std::size_t first, std::size_t count) const;
};

// Rows that are kept: float32, or float64 from the first float64 row on (float16 and bfloat16 are exact in float32).
class RowBuffer {
 public:
  RowBuffer() = default;
  // `expected` rows are reserved by the first append (32 MiB at most), lest growing copies them again and again.
  explicit RowBuffer(int d, int expected = 0) : d_(d), expected_(expected) {}

  // Makes room for `rows` rows of which some are of this type: appending up to there cannot fail.
  void reserve(std::size_t rows, DType dtype);
  void append(const RowsView& rows);  // All or nothing, should memory run out.
  void clear();                       // Keeps the capacity.

  std::size_t n() const { return n_; }
  bool is_float64() const { return is_float64_; }
  RowsView view() const;

  // (n, d), row-major, moved out: the one that is_float64() says holds the rows, the other is empty.
  std::vector<float> take_float32() && { return std::move(float32_); }
  std::vector<double> take_float64() && { return std::move(float64_); }

 private:
  int d_ = 0;
  int expected_ = 0;
  std::size_t n_ = 0;
  bool is_float64_ = false;
  std::vector<float> float32_;
  std::vector<double> float64_;
};

// Throws InvalidArgument, naming the argument, unless there is an address for every element; `columns` of each row.
void check_reach(const RowsView& rows, std::size_t columns, const char* name);

// Index of the first row with a NaN or an infinity in its d columns, or rows.n.
std::size_t first_nonfinite_row(const RowsView& rows, int d);

}  // namespace fastfid
