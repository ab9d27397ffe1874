// The kernels of cuda/moments.hpp.
//
// accumulate() is a symmetric rank-k update S += Z^T Z, Z = rows - shift. The plan of the kernel for d = 2048 on an
// H100 or H200 (132 multiprocessors; float64 tensor cores 67 TFLOP/s, memory 3.4 or 4.8 TB/s, boost clocks):
// - The lower triangle has 528 tiles of 64 x 64: exactly 4 for each of 132 multiprocessors. A thread block takes
//   4 tiles that share panels (64 columns each). Off the diagonal these are the 4 tiles of a 128 x 128 square. On the
//   diagonal a square has only 3 tiles, and a fourth tile comes from another square (work_of). The result is
//   120 + 12 = 132 equal blocks in one wave.
// - Per block of 2048 rows: 132 x 4 x 64^2 x 2 x 2048 = 8.9 GFLOP, 132 us at peak; S is read and written once, 35 MB:
//   8 to 10 us; panels come through the second-level cache, 132 x 256 x 2048 x 4 bytes = 277 MB: 2.1 TB/s.
//   docs/cuda.md has the expected speed.
// - One step is 16 rows x 256 columns. Raw values are loaded by cp.async, 128 bits at a time, one step ahead. They are
//   shifted and converted to float64 once for the whole block, and summed for the mean at the same time. While the
//   warps of tiles 0 and 2 multiply, the warps of tiles 1 and 3 convert the next step, and vice versa, so that the
//   tensor cores do not idle. There is one barrier for each step. Shared memory: 98 KiB, within the 99 KiB that every
//   device since 8.0 has.
// - Shared memory traffic of a step: fragments 128 KiB, conversion 48 KiB, copies 16 KiB: 1500 of the 2048 cycles that
//   the products take at peak. This traffic is the next limit.
// - Fragments are read with 64-bit loads free of bank conflicts: the pitch of 260 is 4 modulo 16 (a half-warp reads 4
//   rows by 4 columns).
// - Small d has few tiles: rows are then split among up to 32 copies of S. Only the blocks of a copy add to that copy,
//   and the copies are added up, in order, when the result is asked for. There are no atomics on numbers, and no order
//   is left to chance. The number of copies depends on d alone.
#pragma once

#include <cstdint>

#include "cuda/kernel.cuh"

namespace fastfid::cuda::moments {

inline constexpr int kPanel = 64;  // edge of a tile
inline constexpr int kTileSize = kPanel * kPanel;
inline constexpr int kColumns = 4 * kPanel;  // columns of the panels of one thread block
inline constexpr int kDepth = 16;            // rows of a step
inline constexpr int kPitch = kColumns + 4;  // see the head of this file
inline constexpr int kThreads = 512;
inline constexpr int kWarpTile = 32;  // edge of a warp's part: each of 4 warps computes a quarter of a tile
inline constexpr int kMaxCopies = 32;
inline constexpr int kBlocksWanted = 132;  // enough for an H100 or H200
inline constexpr unsigned long long kNoBadRow = ~0ull;

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(Half value) { return half_to_float(value.bits); }
__device__ __forceinline__ float to_float(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

__device__ __forceinline__ bool is_nonfinite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) == 0x7f800000u;
}

// The 4 tiles of a thread block. The block loads 4 panels, slots 0 to 3: the panels of the square row `first`, then the
// panels of the square row `second`.
struct Work {
  // kSquare: all tiles of the square (first, second), first > second. kDiagonal0 to kDiagonal2: the three tiles of the
  // diagonal square `first`, and one tile of the diagonal square `second`, a different one in each of the three kinds.
  // kAlone: the three tiles of the diagonal square `first`.
  enum Kind { kSquare, kDiagonal0, kDiagonal1, kDiagonal2, kAlone };

  int first;
  int second;
  int kind;

  __host__ __device__ int panel(int slot) const { return slot < 2 ? 2 * first + slot : 2 * second + slot - 2; }
  __host__ __device__ bool has_tile(int tile) const { return tile < 3 || kind != kAlone; }
  // The slots of the two panels whose product is the tile. `left` gives the rows of S, `right` the columns.
  __host__ __device__ int left(int tile) const {
    if (kind == kSquare) return tile / 2;
    return tile < 3 ? (tile + 1) / 2 : (kind == kDiagonal0 ? 2 : 3);
  }
  __host__ __device__ int right(int tile) const {
    if (kind == kSquare) return 2 + tile % 2;
    return tile < 3 ? tile / 2 : (kind == kDiagonal1 ? 3 : 2);
  }
  // True if this block sums the columns of the panel. Exactly one block does: the block with the panel's diagonal tile.
  __host__ __device__ bool sums_columns(int slot) const {
    if (kind == kSquare) return false;
    return slot < 2 || (slot == 2 && kind == kDiagonal0) || (slot == 3 && kind == kDiagonal1);
  }
};

