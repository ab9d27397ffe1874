#include "core/moments.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/errors.hpp"
#include "core/linalg.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

constexpr int kBlockRows = 256;
constexpr int kTile = 256;
constexpr int kMaxDims = 1 << 20;  // d^2 float64 stay below 2^43 bytes: no size computation overflows
constexpr int kMaxGroups = 1024;

// One element type: how its bits say NaN or infinity (all exponent bits set), and its value, exact in Value.
struct Float64 {
  using Bits = std::uint64_t;
  using Value = double;
  static constexpr Bits kExponent = 0x7ff0000000000000;
  static Value value(Bits bits) { return std::bit_cast<double>(bits); }
};
struct Float32 {
  using Bits = std::uint32_t;
  using Value = float;
  static constexpr Bits kExponent = 0x7f800000;
  static Value value(Bits bits) { return std::bit_cast<float>(bits); }
};
struct BFloat16 {
  using Bits = std::uint16_t;
  using Value = float;
  static constexpr Bits kExponent = 0x7f80;
  static Value value(Bits bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};
struct Float16 {
  using Bits = std::uint16_t;
  using Value = float;
  static constexpr Bits kExponent = 0x7c00;
  static Value value(Bits bits) {
    const std::uint32_t magnitude = bits & 0x7fffu;
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const auto normal = std::bit_cast<float>((magnitude << 13) + (112u << 23));  // exponent bias 15 -> 127
    const float subnormal = static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f;
    const float absolute = magnitude < 0x0400u ? subnormal : normal;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(absolute) | sign);
  }
};

template <class Type>
typename Type::Bits load(const std::byte* from) {
  typename Type::Bits bits;
  std::memcpy(&bits, from, sizeof bits);
  return bits;
}

// Calls f(Type{}) for the element type of dtype.
template <class F>
auto visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(Float16{});
    case DType::kBFloat16:
      return f(BFloat16{});
    case DType::kFloat32:
      return f(Float32{});
    case DType::kFloat64:
      break;
  }
  return f(Float64{});
}

// Calls f(j, element bits) for j in [0, count) of one row; contiguous rows get a loop that the compiler can vectorise.
template <class Type, class F>
void for_each_element(const std::byte* row, std::ptrdiff_t stride, int count, F&& f) {
  if (stride == static_cast<std::ptrdiff_t>(sizeof(typename Type::Bits))) {
    for (int j = 0; j < count; ++j) f(j, load<Type>(row + static_cast<std::size_t>(j) * sizeof(typename Type::Bits)));
  } else {
    for (int j = 0; j < count; ++j) f(j, load<Type>(row + j * stride));
  }
}

const std::byte* row_at(const RowsView& rows, std::size_t i) {
  return rows.data + static_cast<std::ptrdiff_t>(i) * rows.row_stride;
}

// Index of the first row with a NaN or an infinity, or rows.n.
std::size_t first_nonfinite_row(const RowsView& rows, int d) {
  const std::size_t chunks = (rows.n + kBlockRows - 1) / kBlockRows;
  std::atomic<std::size_t> first{rows.n};
  parallel_for(chunks, [&](std::size_t chunk) {
    const std::size_t begin = chunk * kBlockRows;
    const std::size_t end = std::min(begin + kBlockRows, rows.n);
    visit(rows.dtype, [&]<class Type>(Type) {
      for (std::size_t i = begin; i < end; ++i) {
        unsigned bad = 0;
        for_each_element<Type>(row_at(rows, i), rows.column_stride, d, [&](int, typename Type::Bits bits) {
          bad |= (bits & Type::kExponent) == Type::kExponent ? 1u : 0u;
        });
        if (bad != 0) {
          std::size_t seen = first.load();
          while (i < seen && !first.compare_exchange_weak(seen, i)) {
          }
          return;
        }
      }
    });
  });
  return first.load();
}

}  // namespace

RowsView RowsView::slice(std::size_t first, std::size_t count) const {
  RowsView part = *this;
  part.data += static_cast<std::ptrdiff_t>(first) * row_stride;
  part.n = count;
  return part;
}

