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

#include "core/covariance.hpp"
#include "core/factorisation.hpp"
#include "core/polar.hpp"

namespace fastfid {

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