// Thread blocks for a triangle of `squares` rows of 128 x 128 squares.
__host__ __device__ inline int work_count(int squares) {
  return squares * (squares - 1) / 2 + squares / 4 * 3 + squares % 4;
}

__host__ __device__ inline Work work_of(int index, int squares) {
  const int off_diagonal = squares * (squares - 1) / 2;
  if (index < off_diagonal) {
    int row = 1;
    while (row * (row + 1) / 2 <= index) ++row;
    return {row, index - row * (row - 1) / 2, Work::kSquare};
  }
  const int rest = index - off_diagonal;
  const int shared = squares / 4 * 3;
  if (rest < shared) {
    const int group = rest / 3;
    const int member = rest % 3;
    return {4 * group + member, 4 * group + 3, Work::kDiagonal0 + member};
  }
  const int square = squares / 4 * 4 + rest - shared;
  return {square, square, Work::kAlone};
}

// Index of a tile of the lower triangle, row >= column.
__host__ __device__ inline std::int64_t tile_index(int row, int column) {
  return static_cast<std::int64_t>(row) * (row + 1) / 2 + column;
}

// The number of copies of S, a power of two; see the head of this file.
inline int copies_for(int squares) {
  int copies = 1;
  while (copies < kMaxCopies && 2 * copies * work_count(squares) <= kBlocksWanted) copies *= 2;
  return copies;
}

// Float64 on the tensor cores: a warp's 32 x 32 part of a tile.
struct Float64 {
  using Value = double;

  struct Sum {
    double value = 0;
    __device__ __forceinline__ void add(double x) { value += x; }
    __device__ __forceinline__ double total() const { return value; }
  };

  static __device__ __forceinline__ double shifted(float x, float shift) {
    return static_cast<double>(x) - static_cast<double>(shift);
  }

  double sums[2][4][4] = {};

  // Adds the products of one step; left and right point at the warp's columns in the step's first row.
  __device__ __forceinline__ void add(const double* left, const double* right, int lane) {
    const int g = lane / 4;
    const int t = lane % 4;
#pragma unroll 1  // unrolled, this loop spills registers on sm_90
    for (int k = 0; k < kDepth; k += 8) {
      double a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          a[i][part] = left[(k + t + part / 2 * 4) * kPitch + 16 * i + part % 2 * 8 + g];
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const double b[2] = {right[(k + t) * kPitch + 8 * j + g], right[(k + t + 4) * kPitch + 8 * j + g]};
#pragma unroll
        for (int i = 0; i < 2; ++i) mma_16x8x8(sums[i][j], a[i], b);
      }
    }
  }

  // Adds the sums to the tile. `tile` points at the warp's part of the tile.
  __device__ __forceinline__ void store(double* tile, int lane) const {
    const int g = lane / 4;
    const int t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          auto* const pair = reinterpret_cast<double2*>(tile + (16 * i + 8 * half + g) * kPanel + 8 * j + 2 * t);
          double2 value = *pair;
          value.x += sums[i][j][2 * half];
          value.y += sums[i][j][2 * half + 1];
          *pair = value;
        }
      }
    }
  }
};

// Float32, for at most a few hundred rows: a warp's 32 x 32 part of a tile, 8 x 4 elements for each lane.
struct Float32 {
  using Value = float;

  // Compensated sum (Knuth's TwoSum): only the rounding of x - shift is lost.
  struct Sum {
    float value = 0;
    float error = 0;
    __device__ __forceinline__ void add(float x) {
      const float sum = __fadd_rn(value, x);
      const float rest = __fsub_rn(sum, value);
      error = __fadd_rn(error, __fadd_rn(__fsub_rn(value, __fsub_rn(sum, rest)), __fsub_rn(x, rest)));
      value = sum;
    }
    __device__ __forceinline__ double total() const { return static_cast<double>(value) + static_cast<double>(error); }
  };

  static __device__ __forceinline__ float shifted(float x, float shift) { return x - shift; }

  float sums[8][4] = {};

