#include "core/matrix_sqrt.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/errors.hpp"
#include "core/parallel.hpp"
#include "core/polar_table.hpp"

namespace fastfid {
namespace {

using linalg::Matrix;
using linalg::Shape;

constexpr double kUnitRoundoff = std::numeric_limits<double>::epsilon() / 2;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kAsymmetry = 1e-6;

double real(std::size_t n) { return static_cast<double>(n); }

// The largest |x|; NaN or infinity where there is one.
template <class T>
double largest_magnitude(const T* x, std::size_t count) {
  double largest = 0;
  bool is_finite = true;
  for (std::size_t i = 0; i < count; ++i) {
    const double magnitude = std::abs(static_cast<double>(x[i]));
    is_finite &= magnitude <= std::numeric_limits<double>::max();
    largest = std::max(largest, magnitude);
  }
  return is_finite ? largest : kInfinity;
}

// x 2^e without overflow of the factor itself.
double scaled(double x, int e) { return std::scalbn(x, e); }

// Multiplies by 2^e, exactly but for underflow.
void scale_in_place(double* x, std::size_t count, int e) {
  if (e == 0) return;
  // 2^e itself may not be representable: two steps.
  const double first = std::scalbn(1.0, e / 2);
  const double second = std::scalbn(1.0, e - e / 2);
  for (std::size_t i = 0; i < count; ++i) x[i] = x[i] * first * second;
}

// The k for which x 4^-k is in [1, 4), x > 0.
int power_of_four(double x) {
  const int e = std::ilogb(x);
  return (e - (e & 1)) / 2;
}

// The error every tool's users know: pytorch-fid's words first, then what is wrong.
[[noreturn]] void throw_indefinite(const Matrix& sigma, int exponent, const char* name) {
  Matrix copy(sigma.rows(), sigma.cols());
  std::copy_n(sigma.data(), sigma.rows() * sigma.cols(), copy.data());
  const std::vector<double> values = linalg::symmetric_eigenvalues(copy);
  const double smallest = values.front();
  throw NumericalError(message("Imaginary component ", scaled(std::sqrt(std::max(0.0, -smallest)), exponent), ": ",
                               name,
                               " is not positive semi-definite, so it is no covariance: its smallest eigenvalue is ",
                               scaled(smallest, 2 * exponent), ", its largest ", scaled(values.back(), 2 * exponent)));
}

}  // namespace

Factor factor_covariance(const double* sigma, std::size_t d, const char* name) {
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected a covariance with d >= 1, got d = 0");
  Factor out;
  const double largest = largest_magnitude(sigma, d * d);
  FASTFID_EXPECT(std::isfinite(largest), NumericalError, name, ": contains NaN or infinity");
  if (largest == 0) {
    out.f = Matrix(0, d);
    return out;
  }

  // Halving the sum of the mirror images is exact for symmetric input. First to a largest element near 1, so that
  // neither the trace nor anything after it overflows; then to a trace in [1, 4).
  int e = power_of_four(largest);
  Matrix s(d, d);
  std::copy_n(sigma, d * d, s.data());
  scale_in_place(s.data(), d * d, -2 * e);
  double asymmetry = 0;
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double mean = s(i, j) / 2 + s(j, i) / 2;
      asymmetry = std::max(asymmetry, std::abs(s(i, j) - s(j, i)));
      s(i, j) = s(j, i) = mean;
    }
  }
  double max_diagonal = 0;
  for (std::size_t i = 0; i < d; ++i) max_diagonal = std::max(max_diagonal, s(i, i));
  FASTFID_EXPECT(asymmetry <= kAsymmetry * std::max(max_diagonal, 1.0), InvalidArgument, name,
                 ": expected a symmetric matrix, but elements and their mirror images differ by up to ",
                 scaled(asymmetry, 2 * e), " (the largest element is ", largest, ")");
  const double trace = linalg::trace(s);
  if (!(trace > 0)) throw_indefinite(s, e, name);
  const int more = power_of_four(trace);
  scale_in_place(s.data(), d * d, -2 * more);
  max_diagonal = scaled(max_diagonal, -2 * more);
  out.exponent = e + more;
  out.trace = scaled(trace, -2 * more);

  // A pivot below d u of its own diagonal element has been lost in rounding: the factor would hold noise whose square
  // root enters T. (The ratio does not change when features are scaled, so a diagonal matrix of any condition passes.)
  const double noise = real(d) * kUnitRoundoff;
  Matrix f(d, d);
  std::copy_n(s.data(), d * d, f.data());
  bool is_definite = linalg::cholesky(f);
  for (std::size_t i = 0; i < d && is_definite; ++i) is_definite = f(i, i) * f(i, i) >= noise * s(i, i);
  if (is_definite) {
    out.f = std::move(f);
    out.shape = Shape::kUpper;
  } else {
    std::copy_n(s.data(), d * d, f.data());
    out.f = linalg::pivoted_cholesky(f, noise * max_diagonal);
  }
  out.rank = out.f.rows();

  Matrix rest;
  linalg::residual(s.data(), out.f, out.shape, rest);
  out.residual = linalg::frobenius_norm(rest) / out.trace;
  if (!is_definite) {
    // What is left must be rounding: the largest |element| of a positive semi-definite rest is on its diagonal, where
    // the factorisation stopped at `noise * max_diagonal`. Cholesky's own backward error is of the same order.
    const double left = largest_magnitude(rest.data(), d * d);
    if (left > 4 * noise * max_diagonal) throw_indefinite(s, out.exponent, name);
    for (std::size_t i = 0; i < d; ++i) out.truncated += std::abs(rest(i, i));
  }
  return out;
}

