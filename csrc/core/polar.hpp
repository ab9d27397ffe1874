// The polar (Newton-Schulz) route to the nuclear norm of a matrix M (m x n, m >= n), and the certificate of its result.
//
// The algorithm exists once, in this file, for every device: the choice of the next polynomial, the certificate and the
// stopping rule. A device supplies PolarOperations: a few coarse operations on matrices that stay in the memory of the
// device, and the scalars on which the decisions are based. u below is the unit roundoff 2^-53.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "core/matrix.hpp"
#include "core/polar_table.hpp"

namespace fastfid {

// The scalars from which the certificate is computed. Norms are Frobenius norms.
struct PolarMeasures {
  double norm_m = 0;
  double trace_y = 0;  // Y = X^T X
  double norm_y = 0;
  double trace_h = 0;  // H = X^T M
  double norm_h = 0;
  double inner_yh = 0;  // <Y, H>
};

// One attempt at the upper bound: C^T C = (H + H^T) / 2 + shift I with upper-triangular C, W = M C^-1.
struct PolarTrial {
  bool is_factored = false;  // the Cholesky factorisation succeeded; otherwise the norms have no meaning
  double norm_c = 0;
  double norm_w = 0;
  double residual = 0;  // ||M - W C||_F, measured where the solve is not known to be backward stable; else 0
};

// The scalar formulas that a device evaluates without asking the host. They are constexpr, so that CUDA compiles them
// for the device.

// The lower bound before rounding is subtracted. It converges quadratically to the nuclear norm.
constexpr double polar_estimate(const PolarMeasures& s) { return (3 * s.trace_h - s.inner_yh) / 2; }

// The shift of the first trial: the part of the trace that X lacks, spread over the diagonal (numerics: F3).
constexpr double polar_shift(const PolarMeasures& s, std::size_t n) {
  return std::max(0.0, (polar_estimate(s) - s.trace_h) / static_cast<double>(n)) +
         4 * (std::numeric_limits<double>::epsilon() / 2) * s.norm_m;
}

// 1 / alpha with alpha >= ||A||_2, A = M / ||M||_F, from the fourth root of ||Y^2||_F, Y = A^T A: ||A||_2^4 <=
// ||Y^2||_F.
constexpr double polar_first_scale(double fourth_root) { return 1 / (std::min(1.0, fourth_root) * (1 + 1e-12)); }

// Returns c_j scale^(2 j + 1): the coefficients of the polynomial of scale X.
constexpr polar::Quintic scaled_quintic(const polar::Quintic& c, double scale) {
  const double square = scale * scale;
  return {c[0] * scale, c[1] * scale * square, c[2] * scale * square * square};
}

// The operations of the polar route on one device. The implementation holds M, X and its workspace; the calls come in
// this order: start; step, repeated; measure; is_norm_below_two, first_trial and trial as needed; then perhaps step
// again. In start, step and measure an implementation may merely enqueue work, until a scalar is asked for.
class PolarOperations {
 public:
  virtual ~PolarOperations() = default;

  virtual std::size_t rows() const = 0;  // m
  virtual std::size_t cols() const = 0;  // n

  // X := M / ||M||_F.
  virtual void start() = 0;

  // X := X (c0 I + c1 Y + c2 Y^2) with Y = X^T X. In the first step after start() the polynomial is that of
  // polar_first_scale(||Y^2||_F^(1/4)) X. `is_late`: float32 suffices (see polar_route), and a device may use it.
  virtual void step(const polar::Quintic& c, bool is_first, bool is_late) = 0;

  // Computes Y = X^T X, H = X^T M and their scalars in float64. A NaN or infinity in X appears in the scalars.
  virtual PolarMeasures measure() = 0;

  // True if 3.9 I - Y has a Cholesky factorisation, which proves ||X||_2 < 2.
  virtual bool is_norm_below_two() = 0;

  // trial(polar_shift(m)) for the result m of the last measure(). An implementation may have computed this trial in
  // measure().
  virtual PolarTrial first_trial() = 0;
  virtual PolarTrial trial(double shift) = 0;

