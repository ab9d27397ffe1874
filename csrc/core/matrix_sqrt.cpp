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

// The k for which x 4^-k is in [1, 4), x > 0.
int power_of_four(double x) {
  const int e = std::ilogb(x);
  return (e - (e & 1)) / 2;
}

// A checked covariance, read as its symmetric part times 4^-exponent.
struct Scaled {
  const double* sigma;
  std::size_t d;
  const char* name;
  int exponent = 0;
  double trace = 0;
  double max_diagonal = 0;

  // Halving the sum of the mirror images is exact for symmetric input. 4^-exponent itself may not be representable:
  // two steps.
  double first() const { return std::scalbn(1.0, -exponent - 1); }
  double second() const { return std::scalbn(1.0, -exponent); }

  // Writes the elements of rows [row, row + n_rows) and columns [col, col + n_cols); `stride` is that of `out`.
  void copy(std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
            std::size_t stride) const {
    constexpr std::size_t kSquare = 32;  // reads of the mirror image stay in the cache
    const double a = first();
    const double b = second();
    for (std::size_t r0 = 0; r0 < n_rows; r0 += kSquare) {
      for (std::size_t c0 = 0; c0 < n_cols; c0 += kSquare) {
        for (std::size_t r = r0; r < std::min(r0 + kSquare, n_rows); ++r) {
          for (std::size_t c = c0; c < std::min(c0 + kSquare, n_cols); ++c) {
            const double here = sigma[(row + r) * d + col + c];
            const double mirror = sigma[(col + c) * d + row + r];
            out[r * stride + c] = here * a * b + mirror * a * b;
          }
        }
      }
    }
  }
};

// The error every tool's users know: pytorch-fid's words first, then what is wrong.
[[noreturn]] void throw_indefinite(const Scaled& s) {
  Matrix copy(s.d, s.d);
  s.copy(0, s.d, 0, s.d, copy.data(), s.d);
  const std::vector<double> values = linalg::symmetric_eigenvalues(copy);
  throw NumericalError(
      message("Imaginary component ", scaled(std::sqrt(std::max(0.0, -values.front())), s.exponent), ": ", s.name,
              " is not positive semi-definite, so it is no covariance: its smallest eigenvalue is ",
              scaled(values.front(), 2 * s.exponent), ", its largest ", scaled(values.back(), 2 * s.exponent)));
}

// Finite, symmetric, and what brings the trace into [1, 4).
Scaled check_covariance(const double* sigma, std::size_t d, const char* name) {
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected a covariance with d >= 1, got d = 0");
  Scaled s{sigma, d, name};
  const double largest = largest_magnitude(sigma, d * d);
  FASTFID_EXPECT(std::isfinite(largest), NumericalError, name, ": contains NaN or infinity");
  if (largest == 0) return s;
  double asymmetry = 0;
  constexpr std::size_t kSquare = 32;
  for (std::size_t r0 = 0; r0 < d; r0 += kSquare) {
    for (std::size_t c0 = 0; c0 <= r0; c0 += kSquare) {
      for (std::size_t r = r0; r < std::min(r0 + kSquare, d); ++r) {
        for (std::size_t c = c0; c < std::min(c0 + kSquare, r); ++c) {
          asymmetry = std::max(asymmetry, std::abs(sigma[r * d + c] - sigma[c * d + r]));
        }
      }
    }
  }
  FASTFID_EXPECT(asymmetry <= kAsymmetry * largest, InvalidArgument, name,
                 ": expected a symmetric matrix, but elements and their mirror images differ by up to ", asymmetry,
                 " (the largest element is ", largest, ")");
  // First to a largest element near 1, so that the trace does not overflow.
  s.exponent = power_of_four(largest);
  for (std::size_t i = 0; i < d; ++i) {
    const double x = scaled(sigma[i * d + i], -2 * s.exponent);
    s.trace += x;
    s.max_diagonal = std::max(s.max_diagonal, x);
  }
  if (!(s.trace > 0)) throw_indefinite(s);
  const int more = power_of_four(s.trace);
  s.exponent += more;
  s.trace = scaled(s.trace, -2 * more);
  s.max_diagonal = scaled(s.max_diagonal, -2 * more);
  return s;
}

