// CUDA's kernel language in plain C++, for tests: the logic of a kernel runs on the CPU, thread by thread.
//
// Blocks run one after another. The threads of a block are fibers of one operating-system thread; a fiber runs until it
// waits (at a barrier or a warp collective). Then the next fiber continues, in an order that the test chooses:
// forwards, backwards, or shuffled. A missing barrier therefore gives a result that depends on the order, or that
// contains the poison with which shared memory is initialised. Asynchronous copies happen only when they are waited
// for, so that a missing wait is visible too. A barrier that not all threads reach stops the test.
//
// The emulation cannot show: speed, the memory model between blocks, misaligned vector accesses that the host permits
// (128-bit accesses are checked), and mistakes in the PTX text itself.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "core/errors.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {

enum class Order { kForwards, kBackwards, kShuffled };

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulation: %s\n", what);
  std::abort();
}

struct Fiber {
  ucontext_t context{};  // where the fiber begins
  jmp_buf place;         // where the fiber waits
  bool has_begun = false;
  dim3 thread;
  unsigned linear = 0;
  bool is_done = false;
  std::uint64_t barriers = 0;       // block barriers passed or waited at
  std::uint64_t collectives = 0;    // warp collectives passed or waited at
  std::uint64_t exchanged[2] = {};  // the value that the thread gives to a shuffle, by parity of the collective
  double* c = nullptr;              // operands of a matrix product
  const double* a = nullptr;
  const double* b = nullptr;
  struct Copy {
    void* to;
    const void* from;
  };
  std::vector<Copy> open;                 // copies not yet committed
  std::vector<std::vector<Copy>> groups;  // committed copies, the oldest group first
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<std::byte> shared;
  std::byte* shared_begin = nullptr;
  std::size_t shared_bytes = 0;
  jmp_buf scheduler;
  Fiber* current = nullptr;
  dim3 block_index, block_dim, grid_dim;
  std::uint64_t barrier_arrivals = 0;
  std::vector<std::uint64_t> warp_arrivals;
  const std::function<void()>* body = nullptr;
  std::uint64_t progress = 0;
};

inline Block* the_block = nullptr;
inline Order the_order = Order::kForwards;
inline int launches_before_failure = -1;  // -1: no launch fails

// Fibers are switched by _setjmp and _longjmp, which, unlike swapcontext(), make no system call. Only the first switch
// to a fiber needs setcontext().
inline void yield() {
  if (_setjmp(the_block->current->place) == 0) _longjmp(the_block->scheduler, 1);
}

inline void resume(Fiber& fiber) {
  the_block->current = &fiber;
  if (_setjmp(the_block->scheduler) != 0) return;
  if (fiber.has_begun) _longjmp(fiber.place, 1);
  fiber.has_begun = true;
  setcontext(&fiber.context);
}

inline void fiber_main() {
  (*the_block->body)();
  the_block->current->is_done = true;
  ++the_block->progress;
  yield();
}

inline void block_barrier() {
  Block& block = *the_block;
  Fiber& self = *block.current;
  ++self.barriers;
  ++block.barrier_arrivals;
  ++block.progress;
  const std::uint64_t needed = self.barriers * block.fibers.size();
  while (block.barrier_arrivals < needed) yield();
}

inline unsigned lane() { return the_block->current->linear % 32; }
inline unsigned warp() { return the_block->current->linear / 32; }
inline Fiber& lane_fiber(unsigned l) { return the_block->fibers[warp() * 32 + l]; }
inline unsigned warp_size() {
  const auto left = static_cast<unsigned>(the_block->fibers.size()) - warp() * 32;
  return left < 32 ? left : 32;
}

// Waits for the whole warp. `last` runs once, in the lane that arrives last.
template <class F>
void warp_collective(F&& last) {
  Block& block = *the_block;
  Fiber& self = *block.current;
  ++self.collectives;
  auto& arrivals = block.warp_arrivals[warp()];
  ++arrivals;
  ++block.progress;
  const std::uint64_t needed = self.collectives * warp_size();
  if (arrivals == needed) last();
  while (arrivals < needed) yield();
}