void RowBuffer::append(const RowsView& rows) {
  if (rows.n == 0) return;
  const std::size_t before = n_ * static_cast<std::size_t>(d_);
  const std::size_t after = before + rows.n * static_cast<std::size_t>(d_);
  if (rows.dtype == DType::kFloat64 && !is_float64_) {
    float64_.reserve(after);
    float64_.assign(float32_.begin(), float32_.end());
    float32_ = {};
    is_float64_ = true;
  }
  const auto copy = [&](auto& storage) {
    using Value = typename std::remove_reference_t<decltype(storage)>::value_type;
    storage.resize(after);
    visit(rows.dtype, [&]<class Type>(Type) {
      for (std::size_t i = 0; i < rows.n; ++i) {
        Value* out = storage.data() + before + i * static_cast<std::size_t>(d_);
        for_each_element<Type>(row_at(rows, i), rows.column_stride, d_, [&](int j, typename Type::Bits bits) {
          out[j] = static_cast<Value>(Type::value(bits));
        });
      }
    });
  };
  if (is_float64_) {
    copy(float64_);
  } else {
    copy(float32_);
  }
  n_ += rows.n;
}

void RowBuffer::clear() {
  n_ = 0;
  float32_.clear();
  float64_.clear();
}

RowsView RowBuffer::view() const {
  const std::size_t size = is_float64_ ? sizeof(double) : sizeof(float);
  return {is_float64_ ? reinterpret_cast<const std::byte*>(float64_.data())
                      : reinterpret_cast<const std::byte*>(float32_.data()),
          is_float64_ ? DType::kFloat64 : DType::kFloat32, n_, static_cast<std::ptrdiff_t>(size) * d_,
          static_cast<std::ptrdiff_t>(size)};
}

MomentsAccumulator::MomentsAccumulator(int d) : pending(d), d_(d), tiles_((d + kTile - 1) / kTile) {}

int MomentsAccumulator::tile_size(int i) const { return std::min(kTile, d_ - i * kTile); }
int MomentsAccumulator::panel_width(int i) const { return std::min((i + 1) * kTile, d_); }

// Panels 0 to i - 1 are all complete: kTile rows of kTile, 2 kTile, ... i kTile columns.
std::size_t MomentsAccumulator::panel_offset(int i) const {
  return static_cast<std::size_t>(kTile) * kTile * static_cast<std::size_t>(i) * static_cast<std::size_t>(i + 1) / 2;
}

