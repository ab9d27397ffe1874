#include "core/trace_sqrt.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/band.hpp"
#include "core/band_root.hpp"
#include "core/congruence.hpp"
#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/parallel.hpp"
#include "core/products.hpp"
#include "core/root_table.hpp"

namespace fastfid {
namespace {

using linalg::Matrix;
using linalg::Shape;

constexpr std::size_t kLeastParallel = 256;  // the d from which a second thread saves more time than it costs

// x 2^e. Where the result is so small that it is rounded, scaled_down() returns no larger number and scaled_up() no
// smaller number than x 2^e.
double scaled_down(double x, int e) {
  const double y = scaled(x, e);
  return scaled(y, -e) > x ? std::nextafter(y, 0.0) : y;
}
double scaled_up(double x, int e) {
  const double y = scaled(x, e);
  return scaled(y, -e) < x ? std::nextafter(y, kInfinity) : y;
}

// Nuclear norm from the eigenvalues of G = M^T M. With ||computed G - G||_F and LAPACK's backward error together below
// eta = (m + n) u ||M||_F^2 (the product's share is proven; the eigensolver's is LAPACK's documented p(n) u ||G|| with
// p(n) = n), sum (computed - true eigenvalue)^2 <= eta^2 by Hoffman and Wielandt. Hence, over the eigenvalues above
// 2 eta, |sum of changes of the roots| <= 0.6 eta sqrt(sum 1/lambda) by the Cauchy-Schwarz inequality.
struct EigenRoute {
  double value = 0;
  double lower = 0;
  double upper = 0;
  bool is_resolved = false;  // few eigenvalues are in the noise, where half of the digits of a root are wrong
  std::vector<double> singular_values;
};

// If the relative error of the value is larger than this, the singular values of M are computed instead, at five times
// the cost.
constexpr double kEigenError = 1e-9;

EigenRoute eigen_route(const Matrix& m, double norm_m, Matrix& g, double& flops) {
  EigenRoute out;
  flops += linalg::gram(m, g, linalg::Fill::kUpper);
  const double n = real(m.cols());
  out.singular_values = linalg::symmetric_eigenvalues(g);
  flops += 4.0 / 3.0 * n * n * n;
  const double largest = std::max(0.0, out.singular_values.back());
  const double eta = (real(m.rows()) + n) * kUnitRoundoff * norm_m * norm_m;
  // The effect of rounding on a small eigenvalue, and through the roots on the value. This is an estimate, not a bound
  // (at n = 2000 the smallest eigenvalues were off by 0.03 u ||G||, the largest by 65 u ||G||).
  const double noise = std::sqrt(std::max(n, real(m.rows()))) * kUnitRoundoff * largest;
  double error = 0;
  double reciprocals = 0;
  for (double& value : out.singular_values) {
    const double lambda = value;
    value = std::sqrt(std::max(0.0, lambda));
    out.value += value;
    error += lambda > noise ? noise / (2 * value) : std::sqrt(noise);
    if (lambda > 2 * eta) {
      out.lower += value;
      out.upper += value;
      reciprocals += 1 / lambda;
    } else {
      out.lower += std::sqrt(std::max(0.0, lambda - eta));
      out.upper += std::sqrt(std::max(0.0, lambda + eta));
    }
  }
  out.is_resolved = error <= kEigenError * out.value;
  const double slack = 0.6 * eta * std::sqrt(reciprocals) + 2 * n * kUnitRoundoff * out.upper;
  out.lower -= slack;
  out.upper += slack;
  return out;
}

// The error of forming M: |M - F1 F2^T| <= d u |F1| |F2^T|, times sqrt(n) in the nuclear norm.
double forming_error(const FactorFacts& a, const FactorFacts& b, std::size_t n) {
  return 1.01 * std::sqrt(real(n)) * real(a.d) * kUnitRoundoff * std::sqrt(a.trace * b.trace);
}

// For each side, the effect of the factor's rounding on T that needs no narrower bound. It is small against the rest of
// the bracket of the nuclear norm of M (n columns), and no larger than the tolerance allows.
double enough_factor_error(const FactorFacts& a, const FactorFacts& b, std::size_t n, const Bracket& bracket,
                           std::optional<double> tol) {
  const TraceError rest =
      factor_error(a, b, a.has_first_order() ? 0 : kNoFirstOrder, b.has_first_order() ? 0 : kNoFirstOrder);
  const double width = bracket.upper - bracket.lower + 2 * forming_error(a, b, n) + rest.below + rest.above;
  // Both sides together widen the bracket by three times this result: see factor_error().
  return tol ? std::clamp((*tol * bracket.upper - width) / 3, 0.0, width / 4) : width / 4;
}

constexpr char kSingular[] = "the covariances' product is singular to working precision";
constexpr char kTooNarrow[] = "the bracket asked for is narrower than the other routes give";

// The singular values of M, where no other route succeeds. The method is backward stable: ||M - computed||_F <= (m + n)
// u ||M||_F (LAPACK's documented bound), times sqrt(n) in the nuclear norm.
void last_resort(Matrix m, double norm_m, const char* why, TraceResult& out, Bracket& bracket, double& flops) {
  const double n = real(m.cols());
  const double slack = std::sqrt(n) * (real(m.rows()) + n) * kUnitRoundoff * norm_m;
  flops += 8.0 / 3.0 * real(m.rows()) * n * n;
  out.singular_values = linalg::singular_values(m);
  out.value = 0;
  for (const double s : out.singular_values) out.value += s;
  bracket.intersect(out.value - slack, out.value + slack);
  out.method = "svd";
  out.note = message("taken from the singular values of M, the slowest route, as ", why);
}

// T <= ||F1||_F ||F2||_F. This bound is proven before any iteration; identical covariances nearly attain it.
double factor_bound(const FactorFacts& a, const FactorFacts& b) {
  return std::sqrt((a.trace + a.rounded) * (b.trace + b.rounded)) * (1 + 8 * real(a.d) * kUnitRoundoff);
}

void expect_finite(const TraceResult& out) {
  FASTFID_EXPECT(std::isfinite(out.value), NumericalError,
                 "the trace of the matrix square root exceeds the range of float64");
}

void expect_same_dimension(std::size_t d1, std::size_t d2) {
  FASTFID_EXPECT(d1 == d2, InvalidArgument, "the two sides differ in dimension: ", d1, " and ", d2);
}

void add_note(TraceResult& out, const std::string& note) { out.note += (out.note.empty() ? "" : "; ") + note; }

// A width relative to the upper bound. A bracket within the default tolerance of Newton-Schulz is not wide.
constexpr double kPolarTol = 1e-6;

// Adds a note where the bracket is wide because of the factors.
void note_factors(const FactorFacts& a, const FactorFacts& b, const TraceError& error, double upper, TraceResult& out) {
  if ((a.is_singular && a.rounded == 0) || (b.is_singular && b.rounded == 0)) {
    add_note(out, message("a covariance is singular (rank ", out.rank, " of ", a.d, ")"));
  }
  if (error.rounded > 0) {
    add_note(
        out,
        "a covariance is indefinite, as rounding to float32 makes a singular one: eigenvalues of that size were "
        "taken as zero, and the bounds hold for every covariance that rounds to it; features or float64 statistics "
        "avoid it");
  }
  const double width = error.below + error.above - 2 * error.rounded;
  if (width > kPolarTol * upper) {
    std::array<char, 16> share;
    std::snprintf(share.data(), share.size(), "%.1e", width / upper);
    add_note(out, message("the bounds include what rounding may do in the factors, ", share.data(),
                          " of the trace: a covariance is singular or nearly so, or large where the other is small"));
  }
}

// From the nuclear norm of M (n columns) to T: adds the rounding in M and the error of the factors, and applies the
// scale.
void finish(const FactorFacts& a, const FactorFacts& b, const TraceError& error, std::size_t n, Bracket bracket,
            double flops, std::optional<double> tol, TraceResult& out) {
  const double formed = forming_error(a, b, n);
  bracket.lower = std::max(0.0, bracket.lower - formed - error.below);
  bracket.upper = std::min(bracket.upper + formed + error.above, trace_bound(a, b));
  // An estimate above this bound is due to rounding, for example for identical sides.
  if (!a.is_singular && !b.is_singular) out.value = std::min(out.value, factor_bound(a, b));
  note_factors(a, b, error, bracket.upper, out);
  if (tol && !bracket.is_within(*tol)) {
    add_note(out, message("the bracket is wider than asked: ", (bracket.upper - bracket.lower) / bracket.upper,
                          " relative"));
  }

  const int exponent = a.exponent + b.exponent;
  out.value = scaled(std::clamp(out.value, bracket.lower, bracket.upper), exponent);
  out.lower = scaled_down(bracket.lower, exponent);
  out.upper = scaled_up(bracket.upper, exponent);
  out.float32_rounding = scaled(error.rounded, exponent);
  for (double& s : out.singular_values) s = scaled(s, exponent);
  out.gemms = flops / (2 * real(a.d) * real(a.d) * real(a.d));
  expect_finite(out);
}

TraceResult begin(const FactorFacts& a, const FactorFacts& b, const char* method) {
  expect_same_dimension(a.d, b.d);
  TraceResult out;
  out.rank = std::min(a.rank, b.rank);
  out.factor_residual = std::max(a.residual, b.residual);
  out.method = method;
  return out;
}

double frobenius_norm(const linalg::Band& band) {
  double sum = 0;
  for (std::size_t j = 0; j < band.n; ++j) {
    const double* const column = band.elements.data() + j * (band.width + 1);
    sum += column[0] * column[0];
    for (std::size_t i = 1; i <= std::min(band.width, band.n - 1 - j); ++i) sum += 2 * column[i] * column[i];
  }
  return std::sqrt(sum);
}

// T by the rational route from the Cholesky factor of S1 and from S2; empty where the route does not succeed. The flops
// of the route are added to `factor.flops` in either case.
std::optional<TraceResult> rational_route(const ScaledCovariance& a, const CovarianceNorms& norms_a, Factor& factor,
                                          const ScaledCovariance& b, const CovarianceNorms& norms_b,
                                          bool needs_singular_values) {
  const double d = real(a.d);
  // The backward error of the products in the Frobenius norm. First, |computed Q - F K| <= d u |F| |K|. The product
  // with F^T and the two halves of the sum carry this error into G, where ||F||_2^2 = ||S1||_2 and 2 ||K||_F^2 <=
  // ||S2||_F^2. Second, the sums of 2 d products have the error 2 d u (|Q| |F^T| + |F| |Q^T|).
  const double first = 1.01 * d * kUnitRoundoff * std::sqrt(2 * a.trace * norms_a.spectral) * norms_b.frobenius;
  // lambda_min(G) <= lambda_min(F F^T) ||S2||_2, and no pivot is below lambda_min(F^T F). Where this bound is too
  // small, G cannot be resolved.
  double least_pivot = kInfinity;
  for (std::size_t i = 0; i < a.d; ++i) least_pivot = std::min(least_pivot, factor.f(i, i) * factor.f(i, i));
  if (least_pivot * norms_b.frobenius <= 2 * first) return std::nullopt;
  linalg::Congruence product = linalg::congruence(factor.f, b.elements());
  linalg::Band band = linalg::reduce_to_band(product.g);
  factor.flops += product.flops + 4.0 / 3.0 * d * d * d;
  const double products = first + 1.01 * d * kUnitRoundoff * 4 * std::sqrt(a.trace) * product.norm_q;
  // The reduction to a band: LAPACK's form p(d) u ||G|| with p(d) = d. The band: an estimate, which is twice (width +
  // 1) u sqrt(2 width + 1), the size of the error of a factorisation L D L^T. The measured error is a sixtieth of the
  // estimate.
  const double width = real(band.width);
  const double norm_g = frobenius_norm(band);
  const double eta = products + kUnitRoundoff * (d + 2 * (width + 1) * std::sqrt(2 * width + 1)) * norm_g;
  const BandRoot root = root_trace(band, 2 * eta);
  if (!(root.is_resolved && std::isfinite(eta))) return std::nullopt;
  factor.flops += 3 * d * width * width * real(root::kPoleCount);
  // As in eigen_route. In addition, ||M||_F^2 = tr G, whose error is at most sqrt(d) eta.
  const double slack =
      0.6 * eta * std::sqrt(root.reciprocals) + (2 * d * kUnitRoundoff + 2 * root::kError) * root.value;
  Bracket bracket{std::max(0.0, root.value - slack), root.value + slack};
  double trace_g = 0;
  for (std::size_t j = 0; j < band.n; ++j) trace_g += band.elements[j * (band.width + 1)];
  const double trace_error = std::sqrt(d) * eta + d * kUnitRoundoff * trace_g;
  bracket.intersect(std::sqrt(std::max(0.0, trace_g - trace_error)), std::sqrt(d * (trace_g + trace_error)));
  bracket.upper = std::min(bracket.upper, factor_bound(factor, facts_of(b)));
  // S2 is exact, so only L1 of core/factor.hpp is needed. With V = I, L1 is at most ||X|| ||D1||, and ||X|| =
  // ||G^(1/4) (F1 F1^T)^-1 G^(1/4)|| <= ||S2||_2 ||G^(-1/2)||, since G <= ||S2||_2 F1 F1^T. No eigenvalue of G is below
  // half of the corresponding eigenvalue of B, which is at least 2 eta.
  const double from_factor = 1.01 * factor.distance * norms_b.spectral * std::sqrt(2 * root.reciprocals);
  bracket.lower = std::max(0.0, bracket.lower - from_factor);
  bracket.upper = std::min(bracket.upper + from_factor / 2, trace_bound(factor, facts_of(b)));

  TraceResult out;
  out.method = "rational";
  out.rank = a.d;
  const int exponent = a.exponent + b.exponent;
  out.value = scaled(std::clamp(root.value, bracket.lower, bracket.upper), exponent);
  out.lower = scaled_down(bracket.lower, exponent);
  out.upper = scaled_up(bracket.upper, exponent);
  expect_finite(out);
  if (needs_singular_values) {
    out.singular_values = linalg::symmetric_eigenvalues(std::move(band));
    for (double& x : out.singular_values) x = scaled(std::sqrt(std::max(0.0, x)), exponent);
  }
  return out;
}

}  // namespace

CovarianceTrace trace_sqrt_product(const Covariance& a, const Covariance& b, TraceMethod method,
                                   std::optional<double> tol, bool needs_singular_values) {
  expect_same_dimension(a.d, b.d);
  const SerialScope serial(a.d < kLeastParallel);
  const auto checked = check_covariances({a, b});
  std::array<Factor, 2> factors;
  std::array<bool, 2> is_factored{};
  if (method == TraceMethod::kAuto && !tol && a.d >= linalg::kMinBandSize && checked[0].trace > 0 &&
      checked[1].trace > 0) {
    // The side with the smaller tr S / ||S||_F is factored, because this gives the narrower bracket.
    const std::array<CovarianceNorms, 2> sizes = {norms(checked[0]), norms(checked[1])};
    const auto spread = [&](std::size_t i) { return checked[i].trace / sizes[i].frobenius; };
    const std::size_t i = spread(0) <= spread(1) ? 0 : 1;
    factors[i] = factor_checked(checked[i]);
    check_residual(checked[i], factors[i]);
    is_factored[i] = true;
    if (factors[i].shape == Shape::kUpper) {
      if (auto found =
              rational_route(checked[i], sizes[i], factors[i], checked[1 - i], sizes[1 - i], needs_singular_values)) {
        found->factor_residual = factors[i].residual;
        found->gemms = factors[i].flops / (2 * real(a.d) * real(a.d) * real(a.d));
        CovarianceTrace out{factors[0], factors[1], std::move(*found)};
        FactorFacts& other = i == 0 ? out.b : out.a;
        other = facts_of(checked[1 - i]);
        other.rank = a.d;
        return out;
      }
    }
  }
  parallel_for(2, [&](std::size_t i) {
    if (!is_factored[i]) factors[i] = factor_checked(checked[i]);
  });
  for (std::size_t i = 0; i < 2; ++i) {
    if (!is_factored[i]) check_residual(checked[i], factors[i]);
  }
  CovarianceTrace out{factors[0], factors[1], {}};
  out.trace = trace_sqrt_product(std::move(factors[0]), std::move(factors[1]), method, tol);
  return out;
}

TraceResult trace_sqrt_product(Factor a, Factor b, TraceMethod method, std::optional<double> tol) {
  const SerialScope serial(a.d < kLeastParallel);
  TraceResult out = begin(a, b, method == TraceMethod::kNewtonSchulz ? "newton-schulz" : "eigen");
  if (a.trace == 0 || b.trace == 0) return out;

  // M becomes tall, so that the Gram matrix is formed on the smaller side.
  if (a.f.rows() < b.f.rows()) std::swap(a, b);
  Matrix m;
  double flops = linalg::multiply_nt(a.f, a.shape, b.f, b.shape, m);
  const double norm_m = linalg::frobenius_norm(m);
  PolarWorkspace workspace;
  Bracket bracket = norm_bracket(norm_m, m.cols());
  bracket.upper = std::min(factor_bound(a, b), bracket.upper);
  const double asked = tol.value_or(method == TraceMethod::kNewtonSchulz ? kPolarTol : kInfinity);
  const auto polar_on_host = [&] {
    HostPolar host(m, norm_m, workspace);
    const PolarRoute polar = polar_route(host, asked, bracket);
    flops += host.flops();
    out.iterations = polar.iterations;
    return polar;
  };

  bool is_settled = norm_m == 0;
  bool is_singular = true;
  if (norm_m > 0 && method == TraceMethod::kNewtonSchulz) {
    const PolarRoute polar = polar_on_host();
    out.value = polar.value;
    is_settled = polar.is_certified && bracket.is_within(asked);
    is_singular = !polar.is_certified;
  } else if (norm_m > 0) {
    EigenRoute eigen = eigen_route(m, norm_m, workspace.y, flops);
    out.value = eigen.value;
    bracket.intersect(eigen.lower, eigen.upper);
    is_settled = eigen.is_resolved;
    is_singular = !eigen.is_resolved;
    out.singular_values = std::move(eigen.singular_values);
    if (is_settled && !bracket.is_within(asked)) {
      polar_on_host();
      is_settled = bracket.is_within(asked);
    }
  }
  const std::size_t n = m.cols();
  if (!is_settled) last_resort(std::move(m), norm_m, is_singular ? kSingular : kTooNarrow, out, bracket, flops);
  const double enough = enough_factor_error(a, b, n, bracket, tol);
  const double first_a = first_order(a, b, enough);
  const double first_b = first_order(b, a, enough);
  flops += a.flops + b.flops;
  finish(a, b, factor_error(a, b, first_a, first_b), n, bracket, flops, tol, out);
  return out;
}

TraceResult trace_sqrt_product(const FactorFacts& a, const FactorFacts& b, PolarOperations& device,
                               std::optional<double> tol, const std::function<TraceError(double)>& error) {
  TraceResult out = begin(a, b, "newton-schulz");
  if (a.trace == 0 || b.trace == 0) return out;
  const double asked = tol.value_or(kPolarTol);
  Bracket bracket{0, factor_bound(a, b)};
  const PolarRoute polar = polar_route(device, asked, bracket);
  out.value = polar.value;
  out.iterations = polar.iterations;
  double flops = 0;
  if (!polar.is_certified || !bracket.is_within(asked)) {
    Matrix m = device.matrix();
    const double norm_m = linalg::frobenius_norm(m);
    FASTFID_EXPECT(std::isfinite(norm_m), DeviceError, "the product of the factors on the device is not finite");
    const Bracket norms = norm_bracket(norm_m, m.cols());
    bracket.intersect(norms.lower, norms.upper);
    if (norm_m > 0) {
      last_resort(std::move(m), norm_m, polar.is_certified ? kTooNarrow : kSingular, out, bracket, flops);
      out.note += "; they were taken on the host";
    }
  }
  const TraceError found = error(enough_factor_error(a, b, device.cols(), bracket, tol));
  flops += a.flops + b.flops + device.flops();
  finish(a, b, found, device.cols(), bracket, flops, tol, out);
  return out;
}

}  // namespace fastfid
