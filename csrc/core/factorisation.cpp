#include "core/factorisation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "core/blas.hpp"
#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/parallel.hpp"
#include "core/products.hpp"
#include "core/residual.hpp"

namespace fastfid {
namespace {

using linalg::Matrix;
using linalg::Shape;

// The largest |x|, or NaN or infinity where an element is NaN or infinity.
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

double norm(const std::vector<double>& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

// A pivot below d u times its own diagonal element is lost in rounding: the factor would contain noise, and the square
// root of the noise would enter T. (The ratio does not change when features are scaled, so a diagonal matrix of any
// condition passes.)
std::optional<Matrix> definite_factor(const ScaledCovariance& s) {
  Matrix f = s.upper_triangle();
  bool is_definite = linalg::cholesky(f);
  for (std::size_t i = 0; i < s.d && is_definite; ++i) {
    is_definite = f(i, i) * f(i, i) >= s.noise() * scaled(s.sigma[i * s.d + i], -2 * s.exponent);
  }
  if (!is_definite) return std::nullopt;
  return f;
}

double cholesky_flops(std::size_t d) { return real(d) * real(d) * real(d) / 3; }

// Estimates ||Sigma - F^T F||_F from 64 evenly spaced rows of the difference (from all rows for d <= 64). Each row is
// computed exactly as in the whole matrix, and the errors of the rows are similar. All rows would cost a sixth of a
// product.
double sample_residual(const ScaledCovariance& s, Factor& factor) {
  const std::size_t d = s.d;
  const Matrix& f = factor.f;
  const std::size_t sampled = std::min<std::size_t>(d, 64);
  const auto index = [&](std::size_t r) { return (2 * r + 1) * d / (2 * sampled); };
  Matrix columns(d, sampled);  // the sampled columns of F
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
    // F is upper triangular: the columns of this strip end at row begin + width.
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

// True if every element and the two diagonal elements of its row and column can be elements of a positive semi-definite
// matrix A rounded to float32. A has a_ij^2 <= a_ii a_jj, and rounding moves an element s by at most 2^-24 |s|, or by
// half the spacing of subnormal numbers. This condition is necessary but not sufficient.
bool may_be_float32(const ScaledCovariance& s) {
  const std::size_t d = s.d;
  const auto error = [](double x) { return std::max(0x1p-24 * std::abs(x), 0x1p-150); };
  std::vector<double> diagonal(d);  // largest numbers that round to the given ones; squares fit into float64
  for (std::size_t i = 0; i < d; ++i) {
    const double x = s.sigma[i * d + i];
    if (x < 0) return false;
    diagonal[i] = x + error(x);
  }
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) {
      const double x = s.sigma[i * d + j];
      if (static_cast<double>(static_cast<float>(x)) != x) return false;
      if (i == j) continue;
      const double least = std::max(0.0, std::abs(x) - error(x));
      if (least * least > diagonal[i] * diagonal[j] * (1 + 8 * kUnitRoundoff)) return false;
    }
  }
  return true;
}

// Factors an indefinite covariance. Throws where rounding to float32 is excluded as the reason for the indefiniteness.
void factor_rounded(const ScaledCovariance& s, Factor& factor) {
  const std::size_t d = s.d;
  if (!may_be_float32(s)) throw_indefinite(s);
  Matrix vectors(d, d);
  s.copy(0, d, 0, d, vectors.data(), d);
  const double norm = linalg::frobenius_norm(vectors);
  const std::vector<double> values = linalg::symmetric_eigenvectors(vectors);
  // ||E||_F for the rounding E of the elements. The last term is for subnormal float32 numbers. Rounding moves no
  // eigenvalue of a positive semi-definite matrix below -||E||_F (Weyl).
  const double rounding = 0x1.001p-24 * norm + real(d) * scaled(0x1p-150, -2 * s.exponent);
  const double noise = std::max(0.0, -values.front());
  if (noise > rounding) throw_indefinite(s, values);
  // Eigenvalues within the noise around zero, positive or negative, are noise themselves.
  const auto first = static_cast<std::size_t>(std::upper_bound(values.begin(), values.end(), noise) - values.begin());
  double left_out = 0;
  double squares = 0;
  for (std::size_t i = 0; i < first; ++i) {
    left_out += std::abs(values[i]);
    squares += values[i] * values[i];
  }
  factor.f = Matrix(d - first, d);
  for (std::size_t i = first; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) factor.f(i - first, j) = std::sqrt(values[i]) * vectors(i, j);
  }
  factor.rank = d - first;
  factor.residual = std::sqrt(squares) / factor.trace;
  // A bound in the nuclear norm, with the eigensolver's backward error of d u ||Sigma||_F. The norm of the part that is
  // left out covers the positive semi-definite part of Sigma itself.
  factor.rounded = std::sqrt(real(d)) * (rounding + real(d) * kUnitRoundoff * norm) + left_out;
  factor.distance = 0;
  factor.flops += 9 * real(d) * real(d) * real(d);
}

// Replaces X (n x d), n > d, in `out.f` by its triangular factor R. ||X^T X - R^T R|| is measured with the Gram matrix
// in float64, whose error is n u |X|^T |X|.
void take_triangle(Factor& out) {
  const double n = real(out.f.rows());
  const double d = real(out.d);
  Matrix gram;
  out.flops = linalg::gram(out.f, gram) + 2 * n * d * d - 2.0 / 3.0 * d * d * d;
  out.qr_error = triangle_error(out.f.rows(), out.d, std::sqrt(out.trace));
  out.f = linalg::triangular_factor(out.f);
  out.shape = Shape::kUpper;
  const auto elements = [&](std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* to,
                            std::size_t stride) {
    for (std::size_t i = 0; i < n_rows; ++i) std::copy_n(gram.row(row + i) + col, n_cols, to + i * stride);
  };
  std::vector<double> scale = column_norms(out.f);
  const bool is_regular = *std::min_element(scale.begin(), scale.end()) > 0;
  if (!is_regular) scale.clear();
  const auto norms = linalg::residual(elements, out.f, out.shape, scale, out.flops);
  out.distance = 1.01 * (norms.frobenius + norms.error + (n + 2) * kUnitRoundoff * out.trace);
  out.scaled_distance =
      is_regular ? 1.01 * (norms.scaled + norms.scaled_error + (n + 2) * kUnitRoundoff * d) : kInfinity;
}

}  // namespace

