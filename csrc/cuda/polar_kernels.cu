#include <algorithm>
#include <cmath>
#include <cstddef>

#include "cuda/kernel.cuh"
#include "cuda/polar_kernels.cuh"

namespace fastfid::cuda {
namespace {

// 32 bits, because a division of 64 bits takes ten times as long. The caller keeps every matrix below 2^31 elements.
using Index = unsigned;

// --- Triangles -----------------------------------------------------------------------------------------------------

constexpr unsigned kTile = 32;               // a tile of 32 x 32: reads and writes of a row are whole cache lines
constexpr unsigned kTileRows = 8;            // threads of a block: 32 x 8, each four elements of a tile
constexpr unsigned kTileStride = kTile + 1;  // in shared memory: no bank conflict when columns are read

template <class T>
constexpr std::size_t kTileBytes = kTile * kTileStride * sizeof(T);

// The first row and column of a block's tile. Blocks of tiles below the diagonal do nothing.
struct Place {
  Index i0;
  Index j0;
};

__device__ Place tile_place() { return {blockIdx.y * kTile, blockIdx.x * kTile}; }

// Sets c to value(i, j) at (i, j) and (j, i).
template <class T, class Value>
__global__ void both_triangles(Index n, Value value, T* c) {
  const Place place = tile_place();
  if (place.j0 < place.i0) return;
  T* const tile = reinterpret_cast<T*>(shared_memory());
  const Index j = place.j0 + threadIdx.x;
  for (unsigned r = threadIdx.y; r < kTile; r += kTileRows) {
    const Index i = place.i0 + r;
    if (i < n && j < n && j >= i) {
      const T v = value(i, j);
      c[i * n + j] = v;
      tile[r * kTileStride + threadIdx.x] = v;
    }
  }
  __syncthreads();
  // Row `place.j0 + r` of the mirror image.
  const Index column = place.i0 + threadIdx.x;
  for (unsigned r = threadIdx.y; r < kTile; r += kTileRows) {
    const Index row = place.j0 + r;
    if (row < n && column < n && column < row) c[row * n + column] = tile[threadIdx.x * kTileStride + r];
  }
}

// Calls out(i, j, s(i, j), s(j, i)) for every j >= i.
template <class Out>
__global__ void symmetric_pairs(Index n, const double* s, Out out) {
  const Place place = tile_place();
  if (place.j0 < place.i0) return;
  double* const tile = reinterpret_cast<double*>(shared_memory());
  const Index column = place.i0 + threadIdx.x;
  for (unsigned r = threadIdx.y; r < kTile; r += kTileRows) {
    const Index row = place.j0 + r;
    if (row < n && column < n) tile[r * kTileStride + threadIdx.x] = s[row * n + column];
  }
  __syncthreads();
  const Index j = place.j0 + threadIdx.x;
  for (unsigned r = threadIdx.y; r < kTile; r += kTileRows) {
    const Index i = place.i0 + r;
    if (i < n && j < n && j >= i) out(i, j, s[i * n + j], tile[threadIdx.x * kTileStride + r]);
  }
}

template <class T>
struct Stored {
  const T* a;
  Index n;

