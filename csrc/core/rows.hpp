// Feature rows that a caller gives, and feature rows that an object keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fastfid {

// The largest number of rows that an object counts. The sum of two numbers of rows then fits into 64 bits.
inline constexpr std::int64_t kMaxRows = std::int64_t{1} << 62;

enum class DType { kFloat16, kBFloat16, kFloat32, kFloat64 };

// n rows of d features in host memory, any strides (in bytes, also negative or zero), any alignment. A RowsView does
// not own the memory.
struct RowsView {
  const std::byte* data = nullptr;
  DType dtype = DType::kFloat32;
  std::size_t n = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 0;

  // Rows [first, first + count).
  RowsView slice(std::size_t first, std::size_t count) const;
};

// Feature rows that an object keeps. They are stored as float32, and as float64 from the first float64 row on (float16
// and bfloat16 are exact in float32).
class RowBuffer {
 public:
  RowBuffer() = default;
  // The first append reserves memory for `expected` rows (32 MiB at most), so that growth does not copy the rows
  // repeatedly.
  explicit RowBuffer(int d, int expected = 0) : d_(d), expected_(expected) {}

  // Reserves memory for `rows` rows in all, of which some have this type. Appending up to this number cannot fail.
  void reserve(std::size_t rows, DType dtype);
  void append(const RowsView& rows);  // Where memory runs out, no row is appended.
  void clear();                       // Keeps the capacity.

  std::size_t n() const { return n_; }
  bool is_float64() const { return is_float64_; }
  RowsView view() const;

  // (n, d), row-major, moved out of the buffer. is_float64() says which of the two vectors holds the rows; the other is
  // empty.
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

// Throws InvalidArgument, naming the argument, unless every element has an address. Each row has `columns` elements.
void check_reach(const RowsView& rows, std::size_t columns, const char* name);

// Index of the first row with a NaN or an infinity in its d columns; rows.n if there is no such row.
std::size_t first_nonfinite_row(const RowsView& rows, int d);

}  // namespace fastfid
