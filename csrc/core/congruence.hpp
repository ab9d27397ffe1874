// The product F S F^T of a triangular and a symmetric matrix.
#pragma once

#include "core/matrix.hpp"

namespace fastfid::linalg {

// G = F S F^T for symmetric S and upper-triangular F; zeros are stored left of the diagonal of F. Computed are the
// upper triangle of G (the elements below it are undefined) and the norm of Q = F K. Here K is upper-triangular with S
// = K + K^T, and G = Q F^T + F Q^T. Two thirds of every full product would be zeros. The cost is n^3 flops, or 1.06 n^3
// with the flops that are spent on zeros (n = 2048).
struct Congruence {
  Matrix g;
  double norm_q = 0;
  double flops = 0;
};
Congruence congruence(const Matrix& f, const FillElements& fill);

}  // namespace fastfid::linalg