  __device__ T operator()(Index i, Index j) const { return a[i * n + j]; }
};

template <class T>
struct Polynomial {
  const T* y;
  const T* y2;
  Index n;
  polar::Quintic c;
  const double* scale;
  __device__ T operator()(Index i, Index j) const {
    const double s = scale == nullptr ? 1 : *scale;
    const double square = s * s;
    const double v = c[1] * s * square * static_cast<double>(y[i * n + j]) +
                     c[2] * s * square * square * static_cast<double>(y2[i * n + j]);
    return static_cast<T>(i == j ? v + c[0] * s : v);
  }
};

struct ShiftedHalfSum {
  double* c;
  Index n;
  const double* shift;
  __device__ void operator()(Index i, Index j, double here, double mirror) const {
    const double v = (here + mirror) / 2;
    c[i * n + j] = i == j ? v + *shift : v;
  }
};

struct ScaledHalfSum {
  double* a;
  double* copy;
  Index n;
  double scale;
  __device__ void operator()(Index i, Index j, double here, double mirror) const {
    const double half = scale / 2;
    const double v = here * half + mirror * half;
    a[i * n + j] = v;
    copy[i * n + j] = v;
  }
};

// --- Element by element --------------------------------------------------------------------------------------------

constexpr unsigned kThreads = 256;

template <class Visit>
__global__ void for_each_element(Index count, Visit visit) {
  const Index i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) visit(i);
}

struct IdentityMinus {
  const double* y;
  Index n;
  double level;
  double* c;
  __device__ void operator()(Index at) const { c[at] = at / n == at % n ? level - y[at] : -y[at]; }
};

struct ZeroLower {
  double* a;
  Index n;
  __device__ void operator()(Index at) const {
    if (at / n > at % n) a[at] = 0;
  }
};

struct Divide {
  const double* m;
  const double* divisor;
  double* x;
  __device__ void operator()(Index at) const { x[at] = m[at] / *divisor; }
};

template <class To, class From>
struct Convert {
  const From* from;
  To* to;
  __device__ void operator()(Index at) const { to[at] = static_cast<To>(from[at]); }
};

// --- Sums ----------------------------------------------------------------------------------------------------------

// A sum takes two kernels. In the first kernel each block adds a fixed set of elements in a fixed order; in the second
// kernel one block adds the results. The number of blocks depends on the number of elements, not on the device.
constexpr unsigned kMostBlocks = 512;
constexpr unsigned kLeastPerThread = 8;
constexpr unsigned kMostTerms = 5;

// Combines the values of all threads, K values each, in a tree. The first thread has the result.
template <unsigned K, class Terms>
__device__ void combine_block(double (&value)[K]) {
  double* const shared = reinterpret_cast<double*>(shared_memory());  // (K, kThreads)
  for (unsigned k = 0; k < K; ++k) shared[k * kThreads + threadIdx.x] = value[k];
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      for (unsigned k = 0; k < K; ++k) {
        double* const place = shared + k * kThreads + threadIdx.x;
        *place = Terms::combine(k, *place, place[half]);
      }
    }
  }
  for (unsigned k = 0; k < K; ++k) value[k] = shared[k * kThreads];  // used by the first thread only
}

template <class Terms>
__global__ void partial_sums(Index count, Terms terms, double* partial) {
  double value[Terms::kCount] = {};
  for (Index at = blockIdx.x * kThreads + threadIdx.x; at < count; at += gridDim.x * kThreads) {
    terms.add(at, value);
  }
  combine_block<Terms::kCount, Terms>(value);
  if (threadIdx.x == 0) {
    for (unsigned k = 0; k < Terms::kCount; ++k) partial[k * kMostBlocks + blockIdx.x] = value[k];
  }
}

template <class Terms>
__global__ void total_sums(Terms terms, const double* partial, unsigned blocks) {
  double value[Terms::kCount] = {};
  for (unsigned k = 0; k < Terms::kCount; ++k) {
    for (unsigned b = threadIdx.x; b < blocks; b += kThreads) {
      value[k] = Terms::combine(k, value[k], partial[k * kMostBlocks + b]);
    }
  }
  combine_block<Terms::kCount, Terms>(value);
  if (threadIdx.x == 0) terms.store(value);
}

// fmax drops a NaN; this maximum keeps it.
__device__ double larger(double a, double b) { return a != a || a > b ? a : b; }

struct Added {
  static __device__ double combine(unsigned, double a, double b) { return a + b; }
};

struct Norm : Added {
  static constexpr unsigned kCount = 1;
  const double* a;
  double* norm;
  __device__ void add(Index at, double* value) const { value[0] += a[at] * a[at]; }
  __device__ void store(const double* value) const { *norm = sqrt(value[0]); }
};

