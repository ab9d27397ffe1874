#include "core/rows.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/parallel.hpp"
#include "core/row_elements.hpp"

namespace fastfid {

RowsView RowsView::slice(std::size_t first, std::size_t count) const {
  RowsView part = *this;
  if (count > 0) part.data += static_cast<std::ptrdiff_t>(first) * row_stride;  // a row beyond may have no address
  part.n = count;
  return part;
}

void RowBuffer::reserve(std::size_t rows, DType dtype) {
  const std::size_t size = checked_mul(rows, static_cast<std::size_t>(d_), "rows");
  if (is_float64_ || dtype == DType::kFloat64) {
    float64_.reserve(size);
  } else {
    float32_.reserve(size);
  }
}

void RowBuffer::append(const RowsView& rows) {
  if (rows.n == 0) return;
  FASTFID_EXPECT(d_ >= 1, InvalidArgument, "rows: expected 1 dimension or more, got ", d_);
  if (n_ == 0) {
    constexpr std::size_t kMaxReserve = std::size_t{32} << 20;
    const std::size_t row_bytes = static_cast<std::size_t>(d_) * (is_float64_ ? sizeof(double) : sizeof(float));
    reserve(std::min(static_cast<std::size_t>(expected_), kMaxReserve / row_bytes), rows.dtype);
  }
  const auto d = static_cast<std::size_t>(d_);
  const std::size_t before = n_ * d;
  const std::size_t after = checked_add(before, checked_mul(rows.n, d, "rows"), "rows");
  if (rows.dtype == DType::kFloat64 && !is_float64_) {
    float64_.reserve(after);
    float64_.assign(float32_.begin(), float32_.end());
    float32_ = {};
    is_float64_ = true;
  }
  const Element type = element(rows.dtype);
  const auto copy = [&]<class T>(std::vector<T>& storage, DType stored) {
    const bool is_plain = rows.dtype == stored && rows.column_stride == sizeof(T) &&
                          rows.row_stride == static_cast<std::ptrdiff_t>(d * sizeof(T)) &&
                          reinterpret_cast<std::uintptr_t>(rows.data) % alignof(T) == 0;
    if (is_plain) {  // avoids the zeros that resize() would write first
      const auto* const from = reinterpret_cast<const T*>(rows.data);
      storage.insert(storage.end(), from, from + rows.n * d);
      return;
    }
    storage.resize(after);  // the last step that can fail
    StripeBytes scratch;
    std::array<double, kStripe> converted;
    for (std::size_t i = 0; i < rows.n; ++i) {
      auto* const out = storage.data() + before + i * d;
      for_each_stripe(d_, [&](int column, int n) {
        const std::byte* const from = stripe_of_row(rows, type.size, i, column, n, scratch);
        if (rows.dtype == stored) {
          std::memcpy(out + column, from, static_cast<std::size_t>(n) * type.size);
        } else {
          type.convert(from, n, converted.data());  // exact; so is the conversion back to float32
          std::copy_n(converted.data(), n, out + column);
        }
      });
    }
  };
  if (is_float64_) {
    copy(float64_, DType::kFloat64);
  } else {
    copy(float32_, DType::kFloat32);
  }
  n_ += rows.n;
}

void RowBuffer::clear() {
  n_ = 0;
  float32_.clear();
  float64_.clear();
}

RowsView RowBuffer::view() const {
  const auto size = static_cast<std::ptrdiff_t>(is_float64_ ? sizeof(double) : sizeof(float));
  return {is_float64_ ? reinterpret_cast<const std::byte*>(float64_.data())
                      : reinterpret_cast<const std::byte*>(float32_.data()),
          is_float64_ ? DType::kFloat64 : DType::kFloat32, n_, size * d_, size};
}

void check_reach(const RowsView& rows, std::size_t columns, const char* name) {
  const std::array shape{checked_cast<std::int64_t>(rows.n, name), checked_cast<std::int64_t>(columns, name)};
  const std::array<std::int64_t, 2> strides{rows.row_stride, rows.column_stride};
  checked_reach(shape, strides, name);
}

std::size_t first_nonfinite_row(const RowsView& rows, int d) {
  constexpr std::size_t kChunk = 256;
  const Element type = element(rows.dtype);
  std::atomic<std::size_t> first{rows.n};
  parallel_for(divide_up(rows.n, kChunk), [&](std::size_t chunk) {
    StripeBytes scratch;
    for (std::size_t i = chunk * kChunk; i < std::min((chunk + 1) * kChunk, rows.n); ++i) {
      bool bad = false;
      for_each_stripe(d, [&](int column, int n) {
        bad = bad || type.is_nonfinite(stripe_of_row(rows, type.size, i, column, n, scratch), n);
      });
      if (bad) {
        std::size_t seen = first.load();
        while (i < seen && !first.compare_exchange_weak(seen, i)) {
        }
        return;
      }
    }
  });
  return first.load();
}

}  // namespace fastfid
