#include "core/matrix.hpp"

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "core/blas.hpp"
#include "core/memory.hpp"
#include "core/strips.hpp"

namespace fastfid::linalg {

void Matrix::reshape(std::size_t rows, std::size_t cols) {
  rows_ = rows;
  cols_ = cols;
  if (rows * cols <= capacity_) return;
  data_.reset();
  capacity_ = 0;
  data_.reset(static_cast<double*>(allocate_large(rows * cols * sizeof(double))));
  capacity_ = rows * cols;
}

void Matrix::Free::operator()(double* p) const { std::free(p); }

void scale_in_place(double* x, std::size_t n, int e) {
  if (e == 0) return;
  // 2^e itself may not be representable, so the scaling takes two steps.
  const double first = std::scalbn(1.0, e / 2);
  const double second = std::scalbn(1.0, e - e / 2);
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] * first * second;
}

double inner_product(const Matrix& a, const Matrix& b) {
  // One partial sum per row: the order of additions does not depend on the number of threads.
  std::vector<double> sums(a.rows());
  parallel_for(strips(a.rows()), [&](std::size_t t) {
    const Range i = strip(t, a.rows());
    for (std::size_t r = i.begin; r < i.end(); ++r) {
      sums[r] = dot(dim(a.cols()), a.row(r), b.row(r));
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double frobenius_norm(const Matrix& a) { return std::sqrt(inner_product(a, a)); }

double trace(const Matrix& a) {
  double sum = 0;
  for (std::size_t i = 0; i < a.rows(); ++i) sum += a(i, i);
  return sum;
}

}  // namespace fastfid::linalg