void MomentsAccumulator::allocate() {
  if (!panels_.empty()) return;
  const int last = tiles_ - 1;
  panels_.resize(panel_offset(last) + static_cast<std::size_t>(tile_size(last)) * static_cast<std::size_t>(d_));
  shift.resize(static_cast<std::size_t>(d_));
  shifted_mean.resize(static_cast<std::size_t>(d_));
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
  const auto d = static_cast<std::size_t>(d_);
  const int m = static_cast<int>(rows.n);
  if (with_scatter) allocate();
  shift.resize(d);
  shifted_mean.resize(d);
  // One row more than the block, for the term of the means.
  constexpr std::size_t kStripeRows = kBlockRows + 1;
  if (workspace.size() < kStripeRows * d) workspace.resize(kStripeRows * d);

  const bool first = n == 0;
  const auto n_a = static_cast<double>(n);
  const auto n_b = static_cast<double>(m);
  const double weight = std::sqrt(n_a * n_b / (n_a + n_b));
  const double fraction = n_b / (n_a + n_b);

  // Stripe i: columns [i kTile, ...) of the block, row-major and contiguous. Column sums run down the rows in order.
  parallel_for(static_cast<std::size_t>(tiles_), [&](std::size_t stripe) {
    const int width = tile_size(static_cast<int>(stripe));
    const std::size_t column = stripe * kTile;
    double* const block = workspace.data() + column * kStripeRows;
    double* const offset = shift.data() + column;
    double* const mean_a = shifted_mean.data() + column;
    std::array<double, kTile> mean_b{};
    visit(rows.dtype, [&]<class Type>(Type) {
      const std::ptrdiff_t skip = static_cast<std::ptrdiff_t>(column) * rows.column_stride;
      if (first) {
        for_each_element<Type>(row_at(rows, 0) + skip, rows.column_stride, width,
                               [&](int j, typename Type::Bits bits) { offset[j] = Type::value(bits); });
      }
      for (int r = 0; r < m; ++r) {
        double* const out = block + static_cast<std::ptrdiff_t>(r) * width;
        for_each_element<Type>(row_at(rows, static_cast<std::size_t>(r)) + skip, rows.column_stride, width,
                               [&](int j, typename Type::Bits bits) {
                                 const double shifted = static_cast<double>(Type::value(bits)) - offset[j];
                                 out[j] = shifted;
                                 mean_b[static_cast<std::size_t>(j)] += shifted;
                               });
      }
    });
    for (double& value : mean_b) value /= n_b;
    for (int r = 0; r < m; ++r) {
      double* const out = block + static_cast<std::ptrdiff_t>(r) * width;
      for (int j = 0; j < width; ++j) out[j] -= mean_b[static_cast<std::size_t>(j)];
    }
    double* const last = block + static_cast<std::ptrdiff_t>(m) * width;
    for (int j = 0; j < width; ++j) {
      const double delta = first ? 0 : mean_b[static_cast<std::size_t>(j)] - mean_a[j];
      last[j] = weight * delta;
      mean_a[j] = first ? mean_b[static_cast<std::size_t>(j)] : mean_a[j] + fraction * delta;
    }
  });
  n += m;
  if (!with_scatter) return;

  const int k = first ? m : m + 1;
  const auto tile_count = static_cast<std::size_t>(tiles_) * static_cast<std::size_t>(tiles_ + 1) / 2;
  parallel_for(tile_count, [&](std::size_t task) {
    // Tasks count the lower triangle by rows: (0,0), (1,0), (1,1), (2,0), ...
    int i = 0;
    auto j = static_cast<int>(task);
    while (j > i) j -= ++i;
    const double* const z_i = workspace.data() + static_cast<std::size_t>(i) * kTile * kStripeRows;
    const double* const z_j = workspace.data() + static_cast<std::size_t>(j) * kTile * kStripeRows;
    double* const tile = panel(i) + static_cast<std::ptrdiff_t>(j) * kTile;
    using linalg::Transpose;
    if (i == j) {
      linalg::syrk(Transpose::kYes, tile_size(i), k, 1, z_i, tile_size(i), 1, tile, panel_width(i));
    } else {
      linalg::gemm(Transpose::kYes, Transpose::kNo, tile_size(i), tile_size(j), k, 1, z_i, tile_size(i), z_j,
                   tile_size(j), 1, tile, panel_width(i));
    }
  });
}

void MomentsAccumulator::merge_folded(const MomentsAccumulator& other, bool with_scatter) {
  if (other.n == 0) return;
  if (n == 0) {
    n = other.n;
    shift = other.shift;
    shifted_mean = other.shifted_mean;
    if (with_scatter) panels_ = other.panels_;
    return;
  }
  const auto n_a = static_cast<double>(n);
  const auto n_b = static_cast<double>(other.n);
  const double weight = n_a * n_b / (n_a + n_b);
  const double fraction = n_b / (n_a + n_b);
  std::vector<double> delta(static_cast<std::size_t>(d_));
  for (std::size_t c = 0; c < delta.size(); ++c) {
    delta[c] = (other.shift[c] - shift[c]) + (other.shifted_mean[c] - shifted_mean[c]);
    shifted_mean[c] += fraction * delta[c];
  }
  n += other.n;
  if (!with_scatter) return;
  parallel_for(static_cast<std::size_t>(tiles_), [&](std::size_t index) {
    const int i = static_cast<int>(index);
    for (int r = 0; r < tile_size(i); ++r) {
      double* const out = panel(i) + static_cast<std::ptrdiff_t>(r) * panel_width(i);
      const double* const in = other.panel(i) + static_cast<std::ptrdiff_t>(r) * panel_width(i);
      const int row = i * kTile + r;
      const double scaled = weight * delta[static_cast<std::size_t>(row)];
      for (int c = 0; c <= row; ++c) out[c] += in[c] + scaled * delta[static_cast<std::size_t>(c)];
    }
  });
}