inline void run_block(Block& block, std::mt19937& random) {
  the_block = &block;
  const auto threads = block.fibers.size();
  constexpr std::size_t kStack = 64 << 10;
  // Never destroyed, because daemon threads run on the stacks while the interpreter ends.
  static auto& stacks = *new std::vector<std::byte>;
  if (stacks.size() < threads * kStack) stacks.resize(threads * kStack);
  for (std::size_t i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks.data() + i * kStack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  std::vector<std::size_t> order(threads);
  for (std::size_t i = 0; i < threads; ++i) order[i] = the_order == Order::kBackwards ? threads - 1 - i : i;
  for (std::size_t done = 0; done < threads;) {
    if (the_order == Order::kShuffled) std::shuffle(order.begin(), order.end(), random);
    const std::uint64_t before = block.progress;
    for (const std::size_t i : order) {
      Fiber& fiber = block.fibers[i];
      if (fiber.is_done) continue;
      resume(fiber);
      if (fiber.is_done) ++done;
    }
    if (done < threads && block.progress == before) fail("deadlock: not all threads reach a barrier or a collective");
  }
  for (const Fiber& fiber : block.fibers) {
    if (fiber.barriers != block.fibers[0].barriers) fail("threads passed different numbers of barriers");
    if (!fiber.open.empty() || !fiber.groups.empty()) fail("asynchronous copies that nobody waited for");
  }
}

template <class F>
void run_grid(dim3 grid, dim3 block_dim, std::size_t shared_bytes, const F& f) {
  static std::mt19937 random(7);
  const std::function<void()> body(f);
  const unsigned threads = block_dim.x * block_dim.y * block_dim.z;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        Block block;
        block.fibers.resize(threads);
        for (unsigned i = 0; i < threads; ++i) {
          block.fibers[i].linear = i;
          block.fibers[i].thread =
              dim3(i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y));
        }
        block.shared.assign(shared_bytes + 128, std::byte{0xff});  // NaN in every floating-point format
        void* begin = block.shared.data();
        std::size_t space = block.shared.size();
        block.shared_begin = static_cast<std::byte*>(std::align(128, shared_bytes, begin, space));
        block.shared_bytes = shared_bytes;
        block.block_index = dim3(x, y, z);
        block.block_dim = block_dim;
        block.grid_dim = grid;
        block.warp_arrivals.assign((threads + 31) / 32, 0);
        block.body = &body;
        run_block(block, random);
        for (const std::byte* at = block.shared.data(); at != block.shared.data() + block.shared.size(); ++at) {
          const bool is_outside = at < block.shared_begin || at >= block.shared_begin + shared_bytes;
          if (is_outside && *at != std::byte{0xff}) fail("a write outside shared memory");
        }
      }
    }
  }
  the_block = nullptr;
}

inline void finish_oldest_group(Fiber& fiber) {
  for (const Fiber::Copy& copy : fiber.groups.front()) std::memcpy(copy.to, copy.from, 16);
  fiber.groups.erase(fiber.groups.begin());
}

}  // namespace emulation

#define threadIdx (::emulation::the_block->current->thread)
#define blockIdx (::emulation::the_block->block_index)
#define blockDim (::emulation::the_block->block_dim)
#define gridDim (::emulation::the_block->grid_dim)

inline void __syncthreads() { ::emulation::block_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  ::emulation::warp_collective([] {});
}

namespace emulation {

template <class T>
T shuffle(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  Fiber& self = *the_block->current;
  const unsigned slot = self.collectives & 1;
  std::memcpy(&self.exchanged[slot], &value, sizeof value);
  warp_collective([] {});
  // A lane can be at most one collective ahead, and the next collective uses the other slot.
  T out;
  std::memcpy(&out, &lane_fiber(from < warp_size() ? from : lane()).exchanged[slot], sizeof out);
  return out;
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  if (mask != 0xffffffffu) ::emulation::fail("only full masks are emulated");
  const unsigned lane = ::emulation::lane();
  const auto w = static_cast<unsigned>(width);
  return ::emulation::shuffle(value, lane / w * w + static_cast<unsigned>(from) % w);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int = 32) {
  if (mask != 0xffffffffu) ::emulation::fail("only full masks are emulated");
  return ::emulation::shuffle(value, ::emulation::lane() ^ static_cast<unsigned>(lanes));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  if (mask != 0xffffffffu) ::emulation::fail("only full masks are emulated");
  const unsigned lane = ::emulation::lane();
  const auto w = static_cast<unsigned>(width);
  return ::emulation::shuffle(value, lane % w + delta < w ? lane + delta : lane);
}

inline unsigned long long atomicMin(unsigned long long* address, unsigned long long value) {
  const unsigned long long old = *address;
  if (value < old) *address = value;
  return old;
}

inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return std::bit_cast<float>(value); }
// Each operation is rounded and never fused, as by the CUDA intrinsics.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }

namespace fastfid::cuda {

inline std::byte* shared_memory() { return ::emulation::the_block->shared_begin; }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream,
            Arguments... arguments) {
  // Limits of every device of compute capability 8.0 and newer.
  if (block.x * block.y * block.z > 1024) ::emulation::fail("more than 1024 threads a block");
  if (shared_bytes > (99 << 10)) ::emulation::fail("more shared memory than compute capability 8.6 and 8.9 have");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) ::emulation::fail("bad grid");
  if (::emulation::launches_before_failure == 0) throw DeviceError("a launch that was told to fail");
  if (::emulation::launches_before_failure > 0) --::emulation::launches_before_failure;
  const std::tuple<Parameters...> values{Parameters(arguments)...};
  ::emulation::run_grid(grid, block, shared_bytes, [&] { std::apply(kernel, values); });
}

inline void copy_async_16(void* shared, const void* global) {
  const auto to = static_cast<std::byte*>(shared);
  const auto& block = *::emulation::the_block;
  if (to < block.shared_begin || to + 16 > block.shared_begin + block.shared_bytes) {
    ::emulation::fail("copy_async_16 outside shared memory");
  }
  if ((reinterpret_cast<std::uintptr_t>(shared) | reinterpret_cast<std::uintptr_t>(global)) % 16 != 0) {
    ::emulation::fail("copy_async_16 of a misaligned address");
  }
  ::emulation::the_block->current->open.push_back({shared, global});
}

inline void copy_async_commit() {
  auto& fiber = *::emulation::the_block->current;
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int kPending>
void copy_async_wait() {
  auto& fiber = *::emulation::the_block->current;
  while (fiber.groups.size() > kPending) ::emulation::finish_oldest_group(fiber);
}

// One product of the documented fragment layout of mma.m8n8k4 (.f64), for the whole warp: element (row, column) of A
// (8, 4) is in lane 4 row + column. Element (row, column) of B (4, 8) is in lane 4 column + row. Element (row, column)
// of C (8, 8) is in lane 4 row + column / 2, register column % 2.
inline void mma_8x8x4(double* const (&c)[32], const double (&a)[32], const double (&b)[32]) {
  for (unsigned row = 0; row < 8; ++row) {
    for (unsigned column = 0; column < 8; ++column) {
      double& sum = c[4 * row + column / 2][column % 2];
      for (unsigned k = 0; k < 4; ++k) sum = __builtin_fma(a[4 * row + k], b[4 * column + k], sum);
    }
  }
}

inline void mma_16x8x8(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
  auto& self = *::emulation::the_block->current;
  self.c = c;
  self.a = a;
  self.b = b;
  ::emulation::warp_collective([] {
    if (::emulation::warp_size() != 32) ::emulation::fail("a matrix product needs a whole warp");
    for (unsigned k = 0; k < 2; ++k) {
      for (unsigned i = 0; i < 2; ++i) {
        double* sums[32];
        double left[32];
        double right[32];
        for (unsigned l = 0; l < 32; ++l) {
          auto& fiber = ::emulation::lane_fiber(l);
          sums[l] = fiber.c + 2 * i;
          left[l] = fiber.a[i + 2 * k];
          right[l] = fiber.b[k];
        }
        mma_8x8x4(sums, left, right);
      }
    }
  });
}

inline float half_to_float(std::uint16_t bits) {
  const unsigned magnitude = bits & 0x7fffu;
  float value;
  if (magnitude >= 0x7c00u) {
    value = std::bit_cast<float>(0x7f800000u | (magnitude & 0x03ffu) << 13);
  } else if (magnitude < 0x0400u) {
    value = static_cast<float>(magnitude) * 0x1p-24f;
  } else {
    value = std::bit_cast<float>((magnitude << 13) + (112u << 23));
  }
  return (bits & 0x8000u) != 0 ? -value : value;
}

inline std::uint16_t float_to_half(float value) { return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value)); }

}  // namespace fastfid::cuda