// The sum for a symmetric matrix that is given by its upper triangle.
template <class T>
struct FirstScale : Added {
  static constexpr unsigned kCount = 1;
  const T* y2;
  Index n;
  PolarScalars* scalars;
  __device__ void add(Index at, double* value) const {
    const Index i = at / n;
    const Index j = at % n;
    if (j < i) return;
    const double v = static_cast<double>(y2[at]);
    value[0] += i == j ? v * v : 2 * v * v;
  }
  __device__ void store(const double* value) const { scalars->scale = polar_first_scale(sqrt(sqrt(sqrt(value[0])))); }
};

struct Measure : Added {
  static constexpr unsigned kCount = 5;
  const double* y;
  const double* h;
  Index n;
  PolarScalars* scalars;
  __device__ void add(Index at, double* value) const {
    const double a = y[at];
    const double b = h[at];
    value[0] += a * a;
    value[1] += b * b;
    value[2] += a * b;
    if (at / n == at % n) {
      value[3] += a;
      value[4] += b;
    }
  }
  __device__ void store(const double* value) const {
    PolarMeasures& s = scalars->measures;
    s.norm_y = sqrt(value[0]);
    s.norm_h = sqrt(value[1]);
    s.inner_yh = value[2];
    s.trace_y = value[3];
    s.trace_h = value[4];
    scalars->shift = polar_shift(s, n);
  }
};

struct MeasureTrial : Added {
  static constexpr unsigned kCount = 3;
  const double* c;
  Index n;
  const double* w;
  const double* m;
  const double* wc;
  PolarScalars* scalars;
  // C has n^2 elements, and the other matrices have m n elements, m >= n. The first n^2 indices serve C too.
  __device__ void add(Index at, double* value) const {
    if (at < n * n && at % n >= at / n) value[0] += c[at] * c[at];
    value[1] += w[at] * w[at];
    const double off = m[at] - wc[at];
    value[2] += off * off;
  }
  __device__ void store(const double* value) const {
    scalars->norm_c = sqrt(value[0]);
    scalars->norm_w = sqrt(value[1]);
    scalars->residual = sqrt(value[2]);
  }
};

struct Facts {
  static constexpr unsigned kCount = 3;
  const double* s;
  Index n;
  SymmetricFacts* facts;
  static __device__ double combine(unsigned k, double a, double b) { return k == 0 ? a + b : larger(a, b); }
  __device__ void add(Index at, double* value) const {
    const Index i = at / n;
    const Index j = at % n;
    const double here = s[at];
    if (i == j) value[0] += here;
    value[1] = larger(value[1], fabs(here));
    // Neighbouring threads read different rows of the mirror image: slow, but from the L2 cache and only once.
    if (j > i) value[2] = larger(value[2], fabs(here - s[j * n + i]));
  }
  __device__ void store(const double* value) const { *facts = {value[0], value[1], value[2]}; }
};

struct CheckFactor : Added {
  static constexpr unsigned kCount = 2;
  const double* a;
  const double* r;
  const double* rtr;
  Index n;
  double noise;
  FactorCheck* check;
  __device__ void add(Index at, double* value) const {
    const Index i = at / n;
    const Index j = at % n;
    if (j < i) return;
    const double off = a[at] - rtr[at];
    value[0] += i == j ? off * off : 2 * off * off;
    if (i == j && !(r[at] > 0 && r[at] * r[at] >= noise * a[at])) value[1] += 1;
  }
  __device__ void store(const double* value) const {
    check->residual = sqrt(value[0]);
    check->lost_pivots = static_cast<int>(value[1]);
  }
};

// --- Column by column ----------------------------------------------------------------------------------------------

// A block of (kTile, kTileRows) threads handles kTile columns; neighbouring threads read neighbouring columns.
constexpr std::size_t kColumnBytes = kTileRows * kTile * sizeof(double);

__device__ Index own_column() { return blockIdx.x * kTile + threadIdx.x; }

