// The trace of the matrix square root of a product of covariances, T = tr((Sigma1 Sigma2)^(1/2)), with bounds.
//
// With Sigma_i = F_i^T F_i the non-zero eigenvalues of Sigma1 Sigma2 are those of M^T M, M = F1 F2^T, so T is the
// nuclear norm of M: the sum of the singular values of M. A factor is either a Cholesky factor or, for few samples, the
// centred feature rows themselves (n - 1 of them, after a reflection). The condition number of M is the square root of
// the condition number of the product. Nothing here is non-symmetric or complex, so the NaN and the imaginary parts
// that other FID tools return cannot arise.
//
// Four routes:
//   rational        for positive definite covariances, the fastest on CPUs: the trace of the root of F1 Sigma2 F1^T (or
//                   F2 Sigma1 F2^T), which has the same eigenvalues; neither the other factor, nor M, nor an
//                   eigenvalue is computed (core/band_root.hpp)
//   eigen           nuclear norm of M from the eigenvalues of M^T M
//   newton-schulz   polar iteration X -> X (c0 I + c1 Y + c2 Y^2), Y = X^T X, then a certificate (core/polar.hpp)
//   svd             singular values of M; several times slower, exact to rounding where M is singular
//
// The bounds hold for T of the covariances as given, with every element taken as exact. Where rounding made a
// covariance slightly indefinite, its positive semi-definite part takes its place. The routes bound T of the computed
// factors, F1^T F1 and F2^T F2 (the rational route: of one of these and of the other covariance itself).
// core/factor.hpp bounds the difference. u below is the unit roundoff 2^-53.
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

// lower <= T <= upper for the covariances as given; see the head of this file. `note` explains a wide bracket; the
// bracket is returned all the same.
struct TraceResult {
  double value = 0;  // the point estimate, never the midpoint of the bounds
  double lower = 0;
  double upper = 0;
  std::string method;                   // the route of `value`: "rational", "eigen", "newton-schulz" or "svd"
  int iterations = 0;                   // polar iterations
  double gemms = 0;                     // flops of the products, factorisations and solves issued, in units of 2 d^3
  std::size_t rank = 0;                 // the smaller numerical rank of the two factors
  double factor_residual = 0;           // the larger ||Sigma - F^T F||_F / tr Sigma of the two
  double float32_rounding = 0;          // distance by which both bounds were moved for float32 covariances
  std::string note;                     // notes for the user: a truncation, a last resort, a tolerance that was not met
  std::vector<double> singular_values;  // of M, in no particular order, where the route yields them; else empty
};

// T of two covariances and the facts about their factors. With kAuto, no `tol` and d >= linalg::kMinBandSize the
// rational route is tried first. It uses the factor of the side that gives the narrower bracket, say Sigma1. The route
// succeeds where Sigma1 has a Cholesky factor and F1 Sigma2 F1^T is positive definite well above rounding; this proves
// that Sigma2 is positive definite (Sylvester's law of inertia). Otherwise both covariances are factored and the
// function below is used. `needs_singular_values`: the rational route computes the singular values too, at the cost of
// the eigenvalues; `value` stays the same.
struct CovarianceTrace {
  FactorFacts a;
  FactorFacts b;
  TraceResult trace;
};
CovarianceTrace trace_sqrt_product(const Covariance& a, const Covariance& b, TraceMethod method,
                                   std::optional<double> tol, bool needs_singular_values = false);

// T of the covariances of two factors of the same d. The memory of the factors is consumed. `tol`: the wanted width of
// [lower, upper], relative to T. If `tol` is absent, it is 1e-6 for kNewtonSchulz, and the other methods return the
// bracket that needs no extra work. The work is bounded: at most four Newton-Schulz stages, then the singular values of
// M. Never throws for finite factors except where LAPACK's iteration does not converge.
//
// In addition to the route, the bracket costs 4/3 d^3 flops for two Cholesky factors, and up to 2 d^3 more for a
// covariance that is nearly singular (core/factor.hpp).
TraceResult trace_sqrt_product(Factor a, Factor b, TraceMethod method, std::optional<double> tol);

// T on another device, by the polar route. `device` holds M of the factors that `a` and `b` describe (m >= n).
// `error(enough)` returns factor_error() of these factors, with the part of each side at most `enough` or as small as
// it can be proven; it may add to the flops of the factors. `tol` is 1e-6 if absent. Where the bracket stays wider, M
// is copied to the host, the singular values of M are computed there, and `note` says so. Throws what `device` throws.
TraceResult trace_sqrt_product(const FactorFacts& a, const FactorFacts& b, PolarOperations& device,
                               std::optional<double> tol, const std::function<TraceError(double)>& error);

}  // namespace fastfid
