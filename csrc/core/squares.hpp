// Loops over a matrix and its mirror image at once, square by square. One of the two is read or written along its
// columns. Small squares keep the columns in the cache until all their elements have been used.
#pragma once

#include <algorithm>
#include <cstddef>

namespace fastfid {

// Rows [row, row_end) and columns [column, column_end).
struct Square {
  std::size_t row;
  std::size_t row_end;
  std::size_t column;
  std::size_t column_end;
};

// Calls f(square) for the squares into which `whole` is cut, row by row. Squares at the ends may be smaller.
template <std::size_t kEdge = 32, class F>
void for_each_square(const Square& whole, F&& f) {
  for (std::size_t r = whole.row; r < whole.row_end; r += kEdge) {
    for (std::size_t c = whole.column; c < whole.column_end; c += kEdge) {
      f(Square{r, std::min(r + kEdge, whole.row_end), c, std::min(c + kEdge, whole.column_end)});
    }
  }
}

}  // namespace fastfid
