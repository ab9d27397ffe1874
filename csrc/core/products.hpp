// Products of whole matrices, in tiles on the thread pool of core/parallel.hpp.
//
// Each strip of a result is one or two BLAS calls. Products return the flops that they issued: the cost of an algorithm
// is counted, not estimated. Results are (re)allocated; a result must not be one of the inputs.
#pragma once

#include "core/matrix.hpp"

namespace fastfid::linalg {

// C = A B^T, m x n from (m x k), (n x k). Two upper-triangular factors of 2048 cost 0.42 of the full product.
double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c);

// C = A B, m x n from (m x k), (k x n).
double multiply(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T B, m x n from (k x m), (k x n).
double multiply_tn(const Matrix& a, const Matrix& b, Matrix& c);

// C = A^T A, n x n from m x n: half the cost of multiply_tn. The lower triangle becomes the mirror image of the upper
// triangle (kBoth), or stays as it was (kUpper).
enum class Fill { kBoth, kUpper };
double gram(const Matrix& a, Matrix& c, Fill fill = Fill::kBoth);

// ||A B||_F for upper-triangular B (k x n) and A (m x k). The norm is that of the computed product, each element of
// which has an error of at most k u |A| |B|.
// The product is not stored. m k n flops, n^3 / 3 where A is upper-triangular too.
double product_norm(const Matrix& a, Shape shape_a, const Matrix& b, double& flops);

}  // namespace fastfid::linalg
