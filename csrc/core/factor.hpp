// Factors of covariances, and how far T, the trace of the matrix square root of their product, may be from T of the
// covariances themselves: what turns bounds for computed factors into bounds for the matrices as given.
//
// S1 and S2 are what was given, E1 and E2 what the factors stand for, E_i = F_i^T F_i and D_i = S_i - E_i. All four are
// positive semi-definite. u is the unit roundoff 2^-53, ||.||_* the nuclear norm, ||.|| without an index that of
// Frobenius.
//
// First order. Let E1 and E2 be positive definite and X = E1^-1 # E2, the positive definite solution of X E1 X = E2
// (the transport map). For A = X^(1/2) S1 X^(1/2) and B = X^(-1/2) S2 X^(-1/2), T(A, B) = T(S1, S2), and
//   0 <= (tr A + tr B) / 2 - T(A, B) <= ||A^(1/2) - B^(1/2)||^2 / 2 <= ||A - B||_* / 2:
// the second term is half of the squared Bures distance, the minimum of ||A^(1/2) - B^(1/2) U||^2 over orthogonal U,
// and the last inequality is that of Powers and Stormer. With E1 and E2 in place of S1 and S2 both matrices are the
// same one, of trace T(E1, E2), and so
//   T(E1, E2) - L1 - L2 <= T(S1, S2) <= T(E1, E2) + (L1 + L2) / 2,
//   L1 = ||X^(1/2) D1 X^(1/2)||_*, L2 = ||X^(-1/2) D2 X^(-1/2)||_*,
// whatever the size of the D_i. For a diagonal V > 0, L1 <= ||V X V|| ||V^-1 D1 V^-1||, and
//   ||V X V|| <= ||F2 V^2 F1^-1||,
// since for P = V E1^-1 V, Q = V E2 V and Z = P # Q = V X V the matrix N = P^(1/2) Z P^(-1/2) has the eigenvalues of Z,
// and tr Z^2 <= ||N||^2 = tr(P Q) (Schur). L2 likewise, with the sides exchanged. V holds the square roots of the
// diagonal, so features may be of any size: Cholesky's theorem is |D1| <= (d + 1) u v v^T.
//
// Of any condition. T grows with S1, and T(E1 + D, S2) <= T(E1, S2) + T(D, S2) for a positive semi-definite D
// (Rotfel'd). With the positive and the negative part of D1 for D, and Cauchy and Schwarz's inequality for T(D, S2),
//   |T(S1, S2) - T(E1, S2)| <= H1 = (||D1||_* tr S2)^(1/2).
// That is the root of a rounding error, and for singular covariances no better bound of its kind holds: 1e-16 added to
// an element of S1 can move T by 1e-8 (tr S1 tr S2)^(1/2).
//
// For each side the smaller of L_i and H_i counts: first T(E1, E2) is compared with T where the sides that take L_i are
// exact, then this one with T(S1, S2).
//
// Rows. A factor of n feature rows differs from an exact one by rounding, and T = ||F1 F2^T||_* moves by at most
// ||F1' - F1|| ||F2||: no root. Where a triangular factor stands for n > d rows, its own error may take that or L1.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include "core/matrix.hpp"

namespace fastfid {

// What is known about F (r, d), wherever it lies. S is the positive semi-definite part of Sigma 4^-exponent: its
// negative eigenvalues, which no covariance has but rounding can bring, set to zero. It is the nearest such matrix, and
// no farther from F^T F than Sigma 4^-exponent itself (in the Frobenius norm, projections on convex sets bring nothing
// apart).
struct FactorFacts {
  std::size_t d = 0;
  int exponent = 0;      // brings the trace into [1, 4), exactly
  double trace = 0;      // of Sigma 4^-exponent; rows: ||X||_F^2; 0 for a zero covariance
  double distance = 0;   // bound on ||S - F^T F||_F; 0 where `rounded` says it. Rows: of X^T X - F^T F for n > d
  double row_error = 0;  // rows: bound on ||X' - X||_F, X the rows less their mean, for some X' with X'^T X' = S
  double qr_error = 0;   // n > d rows: bound on ||X - Q F||_F for some orthogonal Q, F being a triangular factor of X
  double residual = 0;   // ||Sigma 4^-exponent - F^T F||_F / trace, a measurement: from a sample for a Cholesky factor
  double rounded = 0;    // bound on ||F^T F - S'||_* for every S' that rounds to the given Sigma in float32 and for S,
                         // where Sigma itself is indefinite by such rounding; else 0
  bool is_singular = false;  // a covariance that only the pivoted factorisation, or its eigenvectors, could factor
  std::size_t rank = 0;      // numerical rank of F
  double flops = 0;          // of the factorisation and its residual

