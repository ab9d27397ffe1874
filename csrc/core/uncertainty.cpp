#include "core/uncertainty.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/errors.hpp"
#include "core/linalg.hpp"
#include "core/matrix_sqrt.hpp"

namespace fastfid {
namespace {

// Rows of `a` times powers of the eigenvalues.
void scale_rows(linalg::Matrix& a, const std::vector<double>& eigenvalues, double power) {
  for (std::size_t i = 0; i < a.rows(); ++i) {
    const double factor = std::pow(eigenvalues[i], power);
    for (std::size_t j = 0; j < a.cols(); ++j) a(i, j) *= factor;
  }
}

struct SideError {
  double value = 0;   // standard error of the distance from one side
  double groups = 0;  // that hold samples
};

// From the groups' means of the influence function, with the transport map `a` away from this side, whose mean is `mu`
// and the other's `other`.
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
  double largest = 0;  // taken out, so that no square leaves the range of float64
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

}  // namespace

StandardError influence_standard_error(const Moments& a, const Moments& b) {
  FASTFID_EXPECT(a.d() == b.d(), InvalidArgument, "the two sides differ in dimension: ", a.d(), " and ", b.d());
  const auto d = static_cast<std::size_t>(a.d());
  const std::array<const Moments*, 2> sides = {&a, &b};
  const std::array<const char*, 2> names = {"moments1", "moments2"};
  std::array<std::vector<double>, 2> mu = {std::vector<double>(d), std::vector<double>(d)};
  std::array<linalg::Matrix, 2> sigma = {linalg::Matrix(d, d), linalg::Matrix(d, d)};
  for (std::size_t s = 0; s < 2; ++s) {
    FASTFID_EXPECT(sides[s]->groups() >= 2, InvalidArgument, names[s], ": expected at least 2 groups, got ",
                   sides[s]->groups());
    FASTFID_EXPECT(sides[s]->n() > static_cast<std::int64_t>(d), InvalidArgument, names[s],
                   ": the influence function needs more samples than features, got n = ", sides[s]->n(),
                   " and d = ", d);
    sides[s]->mean(mu[s].data());
    sides[s]->covariance(1, sigma[s].data());
  }
  const auto factors = factor_covariances({{sigma[0].data(), d, "sigma1"}, {sigma[1].data(), d, "sigma2"}});
  for (std::size_t s = 0; s < 2; ++s) {
    FASTFID_EXPECT(factors[s].shape == linalg::Shape::kUpper, NumericalError, names[s],
                   ": its covariance is singular (rank ", factors[s].rank, " of ", d,
                   "), so there is no transport map and no influence function");
  }
  linalg::Matrix m;
  linalg::Matrix q;
  linalg::multiply_nt(factors[0].f, factors[0].shape, factors[1].f, factors[1].shape, m);
  linalg::gram(m, q);
  const std::vector<double> eigenvalues = linalg::symmetric_eigenvectors(q);
  const double noise = 4 * static_cast<double>(d) * std::numeric_limits<double>::epsilon() * eigenvalues.back();
  FASTFID_EXPECT(eigenvalues.front() > noise, NumericalError,
                 "the product of the covariances is singular to working precision: no influence function");

  // The factors are scaled: Sigma_i = 4^e_i F_i^T F_i, and A goes with Sigma2 / |M|.
  const int e = factors[1].exponent - factors[0].exponent;
  linalg::Matrix z;
  linalg::Matrix transport;
  linalg::multiply(q, factors[1].f, z);
  scale_rows(z, eigenvalues, -0.25);
  linalg::gram(z, transport);
  linalg::scale_in_place(transport.data(), d * d, e);
  const SideError first = side_error(a, mu[0], mu[1], transport, names[0]);

  linalg::Matrix qm;
  linalg::multiply_nt(q, linalg::Shape::kFull, m, linalg::Shape::kFull, qm);
  linalg::multiply(qm, factors[0].f, z);
  scale_rows(z, eigenvalues, -0.75);
  linalg::gram(z, transport);
  linalg::scale_in_place(transport.data(), d * d, -e);
  const SideError second = side_error(b, mu[1], mu[0], transport, names[1]);

  // Each side's variance has the relative variance 2 / (K - 1), and a root halves a relative error.
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
