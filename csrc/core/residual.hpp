// How far a product of factors is from the matrix it stands for.
#pragma once

#include <vector>

#include "core/matrix.hpp"

namespace fastfid::linalg {

// Norms of E = S - F^T F for symmetric S, each with a bound on its error.
struct ResidualNorms {
  double largest = 0;    // max |E_ij|, as computed
  double frobenius = 0;  // ||E||_F
  double error = 0;
  double scaled = 0;  // ||V^-1 E V^-1||_F for V = diag(scale); 0 without a scale
  double scaled_error = 0;
};

// E far more accurately than one product in float64 gives it, whose error of r u |F|^T |F| would be the larger part of
// what it returns. F (r x n) is H + L, the elements of H multiples of one power of two in each column and so short that
// H^T H is exact in float64, whatever the order of the sums (Ozaki, Ogita, Oishi and Rump, "Error-free transformations
// of matrix multiplication", 2012). What is left, H^T L + L^T F, is 2^-20 as large for r = 2048, and so is its
// rounding: the errors are at most (2 r + 4) u (||E||_F + 4 ||L||_F ||F||_F).
//
// `fill` is asked for the lower triangle of S strip by strip, and gives it exactly. `scale`: n positive numbers with
// ||F V^-1||_F^2 <= 1.01 n, or none. E is never stored. Three products over one triangle, 3 n^2 r flops (n^3 for
// upper-triangular F), which are added to `flops`; 16 n r bytes.
ResidualNorms residual(const FillElements& fill, const Matrix& f, Shape shape, const std::vector<double>& scale,
                       double& flops);

}  // namespace fastfid::linalg
