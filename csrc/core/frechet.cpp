#include "core/frechet.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/errors.hpp"

namespace fastfid {
namespace {

void check_mean(const Gaussian& gaussian) {
  for (std::size_t i = 0; i < gaussian.d; ++i) {
    FASTFID_EXPECT(std::isfinite(gaussian.mu[i]), NumericalError, gaussian.label("mu"), ": contains NaN or infinity");
  }
}

bool has_bias(const Gaussian& a, const Gaussian& b) { return a.n && b.n && *a.n > a.d && *b.n > a.d; }

}  // namespace

TraceTerms trace_terms(const FactorFacts& a, const FactorFacts& b) {
  const auto unscaled = [](double x, const FactorFacts& factor) { return std::scalbn(x, 2 * factor.exponent); };
  return {unscaled(a.trace, a), unscaled(b.trace, b), unscaled(trace_error(a), a) + unscaled(trace_error(b), b), {}};
}

Factor factor_rows(const FeatureRows& rows, std::size_t d, const std::string& name) {
  return std::visit([&](const auto* data) { return factor_rows(data, rows.n, d, name); }, rows.data);
}

Factor factor_gaussian(const Gaussian& gaussian) {
  if (const auto* sigma = std::get_if<const double*>(&gaussian.covariance)) {
    return std::move(factor_covariances({{*sigma, gaussian.d, gaussian.label("sigma")}}).front());
  }
  return factor_rows(std::get<FeatureRows>(gaussian.covariance), gaussian.d, gaussian.label("rows"));
}

FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, TraceMethod method, std::optional<double> tol,
                               bool needs_bias) {
  const auto solve = [&] {
    const auto* const sigma_a = std::get_if<const double*>(&a.covariance);
    const auto* const sigma_b = std::get_if<const double*>(&b.covariance);
    if (sigma_a != nullptr && sigma_b != nullptr) {
      auto found = trace_sqrt_product({*sigma_a, a.d, a.label("sigma")}, {*sigma_b, b.d, b.label("sigma")}, method, tol,
                                      needs_bias && has_bias(a, b));
      TraceTerms out = trace_terms(found.a, found.b);
      out.trace = std::move(found.trace);
      return out;
    }
    Factor factor_a = factor_gaussian(a);
    Factor factor_b = factor_gaussian(b);
    TraceTerms out = trace_terms(factor_a, factor_b);
    out.trace = trace_sqrt_product(std::move(factor_a), std::move(factor_b), method, tol);
    return out;
  };
  return frechet_distance(a, b, solve, needs_bias);
}

FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, const std::function<TraceTerms()>& solve,
                               bool needs_bias) {
  FASTFID_EXPECT(a.d == b.d, InvalidArgument, "Gaussians of different dimension: ", a.label("d = "), a.d, ", ",
                 b.label("d = "), b.d);
  FASTFID_EXPECT(a.d >= 1, InvalidArgument, "expected d >= 1, got d = 0");
  check_mean(a);
  check_mean(b);
  FrechetResult out;
  for (std::size_t i = 0; i < a.d; ++i) {
    const double difference = a.mu[i] - b.mu[i];
    out.mean_term += difference * difference;
  }
  TraceTerms terms = solve();
  out.trace1 = terms.trace1;
  out.trace2 = terms.trace2;
  out.trace = std::move(terms.trace);
  const double positive = out.mean_term + out.trace1 + out.trace2;
  FASTFID_EXPECT(std::isfinite(positive), NumericalError,
                 "the distance exceeds the range of float64: |mu1 - mu2|^2 is ", out.mean_term, ", the traces are ",
                 out.trace1, " and ", out.trace2);
  // Rounding of the sums above.
  double slack = terms.error + (static_cast<double>(a.d) + 8) * std::numeric_limits<double>::epsilon() / 2 *
                                   (positive + 2 * out.trace.upper);
  if (positive > 0) slack += 16 * std::numeric_limits<double>::denorm_min();  // where they underflow
  // A squared distance is not negative: where rounding says so, zero is the nearest possible value.
  out.lower = std::max(0.0, positive - 2 * out.trace.upper - slack);
  out.upper = std::max(0.0, positive - 2 * out.trace.lower + slack);
  out.value = std::clamp(positive - 2 * out.trace.value, out.lower, out.upper);
  if (needs_bias && has_bias(a, b) && !out.trace.singular_values.empty()) {
    out.bias = sampling_bias(out.trace.singular_values, out.trace1, out.trace2, *a.n, *b.n);
  }
  return out;
}

double sampling_bias(const std::vector<double>& singular_values, double trace1, double trace2, std::size_t n1,
                     std::size_t n2) {
  double sum = 0;
  double trace = 0;
  for (std::size_t i = 0; i < singular_values.size(); ++i) {
    const double s = singular_values[i];
    trace += s;
    if (s <= 0) continue;
    sum += s / 2;
    for (std::size_t j = 0; j < i; ++j) sum += 2 * s * (singular_values[j] / (s + singular_values[j]));
  }
  const double r1 = 1 / static_cast<double>(n1);
  const double r2 = 1 / static_cast<double>(n2);
  return trace1 * r1 + trace2 * r2 + (r1 + r2) * (sum + trace / 2) / 2;
}

}  // namespace fastfid
