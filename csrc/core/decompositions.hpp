// Factorisations, eigenvalues and singular values of whole matrices.
//
// Those made of products return the flops they issued. All throw what core/blas.hpp says.
#pragma once

#include <vector>

#include "core/matrix.hpp"

namespace fastfid::linalg {

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

// Eigenvalues of symmetric A in ascending order; reads the upper triangle and overwrites A. Throws NumericalError where
// LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Matrix& a);

// The same, with A replaced by the eigenvectors: row k belongs to eigenvalue k. LAPACK's dsyevd, one thread.
std::vector<double> symmetric_eigenvectors(Matrix& a);

// Singular values of A in descending order; overwrites A. Throws NumericalError where LAPACK does not converge.
std::vector<double> singular_values(Matrix& a);

}  // namespace fastfid::linalg
