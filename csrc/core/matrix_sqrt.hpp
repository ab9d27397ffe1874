// The trace of the matrix square root of a product of covariances, T = tr((Sigma1 Sigma2)^(1/2)), with bounds.
//
// With Sigma_i = F_i^T F_i the non-zero eigenvalues of Sigma1 Sigma2 are those of M^T M, M = F1 F2^T, so T is the
// nuclear norm of M: the sum of its singular values. A factor is either a Cholesky factor or, for few samples, the
// centred feature rows themselves (n - 1 of them, after a reflection). The condition number of M is the square root of
// that of the product, and nothing here is non-symmetric or complex: what makes other FID tools return NaN or imaginary
// parts cannot arise.
//
// Four routes:
//   rational        for positive definite covariances, the fastest on CPUs: the trace of the root of F1 Sigma2 F1^T (or
//                   F2 Sigma1 F2^T), which has the same eigenvalues; the other factor is not formed, nor M, nor an
//                   eigenvalue (core/band_root.hpp)
//   eigen           nuclear norm of M from the eigenvalues of M^T M
//   newton-schulz   polar iteration X -> X (c0 I + c1 Y + c2 Y^2), Y = X^T X, then a certificate (core/polar.hpp)
//   svd             singular values of M; several times slower, exact to rounding where M is singular
//
// Bounds are about T of the covariances as given, every element exact: of their positive semi-definite parts, where
// rounding made one slightly indefinite. What the routes bound is T of the computed factors, F1^T F1 and F2^T F2
// (rational: one of them and the other covariance itself); core/factor.hpp bounds the difference. u below is the
// unit roundoff 2^-53.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/factor.hpp"
#include "core/linalg.hpp"
#include "core/polar.hpp"

namespace fastfid {

// The k for which x 4^-k is in [1, 4), x > 0 and finite: `exponent` of a covariance of trace x.
int power_of_four(double x);

struct Covariance {
  const double* sigma;
  std::size_t d;
  const char* name;  // the argument's name, for messages
};

// Factors covariances (d, d), C-contiguous, at the same time: Cholesky; where that fails or a pivot is lost in
// rounding, pivoted Cholesky, stopped at d u max(diagonal). A Cholesky factor has |S - F^T F| <= (d + 1) u |F|^T |F|
// (Higham, "Accuracy and Stability of Numerical Algorithms", theorem 10.3, for any order of the sums), and from that
// its `distance`; that of a pivoted one is measured.
//
// Symmetry is required up to 1e-6 of the largest element (statistics files of other tools are symmetric to float32
// rounding at worst); the symmetric part is used. Throws InvalidArgument where it is not symmetric, NumericalError for
// NaN, infinity, or an indefinite matrix; the latter message begins with pytorch-fid's "Imaginary component".
// A singular covariance that was stored as float32 is indefinite by the rounding of its elements. It is accepted where
// all elements are float32 numbers and no eigenvalue is below -2^-24 ||Sigma||_F: by Weyl, some positive semi-definite
// S can round to it. F is then the part of the spectrum above the most negative eigenvalue's magnitude, and `rounded`
// bounds the distance to any such S.
// Cost each: d^3/3 flops for Cholesky and 64 d^2 flops to estimate the residual; for a
// singular one also d^2 r flops for the pivoted factorisation and 3 d^2 r for the residual. 8 d^2 bytes for the factor.
std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances);

// The factor of the sample covariance (divisor n - 1) of n >= 2 feature rows (n, d), C-contiguous: the rows less their
// mean, divided by sqrt(n - 1), after a reflection that makes one of them zero, which is left out; for n > d their
// triangular QR factor. The mean is taken in float64 in two passes. Throws InvalidArgument for n < 2, NumericalError
// for NaN or infinity. Memory: 8 n d bytes. Cost for n > d: 2 n d^2 flops, and n d^2 + d^3 to measure what the factor
// leaves.
template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const char* name);

enum class TraceMethod { kAuto, kEigen, kNewtonSchulz };

// lower <= T <= upper for the covariances as given; see the head of this file. `note` explains a wide bracket and never
// replaces it.
struct TraceResult {
  double value = 0;  // the point estimate, never the midpoint of the bounds
  double lower = 0;
  double upper = 0;
  std::string method;                   // the route `value` comes from: "rational", "eigen", "newton-schulz" or "svd"
  int iterations = 0;                   // polar iterations
  double gemms = 0;                     // flops of the products, factorisations and solves issued, in units of 2 d^3
  std::size_t rank = 0;                 // the smaller numerical rank of the two factors
  double factor_residual = 0;           // the larger ||Sigma - F^T F||_F / tr Sigma of the two
  double float32_rounding = 0;          // by how much both bounds were moved for covariances rounded to float32
  std::string note;                     // what the user should know: truncation, a last resort, a tolerance not met
  std::vector<double> singular_values;  // of M, in no particular order, where the route yields them; else empty
};

// T of two covariances and what is known about their factors. With kAuto, no `tol` and d >= linalg::kMinBandSize the
// rational route is tried first, from the factor of the side that gives the narrower bracket, say Sigma1; it settles
// the matter where that has a Cholesky factor and F1 Sigma2 F1^T turns out to be positive definite well above rounding,
// which proves that Sigma2 is (Sylvester's law of inertia). Otherwise both are factored, see below.
// `needs_singular_values`: the rational route yields them too, at the price of the eigenvalues; the value is the same.
struct CovarianceTrace {
  FactorFacts a;
  FactorFacts b;
  TraceResult trace;
};
CovarianceTrace trace_sqrt_product(const Covariance& a, const Covariance& b, TraceMethod method,
                                   std::optional<double> tol, bool needs_singular_values = false);

// T of the covariances of two factors of the same d, whose memory is used up. `tol`: the width of [lower, upper] asked
// for, relative to T; for kNewtonSchulz 1e-6 if absent, for the others the bracket that comes for free. Work is
// bounded: at most four Newton-Schulz stages, then the singular values of M. Never throws for finite factors except
// where LAPACK's iteration does not converge.
//
// Beside the route, the bracket costs 4/3 d^3 flops for two Cholesky factors, and up to 2 d^3 more for a covariance
// near to singular (core/factor.hpp).
TraceResult trace_sqrt_product(Factor a, Factor b, TraceMethod method, std::optional<double> tol);

// The same on another device, by the polar route: `device` holds M of the factors that `a` and `b` describe (m >= n).
// `error(enough)`: factor_error() of these factors, each side's part known to be `enough` or as well as can be; it may
// add to their flops. `tol` is 1e-6 if absent. Where the bracket stays wider, the last resort is the host's: M is
// copied and its singular values taken there, and `note` says so. Throws what `device` throws.
TraceResult trace_sqrt_product(const FactorFacts& a, const FactorFacts& b, PolarOperations& device,
                               std::optional<double> tol, const std::function<TraceError(double)>& error);

}  // namespace fastfid
