// Factorisations, eigenvalues and singular values of whole matrices.
//
// Functions that are made of products return the flops that they issued. All functions throw the exceptions that
// core/blas.hpp names.
#pragma once

#include <vector>

#include "core/matrix.hpp"

namespace fastfid::linalg {

// Cholesky factorisation A = R^T R in place, n^3 / 3 flops. On success the upper triangle holds R and the lower
// triangle zeros. Reads the upper triangle only. Returns false where a pivot is not positive or not a number; the
// contents of A are then undefined.
bool cholesky(Matrix& a);

// Pivoted Cholesky (dpstrf, one thread): S = F^T F + E with F (r x n) in the original column order. The factorisation
// stops where the largest remaining diagonal element is <= tol. Reads the upper triangle of `s` and overwrites it.
Matrix pivoted_cholesky(Matrix& s, double tol);

// The upper-triangular R (n x n) of A = Q R for A (m x n), m >= n: R^T R = A^T A. Overwrites A. Runs on one thread.
Matrix triangular_factor(Matrix& a);

// B := B R^-1 for upper-triangular R.
double solve_right(const Matrix& r, Matrix& b);

// Upper-triangular Y with R Y = I, computed column by column. |R Y - I| <= (n + 3) u |R| |Y| for R of any condition
// (Higham, "Accuracy and Stability of Numerical Algorithms", theorem 8.5). The 3 is for divisions, which are made as
// products with reciprocals. n^3 / 3 flops.
Matrix inverse_of_upper(const Matrix& r, double& flops);

// Eigenvalues of symmetric A in ascending order. Reads the upper triangle and overwrites A. Throws NumericalError where
// LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Matrix& a);

// Eigenvalues like symmetric_eigenvalues(); A is replaced by the eigenvectors: row k belongs to eigenvalue k. LAPACK's
// dsyevd on one thread.
std::vector<double> symmetric_eigenvectors(Matrix& a);

// Singular values of A in descending order. Overwrites A. Throws NumericalError where LAPACK does not converge.
std::vector<double> singular_values(Matrix& a);

}  // namespace fastfid::linalg
