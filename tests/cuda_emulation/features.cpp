// csrc/cuda/features.cu on the CPU, for tests/test_cuda_network.py.
#include "cuda/features.hpp"

#include "cuda_emulation.hpp"

extern "C" void spatial_mean(const void* map, int is_float16, std::size_t planes, std::size_t area, float* out,
                             int order) {
  using fastfid::cuda::MapType;
  emulation::the_order = static_cast<emulation::Order>(order);
  fastfid::cuda::spatial_mean(map, is_float16 != 0 ? MapType::kFloat16 : MapType::kFloat32, planes, area, out, {});
}
