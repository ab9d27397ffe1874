// All calls of BLAS and LAPACK. The calls are always single-threaded.
//
// All matrices are row-major float64 in host memory, those of gemm() also float32; `ld*` is the distance between the
// starts of two rows, in elements. LAPACK is column-major: LAPACK sees the transpose of a row-major matrix, and an
// upper triangle as a lower one. Where a routine has no row-major meaning, its arrays have LAPACK's own layout, and the
// comment says so. Every function may be called from several threads at once. Every function throws DeviceError where
// LAPACK refuses an argument, and NumericalError where LAPACK's iteration does not converge.
#pragma once

#include <cstddef>
#include <string>

namespace fastfid::linalg {

enum class Transpose { kNo, kYes };
enum class Triangle { kLower, kUpper };
enum class Side { kLeft, kRight };

// OpenBLAS's description of itself (version, options and the kernel that OpenBLAS chose for this processor), and the
// instruction set that core/tiles.hpp chose.
std::string blas_description();

// C = alpha A A^T + beta C (trans kNo, A is n x k) or C = alpha A^T A + beta C (kYes, A is k x n): one triangle of the
// n x n matrix C, diagonal included; the rest of C is neither read nor written. BLAS dsyrk, n k (n + 1) flops.
void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle = Triangle::kLower);

// C = alpha op(A) op(B) + beta C, with op(A) m x k, op(B) k x n and C m x n. BLAS dgemm, 2 m n k flops.
void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);
// The same in float32. BLAS sgemm.
void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, float alpha, const float* a, int lda,
          const float* b, int ldb, float beta, float* c, int ldc);

// B := op(R)^-1 B (kLeft) or B := B op(R)^-1 (kRight) for upper-triangular R and B m x n. BLAS dtrsm.
void trsm(Side side, Transpose trans, int m, int n, const double* r, int ldr, double* b, int ldb);

// sum_i x[i] y[i]. BLAS ddot.
double dot(int n, const double* x, const double* y);

// Cholesky factorisation A = R^T R of the upper triangle in place; the lower triangle is neither read nor written.
// Returns false where a pivot is not positive. A pivot that is NaN may go unnoticed. LAPACK dpotrf.
bool potrf(int n, double* a, int lda);

// Pivoted Cholesky factorisation of the upper triangle in place, stopped where the largest remaining diagonal element
// is <= tol; returns the rank. pivots: (n,), numbered from 1; work: (2 n,). LAPACK dpstrf.
int pstrf(int n, double* a, double tol, int* pivots, double* work);

// A = Q R in place for A (m x n), m >= n: R is in the upper triangle. tau: (n,). LAPACK dgelqf.
void gelqf(int m, int n, double* a, double* tau);

// Column-major A (m x n), m >= n: Q R in place with Q = I - V T V^T, T (n x n) column-major. LAPACK dgeqrt3.
void geqrt3(int m, int n, double* a, int lda, double* t, int ldt);

// Column-major C (m x n) := Q^T C for the Q of k reflectors from geqrt3(m, k, v, ...). work: (n k,). LAPACK dgemqrt.
void apply_transposed_q(int m, int n, int k, const double* v, int ldv, const double* t, int ldt, double* c, int ldc,
                        double* work);

// The tridiagonal form of a symmetric band: n diagonal elements, and n - 1 elements below the diagonal. The lower part
// of the band is stored by columns of width + 1 elements each, and is overwritten. LAPACK dsytrd_sb2st.
void tridiagonal_of_band(int n, int width, double* band, double* diagonal, double* off_diagonal);

// Replaces the diagonal of a tridiagonal matrix by its eigenvalues, in ascending order. LAPACK dsterf.
void sterf(int n, double* diagonal, double* off_diagonal);

// The eigenvalues of symmetric A (n x n), in ascending order. Reads the upper triangle and overwrites A. With
// `vectors`, A receives the eigenvectors: row k belongs to eigenvalue k. LAPACK dsyevd.
void syevd(bool vectors, int n, double* a, double* values);

// The min(m, n) singular values of A (m x n), in descending order. Overwrites A. LAPACK dgesdd.
void gesdd(int m, int n, double* a, double* values);

}  // namespace fastfid::linalg
