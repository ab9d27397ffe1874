// How far to trust a Fréchet distance of sample estimates: its standard error by the influence function.
#pragma once

#include "core/moments.hpp"

namespace fastfid {

struct StandardError {
  double value = 0;           // of the distance
  double relative_error = 0;  // standard deviation of `value` over its expectation, from the finite number of groups
};

// The distance's influence function at a sample x of side 1 is
//   i(x) = 2 (mu1 - mu2)^T (x - mu1) + (x - mu1)^T (I - A) (x - mu1) - tr((I - A) Sigma1)
// with A the optimal transport map from N(0, Sigma1) to N(0, Sigma2); side 2 likewise with A^-1. (The derivative of the
// Bures distance: Bhatia, Jain and Lim, "On the Bures-Wasserstein distance between positive definite matrices", 2019.)
// Its mean i_k over a group of samples depends on the group's number, mean and scatter alone, so
//   SE^2 = sum over sides of  sum_k n_k (i_k - mean)^2 / ((K - 1) n)
// over K groups, each a random part of the side. That is a variance estimated from K - 1 degrees of freedom: one side's
// SE is itself uncertain by 1 / sqrt(2 (K - 1)), 24 % for K = 10.
//
// With Sigma_i = F_i^T F_i, M = F1 F2^T and M^T M = Q L Q^T:  A = Z^T Z with Z = L^(-1/4) Q^T F2, and
// A^-1 = W^T W with W = L^(-3/4) Q^T M^T F1.
//
// Against Monte Carlo on Gaussians at d = 24 and 32 it is within the simulation's 8 % for n from 1.25 d to 20 d. Both
// sides must have groups and n > d. The two objects must not change meanwhile.
// Throws InvalidArgument for different d, fewer than two groups or n <= d; NumericalError where a covariance is
// singular, which leaves no transport map.
// Cost: about 9 d^3 flops for the eigenvectors (one thread) and 5 products; 48 d^2 bytes.
StandardError influence_standard_error(const Moments& a, const Moments& b);

}  // namespace fastfid
