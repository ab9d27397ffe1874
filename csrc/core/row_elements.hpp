// Loops over the elements of one row, for every element type and any stride.
//
// A row is processed in stripes of at most kStripe columns. Columns that are contiguous are read in place; other
// columns are gathered into scratch memory. The loops over a stripe are compiled for several instruction sets
// (core/multiversion.hpp).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "core/rows.hpp"

namespace fastfid {

inline constexpr int kStripe = 256;  // columns that one task packs; a block of so many columns fits into the
                                     // second-level cache

using StripeBytes = std::array<std::byte, kStripe * sizeof(double)>;

// The operations on n contiguous elements of one type, at any alignment.
struct Element {
  std::size_t size;
  // out[j] = row[j]
  void (*convert)(const std::byte* row, int n, double* out);
  // sum[j] += row[j] - shift[j]
  void (*add_shifted)(const std::byte* row, const double* shift, int n, double* sum);
  // out[j] = (row[j] - shift[j]) - mean[j]
  void (*centre)(const std::byte* row, const double* shift, const double* mean, int n, double* out);
  // True if one of the elements is NaN or infinity.
  bool (*is_nonfinite)(const std::byte* row, int n);
};

Element element(DType dtype);

template <std::size_t Size>
void gather(const std::byte* from, std::ptrdiff_t stride, int n, std::byte* to) {
  for (int j = 0; j < n; ++j) std::memcpy(to + static_cast<std::size_t>(j) * Size, from + j * stride, Size);
}

// Columns [column, column + n) of one row, n <= kStripe, as contiguous elements: either in place or gathered into
// `scratch`.
inline const std::byte* stripe_of_row(const RowsView& rows, std::size_t size, std::size_t row, int column, int n,
                                      StripeBytes& scratch) {
  const std::byte* const from =
      rows.data + static_cast<std::ptrdiff_t>(row) * rows.row_stride + column * rows.column_stride;
  if (rows.column_stride == static_cast<std::ptrdiff_t>(size)) return from;
  if (size == 2) gather<2>(from, rows.column_stride, n, scratch.data());
  if (size == 4) gather<4>(from, rows.column_stride, n, scratch.data());
  if (size == 8) gather<8>(from, rows.column_stride, n, scratch.data());
  return scratch.data();
}

// Calls f(first column, number of columns) for the stripes of d columns.
template <class F>
void for_each_stripe(int d, F&& f) {
  for (int column = 0; column < d; column += kStripe) f(column, std::min(kStripe, d - column));
}

}  // namespace fastfid
