// Products of triangular and symmetric matrices, tile by tile.
//
// Where most of a matrix is zeros, or its products are narrow, BLAS multiplies zeros and packs for about as long as it
// multiplies. Triangular matrices are packed here once, in panels whose products begin and end where the zeros do. And
// the two products of a reduction to a band, a rank-64 update of the matrix and its product with 32 vectors, are made
// while a tile is in the cache; BLAS needs a pass over the whole matrix for each.
#pragma once

#include <cstddef>

namespace fastfid::tiles {

// The one chosen for this process: "Avx512", "Avx2" or "Any". Throws InvalidArgument where the environment variable
// FASTFID_SIMD asks for one that there is not. Call it before a parallel region: the first call reads the environment.
const char* instruction_set();

// ---- Panels.

inline constexpr std::size_t kPanel = 24;       // columns
inline constexpr std::size_t kPanelDepth = 96;  // rows at a time: two panels of so many take 36 KiB of a 48 KiB cache

// C += A^T B for panels A and B (depth, kPanel) and C (kPanel, kPanel), all row-major.
void multiply_panels(std::size_t depth, const double* a, const double* b, double* c);

// ---- The reduction to a band.

inline constexpr std::size_t kEdge = 96;     // of a tile: it stays in the second-level cache
inline constexpr std::size_t kVectors = 32;  // columns of V and W, and of the panel

// Rows of memory for m rows. Those beyond m must be zeros in what is read, and are in what is written.
constexpr std::size_t padded(std::size_t m) { return (m + kEdge - 1) / kEdge * kEdge; }

// An update A := A - V W^T - W V^T that has still to be made. `right` is -[W V] row by row; `left` [V W], of which
// every 32 rows are stored column by column: (m / 32, 64, 32).
struct Update {
  const double* left = nullptr;  // null: no update
  const double* right = nullptr;

  // The same, without its first 32 rows.
  Update without_first_panel() const;
};

// Writes rows [begin, end) of `left` and `right`, both multiples of kEdge.
void pack_update(std::size_t begin, std::size_t end, const double* v, const double* w, double* left, double* right);

// What one task does: rows [begin, end) of the lower triangle of symmetric A (m x m, element (i, j) at i + j stride).
// `begin` is a multiple of kEdge. All vectors are row-major with kVectors columns.
struct Strip {
  double* a;
  std::size_t stride;
  std::size_t m;
  std::size_t begin;
  std::size_t end;
  double* tile;  // kEdge x kEdge, of this task alone: a stack may be small
};

// Makes the update, and adds up A V as two parts: `direct`, rows [begin, end) of it, and `mirrored`, rows
// [0, mirrored_rows(strip)), from the elements' mirror images. Both are overwritten.
void update_and_multiply(const Strip& strip, const Update& update, const double* v, double* direct, double* mirrored);
std::size_t mirrored_rows(const Strip& strip);

// Makes the update in columns [0, kVectors) only.
void update_panel(const Strip& strip, const Update& update);

// C += A B (kPlain) for `rows` rows of A, a multiple of kEdge, and square B; C += A^T B (kTransposed) for A and B of
// `rows` rows each, any number.
enum class Left { kPlain, kTransposed };
void multiply(Left left, std::size_t rows, const double* a, const double* b, double* c);

}  // namespace fastfid::tiles
