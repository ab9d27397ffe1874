// The cutting of products and factorisations into tasks; see core/matrix.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/matrix.hpp"
#include "core/numbers.hpp"

namespace fastfid::linalg {

// A dimension in the integer type of BLAS.
inline int dim(std::size_t n) { return static_cast<int>(n); }

// A half-open range of rows or columns.
struct Range {
  std::size_t begin;
  std::size_t size;

  std::size_t end() const { return begin + size; }
};

// Part `index` of n rows or columns, cut into parts of `width`.
inline Range range(std::size_t index, std::size_t n, std::size_t width) {
  return {index * width, std::min(width, n - index * width)};
}

inline std::size_t strips(std::size_t n) { return divide_up(n, kStripRows); }
inline Range strip(std::size_t index, std::size_t n) { return range(index, n, kStripRows); }

// The blocks of an m x n result: strips of rows, cut into `width` columns.
struct Block {
  Range i;
  Range j;
};
inline std::vector<Block> blocks(std::size_t m, std::size_t n, std::size_t width = kStripColumns) {
  std::vector<Block> out;
  for (std::size_t i = 0; i < strips(m); ++i) {
    for (std::size_t j = 0; j < divide_up(n, width); ++j) out.push_back({strip(i, m), range(j, n, width)});
  }
  return out;
}

// The number of columns of a task whose rows end at the diagonal. With this number few zeros are multiplied, and a
// product still runs near its full rate.
inline std::size_t triangular_strip(std::size_t n) { return n <= 2 * kStripRows ? 48 : kStripRows; }

inline double product_flops(std::size_t m, std::size_t n, std::size_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

}  // namespace fastfid::linalg
