// tr(B^(1/2)) of a positive definite band matrix B, computed without the eigenvalues of B. The square root is replaced
// by a rational approximation. Each pole of the approximation costs one factorisation of the shifted band and the band
// of the inverse, O(n width^2).
#pragma once

#include "core/band.hpp"

namespace fastfid {

struct BandRoot {
  double value = 0;        // tr(B^(1/2)); see `is_resolved`
  double reciprocals = 0;  // at least tr(B^-1), at most 2 % more
  // True where every eigenvalue is above `least` and so large that the approximation holds to root::kError relative.
  // Otherwise the other members are undefined.
  bool is_resolved = false;
};

// Zolotarev's rational function (core/root_table.hpp) in partial fractions: tr(B^(1/2)) = c tr B + sum_j w_j tr(B (B +
// p_j I)^-1). Each pole needs a factorisation B + p_j I = L D L^T. The elements of the inverse Z inside the band then
// follow from the last column to the first (Takahashi, Fagan and Chin, "Formation of a sparse bus impedance matrix",
// 1973; Erisman and Tinney 1975). Eight poles are computed side by side, as lanes of a vector, in the same order on
// every machine.
//
// A factorisation of B - `least` I first shows whether every eigenvalue is above `least` >= 0.
//
// Throws InvalidArgument unless n >= width and the width is a positive multiple of 4. A matrix with NaN or infinity is
// never resolved. Cost: about 3 n width^2 flops for each pole, parallel over groups of 8 poles. Memory: 64 n width
// bytes for each group that is being computed.
BandRoot root_trace(const linalg::Band& band, double least);

}  // namespace fastfid
