// The Fréchet distance (2-Wasserstein, squared) of two Gaussians:
//   |mu1 - mu2|^2 + tr Sigma1 + tr Sigma2 - 2 tr((Sigma1 Sigma2)^(1/2))
// Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; as an image metric Heusel
// et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "core/trace_sqrt.hpp"

namespace fastfid {

// Feature rows (n, d), C-contiguous, uncentred: what a side with few samples has in place of its covariance.
struct FeatureRows {
  std::variant<const float*, const double*> data;
  std::size_t n;
};

// One Gaussian. The covariance is given by its elements, (d, d) C-contiguous, or by the rows whose covariance it is
// (divisor n - 1). With rows the distance is exact for n <= d: the square root of the rounding noise in a singular
// covariance never enters. Does not own its memory.
struct Gaussian {
  std::string name;            // begins the messages about this Gaussian; may be empty
  const double* mu = nullptr;  // (d,)
  std::size_t d = 0;
  std::variant<const double*, FeatureRows> covariance;
  std::optional<std::size_t> n{};  // samples behind mean and covariance, where known; only the bias needs the number

  // What messages call a part, such as "sigma".
  std::string label(const std::string& part) const { return name.empty() ? part : name + ": " + part; }
};

// lower <= distance <= upper for covariances as given, up to the rounding of the means' term; a slightly indefinite
// covariance stands for its positive semi-definite part.
struct FrechetResult {
  double value = 0;  // the point estimate
  double lower = 0;  // from the bounds of the trace; never below 0
  double upper = 0;
  double mean_term = 0;        // |mu1 - mu2|^2
  double trace1 = 0;           // tr Sigma1
  double trace2 = 0;           // tr Sigma2
  TraceResult trace;           // tr((Sigma1 Sigma2)^(1/2))
  std::optional<double> bias;  // see sampling_bias; none where a number of samples is unknown or <= d, where the bias
                               // was not asked for, and on routes without singular values
};

// Throws InvalidArgument for d = 0, Gaussians of different d, asymmetry; NumericalError for NaN, infinity, an
// indefinite covariance, or a result beyond float64. Messages begin with the name of the Gaussian. The bias takes
// singular values, which the fastest route does not need: the route may change with `needs_bias`. Cost and threads: see
// trace_sqrt_product.
FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, TraceMethod method, std::optional<double> tol,
                               bool needs_bias);

// What a device contributes to the distance: the traces of the two covariances, and T with its bounds.
struct TraceTerms {
  double trace1 = 0;
  double trace2 = 0;
  double error = 0;  // bound on the error of their sum, where it is more than that of a sum of d elements
  TraceResult trace;
};

// The traces and their error from the facts of two factors; `trace` is left empty.
TraceTerms trace_terms(const FactorFacts& a, const FactorFacts& b);

// The distance from the means of two Gaussians and from the terms that `solve()` returns.
FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, const std::function<TraceTerms()>& solve,
                               bool needs_bias);

// The factor of the covariance of rows.
Factor factor_rows(const FeatureRows& rows, std::size_t d, const std::string& name);

// The factor of the covariance, however it is given.
Factor factor_gaussian(const Gaussian& gaussian);

// By how much the distance of sample estimates exceeds that of the Gaussians, to second order in Wishart noise:
//   tr Sigma1 / n1 + tr Sigma2 / n2 + (1/n1 + 1/n2) (sum_ij s_i s_j / (s_i + s_j) + T / 2) / 2
// with s the singular values of M and T their sum. With the samples' own s in place of the true ones it is too small,
// by about 3 % at n = 10 d, 10 % at 3 d and 6 % at 2 d with d = 64; for n <= d it means nothing.
double sampling_bias(const std::vector<double>& singular_values, double trace1, double trace2, std::size_t n1,
                     std::size_t n2);

}  // namespace fastfid
