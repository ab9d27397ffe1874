#include "core/frechet.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/errors.hpp"

namespace fastfid {
namespace {

void check_mean(const Gaussian& side, const char* name) {
  for (std::size_t i = 0; i < side.d; ++i) {
    FASTFID_EXPECT(std::isfinite(side.mu[i]), NumericalError, name, ": contains NaN or infinity");
  }
}

// The factors of sides of which one at least is given by its rows.
std::array<Factor, 2> factor_sides(const Gaussian& a, const Gaussian& b) {
  const std::array<const Gaussian*, 2> sides = {&a, &b};
  const std::array<const char*, 2> sigma_names = {"sigma1", "sigma2"};
  const std::array<const char*, 2> rows_names = {"rows1", "rows2"};
  std::array<Factor, 2> out;
  for (std::size_t i = 0; i < 2; ++i) {
    if (const auto* sigma = std::get_if<const double*>(&sides[i]->covariance)) {
      out[i] = std::move(factor_covariances({{*sigma, sides[i]->d, sigma_names[i]}}).front());
    } else {
      out[i] = factor_rows(std::get<FeatureRows>(sides[i]->covariance), sides[i]->d, rows_names[i]);
    }
  }
  return out;
}

bool has_bias(const Gaussian& a, const Gaussian& b) { return a.n && b.n && *a.n > a.d && *b.n > a.d; }

}  // namespace

TraceTerms trace_terms(const FactorFacts& a, const FactorFacts& b) {
  const auto unscaled = [](double x, const FactorFacts& factor) { return std::scalbn(x, 2 * factor.exponent); };
  return {unscaled(a.trace, a), unscaled(b.trace, b), unscaled(trace_error(a), a) + unscaled(trace_error(b), b), {}};
}

Factor factor_rows(const FeatureRows& rows, std::size_t d, const char* name) {
  return std::visit([&](const auto* data) { return factor_rows(data, rows.n, d, name); }, rows.data);
}

FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, TraceMethod method, std::optional<double> tol) {
  return frechet_distance(a, b, [&] {
    const auto* const sigma1 = std::get_if<const double*>(&a.covariance);
    const auto* const sigma2 = std::get_if<const double*>(&b.covariance);
    if (sigma1 != nullptr && sigma2 != nullptr) {
      auto found = trace_sqrt_product({*sigma1, a.d, "sigma1"}, {*sigma2, b.d, "sigma2"}, method, tol, has_bias(a, b));
      TraceTerms out = trace_terms(found.a, found.b);
      out.trace = std::move(found.trace);
      return out;
    }
    auto factors = factor_sides(a, b);
    TraceTerms out = trace_terms(factors[0], factors[1]);
    out.trace = trace_sqrt_product(std::move(factors[0]), std::move(factors[1]), method, tol);
    return out;
  });
}

FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, const std::function<TraceTerms()>& solve) {
  FASTFID_EXPECT(a.d == b.d, InvalidArgument, "the two sides differ in dimension: ", a.d, " and ", b.d);
  FASTFID_EXPECT(a.d >= 1, InvalidArgument, "expected d >= 1, got d = 0");
  check_mean(a, "mu1");
  check_mean(b, "mu2");
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
  if (has_bias(a, b) && !out.trace.singular_values.empty()) {
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
