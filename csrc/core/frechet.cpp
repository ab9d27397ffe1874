#include "core/frechet.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/errors.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

Factor factor_side(const Gaussian& side, const char* sigma_name, const char* rows_name) {
  if (const auto* sigma = std::get_if<const double*>(&side.covariance)) {
    return factor_covariance(*sigma, side.d, sigma_name);
  }
  const auto& rows = std::get<FeatureRows>(side.covariance);
  return std::visit([&](const auto* data) { return factor_rows(data, rows.n, side.d, rows_name); }, rows.data);
}

void check_mean(const Gaussian& side, const char* name) {
  for (std::size_t i = 0; i < side.d; ++i) {
    FASTFID_EXPECT(std::isfinite(side.mu[i]), NumericalError, name, ": contains NaN or infinity");
  }
}

}  // namespace

FrechetResult frechet_distance(const Gaussian& a, const Gaussian& b, TraceMethod method, std::optional<double> tol) {
  FASTFID_EXPECT(a.d == b.d, InvalidArgument, "the two sides differ in dimension: ", a.d, " and ", b.d);
  FASTFID_EXPECT(a.d >= 1, InvalidArgument, "expected d >= 1, got d = 0");
  check_mean(a, "mu1");
  check_mean(b, "mu2");
  FrechetResult out;
  for (std::size_t i = 0; i < a.d; ++i) {
    const double difference = a.mu[i] - b.mu[i];
    out.mean_term += difference * difference;
  }
  std::array<Factor, 2> factors;
  parallel_for(2, [&](std::size_t i) {
    factors[i] = i == 0 ? factor_side(a, "sigma1", "rows1") : factor_side(b, "sigma2", "rows2");
  });
  out.trace = trace_sqrt_product(factors[0], factors[1], method, tol);
  out.trace1 = std::scalbn(factors[0].trace, 2 * factors[0].exponent);
  out.trace2 = std::scalbn(factors[1].trace, 2 * factors[1].exponent);
  const double positive = out.mean_term + out.trace1 + out.trace2;
  FASTFID_EXPECT(std::isfinite(positive), NumericalError,
                 "the distance exceeds the range of float64: |mu1 - mu2|^2 is ", out.mean_term, ", the traces are ",
                 out.trace1, " and ", out.trace2);
  // Rounding of the sums above.
  const double slack =
      (static_cast<double>(a.d) + 8) * std::numeric_limits<double>::epsilon() / 2 * (positive + 2 * out.trace.upper);
  // A squared distance is not negative: where rounding says so, zero is the nearest possible value.
  out.lower = std::max(0.0, positive - 2 * out.trace.upper - slack);
  out.upper = std::max(0.0, positive - 2 * out.trace.lower + slack);
  out.value = std::clamp(positive - 2 * out.trace.value, out.lower, out.upper);
  const std::size_t d = a.d;
  if (a.n && b.n && *a.n > d && *b.n > d && !out.trace.singular_values.empty()) {
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
