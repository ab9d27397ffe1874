// Thin header over BLAS and LAPACK: the few calls we use, always single-threaded, tiled over our own pool.
//
// All matrices are row-major float64 in host memory; `ld*` is the distance between the starts of two rows, in elements.
// Every function may be called from several threads at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/parallel.hpp"

namespace fastfid::linalg {

enum class Transpose { kNo, kYes };
enum class Triangle { kLower, kUpper };

// OpenBLAS's description of itself: version, options and the kernel it chose for this processor; and what was chosen of
// our own (core/tiles.hpp).
std::string blas_description();

// C = alpha A A^T + beta C (trans kNo, A is n x k) or C = alpha A^T A + beta C (kYes, A is k x n): one triangle of the
// n x n matrix C, diagonal included; the rest of C is neither read nor written. BLAS dsyrk, n k (n + 1) flops.
void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle = Triangle::kLower);

// C = alpha op(A) op(B) + beta C, with op(A) m x k, op(B) k x n and C m x n. BLAS dgemm, 2 m n k flops.
void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);

// ---- Whole matrices: cut into strips, whatever the number of threads, each strip one or two BLAS calls, so that the
// bits of a result depend on its input alone. Products return the flops they issued: an algorithm's cost is counted,
// not estimated. Results are (re)allocated; they must not be one of the inputs.

// Rows of a strip, and the most columns: at d = 2048 products of 192 x 2048 run at 95 % of one full dgemm (256 x 256:
// 76 %) and give 11 independent tasks.
inline constexpr std::size_t kStripRows = 192;
inline constexpr std::size_t kStripColumns = 2048;

// Row-major matrix that owns its memory. Elements are uninitialised after construction.
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) { reshape(rows, cols); }

  // The contents are undefined afterwards. Memory is kept where it suffices: fresh pages of a 2048 x 2048 matrix cost
  // the kernel 10 ms to clear.
  void reshape(std::size_t rows, std::size_t cols);

  // Leaves the first `rows` of them, as they are.
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

// What is known about the zeros of a factor (they are stored): blocks of zeros are skipped.
enum class Shape { kFull, kUpper };

// body(i) for every row i in [0, n), in parallel by strips of kStripRows.
template <class Body>
void for_each_row(std::size_t n, const Body& body) {
  parallel_for((n + kStripRows - 1) / kStripRows, [&](std::size_t strip) {
    const std::size_t end = std::min(n, (strip + 1) * kStripRows);
    for (std::size_t i = strip * kStripRows; i < end; ++i) body(i);
  });
}

// C = A B^T, m x n from (m x k), (n x k). Two upper-triangular factors of 2048 cost 0.42 of the full product.
double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c);

