#include "cuda/features.hpp"

#include <cstdint>

#include "cuda/kernel.cuh"

namespace fastfid::cuda {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kWarpsPerBlock = 8;
// Enough blocks to fill any device several times over; warps then take a plane every `gridDim.x * kWarpsPerBlock`.
constexpr std::size_t kMaxBlocks = 1 << 16;

__device__ __forceinline__ double as_double(float value) { return static_cast<double>(value); }
__device__ __forceinline__ double as_double(std::uint16_t half) { return static_cast<double>(half_to_float(half)); }

// One warp for each plane. Neighbouring lanes read neighbouring values, so every access reads whole sectors. The map is
// read once, with a few additions per value: the kernel is bound by memory, and its time is small against the
// network's.
template <class T>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    spatial_mean_kernel(const T* map, std::uint64_t planes, std::uint64_t area, float* out) {
  const unsigned lane = threadIdx.x % kWarp;
  const std::uint64_t step = static_cast<std::uint64_t>(gridDim.x) * kWarpsPerBlock;
  for (std::uint64_t i = blockIdx.x * std::uint64_t{kWarpsPerBlock} + threadIdx.x / kWarp; i < planes; i += step) {
    const T* const plane = map + i * area;
    double sum = 0;
    for (std::uint64_t p = lane; p < area; p += kWarp) sum += as_double(plane[p]);
#pragma unroll
    for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, static_cast<int>(distance));
    }
    if (lane == 0) out[i] = static_cast<float>(sum / static_cast<double>(area));
  }
}

}  // namespace

void spatial_mean(const void* map, MapType type, std::size_t planes, std::size_t area, float* out, Stream stream) {
  if (planes == 0) return;
  const std::size_t blocks = (planes + kWarpsPerBlock - 1) / kWarpsPerBlock;
  const dim3 grid(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks));
  const dim3 block(kWarp * kWarpsPerBlock);
  if (type == MapType::kFloat32) {
    launch(spatial_mean_kernel<float>, grid, block, 0, stream, static_cast<const float*>(map), planes, area, out);
  } else {
    launch(spatial_mean_kernel<std::uint16_t>, grid, block, 0, stream, static_cast<const std::uint16_t*>(map), planes,
           area, out);
  }
}

}  // namespace fastfid::cuda
