// Loops over a matrix and its mirror image at once, square by square: one of the two is read or written down its
// columns, and misses the cache unless it is done with before the other moves on.
#pragma once

#include <algorithm>
#include <cstddef>

namespace fastfid {

// f(first row, end of the rows, first column, end of the columns) for the squares into which rows
// [row_begin, row_end) and columns [column_begin, column_end) are cut, row by row. Those at the ends may be smaller.
template <std::size_t kEdge = 32, class F>
void for_each_square(std::size_t row_begin, std::size_t row_end, std::size_t column_begin, std::size_t column_end,
                     F&& f) {
  for (std::size_t r = row_begin; r < row_end; r += kEdge) {
    for (std::size_t c = column_begin; c < column_end; c += kEdge) {
      f(r, std::min(r + kEdge, row_end), c, std::min(c + kEdge, column_end));
    }
  }
}

}  // namespace fastfid