// C = A B, m x n from (m x k), (k x n).
double multiply(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T B, m x n from (k x m), (k x n).
double multiply_tn(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T A, n x n from m x n: half the cost of multiply_tn. The lower triangle is the upper one's mirror image, or
// left as it was.
enum class Fill { kBoth, kUpper };
double gram(const Matrix& a, Matrix& c, Fill fill = Fill::kBoth);

// fill(row, n_rows, col, n_cols, out, stride) writes these elements of a matrix to `out`, row-major, rows `stride`
// apart.
using FillElements = std::function<void(std::size_t, std::size_t, std::size_t, std::size_t, double*, std::size_t)>;

// G = F S F^T for upper-triangular F, what is left of its diagonal stored as zeros, and symmetric S: its upper triangle
// (what lies below is undefined), and the norm of Q = F K, where S = K + K^T with upper-triangular K and
// G = Q F^T + F Q^T. Two thirds of every product would be zeros: n^3 flops, 1.06 n^3 with those spent on zeros
// (n = 2048).
struct Congruence {
  Matrix g;
  double norm_q = 0;
  double flops = 0;
};
Congruence congruence(const Matrix& f, const FillElements& fill);

// Norms of E = S - F^T F for symmetric S, each with a bound on its error.
struct ResidualNorms {
  double largest = 0;    // max |E_ij|, as computed
  double frobenius = 0;  // ||E||_F
  double error = 0;
  double scaled = 0;  // ||V^-1 E V^-1||_F for V = diag(scale); 0 without a scale
  double scaled_error = 0;
};

// E far more accurately than one product in float64 gives it, whose error of r u |F|^T |F| would be the larger part of
// what it returns. F (r x n) is H + L, the elements of H multiples of one power of two in each column and so short that
// H^T H is exact in float64, whatever the order of the sums (Ozaki, Ogita, Oishi and Rump, "Error-free transformations
// of matrix multiplication", 2012). What is left, H^T L + L^T F, is 2^-20 as large for r = 2048, and so is its
// rounding: the errors are at most (2 r + 4) u (||E||_F + 4 ||L||_F ||F||_F).
//
// `fill` is asked for the lower triangle of S strip by strip, and gives it exactly. `scale`: n positive numbers with
// ||F V^-1||_F^2 <= 1.01 n, or none. E is never stored. Three products over one triangle, 3 n^2 r flops (n^3 for
// upper-triangular F), which are added to `flops`; 16 n r bytes.
ResidualNorms residual(const FillElements& fill, const Matrix& f, Shape shape, const std::vector<double>& scale,
                       double& flops);

// ||A B||_F for upper-triangular B (k x n) and A (m x k), as computed: each element's error is at most k u |A| |B|.
// The product is not stored. m k n flops, n^3 / 3 where A is upper-triangular too.
double product_norm(const Matrix& a, Shape shape_a, const Matrix& b, double& flops);

// Cholesky factorisation A = R^T R in place, n^3 / 3 flops: on success the upper triangle holds R and the lower one
// zeros. Reads the upper triangle only. Returns false where a pivot is not positive or not a number; the contents are
// then undefined.
bool cholesky(Matrix& a);

// Pivoted Cholesky (dpstrf, one thread): S = F^T F + E with F (r x n) in the original column order, stopped where the
// largest remaining diagonal element is <= tol. Reads the upper triangle of `s` and overwrites it.
Matrix pivoted_cholesky(Matrix& s, double tol);

// The upper-triangular R (n x n) of A = Q R for A (m x n), m >= n: R^T R = A^T A. Overwrites A; one thread.
Matrix triangular_factor(Matrix& a);

// B := B R^-1 for upper-triangular R.
double solve_right(const Matrix& r, Matrix& b);

// Upper-triangular Y with R Y = I, column by column: |R Y - I| <= (n + 3) u |R| |Y| whatever the condition of R
// (Higham, "Accuracy and Stability of Numerical Algorithms", theorem 8.5; 3 for divisions made as products with
// reciprocals). n^3 / 3 flops.
Matrix inverse_of_upper(const Matrix& r, double& flops);

// A symmetric band matrix: element (j + i, j), 0 <= i <= width, stands at j (width + 1) + i, also where j + i >= n
// (then it means nothing).
struct Band {
  std::size_t n = 0;
  std::size_t width = 0;
  std::vector<double> elements;
};

// Smallest n at which going by way of a band pays.
inline constexpr std::size_t kMinBandSize = 192;

// The band matrix with the eigenvalues of symmetric A, n >= kMinBandSize: an orthogonal similarity, 4 n^3 / 3 flops in
// products. Reads the upper triangle and overwrites A.
Band reduce_to_band(Matrix& a);

// Eigenvalues of a band from reduce_to_band, in ascending order: one thread, about 6 n^2 width flops in vector
// operations. Throws NumericalError where LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Band band);

// Eigenvalues of symmetric A in ascending order; reads the upper triangle and overwrites A. Throws NumericalError where
// LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Matrix& a);

// The same, with A replaced by the eigenvectors: row k belongs to eigenvalue k. LAPACK's dsyevd, one thread.
std::vector<double> symmetric_eigenvectors(Matrix& a);

// Singular values of A in descending order; overwrites A. Throws NumericalError where LAPACK does not converge.
std::vector<double> singular_values(Matrix& a);

// x[i] := x[i] 2^e, exact but for underflow.
void scale_in_place(double* x, std::size_t n, int e);

// <A, B> = tr(A^T B), and ||A||_F = sqrt(<A, A>).
double inner_product(const Matrix& a, const Matrix& b);
double frobenius_norm(const Matrix& a);

double trace(const Matrix& a);

}  // namespace fastfid::linalg
