#include "core/linalg.hpp"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/errors.hpp"
#include "core/parallel.hpp"

namespace fastfid::linalg {
namespace {

// Every wrapper calls this first. The setting belongs to our own copy of OpenBLAS (its own SONAME): NumPy's and SciPy's
// copies keep their threads, and nobody else can undo it.
void ensure_single_threaded() {
  [[maybe_unused]] static const bool once = [] {
    scipy_openblas_set_num_threads(1);
    return true;
  }();
}

CBLAS_TRANSPOSE cblas(Transpose trans) { return trans == Transpose::kYes ? CblasTrans : CblasNoTrans; }

int dim(std::size_t n) { return static_cast<int>(n); }

// The half-open range of rows or columns that tile t of n covers.
struct Range {
  std::size_t begin;
  std::size_t size;
};
std::size_t tiles(std::size_t n) { return (n + kTile - 1) / kTile; }
Range tile(std::size_t t, std::size_t n) { return {t * kTile, std::min(kTile, n - t * kTile)}; }

// The pairs (i, j), i >= j, of `count` tiles.
struct Pair {
  std::size_t i;
  std::size_t j;
};
std::vector<Pair> lower_pairs(std::size_t count) {
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j <= i; ++j) pairs.push_back({i, j});
  }
  return pairs;
}

double product_flops(std::size_t m, std::size_t n, std::size_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// Copies the tile (i, j) below the diagonal to its mirror image, or completes a diagonal tile.
void mirror_tile(Matrix& c, Pair p) {
  const Range rows = tile(p.i, c.rows());
  const Range cols = tile(p.j, c.rows());
  for (std::size_t i = rows.begin; i < rows.begin + rows.size; ++i) {
    for (std::size_t j = cols.begin; j < std::min(i, cols.begin + cols.size); ++j) c(j, i) = c(i, j);
  }
}

void check_lapack(const char* routine, lapack_int info) {
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's ", routine, " refused its argument ", -info);
  FASTFID_EXPECT(info == 0, NumericalError, "LAPACK's ", routine, " did not converge (info ", info, ")");
}

}  // namespace

std::string blas_description() {
  return std::string(scipy_openblas_get_config()) + ", running " + scipy_openblas_get_corename();
}

void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle) {
  ensure_single_threaded();
  scipy_cblas_dsyrk(CblasRowMajor, triangle == Triangle::kLower ? CblasLower : CblasUpper, cblas(trans), n, k, alpha, a,
                    lda, beta, c, ldc);
}

