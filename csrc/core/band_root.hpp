// tr(B^(1/2)) of a positive definite band matrix without its eigenvalues: a rational approximation of the square root,
// whose poles each cost a factorisation of the shifted band and the band of its inverse, O(n width^2).
#pragma once

#include "core/band.hpp"

namespace fastfid {

struct BandRoot {
  double value = 0;        // tr(B^(1/2)); see `is_resolved`
  double reciprocals = 0;  // at least tr(B^-1), at most 2 % more
  // Every eigenvalue is above `least` and so large that the approximation holds to root::kError relative. Else the rest
  // is undefined.
  bool is_resolved = false;
};

// Zolotarev's rational function (core/root_table.hpp) in partial fractions: tr(B^(1/2)) = c tr B + sum_j w_j tr(B (B +
// p_j I)^-1). For each pole B + p_j I = L D L^T, and the elements of its inverse Z inside the band follow from the last
// column to the first (Takahashi, Fagan and Chin, "Formation of a sparse bus impedance matrix", 1973; Erisman and
// Tinney 1975). Eight poles are computed side by side, as lanes of a vector, in the same order on every machine.
//
// A factorisation of B - `least` I shows first whether every eigenvalue is above `least` >= 0.
//
// B: n >= width, a multiple of 4; else InvalidArgument. NaN and infinity are never resolved. Cost: about 3 n width^2
// flops a pole and thread-parallel over groups of 8 poles; 64 n width bytes for each group under way.
BandRoot root_trace(const linalg::Band& band, double least);

}  // namespace fastfid
