// Moments(MomentsStateView): a valid state with some parts replaced is either accepted bit for bit or refused.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/errors.hpp"
#include "core/moments.hpp"
#include "core/parallel.hpp"
#include "fuzz.hpp"

using namespace fastfid;

namespace {

double value(fuzz::Provider& in) {
  if (in.ConsumeBool()) return in.ConsumeIntegralInRange(-4, 4);
  return in.PickValueInArray({1e308, -1e308, 1e-308, std::nan(""), std::numeric_limits<double>::infinity(), 0.1});
}

RowsView view_of(const std::vector<float>& values, std::size_t n, std::size_t d) {
  return {reinterpret_cast<const std::byte*>(values.data()), DType::kFloat32, n,
          static_cast<std::ptrdiff_t>(d * sizeof(float)), sizeof(float)};
}

// The memory that a view of a state refers to. Each part has exactly its declared size.
struct Parts {
  MomentsState original;
  std::vector<std::int64_t> counts;
  std::vector<std::int64_t> pending_counts;
  std::vector<double> tables[3];
  std::vector<float> rows[2];
  MomentsStateView view;
};

Parts true_state(fuzz::Provider& in) {
  const int d = in.ConsumeIntegralInRange(1, 24);
  const auto n = in.ConsumeIntegralInRange<std::size_t>(0, in.ConsumeBool() ? 30 : 900);
  Moments moments(d);
  std::vector<float> rows(n * static_cast<std::size_t>(d));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 17) - 8;
  moments.update(view_of(rows, n, static_cast<std::size_t>(d)));
  Parts parts;
  parts.original = moments.state();
  parts.view = parts.original.view();
  return parts;
}

void exchange_table(fuzz::Provider& in, MomentsStateView::Table& table, std::vector<double>& storage) {
  storage.assign(table.values().begin(), table.values().end());
  if (in.ConsumeBool()) {
    if (!storage.empty()) storage[in.ConsumeIntegralInRange<std::size_t>(0, storage.size() - 1)] = value(in);
  } else {
    table.rows = in.ConsumeIntegralInRange<std::size_t>(0, 6);
    table.columns = in.ConsumeIntegralInRange<std::size_t>(0, 400);
    storage.assign(table.rows * table.columns, in.ConsumeBool() ? 0 : value(in));
  }
  storage.shrink_to_fit();
  table.data = storage.data();
}

void exchange_counts(fuzz::Provider& in, std::span<const std::int64_t>& counts, std::vector<std::int64_t>& storage) {
  storage.assign(counts.begin(), counts.end());
  if (in.ConsumeBool()) storage.resize(in.ConsumeIntegralInRange<std::size_t>(0, 6));
  for (std::int64_t& count : storage) {
    if (in.ConsumeBool()) count = fuzz::number(in);
  }
  storage.shrink_to_fit();
  counts = storage;
}

// Replaces the two counts by counts with an equal sum in 64-bit arithmetic that wraps.
void wrap_counts(fuzz::Provider& in, Parts& parts) {
  MomentsStateView& view = parts.view;
  parts.counts.assign(view.counts.begin(), view.counts.end());
  parts.pending_counts.assign(view.pending_counts.begin(), view.pending_counts.end());
  if (parts.counts.empty() || parts.pending_counts.empty()) return;
  const auto moved = static_cast<std::uint64_t>(fuzz::number(in));
  const auto plus = [](std::int64_t a, std::uint64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + b);
  };
  parts.counts[0] = plus(parts.counts[0], moved);
  parts.pending_counts[0] = plus(parts.pending_counts[0], 0 - moved);
  view.counts = parts.counts;
  view.pending_counts = parts.pending_counts;
}

