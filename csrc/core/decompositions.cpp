#include "core/decompositions.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "core/band.hpp"
#include "core/blas.hpp"
#include "core/strips.hpp"

namespace fastfid::linalg {
namespace {

// The columns of a task of the Cholesky factorisation.
constexpr std::size_t kCholeskyColumns = 512;

}  // namespace

bool cholesky(Matrix& a) {
  const std::size_t n = a.rows();
  // For each strip: subtract the contributions of the strips above, factor the square on the diagonal, and compute the
  // rest of the strip with this factor.
  for (std::size_t index = 0; index < strips(n); ++index) {
    const Range i = strip(index, n);
    const auto columns = [&](std::size_t task) {
      Range j = range(task, n - i.end(), kCholeskyColumns);
      j.begin += i.end();
      return j;
    };
    const std::size_t tasks = divide_up(n - i.end(), kCholeskyColumns);
    if (i.begin > 0) {
      parallel_for(tasks + 1, [&](std::size_t task) {
        if (task == tasks) {
          syrk(Transpose::kYes, dim(i.size), dim(i.begin), -1.0, a.data() + i.begin, dim(n), 1.0,
               a.row(i.begin) + i.begin, dim(n), Triangle::kUpper);
        } else {
          const Range j = columns(task);
          gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(i.begin), -1.0, a.data() + i.begin,
               dim(n), a.data() + j.begin, dim(n), 1.0, a.row(i.begin) + j.begin, dim(n));
        }
      });
    }
    double* const square = a.row(i.begin) + i.begin;
    if (!potrf(dim(i.size), square, dim(n))) return false;
    for (std::size_t r = i.begin; r < i.end(); ++r) {
      if (!(a(r, r) > 0)) return false;  // dpotrf lets a NaN pivot pass
      std::fill_n(a.row(r), r, 0.0);
    }
    parallel_for(tasks, [&](std::size_t task) {
      const Range j = columns(task);
      trsm(Side::kLeft, Transpose::kYes, dim(i.size), dim(j.size), square, dim(n), a.row(i.begin) + j.begin, dim(n));
    });
  }
  return true;
}

Matrix pivoted_cholesky(Matrix& s, double tol) {
  const std::size_t n = s.rows();
  std::vector<int> pivots(n);
  std::vector<double> work(2 * n);
  const int rank = pstrf(dim(n), s.data(), tol, pivots.data(), work.data());
  Matrix f(static_cast<std::size_t>(rank), n);
  for (std::size_t i = 0; i < f.rows(); ++i) {
    for (std::size_t j = 0; j < n; ++j) f(i, static_cast<std::size_t>(pivots[j] - 1)) = j < i ? 0.0 : s(i, j);
  }
  return f;
}

Matrix triangular_factor(Matrix& a) {
  const std::size_t n = a.cols();
  std::vector<double> tau(n);
  gelqf(dim(a.rows()), dim(n), a.data(), tau.data());
  Matrix r(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    std::fill_n(r.row(i), i, 0.0);
    std::copy_n(a.row(i) + i, n - i, r.row(i) + i);
  }
  return r;
}

double solve_right(const Matrix& r, Matrix& b) {
  const std::size_t n = r.rows();
  parallel_for(strips(b.rows()), [&](std::size_t t) {
    const Range i = strip(t, b.rows());
    trsm(Side::kRight, Transpose::kNo, dim(i.size), dim(n), r.data(), dim(n), b.row(i.begin), dim(n));
  });
  return product_flops(b.rows(), n, n) / 2;
}

Matrix inverse_of_upper(const Matrix& r, double& flops) {
  const std::size_t n = r.rows();
  Matrix y(n, n);
  for_each_row(n, [&](std::size_t i) {
    std::fill_n(y.row(i), n, 0.0);
    y(i, i) = 1;
  });
  const std::size_t width = triangular_strip(n);
  std::vector<double> spent(divide_up(n, width));
  parallel_for(spent.size(), [&](std::size_t task) {
    const std::size_t index = spent.size() - 1 - task;  // the longest first
    const Range j = range(index, n, width);
    trsm(Side::kLeft, Transpose::kNo, dim(j.end()), dim(j.size), r.data(), dim(n), y.data() + j.begin, dim(n));
    spent[index] = product_flops(j.end(), j.end(), j.size) / 2;
  });
  flops += std::accumulate(spent.begin(), spent.end(), 0.0);
  return y;
}

std::vector<double> symmetric_eigenvalues(Matrix& a) {
  const std::size_t n = a.rows();
  if (n >= kMinBandSize) return symmetric_eigenvalues(reduce_to_band(a));
  std::vector<double> values(n);
  syevd(false, dim(n), a.data(), values.data());
  return values;
}

std::vector<double> symmetric_eigenvectors(Matrix& a) {
  std::vector<double> values(a.rows());
  syevd(true, dim(a.rows()), a.data(), values.data());
  return values;
}

std::vector<double> singular_values(Matrix& a) {
  std::vector<double> values(std::min(a.rows(), a.cols()));
  if (values.empty()) return values;
  gesdd(dim(a.rows()), dim(a.cols()), a.data(), values.data());
  return values;
}

}  // namespace fastfid::linalg
