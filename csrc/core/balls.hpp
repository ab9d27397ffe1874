// Balls around rows and what is in them: precision, recall, density and coverage need nothing else. The same of random
// subsets of both sets, whose differences show how sure these are.
//
// Which rows a ball holds is decided as distances of core/distances.hpp compare, which says what memory is needed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastfid {

// Random subsets of a set: in each of `schemes` schemes, and of 64 draws of each, one for each bit, two parts that have
// no row in common. A ball of a part reaches to the k-th nearest row of this part. It is described by the rows of the
// whole set that are nearest to its centre:
struct Subsets {
  const std::uint64_t* members;   // (n, schemes, 2): the draws in which a row is in this part
  const double* distances;        // (n, count): squared distances of the nearest rows, in ascending order
  const std::uint64_t* reaching;  // (n, count, schemes): the draws in which the ball reaches past so many of these rows
  std::size_t count;
  std::size_t schemes;
};

// Rows and the squared radii of the balls around them.
struct Balls {
  const float* rows;
  const double* radii;
  std::size_t n;
  const char* name;  // for messages
  const Subsets* subsets = nullptr;
};

// What the balls of parts hold.
struct SubsetCounts {
  std::vector<std::uint64_t> balls_of_x;  // (n_y, schemes, 2): the draws in which a ball of this part of x holds y_j
  std::vector<std::uint64_t> rows_of_y;   // (n_x, schemes, 2): in which the ball of x_i holds a row of this part of y
  std::vector<std::uint64_t> balls_of_y;  // (n_x, schemes, 2): in which a ball of this part of y holds x_i
  std::vector<std::int64_t> pairs;        // (schemes, 2, 2, 64): rows of a part of y in balls of a part of x, by draw
};

struct BallCounts {
  std::vector<std::int64_t> x_around_y;  // (n_y,): balls of x that hold y_j
  std::vector<std::int64_t> y_within_x;  // (n_x,): rows of y in the ball of x_i
  std::vector<std::int64_t> y_around_x;  // (n_x,): balls of y that hold x_i
  std::vector<std::int64_t> x_within_y;  // (n_y,): rows of x in the ball of y_j
  std::int64_t undecided = 0;            // pairs for which float64 was needed
  SubsetCounts subsets{};                // empty without subsets
};

// A ball holds a row whose distance is less than its radius (strict), or not more. 2 n_x n_y d float32 flops. Balls of
// parts compare the middles of the bounds of float32 products: distances that are equal but for roundings are taken
// for equal. Throws InvalidArgument for a radius that is negative or not finite, and for the same d as NeighbourSearch,
// and NumericalError where a row has NaN or infinite values.
BallCounts count_in_balls(const Balls& x, const Balls& y, std::size_t d, bool strict);

}  // namespace fastfid
