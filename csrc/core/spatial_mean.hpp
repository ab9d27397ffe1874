// Computes the feature vector from the network's last feature map.
#pragma once

#include <cstddef>

namespace fastfid {

// Spatial mean of every plane: out[i] = (1 / area) sum_p map[i * area + p], summed in float64 and rounded to float32
// once. map: (planes, area) float32, C-contiguous, host memory, i.e. an NCHW feature map with planes = N C and
// area = H W; out: (planes,). The arrays do not overlap. Throws InvalidArgument for area 0.
//
// The network's own pooling is not used, because the peers' float32 average over 73 x 73 pixels is off by up to 9e-5.
// Error: half a unit in the last place of the exact mean (float64 sums of 5329 terms are accurate to 1e-12). The order
// of summation is fixed, so the bits do not depend on threads. Parallel over blocks of planes. Allocates no memory.
void spatial_mean(const float* map, std::size_t planes, std::size_t area, float* out);

}  // namespace fastfid
