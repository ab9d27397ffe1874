// The trace of the matrix square root of a product of covariances, T = tr((Sigma1 Sigma2)^(1/2)), with bounds.
//
// With Sigma_i = F_i^T F_i the non-zero eigenvalues of Sigma1 Sigma2 are those of M^T M, M = F1 F2^T, so T is the
// nuclear norm of M: the sum of its singular values. A factor is either a Cholesky factor or, for few samples, the
// centred feature rows themselves. The condition number of M is the square root of that of the product, and nothing
// here is non-symmetric or complex: what makes other FID tools return NaN or imaginary parts cannot arise.
//
// Three routes to the nuclear norm:
//   eigen           eigenvalues of M^T M; the fastest on CPUs
//   newton-schulz   polar iteration X -> X (c0 I + c1 Y + c2 Y^2), Y = X^T X, then a certificate (polar_certificate)
//   svd             singular values of M; several times slower, exact to rounding where M is singular
//
// Bounds are about T of the computed factors, F1^T F1 and F2^T F2; `factor_residual` says how far those are from the
// given covariances. u below is the unit roundoff 2^-53.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "core/linalg.hpp"

namespace fastfid {

// Sigma = 4^exponent (F^T F + E).
struct Factor {
  linalg::Matrix f;                            // (r, d), row-major
  linalg::Shape shape = linalg::Shape::kFull;  // kUpper: the Cholesky factor of a positive definite Sigma
  int exponent = 0;                            // brings the trace into [1, 4), exactly
  double trace = 0;                            // of F^T F + E; 0 for a zero covariance
  double truncated = 0;                        // bound on tr E, where a pivoted Cholesky factorisation was stopped
  double residual = 0;                         // ||E||_F / trace
  std::size_t rank = 0;                        // numerical rank of F
  double flops = 0;                            // of the factorisation and its residual
};

struct Covariance {
  const double* sigma;
  std::size_t d;
  const char* name;  // the argument's name, for messages
};

// Factors covariances (d, d), C-contiguous, at the same time: Cholesky; where that fails or a pivot is lost in
// rounding, pivoted Cholesky, stopped at d u max(diagonal).
//
// Symmetry is required up to 1e-6 of the largest element (statistics files of other tools are symmetric to float32
// rounding at worst); the symmetric part is used. Throws InvalidArgument where it is not symmetric, NumericalError for
// NaN, infinity, or an indefinite matrix; the latter message begins with pytorch-fid's "Imaginary component".
// Cost each: d^3/3 flops for Cholesky (one thread) and 16 matrix-vector products to estimate the residual; for a
// singular one also d^2 r flops for the pivoted factorisation and as many for the exact residual. 8 d^2 bytes for the
// factor.
std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances);

// The factor of the sample covariance (divisor n - 1) of n >= 2 feature rows (n, d), C-contiguous: the rows less their
// mean, divided by sqrt(n - 1); for n > d their triangular QR factor. The mean is taken in float64 in two passes.
// Throws InvalidArgument for n < 2, NumericalError for NaN or infinity. Memory: 8 n d bytes. Cost for n > d: 2 n d^2
// flops.
template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const char* name);

enum class TraceMethod { kAuto, kEigen, kNewtonSchulz };

struct TraceResult {
  double value = 0;  // the point estimate, never the midpoint of the bounds
  double lower = 0;
  double upper = 0;
  std::string method;                   // the route `value` comes from: "eigen", "newton-schulz" or "svd"
  int iterations = 0;                   // polar iterations
  double gemms = 0;                     // flops of the products, factorisations and solves issued, in units of 2 d^3
  std::size_t rank = 0;                 // the smaller numerical rank of the two factors
  double factor_residual = 0;           // the larger ||Sigma - F^T F||_F / tr Sigma of the two
  std::string note;                     // what the user should know: truncation, a last resort, a tolerance not met
  std::vector<double> singular_values;  // of M, in no particular order, where the route yields them; else empty
};

// T of two factors of the same d, whose memory is used up. `tol`: the width of [lower, upper] asked for, relative to T;
// for kNewtonSchulz 1e-6 if absent, for the others the bracket that comes for free. Work is bounded: at most four
// Newton-Schulz stages, then the singular values of M. Never throws for finite factors except where LAPACK's iteration
// does not converge.
TraceResult trace_sqrt_product(Factor a, Factor b, TraceMethod method, std::optional<double> tol);

// What an approximate polar factor X of M (m x n, m >= n, X alike) proves about the nuclear norm of M.
//   lower:  ||X||_2 <= 2 implies ||X (3 I - X^T X) / 2||_2 <= 1, so tr of that times M is at most the nuclear norm:
//           lower = (3 tr H - <Y, H>) / 2 with Y = X^T X, H = X^T M. It counts only where ||X||_2 < 2 is proven: by
//           1 + ||Y - I||_F < 3.9, or by a Cholesky factorisation of 3.9 I - Y that succeeds.
//   upper:  (||C||_F^2 + ||M C^-1||_F^2) / 2 for any nonsingular C; C is a Cholesky factor of the symmetric part of H
//           plus mu I. Its gap is ||P^(-1/2) (P - |M|)||_F^2 / 2, P = C^T C: quadratic in the error of P.
// Rounding is added to both: the bounds hold for the computed M. An absent end is infinite.
// Cost: 1/2 + 1 + 1/6 + 1/2 products for square M, 1/6 more where ||Y - I||_F does not already prove the norm, 2/3 more
// for each further mu; four matrices of workspace.
struct PolarCertificate {
  bool is_norm_proven = false;  // ||X||_2 <= 2
  double estimate = 0;          // the lower bound before rounding is taken off: converges quadratically to T
  double lower = 0;
  double upper = 0;
  double flops = 0;
};
struct PolarWorkspace {
  linalg::Matrix y;
  linalg::Matrix h;
  linalg::Matrix c;
  linalg::Matrix w;
};
PolarCertificate polar_certificate(const linalg::Matrix& m, const linalg::Matrix& x, double tol,
                                   PolarWorkspace& workspace);

}  // namespace fastfid
