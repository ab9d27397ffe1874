// Squared distances of rows, and proven bounds of them from float32 products.
//
// The distance of two rows x and y is that of the oracle: d2(x, y) = sum over the features, in order, of (x_i - y_i)^2,
// all in float64. Every result is a function of comparisons of such numbers, and equals the oracle's for any block size
// and number of threads. Only few distances are computed so; float32 products decide the other comparisons.
//
// Let u = 2^-24, w = 2^-53, and m any float32 row (here about the common mean). Let a = x - m exactly, and x' = a
// rounded to float32; b and y' likewise. |.| is the Euclidean norm, and s = |x'| + |y'|. The float32 product p of x'
// and y' and the float64 sums N of their squares give q = N_x + N_y - 2 p. Then |q - d2(x, y)| <= e, with
//
//   e = 2 g |x'| |y'| + (2 u + 8 (d + 4) w) s^2,   g = d u / (1 - d u),
//
// up to the underflow below, because
// * a sum of d products in any order, with or without fused multiply-adds, has d roundings in each term: |p - x'.y'| <=
//   g |x'| |y'| (Higham, "Accuracy and Stability of Numerical Algorithms", 3.5);
// * a - b = x - y, |x' - a| <= u |a| <= v |x'| with v = u / (1 - u), since differences do not underflow. Thus | |x' -
//   y'| - |x - y| | <= v s, and with |x' - y'| <= s the squares differ by at most (2 v + v^2) s^2;
// * squares of float32 numbers are exact in float64. The roundings of N_x, N_y and q are at most 4 (d + 4) w s^2, those
//   of the oracle (d + 4) w s^2 (two an element, one an addition), and those of q - e and q + e at most 2 w s^2.
// A product in float32 that underflows adds at most 2^-149. Norms of rows other than 0 are taken 2^-62 too large, whose
// square times 2 g >= 2 d u is more than 2 d 2^-149. Constants are taken 2^-20 too large, for the roundings of e itself
// and of the norms. x' = y' = 0 means x = y = m: then e = 0, and q = 0 is exact. A product that is not finite, or d u
// >= 1/2, decides nothing. The default rounding mode with gradual underflow is assumed.
//
// Rows are float32, C-contiguous, (n, d) in host memory. Memory beside them: O(k) for each row, blocks of rows in
// float32 (4096, and 1024 for each thread), and tiles of products (2 MiB for each thread).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "core/numbers.hpp"
#include "core/strips.hpp"

namespace fastfid::distances {

using linalg::Range;

// A tile is the product of a strip of kRows rows and kColumns rows of a panel, which runs at 93 % of the best rate of
// sgemm at d = 2048. The rows of a panel are centred once, for all threads; a strip is centred for a run of tiles.
inline constexpr std::size_t kRows = 1024;
inline constexpr std::size_t kColumns = 512;
inline constexpr std::size_t kPanel = 8 * kColumns;
inline constexpr std::size_t kGroup = 128;  // rows with one mutex, and rows of one small task
inline constexpr std::size_t kChains = 8;   // distances computed side by side; each is one chain of additions

// Throws InvalidArgument unless 1 <= d <= 2^30 and n rows of d float64 numbers have a size.
void expect_sizes(std::size_t n, std::size_t d);

// The oracle's distances of `row` to `count` <= kChains other rows.
void exact(const float* row, const float* const* others, std::size_t count, std::size_t d, double* out);

// What the bounds need of the rows of one set.
struct Norms {
  std::vector<double> squares;  // N
  std::vector<double> sizes;    // |x'|, as the bound takes it

  Norms(const float* rows, std::size_t n, std::size_t d, const float* mean);
  // Throws NumericalError where a row has NaN or infinite values.
  void expect_finite(const float* rows, std::size_t n, std::size_t d, const char* name) const;
};

// About the mean of two sets, from at most 1,024 rows of each. The bound holds for any m.
std::vector<float> about_the_mean(std::initializer_list<std::pair<const float*, std::size_t>> sets, std::size_t d);

// The constants of e.
struct Bound {
  double product;  // 2 g
  double sum;      // 2 u + 8 (d + 4) w

  explicit Bound(std::size_t d) {
    constexpr double u = 0x1p-24;
    constexpr double kLarger = 1 + 0x1p-20;
    product = real(d) * u < 0.5 ? 2 * kLarger * real(d) * u / (1 - real(d) * u) : kInfinity;
    sum = kLarger * (2 * u + 8 * (real(d) + 4) * kUnitRoundoff);
  }
};

// One row and the columns of a tile beside it.
struct Line {
  const float* products;  // of the row with each column
  double square;          // of the row
  double size;
  const double* squares;  // of the columns
  const double* sizes;
  std::size_t count;
};

// lower[j] <= d2 <= upper[j]; 0 and infinity where the product decides nothing.
[[gnu::always_inline]] inline void bound_line(const Line& line, const Bound& bound, double* __restrict lower,
                                              double* __restrict upper) {
  const float* const __restrict products = line.products;
  const double* const __restrict squares = line.squares;
  const double* const __restrict sizes = line.sizes;
  const double square = line.square;
  const double size = line.size;
  const Bound constants = bound;
  const std::size_t count = line.count;
  for (std::size_t j = 0; j < count; ++j) {
    const double q = square + squares[j] - 2 * static_cast<double>(products[j]);
    const double s = size + sizes[j];
    const double e = constants.product * (size * sizes[j]) + constants.sum * (s * s);
    const double low = q - e;
    const double high = q + e;
    const bool is_finite = high - low <= std::numeric_limits<double>::max();  // false for NaN
    lower[j] = is_finite && low > 0 ? low : 0;
    upper[j] = is_finite ? high : kInfinity;
  }
}

// Calls tile(strip of x, columns of y, products) for the pairs of these rows of x and these of y; `below`, where both
// sets are one, for those left of the diagonal at least. The products of a strip's row i begin at (i - strip.begin) *
// columns.size. Tiles run in parallel; they are the same for any number of threads.
using Tile = std::function<void(const Range&, const Range&, const float*)>;
void for_each_tile(const float* x, const Range& of_x, const float* y, const Range& of_y, std::size_t d,
                   const float* mean, bool below, const Tile& tile);

}  // namespace fastfid::distances
