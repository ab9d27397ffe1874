// Thin header over BLAS and LAPACK: the few calls we use, always single-threaded, tiled over our own pool.
//
// All matrices are row-major float64 in host memory; `ld*` is the distance between the starts of two rows, in elements.
// Every function may be called from several threads at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace fastfid::linalg {

enum class Transpose { kNo, kYes };
enum class Triangle { kLower, kUpper };

// OpenBLAS's description of itself: version, options and the kernel it chose for this processor.
std::string blas_description();

// C = alpha A A^T + beta C (trans kNo, A is n x k) or C = alpha A^T A + beta C (kYes, A is k x n): one triangle of the
// n x n matrix C, diagonal included; the rest of C is neither read nor written. BLAS dsyrk, n k (n + 1) flops.
void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle = Triangle::kLower);

// C = alpha op(A) op(B) + beta C, with op(A) m x k, op(B) k x n and C m x n. BLAS dgemm, 2 m n k flops.
void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);

// ---- Whole matrices: cut into tiles of kTile rows and columns, whatever the number of threads, each tile one BLAS
// call, so that the bits of a result depend on its input alone. Products return the flops they issued: an algorithm's
// cost is counted, not estimated. Results are (re)allocated; they must not be one of the inputs.

inline constexpr std::size_t kTile = 256;

// Row-major matrix that owns its memory. Elements are uninitialised after construction.
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols)
      : rows_(rows), cols_(cols), data_(std::make_unique_for_overwrite<double[]>(rows * cols)) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  double* data() { return data_.get(); }
  const double* data() const { return data_.get(); }
  double* row(std::size_t i) { return data_.get() + i * cols_; }
  const double* row(std::size_t i) const { return data_.get() + i * cols_; }
  double& operator()(std::size_t i, std::size_t j) { return data_[i * cols_ + j]; }
  double operator()(std::size_t i, std::size_t j) const { return data_[i * cols_ + j]; }

 private:
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::unique_ptr<double[]> data_;
};

// What is known about the zeros of a factor (they are stored): tiles of zeros are skipped.
enum class Shape { kFull, kUpper };

// C = A B^T, m x n from (m x k), (n x k). For two upper-triangular factors the cost is 1/3 + O(kTile / n) of the full
// product.
double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c);

// C = A B, m x n from (m x k), (k x n).
double multiply(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T B, m x n from (k x m), (k x n).
double multiply_tn(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T A, n x n from m x n, both triangles stored: half the cost of multiply_tn.
double gram(const Matrix& a, Matrix& c);

// E = S - F^T F for symmetric S (n x n, lower triangle read) and F (r x n); both triangles stored.
double residual(const double* s, const Matrix& f, Shape shape, Matrix& e);

// Cholesky factorisation A = R^T R in place (one thread): on success the upper triangle holds R and the lower one
// zeros. Reads the upper triangle only. Returns false where a pivot is not positive or not a number; the contents are
// then undefined.
bool cholesky(Matrix& a);

// Pivoted Cholesky (dpstrf, one thread): S = F^T F + E with F (r x n) in the original column order, stopped where the
// largest remaining diagonal element is <= tol. Reads the upper triangle of `s` and overwrites it.
Matrix pivoted_cholesky(Matrix& s, double tol);

// B := B R^-1 for upper-triangular R.
double solve_right(const Matrix& r, Matrix& b);

// Eigenvalues of symmetric A in ascending order; overwrites A. Throws NumericalError where LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Matrix& a);

// Singular values of A in descending order; overwrites A. Throws NumericalError where LAPACK does not converge.
std::vector<double> singular_values(Matrix& a);

// <A, B> = tr(A^T B), and ||A||_F = sqrt(<A, A>).
double inner_product(const Matrix& a, const Matrix& b);
double frobenius_norm(const Matrix& a);

double trace(const Matrix& a);

}  // namespace fastfid::linalg
