#include "core/covariance.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <numeric>

#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"
#include "core/squares.hpp"

namespace fastfid {
namespace {

using linalg::Matrix;

// Sums of squares and of magnitudes of n elements times factor^2, with eight partial sums each. factor^2 itself may not
// be representable.
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

// Without the sign bit, doubles have the order of their bits as integers. Infinity is above all numbers, and NaN above
// infinity.
constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);

// Finds, over n elements and their mirror images, the largest magnitude and the bits that differ.
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

// Calls f(row, first column, columns, mirror images of these elements) for the pieces of the lower triangle, including
// whole squares on the diagonal. The mirror images are copied square by square, because reading along columns misses
// the cache.
template <class F>
void for_each_mirrored(const double* sigma, std::size_t d, F&& f) {
  constexpr std::size_t kEdge = 32;
  std::array<double, kEdge * kEdge> mirror;
  for_each_square<kEdge>({0, d, 0, d}, [&](const Square& s) {
    if (s.column > s.row) return;
    for (std::size_t c = s.column; c < s.column_end; ++c) {
      for (std::size_t r = s.row; r < s.row_end; ++r) mirror[(r - s.row) * kEdge + (c - s.column)] = sigma[c * d + r];
    }
    for (std::size_t r = s.row; r < s.row_end; ++r) {
      f(r, s.column, s.column_end - s.column, mirror.data() + (r - s.row) * kEdge);
    }
  });
}

// Checks that the covariance is finite and symmetric, and finds the exponent that brings the trace into [1, 4).
ScaledCovariance check_covariance(const double* sigma, std::size_t d, const std::string& name) {
  FASTFID_EXPECT(d >= 1, InvalidArgument, name, ": expected a covariance with d >= 1, got d = 0");
  ScaledCovariance s{sigma, d, name};
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
  // The first scale brings the largest element near 1, so that the trace does not overflow.
  s.exponent = power_of_four(largest);
  for (std::size_t i = 0; i < d; ++i) {
    const double x = scaled(sigma[i * d + i], -2 * s.exponent);
    s.trace += x;
    s.max_diagonal = std::max(s.max_diagonal, x);
  }
  // No element of a positive semi-definite matrix is larger than the largest element on the diagonal. The check is made
  // here, where the largest element is near 1. Once the trace is near 1, other elements might overflow.
  constexpr double kLarger = 1 + 1e-6;  // covers rounding to float32
  if (!(s.trace > 0 && scaled(largest, -2 * s.exponent) <= kLarger * s.max_diagonal)) throw_indefinite(s);
  const int more = power_of_four(s.trace);
  s.exponent += more;
  s.trace = scaled(s.trace, -2 * more);
  s.max_diagonal = scaled(s.max_diagonal, -2 * more);
  return s;
}

}  // namespace

int power_of_four(double x) {
  const int e = std::ilogb(x);
  return (e - (e & 1)) / 2;
}

void ScaledCovariance::copy(std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
                            std::size_t stride) const {
  const double a = first();
  const double b = second();
  if (is_symmetric) {  // the mirror image is not needed for the same bits
    for (std::size_t r = 0; r < n_rows; ++r) {
      const double* const in = sigma + (row + r) * d + col;
      for (std::size_t c = 0; c < n_cols; ++c) out[r * stride + c] = in[c] * a * b + in[c] * a * b;
    }
    return;
  }
  for_each_square({0, n_rows, 0, n_cols}, [&](const Square& s) {
    for (std::size_t r = s.row; r < s.row_end; ++r) {
      for (std::size_t c = s.column; c < s.column_end; ++c) {
        const double here = sigma[(row + r) * d + col + c];
        const double mirror = sigma[(col + c) * d + row + r];
        out[r * stride + c] = here * a * b + mirror * a * b;
      }
    }
  });
}

linalg::FillElements ScaledCovariance::elements() const {
  return [s = *this](std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
                     std::size_t stride) { s.copy(row, n_rows, col, n_cols, out, stride); };
}

std::vector<double> ScaledCovariance::diagonal() const {
  std::vector<double> out(d);
  for (std::size_t i = 0; i < d; ++i) copy(i, 1, i, 1, &out[i], 1);
  return out;
}

Matrix ScaledCovariance::upper_triangle() const {
  constexpr std::size_t kRows = 32;
  Matrix out(d, d);
  parallel_for(divide_up(d, kRows), [&](std::size_t task) {
    const std::size_t i = task * kRows;
    copy(i, std::min(kRows, d - i), i, d - i, out.row(i) + i, d);
  });
  return out;
}
std::vector<ScaledCovariance> check_covariances(const std::vector<Covariance>& covariances) {
  std::vector<ScaledCovariance> out(covariances.size());
  parallel_for(out.size(), [&](std::size_t i) {
    out[i] = check_covariance(covariances[i].sigma, covariances[i].d, covariances[i].name);
  });
  return out;
}

CovarianceNorms norms(const ScaledCovariance& s) {
  std::vector<double> squares(s.d);
  std::vector<double> magnitudes(s.d);
  linalg::for_each_row(
      s.d, [&](std::size_t i) { row_norms(s.sigma + i * s.d, s.d, s.second(), squares[i], magnitudes[i]); });
  CovarianceNorms out;
  out.frobenius = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
  out.spectral = std::min(out.frobenius, *std::max_element(magnitudes.begin(), magnitudes.end()));
  return out;
}

void throw_indefinite(const ScaledCovariance& s, const std::vector<double>& eigenvalues) {
  throw NumericalError(
      message("Imaginary component ", scaled(std::sqrt(std::max(0.0, -eigenvalues.front())), s.exponent), ": ", s.name,
              " is not positive semi-definite, so it is no covariance: its smallest eigenvalue is ",
              scaled(eigenvalues.front(), 2 * s.exponent), ", its largest ", scaled(eigenvalues.back(), 2 * s.exponent),
              ", and rounding does not explain it. Compute the statistics again in float64, or pass the features"));
}

void throw_indefinite(const ScaledCovariance& s) {
  Matrix copy(s.d, s.d);
  s.copy(0, s.d, 0, s.d, copy.data(), s.d);
  throw_indefinite(s, linalg::symmetric_eigenvalues(copy));
}

}  // namespace fastfid