  // M in host memory, for the last resort.
  virtual linalg::Matrix matrix() = 0;

  // Floating-point operations issued since construction.
  virtual double flops() const = 0;
};

// The bounds of the nuclear norm of M that an approximate polar factor X of M proves.
//   lower:  ||X||_2 <= 2 implies ||X (3 I - X^T X) / 2||_2 <= 1, so the trace of this matrix times M is at most
//           the nuclear norm:
//           lower = (3 tr H - <Y, H>) / 2 with Y = X^T X, H = X^T M. It is used only where ||X||_2 < 2 is proven: by
//           1 + ||Y - I||_F < 3.9, or by a Cholesky factorisation of 3.9 I - Y that succeeds.
//   upper:  (||C||_F^2 + ||M C^-1||_F^2) / 2 for any nonsingular C; C is a Cholesky factor of the symmetric part of H
//           plus mu I. The gap is ||P^(-1/2) (P - |M|)||_F^2 / 2, P = C^T C: quadratic in the error of P.
// The bounds include rounding: they hold for the computed M, and for any order of the sums in the products.
// Cost: 1/2 + 1 + 1/6 + 1/2 products for square M, 1/6 more where ||Y - I||_F does not prove the norm, and 2/3 more for
// each further mu.
struct PolarCertificate {
  bool is_norm_proven = false;  // ||X||_2 <= 2
  double norm_m = 0;
  double estimate = 0;
  double lower = 0;
  double upper = 0;
};
PolarCertificate polar_certificate(PolarOperations& device, double tol);

// Bounds of the nuclear norm. Each route that reports bounds tightens them.
struct Bracket {
  double lower;
  double upper;

  void intersect(double low, double high) {
    lower = std::max(lower, low);
    upper = std::min(upper, high);
  }
  bool is_within(double tol) const { return upper - lower <= tol * upper; }
};

// ||M||_F <= nuclear norm <= sqrt(n) ||M||_F.
Bracket norm_bracket(double norm_m, std::size_t n);

// The polar iteration with its certificate. Runs at most four stages, until the bracket is within tol.
//
// For tol >= 1e-8 the steps from the fifth step of the first stage on are `is_late`. There the singular values that
// were 1e-5 are above 1e-3, and X is well-conditioned. The bracket then stalls near 1e-9 of T (measured: 1.7e-7 at T =
// 165). Later stages are in float64.
struct PolarRoute {
  double value = 0;
  int iterations = 0;
  bool is_certified = false;
};
PolarRoute polar_route(PolarOperations& device, double tol, Bracket& bracket);

// The operations in host memory, all in float64. They work on the M and the workspace of the caller.
struct PolarWorkspace {
  linalg::Matrix y;
  linalg::Matrix h;
  linalg::Matrix c;
  linalg::Matrix w;
};
class HostPolar final : public PolarOperations {
 public:
  // `norm_m` is ||M||_F. start() computes X.
  HostPolar(const linalg::Matrix& m, double norm_m, PolarWorkspace& workspace);
  // Takes X from the caller, for polar_certificate alone. Throws InvalidArgument where the shapes do not fit.
  HostPolar(const linalg::Matrix& m, linalg::Matrix x, PolarWorkspace& workspace);

  std::size_t rows() const override { return m_.rows(); }
  std::size_t cols() const override { return m_.cols(); }
  void start() override;
  void step(const polar::Quintic& c, bool is_first, bool is_late) override;
  PolarMeasures measure() override;
  bool is_norm_below_two() override;
  PolarTrial first_trial() override;
  PolarTrial trial(double shift) override;
  linalg::Matrix matrix() override;
  double flops() const override { return flops_; }

 private:
  const linalg::Matrix& m_;
  double norm_m_;
  linalg::Matrix x_;
  PolarWorkspace& work_;
  PolarMeasures measures_;
  double flops_ = 0;
};

}  // namespace fastfid
