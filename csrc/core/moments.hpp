// Streaming moments of feature rows: n, mean and centred scatter in one pass, in float64.
//
// Rows are collected into blocks of fixed size. A complete block is converted to float64, shifted, centred on its own
// mean and added to the scatter by the pairwise update formula of Chan, Golub & LeVeque (1983):
//   S_ab = S_a + S_b + (n_a n_b / n_ab) delta delta^T,   delta = mean_b - mean_a,
// The last term enters the rank-k update as one more row, sqrt(n_a n_b / n_ab) delta. Means are kept relative to a
// fixed shift (the first row), so that a large common offset costs no digits. Blocks and tiles are fixed. Hence the
// result is the same, bit for bit, for every split of the rows into update() calls and for every number of threads.
//
// While n <= d no row is folded into the scatter. The rows themselves are the more exact representation: a covariance
// of rank n - 1 < d loses half its digits in the trace of a matrix square root. The rows are folded when n passes d.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "core/memory.hpp"
#include "core/packed_symmetric.hpp"
#include "core/rows.hpp"

namespace fastfid {

// Moments of one stream of rows: the moments of the folded rows, and the rows of the incomplete block.
class MomentsAccumulator {
 public:
  // Scratch memory of a fold: one packed block. The caller owns the workspace and can use it again.
  using Workspace = LargeVector;

  // Rows of a block. With the row of the means, k = 384. OpenBLAS's AVX-512 kernels pack 384 rows at once, and 384 is a
  // multiple of their unrolling. Each block needs one pass over the scatter. Blocks of 255 rows were 2 to 6 % slower,
  // with the larger loss where the memory was busier. Kernels that pack 256 rows at once make two passes of 192.
  static constexpr int kBlockRows = 383;

  explicit MomentsAccumulator(int d) : pending(d, kBlockRows), scatter(d), d_(d) {}

  // Allocates all memory that later calls of push() with rows of this type, and of merge_folded(), need. These calls
  // then cannot fail.
  void reserve(DType dtype, Workspace& workspace);
  // Folds complete blocks and keeps the remaining rows pending.
  void push(const RowsView& rows, Workspace& workspace);
  // Folds `rows` (at most kBlockRows of them) now, as one block. n and the mean get the same bits with and without the
  // scatter.
  void fold(const RowsView& rows, Workspace& workspace, bool with_scatter = true);
  // Adds the folded rows of `other`, but not the pending rows, by Chan's formula. `with_scatter` has the meaning that
  // it has in fold().
  void merge_folded(const MomentsAccumulator& other, Workspace& workspace, bool with_scatter = true);
  // A copy in which the pending rows are folded too.
  MomentsAccumulator folded(Workspace& workspace, bool with_scatter = true) const;
  // (d,) mean. Throws NumericalError if the mean overflows.
  void mean(double* out) const;

  std::int64_t n = 0;                // folded rows
  RowBuffer pending;                 // rows of the incomplete block
  std::vector<double> shift;         // (d,) the first row; empty before the first fold
  std::vector<double> shifted_mean;  // (d,) mean - shift
  PackedSymmetric scatter;           // sum of (x - mean)(x - mean)^T; allocated by the first fold

 private:
  std::size_t packed_row() const;  // elements from one row of a packed block to the next
  void reserve_fold(Workspace& workspace, bool with_scatter);

  int d_;
};

// The parts of a state as a caller gives them. The caller guarantees only that there is memory behind the views;
// everything else is checked. A MomentsStateView does not own the memory.
struct MomentsStateView {
  struct Rows {
    RowsView view;
    std::size_t columns = 0;
  };
  struct Table {  // row-major, contiguous
    const double* data = nullptr;
    std::size_t rows = 0;
    std::size_t columns = 0;

    std::span<const double> values() const { return {data, rows * columns}; }
  };

  std::int64_t d = 0;
  std::int64_t n = 0;
  Rows rows;
  std::span<const std::int64_t> counts;
  std::span<const std::int64_t> pending_counts;
  Rows pending;
  Table shift;
  Table shifted_mean;
  Table scatter;
};

// Everything a Moments consists of, for serialisation. A thin Moments (n <= d) has rows, and K is 0; any other Moments
// has no rows, and K is 1.
struct MomentsState {
  int d = 0;
  std::int64_t n = 0;
  RowBuffer rows;                            // (n, d) while n <= d
  std::vector<std::int64_t> counts;          // (K,) folded rows
  std::vector<std::int64_t> pending_counts;  // (K,) pending rows
  RowBuffer pending;                         // (number of pending rows, d)
  std::vector<double> shift;                 // (K, d)
  std::vector<double> shifted_mean;          // (K, d)
  std::vector<double> scatter;               // (K, d (d + 1) / 2) lower triangle by rows

  MomentsStateView view() const;
};

// n, mean and covariance of a stream of d-dimensional rows, mergeable.
//
// A call that fails, even for lack of memory, leaves the object as it was: the steps that can fail come first, on
// copies or on reserved memory.
//
// Memory: 4 d bytes for each row while n <= d. For n > d: about 4 d^2 bytes for the scatter, and a few blocks of
// 8 kBlockRows d bytes. Time: n d^2 flops. Thread-safe: every member locks the object. parallel_for distributes the
// work. Covariances agree with a two-pass float64 computation to a few units in the last place.
class Moments {
 public:
  // Throws InvalidArgument unless 1 <= d <= 2^20. Allocates no memory of size d^2.
  explicit Moments(int d);
  // Throws InvalidArgument, naming the part of the state, for a number outside its limits, for an array of another
  // shape, and for counts that contradict each other, n or the rows. Throws NumericalError for NaN or infinity. The
  // counts are read once, so that the counts that are used are the counts that were checked, even if another thread
  // writes to the arrays during the call.
  explicit Moments(const MomentsStateView& state);
  explicit Moments(const MomentsState& state) : Moments(state.view()) {}
  Moments(const Moments& other);

  // Adds the rows. Throws NumericalError, naming the first row with a NaN or an infinity, before any row is added.
  // Throws InvalidArgument where there would be more than kMaxRows in all.
  void update(const RowsView& rows);
  // Adds the rows that `other` has seen. `other` may be this object. Throws InvalidArgument if d differs, or if there
  // would be more than kMaxRows in all. While the sum of both n is <= d, the rows are concatenated.
  void merge(const Moments& other);
  void reset();

  int d() const { return d_; }
  std::int64_t n() const;

  // (d,) mean. Throws InvalidArgument if n == 0.
  void mean(double* out) const;
  // (d, d) symmetric covariance with divisor n - ddof. Throws InvalidArgument if ddof < 0 or n <= ddof, and
  // NumericalError if the covariance overflows. Does not disturb later updates.
  void covariance(std::int64_t ddof, double* out) const;
  // The rows seen so far if n <= d, and an empty buffer otherwise. `n` receives the number of rows seen.
  RowBuffer rows(std::int64_t& n) const;

  MomentsState state() const;

 private:
  bool is_thin() const { return n_ <= d_; }
  void expect_room(std::int64_t rows, const char* what) const;
  void update_locked(const RowsView& rows);
  // Replaces rows_ by `accumulator`, to which rows_ have been added.
  void leave_thin(MomentsAccumulator&& accumulator) noexcept;
  MomentsAccumulator total(bool with_scatter) const;

  int d_;
  mutable std::mutex mutex_;
  std::int64_t n_ = 0;
  RowBuffer rows_;                  // all rows while n <= d, else empty
  MomentsAccumulator accumulator_;  // all rows for n > d, else empty
  mutable MomentsAccumulator::Workspace workspace_;
};

}  // namespace fastfid
