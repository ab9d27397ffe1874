// Covariances that callers give: checked, and scaled so that nothing overflows or underflows.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "core/matrix.hpp"
#include "core/numbers.hpp"

namespace fastfid {

// The k for which x 4^-k is in [1, 4); x must be positive and finite. This k is the `exponent` of a covariance of trace
// x.
int power_of_four(double x);

struct Covariance {
  const double* sigma;
  std::size_t d;
  std::string name;  // begins the messages about this covariance
};

// A checked covariance, read as its symmetric part times 4^-exponent. The elements are read from the caller's memory.
struct ScaledCovariance {
  const double* sigma;
  std::size_t d;
  std::string name;
  int exponent = 0;  // brings the trace into [1, 4)
  double trace = 0;  // 0 for a zero covariance
  double max_diagonal = 0;
  bool is_symmetric = false;  // to the last bit

  // Halving the sum of the mirror images is exact for symmetric input. 4^-exponent itself may not be representable, so
  // the scaling takes two steps.
  double first() const { return std::scalbn(1.0, -exponent - 1); }
  double second() const { return std::scalbn(1.0, -exponent); }

  // Writes the elements of rows [row, row + n_rows) and columns [col, col + n_cols) to `out`, whose rows are `stride`
  // apart.
  void copy(std::size_t row, std::size_t n_rows, std::size_t col, std::size_t n_cols, double* out,
            std::size_t stride) const;
  linalg::FillElements elements() const;
  std::vector<double> diagonal() const;
  // The elements below the upper triangle are undefined.
  linalg::Matrix upper_triangle() const;

  // The magnitude that rounding may leave in a pivot that should be zero, relative to the diagonal element.
  double noise() const { return real(d) * kUnitRoundoff; }
};

// Checks all covariances (d, d), C-contiguous, at the same time. Throws InvalidArgument for d = 0, and where mirror
// images differ by more than kAsymmetry of the largest element. Throws NumericalError for NaN, for infinity, and where
// an element is larger than the diagonal allows.
std::vector<ScaledCovariance> check_covariances(const std::vector<Covariance>& covariances);

// Norms of the scaled covariance.
struct CovarianceNorms {
  double frobenius = 0;
  double spectral = 0;  // an upper bound: the largest sum of magnitudes in a row, or ||S||_F
};
CovarianceNorms norms(const ScaledCovariance& s);

// Throws NumericalError. The message begins with pytorch-fid's words, which users of every tool know, and then says
// what is wrong. `eigenvalues` are the eigenvalues of the scaled covariance in ascending order. If `eigenvalues` is
// empty, the function computes them.
[[noreturn]] void throw_indefinite(const ScaledCovariance& s, const std::vector<double>& eigenvalues);
[[noreturn]] void throw_indefinite(const ScaledCovariance& s);

}  // namespace fastfid