std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances) {
  std::vector<Factor> out(covariances.size());
  parallel_for(covariances.size(), [&](std::size_t i) {
    out[i] = factor_covariance(covariances[i].sigma, covariances[i].d, covariances[i].name);
  });
  return out;
}

template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const char* name) {
  FASTFID_EXPECT(n >= 2, InvalidArgument, name, ": expected at least 2 samples, got ", n);
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected rows of d >= 1 features, got d = 0");
  Factor out;
  out.f = Matrix(n, d);
  const double largest = largest_magnitude(rows, n * d);
  FASTFID_EXPECT(std::isfinite(largest), NumericalError, name, ": contains NaN or infinity");
  std::copy_n(rows, n * d, out.f.data());
  if (largest > 0) out.exponent = std::ilogb(largest);
  scale_in_place(out.f.data(), n * d, -out.exponent);

  // Two passes: the mean of what is left after a first mean was taken off is the rounding error of the first.
  std::vector<double> mean(d);
  for (int pass = 0; pass < 2; ++pass) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < d; ++j) mean[j] += out.f(i, j);
    }
    for (double& m : mean) m /= real(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < d; ++j) out.f(i, j) -= mean[j];
    }
  }
  const double trace = linalg::inner_product(out.f, out.f) / real(n - 1);
  if (trace == 0) {
    out.f = Matrix(0, d);
    out.exponent = 0;
    return out;
  }
  const int more = power_of_four(trace);
  const double divisor = std::sqrt(real(n - 1)) * std::scalbn(1.0, more);
  for (std::size_t i = 0; i < n * d; ++i) out.f.data()[i] /= divisor;
  out.exponent += more;
  out.trace = linalg::inner_product(out.f, out.f);
  out.rank = std::min(n - 1, d);
  return out;
}

template Factor factor_rows(const float*, std::size_t, std::size_t, const char*);
template Factor factor_rows(const double*, std::size_t, std::size_t, const char*);

