// The product F S F^T of a triangular and a symmetric matrix.
#pragma once

#include "core/matrix.hpp"

namespace fastfid::linalg {

// G = F S F^T for upper-triangular F, what is left of its diagonal stored as zeros, and symmetric S: its upper triangle
// (what lies below is undefined), and the norm of Q = F K, where S = K + K^T with upper-triangular K and
// G = Q F^T + F Q^T. Two thirds of every product would be zeros: n^3 flops, 1.06 n^3 with those spent on zeros
// (n = 2048).
struct Congruence {
  Matrix g;
  double norm_q = 0;
  double flops = 0;
};
Congruence congruence(const Matrix& f, const FillElements& fill);

}  // namespace fastfid::linalg