// A pivot below d u of its own diagonal element has been lost in rounding: the factor would hold noise whose square
// root enters T. (The ratio does not change when features are scaled, so a diagonal matrix of any condition passes.)
Factor factor_checked(const Scaled& s) {
  Factor out;
  const std::size_t d = s.d;
  out.exponent = s.exponent;
  out.trace = s.trace;
  if (s.trace == 0) {
    out.f = Matrix(0, d);
    return out;
  }
  const double noise = real(d) * kUnitRoundoff;
  Matrix f(d, d);
  const auto copy_upper = [&] {
    for (std::size_t i = 0; i < d; i += 32) {
      s.copy(i, std::min<std::size_t>(32, d - i), i, d - i, f.row(i) + i, d);
    }
  };
  copy_upper();
  bool is_definite = linalg::cholesky(f);
  for (std::size_t i = 0; i < d && is_definite; ++i) {
    is_definite = f(i, i) * f(i, i) >= noise * scaled(s.sigma[i * d + i], -2 * s.exponent);
  }
  out.flops = real(d) * real(d) * real(d) / 3;
  if (is_definite) {
    out.f = std::move(f);
    out.shape = Shape::kUpper;
  } else {
    copy_upper();
    out.f = linalg::pivoted_cholesky(f, noise * s.max_diagonal);
    out.flops += real(d) * real(d) * real(out.f.rows());
  }
  out.rank = out.f.rows();
  return out;
}

// ||Sigma - F^T F||_F from 64 evenly spaced rows of it (all rows for d <= 64): each is computed exactly as the whole
// would be, and their errors are alike. All rows would cost a sixth of a product.
double sample_residual(const Scaled& s, Factor& factor) {
  const std::size_t d = s.d;
  const Matrix& f = factor.f;
  const std::size_t sampled = std::min<std::size_t>(d, 64);
  const auto index = [&](std::size_t r) { return (2 * r + 1) * d / (2 * sampled); };
  Matrix columns(d, sampled);  // of F
  for (std::size_t k = 0; k < d; ++k) {
    for (std::size_t r = 0; r < sampled; ++r) columns(k, r) = f(k, index(r));
  }
  const std::size_t strips = (d + linalg::kStripRows - 1) / linalg::kStripRows;
  std::vector<double> squares(strips);
  parallel_for(strips, [&](std::size_t strip) {
    const std::size_t begin = strip * linalg::kStripRows;
    const std::size_t width = std::min(linalg::kStripRows, d - begin);
    Matrix e(sampled, width);
    for (std::size_t r = 0; r < sampled; ++r) s.copy(index(r), 1, begin, width, e.row(r), width);
    // F is upper triangular: its columns of this strip end at row begin + width.
    linalg::gemm(linalg::Transpose::kYes, linalg::Transpose::kNo, static_cast<int>(sampled), static_cast<int>(width),
                 static_cast<int>(begin + width), -1.0, columns.data(), static_cast<int>(sampled), f.data() + begin,
                 static_cast<int>(d), 1.0, e.data(), static_cast<int>(width));
    for (std::size_t i = 0; i < sampled * width; ++i) squares[strip] += e.data()[i] * e.data()[i];
  });
  factor.flops += real(sampled) * real(d) * real(d);
  double sum = 0;
  for (const double x : squares) sum += x;
  return std::sqrt(sum * real(d) / real(sampled));
}

// How far the factor is from its covariance; throws where what a pivoted factorisation left is more than rounding.
void check_residual(const Scaled& s, Factor& factor) {
  if (s.trace == 0) return;
  if (factor.shape == Shape::kUpper) {
    factor.residual = sample_residual(s, factor) / factor.trace;
    return;
  }
  const auto norms = linalg::residual([&](std::size_t row, std::size_t n_rows, std::size_t n_cols,
                                          double* out) { s.copy(row, n_rows, 0, n_cols, out, n_cols); },
                                      factor.f, factor.flops);
  factor.residual = norms.frobenius / factor.trace;
  // The largest |element| of a positive semi-definite rest is on its diagonal, where the factorisation stopped at
  // d u max_diagonal. Cholesky's own backward error is of the same order.
  if (norms.largest > 4 * real(s.d) * kUnitRoundoff * s.max_diagonal) throw_indefinite(s);
  factor.truncated = norms.diagonal;
}

}  // namespace

std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances) {
  std::vector<Scaled> checked(covariances.size());
  std::vector<Factor> out(covariances.size());
  // One thread each; the residual below is cut into strips of its own.
  parallel_for(covariances.size(), [&](std::size_t i) {
    checked[i] = check_covariance(covariances[i].sigma, covariances[i].d, covariances[i].name);
    out[i] = factor_checked(checked[i]);
  });
  for (std::size_t i = 0; i < out.size(); ++i) check_residual(checked[i], out[i]);
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
  linalg::scale_in_place(out.f.data(), n * d, -out.exponent);

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
  if (n > d) {  // no thin side: a triangle of d rows stands for the n
    out.f = linalg::triangular_factor(out.f);
    out.shape = Shape::kUpper;
    out.flops = 2 * real(n) * real(d) * real(d) - 2.0 / 3.0 * real(d) * real(d) * real(d);
  }
  return out;
}

