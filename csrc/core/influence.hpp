// The influence function of the Fréchet distance: by how much one sample moves the distance.
#pragma once

#include <optional>
#include <vector>

#include "core/frechet.hpp"

namespace fastfid {

// The influence function at rows of each Gaussian's sample; empty where no rows were given.
struct Influence {
  std::vector<double> a;
  std::vector<double> b;
  double second_order = 0;  // see second_order_variance()
};

// The influence function of the distance at a sample x of `a` is
//   i(x) = 2 (mu_a - mu_b)^T (x - mu_a) + (x - mu_a)^T (I - A) (x - mu_a) - tr((I - A) Sigma_a)
// with A the optimal transport map from N(0, Sigma_a) to N(0, Sigma_b). For a sample of `b` the Gaussians are
// exchanged, and A^-1 stands for A. (The derivative of the Bures distance: Bhatia, Jain and Lim, "On the
// Bures-Wasserstein distance between positive definite matrices", 2019.) The mean of i over the sample is zero, and the
// variance of the distance is var i / n_a + var i / n_b to first order in 1 / n.
//
// With Sigma = F^T F for each, M = F_a F_b^T and the singular values M = U S V^T,
//   x^T A x = |S^(-1/2) V^T F_b x|^2   and   x^T A^-1 x = |S^(-1/2) U^T F_a x|^2
// for every x in the range of its own covariance, singular or not. Singular values below kLost of the largest are left
// out: each would add less than kLost of the largest to the quadratic form of a typical sample, and V is the
// eigenvectors of M^T M, which does not know them.
//
// `rows_a` and `rows_b` are feature rows of the two samples, or of parts of these; nothing is fitted to them. Throws
// InvalidArgument for Gaussians of different d, and what factor_covariances() and factor_rows() throw; NumericalError
// for rows with NaN or infinity. Cost: about 9 d^3 flops for the eigenvectors, on one thread, five products of d x d
// matrices, and one product of (n, d) and (d, d) for each set of rows. Memory: 48 d^2 bytes and 16 d bytes a row.
inline constexpr double kLost = 1e-6;
Influence influence(const Gaussian& a, const Gaussian& b, const std::optional<FeatureRows>& rows_a,
                    const std::optional<FeatureRows>& rows_b);

// The variance of the second-order part of the distance, over (1/n_a + 1/n_b)^2, for Gaussian features: with s the
// singular values of M,
//   5/2 sum_i s_i^2 + sum_(i != j) (s_i s_j / (s_i + s_j))^2.
// Exact for equal Gaussians, where the first order vanishes: there the distance is |d|^2 + sum_ij E_ij^2 / (2 (l_i +
// l_j)) of the normal differences d and E of means and covariances, with l the eigenvalues of the covariance.
double second_order_variance(const std::vector<double>& singular_values);

}  // namespace fastfid