// The sum of value(i), i < n, for the column of each thread. All threads of the block must call it. The order of the
// sum is fixed.
template <class Value>
__device__ double column_sum(Index n, bool has_column, Value value) {
  double* const shared = reinterpret_cast<double*>(shared_memory());  // (kTileRows, kTile)
  double sum = 0;
  if (has_column) {
    for (Index i = threadIdx.y; i < n; i += kTileRows) sum += value(i);
  }
  shared[threadIdx.y * kTile + threadIdx.x] = sum;
  __syncthreads();
  double total = 0;
  for (unsigned r = 0; r < kTileRows; ++r) total += shared[r * kTile + threadIdx.x];
  __syncthreads();  // all threads have read it before the next sum overwrites it
  return total;
}

__global__ void centre_columns(const float* x, Index stride, Index n, Index d, double* f, double* mean) {
  const Index j = own_column();
  const bool has_column = j < d;
  const auto element = [&](Index i) { return static_cast<double>(x[i * stride + j]); };
  const double first = column_sum(n, has_column, element) / n;
  // The mean of the differences is the rounding error of the first mean.
  const double rest = column_sum(n, has_column, [&](Index i) { return element(i) - first; }) / n;
  if (!has_column) return;
  for (Index i = threadIdx.y; i < n; i += kTileRows) f[i * d + j] = element(i) - first - rest;
  if (threadIdx.y == 0) mean[j] = first + rest;
}

__global__ void reflect_columns(double* f, Index n, Index d, double root, double divisor) {
  const Index j = own_column();
  const bool has_column = j < d;
  const double sum = column_sum(n, has_column, [&](Index i) { return f[i * d + j]; });
  if (!has_column) return;
  const double shift = (f[(n - 1) * d + j] + sum / root) / (root + 1);
  for (Index i = threadIdx.y; i < n - 1; i += kTileRows) f[i * d + j] = (f[i * d + j] - shift) / divisor;
}

Index index(std::size_t n) { return static_cast<Index>(n); }

dim3 tiles(std::size_t n) {
  const auto side = static_cast<unsigned>((n + kTile - 1) / kTile);
  return {side, side, 1};
}

template <class T, class Value>
void write_both_triangles(std::size_t n, Value value, T* c, Stream stream) {
  launch(both_triangles<T, Value>, tiles(n), dim3(kTile, kTileRows), kTileBytes<T>, stream, index(n), value, c);
}

template <class Out>
void visit_pairs(std::size_t n, const double* s, Out out, Stream stream) {
  launch(symmetric_pairs<Out>, tiles(n), dim3(kTile, kTileRows), kTileBytes<double>, stream, index(n), s, out);
}

template <class Visit>
void visit_elements(std::size_t count, Visit visit, Stream stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  launch(for_each_element<Visit>, dim3(blocks), dim3(kThreads), 0, stream, index(count), visit);
}

dim3 columns(std::size_t d) { return {static_cast<unsigned>((d + kTile - 1) / kTile), 1, 1}; }

template <class Terms>
void sum(std::size_t count, Terms terms, double* workspace, Stream stream) {
  static_assert(Terms::kCount <= kMostTerms);
  constexpr std::size_t kSharedBytes = Terms::kCount * kThreads * sizeof(double);
  constexpr std::size_t kLeastPerBlock = kThreads * kLeastPerThread;
  const auto blocks =
      static_cast<unsigned>(std::clamp<std::size_t>((count + kLeastPerBlock - 1) / kLeastPerBlock, 1, kMostBlocks));
  launch(partial_sums<Terms>, dim3(blocks), dim3(kThreads), kSharedBytes, stream, index(count), terms, workspace);
  launch(total_sums<Terms>, dim3(1), dim3(kThreads), kSharedBytes, stream, terms, workspace, blocks);
}

}  // namespace

std::size_t sum_workspace() { return kMostBlocks * kMostTerms; }