FactorFacts facts_of(const ScaledCovariance& s) {
  FactorFacts out;
  out.d = s.d;
  out.exponent = s.exponent;
  out.trace = s.trace;
  return out;
}

Factor factor_checked(const ScaledCovariance& s) {
  Factor out{facts_of(s), Matrix(0, s.d)};
  if (s.trace == 0) return out;
  out.elements = s.elements();
  out.are_elements_exact = s.is_symmetric;
  out.flops = cholesky_flops(s.d);
  if (auto f = definite_factor(s)) {
    out.f = std::move(*f);
    out.shape = Shape::kUpper;
    out.distance = cholesky_distance(s.diagonal());
  } else {
    out.is_singular = true;
    Matrix copy = s.upper_triangle();
    out.f = linalg::pivoted_cholesky(copy, s.noise() * s.max_diagonal);
    out.flops += real(s.d) * real(s.d) * real(out.f.rows());
  }
  out.rank = out.f.rows();
  return out;
}

void check_residual(const ScaledCovariance& s, Factor& factor) {
  if (s.trace == 0) return;
  if (factor.shape == Shape::kUpper) {
    factor.residual = sample_residual(s, factor) / factor.trace;
    return;
  }
  const auto norms = linalg::residual(s.elements(), factor.f, factor.shape, {}, factor.flops);
  factor.residual = norms.frobenius / factor.trace;
  factor.distance = 1.01 * (norms.frobenius + norms.error);
  // Where the given matrix is not symmetric, the rounding of the symmetric part.
  if (!s.is_symmetric) factor.distance += 1.01 * kUnitRoundoff * s.trace;
  // If the residual is positive semi-definite, its largest |element| is on the diagonal, where the factorisation
  // stopped at d u max_diagonal. Cholesky's own backward error is of the same order.
  if (norms.largest > 4 * real(s.d) * kUnitRoundoff * s.max_diagonal) {
    factor_rounded(s, factor);
  }
}

std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances) {
  const auto checked = check_covariances(covariances);
  std::vector<Factor> out(checked.size());
  // The covariances are factored in parallel. For a single covariance, and for the residual, the threads share the
  // strips.
  parallel_for(out.size(), [&](std::size_t i) { out[i] = factor_checked(checked[i]); });
  for (std::size_t i = 0; i < out.size(); ++i) check_residual(checked[i], out[i]);
  return out;
}

template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const std::string& name) {
  FASTFID_EXPECT(n >= 2, InvalidArgument, name, ": expected at least 2 samples, got ", n);
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected rows of d >= 1 features, got d = 0");
  Factor out;
  out.d = d;
  out.f = Matrix(n, d);
  const double largest = largest_magnitude(rows, n * d);
  FASTFID_EXPECT(std::isfinite(largest), NumericalError, name, ": contains NaN or infinity");
  std::copy_n(rows, n * d, out.f.data());
  if (largest > 0) out.exponent = std::ilogb(largest);
  linalg::scale_in_place(out.f.data(), n * d, -out.exponent);

  // Two passes: after the first mean is subtracted, the mean of the differences is the rounding error of the first
  // mean.
  std::vector<double> mean(d);  // in the end the mean of the second pass
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
  out.row_error = rows_error(n, d, std::sqrt(out.trace), norm(mean) / divisor);
  if (n <= d) {
    // The rows sum to zero, so M would have a singular value of zero, which is the most costly case. A Householder
    // reflection takes the vector of ones to the last axis. The last row becomes the sum of the rows, which is zero,
    // and is left out. With v = (1/sqrt n, ..., 1/sqrt n, 1 + 1/sqrt n) the other rows lose (x_n + sum / sqrt n) /
    // (sqrt n + 1).
    const double root = std::sqrt(real(n));
    std::vector<double> shift(d);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < d; ++j) shift[j] += out.f(i, j);
    }
    for (std::size_t j = 0; j < d; ++j) shift[j] = (out.f(n - 1, j) + shift[j] / root) / (root + 1);
    out.f.keep_rows(n - 1);
    for (std::size_t i = 0; i < n - 1; ++i) {
      for (std::size_t j = 0; j < d; ++j) out.f(i, j) -= shift[j];
    }
  } else {  // the side is not thin: a triangle of d rows replaces the n rows
    take_triangle(out);
  }
  return out;
}

template Factor factor_rows(const float*, std::size_t, std::size_t, const std::string&);
template Factor factor_rows(const double*, std::size_t, std::size_t, const std::string&);

}  // namespace fastfid
