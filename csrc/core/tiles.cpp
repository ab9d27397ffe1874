// Compiled with fused multiply-adds where the processor has them. The bits of the results therefore depend on the
// processor, as the bits of BLAS do.
#include "core/tiles.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/errors.hpp"

namespace fastfid::tiles {
namespace {

constexpr std::size_t kPair = 2 * kVectors;  // columns of [V W]

// A register, and the sizes of the blocks of sums that, with their operands, fill the registers: kRows rows of kGroup
// registers for the band, and kPanelRows rows of kPanelGroup registers for panels.
struct Any {
  using Vector = double __attribute__((vector_size(16), may_alias));
  static constexpr std::size_t kGroup = 2;
  static constexpr std::size_t kPanelRows = 4;
};
struct Avx2 {
  using Vector = double __attribute__((vector_size(32), may_alias));
  static constexpr std::size_t kGroup = 2;
  static constexpr std::size_t kPanelRows = 4;
};
struct Avx512 {
  using Vector = double __attribute__((vector_size(64), may_alias));
  static constexpr std::size_t kGroup = 4;
  static constexpr std::size_t kPanelRows = 8;
};
constexpr std::size_t kPanelGroup = 3;

// out[r][0 .. Width) += sum over k < depth of a[r AR + k AK] b[k][0 .. Width), for R rows of `out`, out_stride apart.
// Group registers of a row are summed at once.
template <class Set, std::size_t R, std::size_t Group, std::size_t Width, std::size_t AR, std::size_t AK>
[[gnu::always_inline]] inline void add_product(std::size_t depth, const double* a, const double* b, double* out,
                                               std::size_t out_stride) {
  using Vector = typename Set::Vector;
  constexpr std::size_t kLane = sizeof(Vector) / sizeof(double);
  static_assert(Width % (kLane * Group) == 0);
  for (std::size_t first = 0; first < Width; first += kLane * Group) {
    Vector sums[R][Group];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (std::size_t g = 0; g < Group; ++g) {
        sums[r][g] = *reinterpret_cast<const Vector*>(out + r * out_stride + first + g * kLane);
      }
    }
    for (std::size_t k = 0; k < depth; ++k) {
      Vector x[Group];
#pragma GCC unroll 4
      for (std::size_t g = 0; g < Group; ++g) {
        x[g] = *reinterpret_cast<const Vector*>(b + k * Width + first + g * kLane);
      }
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r) {
        const double y = a[r * AR + k * AK];
#pragma GCC unroll 4
        for (std::size_t g = 0; g < Group; ++g) sums[r][g] += y * x[g];
      }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (std::size_t g = 0; g < Group; ++g) {
        *reinterpret_cast<Vector*>(out + r * out_stride + first + g * kLane) = sums[r][g];
      }
    }
  }
}

constexpr std::size_t kRows = 6;  // rows of `out` at once
static_assert(kEdge % kRows == 0 && kEdge % kVectors == 0);

// Copies column by column. Elements outside the matrix or above the diagonal become zero.
void load(const Strip& s, std::size_t row, std::size_t col, std::size_t n_cols, double* tile) {
  const std::size_t end = std::min(row + kEdge, s.m);
  for (std::size_t j = 0; j < n_cols; ++j) {
    double* const out = tile + j * kEdge;
    const std::size_t first = std::min(std::max(row, col + j), end);
    std::fill(out, out + (first - row), 0.0);
    if (col + j < s.m) {
      std::copy(s.a + first + (col + j) * s.stride, s.a + end + (col + j) * s.stride, out + (first - row));
      std::fill(out + (end - row), out + kEdge, 0.0);
    } else {
      std::fill(out, out + kEdge, 0.0);
    }
  }
}

void store(const Strip& s, std::size_t row, std::size_t col, std::size_t n_cols, const double* tile) {
  const std::size_t end = std::min(row + kEdge, s.m);
  for (std::size_t j = 0; j < n_cols && col + j < end; ++j) {
    const std::size_t first = std::max(row, col + j);
    std::copy(tile + j * kEdge + (first - row), tile + j * kEdge + (end - row), s.a + first + (col + j) * s.stride);
  }
}

