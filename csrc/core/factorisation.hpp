// Factors F of covariances and of feature rows, Sigma = 4^exponent F^T F, and what is known of their errors.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/covariance.hpp"
#include "core/factor.hpp"

namespace fastfid {

// Factors covariances (d, d), C-contiguous, at the same time: Cholesky; where that fails or a pivot is lost in
// rounding, pivoted Cholesky, stopped at d u max(diagonal). A Cholesky factor has |S - F^T F| <= (d + 1) u |F|^T |F|
// (Higham, "Accuracy and Stability of Numerical Algorithms", theorem 10.3, for any order of the sums), and from that
// its `distance`; that of a pivoted one is measured.
//
// Symmetry is required up to 1e-6 of the largest element (statistics files of other tools are symmetric to float32
// rounding at worst); the symmetric part is used. Throws InvalidArgument where it is not symmetric, NumericalError for
// NaN, infinity, or an indefinite matrix; the latter message begins with pytorch-fid's "Imaginary component".
// A singular covariance that was stored as float32 is indefinite by the rounding of its elements. It is accepted where
// all elements are float32 numbers and no eigenvalue is below -2^-24 ||Sigma||_F: by Weyl, some positive semi-definite
// S can round to it. F is then the part of the spectrum above the most negative eigenvalue's magnitude, and `rounded`
// bounds the distance to any such S.
// Cost each: d^3/3 flops for Cholesky and 64 d^2 flops to estimate the residual; for a
// singular one also d^2 r flops for the pivoted factorisation and 3 d^2 r for the residual. 8 d^2 bytes for the factor.
std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances);

// The factor of the sample covariance (divisor n - 1) of n >= 2 feature rows (n, d), C-contiguous: the rows less their
// mean, divided by sqrt(n - 1), after a reflection that makes one of them zero, which is left out; for n > d their
// triangular QR factor. The mean is taken in float64 in two passes. Throws InvalidArgument for n < 2, NumericalError
// for NaN or infinity. Memory: 8 n d bytes. Cost for n > d: 2 n d^2 flops, and n d^2 + d^3 to measure what the factor
// leaves.
template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const std::string& name);

// What the routes of the trace (core/trace_sqrt.hpp) take one by one; factor_covariances() is both steps.
//
// What is known of a covariance before it is factored.
FactorFacts facts_of(const ScaledCovariance& s);
// The factor, without what only its residual tells. May be called for several covariances at once.
Factor factor_checked(const ScaledCovariance& s);
// How far the factor is from its covariance; throws where what a pivoted factorisation left is more than rounding.
void check_residual(const ScaledCovariance& s, Factor& factor);

}  // namespace fastfid