  __device__ __forceinline__ void add(const float* left, const float* right, int lane) {
    const float* const rows = left + lane / 8 * 8;
    const float* const columns = right + lane % 8 * 4;
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      const float4 a0 = *reinterpret_cast<const float4*>(rows + k * kPitch);
      const float4 a1 = *reinterpret_cast<const float4*>(rows + k * kPitch + 4);
      const float4 b = *reinterpret_cast<const float4*>(columns + k * kPitch);
      const float a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums[i][0] += a[i] * b.x;
        sums[i][1] += a[i] * b.y;
        sums[i][2] += a[i] * b.z;
        sums[i][3] += a[i] * b.w;
      }
    }
  }

  __device__ __forceinline__ void store(double* tile, int lane) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        auto* const pair = reinterpret_cast<double2*>(tile + (lane / 8 * 8 + i) * kPanel + lane % 8 * 4 + j);
        double2 value = *pair;
        value.x += static_cast<double>(sums[i][j]);
        value.y += static_cast<double>(sums[i][j + 1]);
        *pair = value;
      }
    }
  }
};

template <class Arithmetic>
struct Pair;
template <>
struct Pair<Float64> {
  using Type = double2;
};
template <>
struct Pair<Float32> {
  using Type = float2;
};

template <class T, class Arithmetic>
constexpr std::size_t shared_bytes() {
  return 2 * kDepth * (kColumns * sizeof(T) + kPitch * sizeof(typename Arithmetic::Value)) + kColumns * sizeof(float);
}