// tile += left right^T for n_rows rows (or some more) and n_cols columns. Above the diagonal, only elements that share
// a block with elements below the diagonal are computed.
template <class Set>
[[gnu::always_inline]] inline void update_tile(const Update& u, std::size_t row, std::size_t n_rows, std::size_t col,
                                               std::size_t n_cols, double* tile) {
  for (std::size_t i = 0; i < n_rows; i += kVectors) {
    const double* const left = u.left + (row + i) * kPair;
    const double* const right = u.right + col * kPair;
    double* const out = tile + i;
    const std::size_t needed = std::min(n_cols, row + i + kVectors - std::min(col, row + i + kVectors));
    std::size_t j = 0;
    for (; j + kRows <= n_cols && j < needed; j += kRows) {
      add_product<Set, kRows, Set::kGroup, kVectors, kPair, 1>(kPair, right + j * kPair, left, out + j * kEdge, kEdge);
    }
    for (; j < needed; j += 2) {
      add_product<Set, 2, Set::kGroup, kVectors, kPair, 1>(kPair, right + j * kPair, left, out + j * kEdge, kEdge);
    }
  }
}
static_assert(kVectors % 2 == 0);

template <class Set>
[[gnu::always_inline]] inline void update_and_multiply_with(const Strip& s, const Update& u, const double* v,
                                                            double* direct, double* mirrored) {
  double* const tile = s.tile;
  std::fill(direct + s.begin * kVectors, direct + padded(s.end) * kVectors, 0.0);
  std::fill(mirrored, mirrored + mirrored_rows(s) * kVectors, 0.0);
  for (std::size_t col = 0; col < s.end; col += kEdge) {
    for (std::size_t row = std::max(col, s.begin); row < s.end; row += kEdge) {
      const std::size_t n_rows = std::min(kEdge, s.m - row);  // further rows are zeros
      const std::size_t n_cols = std::min(kEdge, s.m - col);
      load(s, row, col, kEdge, tile);
      if (u.left != nullptr) {
        update_tile<Set>(u, row, n_rows, col, kEdge, tile);
        store(s, row, col, kEdge, tile);
      }
      if (row == col) {
        for (std::size_t j = 0; j < kEdge; ++j) {
          for (std::size_t i = 0; i < j; ++i) tile[i + j * kEdge] = tile[j + i * kEdge];
        }
      } else {
        for (std::size_t j = 0; j < kEdge; j += kRows) {
          add_product<Set, kRows, Set::kGroup, kVectors, kEdge, 1>(n_rows, tile + j * kEdge, v + row * kVectors,
                                                                   mirrored + (col + j) * kVectors, kVectors);
        }
      }
      for (std::size_t i = 0; i < n_rows; i += kRows) {
        add_product<Set, kRows, Set::kGroup, kVectors, 1, kEdge>(n_cols, tile + i, v + col * kVectors,
                                                                 direct + (row + i) * kVectors, kVectors);
      }
    }
  }
}

template <class Set>
[[gnu::always_inline]] inline void update_panel_with(const Strip& s, const Update& u) {
  double* const tile = s.tile;
  for (std::size_t row = s.begin; row < s.end; row += kEdge) {
    load(s, row, 0, kVectors, tile);
    update_tile<Set>(u, row, std::min(kEdge, s.m - row), 0, kVectors, tile);
    store(s, row, 0, kVectors, tile);
  }
}

template <class Set>
[[gnu::always_inline]] inline void multiply_with(Left left, std::size_t rows, const double* a, const double* b,
                                                 double* c) {
  if (left == Left::kPlain) {
    for (std::size_t i = 0; i < rows; i += kRows) {
      add_product<Set, kRows, Set::kGroup, kVectors, kVectors, 1>(kVectors, a + i * kVectors, b, c + i * kVectors,
                                                                  kVectors);
    }
  } else {
    for (std::size_t i = 0; i < kVectors; i += 4) {
      add_product<Set, 4, Set::kGroup, kVectors, 1, kVectors>(rows, a + i, b, c + i * kVectors, kVectors);
    }
  }
}

template <class Set>
[[gnu::always_inline]] inline void multiply_panels_with(std::size_t depth, const double* a, const double* b,
                                                        double* c) {
  static_assert(kPanel % Set::kPanelRows == 0);
  for (std::size_t i = 0; i < kPanel; i += Set::kPanelRows) {
    add_product<Set, Set::kPanelRows, kPanelGroup, kPanel, 1, kPanel>(depth, a + i, b, c + i * kPanel, kPanel);
  }
}