void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_dgemm(CblasRowMajor, cblas(trans_a), cblas(trans_b), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c) {
  const std::size_t m = a.rows();
  const std::size_t n = b.rows();
  const std::size_t k = a.cols();
  c = Matrix(m, n);
  // The first column of row tile t that can be non-zero.
  const auto first = [](Shape shape, std::size_t t) { return shape == Shape::kUpper ? t * kTile : 0; };
  const std::size_t cols = tiles(n);
  const std::size_t count = tiles(m) * cols;
  const auto start = [&](std::size_t task) {
    return std::max(first(shape_a, task / cols), first(shape_b, task % cols));
  };
  parallel_for(count, [&](std::size_t task) {
    const Range i = tile(task / cols, m);
    const Range j = tile(task % cols, n);
    const std::size_t s = start(task);
    gemm(Transpose::kNo, Transpose::kYes, dim(i.size), dim(j.size), dim(k - s), 1.0, a.row(i.begin) + s, dim(k),
         b.row(j.begin) + s, dim(k), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  double flops = 0;
  for (std::size_t task = 0; task < count; ++task) {
    flops += product_flops(tile(task / cols, m).size, tile(task % cols, n).size, k - start(task));
  }
  return flops;
}

double multiply(const Matrix& a, const Matrix& b, Matrix& c) {
  const std::size_t m = a.rows();
  const std::size_t n = b.cols();
  const std::size_t k = a.cols();
  c = Matrix(m, n);
  const std::size_t cols = tiles(n);
  parallel_for(tiles(m) * cols, [&](std::size_t task) {
    const Range i = tile(task / cols, m);
    const Range j = tile(task % cols, n);
    gemm(Transpose::kNo, Transpose::kNo, dim(i.size), dim(j.size), dim(k), 1.0, a.row(i.begin), dim(k),
         b.data() + j.begin, dim(n), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  return product_flops(m, n, k);
}

double multiply_tn(const Matrix& a, const Matrix& b, Matrix& c) {
  const std::size_t m = a.cols();
  const std::size_t n = b.cols();
  const std::size_t k = a.rows();
  c = Matrix(m, n);
  const std::size_t cols = tiles(n);
  parallel_for(tiles(m) * cols, [&](std::size_t task) {
    const Range i = tile(task / cols, m);
    const Range j = tile(task % cols, n);
    gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(k), 1.0, a.data() + i.begin, dim(m),
         b.data() + j.begin, dim(n), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  return product_flops(m, n, k);
}

double gram(const Matrix& a, Matrix& c) {
  const std::size_t n = a.cols();
  const std::size_t k = a.rows();
  c = Matrix(n, n);
  const auto pairs = lower_pairs(tiles(n));
  parallel_for(pairs.size(), [&](std::size_t task) {
    const Pair p = pairs[task];
    const Range i = tile(p.i, n);
    const Range j = tile(p.j, n);
    double* out = c.row(i.begin) + j.begin;
    if (p.i == p.j) {
      syrk(Transpose::kYes, dim(i.size), dim(k), 1.0, a.data() + i.begin, dim(n), 0.0, out, dim(n));
    } else {
      gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(k), 1.0, a.data() + i.begin, dim(n),
           a.data() + j.begin, dim(n), 0.0, out, dim(n));
    }
    mirror_tile(c, p);
  });
  return product_flops(n, n, k) / 2;
}

double residual(const double* s, const Matrix& f, Shape shape, Matrix& e) {
  const std::size_t n = f.cols();
  e = Matrix(n, n);
  const auto pairs = lower_pairs(tiles(n));
  // Column tile t of an upper-triangular F ends at row end(t).
  const auto end = [&](std::size_t t) {
    return shape == Shape::kUpper ? std::min(f.rows(), (t + 1) * kTile) : f.rows();
  };
  parallel_for(pairs.size(), [&](std::size_t task) {
    const Pair p = pairs[task];
    const Range i = tile(p.i, n);
    const Range j = tile(p.j, n);
    for (std::size_t r = i.begin; r < i.begin + i.size; ++r) std::copy_n(s + r * n + j.begin, j.size, &e(r, j.begin));
    gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(end(p.j)), -1.0, f.data() + i.begin, dim(n),
         f.data() + j.begin, dim(n), 1.0, e.row(i.begin) + j.begin, dim(n));
    mirror_tile(e, p);
  });
  double flops = 0;
  for (const Pair p : pairs) flops += product_flops(tile(p.i, n).size, tile(p.j, n).size, end(p.j));
  return flops;
}

// LAPACK is column-major: it sees the transpose of our matrices, and our upper triangle as its lower one.
bool cholesky(Matrix& a) {
  ensure_single_threaded();
  const std::size_t n = a.rows();
  const lapack_int info = scipy_LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', dim(n), a.data(), dim(n));
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's dpotrf refused its argument ", -info);
  if (info > 0) return false;
  for (std::size_t i = 0; i < n; ++i) {
    if (!(a(i, i) > 0)) return false;  // dpotrf lets a NaN pivot pass
    std::fill_n(a.row(i), i, 0.0);
  }
  return true;
}

Matrix pivoted_cholesky(Matrix& s, double tol) {
  ensure_single_threaded();
  const std::size_t n = s.rows();
  std::vector<lapack_int> pivots(n);
  std::vector<double> work(2 * n);
  lapack_int rank = 0;
  const lapack_int info = scipy_LAPACKE_dpstrf_work(LAPACK_COL_MAJOR, 'L', dim(n), s.data(), dim(n), pivots.data(),
                                                    &rank, tol, work.data());
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's dpstrf refused its argument ", -info);
  Matrix f(static_cast<std::size_t>(rank), n);
  for (std::size_t i = 0; i < f.rows(); ++i) {
    for (std::size_t j = 0; j < n; ++j) f(i, static_cast<std::size_t>(pivots[j] - 1)) = j < i ? 0.0 : s(i, j);
  }
  return f;
}

double solve_right(const Matrix& r, Matrix& b) {
  ensure_single_threaded();
  const std::size_t n = r.rows();
  parallel_for(tiles(b.rows()), [&](std::size_t t) {
    const Range i = tile(t, b.rows());
    scipy_cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, dim(i.size), dim(n), 1.0,
                      r.data(), dim(n), b.row(i.begin), dim(n));
  });
  return product_flops(b.rows(), n, n) / 2;
}

std::vector<double> symmetric_eigenvalues(Matrix& a) {
  ensure_single_threaded();
  const int n = dim(a.rows());
  std::vector<double> values(a.rows());
  check_lapack("dsyevd", scipy_LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', n, a.data(), n, values.data()));
  return values;
}

std::vector<double> singular_values(Matrix& a) {
  ensure_single_threaded();
  std::vector<double> values(std::min(a.rows(), a.cols()));
  if (values.empty()) return values;
  double unused = 0;
  check_lapack("dgesdd", scipy_LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'N', dim(a.cols()), dim(a.rows()), a.data(),
                                              dim(a.cols()), values.data(), &unused, 1, &unused, 1));
  return values;
}

double inner_product(const Matrix& a, const Matrix& b) {
  // One partial sum per row: the order of additions does not depend on the number of threads.
  ensure_single_threaded();
  std::vector<double> sums(a.rows());
  parallel_for(tiles(a.rows()), [&](std::size_t t) {
    const Range i = tile(t, a.rows());
    for (std::size_t r = i.begin; r < i.begin + i.size; ++r) {
      sums[r] = scipy_cblas_ddot(dim(a.cols()), a.row(r), 1, b.row(r), 1);
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
