// Constants and functions of numbers that many files of the core use.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>

namespace fastfid {

// u = 2^-53, the unit roundoff: rounding changes a float64 by at most u times its magnitude.
inline constexpr double kUnitRoundoff = std::numeric_limits<double>::epsilon() / 2;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The largest difference allowed between an element of a covariance and its mirror image, relative to the largest
// element.
inline constexpr double kAsymmetry = 1e-6;

inline double real(std::size_t n) { return static_cast<double>(n); }

// x 2^e. The factor 2^e itself may overflow.
inline double scaled(double x, int e) { return std::scalbn(x, e); }

// ceil(a / b) for a >= 0, b > 0, and a + b in the range of T.
template <std::integral T>
constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace fastfid
