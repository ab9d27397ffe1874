// Balls of k nearest neighbours: precision, recall, density and coverage need nothing else.
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

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastfid {

// For each row of x, the k-th smallest distance to the other rows, (n,). The row itself does not count, other rows with
// equal values do. n^2 d float32 flops. Throws InvalidArgument for k < 1, n < k + 1, and d = 0 or above 2^30, and
// NumericalError where a row has NaN or infinite values.
std::vector<double> kth_squared_distances(const float* x, std::size_t n, std::size_t d, std::size_t k);

// Rows and the squared radii of the balls around them.
struct Balls {
  const float* rows;
  const double* radii;
  std::size_t n;
  const char* name;  // for messages
};

struct BallCounts {
  std::vector<std::int64_t> x_around_y;  // (n_y,): balls of x that hold y_j
  std::vector<std::int64_t> y_within_x;  // (n_x,): rows of y in the ball of x_i
  std::vector<std::int64_t> y_around_x;  // (n_x,): balls of y that hold x_i
  std::vector<std::int64_t> x_within_y;  // (n_y,): rows of x in the ball of y_j
  std::int64_t undecided = 0;            // pairs for which float64 was needed
};

// A ball holds a row whose distance is less than its radius (strict), or not more. 2 n_x n_y d float32 flops. Throws
// InvalidArgument for a radius that is negative or not finite, and for the same d as kth_squared_distances(), and
// NumericalError where a row has NaN or infinite values.
BallCounts count_in_balls(const Balls& x, const Balls& y, std::size_t d, bool strict);

}  // namespace fastfid