PolarCertificate polar_certificate(const Matrix& m, const Matrix& x, double tol) {
  FASTFID_EXPECT(m.rows() >= m.cols() && x.rows() == m.rows() && x.cols() == m.cols(), InvalidArgument,
                 "polar_certificate: expected M and X of one shape (m, n), m >= n, got (", m.rows(), ", ", m.cols(),
                 ") and (", x.rows(), ", ", x.cols(), ")");
  PolarCertificate out;
  const std::size_t n = m.cols();
  const double rows_u = real(m.rows()) * kUnitRoundoff;
  const double cols_u = real(n) * kUnitRoundoff;
  const double norm_m = linalg::frobenius_norm(m);
  out.lower = 0;
  out.upper = std::sqrt(real(n)) * norm_m * (1 + 4 * cols_u + 4 * rows_u);
  Matrix y;
  Matrix h;
  out.flops += linalg::gram(x, y);
  out.flops += linalg::multiply_tn(x, m, h);
  const double trace_h = linalg::trace(h);
  const double norm_x = std::sqrt(linalg::trace(y));
  const double norm_y = linalg::frobenius_norm(y);
  const double norm_h = linalg::frobenius_norm(h);
  out.estimate = (3 * trace_h - linalg::inner_product(y, h)) / 2;
  if (!std::isfinite(out.estimate)) return out;

  // ||X||_2 <= 2. Rounding of Y and of the factorisation moves an eigenvalue by less than 0.1 for any n here:
  // m u ||X||_F^2 + n u tr(3.9 I - Y) < 1e-7 at 4096.
  {
    Matrix check(n, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) check(i, j) = -y(i, j);
      check(i, i) += 3.9;
    }
    out.is_norm_proven = linalg::cholesky(check);
    out.flops += real(n) * real(n) * real(n) / 3;
  }
  if (out.is_norm_proven) {
    // Rounding of H (m u |X|^T |M|), of Y (m u |X|^T |X|) and of the sums (at most 2 n additions in a chain).
    const double slack = 1.5 * (rows_u + cols_u) * norm_x * norm_m + 0.5 * rows_u * norm_x * norm_x * norm_h +
                         0.5 * rows_u * norm_y * norm_x * norm_m + 2 * cols_u * norm_y * norm_h;
    out.lower = std::max(0.0, out.estimate - 1.01 * slack);
  }

  double mu = std::max(0.0, (out.estimate - trace_h) / real(n)) + 4 * kUnitRoundoff * norm_m;
  double previous = kInfinity;
  for (int attempt = 0; attempt < 8; ++attempt) {
    Matrix c(n, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) c(i, j) = (h(i, j) + h(j, i)) / 2;
      c(i, i) += mu;
    }
    out.flops += real(n) * real(n) * real(n) / 3;
    if (!linalg::cholesky(c)) {
      mu *= 10;
      continue;
    }
    Matrix w(m.rows(), n);
    std::copy_n(m.data(), m.rows() * n, w.data());
    out.flops += linalg::solve_right(c, w);
    const double norm_c = linalg::frobenius_norm(c);
    const double norm_w = linalg::frobenius_norm(w);
    // The inequality is exact for W C in place of M, and the triangular solve has ||M - W C||_F <= n u ||W||_F ||C||_F.
    const double upper = (norm_c * norm_c + norm_w * norm_w) / 2 * (1 + 4 * (rows_u + cols_u)) +
                         1.01 * std::sqrt(real(n)) * cols_u * norm_c * norm_w;
    if (!(upper < previous)) break;
    out.upper = std::min(out.upper, upper);
    if (out.upper - out.lower <= tol * out.upper) break;
    previous = upper;
    mu /= 30;
  }
  return out;
}

namespace {

// Bounds and estimate in scaled units, tightened as routes report.
struct Bracket {
  double lower;
  double upper;

