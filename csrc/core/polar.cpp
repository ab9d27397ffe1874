#include "core/polar.hpp"

#include <cmath>
#include <utility>

#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/products.hpp"
#include "core/squares.hpp"

namespace fastfid {

using linalg::Matrix;

PolarCertificate polar_certificate(PolarOperations& device, double tol) {
  PolarCertificate out;
  const std::size_t n = device.cols();
  const double rows_u = real(device.rows()) * kUnitRoundoff;
  const double cols_u = real(n) * kUnitRoundoff;
  const PolarMeasures s = device.measure();
  out.norm_m = s.norm_m;
  out.lower = 0;
  out.upper = std::sqrt(real(n)) * s.norm_m * (1 + 4 * cols_u + 4 * rows_u);
  const double norm_x = std::sqrt(s.trace_y);
  out.estimate = polar_estimate(s);
  if (!std::isfinite(out.estimate)) return out;

  // ||X||_2 <= 2. Rounding of Y and of the factorisation moves an eigenvalue by less than 0.1 for any n here:
  // m u ||X||_F^2 + n u tr(3.9 I - Y) < 1e-7 at 4096. Near convergence ||Y||_2 <= 1 + ||Y - I||_F suffices as a proof.
  const double off = s.norm_y * s.norm_y - 2 * s.trace_y + real(n);  // ||Y - I||_F^2
  out.is_norm_proven = off < 2.9 * 2.9 || device.is_norm_below_two();
  if (out.is_norm_proven) {
    // Rounding of H (m u |X|^T |M|), of Y (m u |X|^T |X|) and of the sums (at most 2 n additions in a chain).
    const double slack = 1.5 * (rows_u + cols_u) * norm_x * s.norm_m + 0.5 * rows_u * norm_x * norm_x * s.norm_h +
                         0.5 * rows_u * s.norm_y * norm_x * s.norm_m + 2 * cols_u * s.norm_y * s.norm_h;
    out.lower = std::max(0.0, out.estimate - 1.01 * slack);
  }

  double shift = polar_shift(s, n);
  double previous = kInfinity;
  for (int attempt = 0; attempt < 8; ++attempt) {
    const PolarTrial trial = attempt == 0 ? device.first_trial() : device.trial(shift);
    if (!trial.is_factored) {
      shift *= 10;
      continue;
    }
    // The inequality is exact for W C in place of M. Substitution has ||M - W C||_F <= n u ||W||_F ||C||_F. Where the
    // difference was measured instead, n u ||W||_F ||C||_F bounds the rounding of W C. In the nuclear norm the
    // difference counts sqrt(n) times.
    const double upper = (trial.norm_c * trial.norm_c + trial.norm_w * trial.norm_w) / 2 * (1 + 4 * (rows_u + cols_u)) +
                         1.01 * std::sqrt(real(n)) * cols_u * trial.norm_c * trial.norm_w +
                         1.01 * std::sqrt(real(n)) * trial.residual;
    if (!(upper < previous)) break;
    out.upper = std::min(out.upper, upper);
    if (out.upper - out.lower <= tol * out.upper) break;
    previous = upper;
    shift /= 30;
  }
  return out;
}

Bracket norm_bracket(double norm_m, std::size_t n) {
  const double slack = 4 * real(n) * kUnitRoundoff;
  return {norm_m * (1 - slack), std::sqrt(real(n)) * norm_m * (1 + slack)};
}

PolarRoute polar_route(PolarOperations& device, double tol, Bracket& bracket) {
  constexpr std::size_t kEarly = 4;
  constexpr double kSinglePrecisionTol = 1e-8;
  PolarRoute out;
  device.start();
  for (const auto& stage : polar::kStages) {
    const bool is_first_stage = out.iterations == 0;
    for (std::size_t i = 0; i < stage.size(); ++i) {
      device.step(stage[i], out.iterations == 0, is_first_stage && i >= kEarly && tol >= kSinglePrecisionTol);
      ++out.iterations;
    }
    const PolarCertificate proof = polar_certificate(device, tol);
    if (std::isfinite(proof.norm_m)) {
      const Bracket norms = norm_bracket(proof.norm_m, device.cols());
      bracket.intersect(norms.lower, norms.upper);
    }
    // A stage counts only if its norm is proven. The iteration cannot recover from a norm that is not proven.
    if (!proof.is_norm_proven) break;
    out.is_certified = true;
    out.value = proof.estimate;
    const double width = bracket.upper - bracket.lower;
    bracket.intersect(proof.lower, proof.upper);
    if (bracket.is_within(tol)) break;
    // Further stages follow only while they narrow the bracket enough.
    if (!is_first_stage && bracket.upper - bracket.lower > width / 2) break;
  }
  return out;
}

HostPolar::HostPolar(const Matrix& m, double norm_m, PolarWorkspace& workspace)
    : m_(m), norm_m_(norm_m), work_(workspace) {}

HostPolar::HostPolar(const Matrix& m, Matrix x, PolarWorkspace& workspace)
    : m_(m), norm_m_(linalg::frobenius_norm(m)), x_(std::move(x)), work_(workspace) {
  FASTFID_EXPECT(m_.rows() >= m_.cols() && x_.rows() == m_.rows() && x_.cols() == m_.cols(), InvalidArgument,
                 "polar_certificate: expected M and X of one shape (m, n), m >= n, got (", m_.rows(), ", ", m_.cols(),
                 ") and (", x_.rows(), ", ", x_.cols(), ")");
}

void HostPolar::start() {
  const std::size_t n = cols();
  x_.reshape(rows(), n);
  linalg::for_each_row(rows(), [&](std::size_t i) {
    for (std::size_t j = 0; j < n; ++j) x_(i, j) = m_(i, j) / norm_m_;
  });
}

void HostPolar::step(const polar::Quintic& c, bool is_first, bool /*is_late*/) {
  const std::size_t n = cols();
  Matrix& y = work_.y;
  Matrix& y2 = work_.h;
  flops_ += linalg::gram(x_, y);
  flops_ += linalg::gram(y, y2);
  const double scale = is_first ? polar_first_scale(std::sqrt(std::sqrt(linalg::frobenius_norm(y2)))) : 1;
  const auto [c0, c1, c2] = scaled_quintic(c, scale);
  linalg::for_each_row(n, [&, c0 = c0, c1 = c1, c2 = c2](std::size_t i) {
    for (std::size_t j = 0; j < n; ++j) y(i, j) = c1 * y(i, j) + c2 * y2(i, j);
    y(i, i) += c0;
  });
  flops_ += linalg::multiply(x_, y, work_.w);
  std::swap(x_, work_.w);
}

PolarMeasures HostPolar::measure() {
  flops_ += linalg::gram(x_, work_.y);
  flops_ += linalg::multiply_tn(x_, m_, work_.h);
  measures_ = {.norm_m = norm_m_,
               .trace_y = linalg::trace(work_.y),
               .norm_y = linalg::frobenius_norm(work_.y),
               .trace_h = linalg::trace(work_.h),
               .norm_h = linalg::frobenius_norm(work_.h),
               .inner_yh = linalg::inner_product(work_.y, work_.h)};
  return measures_;
}

bool HostPolar::is_norm_below_two() {
  const std::size_t n = cols();
  Matrix& c = work_.c;
  c.reshape(n, n);
  linalg::for_each_row(n, [&](std::size_t i) {
    for (std::size_t j = i; j < n; ++j) c(i, j) = -work_.y(i, j);
    c(i, i) += 3.9;
  });
  flops_ += real(n) * real(n) * real(n) / 3;
  return linalg::cholesky(c);
}

PolarTrial HostPolar::first_trial() { return trial(polar_shift(measures_, cols())); }

PolarTrial HostPolar::trial(double shift) {
  PolarTrial out;
  const std::size_t n = cols();
  const Matrix& h = work_.h;
  Matrix& c = work_.c;
  Matrix& w = work_.w;
  c.reshape(n, n);
  constexpr std::size_t kEdge = 32;
  linalg::for_each_row(divide_up(n, kEdge), [&](std::size_t index) {
    const std::size_t begin = index * kEdge;
    for_each_square<kEdge>({begin, std::min(begin + kEdge, n), begin, n}, [&](const Square& s) {
      for (std::size_t i = s.row; i < s.row_end; ++i) {
        for (std::size_t j = std::max(i, s.column); j < s.column_end; ++j) c(i, j) = (h(i, j) + h(j, i)) / 2;
        if (i >= s.column) c(i, i) += shift;
      }
    });
  });
  flops_ += real(n) * real(n) * real(n) / 3;
  if (!linalg::cholesky(c)) return out;
  out.is_factored = true;
  w.reshape(rows(), n);
  linalg::for_each_row(rows(), [&](std::size_t i) { std::copy_n(m_.row(i), n, w.row(i)); });
  flops_ += linalg::solve_right(c, w);
  out.norm_c = linalg::frobenius_norm(c);
  out.norm_w = linalg::frobenius_norm(w);
  return out;
}

Matrix HostPolar::matrix() {
  Matrix out(rows(), cols());
  std::copy_n(m_.data(), rows() * cols(), out.data());
  return out;
}

}  // namespace fastfid