  // Is it a triangular factor, which may have an inverse?
  bool has_first_order() const { return distance > 0 && !is_singular; }
};

struct Factor : FactorFacts {
  linalg::Matrix f;                            // (r, d), row-major
  linalg::Shape shape = linalg::Shape::kFull;  // kUpper: the Cholesky factor of a positive definite Sigma
  // Sigma 4^-exponent, read from the caller's memory, as long as that lives; none for rows.
  linalg::FillElements elements{};
  bool are_elements_exact = true;  // Sigma is symmetric; else the symmetric part is rounded, by u |Sigma|
  double scaled_distance = 0;      // n > d rows: `distance` with every column of F scaled to norm one
};

// T of the given covariances is in [T' - below, T' + above] for the T' of the factors.
struct TraceError {
  double below = 0;
  double above = 0;
  double rounded = 0;  // their part that is for covariances rounded to float32
};

// L1 for the side of `a`, a triangular factor; infinity for any other. Bounds follow each other until one is `enough`:
// `a.distance` times (tr E2 tr E1^-1)^(1/2), which is no less than ||F2 F1^-1||; times the latter; V as above in place
// of I; for a covariance D1 measured in place of Cholesky's theorem, and `a.distance` with it. For a covariance V needs
// S1 to be the given matrix itself, and is left out where ||V^-1 D1 V^-1|| ||V F1^-1||^2 <= 1/2 does not prove that
// F1^-T S1 F1^-1, and with it the matrix given, is positive definite.
//
// F1^-1 is Y (I - R)^-1 with Y from substitution, and rounding in Y and in F2 V^2 Y is added. Adds d^3/3 flops to
// a.flops, as many for each of the products, d^3 where D1 is measured. Memory: one matrix, three more for D1.
double first_order(Factor& a, const Factor& b, double enough);

constexpr double kNoFirstOrder = std::numeric_limits<double>::infinity();

// Bound on ||X' - X|| for n feature rows less their mean, found in two passes, over (n - 1)^(1/2): X, ||X|| = `norm`.
// `second_mean`: the norm of the mean that the second pass found, over (n - 1)^(1/2) too. For n <= d the reflection
// that takes the direction of the mean away takes its error with it; for n > d that counts.
double rows_error(std::size_t n, std::size_t d, double norm, double second_mean);

// Bound on ||X - Q F|| for the triangular factor F of X by Householder's QR: n d u times 8, where Higham's theorem 19.4
// says "a small integer constant".
double triangle_error(std::size_t n, std::size_t d, double norm);

// From the facts of two factors, and L1 and L2 or kNoFirstOrder.
TraceError factor_error(const FactorFacts& a, const FactorFacts& b, double first_a, double first_b);

// T <= (tr S1 tr S2)^(1/2), all but attained for identical covariances.
double trace_bound(const FactorFacts& a, const FactorFacts& b);

// |tr S - trace| at most, S and the trace of the facts scaled.
double trace_error(const FactorFacts& facts);

// V: the norms of the columns of upper-triangular F, roots of the diagonal of E. That of S is the same up to (d + 1) u.
std::vector<double> column_norms(const linalg::Matrix& f);

// Cholesky's theorem, |D_jk| <= (min(j, k) + 1) u |F|^T |F| <= (min(j, k) + 1) u (s_jj s_kk)^(1/2) with j and k from 1:
// the `distance` of a factor of a covariance of that diagonal.
double cholesky_distance(const std::vector<double>& diagonal);

}  // namespace fastfid