// S += Z^T Z and s += Z^T 1 for Z = rows - shift, over `n` rows (n, 128 squares) of T.
//
// rows: 16-byte aligned, as is every row; row_stride in elements. Columns from d on must be zero in the rows and in the
// shift. Grid (work_count(squares), copies). Copy y of S and s takes rows_per_copy rows, beginning with row y
// rows_per_copy.
// scatter: (copies, tiles, 64, 64); sums: (copies, 128 squares). first_bad: least index of a row with a NaN or an
// infinity, counted from first_index.
template <class T, class Arithmetic>
__global__ void __launch_bounds__(kThreads, 1)
    accumulate(const T* __restrict__ rows, std::int64_t row_stride, int n, int rows_per_copy, int squares,
               const float* __restrict__ shift, double* __restrict__ scatter, double* __restrict__ sums,
               unsigned long long* __restrict__ first_bad, unsigned long long first_index) {
  using Value = typename Arithmetic::Value;
  using ValuePair = typename Pair<Arithmetic>::Type;

  const int copy = static_cast<int>(blockIdx.y);
  const int begin = copy * rows_per_copy;
  const int end = n < begin + rows_per_copy ? n : begin + rows_per_copy;
  if (begin >= end) return;  // true for all threads of the block
  const int steps = (end - begin + kDepth - 1) / kDepth;

  const Work work = work_of(static_cast<int>(blockIdx.x), squares);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int tile = thread / 128;
  const int quarter = thread / 32 % 4;

  // Shared memory holds two steps of raw rows, two steps of values and one row of shifts. At the end the memory of the
  // values holds the partial sums of the columns. (The sums take all registers that are available; hence the shifts are
  // in shared memory and some loops stay rolled.)
  Value* const values = reinterpret_cast<Value*>(shared_memory());
  T* const raw = reinterpret_cast<T*>(values + 2 * kDepth * kPitch);

  // This thread loads 16 bytes of one row, and of every kRowsAtOnce-th row after it.
  constexpr int kPerLoad = 16 / static_cast<int>(sizeof(T));
  constexpr int kLoadsPerRow = kColumns / kPerLoad;
  constexpr int kRowsAtOnce = kThreads / kLoadsPerRow;
  const int load_row = thread / kLoadsPerRow;
  const int load_column = thread % kLoadsPerRow * kPerLoad;
  const T* const source = rows + work.panel(load_column / kPanel) * kPanel + load_column % kPanel;

  const auto load = [&](int step) {
#pragma unroll
    for (int row = load_row; row < kDepth; row += kRowsAtOnce) {
      // Rows past the end are not used; the last row is read again in their place.
      const int index = begin + step * kDepth + row;
      copy_async_16(raw + ((step % 2) * kDepth + row) * kColumns + load_column,
                    source + (index < end ? index : end - 1) * row_stride);
    }
  };

  // This thread converts 2 columns of every fourth row.
  const int pair_column = thread % 128 * 2;
  const int pair_row = thread / 128;
  float* const shifts = reinterpret_cast<float*>(raw + 2 * kDepth * kColumns);
  typename Arithmetic::Sum sum0;
  typename Arithmetic::Sum sum1;

  const auto convert = [&](int step) {
    const T* const from = raw + (step % 2) * kDepth * kColumns + pair_column;
    Value* const to = values + (step % 2) * kDepth * kPitch + pair_column;
#pragma unroll 1
    for (int row = pair_row; row < kDepth; row += kThreads / 128) {
      const int index = begin + step * kDepth + row;
      ValuePair value{};
      if (index < end) {
        const float x0 = to_float(from[row * kColumns]);
        const float x1 = to_float(from[row * kColumns + 1]);
        if (is_nonfinite(x0) || is_nonfinite(x1)) {
          atomicMin(first_bad, first_index + static_cast<unsigned long long>(index));
        }
        value.x = Arithmetic::shifted(x0, shifts[pair_column]);
        value.y = Arithmetic::shifted(x1, shifts[pair_column + 1]);
        sum0.add(value.x);
        sum1.add(value.y);
      }
      *reinterpret_cast<ValuePair*>(to + row * kPitch) = value;
    }
  };

  Arithmetic products;
  const bool has_tile = work.has_tile(tile);
  const Value* const left = values + work.left(tile) * kPanel + quarter / 2 * kWarpTile;
  const Value* const right = values + work.right(tile) * kPanel + quarter % 2 * kWarpTile;
  const auto multiply = [&](int step) {
    if (has_tile) products.add(left + (step % 2) * kDepth * kPitch, right + (step % 2) * kDepth * kPitch, lane);
  };

  if (thread < kColumns) shifts[thread] = shift[work.panel(thread / kPanel) * kPanel + thread % kPanel];
  load(0);
  copy_async_commit();
  if (steps > 1) load(1);
  copy_async_commit();
  copy_async_wait<1>();
  __syncthreads();
  convert(0);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<0>();
    // From here on the raw rows of step + 1 and the values of step are complete. The raw rows of step and the values of
    // step - 1 are no longer needed.
    __syncthreads();
    if (step + 2 < steps) {
      load(step + 2);
      copy_async_commit();
    }
    const bool has_next = step + 1 < steps;
    // Half of each scheduler's warps multiply first; the other warps convert first. The loop keeps the code of each
    // part in one place.
#pragma unroll 1
    for (int turn = 0; turn < 2; ++turn) {
      if (turn == tile % 2) {
        multiply(step);
      } else if (has_next) {
        convert(step + 1);
      }
    }
  }

  const std::int64_t panels = 2 * squares;
  if (has_tile) {
    const std::int64_t index =
        copy * (panels * (panels + 1) / 2) + tile_index(work.panel(work.left(tile)), work.panel(work.right(tile)));
    products.store(scatter + index * kTileSize + quarter / 2 * kWarpTile * kPanel + quarter % 2 * kWarpTile, lane);
  }

  // Adds the four partial sums of every column, in order. Only after this barrier have all threads read the values of
  // the last step.
  __syncthreads();
  double* const partial = reinterpret_cast<double*>(shared_memory());
  partial[pair_row * kColumns + pair_column] = sum0.total();
  partial[pair_row * kColumns + pair_column + 1] = sum1.total();
  __syncthreads();
  if (thread < kColumns && work.sums_columns(thread / kPanel)) {
    double total = partial[thread];
#pragma unroll
    for (int part = 1; part < 4; ++part) total += partial[part * kColumns + thread];
    sums[copy * panels * kPanel + work.panel(thread / kPanel) * kPanel + thread % kPanel] += total;
  }
}

// Copies rows into the buffer as float32, and looks for NaN and infinity. One thread block for each row.
template <class T>
__global__ void append_rows(const T* __restrict__ rows, std::int64_t row_stride, std::int64_t column_stride, int d,
                            float* __restrict__ out, std::int64_t out_stride,
                            unsigned long long* __restrict__ first_bad, unsigned long long first_index) {
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  for (int column = static_cast<int>(threadIdx.x); column < d; column += static_cast<int>(blockDim.x)) {
    const float value = to_float(rows[row * row_stride + column * column_stride]);
    if (is_nonfinite(value)) atomicMin(first_bad, first_index + static_cast<unsigned long long>(row));
    out[row * out_stride + column] = value;
  }
}

// shift = the mean of n rows, as float32.
template <class T>
__global__ void set_shift(const T* __restrict__ rows, std::int64_t row_stride, int n, int d,
                          float* __restrict__ shift) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= d) return;
  double sum = 0;