template <class T>
void mirror_upper(T* a, std::size_t n, Stream stream) {
  write_both_triangles(n, Stored<T>{a, index(n)}, a, stream);
}
template void mirror_upper(float*, std::size_t, Stream);
template void mirror_upper(double*, std::size_t, Stream);

template <class T>
void polynomial(T* y, const T* y2, std::size_t n, const polar::Quintic& c, const double* scale, Stream stream) {
  write_both_triangles(n, Polynomial<T>{y, y2, index(n), c, scale}, y, stream);
}
template void polynomial(float*, const float*, std::size_t, const polar::Quintic&, const double*, Stream);
template void polynomial(double*, const double*, std::size_t, const polar::Quintic&, const double*, Stream);

void shifted_symmetric_part(const double* h, std::size_t n, const double* shift, double* c, Stream stream) {
  visit_pairs(n, h, ShiftedHalfSum{c, index(n), shift}, stream);
}

void identity_minus(const double* y, std::size_t n, double level, double* c, Stream stream) {
  visit_elements(n * n, IdentityMinus{y, index(n), level, c}, stream);
}

void zero_lower(double* a, std::size_t n, Stream stream) { visit_elements(n * n, ZeroLower{a, index(n)}, stream); }

void divide(const double* m, std::size_t count, const double* divisor, double* x, Stream stream) {
  visit_elements(count, Divide{m, divisor, x}, stream);
}

template <class To, class From>
void convert(const From* from, std::size_t count, To* to, Stream stream) {
  visit_elements(count, Convert<To, From>{from, to}, stream);
}
template void convert(const float*, std::size_t, double*, Stream);
template void convert(const double*, std::size_t, float*, Stream);

void frobenius_norm(const double* a, std::size_t count, double* workspace, double* norm, Stream stream) {
  sum(count, Norm{{}, a, norm}, workspace, stream);
}

void first_scale(const double* y2, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream) {
  sum(n * n, FirstScale<double>{{}, y2, index(n), scalars}, workspace, stream);
}

void first_scale(const float* y2, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream) {
  sum(n * n, FirstScale<float>{{}, y2, index(n), scalars}, workspace, stream);
}

void measure(const double* y, const double* h, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream) {
  sum(n * n, Measure{{}, y, h, index(n), scalars}, workspace, stream);
}

void measure_trial(const double* c, std::size_t n, const double* w, const double* m, const double* wc,
                   std::size_t count, double* workspace, PolarScalars* scalars, Stream stream) {
  sum(count, MeasureTrial{{}, c, index(n), w, m, wc, scalars}, workspace, stream);
}

void symmetric_facts(const double* s, std::size_t n, double* workspace, SymmetricFacts* facts, Stream stream) {
  sum(n * n, Facts{s, index(n), facts}, workspace, stream);
}

void scaled_symmetric_part(const double* s, std::size_t n, double scale, double* a, double* copy, Stream stream) {
  visit_pairs(n, s, ScaledHalfSum{a, copy, index(n), scale}, stream);
}

void centre_rows(const float* x, std::size_t stride, std::size_t n, std::size_t d, double* f, double* mean,
                 Stream stream) {
  launch(centre_columns, columns(d), dim3(kTile, kTileRows), kColumnBytes, stream, x, index(stride), index(n), index(d),
         f, mean);
}

void reflect_rows(double* f, std::size_t n, std::size_t d, double divisor, Stream stream) {
  launch(reflect_columns, columns(d), dim3(kTile, kTileRows), kColumnBytes, stream, f, index(n), index(d),
         std::sqrt(static_cast<double>(n)), divisor);
}

void check_factor(const double* a, const double* r, const double* rtr, std::size_t n, double noise, double* workspace,
                  FactorCheck* check, Stream stream) {
  sum(n * n, CheckFactor{{}, a, r, rtr, index(n), noise, check}, workspace, stream);
}

}  // namespace fastfid::cuda
