#include "core/factor.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/decompositions.hpp"
#include "core/numbers.hpp"
#include "core/products.hpp"
#include "core/residual.hpp"

namespace fastfid {
namespace {

using linalg::Matrix;

constexpr double kSmallest = std::numeric_limits<double>::denorm_min();

// Every estimate of rounding below is of first order. The terms of higher order, and the rounding of the estimates' own
// evaluation, are far below a hundredth of the estimate for every d that occurs here.
constexpr double kMargin = 1.01;

// The rounding of d products and a few sums. 3 of the 8 are for divisions that BLAS makes as products with reciprocals,
// and for the symmetric part of a matrix that is not symmetric.
double rounding(std::size_t d) { return kMargin * (real(d) + 8) * kUnitRoundoff; }

// The magnitude that underflow may add to an element of D in a sum of d products.
double underflow(std::size_t d) { return 2 * (real(d) + 2) * kSmallest; }

// An upper bound of ||V^-1 D V^-1|| for a Cholesky factor: the root of the sum of ((min(j, k) + 8) u)^2. The sum is
// about d^4 u^2 / 6.
double scaled_cholesky_distance(std::size_t d, double least) {
  return cholesky_distance(std::vector<double>(d, 1.0)) + real(d) * underflow(d) / least / least;
}

// The inverse of an upper-triangular F: F^-1 = Y (I - R)^-1.
struct Inverse {
  Matrix y;
  double norm = 0;    // upper bound of ||V F^-1||_2; infinity or NaN where R may be too large
  double growth = 0;  // upper bound of ||(I - R)^-1||_2
};

Inverse inverse_of(const Matrix& f, const std::vector<double>& scale, double& flops) {
  Inverse out;
  out.y = linalg::inverse_of_upper(f, flops);
  const std::size_t d = f.rows();
  std::vector<double> squares(d);
  linalg::for_each_row(d, [&](std::size_t i) {
    for (std::size_t j = i; j < d; ++j) {
      const double x = scale[i] * out.y(i, j);
      squares[i] += x * x;
    }
  });
  double norm = 0;
  for (const double x : squares) norm += x;
  norm = std::sqrt(norm);
  // |R| <= (d + 3) u |F V^-1| |V Y|, and ||F V^-1|| = sqrt(d).
  const double r = rounding(d) * std::sqrt(real(d)) * norm;
  out.growth = r < 0.5 ? 1 / (1 - r) : kNoFirstOrder;
  out.norm = kMargin * norm * out.growth;
  return out;
}

// An upper bound of ||F2 V^2 F1^-1||, from V^2 Y in place of Y. The error of the product is at most (d + 3) u |F2| |V^2
// Y|; the 3 is for V^2.
double transport_norm(const Factor& b, const Inverse& inverse, double& flops) {
  const double computed = linalg::product_norm(b.f, b.shape, inverse.y, flops);
  const double added = rounding(b.d) * linalg::frobenius_norm(b.f) * linalg::frobenius_norm(inverse.y);
  return kMargin * inverse.growth * (computed + added);
}

void scale_rows(Matrix& y, const std::vector<double>& scale) {
  linalg::for_each_row(y.rows(), [&](std::size_t i) {
    for (std::size_t j = i; j < y.cols(); ++j) y(i, j) *= scale[i] * scale[i];
  });
}

// Measures D1; returns ||V^-1 D1 V^-1||.
double measured_distance(Factor& a, const std::vector<double>& scale) {
  const linalg::ResidualNorms e = linalg::residual(a.elements, a.f, a.shape, scale, a.flops);
  // Where Sigma is not symmetric, its symmetric part is rounded: |rounding| <= u v v^T.
  const double symmetric_part = a.are_elements_exact ? 0 : kMargin * kUnitRoundoff;
  a.distance = std::min(a.distance, kMargin * (e.frobenius + e.error) + symmetric_part * a.trace);
  return kMargin * (e.scaled + e.scaled_error) + symmetric_part * real(a.d);
}

// An upper bound of ||D||_* of a covariance; 0 for rows.
double nuclear_distance(const FactorFacts& a) { return a.row_error > 0 ? 0 : std::sqrt(real(a.d)) * a.distance; }

// An upper bound of both (tr S)^(1/2) and ||F||.
double root_of_trace(const FactorFacts& a) {
  return std::sqrt(a.trace + nuclear_distance(a) + a.rounded) + a.row_error + a.qr_error;
}

}  // namespace

std::vector<double> column_norms(const Matrix& f) {
  constexpr double kLarge = 0x1p400;  // keeps the squares of the roots of the smallest numbers from underflow
  std::vector<double> out(f.cols());
  for (std::size_t i = 0; i < f.rows(); ++i) {
    for (std::size_t j = i; j < f.cols(); ++j) out[j] += (f(i, j) * kLarge) * (f(i, j) * kLarge);
  }
  for (double& x : out) x = std::sqrt(x) / kLarge;
  return out;
}

double cholesky_distance(const std::vector<double>& diagonal) {
  // sum_jk (min(j, k) + 8)^2 s_jj s_kk, row by row: twice the elements before the diagonal, and the one on it.
  const std::size_t d = diagonal.size();
  double sum = 0;
  double before = 0;  // sum over k < j of (k + 8)^2 s_kk
  for (std::size_t j = 0; j < d; ++j) {
    const double own = (real(j) + 8) * (real(j) + 8) * diagonal[j];
    sum += diagonal[j] * (2 * before + own);
    before += own;
  }
  return kMargin * kUnitRoundoff * std::sqrt(sum) + real(d) * underflow(d);
}

double first_order(Factor& a, const Factor& b, double enough) {
  if (!a.has_first_order()) return kNoFirstOrder;
  const std::vector<double> scale = column_norms(a.f);
  Inverse inverse = inverse_of(a.f, scale, a.flops);
  double out = kNoFirstOrder;
  const auto improve = [&](double bound) {
    out = std::min(out, bound);  // NaN does not replace `out`
    return out <= enough;
  };
  // V = I, first without the product.
  const double crude = kMargin * inverse.growth * linalg::frobenius_norm(b.f) * linalg::frobenius_norm(inverse.y);
  if (improve(a.distance * crude)) return out;
  const double norm = transport_norm(b, inverse, a.flops);
  if (improve(a.distance * norm)) return out;
  // V = diag(scale)
  scale_rows(inverse.y, scale);
  const double scaled_norm = transport_norm(b, inverse, a.flops);
  if (!a.elements) {
    improve(a.scaled_distance * scaled_norm);
    return out;
  }
  const auto scaled_bound = [&](double scaled_distance) {
    return scaled_distance * inverse.norm * inverse.norm <= 0.5 ? scaled_distance * scaled_norm : kNoFirstOrder;
  };
  const double least = *std::min_element(scale.begin(), scale.end());
  if (improve(scaled_bound(scaled_cholesky_distance(a.d, least)))) return out;
  improve(scaled_bound(measured_distance(a, scale)));
  improve(a.distance * norm);
  return out;
}

double rows_error(std::size_t n, std::size_t d, double norm, double second_mean) {
  // ||rows|| before the second pass, where each element is rounded by u.
  const double before = norm + std::sqrt(real(n)) * second_mean;
  // The rounding after the second pass: a difference, a quotient and the root in it, and the reflection's sums of n
  // terms.
  double out = kUnitRoundoff * (before + (real(n) + 12) * norm) + real(n) * real(d) * 0x1p-1060;
  if (n > d) out += kUnitRoundoff * (real(n) + 4) * before;
  return kMargin * out;
}

double triangle_error(std::size_t n, std::size_t d, double norm) {
  return kMargin * 8 * real(n) * real(d) * kUnitRoundoff * norm;
}

TraceError factor_error(const FactorFacts& a, const FactorFacts& b, double first_a, double first_b) {
  TraceError out;
  const auto add = [&](const FactorFacts& side, const FactorFacts& other, double first) {
    const double root = root_of_trace(other);
    const double any = (std::sqrt(nuclear_distance(side)) + side.qr_error) * root;
    out.below += std::min(first, any);
    out.above += first < any ? first / 2 : any;
    const double rounded = std::sqrt(side.rounded) * root;
    out.rounded += rounded;
    out.below += rounded + side.row_error * root;
    out.above += rounded + side.row_error * root;
  };
  add(a, b, first_a);
  add(b, a, first_b);
  out.below *= kMargin;
  out.above *= kMargin;
  return out;
}

double trace_bound(const FactorFacts& a, const FactorFacts& b) {
  return root_of_trace(a) * root_of_trace(b) * (1 + 8 * real(a.d) * kUnitRoundoff);
}

double trace_error(const FactorFacts& facts) {
  // ||X'||^2 - ||X||^2, and the negative eigenvalues that were set to zero.
  return facts.rounded + nuclear_distance(facts) +
         kMargin * facts.row_error * (2 * std::sqrt(facts.trace) + facts.row_error);
}

}  // namespace fastfid
