// The standard error of a Fréchet distance of sample estimates, by the influence function.
#pragma once

#include "core/moments.hpp"

namespace fastfid {

struct StandardError {
  double value = 0;           // the standard error of the distance
  double relative_error = 0;  // standard deviation of `value` over its expectation, from the finite number of groups
};

// The distance's influence function at a sample x of side 1 is
//   i(x) = 2 (mu1 - mu2)^T (x - mu1) + (x - mu1)^T (I - A) (x - mu1) - tr((I - A) Sigma1)
// where A is the optimal transport map from N(0, Sigma1) to N(0, Sigma2). Side 2 has the same formula with the sides
// exchanged and A^-1 in place of A. (The derivative of the Bures distance: Bhatia, Jain and Lim, "On the
// Bures-Wasserstein distance between positive definite matrices", 2019.) The mean i_k of i(x) over a group of samples
// depends only on the number of samples, the mean and the scatter of the group, so
//   SE^2 = sum over sides of  sum_k n_k (i_k - mean)^2 / ((K - 1) n)
// over K groups, each a random part of the side. This variance is estimated from K - 1 degrees of freedom: the SE of
// one side is itself uncertain by 1 / sqrt(2 (K - 1)), which is 24 % for K = 10.
//
// With Sigma_i = F_i^T F_i, M = F1 F2^T and M^T M = Q L Q^T:  A = Z^T Z with Z = L^(-1/4) Q^T F2, and
// A^-1 = W^T W with W = L^(-3/4) Q^T M^T F1.
//
// On Gaussians at d = 24 and 32 the SE agrees with a Monte Carlo simulation within the simulation's own 8 %, for n from
// 1.25 d to 20 d. Both sides must have groups and n > d. No thread may change the two objects during the call.
// Throws InvalidArgument for different d, fewer than two groups or n <= d. Throws NumericalError where a covariance is
// singular, because then there is no transport map.
// Cost: about 9 d^3 flops for the eigenvectors (one thread) and 5 products; 48 d^2 bytes.
StandardError influence_standard_error(const Moments& a, const Moments& b);

}  // namespace fastfid
