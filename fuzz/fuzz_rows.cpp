// Moments::update() with rows of any strides gives the bits, or the refusal, that the rows give side by side.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/errors.hpp"
#include "core/moments.hpp"
#include "core/parallel.hpp"
#include "fuzz.hpp"

using namespace fastfid;

namespace {

constexpr std::size_t kMaxBytes = 1 << 16;

std::size_t size_of(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

// The state after the updates, or the message of the update that was refused.
struct Outcome {
  MomentsState state;
  std::string refusal;
};

Outcome outcome(int d, const std::vector<RowsView>& updates) {
  Moments moments(d);
  Outcome out;
  try {
    for (const RowsView& rows : updates) moments.update(rows);
  } catch (const NumericalError& error) {
    out.refusal = error.what();
  }
  out.state = moments.state();
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

bool same(Outcome a, Outcome b) {
  return a.refusal == b.refusal && a.state.n == b.state.n && a.state.counts == b.state.counts &&
         same_bits(a.state.shift, b.state.shift) && same_bits(a.state.shifted_mean, b.state.shifted_mean) &&
         same_bits(a.state.scatter, b.state.scatter) &&
         same_bits(std::move(a.state.rows).take_float32(), std::move(b.state.rows).take_float32()) &&
         same_bits(std::move(a.state.rows).take_float64(), std::move(b.state.rows).take_float64());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  set_num_threads(1);
  fuzz::Provider in(data, length);
  const int d = in.ConsumeIntegralInRange(1, in.ConsumeBool() ? 12 : 300);
  const auto dtype = in.PickValueInArray({DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64});
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const auto n = in.ConsumeIntegralInRange<std::int64_t>(0, in.ConsumeBool() ? 20 : 900);
  const auto stride = [&](std::int64_t usual) {
    switch (in.ConsumeIntegralInRange(0, 4)) {
      case 0:
        return usual;
      case 1:
        return -usual;
      case 2:
        return in.ConsumeIntegralInRange<std::int64_t>(-40, 40);
      case 3:
        return std::int64_t{0};
      default:
        return fuzz::number(in);
    }
  };
  RowsView rows{nullptr, dtype, static_cast<std::size_t>(n), 0, 0};
  rows.row_stride = stride(size * d);
  rows.column_stride = stride(size);

  fuzz::ExactReach reach;
  if (n > 0) {
    reach.add(n, rows.row_stride);
    reach.add(d, rows.column_stride);
  }
  if (!reach.fits()) {
    try {
      Moments(d).update(rows);  // without memory: no row may be read
      fuzz::require(false, "accepted rows without an address");
    } catch (const InvalidArgument&) {
    }
    return 0;
  }
  if (reach.high - reach.low + size > static_cast<__int128>(kMaxBytes)) return 0;
  const auto low = static_cast<std::ptrdiff_t>(reach.low);
  const auto memory = fuzz::bytes(in, n == 0 ? 0 : static_cast<std::size_t>(reach.high - reach.low + size));
  rows.data = memory.data() - low;

  std::vector<std::byte> plain(static_cast<std::size_t>(n * d * size));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < d; ++j) {
      std::memcpy(plain.data() + (i * d + j) * size, rows.data + i * rows.row_stride + j * rows.column_stride,
                  static_cast<std::size_t>(size));
    }
  }
  const RowsView beside{plain.data(), dtype, rows.n, size * d, size};
  const Outcome whole = outcome(d, {rows});
  fuzz::require(same(whole, outcome(d, {beside})), "strides change the bits");
  const auto cut = in.ConsumeIntegralInRange<std::size_t>(0, rows.n);
  if (whole.refusal.empty()) {
    fuzz::require(same(whole, outcome(d, {rows.slice(0, cut), beside.slice(cut, rows.n - cut)})),
                  "a cut changes the bits");
  }
  return 0;
}