MomentsAccumulator MomentsAccumulator::folded(Workspace& workspace, bool with_scatter) const {
  MomentsAccumulator copy(d_);
  copy.merge_folded(*this, with_scatter);
  copy.fold(pending.view(), workspace, with_scatter);
  return copy;
}

void MomentsAccumulator::mean(double* out) const {
  for (std::size_t c = 0; c < shift.size(); ++c) out[c] = shift[c] + shifted_mean[c];
}

void MomentsAccumulator::scatter(double divisor, double* out) const {
  const auto d = static_cast<std::size_t>(d_);
  // Task i writes the rows of panel i left of the diagonal and, mirrored, the columns above them.
  parallel_for(static_cast<std::size_t>(tiles_), [&](std::size_t index) {
    const int i = static_cast<int>(index);
    for (int r = 0; r < tile_size(i); ++r) {
      const double* const in = panel(i) + static_cast<std::ptrdiff_t>(r) * panel_width(i);
      const auto row = index * kTile + static_cast<std::size_t>(r);
      for (std::size_t c = 0; c <= row; ++c) {
        const double value = in[c] / divisor;
        out[row * d + c] = value;
        out[c * d + row] = value;
      }
    }
  });
}

void MomentsAccumulator::get_packed(double* out) const {
  for (int i = 0; i < tiles_; ++i) {
    for (int r = 0; r < tile_size(i); ++r) {
      out = std::copy_n(panel(i) + static_cast<std::ptrdiff_t>(r) * panel_width(i), i * kTile + r + 1, out);
    }
  }
}

void MomentsAccumulator::set_packed(const double* in) {
  allocate();
  for (int i = 0; i < tiles_; ++i) {
    for (int r = 0; r < tile_size(i); ++r) {
      const int count = i * kTile + r + 1;
      std::copy_n(in, count, panel(i) + static_cast<std::ptrdiff_t>(r) * panel_width(i));
      in += count;
    }
  }
}

Moments::Moments(int d, int groups) : d_(d), groups_(groups), rows_(d) {
  FASTFID_EXPECT(d >= 1 && d <= kMaxDims, InvalidArgument, "d: expected 1 to ", kMaxDims, " dimensions, got ", d);
  FASTFID_EXPECT(groups == 0 || (groups >= 2 && groups <= kMaxGroups), InvalidArgument,
                 "groups: expected 0 (none) or 2 to ", kMaxGroups, ", got ", groups);
}

Moments::Moments(const Moments& other) : d_(other.d_), groups_(other.groups_) {
  const std::lock_guard lock(other.mutex_);
  n_ = other.n_;
  rows_ = other.rows_;
  accumulators_ = other.accumulators_;
}

std::int64_t Moments::n() const {
  const std::lock_guard lock(mutex_);
  return n_;
}

