// The difference between a matrix and the product of its factors.
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

// Computes the norms of E far more accurately than one product in float64 would: the error r u |F|^T |F| of such a
// product would be the larger part of the result. F (r x n) is split into H + L. The elements of H are multiples of one
// power of two in each column, and so short that H^T H is exact in float64 for any order of the sums (Ozaki, Ogita,
// Oishi and Rump, "Error-free transformations of matrix multiplication", 2012). The remaining part, H^T L + L^T F, is
// smaller by 2^-20 for r = 2048, and its rounding is smaller by 2^-20 too. The errors are at most (2 r + 4) u (||E||_F
// + 4 ||L||_F ||F||_F).
//
// `fill` must give the lower triangle of S exactly; it is called strip by strip. `scale`: n positive numbers with ||F
// V^-1||_F^2 <= 1.01 n, or empty. E is never stored. Cost: three products over one triangle, 3 n^2 r flops (n^3 for
// upper-triangular F), which are added to `flops`. Memory: 16 n r bytes.
ResidualNorms residual(const FillElements& fill, const Matrix& f, Shape shape, const std::vector<double>& scale,
                       double& flops);

}  // namespace fastfid::linalg
