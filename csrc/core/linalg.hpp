// Thin header over BLAS and LAPACK: the few calls we use, always single-threaded, tiled over our own pool.
//
// All matrices are row-major float64 in host memory; `ld*` is the distance between the starts of two rows, in elements.
// Every function may be called from several threads at once.
#pragma once

#include <string>

namespace fastfid::linalg {

enum class Transpose { kNo, kYes };

// OpenBLAS's description of itself: version, options and the kernel it chose for this processor.
std::string blas_description();

// C = alpha A A^T + beta C (trans kNo, A is n x k) or C = alpha A^T A + beta C (kYes, A is k x n): the lower triangle
// of the n x n matrix C, diagonal included; the rest of C is neither read nor written. BLAS dsyrk, n k (n + 1) flops.
void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc);

// C = alpha op(A) op(B) + beta C, with op(A) m x k, op(B) k x n and C m x n. BLAS dgemm, 2 m n k flops.
void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);

}  // namespace fastfid::linalg
