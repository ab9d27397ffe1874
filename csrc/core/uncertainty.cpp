#include "core/uncertainty.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/decompositions.hpp"
#include "core/errors.hpp"
#include "core/factorisation.hpp"
#include "core/products.hpp"

namespace fastfid {
namespace {

// Multiplies the rows of `a` by powers of the eigenvalues.
void scale_rows(linalg::Matrix& a, const std::vector<double>& eigenvalues, double power) {
  for (std::size_t i = 0; i < a.rows(); ++i) {
    const double factor = std::pow(eigenvalues[i], power);
    for (std::size_t j = 0; j < a.cols(); ++j) a(i, j) *= factor;
  }
}

struct SideError {
  double value = 0;   // standard error of the distance due to one side
  double groups = 0;  // groups that hold samples
};

// The error of one side, from the means of the influence function over the groups. `a` is the transport map away from
// this side, `mu` the mean of this side and `other` the mean of the other side.
SideError side_error(const Moments& moments, const std::vector<double>& mu, const std::vector<double>& other,
                     const linalg::Matrix& a, const char* name) {
  const std::size_t d = mu.size();
  std::vector<double> mean(d);
  std::vector<double> scatter(d * d);
  std::vector<double> influence;
  std::vector<double> counts;
  double n = 0;
  for (int k = 0; k < moments.groups(); ++k) {
    const auto count = static_cast<double>(moments.group_moments(k, mean.data(), scatter.data()));
    if (count == 0) continue;
    for (std::size_t i = 0; i < d; ++i) mean[i] -= mu[i];
    std::vector<double> rows(d);
    linalg::for_each_row(d, [&](std::size_t i) {
      double sum = 0;
      for (std::size_t j = 0; j < d; ++j) {
        const double g = (i == j ? 1.0 : 0.0) - a(i, j);
        sum += g * (scatter[i * d + j] / count + mean[i] * mean[j]);
      }
      rows[i] = sum + 2 * (mu[i] - other[i]) * mean[i];
    });
    double total = 0;
    for (const double x : rows) total += x;
    influence.push_back(total);
    counts.push_back(count);
    n += count;
  }
  SideError out;
  out.groups = static_cast<double>(influence.size());
  FASTFID_EXPECT(influence.size() >= 2, InvalidArgument, name, ": expected samples in at least 2 groups, got ",
                 influence.size());
  double center = 0;
  for (std::size_t k = 0; k < influence.size(); ++k) center += counts[k] * influence[k] / n;
  double largest = 0;  // divided out, so that no square leaves the range of float64
  for (const double x : influence) largest = std::max(largest, std::abs(x - center));
  if (largest == 0) return out;
  double sum = 0;
  for (std::size_t k = 0; k < influence.size(); ++k) {
    const double x = (influence[k] - center) / largest;
    sum += counts[k] * x * x;
  }
  out.value = largest * std::sqrt(sum / ((out.groups - 1) * n));
  return out;
}

// One side: the moments, and their mean and covariance.
struct Side {
  const Moments& moments;
  const char* name;
  std::vector<double> mu;
  linalg::Matrix sigma;
};

Side read_side(const Moments& moments, const char* name) {
  const auto d = static_cast<std::size_t>(moments.d());
  Side side{moments, name, std::vector<double>(d), linalg::Matrix(d, d)};
  FASTFID_EXPECT(moments.groups() >= 2, InvalidArgument, name, ": expected at least 2 groups, got ", moments.groups());
  FASTFID_EXPECT(moments.n() > static_cast<std::int64_t>(d), InvalidArgument, name,
                 ": the influence function needs more samples than features, got n = ", moments.n(), " and d = ", d);
  moments.mean(side.mu.data());
  moments.covariance(1, side.sigma.data());
  return side;
}

// The Cholesky factors of both covariances. Throws for a singular covariance.
std::vector<Factor> regular_factors(const Side& a, const Side& b) {
  const std::size_t d = a.mu.size();
  auto factors = factor_covariances({{a.sigma.data(), d, "sigma1"}, {b.sigma.data(), d, "sigma2"}});
  for (std::size_t s = 0; s < 2; ++s) {
    FASTFID_EXPECT(factors[s].shape == linalg::Shape::kUpper, NumericalError, (s == 0 ? a : b).name,
                   ": its covariance is singular (rank ", factors[s].rank, " of ", d,
                   "), so there is no transport map and no influence function");
  }
  return factors;
}

// The symmetric A with A Sigma1 A = Sigma2, and the inverse of A: the transport maps away from each side. Sigma_i =
// 4^e_i F_i^T F_i, M = F1 F2^T, and the rows of Q are the eigenvectors of M^T M.
class Transport {
 public:
  explicit Transport(std::vector<Factor> factors) : factors_(std::move(factors)) {
    linalg::multiply_nt(factors_[0].f, factors_[0].shape, factors_[1].f, factors_[1].shape, m_);
    linalg::gram(m_, q_);
    eigenvalues_ = linalg::symmetric_eigenvectors(q_);
    const auto d = static_cast<double>(eigenvalues_.size());
    const double noise = 4 * d * std::numeric_limits<double>::epsilon() * eigenvalues_.back();
    FASTFID_EXPECT(eigenvalues_.front() > noise, NumericalError,
                   "the product of the covariances is singular to working precision: no influence function");
  }

