// Factors of covariances, and the error that the factors bring into T, the trace of the matrix square root of the
// product of two covariances. Bounds for the computed factors become bounds for the covariances as given by means of
// this error.
//
// S1 and S2 are the given matrices. E_i = F_i^T F_i are the matrices that the factors represent, and D_i = S_i - E_i.
// S1, S2, E1 and E2 are positive semi-definite. u is the unit roundoff 2^-53, ||.||_* the nuclear norm, and ||.||
// without an index the Frobenius norm.
//
// First order. Let E1 and E2 be positive definite and X = E1^-1 # E2, the positive definite solution of X E1 X = E2
// (the transport map). For A = X^(1/2) S1 X^(1/2) and B = X^(-1/2) S2 X^(-1/2), T(A, B) = T(S1, S2), and
//   0 <= (tr A + tr B) / 2 - T(A, B) <= ||A^(1/2) - B^(1/2)||^2 / 2 <= ||A - B||_* / 2.
// The second term is half of the squared Bures distance, which is the minimum of ||A^(1/2) - B^(1/2) U||^2 over
// orthogonal U. The last inequality is due to Powers and Stormer. With E1 and E2 in place of S1 and S2, A and B are
// equal and have the trace T(E1, E2). Hence
//   T(E1, E2) - L1 - L2 <= T(S1, S2) <= T(E1, E2) + (L1 + L2) / 2,
//   L1 = ||X^(1/2) D1 X^(1/2)||_*, L2 = ||X^(-1/2) D2 X^(-1/2)||_*,
// for D_i of any size. For a diagonal V > 0, L1 <= ||V X V|| ||V^-1 D1 V^-1||, and
//   ||V X V|| <= ||F2 V^2 F1^-1||,
// The proof: let P = V E1^-1 V, Q = V E2 V and Z = P # Q = V X V. The matrix N = P^(1/2) Z P^(-1/2) has the eigenvalues
// of Z, and tr Z^2 <= ||N||^2 = tr(P Q) (Schur). The bound of L2 follows with the sides exchanged. V holds the square
// roots of the diagonal, so features may be of any size: Cholesky's theorem is |D1| <= (d + 1) u v v^T.
//
// For matrices of any condition. T grows with S1, and T(E1 + D, S2) <= T(E1, S2) + T(D, S2) for a positive
// semi-definite D (Rotfel'd). Take the positive and the negative part of D1 for D, and the Cauchy-Schwarz inequality
// for T(D, S2):
//   |T(S1, S2) - T(E1, S2)| <= H1 = (||D1||_* tr S2)^(1/2).
// H1 is the root of a rounding error. For singular covariances no better bound of this kind holds: 1e-16 added to an
// element of S1 can move T by 1e-8 (tr S1 tr S2)^(1/2).
//
// For each side the smaller of L_i and H_i is used, in two comparisons. In between lies the T in which the sides that
// use L_i are exact. First T(E1, E2) is compared with this T, then this T with T(S1, S2).
//
// For rows. A factor of n feature rows differs from an exact factor by rounding, and T = ||F1 F2^T||_* moves by at most
// ||F1' - F1|| ||F2||. This bound contains no root. Where a triangular factor represents n > d rows, the error of the
// triangular factor is bounded either in this way or by L1.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include "core/matrix.hpp"

namespace fastfid {

// What is known about a factor F (r, d), in the memory of any device. S is the positive semi-definite part of Sigma
// 4^-exponent: its negative eigenvalues are set to zero. No covariance has negative eigenvalues, but rounding can bring
// them in. S is the nearest positive semi-definite matrix. S is no farther from F^T F than Sigma 4^-exponent itself,
// since in the Frobenius norm a projection on a convex set moves no two points apart.
struct FactorFacts {
  std::size_t d = 0;
  int exponent = 0;      // brings the trace into [1, 4), exactly
  double trace = 0;      // of Sigma 4^-exponent; rows: ||X||_F^2; 0 for a zero covariance
  double distance = 0;   // bound on ||S - F^T F||_F; 0 where `rounded` has the bound. Rows, n > d: bound on ||X^T X -
                         // F^T F||_F
  double row_error = 0;  // rows: bound on ||X' - X||_F for some X' with X'^T X' = S, where X is the rows minus their
                         // mean
  double qr_error = 0;   // rows, n > d: bound on ||X - Q F||_F for some orthogonal Q, with the triangular factor F of X
  double residual = 0;   // ||Sigma 4^-exponent - F^T F||_F / trace, measured; for a Cholesky factor from a sample
  double rounded = 0;    // where Sigma is indefinite by rounding to float32: bound on ||F^T F - S'||_* for S' = S and
                         // for every S' that rounds to Sigma in float32; else 0
  bool is_singular = false;  // true where only the pivoted factorisation or the eigenvectors could factor the
                             // covariance
  std::size_t rank = 0;      // numerical rank of F
  double flops = 0;          // of the factorisation and its residual

