#include "core/residual.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/blas.hpp"
#include "core/strips.hpp"

namespace fastfid::linalg {
namespace {

// F = high + low, the split that residual() needs.
struct Split {
  Matrix high;
  Matrix low;
  double low_norm = 0;    // upper bound of ||low||_F
  double scaled_low = 0;  // upper bound of ||low V^-1||_F
};

// For each column, the power of two of which the elements of `high` are multiples. The elements have b bits, such that
// a product of 2 b bits and the carry of r sums fit into 53 bits.
std::vector<double> quanta(const Matrix& f, Shape shape) {
  const std::size_t r = f.rows();
  const std::size_t n = f.cols();
  int carry = 0;
  while ((std::size_t{1} << carry) < r) ++carry;
  const int bits = (53 - carry) / 2;
  std::vector<double> out(n);
  parallel_for(strips(n), [&](std::size_t task) {
    const Range j = strip(task, n);
    for (std::size_t k = 0; k < (shape == Shape::kUpper ? std::min(r, j.end()) : r); ++k) {
      for (std::size_t c = j.begin; c < j.end(); ++c) out[c] = std::max(out[c], std::abs(f(k, c)));
    }
    for (std::size_t c = j.begin; c < j.end(); ++c) {
      if (out[c] > 0) out[c] = std::scalbn(1.0, std::ilogb(out[c]) + 1 - bits);
    }
  });
  return out;
}

Split split(const Matrix& f, Shape shape, const std::vector<double>& scale) {
  const std::size_t r = f.rows();
  const std::size_t n = f.cols();
  const std::vector<double> quantum = quanta(f, shape);
  Split out{Matrix(r, n), Matrix(r, n)};
  std::vector<double> reciprocal(n);
  double squares = 0;
  double scaled_squares = 0;
  for (std::size_t j = 0; j < n; ++j) {
    reciprocal[j] = quantum[j] > 0 ? 1 / quantum[j] : 0;
    squares += quantum[j] * quantum[j] / 4;
    if (!scale.empty()) scaled_squares += (quantum[j] / scale[j]) * (quantum[j] / scale[j]) / 4;
  }
  out.low_norm = std::sqrt(static_cast<double>(r) * squares);
  out.scaled_low = std::sqrt(static_cast<double>(r) * scaled_squares);
  for_each_row(r, [&](std::size_t k) {
    constexpr double kToInteger = 0x1.8p52;  // a number below 2^51 added to it is rounded to an integer
    for (std::size_t j = 0; j < n; ++j) {
      const double x = f(k, j);
      const double high = (x * reciprocal[j] + kToInteger - kToInteger) * quantum[j];
      out.high(k, j) = high;
      out.low(k, j) = x - high;
    }
  });
  return out;
}

// Norms of the lower triangle of one strip of E, with the mirror image included.
struct ResidualPartial {
  double squares = 0;
  double scaled = 0;
  double largest = 0;
  double flops = 0;
};

// Rows `i` of E = S - F^T F, with the columns up to the diagonal.
Matrix residual_strip(const FillElements& fill, const Matrix& f, const Split& parts, Shape shape, Range i,
                      double& flops) {
  const int n = dim(f.cols());
  const std::size_t depth = shape == Shape::kUpper ? std::min(f.rows(), i.end()) : f.rows();
  Matrix e(i.size, i.end());
  Matrix product(i.size, i.end());
  fill(i.begin, i.size, 0, i.end(), e.data(), i.end());
  const auto multiply = [&](double alpha, const Matrix& left, const Matrix& right, double beta, Matrix& out) {
    gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(i.end()), dim(depth), alpha, left.data() + i.begin, n,
         right.data(), n, beta, out.data(), dim(i.end()));
    flops += product_flops(i.size, i.end(), depth);
  };
  // The product is computed apart from S: added to S inside the product, the sums would not be exact.
  multiply(1.0, parts.high, parts.high, 0.0, product);
  for (std::size_t k = 0; k < i.size * i.end(); ++k) e.data()[k] -= product.data()[k];
  multiply(-1.0, parts.high, parts.low, 1.0, e);
  multiply(-1.0, parts.low, f, 1.0, e);
  return e;
}

}  // namespace

ResidualNorms residual(const FillElements& fill, const Matrix& f, Shape shape, const std::vector<double>& scale,
                       double& flops) {
  const std::size_t n = f.cols();
  const Split parts = split(f, shape, scale);
  std::vector<ResidualPartial> partials(strips(n));
  parallel_for(strips(n), [&](std::size_t task) {
    const std::size_t index = strips(n) - 1 - task;
    const Range i = strip(index, n);
    ResidualPartial& partial = partials[index];
    const Matrix e = residual_strip(fill, f, parts, shape, i, partial.flops);
    for (std::size_t r = 0; r < i.size; ++r) {
      const double* const row = e.row(r);
      const std::size_t diagonal = i.begin + r;
      for (std::size_t c = 0; c <= diagonal; ++c) {
        const double weight = c < diagonal ? 2 : 1;
        partial.squares += weight * row[c] * row[c];
        partial.largest = std::max(partial.largest, std::abs(row[c]));
        if (scale.empty()) continue;
        const double x = row[c] / scale[c] / scale[diagonal];
        partial.scaled += weight * x * x;
      }
    }
  });
  ResidualNorms out;
  for (const ResidualPartial& partial : partials) {
    out.frobenius += partial.squares;
    out.scaled += partial.scaled;
    out.largest = std::max(out.largest, partial.largest);
    flops += partial.flops;
  }
  out.frobenius = std::sqrt(out.frobenius);
  out.scaled = std::sqrt(out.scaled);
  const double size = static_cast<double>(n);
  const double count = 2 * static_cast<double>(f.rows()) + 4;
  const double rounding = 1.01 * count * 0x1p-53;
  // Each product and each sum may lose half of the smallest number by underflow.
  const double underflow = size * count * 0x1p-1074;
  out.error = rounding * (out.frobenius + 4 * parts.low_norm * frobenius_norm(f)) + underflow;
  if (scale.empty()) return out;
  const double least = *std::min_element(scale.begin(), scale.end());
  out.scaled_error = rounding * (out.scaled + 4 * parts.scaled_low * std::sqrt(1.01 * size));
  out.scaled_error += underflow / least / least;
  return out;
}

}  // namespace fastfid::linalg
