// Symmetric band matrices: the reduction of a symmetric matrix to a band matrix, and the eigenvalues of the band
// matrix.
#pragma once

#include <cstddef>
#include <vector>

#include "core/matrix.hpp"

namespace fastfid::linalg {

// A symmetric band matrix. Element (j + i, j), 0 <= i <= width, is stored at j (width + 1) + i. This place exists for j
// + i >= n too; its content then has no meaning.
struct Band {
  std::size_t n = 0;
  std::size_t width = 0;
  std::vector<double> elements;
};

// The smallest n at which the eigenvalues are computed faster by way of a band.
inline constexpr std::size_t kMinBandSize = 192;

// Returns a band matrix that has the eigenvalues of the symmetric matrix A, n >= kMinBandSize. The reduction is an
// orthogonal similarity; it takes 4 n^3 / 3 flops in products. Reads the upper triangle of A and overwrites A.
Band reduce_to_band(Matrix& a);

// The eigenvalues of a band from reduce_to_band, in ascending order. Runs on one thread and takes about 6 n^2 width
// flops in vector operations. Throws NumericalError where LAPACK does not converge.
std::vector<double> symmetric_eigenvalues(Band band);

}  // namespace fastfid::linalg