#pragma unroll 8
  for (int row = 0; row < n; ++row) sum += static_cast<double>(to_float(rows[row * row_stride + column]));
  shift[column] = static_cast<float>(sum / n);
}

// S += S' + s' delta^T + delta s'^T + n delta delta^T, delta = shift' - shift: adds `n` rows that were summed about
// shift' to sums about shift. Each copy has its own S and s and is updated separately. The last term concerns all rows;
// copy 0 takes all of it. Grid (panels, panels, copies), where the blocks of the upper triangle do nothing. The primed
// arrays may be the unprimed arrays.
__global__ void add_scatter(const double* other_scatter, const double* other_sums, const float* other_shift, double n,
                            const float* shift, double* scatter) {
  const int panels = static_cast<int>(gridDim.x);
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x);
  const int copy = static_cast<int>(blockIdx.z);
  if (column > row) return;
  const std::int64_t tiles = tile_index(panels, 0);
  const std::int64_t tile = (copy * tiles + tile_index(row, column)) * kTileSize;
  const double* const s = other_sums + static_cast<std::int64_t>(copy) * panels * kPanel;
  for (int at = static_cast<int>(threadIdx.x); at < kTileSize; at += static_cast<int>(blockDim.x)) {
    const int i = row * kPanel + at / kPanel;
    const int j = column * kPanel + at % kPanel;
    const double delta_i = static_cast<double>(other_shift[i]) - static_cast<double>(shift[i]);
    const double delta_j = static_cast<double>(other_shift[j]) - static_cast<double>(shift[j]);
    double moved = s[i] * delta_j + delta_i * s[j];
    if (copy == 0) moved += n * delta_i * delta_j;
    scatter[tile + at] += other_scatter[tile + at] + moved;
  }
}

// s += s' + n delta, with copies as in add_scatter(). If the other object has a non-finite row, the index of its first
// one is added to first_index. Grid (blocks for the length of a row, copies).
__global__ void add_sums(const double* other_sums, const float* other_shift, const unsigned long long* other_first_bad,
                         unsigned long long first_index, double n, const float* shift, int length, double* sums,
                         unsigned long long* first_bad) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int copy = static_cast<int>(blockIdx.y);
  if (column == 0 && copy == 0 && *other_first_bad != kNoBadRow) atomicMin(first_bad, first_index + *other_first_bad);
  if (column >= length) return;
  double moved = 0;
  if (copy == 0) moved = n * (static_cast<double>(other_shift[column]) - static_cast<double>(shift[column]));
  const std::int64_t at = static_cast<std::int64_t>(copy) * length + column;
  sums[at] += other_sums[at] + moved;
}

// total (d,) = the sum of the copies of s, in order; mean = shift + total / n.
__global__ void finish_mean(const double* __restrict__ sums, int copies, int squares, const float* __restrict__ shift,
                            int d, double n, double* __restrict__ total, double* __restrict__ mean) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= d) return;
  double sum = 0;
  for (int copy = 0; copy < copies; ++copy) sum += sums[copy * (2 * squares * kPanel) + column];
  total[column] = sum;
  mean[column] = static_cast<double>(shift[column]) + sum / n;
}

// out (d, d) = (S - total total^T / n) / divisor, both triangles, where S is the sum of the copies, in order. Blocks of
// (32, 8) threads with 32 x 32 elements each.
__global__ void finish_covariance(const double* __restrict__ scatter, int copies, int squares,
                                  const double* __restrict__ total, int d, double n, double divisor,
                                  double* __restrict__ out) {
  const int column = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  if (column >= d) return;
  const std::int64_t panels = 2 * squares;
  const std::int64_t copy_size = panels * (panels + 1) / 2 * kTileSize;
  for (int part = static_cast<int>(threadIdx.y); part < 32; part += static_cast<int>(blockDim.y)) {
    const int row = static_cast<int>(blockIdx.y) * 32 + part;
    if (row >= d) return;
    const int low = row > column ? row : column;
    const int high = row > column ? column : row;
    const std::int64_t at = tile_index(low / kPanel, high / kPanel) * kTileSize + low % kPanel * kPanel + high % kPanel;
    double sum = 0;
    for (int copy = 0; copy < copies; ++copy) sum += scatter[copy * copy_size + at];
    out[static_cast<std::int64_t>(row) * d + column] = (sum - total[low] * total[high] / n) / divisor;
  }
}

}  // namespace fastfid::cuda::moments