  void intersect(double low, double high) {
    lower = std::max(lower, low);
    upper = std::min(upper, high);
  }
  bool is_within(double tol) const { return upper - lower <= tol * upper; }
};

// Nuclear norm from the eigenvalues of G = M^T M. With ||computed G - G||_F and LAPACK's backward error together below
// eta = (m + n) u ||M||_F^2 (the product's share is proven; the eigensolver's is LAPACK's documented p(n) u ||G|| with
// p(n) = n), sum (computed - true eigenvalue)^2 <= eta^2 by Hoffman and Wielandt, and so, over the eigenvalues above
// 2 eta, |sum of changes of the roots| <= 0.6 eta sqrt(sum 1/lambda) by Cauchy and Schwarz.
struct EigenRoute {
  double value = 0;
  double lower = 0;
  double upper = 0;
  bool is_resolved = true;  // no eigenvalue in the noise, where its root would be half of the digits wrong
  std::vector<double> singular_values;
};

EigenRoute eigen_route(const Matrix& m, double norm_m, double& flops) {
  EigenRoute out;
  Matrix g;
  flops += linalg::gram(m, g);
  const double n = real(m.cols());
  out.singular_values = linalg::symmetric_eigenvalues(g);
  flops += 4.0 / 3.0 * n * n * n;
  const double largest = std::max(0.0, out.singular_values.back());
  const double eta = (real(m.rows()) + n) * kUnitRoundoff * norm_m * norm_m;
  double reciprocals = 0;
  for (double& value : out.singular_values) {
    const double lambda = value;
    value = std::sqrt(std::max(0.0, lambda));
    out.value += value;
    if (lambda > 2 * eta) {
      out.lower += value;
      out.upper += value;
      reciprocals += 1 / lambda;
    } else {
      out.lower += std::sqrt(std::max(0.0, lambda - eta));
      out.upper += std::sqrt(std::max(0.0, lambda + eta));
    }
    // Condition 1e6 of M: above it the error of one root, u ||M||^2 / (2 sigma), passes 1e-10 ||M||.
    out.is_resolved &= lambda >= 1e-12 * largest;
  }
  const double slack = 0.6 * eta * std::sqrt(reciprocals) + 2 * n * kUnitRoundoff * out.upper;
  out.lower -= slack;
  out.upper += slack;
  return out;
}

// Polar iteration with its certificate, stage after stage until the bracket is within tol.
struct PolarRoute {
  double value = 0;
  int iterations = 0;
  bool is_certified = false;
};

PolarRoute polar_route(const Matrix& m, double norm_m, double tol, Bracket& bracket, double& flops) {
  PolarRoute out;
  const std::size_t n = m.cols();
  // alpha >= ||M||_2 with Y = A^T A, A = M / ||M||_F: ||A||_2^4 <= ||Y^2||_F. Y and Y^2 are what the first iteration
  // needs, so this costs nothing.
  Matrix x(m.rows(), n);
  for (std::size_t i = 0; i < m.rows() * n; ++i) x.data()[i] = m.data()[i] / norm_m;
  Matrix y;
  Matrix y2;
  flops += linalg::gram(x, y);
  flops += linalg::gram(y, y2);
  const double alpha = std::min(1.0, std::sqrt(std::sqrt(linalg::frobenius_norm(y2)))) * (1 + 1e-12);
  double x_scale = 1 / alpha;  // of the first iteration, folded into its coefficients
  Matrix next;
  for (const auto& stage : polar::kStages) {
    for (const polar::Quintic& c : stage) {
      if (out.iterations > 0) {
        flops += linalg::gram(x, y);
        flops += linalg::gram(y, y2);
      }
      const double square = x_scale * x_scale;
      const double c0 = c[0] * x_scale;
      const double c1 = c[1] * x_scale * square;
      const double c2 = c[2] * x_scale * square * square;
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) y(i, j) = c1 * y(i, j) + c2 * y2(i, j);
        y(i, i) += c0;
      }
      flops += linalg::multiply(x, y, next);
      std::swap(x, next);
      x_scale = 1;
      ++out.iterations;
    }
    const PolarCertificate proof = polar_certificate(m, x, tol);
    flops += proof.flops;
    // A stage counts only if its norm is proven; the iteration cannot recover from one that is not.
    if (!proof.is_norm_proven) break;
    out.is_certified = true;
    out.value = proof.estimate;
    const double width = bracket.upper - bracket.lower;
    bracket.intersect(proof.lower, proof.upper);
    if (bracket.is_within(tol)) break;
    if (out.iterations > static_cast<int>(polar::kStage1.size()) && bracket.upper - bracket.lower > width / 2) break;
  }
  return out;
}

}  // namespace

