#include "core/moments.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>

#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/row_elements.hpp"

namespace fastfid {
namespace {

constexpr int kPrefetchRows = 4;   // how many rows ahead the input is prefetched
constexpr int kMaxDims = 1 << 20;  // d^2 float64 stay below 2^43 bytes: no size computation overflows

int checked_dims(std::int64_t d, const char* name) {
  FASTFID_EXPECT(d >= 1 && d <= kMaxDims, InvalidArgument, name, ": expected 1 to ", kMaxDims, " dimensions, got ", d);
  return static_cast<int>(d);
}

}  // namespace

// Not a multiple of a large power of two, because then the rows of the packed block would compete for the same cache
// sets.
std::size_t MomentsAccumulator::packed_row() const { return (static_cast<std::size_t>(d_) + 7) / 8 * 8 + 8; }

void MomentsAccumulator::reserve_fold(Workspace& workspace, bool with_scatter) {
  const auto d = static_cast<std::size_t>(d_);
  if (with_scatter) scatter.allocate();
  shift.resize(d);
  shifted_mean.resize(d);
  if (workspace.size() < (kBlockRows + 1) * packed_row()) workspace.resize((kBlockRows + 1) * packed_row());
}

void MomentsAccumulator::reserve(DType dtype, Workspace& workspace) {
  reserve_fold(workspace, true);
  pending.reserve(kBlockRows, dtype);
}

void MomentsAccumulator::push(const RowsView& rows, Workspace& workspace) {
  std::size_t done = 0;
  while (done < rows.n) {
    if (pending.n() == 0 && rows.n - done >= kBlockRows) {
      fold(rows.slice(done, kBlockRows), workspace);
      done += kBlockRows;
      continue;
    }
    const std::size_t part = std::min(kBlockRows - pending.n(), rows.n - done);
    pending.append(rows.slice(done, part));
    done += part;
    if (pending.n() == kBlockRows) {
      fold(pending.view(), workspace);
      pending.clear();
    }
  }
}

void MomentsAccumulator::fold(const RowsView& rows, Workspace& workspace, bool with_scatter) {
  if (rows.n == 0) return;
  const int m = static_cast<int>(rows.n);
  const std::size_t ldz = packed_row();
  reserve_fold(workspace, with_scatter);

  const bool first = n == 0;
  const auto n_a = static_cast<double>(n);
  const auto n_b = static_cast<double>(m);
  const double weight = std::sqrt(n_a * n_b / (n_a + n_b));
  const double fraction = n_b / (n_a + n_b);
  const Element type = element(rows.dtype);

  // Column sums add the rows in order.
  for_each_task(d_, divide_up(d_, kStripe), [&](std::size_t stripe) {
    const int column = static_cast<int>(stripe) * kStripe;
    const int width = std::min(kStripe, d_ - column);
    double* const z = workspace.data() + column;
    double* const offset = shift.data() + column;
    double* const mean_a = shifted_mean.data() + column;
    std::array<double, kStripe> mean_b{};
    StripeBytes scratch;
    const auto stripe_of = [&](int r) {
      const auto i = static_cast<std::size_t>(r);
      const std::byte* const from = stripe_of_row(rows, type.size, i, column, width, scratch);
      // A stripe of a row is too short for the hardware's prefetcher: without this prefetch 2 % are lost (measured).
      if (from != scratch.data()) {
        const std::size_t ahead = std::min(i + kPrefetchRows, rows.n - 1);
        const std::byte* const later = stripe_of_row(rows, type.size, ahead, column, width, scratch);
        for (std::size_t byte = 0; byte < static_cast<std::size_t>(width) * type.size; byte += 64) {
          __builtin_prefetch(later + byte);
        }
      }
      return from;
    };
    if (first) type.convert(stripe_of(0), width, offset);
    for (int r = 0; r < m; ++r) type.add_shifted(stripe_of(r), offset, width, mean_b.data());
    for (double& value : mean_b) value /= n_b;
    if (with_scatter) {
      for (int r = 0; r < m; ++r) {
        type.centre(stripe_of(r), offset, mean_b.data(), width, z + static_cast<std::size_t>(r) * ldz);
      }
    }
    double* const last = z + static_cast<std::size_t>(m) * ldz;
    for (int j = 0; j < width; ++j) {
      const double block_mean = mean_b[static_cast<std::size_t>(j)];
      const double delta = block_mean - mean_a[j];
      last[j] = weight * delta;
      mean_a[j] = first ? block_mean : mean_a[j] + fraction * delta;
    }
  });
  n += m;
  if (with_scatter) scatter.add_gram(workspace.data(), first ? m : m + 1, static_cast<int>(ldz));
}

void MomentsAccumulator::merge_folded(const MomentsAccumulator& other, Workspace& workspace, bool with_scatter) {
  if (other.n == 0) return;
  if (n == 0) {
    shift = other.shift;
    shifted_mean = other.shifted_mean;
    if (with_scatter) scatter = other.scatter;
    n = other.n;
    return;
  }
  reserve_fold(workspace, with_scatter);
  const auto n_a = static_cast<double>(n);
  const auto n_b = static_cast<double>(other.n);
  const double fraction = n_b / (n_a + n_b);
  double* const delta = workspace.data();
  for (std::size_t j = 0; j < shift.size(); ++j) {
    delta[j] = (other.shift[j] - shift[j]) + (other.shifted_mean[j] - shifted_mean[j]);
    shifted_mean[j] += fraction * delta[j];
  }
  n += other.n;
  if (with_scatter) scatter.add(other.scatter, n_a * fraction, delta);
}

MomentsAccumulator MomentsAccumulator::folded(Workspace& workspace, bool with_scatter) const {
  MomentsAccumulator copy(d_);
  copy.merge_folded(*this, workspace, with_scatter);
  copy.fold(pending.view(), workspace, with_scatter);
  return copy;
}

void MomentsAccumulator::mean(double* out) const {
  for (std::size_t j = 0; j < shift.size(); ++j) {
    out[j] = shift[j] + shifted_mean[j];
    FASTFID_EXPECT(std::isfinite(out[j]), NumericalError, "mean: feature ", j, " overflows float64");
  }
}

Moments::Moments(int d) : d_(checked_dims(d, "d")), rows_(d, d), accumulator_(d) {}

Moments::Moments(const Moments& other) : d_(other.d_), accumulator_(other.d_) {
  const std::lock_guard lock(other.mutex_);
  n_ = other.n_;
  rows_ = other.rows_;
  accumulator_ = other.accumulator_;
}

std::int64_t Moments::n() const {
  const std::lock_guard lock(mutex_);
  return n_;
}

void Moments::expect_room(std::int64_t rows, const char* what) const {
  FASTFID_EXPECT(rows <= kMaxRows - n_, InvalidArgument, what, ": expected at most 2^62 rows in all, got ", n_, " and ",
                 rows, " more");
}

void Moments::update(const RowsView& rows) {
  // The check comes before the lock, because it only reads the argument.
  check_reach(rows, static_cast<std::size_t>(d_), "x");
  const std::size_t bad = first_nonfinite_row(rows, d_);
  FASTFID_EXPECT(bad == rows.n, NumericalError, "x: row ", bad, " of ", rows.n,
                 " contains NaN or infinity; no row of this call was added");
  const std::lock_guard lock(mutex_);
  expect_room(static_cast<std::int64_t>(rows.n), "x");
  update_locked(rows);
}

void Moments::update_locked(const RowsView& rows) {
  if (n_ + static_cast<std::int64_t>(rows.n) <= d_) {
    rows_.append(rows);
  } else {
    if (is_thin()) {
      MomentsAccumulator fresh(d_);
      fresh.reserve(rows_.is_float64() ? DType::kFloat64 : rows.dtype, workspace_);
      fresh.push(rows_.view(), workspace_);
      leave_thin(std::move(fresh));
    } else {
      accumulator_.reserve(rows.dtype, workspace_);
    }
    accumulator_.push(rows, workspace_);
  }
  n_ += static_cast<std::int64_t>(rows.n);
}

void Moments::leave_thin(MomentsAccumulator&& accumulator) noexcept {
  static_assert(std::is_nothrow_move_assignable_v<MomentsAccumulator>);
  accumulator_ = std::move(accumulator);
  rows_ = RowBuffer(d_, d_);
}

void Moments::merge(const Moments& other) {
  FASTFID_EXPECT(other.d_ == d_, InvalidArgument, "merge: expected d = ", d_, ", got ", other.d_);
  if (&other == this) {
    merge(Moments(other));
    return;
  }
  const std::scoped_lock lock(mutex_, other.mutex_);
  expect_room(other.n_, "merge");
  if (other.is_thin()) {
    update_locked(other.rows_.view());
    return;
  }
  if (is_thin()) {
    MomentsAccumulator merged = other.accumulator_;
    merged.reserve(rows_.view().dtype, workspace_);
    merged.push(rows_.view(), workspace_);
    leave_thin(std::move(merged));
    n_ += other.n_;
    return;
  }
  const RowsView pending = other.accumulator_.pending.view();
  accumulator_.reserve(pending.dtype, workspace_);
  accumulator_.merge_folded(other.accumulator_, workspace_);
  accumulator_.push(pending, workspace_);
  n_ += other.n_;
}

void Moments::reset() {
  const std::lock_guard lock(mutex_);
  n_ = 0;
  rows_ = RowBuffer(d_, d_);
  accumulator_ = MomentsAccumulator(d_);
  workspace_ = {};
}

MomentsAccumulator Moments::total(bool with_scatter) const {
  if (!is_thin()) return accumulator_.folded(workspace_, with_scatter);
  MomentsAccumulator sum(d_);
  const RowsView rows = rows_.view();
  constexpr std::size_t kBlock = MomentsAccumulator::kBlockRows;
  for (std::size_t first = 0; first < rows.n; first += kBlock) {
    sum.fold(rows.slice(first, std::min(kBlock, rows.n - first)), workspace_, with_scatter);
  }
  return sum;
}

void Moments::mean(double* out) const {
  const std::lock_guard lock(mutex_);
  FASTFID_EXPECT(n_ >= 1, InvalidArgument, "mean: expected n >= 1 rows, got none");
  total(false).mean(out);
}

void Moments::covariance(std::int64_t ddof, double* out) const {
  const std::lock_guard lock(mutex_);
  FASTFID_EXPECT(ddof >= 0, InvalidArgument, "ddof: expected >= 0, got ", ddof);
  FASTFID_EXPECT(n_ > ddof, InvalidArgument, "covariance: expected n > ddof = ", ddof, " rows, got n = ", n_);
  const MomentsAccumulator sum = total(true);
  // |s_ij| <= sqrt(s_ii s_jj): where the diagonal is finite, all elements are finite.
  for (int j = 0; j < d_; ++j) {
    FASTFID_EXPECT(std::isfinite(sum.scatter.diagonal(j)), NumericalError, "covariance: the variance of feature ", j,
                   " overflows float64");
  }
  sum.scatter.expand(static_cast<double>(n_ - ddof), out);
}

RowBuffer Moments::rows(std::int64_t& n) const {
  const std::lock_guard lock(mutex_);
  n = n_;
  return rows_;
}

MomentsState Moments::state() const {
  const std::lock_guard lock(mutex_);
  MomentsState state;
  state.d = d_;
  state.n = n_;
  state.rows = rows_;
  state.pending = RowBuffer(d_);
  if (is_thin()) return state;
  const auto d = static_cast<std::size_t>(d_);
  state.counts = {accumulator_.n};
  state.pending_counts = {static_cast<std::int64_t>(accumulator_.pending.n())};
  state.pending.append(accumulator_.pending.view());
  state.shift.resize(d);
  state.shifted_mean.resize(d);
  state.scatter.resize(d * (d + 1) / 2);
  if (accumulator_.n > 0) {
    state.shift = accumulator_.shift;
    state.shifted_mean = accumulator_.shifted_mean;
    accumulator_.scatter.to_triangle(state.scatter.data());
  }
  return state;
}

MomentsStateView MomentsState::view() const {
  const auto columns = static_cast<std::size_t>(d);
  const std::size_t k = counts.size();
  return {d,
          n,
          {rows.view(), columns},
          counts,
          pending_counts,
          {pending.view(), columns},
          {shift.data(), k, columns},
          {shifted_mean.data(), k, columns},
          {scatter.data(), k, columns * (columns + 1) / 2}};
}

namespace {

// The checked numbers of a state, for the constructor from a state.
struct StateCounts {
  std::int64_t folded = 0;
  std::int64_t pending = 0;
};

void check_rows(const MomentsStateView::Rows& rows, std::size_t n, std::size_t d, const char* name) {
  FASTFID_EXPECT(rows.view.n == n && rows.columns == d, InvalidArgument, name, ": expected shape (", n, ", ", d,
                 "), got (", rows.view.n, ", ", rows.columns, ")");
  check_reach(rows.view, d, name);
}

void check_table(const MomentsStateView::Table& table, std::size_t rows, std::size_t columns, const char* name) {
  FASTFID_EXPECT(table.rows == rows && (table.columns == columns || rows == 0), InvalidArgument, name,
                 ": expected shape (", rows, ", ", columns, "), got (", table.rows, ", ", table.columns, ")");
}

// The only element of `counts`, or 0 if none is expected.
std::int64_t checked_count(std::span<const std::int64_t> counts, std::size_t expected, const char* name) {
  FASTFID_EXPECT(counts.size() == expected, InvalidArgument, name, ": expected shape (", expected, ",), got (",
                 counts.size(), ",)");
  if (counts.empty()) return 0;
  // volatile: one read, so that the count that is checked is the count that is used, even if another thread writes.
  const std::int64_t count = *static_cast<const volatile std::int64_t*>(counts.data());
  FASTFID_EXPECT(count >= 0, InvalidArgument, name, ": expected no negative number, got ", count);
  return count;
}

// d must have been checked. This function checks everything else except the values of the arrays.
StateCounts checked_counts(const MomentsStateView& state) {
  FASTFID_EXPECT(state.n >= 0 && state.n <= kMaxRows, InvalidArgument, "state['n']: expected 0 to 2^62, got ", state.n);
  const bool thin = state.n <= state.d;
  const auto d = static_cast<std::size_t>(state.d);
  const std::size_t k = thin ? 0 : 1;
  const StateCounts counts{checked_count(state.counts, k, "state['counts']"),
                           checked_count(state.pending_counts, k, "state['pending_counts']")};
  const std::int64_t n = checked_add(counts.folded, counts.pending, "state['counts'] and state['pending_counts']");
  FASTFID_EXPECT(thin || n == state.n, InvalidArgument,
                 "state['counts'] and state['pending_counts']: expected a sum of ", state.n,
                 ", as state['n'] says, got ", n);
  check_rows(state.rows, thin ? static_cast<std::size_t>(state.n) : 0, d, "state['rows']");
  check_rows(state.pending, static_cast<std::size_t>(counts.pending), d, "state['pending']");
  check_table(state.shift, k, d, "state['shift']");
  check_table(state.shifted_mean, k, d, "state['shifted_mean']");
  check_table(state.scatter, k, d * (d + 1) / 2, "state['scatter']");
  return counts;
}

void check_finite(const MomentsStateView& state) {
  const int d = static_cast<int>(state.d);
  for (const auto& [rows, name] : {std::pair{state.rows.view, "rows"}, std::pair{state.pending.view, "pending"}}) {
    FASTFID_EXPECT(first_nonfinite_row(rows, d) == rows.n, NumericalError, "state['", name,
                   "']: contains NaN or infinity");
  }
  for (const auto& [table, name] : {std::pair{state.shift, "shift"}, std::pair{state.shifted_mean, "shifted_mean"},
                                    std::pair{state.scatter, "scatter"}}) {
    FASTFID_EXPECT(std::ranges::all_of(table.values(), [](double x) { return std::isfinite(x); }), NumericalError,
                   "state['", name, "']: contains NaN or infinity");
  }
}

// The accumulator of a state with n > d and this number of folded rows, without the pending rows.
MomentsAccumulator accumulator_of(const MomentsStateView& state, std::int64_t folded) {
  const int d = static_cast<int>(state.d);
  const auto shift = state.shift.values();
  const auto shifted_mean = state.shifted_mean.values();
  const auto scatter = state.scatter.values();
  MomentsAccumulator out(d);
  out.n = folded;
  const auto is_zero = [](double x) { return x == 0; };
  const bool is_empty = std::ranges::all_of(shift, is_zero) && std::ranges::all_of(shifted_mean, is_zero) &&
                        std::ranges::all_of(scatter, is_zero);
  FASTFID_EXPECT(
      out.n > 0 || is_empty, InvalidArgument,
      "state['counts']: no rows are folded, but state['shift'], ['shifted_mean'] or ['scatter'] is not zero");
  out.scatter.from_triangle(scatter.data());
  for (int j = 0; j < d; ++j) {
    FASTFID_EXPECT(out.scatter.diagonal(j) >= 0, InvalidArgument, "state['scatter']: negative diagonal element, ",
                   out.scatter.diagonal(j), " at ", j);
  }
  out.shift.assign(shift.begin(), shift.end());
  out.shifted_mean.assign(shifted_mean.begin(), shifted_mean.end());
  return out;
}

}  // namespace

Moments::Moments(const MomentsStateView& state) : Moments(checked_dims(state.d, "state['d']")) {
  const StateCounts counts = checked_counts(state);
  check_finite(state);
  n_ = state.n;
  rows_.append(state.rows.view);
  if (is_thin()) return;
  accumulator_ = accumulator_of(state, counts.folded);
  accumulator_.push(state.pending.view, workspace_);
}

}  // namespace fastfid
