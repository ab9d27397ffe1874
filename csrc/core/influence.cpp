#include "core/influence.hpp"

#include <cmath>
#include <cstddef>
#include <utility>

#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/factorisation.hpp"
#include "core/products.hpp"

namespace fastfid {
namespace {

// The rows less the mean, in float64.
linalg::Matrix centred(const FeatureRows& rows, const Gaussian& gaussian) {
  linalg::Matrix out(rows.n, gaussian.d);
  std::visit(
      [&](const auto* data) {
        linalg::for_each_row(rows.n, [&](std::size_t i) {
          for (std::size_t j = 0; j < gaussian.d; ++j) {
            out(i, j) = static_cast<double>(data[i * gaussian.d + j]) - gaussian.mu[j];
          }
        });
      },
      rows.data);
  return out;
}

double squared_norm(const double* x, std::size_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

// S and V of M = F_a F_b^T, less the singular values that are lost in M^T M. The rows of V^T are the singular vectors.
class Transport {
 public:
  Transport(const Factor& a, const Factor& b) : a_(a), b_(b) {
    if (a.f.rows() == 0 || b.f.rows() == 0) return;  // a zero covariance
    linalg::multiply_nt(a.f, a.shape, b.f, b.shape, m_);
    linalg::Matrix gram;
    linalg::gram(m_, gram);
    const std::vector<double> squares = linalg::symmetric_eigenvectors(gram);
    const double largest = squares.empty() ? 0 : squares.back();
    std::size_t first = 0;  // eigenvalues ascend
    while (first < squares.size() && !(squares[first] > kLost * kLost * largest)) ++first;
    vt_ = linalg::Matrix(squares.size() - first, gram.cols());
    for (std::size_t i = first; i < squares.size(); ++i) {
      s_.push_back(std::sqrt(squares[i]));
      std::copy_n(gram.row(i), gram.cols(), vt_.row(i - first));
    }
  }

  // Of M itself: without the scale of the factors.
  std::vector<double> singular_values() const {
    std::vector<double> out = s_;
    linalg::scale_in_place(out.data(), out.size(), a_.exponent + b_.exponent);
    return out;
  }

  // Z with x^T A x = |Z x|^2.
  linalg::Matrix from_a() const {
    linalg::Matrix z;
    if (s_.empty()) return z;
    linalg::multiply(vt_, b_.f, z);
    scale(z, -0.5, b_.exponent - a_.exponent);
    return z;
  }

  // Z with x^T A^-1 x = |Z x|^2: U^T = S^-1 V^T M^T.
  linalg::Matrix from_b() const {
    linalg::Matrix ut;
    linalg::Matrix z;
    if (s_.empty()) return z;
    linalg::multiply_nt(vt_, linalg::Shape::kFull, m_, linalg::Shape::kFull, ut);
    linalg::multiply(ut, a_.f, z);
    scale(z, -1.5, a_.exponent - b_.exponent);
    return z;
  }

 private:
  // Rows of z times S^power 2^(exponent / 2): the factors stand for Sigma 4^-exponent.
  void scale(linalg::Matrix& z, double power, int exponent) const {
    const double unit = std::pow(2.0, exponent / 2.0);
    for (std::size_t i = 0; i < z.rows(); ++i) {
      const double factor = std::pow(s_[i], power) * unit;
      for (std::size_t j = 0; j < z.cols(); ++j) z(i, j) *= factor;
    }
  }

  const Factor& a_;
  const Factor& b_;
  linalg::Matrix m_;
  linalg::Matrix vt_;
  std::vector<double> s_;
};

// i at the rows of `from`; `z` is Z of the transport map to `to`, `expected` is tr((I - A) Sigma).
std::vector<double> values(const FeatureRows& rows, const Gaussian& from, const Gaussian& to, const linalg::Matrix& z,
                           double expected) {
  const linalg::Matrix x = centred(rows, from);
  linalg::Matrix mapped(rows.n, 0);
  if (z.rows() > 0) linalg::multiply_nt(x, linalg::Shape::kFull, z, linalg::Shape::kFull, mapped);
  std::vector<double> out(rows.n);
  linalg::for_each_row(rows.n, [&](std::size_t i) {
    double shift = 0;
    for (std::size_t j = 0; j < from.d; ++j) shift += (from.mu[j] - to.mu[j]) * x(i, j);
    out[i] = 2 * shift + squared_norm(x.row(i), from.d) - squared_norm(mapped.row(i), mapped.cols()) - expected;
  });
  for (const double value : out) {
    FASTFID_EXPECT(std::isfinite(value), NumericalError, from.label("rows"),
                   ": contains NaN or infinity, or the influence exceeds the range of float64");
  }
  return out;
}

}  // namespace

Influence influence(const Gaussian& a, const Gaussian& b, const std::optional<FeatureRows>& rows_a,
                    const std::optional<FeatureRows>& rows_b) {
  FASTFID_EXPECT(a.d == b.d, InvalidArgument, "Gaussians of different dimension: ", a.label("d = "), a.d, ", ",
                 b.label("d = "), b.d);
  const Factor factor_a = factor_gaussian(a);
  const Factor factor_b = factor_gaussian(b);
  const Transport transport(factor_a, factor_b);
  const std::vector<double> singular_values = transport.singular_values();
  // tr(A Sigma_a) and tr(A^-1 Sigma_b) are both the sum of the singular values.
  double transported = 0;
  for (const double value : singular_values) transported += value;
  const auto expected = [&](const Factor& factor) {
    return std::scalbn(factor.trace, 2 * factor.exponent) - transported;
  };
  Influence out;
  if (rows_a) out.a = values(*rows_a, a, b, transport.from_a(), expected(factor_a));
  if (rows_b) out.b = values(*rows_b, b, a, transport.from_b(), expected(factor_b));
  out.second_order = second_order_variance(singular_values);
  return out;
}

double second_order_variance(const std::vector<double>& singular_values) {
  double sum = 0;
  for (std::size_t i = 0; i < singular_values.size(); ++i) {
    const double s = singular_values[i];
    sum += 2.5 * s * s;
    for (std::size_t j = 0; j < i; ++j) {
      const double mean = s * (singular_values[j] / (s + singular_values[j]));
      sum += 2 * mean * mean;
    }
  }
  return sum;
}

}  // namespace fastfid
