// Factors F of covariances and of feature rows, Sigma = 4^exponent F^T F, and what is known about the errors of the
// factors.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/covariance.hpp"
#include "core/factor.hpp"

namespace fastfid {

// Factors all covariances (d, d), C-contiguous, at the same time, by Cholesky's factorisation. Where it fails, or a
// pivot is lost in rounding, the pivoted Cholesky factorisation is used, stopped at d u max(diagonal). A Cholesky
// factor has |S - F^T F| <= (d + 1) u |F|^T |F| (Higham, "Accuracy and Stability of Numerical Algorithms", theorem
// 10.3, for any order of the sums), which gives its `distance`. The `distance` of a pivoted factor is measured.
//
// Symmetry is required up to 1e-6 of the largest element (statistics files of other tools are symmetric to float32
// rounding at worst); the symmetric part is used. Throws InvalidArgument for a matrix that is not symmetric, and
// NumericalError for NaN, infinity, or an indefinite matrix. The message for an indefinite matrix begins with
// pytorch-fid's "Imaginary component".
// A singular covariance that was stored as float32 is indefinite by the rounding of its elements. Such a covariance is
// accepted where all elements are float32 numbers and no eigenvalue is below -2^-24 ||Sigma||_F: by Weyl's theorem,
// some positive semi-definite S can round to it. F then holds the part of the spectrum above the magnitude of the most
// negative eigenvalue, and `rounded` bounds the distance to any such S.
// Cost of each covariance: d^3/3 flops for Cholesky and 64 d^2 flops to estimate the residual. A singular covariance
// costs d^2 r flops more for the pivoted factorisation and 3 d^2 r for the residual. Memory: 8 d^2 bytes for the
// factor.
std::vector<Factor> factor_covariances(const std::vector<Covariance>& covariances);

// The factor of the sample covariance (divisor n - 1) of n >= 2 feature rows (n, d), C-contiguous. For n <= d the
// factor is the rows minus their mean, divided by sqrt(n - 1), after a reflection that makes one row zero; the zero row
// is left out. For n > d the factor is the triangular QR factor of these rows. The mean is taken in float64 in two
// passes. Throws InvalidArgument for n < 2, NumericalError for NaN or infinity. Memory: 8 n d bytes. Cost for n > d: 2
// n d^2 flops, and n d^2 + d^3 to measure the residual.
template <class T>
Factor factor_rows(const T* rows, std::size_t n, std::size_t d, const std::string& name);

// The single steps of factor_covariances(), for the routes of the trace (core/trace_sqrt.hpp).
//
// What is known about a covariance before it is factored.
FactorFacts facts_of(const ScaledCovariance& s);
// The factor, without the facts that need the residual. May be called for several covariances at once.
Factor factor_checked(const ScaledCovariance& s);
// Measures how far the factor is from its covariance. Throws where the residual of a pivoted factorisation is larger
// than rounding explains.
void check_residual(const ScaledCovariance& s, Factor& factor);

}  // namespace fastfid