void exchange_rows(fuzz::Provider& in, MomentsStateView::Rows& rows, std::vector<float>& storage) {
  const auto n = in.ConsumeIntegralInRange<std::size_t>(0, 40);
  const auto columns = in.ConsumeBool() ? rows.columns : in.ConsumeIntegralInRange<std::size_t>(0, 30);
  storage.assign(n * columns, static_cast<float>(in.ConsumeBool() ? 1 : value(in)));
  storage.shrink_to_fit();
  rows = {view_of(storage, n, columns), columns};
  if (in.ConsumeIntegralInRange(0, 7) == 0) rows.view.row_stride = fuzz::number(in);  // accepted only where n < 2
  if (rows.view.n > 1 && rows.view.row_stride != static_cast<std::ptrdiff_t>(columns * sizeof(float))) rows.view.n = 1;
}

void exchange(fuzz::Provider& in, Parts& parts) {
  MomentsStateView& view = parts.view;
  switch (in.ConsumeIntegralInRange(0, 9)) {
    case 0:
      view.d = fuzz::number(in);
      break;
    case 1:
      view.n = fuzz::number(in);
      break;
    case 2:
      exchange_counts(in, view.counts, parts.counts);
      break;
    case 3:
      exchange_counts(in, view.pending_counts, parts.pending_counts);
      break;
    case 4:
      exchange_table(in, view.shift, parts.tables[0]);
      break;
    case 5:
      exchange_table(in, view.shifted_mean, parts.tables[1]);
      break;
    case 6:
      exchange_table(in, view.scatter, parts.tables[2]);
      break;
    case 7:
      exchange_rows(in, view.rows, parts.rows[0]);
      break;
    case 8:
      wrap_counts(in, parts);
      break;
    default:
      exchange_rows(in, view.pending, parts.rows[1]);
  }
}

// The largest numbers that fit: raises the count of a valid state, and n with it, to near 2^62.
void raise_counts(fuzz::Provider& in, Parts& parts) {
  parts.counts.assign(parts.view.counts.begin(), parts.view.counts.end());
  if (parts.counts.empty() || parts.counts[0] == 0) return;
  const std::int64_t more = kMaxRows - parts.view.n - in.ConsumeIntegralInRange(-2, 2);
  parts.counts[0] += more;
  parts.view.counts = parts.counts;
  parts.view.n += more;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

void use(Moments& moments, std::int64_t n, int d) {
  fuzz::require(moments.n() == n, "n is what the state says");
  const MomentsState state = moments.state();
  const Moments again(state);
  fuzz::require(same_bits(again.state().scatter, state.scatter), "a state that was taken is taken again");
  std::vector<double> out(static_cast<std::size_t>(d) * static_cast<std::size_t>(d));
  for (const auto& read : {+[](const Moments& m, double* to) { m.mean(to); },
                           +[](const Moments& m, double* to) { m.covariance(1, to); }}) {
    try {
      read(moments, out.data());
    } catch (const InvalidArgument&) {
      fuzz::require(n < 2, "two rows have a covariance");
    } catch (const NumericalError&) {
    }
  }
  const std::vector<float> rows(static_cast<std::size_t>(3 * d), 1.0F);
  try {
    moments.update(view_of(rows, 3, static_cast<std::size_t>(d)));
    fuzz::require(n <= kMaxRows - 3 && moments.n() == n + 3, "three rows more");
    moments.merge(moments);
    fuzz::require(moments.n() == 2 * (n + 3), "twice the rows");
  } catch (const InvalidArgument&) {
    fuzz::require(n > kMaxRows / 2 - 4, "there was room for more rows");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  set_num_threads(1);
  fuzz::Provider in(data, length);
  Parts parts = true_state(in);
  if (in.ConsumeIntegralInRange(0, 3) == 0) raise_counts(in, parts);
  const int exchanges = in.ConsumeIntegralInRange(0, 4);
  for (int i = 0; i < exchanges; ++i) exchange(in, parts);
  try {
    Moments moments(parts.view);
    use(moments, parts.view.n, static_cast<int>(parts.view.d));
  } catch (const InvalidArgument& error) {
    fuzz::require(std::string(error.what()).rfind("state['", 0) == 0, std::string("no entry named: ") + error.what());
  } catch (const NumericalError& error) {
    fuzz::require(std::string(error.what()).rfind("state['", 0) == 0, std::string("no entry named: ") + error.what());
  }
  return 0;
}
