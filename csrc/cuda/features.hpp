// Computes the feature vector from the network's last feature map on the device: core/spatial_mean.hpp for device
// memory.
#pragma once

#include <cstddef>

#include "cuda/runtime.hpp"

namespace fastfid::cuda {

enum class MapType { kFloat32, kFloat16 };

// Spatial mean of every plane: out[i] = (1 / area) sum_p map[i * area + p], summed in float64 and rounded to float32
// once. map: (planes, area), C-contiguous, of type `type`, device memory; out: (planes,), device memory.
//
// Error: half a unit in the last place of the exact mean, as on the CPU. The sums are in another order than on the CPU,
// so that the last bit may differ where a mean lies between two floats. The order is fixed, so every call gives the
// same bits. Enqueues one kernel on the stream and returns. The kernel reads the map once. Preconditions: area >= 1, no
// overlap.
void spatial_mean(const void* map, MapType type, std::size_t planes, std::size_t area, float* out, Stream stream);

}  // namespace fastfid::cuda
