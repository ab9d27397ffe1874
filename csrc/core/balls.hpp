// Balls around rows and what is in them: precision, recall, density and coverage need nothing else. The same of random
// halves of both sets, whose differences show how sure these are.
//
// Which rows a ball holds is decided as distances of core/distances.hpp compare, which says what memory is needed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastfid {

// A set that is cut into two halves in 64 ways, one for each bit. A ball of a half reaches to the k-th nearest row of
// this half. It is described by the rows of the whole set that are nearest to its centre:
struct Halves {
  const std::uint64_t* firsts;    // (n,): the cuts in which a row is in the first half
  const double* distances;        // (n, count): squared distances of the nearest rows, in ascending order
  const std::uint64_t* reaching;  // (n, count): the cuts in which the ball reaches past so many of these rows
  std::size_t count;
};

// Rows and the squared radii of the balls around them.
struct Balls {
  const float* rows;
  const double* radii;
  std::size_t n;
  const char* name;  // for messages
  const Halves* halves = nullptr;
};

// What the balls of halves hold. In each array, the first half comes before the second.
struct HalfCounts {
  std::vector<std::uint64_t> balls_of_x;  // (2, n_y): the cuts in which a ball of this half of x holds y_j
  std::vector<std::uint64_t> rows_of_y;   // (2, n_x): the cuts in which the ball of x_i holds a row of this half of y
  std::vector<std::uint64_t> balls_of_y;  // (2, n_x): the cuts in which a ball of this half of y holds x_i
  std::vector<std::int64_t> pairs;        // (2, 2, 64): rows of a half of y in balls of a half of x, of each cut
};

struct BallCounts {
  std::vector<std::int64_t> x_around_y;  // (n_y,): balls of x that hold y_j
  std::vector<std::int64_t> y_within_x;  // (n_x,): rows of y in the ball of x_i
  std::vector<std::int64_t> y_around_x;  // (n_x,): balls of y that hold x_i
  std::vector<std::int64_t> x_within_y;  // (n_y,): rows of x in the ball of y_j
  std::int64_t undecided = 0;            // pairs for which float64 was needed
  HalfCounts halves{};                   // empty without halves
};

// A ball holds a row whose distance is less than its radius (strict), or not more. 2 n_x n_y d float32 flops. Balls of
// halves compare the middles of the bounds of float32 products: distances that are equal but for roundings are taken
// for equal. Throws InvalidArgument for a radius that is negative or not finite, and for the same d as NeighbourSearch,
// and NumericalError where a row has NaN or infinite values.
BallCounts count_in_balls(const Balls& x, const Balls& y, std::size_t d, bool strict);

}  // namespace fastfid
