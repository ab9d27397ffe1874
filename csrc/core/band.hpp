// Symmetric band matrices: the reduction to one, and its eigenvalues.
#pragma once

#include <cstddef>
#include <vector>

#include "core/matrix.hpp"

namespace fastfid::linalg {

// A symmetric band matrix: element (j + i, j), 0 <= i <= width, stands at j (width + 1) + i, also where j + i >= n
// (then it means nothing).
struct Band {
  std::size_t n = 0;
  std::size_t width = 0;
  std::vector<double> elements;
};

// Smallest n at which going by way of a band pays.
inline constexpr std::size_t kMinBandSize = 192;

// The band matrix with the eigenvalues of symmetric A, n >= kMinBandSize: an orthogonal similarity, 4 n^3 / 3 flops in
// products. Reads the upper triangle and overwrites A.
Band reduce_to_band(Matrix& a);

// Eigenvalues of a band from reduce_to_band, in ascending order: one thread, about 6 n^2 width flops in vector
// operations. Throws NumericalError where LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Band band);

}  // namespace fastfid::linalg