TraceResult trace_sqrt_product(const Factor& a, const Factor& b, TraceMethod method, std::optional<double> tol) {
  const std::size_t d = a.f.cols();
  FASTFID_EXPECT(b.f.cols() == d, InvalidArgument, "the two sides differ in dimension: ", d, " and ", b.f.cols());
  TraceResult out;
  out.rank = std::min(a.rank, b.rank);
  out.factor_residual = std::max(a.residual, b.residual);
  out.method = method == TraceMethod::kNewtonSchulz ? "newton-schulz" : "eigen";
  if (a.trace == 0 || b.trace == 0) return out;

  // M tall: the Gram matrix is formed on the smaller side.
  const bool is_swapped = a.f.rows() < b.f.rows();
  const Factor& tall = is_swapped ? b : a;
  const Factor& wide = is_swapped ? a : b;
  double flops = 0;
  Matrix m;
  flops += linalg::multiply_nt(tall.f, tall.shape, wide.f, wide.shape, m);
  const double n = real(m.cols());
  const double norm_m = linalg::frobenius_norm(m);

  // Proven before any iteration: the nuclear norm is between ||M||_F and sqrt(n) ||M||_F, and at most
  // ||F1||_F ||F2||_F. The latter is all but attained for identical covariances.
  const double u = kUnitRoundoff;
  const double norms = std::sqrt((a.trace + a.truncated) * (b.trace + b.truncated)) * (1 + 8 * real(d) * u);
  Bracket bracket{norm_m * (1 - 4 * n * u), std::min(norms, std::sqrt(n) * norm_m * (1 + 4 * n * u))};
  const double asked = tol.value_or(method == TraceMethod::kNewtonSchulz ? 1e-6 : kInfinity);

  bool is_settled = norm_m == 0;
  if (norm_m > 0 && method == TraceMethod::kNewtonSchulz) {
    const PolarRoute polar = polar_route(m, norm_m, asked, bracket, flops);
    out.value = polar.value;
    out.iterations = polar.iterations;
    is_settled = polar.is_certified && bracket.is_within(asked);
  } else if (norm_m > 0) {
    EigenRoute eigen = eigen_route(m, norm_m, flops);
    out.value = eigen.value;
    bracket.intersect(eigen.lower, eigen.upper);
    is_settled = eigen.is_resolved;
    out.singular_values = std::move(eigen.singular_values);
    if (is_settled && !bracket.is_within(asked)) {
      out.iterations = polar_route(m, norm_m, asked, bracket, flops).iterations;
      is_settled = bracket.is_within(asked);
    }
  }
  if (!is_settled) {
    // Backward stable: ||M - computed||_F <= (m + n) u ||M||_F (LAPACK's documented bound), times sqrt(n) in the
    // nuclear norm.
    const double slack = std::sqrt(n) * (real(m.rows()) + n) * u * norm_m;
    flops += 8.0 / 3.0 * real(m.rows()) * n * n;
    out.singular_values = linalg::singular_values(m);
    out.value = 0;
    for (const double s : out.singular_values) out.value += s;
    bracket.intersect(out.value - slack, out.value + slack);
    out.method = "svd";
    out.note = "the singular values of M were needed: the covariances' product is singular to working precision";
  }

  // Forming M: |M - F1 F2^T| <= d u |F1| |F2^T|, times sqrt(n) in the nuclear norm. Stopping a pivoted Cholesky
  // factorisation with E1 and E2 left leaves out at most sqrt(tr E1 tr Sigma2) + sqrt(tr Sigma1 tr E2).
  const double formed = 1.01 * std::sqrt(n) * real(d) * u * std::sqrt(a.trace * b.trace);
  const double left_out = std::sqrt(a.truncated * b.trace) + std::sqrt(a.trace * b.truncated);
  bracket.lower = std::max(0.0, bracket.lower - formed);
  bracket.upper = std::min(bracket.upper + formed, norms) + left_out;
  if (left_out > 0) {
    out.note += out.note.empty() ? "" : "; ";
    out.note += message("a covariance is singular (rank ", out.rank, " of ", d,
                        "): pivoted Cholesky, whose truncation the upper bound includes");
  }
  if (tol && !bracket.is_within(*tol)) {
    out.note += out.note.empty() ? "" : "; ";
    out.note +=
        message("the bracket is wider than asked: ", (bracket.upper - bracket.lower) / bracket.upper, " relative");
  }

  const int exponent = a.exponent + b.exponent;
  out.value = scaled(std::clamp(out.value, bracket.lower, bracket.upper), exponent);
  out.lower = scaled(bracket.lower, exponent);
  out.upper = scaled(bracket.upper, exponent);
  for (double& s : out.singular_values) s = scaled(s, exponent);
  out.gemms = flops / (2 * real(d) * real(d) * real(d));
  FASTFID_EXPECT(std::isfinite(out.value), NumericalError,
                 "the trace of the matrix square root exceeds the range of float64");
  return out;
}

}  // namespace fastfid
