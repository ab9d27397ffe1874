// Arithmetic on integers that come from outside: from a state, a file, a tensor or a caller. Where a sum or a product
// does not fit, the functions throw an exception that names the quantity; a number never wraps around.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "core/errors.hpp"

namespace fastfid {

// a + b; throws InvalidArgument if it does not fit into T.
template <std::integral T>
T checked_add(T a, T b, std::string_view what) {
  T sum{};
  FASTFID_EXPECT(!__builtin_add_overflow(a, b, &sum), InvalidArgument, what, ": ", a, " + ", b, " does not fit into ",
                 8 * sizeof(T), " bits");
  return sum;
}

// a * b; throws InvalidArgument if it does not fit into T.
template <std::integral T>
T checked_mul(T a, T b, std::string_view what) {
  T product{};
  FASTFID_EXPECT(!__builtin_mul_overflow(a, b, &product), InvalidArgument, what, ": ", a, " * ", b,
                 " does not fit into ", 8 * sizeof(T), " bits");
  return product;
}

// `value` as a To; throws InvalidArgument if it does not fit.
template <std::integral To, std::integral From>
To checked_cast(From value, std::string_view what) {
  FASTFID_EXPECT(std::in_range<To>(value), InvalidArgument, what, ": ", value, " does not fit into ", 8 * sizeof(To),
                 " bits");
  return static_cast<To>(value);
}

// The range of the distances from the first element of an array to its elements, in the unit of the strides: from `low`
// <= 0 to `high` >= 0.
struct Reach {
  std::int64_t low = 0;
  std::int64_t high = 0;
};

// The reach of an array with these lengths, none of them negative, and as many strides. Throws InvalidArgument if the
// reach does not fit.
inline Reach checked_reach(std::span<const std::int64_t> shape, std::span<const std::int64_t> strides,
                           std::string_view what) {
  Reach reach;
  for (const std::int64_t length : shape) {
    if (length == 0) return reach;
  }
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    const std::int64_t last = checked_mul(shape[axis] - 1, strides[axis], what);
    std::int64_t& side = last < 0 ? reach.low : reach.high;
    side = checked_add(side, last, what);
  }
  return reach;
}

}  // namespace fastfid