  // True for a triangular factor, which may have an inverse.
  bool has_first_order() const { return distance > 0 && !is_singular; }
};

struct Factor : FactorFacts {
  linalg::Matrix f;                            // (r, d), row-major
  linalg::Shape shape = linalg::Shape::kFull;  // kUpper: the Cholesky factor of a positive definite Sigma
  // Reads Sigma 4^-exponent from the caller's memory, which must still exist. Empty for rows.
  linalg::FillElements elements{};
  bool are_elements_exact = true;  // true where Sigma is symmetric; else the symmetric part is rounded, by u |Sigma|
  double scaled_distance = 0;      // rows, n > d: `distance` with every column of F scaled to norm one
};

// T of the given covariances is in [T' - below, T' + above], where T' is the T of the factors.
struct TraceError {
  double below = 0;
  double above = 0;
  double rounded = 0;  // the part of `below` and of `above` that is due to covariances rounded to float32
};

// L1 for the side of `a`, a triangular factor; infinity for any other factor. The bounds below are computed in turn
// until one of them is at most `enough`:
//   1. `a.distance` times (tr E2 tr E1^-1)^(1/2), which is no less than ||F2 F1^-1||;
//   2. `a.distance` times ||F2 F1^-1||;
//   3. the bound with V from the head of this file in place of I;
//   4. for a covariance, D1 is measured in place of Cholesky's theorem, and `a.distance` is measured with it.
// For a covariance, the bound with V needs S1 to be the given matrix itself. This bound is left out unless ||V^-1 D1
// V^-1|| ||V F1^-1||^2 <= 1/2, which proves that F1^-T S1 F1^-1, and hence the given matrix, is positive definite.
//
// F1^-1 is Y (I - R)^-1 with Y from substitution. The bound includes the rounding in Y and in F2 V^2 Y. Adds to a.flops
// d^3/3 flops, another d^3/3 for each of the products, and d^3 where D1 is measured. Memory: one matrix, and three more
// where D1 is measured.
double first_order(Factor& a, const Factor& b, double enough);

constexpr double kNoFirstOrder = std::numeric_limits<double>::infinity();

// Bound on ||X' - X||. X is n feature rows minus their mean, divided by (n - 1)^(1/2); the mean is found in two passes.
// `norm`: ||X||. `second_mean`: the norm of the mean that the second pass found, divided by (n - 1)^(1/2) too. For n <=
// d the reflection removes the direction of the mean, and with it the error of the mean. For n > d the error of the
// mean is part of the bound.
double rows_error(std::size_t n, std::size_t d, double norm, double second_mean);

// Bound on ||X - Q F|| for the triangular factor F of X from Householder's QR: n d u times 8. Higham's theorem 19.4 has
// "a small integer constant" in place of the 8.
double triangle_error(std::size_t n, std::size_t d, double norm);

// The error of T from the facts of two factors. `first_a` and `first_b` are L1 and L2, or kNoFirstOrder.
TraceError factor_error(const FactorFacts& a, const FactorFacts& b, double first_a, double first_b);

// T <= (tr S1 tr S2)^(1/2); identical covariances nearly attain this bound.
double trace_bound(const FactorFacts& a, const FactorFacts& b);

// A bound on |tr S - trace|, with S and the trace of the facts both scaled.
double trace_error(const FactorFacts& facts);

// V: the norms of the columns of upper-triangular F, which are the roots of the diagonal of E. The diagonal of S is
// equal to that of E up to (d + 1) u.
std::vector<double> column_norms(const linalg::Matrix& f);

// Cholesky's theorem, |D_jk| <= (min(j, k) + 1) u |F|^T |F| <= (min(j, k) + 1) u (s_jj s_kk)^(1/2) with j and k from 1.
// This gives the `distance` of a factor of a covariance with this diagonal.
double cholesky_distance(const std::vector<double>& diagonal);

}  // namespace fastfid