template Factor factor_rows(const float*, std::size_t, std::size_t, const char*);
template Factor factor_rows(const double*, std::size_t, std::size_t, const char*);

PolarCertificate polar_certificate(const Matrix& m, const Matrix& x, double tol, PolarWorkspace& workspace) {
  FASTFID_EXPECT(m.rows() >= m.cols() && x.rows() == m.rows() && x.cols() == m.cols(), InvalidArgument,
                 "polar_certificate: expected M and X of one shape (m, n), m >= n, got (", m.rows(), ", ", m.cols(),
                 ") and (", x.rows(), ", ", x.cols(), ")");
  PolarCertificate out;
  auto& [y, h, c, w] = workspace;
  const std::size_t n = m.cols();
  const double n3 = real(n) * real(n) * real(n);
  const double rows_u = real(m.rows()) * kUnitRoundoff;
  const double cols_u = real(n) * kUnitRoundoff;
  const double norm_m = linalg::frobenius_norm(m);
  out.lower = 0;
  out.upper = std::sqrt(real(n)) * norm_m * (1 + 4 * cols_u + 4 * rows_u);
  out.flops += linalg::gram(x, y);
  out.flops += linalg::multiply_tn(x, m, h);
  const double trace_h = linalg::trace(h);
  const double norm_x = std::sqrt(linalg::trace(y));
  const double norm_y = linalg::frobenius_norm(y);
  const double norm_h = linalg::frobenius_norm(h);
  out.estimate = (3 * trace_h - linalg::inner_product(y, h)) / 2;
  if (!std::isfinite(out.estimate)) return out;

  // ||X||_2 <= 2. Rounding of Y and of the factorisation moves an eigenvalue by less than 0.1 for any n here:
  // m u ||X||_F^2 + n u tr(3.9 I - Y) < 1e-7 at 4096. Near convergence ||Y||_2 <= 1 + ||Y - I||_F is proof enough.
  const double off = norm_y * norm_y - 2 * linalg::trace(y) + real(n);  // ||Y - I||_F^2
  out.is_norm_proven = off < 2.9 * 2.9;
  if (!out.is_norm_proven) {
    c.reshape(n, n);
    linalg::for_each_row(n, [&](std::size_t i) {
      for (std::size_t j = i; j < n; ++j) c(i, j) = -y(i, j);
      c(i, i) += 3.9;
    });
    out.is_norm_proven = linalg::cholesky(c);
    out.flops += n3 / 3;
  }
  if (out.is_norm_proven) {
    // Rounding of H (m u |X|^T |M|), of Y (m u |X|^T |X|) and of the sums (at most 2 n additions in a chain).
    const double slack = 1.5 * (rows_u + cols_u) * norm_x * norm_m + 0.5 * rows_u * norm_x * norm_x * norm_h +
                         0.5 * rows_u * norm_y * norm_x * norm_m + 2 * cols_u * norm_y * norm_h;
    out.lower = std::max(0.0, out.estimate - 1.01 * slack);
  }

  // y has done its work: it takes the symmetric part of H.
  constexpr std::size_t kSquare = 32;
  linalg::for_each_row((n + kSquare - 1) / kSquare, [&](std::size_t square) {
    const std::size_t i0 = square * kSquare;
    for (std::size_t j0 = i0; j0 < n; j0 += kSquare) {
      for (std::size_t i = i0; i < std::min(i0 + kSquare, n); ++i) {
        for (std::size_t j = std::max(i, j0); j < std::min(j0 + kSquare, n); ++j) y(i, j) = (h(i, j) + h(j, i)) / 2;
      }
    }
  });
  c.reshape(n, n);
  double mu = std::max(0.0, (out.estimate - trace_h) / real(n)) + 4 * kUnitRoundoff * norm_m;
  double previous = kInfinity;
  for (int attempt = 0; attempt < 8; ++attempt) {
    linalg::for_each_row(n, [&](std::size_t i) {
      std::copy(y.row(i) + i, y.row(i) + n, c.row(i) + i);
      c(i, i) += mu;
    });
    out.flops += n3 / 3;
    if (!linalg::cholesky(c)) {
      mu *= 10;
      continue;
    }
    w.reshape(m.rows(), n);
    linalg::for_each_row(m.rows(), [&](std::size_t i) { std::copy_n(m.row(i), n, w.row(i)); });
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

EigenRoute eigen_route(const Matrix& m, double norm_m, Matrix& g, double& flops) {
  EigenRoute out;
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

PolarRoute polar_route(const Matrix& m, double norm_m, double tol, PolarWorkspace& workspace, Bracket& bracket,
                       double& flops) {
  PolarRoute out;
  const std::size_t n = m.cols();
  // alpha >= ||M||_2 with Y = A^T A, A = M / ||M||_F: ||A||_2^4 <= ||Y^2||_F. Y and Y^2 are what the first iteration
  // needs, so this costs nothing.
  Matrix x(m.rows(), n);
  linalg::for_each_row(m.rows(), [&](std::size_t i) {
    for (std::size_t j = 0; j < n; ++j) x(i, j) = m(i, j) / norm_m;
  });
  auto& y = workspace.y;
  auto& y2 = workspace.h;
  auto& next = workspace.w;
  flops += linalg::gram(x, y);
  flops += linalg::gram(y, y2);
  const double alpha = std::min(1.0, std::sqrt(std::sqrt(linalg::frobenius_norm(y2)))) * (1 + 1e-12);
  double scale = 1 / alpha;  // of the first iteration, folded into its coefficients
  for (const auto& stage : polar::kStages) {
    for (const polar::Quintic& c : stage) {
      if (out.iterations > 0) {
        flops += linalg::gram(x, y);
        flops += linalg::gram(y, y2);
      }
      const double square = scale * scale;
      const double c0 = c[0] * scale;
      const double c1 = c[1] * scale * square;
      const double c2 = c[2] * scale * square * square;
      linalg::for_each_row(n, [&](std::size_t i) {
        for (std::size_t j = 0; j < n; ++j) y(i, j) = c1 * y(i, j) + c2 * y2(i, j);
        y(i, i) += c0;
      });
      flops += linalg::multiply(x, y, next);
      std::swap(x, next);
      scale = 1;
      ++out.iterations;
    }
    const PolarCertificate proof = polar_certificate(m, x, tol, workspace);
    flops += proof.flops;
    // A stage counts only if its norm is proven; the iteration cannot recover from one that is not.
    if (!proof.is_norm_proven) break;
    out.is_certified = true;
    out.value = proof.estimate;
    const double width = bracket.upper - bracket.lower;
    bracket.intersect(proof.lower, proof.upper);
    if (bracket.is_within(tol)) break;
    // Further stages follow only while they pay.
    if (out.iterations > static_cast<int>(polar::kStages[0].size()) && bracket.upper - bracket.lower > width / 2) break;
  }
  return out;
}

}  // namespace

TraceResult trace_sqrt_product(Factor a, Factor b, TraceMethod method, std::optional<double> tol) {
  const std::size_t d = a.f.cols();
  FASTFID_EXPECT(b.f.cols() == d, InvalidArgument, "the two sides differ in dimension: ", d, " and ", b.f.cols());
  TraceResult out;
  out.rank = std::min(a.rank, b.rank);
  out.factor_residual = std::max(a.residual, b.residual);
  out.method = method == TraceMethod::kNewtonSchulz ? "newton-schulz" : "eigen";
  if (a.trace == 0 || b.trace == 0) return out;

  // M tall: the Gram matrix is formed on the smaller side.
  if (a.f.rows() < b.f.rows()) std::swap(a, b);
  double flops = a.flops + b.flops;
  Matrix m;
  flops += linalg::multiply_nt(a.f, a.shape, b.f, b.shape, m);
  PolarWorkspace workspace{std::move(a.f), std::move(b.f), {}, {}};
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
    const PolarRoute polar = polar_route(m, norm_m, asked, workspace, bracket, flops);
    out.value = polar.value;
    out.iterations = polar.iterations;
    is_settled = polar.is_certified && bracket.is_within(asked);
  } else if (norm_m > 0) {
    EigenRoute eigen = eigen_route(m, norm_m, workspace.y, flops);
    out.value = eigen.value;
    bracket.intersect(eigen.lower, eigen.upper);
    is_settled = eigen.is_resolved;
    out.singular_values = std::move(eigen.singular_values);
    if (is_settled && !bracket.is_within(asked)) {
      out.iterations = polar_route(m, norm_m, asked, workspace, bracket, flops).iterations;
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
