// The language in which every kernel is written: CUDA's own names, launch(), and a few PTX instructions as functions.
//
// Of CUDA, kernels use only this file and the names that tests/cuda_emulation/cuda_emulation.hpp defines in plain C++
// (threadIdx, blockIdx, gridDim, __syncthreads(), __shfl_*_sync, atomicMin, ...), so that tests run the whole logic of
// the kernels, fragment layouts and barriers included, on a machine without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/runtime.hpp"

#ifdef FASTFID_CUDA_EMULATION

#include "cuda_emulation.hpp"

#else

#include <cuda_runtime.h>

#include <tuple>

#include "cuda/check.hpp"

namespace fastfid::cuda {

// The dynamic shared memory of the block, 16-byte aligned.
__device__ __forceinline__ std::byte* shared_memory() {
  extern __shared__ __align__(16) unsigned char fastfid_shared_memory[];
  return reinterpret_cast<std::byte*>(fastfid_shared_memory);
}

// Starts the kernel on the stream. Does not wait. Throws DeviceError if the launch is refused. An error while the
// kernel runs is reported by a later call.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream stream,
            Arguments... arguments) {
  const DeviceGuard guard(stream.device);
  constexpr std::size_t kWithoutAsking = 48 << 10;
  // The attribute belongs to the kernel and not to this launch, and another thread may be launching the kernel too. The
  // value is therefore always the same: the largest that every device of compute capability 8.0 and newer has.
  constexpr int kMost = 99 << 10;
  if (shared_bytes > kWithoutAsking) {
    FASTFID_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMost));
  }
  // The arguments are held by value in exactly the types of the kernel. CUDA copies them before the call returns.
  std::tuple<Parameters...> values{Parameters(arguments)...};
  std::apply(
      [&](Parameters&... value) {
        void* pointers[] = {&value...};
        FASTFID_CUDA_CHECK(cudaLaunchKernel(kernel, grid, block, pointers, shared_bytes, stream.handle));
      },
      values);
}

// Copies 16 bytes from global to shared memory (both 16-byte aligned), asynchronously and bypassing the first-level
// cache.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(global) : "memory");
}

// Ends a group of copies of this thread.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most kPending groups of this thread are unfinished, the youngest ones.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// C += A B in float64 on the tensor cores, computed by the whole warp: A (16, 8), B (8, 8), C (16, 8). With g = lane /
// 4 and t = lane % 4 the lane holds
//   a[i + 2 k] = A[g + 8 i][t + 4 k],   b[k] = B[t + 4 k][g],   c[j + 2 i] = C[g + 8 i][2 t + j],   i, j, k in {0, 1}
// (PTX ISA 9.7.14.5, mma.m16n8k8 and mma.m8n8k4 with .f64). Hopper has this instruction. Other devices use four m8n8k4
// on the same fragments.
__device__ __forceinline__ void mma_16x8x8(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
#else
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};\n"
                   : "+d"(c[2 * i]), "+d"(c[2 * i + 1])
                   : "d"(a[i + 2 * k]), "d"(b[k]));
    }
  }
#endif
}

// The exact value of the IEEE half with these bits.
__device__ __forceinline__ float half_to_float(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// The bits of the IEEE half nearest to a value, ties to even.
__device__ __forceinline__ std::uint16_t float_to_half(float value) {
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace fastfid::cuda

#endif
