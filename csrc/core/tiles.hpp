// Products of triangular and symmetric matrices, tile by tile.
//
// Where most of a matrix is zeros, BLAS multiplies zeros. Where products are narrow, BLAS packs for about as long as it
// multiplies. These functions pack a triangular matrix once, in panels whose products leave out the zeros. A reduction
// to a band needs two products: a rank-64 update of the matrix, and the product of the matrix with 32 vectors. These
// functions compute both while a tile is in the cache; BLAS needs a pass over the whole matrix for each.
#pragma once

#include <cstddef>

namespace fastfid::tiles {

// The instruction set chosen for this process: "Avx512", "Avx2" or "Any". Throws InvalidArgument where the environment
// variable FASTFID_SIMD asks for an instruction set that is not available. Must be called before a parallel region,
// because the first call reads the environment.
const char* instruction_set();

// ---- Panels.

inline constexpr std::size_t kPanel = 24;       // columns
inline constexpr std::size_t kPanelDepth = 96;  // rows at a time; two panels of 96 rows take 36 KiB of a 48 KiB cache

// C += A^T B for panels A and B (depth, kPanel) and C (kPanel, kPanel), all row-major.
void multiply_panels(std::size_t depth, const double* a, const double* b, double* c);

// ---- The reduction to a band.

inline constexpr std::size_t kEdge = 96;     // rows and columns of a tile, which stays in the second-level cache
inline constexpr std::size_t kVectors = 32;  // columns of V, of W and of the panel

// The number of rows of memory for m rows. Rows beyond m must be zero in the inputs, and are zero in the outputs.
constexpr std::size_t padded(std::size_t m) { return (m + kEdge - 1) / kEdge * kEdge; }

// A pending update A := A - V W^T - W V^T. `right` is -[W V], stored row by row. `left` is [V W]; each block of 32 rows
// is stored column by column: (m / 32, 64, 32).
struct Update {
  const double* left = nullptr;  // null: no update
  const double* right = nullptr;

  // This update without its first 32 rows.
  Update without_first_panel() const;
};

// Writes rows [begin, end) of `left` and `right`. `begin` and `end` are multiples of kEdge.
void pack_update(std::size_t begin, std::size_t end, const double* v, const double* w, double* left, double* right);

// The part of one task: rows [begin, end) of the lower triangle of symmetric A (m x m, element (i, j) at i + j stride).
// `begin` is a multiple of kEdge. All vectors are row-major with kVectors columns.
struct Strip {
  double* a;
  std::size_t stride;
  std::size_t m;
  std::size_t begin;
  std::size_t end;
  double* tile;  // kEdge x kEdge elements for this task alone; not on the stack, which may be small
};

// Makes the update, and computes A V in two parts: rows [begin, end) of `direct`, and rows [0, mirrored_rows(strip)) of
// `mirrored`, which come from the mirror images of the elements. Both parts are overwritten.
void update_and_multiply(const Strip& strip, const Update& update, const double* v, double* direct, double* mirrored);
std::size_t mirrored_rows(const Strip& strip);

// Makes the update in columns [0, kVectors) only.
void update_panel(const Strip& strip, const Update& update);

// kPlain: C += A B for A with `rows` rows, a multiple of kEdge, and square B. kTransposed: C += A^T B for A and B with
// `rows` rows each, any number.
enum class Left { kPlain, kTransposed };
void multiply(Left left, std::size_t rows, const double* a, const double* b, double* c);

}  // namespace fastfid::tiles