int Moments::group_of(std::uint64_t index, int groups) {
  // splitmix64 (Steele, Lea & Flood, 2014): independent of any period in the order of the rows.
  std::uint64_t x = (index + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return static_cast<int>(x % static_cast<std::uint64_t>(groups));
}

void Moments::update(const RowsView& rows) {
  // Before the lock: the check reads the argument only.
  const std::size_t bad = first_nonfinite_row(rows, d_);
  FASTFID_EXPECT(bad == rows.n, NumericalError, "x: row ", bad, " of ", rows.n,
                 " contains NaN or infinity; no row of this call was added");
  const std::lock_guard lock(mutex_);
  update_locked(rows);
}

void Moments::update_locked(const RowsView& rows) {
  if (n_ + static_cast<std::int64_t>(rows.n) <= d_) {
    rows_.append(rows);
  } else {
    if (is_thin()) leave_thin();
    deal(rows, static_cast<std::uint64_t>(n_));
  }
  n_ += static_cast<std::int64_t>(rows.n);
}

void Moments::leave_thin() {
  std::vector<MomentsAccumulator> fresh(static_cast<std::size_t>(std::max(1, groups_)), MomentsAccumulator(d_));
  for (auto& accumulator : fresh) accumulator.allocate();
  accumulators_ = std::move(fresh);
  deal(rows_.view(), 0);
  rows_ = RowBuffer(d_);
}

void Moments::deal(const RowsView& rows, std::uint64_t first_index) {
  if (groups_ == 0) {
    accumulators_[0].push(rows, workspace_);
    return;
  }
  for (std::size_t i = 0; i < rows.n; ++i) {
    accumulators_[static_cast<std::size_t>(group_of(first_index + i, groups_))].push(rows.slice(i, 1), workspace_);
  }
}

void Moments::merge(const Moments& other) {
  FASTFID_EXPECT(other.d_ == d_, InvalidArgument, "merge: expected d = ", d_, ", got ", other.d_);
  FASTFID_EXPECT(other.groups_ == groups_, InvalidArgument, "merge: expected groups = ", groups_, ", got ",
                 other.groups_);
  if (&other == this) {
    merge(Moments(other));
    return;
  }
  const std::scoped_lock lock(mutex_, other.mutex_);
  if (other.is_thin()) {
    update_locked(other.rows_.view());
    return;
  }
  if (is_thin()) {
    const RowBuffer rows = std::exchange(rows_, RowBuffer(d_));
    accumulators_ = other.accumulators_;
    n_ = other.n_;
    update_locked(rows.view());
    return;
  }
  for (std::size_t k = 0; k < accumulators_.size(); ++k) {
    accumulators_[k].merge_folded(other.accumulators_[k]);
    accumulators_[k].push(other.accumulators_[k].pending.view(), workspace_);
  }
  n_ += other.n_;
}

void Moments::reset() {
  const std::lock_guard lock(mutex_);
  n_ = 0;
  rows_ = RowBuffer(d_);
  accumulators_.clear();
  workspace_ = {};
}

MomentsAccumulator Moments::total(bool with_scatter) const {
  if (is_thin()) {
    MomentsAccumulator sum(d_);
    const RowsView rows = rows_.view();
    for (std::size_t first = 0; first < rows.n; first += kBlockRows) {
      sum.fold(rows.slice(first, std::min<std::size_t>(kBlockRows, rows.n - first)), workspace_, with_scatter);
    }
    return sum;
  }
  MomentsAccumulator sum = accumulators_[0].folded(workspace_, with_scatter);
  for (std::size_t k = 1; k < accumulators_.size(); ++k) {
    sum.merge_folded(accumulators_[k], with_scatter);
    sum.fold(accumulators_[k].pending.view(), workspace_, with_scatter);
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
  total(true).scatter(static_cast<double>(n_ - ddof), out);
}

RowBuffer Moments::rows(std::int64_t& n) const {
  const std::lock_guard lock(mutex_);
  n = n_;
  return rows_;
}

std::int64_t Moments::group_moments(int k, double* mean, double* scatter) const {
  FASTFID_EXPECT(k >= 0 && k < groups_, InvalidArgument, "k: expected 0 <= k < groups = ", groups_, ", got ", k);
  const std::lock_guard lock(mutex_);
  MomentsAccumulator group(d_);
  if (is_thin()) {
    for (std::size_t i = 0; i < rows_.n(); ++i) {
      if (group_of(i, groups_) == k) group.push(rows_.view().slice(i, 1), workspace_);
    }
    group = group.folded(workspace_);
  } else {
    group = accumulators_[static_cast<std::size_t>(k)].folded(workspace_);
  }
  group.allocate();
  group.mean(mean);
  group.scatter(1, scatter);
  return group.n;
}

MomentsState Moments::state() const {
  const std::lock_guard lock(mutex_);
  MomentsState state;
  state.d = d_;
  state.groups = groups_;
  state.n = n_;
  state.rows = rows_;
  state.pending = RowBuffer(d_);
  const auto d = static_cast<std::size_t>(d_);
  const std::size_t packed = d * (d + 1) / 2;
  state.scatter.resize(accumulators_.size() * packed);
  for (std::size_t k = 0; k < accumulators_.size(); ++k) {
    const MomentsAccumulator& group = accumulators_[k];
    state.counts.push_back(group.n);
    state.pending_counts.push_back(static_cast<std::int64_t>(group.pending.n()));
    state.pending.append(group.pending.view());
    state.shift.insert(state.shift.end(), group.shift.begin(), group.shift.end());
    state.shifted_mean.insert(state.shifted_mean.end(), group.shifted_mean.begin(), group.shifted_mean.end());
    group.get_packed(state.scatter.data() + k * packed);
  }
  return state;
}

Moments::Moments(const MomentsState& state) : Moments(state.d, state.groups) {
  const auto d = static_cast<std::size_t>(d_);
  const std::size_t packed = d * (d + 1) / 2;
  FASTFID_EXPECT(state.n >= 0, InvalidArgument, "state: n is negative: ", state.n);
  const bool thin = state.n <= d_;
  const std::size_t k_expected = thin ? 0 : static_cast<std::size_t>(std::max(1, groups_));
  FASTFID_EXPECT(static_cast<std::int64_t>(state.rows.n()) == (thin ? state.n : 0), InvalidArgument,
                 "state: n = ", state.n, " with d = ", d_, " does not go with ", state.rows.n(), " rows");
  FASTFID_EXPECT(state.counts.size() == k_expected && state.pending_counts.size() == k_expected &&
                     state.shift.size() == k_expected * d && state.shifted_mean.size() == k_expected * d &&
                     state.scatter.size() == k_expected * packed,
                 InvalidArgument, "state: expected arrays for ", k_expected, " accumulators of d = ", d_);
  std::int64_t n = static_cast<std::int64_t>(state.rows.n());
  std::int64_t pending = 0;
  for (std::size_t k = 0; k < k_expected; ++k) {
    FASTFID_EXPECT(state.counts[k] >= 0 && state.counts[k] <= state.n && state.pending_counts[k] >= 0 &&
                       state.pending_counts[k] <= state.n,
                   InvalidArgument, "state: counts of accumulator ", k, " are outside 0 to n = ", state.n);
    n += state.counts[k] + state.pending_counts[k];
    pending += state.pending_counts[k];
  }
  FASTFID_EXPECT(n == state.n && static_cast<std::size_t>(pending) == state.pending.n(), InvalidArgument,
                 "state: the counts add up to ", n, " rows with ", pending, " pending; expected n = ", state.n,
                 " with ", state.pending.n());
  for (const RowBuffer* rows : {&state.rows, &state.pending}) {
    FASTFID_EXPECT(first_nonfinite_row(rows->view(), d_) == rows->n(), NumericalError,
                   "state: rows contain NaN or infinity");
  }
  for (const auto* values : {&state.shift, &state.shifted_mean, &state.scatter}) {
    FASTFID_EXPECT(std::all_of(values->begin(), values->end(), [](double x) { return std::isfinite(x); }),
                   NumericalError, "state: moments contain NaN or infinity");
  }
  n_ = state.n;
  rows_ = state.rows;
  std::size_t first = 0;
  for (std::size_t k = 0; k < k_expected; ++k) {
    MomentsAccumulator group(d_);
    group.set_packed(state.scatter.data() + k * packed);
    std::copy_n(state.shift.data() + k * d, d, group.shift.data());
    std::copy_n(state.shifted_mean.data() + k * d, d, group.shifted_mean.data());
    group.n = state.counts[k];
    const auto count = static_cast<std::size_t>(state.pending_counts[k]);
    group.push(state.pending.view().slice(first, count), workspace_);
    first += count;
    accumulators_.push_back(std::move(group));
  }
}

}  // namespace fastfid