// The functions above for one instruction set.
struct Functions {
  const char* name;
  void (*update_and_multiply)(const Strip&, const Update&, const double*, double*, double*);
  void (*update_panel)(const Strip&, const Update&);
  void (*multiply)(Left, std::size_t, const double*, const double*, double*);
  void (*multiply_panels)(std::size_t, const double*, const double*, double*);
};
#define FASTFID_TILES(SET, TARGET)                                                                        \
  TARGET void update_and_multiply_##SET(const Strip& s, const Update& u, const double* v, double* direct, \
                                        double* mirrored) {                                               \
    update_and_multiply_with<SET>(s, u, v, direct, mirrored);                                             \
  }                                                                                                       \
  TARGET void update_panel_##SET(const Strip& s, const Update& u) { update_panel_with<SET>(s, u); }       \
  TARGET void multiply_##SET(Left left, std::size_t rows, const double* a, const double* b, double* c) {  \
    multiply_with<SET>(left, rows, a, b, c);                                                              \
  }                                                                                                       \
  TARGET void multiply_panels_##SET(std::size_t depth, const double* a, const double* b, double* c) {     \
    multiply_panels_with<SET>(depth, a, b, c);                                                            \
  }                                                                                                       \
  constexpr Functions k##SET = {#SET, update_and_multiply_##SET, update_panel_##SET, multiply_##SET,      \
                                multiply_panels_##SET};

FASTFID_TILES(Any, )
#if defined(__x86_64__)
FASTFID_TILES(Avx2, __attribute__((target("avx2,fma"))))
FASTFID_TILES(Avx512, __attribute__((target("avx512f"))))
#endif
#undef FASTFID_TILES

// FASTFID_SIMD=avx512, avx2 or none can select less than the processor has, so that each set can be tested on one
// machine.
const Functions& choose() {
  const char* const variable = std::getenv("FASTFID_SIMD");
  const std::string asked = variable == nullptr ? "" : variable;
  FASTFID_EXPECT(asked.empty() || asked == "avx512" || asked == "avx2" || asked == "none", InvalidArgument,
                 "FASTFID_SIMD: expected avx512, avx2 or none; got ", asked);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && (asked.empty() || asked == "avx512")) return kAvx512;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && (asked.empty() || asked == "avx2")) return kAvx2;
#endif
  FASTFID_EXPECT(asked.empty() || asked == "none", InvalidArgument, "FASTFID_SIMD: this processor has no ", asked);
  return kAny;
}

const Functions& functions() {
  static const Functions& chosen = choose();
  return chosen;
}

}  // namespace

const char* instruction_set() { return functions().name; }

Update Update::without_first_panel() const { return {left + kVectors * kPair, right + kVectors * kPair}; }

void pack_update(std::size_t begin, std::size_t end, const double* v, const double* w, double* left, double* right) {
  for (std::size_t i = begin; i < end; ++i) {
    double* const column = left + i / kVectors * kVectors * kPair + i % kVectors;
    for (std::size_t k = 0; k < kVectors; ++k) {
      column[k * kVectors] = v[i * kVectors + k];
      column[(kVectors + k) * kVectors] = w[i * kVectors + k];
      right[i * kPair + k] = -w[i * kVectors + k];
      right[i * kPair + kVectors + k] = -v[i * kVectors + k];
    }
  }
}

std::size_t mirrored_rows(const Strip& strip) { return (strip.end - 1) / kEdge * kEdge; }

void update_and_multiply(const Strip& strip, const Update& update, const double* v, double* direct, double* mirrored) {
  functions().update_and_multiply(strip, update, v, direct, mirrored);
}

void update_panel(const Strip& strip, const Update& update) { functions().update_panel(strip, update); }

void multiply(Left left, std::size_t rows, const double* a, const double* b, double* c) {
  functions().multiply(left, rows, a, b, c);
}

void multiply_panels(std::size_t depth, const double* a, const double* b, double* c) {
  functions().multiply_panels(depth, a, b, c);
}

}  // namespace fastfid::tiles
