#include "core/matrix_sqrt.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>

#include "core/band_root.hpp"
#include "core/errors.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"
#include "core/root_table.hpp"

namespace fastfid {

int power_of_four(double x) {
  const int e = std::ilogb(x);
  return (e - (e & 1)) / 2;
}

namespace {

using linalg::Matrix;
using linalg::Shape;

constexpr double kUnitRoundoff = std::numeric_limits<double>::epsilon() / 2;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kAsymmetry = 1e-6;
constexpr std::size_t kLeastParallel = 256;  // d from which a second thread brings more than it costs

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

double norm(const std::vector<double>& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

// x 2^e without overflow of the factor itself.
double scaled(double x, int e) { return std::scalbn(x, e); }

// The same, no larger and no smaller where the result is so small that it is rounded.
double scaled_down(double x, int e) {
  const double y = scaled(x, e);
  return scaled(y, -e) > x ? std::nextafter(y, 0.0) : y;
}
double scaled_up(double x, int e) {
  const double y = scaled(x, e);
  return scaled(y, -e) < x ? std::nextafter(y, kInfinity) : y;
}

// A checked covariance, read as its symmetric part times 4^-exponent.
struct Scaled {
  const double* sigma;
  std::size_t d;
  const char* name;
  int exponent = 0;
  double trace = 0;
  double max_diagonal = 0;
  bool is_symmetric = false;  // to the last bit

  // Halving the sum of the mirror images is exact for symmetric input. 4^-exponent itself may not be representable:
  // two steps.
  double first() const { return std::scalbn(1.0, -exponent - 1); }
  double second() const { return std::scalbn(1.0, -exponent); }

  // Writes the elements of rows [row, row + n_rows) and columns [col, col + n_cols); `stride` is that of `out`.
  void copy(std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
            std::size_t stride) const {
    const double a = first();
    const double b = second();
    if (is_symmetric) {  // the same bits without the mirror image
      for (std::size_t r = 0; r < n_rows; ++r) {
        const double* const in = sigma + (row + r) * d + col;
        for (std::size_t c = 0; c < n_cols; ++c) out[r * stride + c] = in[c] * a * b + in[c] * a * b;
      }
      return;
    }
    constexpr std::size_t kSquare = 32;  // reads of the mirror image stay in the cache
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

  linalg::FillElements elements() const {
    return [s = *this](std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
                       std::size_t stride) { s.copy(row, n_rows, col, n_cols, out, stride); };
  }

  std::vector<double> diagonal() const {
    std::vector<double> out(d);
    for (std::size_t i = 0; i < d; ++i) copy(i, 1, i, 1, &out[i], 1);
    return out;
  }

  // What lies below it is undefined.
  Matrix upper_triangle() const {
    constexpr std::size_t kRows = 32;
    Matrix out(d, d);
    parallel_for((d + kRows - 1) / kRows, [&](std::size_t task) {
      const std::size_t i = task * kRows;
      copy(i, std::min(kRows, d - i), i, d - i, out.row(i) + i, d);
    });
    return out;
  }

  // Relative to a diagonal element: what rounding may leave of a pivot that is zero.
  double noise() const { return static_cast<double>(d) * kUnitRoundoff; }
};

// Sums of squares and of magnitudes of n elements times factor^2 (which may itself not be representable), eight partial
// sums each.
FASTFID_CLONES void row_norms(const double* row, std::size_t n, double factor, double& squares, double& magnitudes) {
  constexpr std::size_t kSums = 8;
  std::array<double, kSums> two{};
  std::array<double, kSums> one{};
  for (std::size_t j = 0; j < n; j += kSums) {
    const std::size_t count = std::min(kSums, n - j);
    for (std::size_t k = 0; k < count; ++k) {
      const double x = row[j + k] * factor * factor;
      two[k] += x * x;
      one[k] += std::abs(x);
    }
  }
  squares = std::accumulate(two.begin(), two.end(), 0.0);
  magnitudes = std::accumulate(one.begin(), one.end(), 0.0);
}

struct Norms {
  double frobenius = 0;
  double spectral = 0;  // a bound: the largest sum of magnitudes in a row, or ||S||_F
};

Norms norms(const Scaled& s) {
  std::vector<double> squares(s.d);
  std::vector<double> magnitudes(s.d);
  linalg::for_each_row(
      s.d, [&](std::size_t i) { row_norms(s.sigma + i * s.d, s.d, s.second(), squares[i], magnitudes[i]); });
  Norms out;
  out.frobenius = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
  out.spectral = std::min(out.frobenius, *std::max_element(magnitudes.begin(), magnitudes.end()));
  return out;
}

// The error every tool's users know: pytorch-fid's words first, then what is wrong.
[[noreturn]] void throw_indefinite(const Scaled& s, const std::vector<double>& eigenvalues) {
  throw NumericalError(
      message("Imaginary component ", scaled(std::sqrt(std::max(0.0, -eigenvalues.front())), s.exponent), ": ", s.name,
              " is not positive semi-definite, so it is no covariance: its smallest eigenvalue is ",
              scaled(eigenvalues.front(), 2 * s.exponent), ", its largest ", scaled(eigenvalues.back(), 2 * s.exponent),
              ", and rounding does not explain it. Compute the statistics again in float64, or pass the features"));
}

[[noreturn]] void throw_indefinite(const Scaled& s) {
  Matrix copy(s.d, s.d);
  s.copy(0, s.d, 0, s.d, copy.data(), s.d);
  throw_indefinite(s, linalg::symmetric_eigenvalues(copy));
}

// Without its sign bit a double is ordered as an integer is, infinity and then NaN on top.
constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);

// Over n elements and their mirror images: the largest magnitude, and the bits that differ.
FASTFID_CLONES void survey(const double* elements, const double* mirror, std::size_t n, std::uint64_t& largest,
                           std::uint64_t& differing) {
  std::uint64_t top = largest;
  std::uint64_t apart = differing;
  for (std::size_t i = 0; i < n; ++i) {
    const auto here = std::bit_cast<std::uint64_t>(elements[i]);
    const auto there = std::bit_cast<std::uint64_t>(mirror[i]);
    top = std::max(top, std::max(here & kMagnitude, there & kMagnitude));
    apart |= here ^ there;
  }
  largest = top;
  differing = apart;
}

// Calls f(row, first column, columns, mirror images of these elements) for the pieces of the lower triangle, the
// squares on the diagonal whole. The images are copied square by square: read down their columns they miss the cache.
template <class F>
void for_each_mirrored(const double* sigma, std::size_t d, F&& f) {
  constexpr std::size_t kSquare = 32;
  std::array<double, kSquare * kSquare> mirror;
  for (std::size_t r0 = 0; r0 < d; r0 += kSquare) {
    const std::size_t rows = std::min(kSquare, d - r0);
    for (std::size_t c0 = 0; c0 <= r0; c0 += kSquare) {
      const std::size_t cols = std::min(kSquare, d - c0);
      for (std::size_t c = 0; c < cols; ++c) {
        for (std::size_t r = 0; r < rows; ++r) mirror[r * kSquare + c] = sigma[(c0 + c) * d + r0 + r];
      }
      for (std::size_t r = 0; r < rows; ++r) f(r0 + r, c0, cols, mirror.data() + r * kSquare);
    }
  }
}

// Finite, symmetric, and what brings the trace into [1, 4).
Scaled check_covariance(const double* sigma, std::size_t d, const char* name) {
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected a covariance with d >= 1, got d = 0");
  Scaled s{sigma, d, name};
  std::uint64_t largest_bits = 0;
  std::uint64_t differing = 0;
  for_each_mirrored(sigma, d, [&](std::size_t r, std::size_t c, std::size_t n, const double* mirror) {
    survey(sigma + r * d + c, mirror, n, largest_bits, differing);
  });
  const auto largest = std::bit_cast<double>(largest_bits);
  FASTFID_EXPECT(std::isfinite(largest), NumericalError, name, ": contains NaN or infinity");
  if (largest == 0) return s;
  s.is_symmetric = differing == 0;
  double asymmetry = 0;
  if (!s.is_symmetric) {
    for_each_mirrored(sigma, d, [&](std::size_t r, std::size_t c, std::size_t n, const double* mirror) {
      const double* const row = sigma + r * d + c;
      for (std::size_t i = 0; i < n; ++i) asymmetry = std::max(asymmetry, std::abs(row[i] - mirror[i]));
    });
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
  // Of a positive semi-definite matrix no element is larger than the largest on the diagonal. Found here, where the
  // largest element is near 1: once the trace is, others might overflow.
  constexpr double kLarger = 1 + 1e-6;  // what rounding to float32 can do
  if (!(s.trace > 0 && scaled(largest, -2 * s.exponent) <= kLarger * s.max_diagonal)) throw_indefinite(s);
  const int more = power_of_four(s.trace);
  s.exponent += more;
  s.trace = scaled(s.trace, -2 * more);
  s.max_diagonal = scaled(s.max_diagonal, -2 * more);
  return s;
}

// A pivot below d u of its own diagonal element has been lost in rounding: the factor would hold noise whose square
// root enters T. (The ratio does not change when features are scaled, so a diagonal matrix of any condition passes.)
std::optional<Matrix> definite_factor(const Scaled& s) {
  Matrix f = s.upper_triangle();
  bool is_definite = linalg::cholesky(f);
  for (std::size_t i = 0; i < s.d && is_definite; ++i) {
    is_definite = f(i, i) * f(i, i) >= s.noise() * scaled(s.sigma[i * s.d + i], -2 * s.exponent);
  }
  if (!is_definite) return std::nullopt;
  return f;
}

FactorFacts facts_of(const Scaled& s) {
  FactorFacts out;
  out.d = s.d;
  out.exponent = s.exponent;
  out.trace = s.trace;
  return out;
}

double cholesky_flops(std::size_t d) { return real(d) * real(d) * real(d) / 3; }

Factor factor_checked(const Scaled& s) {
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

// Can every element, with the two diagonal elements of its row and column, be those of a positive semi-definite matrix
// rounded to float32? That matrix has a_ij^2 <= a_ii a_jj; rounding moved an element s by 2^-24 |s| at most, or by half
// the spacing of subnormal numbers. Necessary, not sufficient.
bool may_be_float32(const Scaled& s) {
  const std::size_t d = s.d;
  const auto error = [](double x) { return std::max(0x1p-24 * std::abs(x), 0x1p-150); };
  std::vector<double> diagonal(d);  // the largest that rounds to the one given; squares of float32 fit into float64
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

// The factor of a covariance that is indefinite, where rounding to float32 is not excluded as the reason; throws where
// it is.
void factor_rounded(const Scaled& s, Factor& factor) {
  const std::size_t d = s.d;
  if (!may_be_float32(s)) throw_indefinite(s);
  Matrix vectors(d, d);
  s.copy(0, d, 0, d, vectors.data(), d);
  const double norm = linalg::frobenius_norm(vectors);
  const std::vector<double> values = linalg::symmetric_eigenvectors(vectors);
  // ||E||_F for the rounding E of the elements; the last term is that of subnormal float32 numbers. No eigenvalue of a
  // positive semi-definite matrix falls below -||E||_F by it (Weyl).
  const double rounding = 0x1.001p-24 * norm + real(d) * scaled(0x1p-150, -2 * s.exponent);
  const double noise = std::max(0.0, -values.front());
  if (noise > rounding) throw_indefinite(s, values);
  // What lies within the noise of zero is noise itself, on either side.
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
  // In the nuclear norm, with the eigensolver's backward error of d u ||Sigma||_F. That of the part left out covers the
  // positive semi-definite part of Sigma itself.
  factor.rounded = std::sqrt(real(d)) * (rounding + real(d) * kUnitRoundoff * norm) + left_out;
  factor.distance = 0;
  factor.flops += 9 * real(d) * real(d) * real(d);
}

// How far the factor is from its covariance; throws where what a pivoted factorisation left is more than rounding.
void check_residual(const Scaled& s, Factor& factor) {
  if (s.trace == 0) return;
  if (factor.shape == Shape::kUpper) {
    factor.residual = sample_residual(s, factor) / factor.trace;
    return;
  }
  const auto norms = linalg::residual(s.elements(), factor.f, factor.shape, {}, factor.flops);
  factor.residual = norms.frobenius / factor.trace;
  factor.distance = 1.01 * (norms.frobenius + norms.error);
  // Of the symmetric part, where the given matrix is not symmetric.
  if (!s.is_symmetric) factor.distance += 1.01 * kUnitRoundoff * s.trace;
  // The largest |element| of a positive semi-definite rest is on its diagonal, where the factorisation stopped at
  // d u max_diagonal. Cholesky's own backward error is of the same order.
  if (norms.largest > 4 * real(s.d) * kUnitRoundoff * s.max_diagonal) {
    factor_rounded(s, factor);
  }
}

std::vector<Scaled> check_covariances(const std::vector<Covariance>& covariances) {
  std::vector<Scaled> out(covariances.size());
  parallel_for(out.size(), [&](std::size_t i) {
    out[i] = check_covariance(covariances[i].sigma, covariances[i].d, covariances[i].name);
  });
  return out;
}

}  // namespace

std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances) {
  const auto checked = check_covariances(covariances);
  std::vector<Factor> out(checked.size());
  // Side by side; with one alone, or for the residual, the threads share its strips.
  parallel_for(out.size(), [&](std::size_t i) { out[i] = factor_checked(checked[i]); });
  for (std::size_t i = 0; i < out.size(); ++i) check_residual(checked[i], out[i]);
  return out;
}

namespace {

// Replaces X (n x d), n > d, in `out.f` by its triangular factor R. ||X^T X - R^T R|| is measured by way of the Gram
// matrix in float64, which is off by n u |X|^T |X|.
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

template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const char* name) {
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

  // Two passes: the mean of what is left after a first mean was taken off is the rounding error of the first.
  std::vector<double> mean(d);  // that of the second pass, in the end
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
    // The rows sum to zero, and so M would have a singular value that is zero, which is what costs most. A Householder
    // reflection takes the vector of ones to the last axis: the last row becomes that sum and is left out. With
    // v = (1/sqrt n, ..., 1/sqrt n, 1 + 1/sqrt n) the others lose (x_n + sum / sqrt n) / (sqrt n + 1).
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
  } else {  // no thin side: a triangle of d rows stands for the n
    take_triangle(out);
  }
  return out;
}

template Factor factor_rows(const float*, std::size_t, std::size_t, const char*);
template Factor factor_rows(const double*, std::size_t, std::size_t, const char*);

namespace {

// Nuclear norm from the eigenvalues of G = M^T M. With ||computed G - G||_F and LAPACK's backward error together below
// eta = (m + n) u ||M||_F^2 (the product's share is proven; the eigensolver's is LAPACK's documented p(n) u ||G|| with
// p(n) = n), sum (computed - true eigenvalue)^2 <= eta^2 by Hoffman and Wielandt, and so, over the eigenvalues above
// 2 eta, |sum of changes of the roots| <= 0.6 eta sqrt(sum 1/lambda) by Cauchy and Schwarz.
struct EigenRoute {
  double value = 0;
  double lower = 0;
  double upper = 0;
  bool is_resolved = false;  // few eigenvalues in the noise, where a root has half of its digits wrong
  std::vector<double> singular_values;
};

// Relative error of the value above which the singular values of M are taken instead, which cost five times as much.
constexpr double kEigenError = 1e-9;

EigenRoute eigen_route(const Matrix& m, double norm_m, Matrix& g, double& flops) {
  EigenRoute out;
  flops += linalg::gram(m, g, linalg::Fill::kUpper);
  const double n = real(m.cols());
  out.singular_values = linalg::symmetric_eigenvalues(g);
  flops += 4.0 / 3.0 * n * n * n;
  const double largest = std::max(0.0, out.singular_values.back());
  const double eta = (real(m.rows()) + n) * kUnitRoundoff * norm_m * norm_m;
  // What rounding may do to a small eigenvalue, and through the roots to the value: an estimate, not a bound (at
  // n = 2000 the smallest were off by 0.03 u ||G||, the largest by 65).
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

// Forming M: |M - F1 F2^T| <= d u |F1| |F2^T|, times sqrt(n) in the nuclear norm.
double forming_error(const FactorFacts& a, const FactorFacts& b, std::size_t n) {
  return 1.01 * std::sqrt(real(n)) * real(a.d) * kUnitRoundoff * std::sqrt(a.trace * b.trace);
}

// For each side, what rounding of the factors may do to T without being worth a narrower bound: little beside the rest
// of the bracket of the nuclear norm of M, n columns, and no more than a tolerance leaves.
double enough_factor_error(const FactorFacts& a, const FactorFacts& b, std::size_t n, const Bracket& bracket,
                           std::optional<double> tol) {
  const TraceError rest =
      factor_error(a, b, a.has_first_order() ? 0 : kNoFirstOrder, b.has_first_order() ? 0 : kNoFirstOrder);
  const double width = bracket.upper - bracket.lower + 2 * forming_error(a, b, n) + rest.below + rest.above;
  // Both sides together widen the bracket by three times this: see factor_error().
  return tol ? std::clamp((*tol * bracket.upper - width) / 3, 0.0, width / 4) : width / 4;
}

constexpr char kSingular[] = "the covariances' product is singular to working precision";
constexpr char kTooNarrow[] = "the bracket asked for is narrower than the other routes give";

// Singular values of M, for what no other route settles. Backward stable: ||M - computed||_F <= (m + n) u ||M||_F
// (LAPACK's documented bound), times sqrt(n) in the nuclear norm.
void last_resort(Matrix m, double norm_m, const char* why, TraceResult& out, Bracket& bracket, double& flops) {
  const double n = real(m.cols());
  const double slack = std::sqrt(n) * (real(m.rows()) + n) * kUnitRoundoff * norm_m;
  flops += 8.0 / 3.0 * real(m.rows()) * n * n;
  out.singular_values = linalg::singular_values(m);
  out.value = 0;
  for (const double s : out.singular_values) out.value += s;
  bracket.intersect(out.value - slack, out.value + slack);
  out.method = "svd";
  out.note = message("the singular values of M were needed: ", why);
}

// T <= ||F1||_F ||F2||_F, proven before any iteration and all but attained for identical covariances.
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

// Relative to the upper bound. What Newton-Schulz is asked for by default is no wide bracket.
constexpr double kPolarTol = 1e-6;

// Says why a bracket is wide that is so because of the factors.
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

// From the nuclear norm of M, n columns, to T: rounding in M, the factors, and the scale.
void finish(const FactorFacts& a, const FactorFacts& b, const TraceError& error, std::size_t n, Bracket bracket,
            double flops, std::optional<double> tol, TraceResult& out) {
  const double formed = forming_error(a, b, n);
  bracket.lower = std::max(0.0, bracket.lower - formed - error.below);
  bracket.upper = std::min(bracket.upper + formed + error.above, trace_bound(a, b));
  // Above it, an estimate is rounding, as of identical sides.
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

// T by the rational route from the Cholesky factor of S1 and from S2; nothing where it does not settle the matter. What
// it spent is added to `factor.flops` in either case.
std::optional<TraceResult> rational_route(const Scaled& a, const Norms& norms_a, Factor& factor, const Scaled& b,
                                          const Norms& norms_b, bool needs_singular_values) {
  const double d = real(a.d);
  // Backward error of the products in the Frobenius norm: |computed Q - F K| <= d u |F| |K|, which F^T and the sum's
  // two halves take into G, where ||F||_2^2 = ||S1||_2 and 2 ||K||_F^2 <= ||S2||_F^2; and the sums of 2 d products, 2 d
  // u
  // (|Q| |F^T| + |F| |Q^T|).
  const double first = 1.01 * d * kUnitRoundoff * std::sqrt(2 * a.trace * norms_a.spectral) * norms_b.frobenius;
  // lambda_min(G) <= lambda_min(F F^T) ||S2||_2, and no pivot is below lambda_min(F^T F): then it cannot be resolved.
  double least_pivot = kInfinity;
  for (std::size_t i = 0; i < a.d; ++i) least_pivot = std::min(least_pivot, factor.f(i, i) * factor.f(i, i));
  if (least_pivot * norms_b.frobenius <= 2 * first) return std::nullopt;
  linalg::Congruence product = linalg::congruence(factor.f, b.elements());
  linalg::Band band = linalg::reduce_to_band(product.g);
  factor.flops += product.flops + 4.0 / 3.0 * d * d * d;
  const double products = first + 1.01 * d * kUnitRoundoff * 4 * std::sqrt(a.trace) * product.norm_q;
  // Reduction to a band: LAPACK's form p(d) u ||G|| with p(d) = d. Band: an estimate, of the size of (width + 1) u
  // sqrt(2 width + 1), what a factorisation L D L^T commits, doubled; what was measured is a sixtieth of it.
  const double width = real(band.width);
  const double norm_g = frobenius_norm(band);
  const double eta = products + kUnitRoundoff * (d + 2 * (width + 1) * std::sqrt(2 * width + 1)) * norm_g;
  const BandRoot root = root_trace(band, 2 * eta);
  if (!(root.is_resolved && std::isfinite(eta))) return std::nullopt;
  factor.flops += 3 * d * width * width * real(root::kPoleCount);
  // As in eigen_route. And ||M||_F^2 = tr G, whose error is at most sqrt(d) eta.
  const double slack =
      0.6 * eta * std::sqrt(root.reciprocals) + (2 * d * kUnitRoundoff + 2 * root::kError) * root.value;
  Bracket bracket{std::max(0.0, root.value - slack), root.value + slack};
  double trace_g = 0;
  for (std::size_t j = 0; j < band.n; ++j) trace_g += band.elements[j * (band.width + 1)];
  const double trace_error = std::sqrt(d) * eta + d * kUnitRoundoff * trace_g;
  bracket.intersect(std::sqrt(std::max(0.0, trace_g - trace_error)), std::sqrt(d * (trace_g + trace_error)));
  bracket.upper = std::min(bracket.upper, factor_bound(factor, facts_of(b)));
  // S2 is exact, so there is L1 of core/factor.hpp alone. With V = I it is at most ||X|| ||D1||, and ||X|| =
  // ||G^(1/4) (F1 F1^T)^-1 G^(1/4)|| <= ||S2||_2 ||G^(-1/2)||, since G <= ||S2||_2 F1 F1^T. No eigenvalue of G is below
  // half of that of B, which is 2 eta at least.
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
    // The side with the smaller tr S / ||S||_F is factored: the bracket is narrower then.
    const std::array<Norms, 2> sizes = {norms(checked[0]), norms(checked[1])};
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

  // M tall: the Gram matrix is formed on the smaller side.
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