  // A scales with Sigma2 / |M|.
  linalg::Matrix from_first() const {
    linalg::Matrix z;
    linalg::multiply(q_, factors_[1].f, z);
    return map(std::move(z), -0.25, factors_[1].exponent - factors_[0].exponent);
  }

  linalg::Matrix from_second() const {
    linalg::Matrix qm;
    linalg::Matrix z;
    linalg::multiply_nt(q_, linalg::Shape::kFull, m_, linalg::Shape::kFull, qm);
    linalg::multiply(qm, factors_[0].f, z);
    return map(std::move(z), -0.75, factors_[0].exponent - factors_[1].exponent);
  }

 private:
  // Z^T D Z 2^exponent, where D is the eigenvalues to the power 2 `power`.
  linalg::Matrix map(linalg::Matrix z, double power, int exponent) const {
    linalg::Matrix out;
    scale_rows(z, eigenvalues_, power);
    linalg::gram(z, out);
    linalg::scale_in_place(out.data(), out.rows() * out.cols(), exponent);
    return out;
  }

  std::vector<Factor> factors_;
  linalg::Matrix m_;
  linalg::Matrix q_;
  std::vector<double> eigenvalues_;
};

}  // namespace

StandardError influence_standard_error(const Moments& a, const Moments& b) {
  FASTFID_EXPECT(a.d() == b.d(), InvalidArgument, "the two sides differ in dimension: ", a.d(), " and ", b.d());
  const Side side1 = read_side(a, "moments1");
  const Side side2 = read_side(b, "moments2");
  const Transport transport(regular_factors(side1, side2));
  const SideError first = side_error(a, side1.mu, side2.mu, transport.from_first(), side1.name);
  const SideError second = side_error(b, side2.mu, side1.mu, transport.from_second(), side2.name);

  // The variance of each side has the relative variance 2 / (K - 1), and a square root halves a relative error.
  StandardError out;
  out.value = std::hypot(first.value, second.value);
  if (out.value > 0) {
    const double share1 = (first.value / out.value) * (first.value / out.value);
    const double share2 = (second.value / out.value) * (second.value / out.value);
    out.relative_error =
        std::sqrt(share1 * share1 / (2 * (first.groups - 1)) + share2 * share2 / (2 * (second.groups - 1)));
  }
  FASTFID_EXPECT(std::isfinite(out.value), NumericalError, "the standard error exceeds the range of float64");
  return out;
}

}  // namespace fastfid
