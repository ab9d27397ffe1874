// Matrices in host memory, and the functions of matrices that need no algorithm.
//
// All matrices are row-major float64. Work on a whole matrix is cut into strips of rows that do not depend on the
// number of threads, so that the bits of a result depend on the input alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>

#include "core/numbers.hpp"
#include "core/parallel.hpp"

namespace fastfid::linalg {

// The rows of a strip, and the largest number of columns. At d = 2048 products of 192 x 2048 run at 95 % of one full
// dgemm (256 x 256: 76 %) and give 11 independent tasks.
inline constexpr std::size_t kStripRows = 192;
inline constexpr std::size_t kStripColumns = 2048;

// Row-major matrix that owns its memory. Elements are uninitialised after construction.
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) { reshape(rows, cols); }

  // The contents are undefined afterwards. The old memory is kept where it is large enough: fresh pages of a 2048 x
  // 2048 matrix cost the kernel 10 ms to clear.
  void reshape(std::size_t rows, std::size_t cols);

  // Keeps the first `rows` rows as they are, and drops the others.
  void keep_rows(std::size_t rows) { rows_ = rows; }

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  double* data() { return data_.get(); }
  const double* data() const { return data_.get(); }
  double* row(std::size_t i) { return data_.get() + i * cols_; }
  const double* row(std::size_t i) const { return data_.get() + i * cols_; }
  double& operator()(std::size_t i, std::size_t j) { return data_[i * cols_ + j]; }
  double operator()(std::size_t i, std::size_t j) const { return data_[i * cols_ + j]; }

 private:
  struct Free {
    void operator()(double* p) const;
  };
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t capacity_ = 0;  // in elements
  std::unique_ptr<double[], Free> data_;
};

// What is known about the zeros of a factor. The zeros are stored, but products skip blocks of zeros.
enum class Shape { kFull, kUpper };

// body(i) for every row i in [0, n), in parallel by strips of kStripRows.
template <class Body>
void for_each_row(std::size_t n, const Body& body) {
  parallel_for(divide_up(n, kStripRows), [&](std::size_t strip) {
    const std::size_t end = std::min(n, (strip + 1) * kStripRows);
    for (std::size_t i = strip * kStripRows; i < end; ++i) body(i);
  });
}

// fill(row, n_rows, col, n_cols, out, stride) writes the elements of n_rows rows from `row` on and n_cols columns from
// `col` on to `out`, row-major, with rows `stride` apart.
using FillElements = std::function<void(std::size_t, std::size_t, std::size_t, std::size_t, double*, std::size_t)>;

// x[i] := x[i] 2^e, exact except for underflow.
void scale_in_place(double* x, std::size_t n, int e);

// <A, B> = tr(A^T B), and ||A||_F = sqrt(<A, A>).
double inner_product(const Matrix& a, const Matrix& b);
double frobenius_norm(const Matrix& a);

double trace(const Matrix& a);

}  // namespace fastfid::linalg
