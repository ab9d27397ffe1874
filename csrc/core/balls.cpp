#include "core/balls.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/distances.hpp"
#include "core/errors.hpp"
#include "core/multiversion.hpp"

namespace fastfid {
namespace {

using distances::Bound;
using distances::Line;
using distances::Norms;
using linalg::Range;

constexpr std::size_t kDraws = 64;

// Counts the pairs that the bounds decide. Returns true if there are others.
struct LineCounts {
  std::int64_t y_within_x = 0;
  std::int64_t y_around_x = 0;
};
FASTFID_CLONES bool count_decided(const Line& line, const Bound& bound, double limit_x,
                                  const double* __restrict limits_y, double* __restrict lower, double* __restrict upper,
                                  LineCounts& of_row, std::int64_t* __restrict x_around_y,
                                  std::int64_t* __restrict x_within_y) {
  distances::bound_line(line, bound, lower, upper);
  std::int64_t within = 0;
  std::int64_t around = 0;
  std::int64_t undecided = 0;
  for (std::size_t j = 0; j < line.count; ++j) {
    const std::int64_t in_x = upper[j] <= limit_x ? 1 : 0;
    const std::int64_t in_y = upper[j] <= limits_y[j] ? 1 : 0;
    const std::int64_t out_x = lower[j] > limit_x ? 1 : 0;
    const std::int64_t out_y = lower[j] > limits_y[j] ? 1 : 0;
    x_around_y[j] += in_x;
    x_within_y[j] += in_y;
    within += in_x;
    around += in_y;
    undecided |= (in_x + out_x) * (in_y + out_y) ^ 1;
  }
  of_row.y_within_x += within;
  of_row.y_around_x += around;
  return undecided != 0;
}

// flags[j]: bit 0, the lower bound is not farther than `reach`; bit 1, not than reaches[j]. Returns true if there is a
// flag.
FASTFID_CLONES bool flag_near(const double* __restrict lower, std::size_t count, double reach,
                              const double* __restrict reaches, std::uint8_t* __restrict flags) {
  int any = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const int flag = (lower[j] <= reach ? 1 : 0) + (lower[j] <= reaches[j] ? 2 : 0);
    flags[j] = static_cast<std::uint8_t>(flag);
    any |= flag;
  }
  return any != 0;
}

// The largest distance in a ball: all distances less than r are at most the float64 number before r.
std::vector<double> limits_of(const Balls& balls, bool strict) {
  std::vector<double> limits(balls.radii, balls.radii + balls.n);
  for (std::size_t i = 0; i < balls.n; ++i) {
    FASTFID_EXPECT(std::isfinite(limits[i]) && limits[i] >= 0, InvalidArgument, "radii_", balls.name,
                   ": expected finite numbers from 0 on, got ", limits[i], " for row ", i);
    if (strict) limits[i] = limits[i] == 0 ? -1 : std::nextafter(limits[i], 0.0);
  }
  return limits;
}

// The largest distance at which a ball of a part may hold anything.
std::vector<double> reaches_of(const Balls& balls) {
  std::vector<double> found(balls.n);
  const Subsets& subsets = *balls.subsets;
  FASTFID_EXPECT(subsets.count >= 1, InvalidArgument, "subsets_", balls.name, ": expected at least 1 neighbour, got 0");
  for (std::size_t i = 0; i < balls.n; ++i) found[i] = subsets.distances[i * subsets.count + subsets.count - 1];
  return found;
}

// For each scheme, the draws in which the ball of row i reaches to `distance`; null if there are none.
const std::uint64_t* draws_that_reach(const Subsets& subsets, std::size_t i, double distance, bool strict) {
  const double* const begin = subsets.distances + i * subsets.count;
  const double* const end = begin + subsets.count;
  const double* const place = strict ? std::upper_bound(begin, end, distance) : std::lower_bound(begin, end, distance);
  if (place == end) return nullptr;
  return subsets.reaching + (i * subsets.count + static_cast<std::size_t>(place - begin)) * subsets.schemes;
}

// How many of the words that come in have each bit, for several words at a time. The 64 counts of a word stand upright:
// its binary digits p are one word. So adding takes a few operations on words, not one for each bit, which matters
// where most balls hold most rows, as those around real rows hold the rows of a collapsed generator.
class BitCounts {
 public:
  explicit BitCounts(std::size_t words) : words_(words), digits_(kDigits * words) {}

  // Overwrites the words, with the carries.
  void add(std::uint64_t* __restrict bits) {
    std::uint64_t any = 1;
    for (std::uint64_t* __restrict digit = digits_.data(); any != 0; digit += words_) {
      any = 0;
      for (std::size_t i = 0; i < words_; ++i) {
        const std::uint64_t carry = digit[i] & bits[i];
        digit[i] ^= bits[i];
        bits[i] = carry;
        any |= carry;
      }
    }
  }

  void add_to(std::vector<std::int64_t>& counts) const {
    for (std::size_t place = 0; place < digits_.size(); ++place) {
      std::int64_t* const of_word = counts.data() + place % words_ * kDraws;
      for (std::size_t draw = 0; draw < kDraws; ++draw) {
        of_word[draw] += static_cast<std::int64_t>(digits_[place] >> draw & 1) << place / words_;
      }
    }
  }

 private:
  static constexpr std::size_t kDigits = 63;  // of an int64: there is always a digit without a carry
  std::size_t words_;
  std::vector<std::uint64_t> digits_;
};

// The counts of one tile, which are added to those of all.
class TileCounts {
 public:
  TileCounts(const Range& strip, const Range& columns, std::size_t schemes)
      : strip_(strip),
        columns_(columns),
        schemes_(schemes),
        rows_(strip.size),
        around_y_(columns.size),
        within_y_(columns.size),
        subsets_(subset_counts(strip.size, columns.size, schemes)),
        held_(4 * schemes),
        pairs_(4 * schemes) {}

  // Without `pairs`.
  static SubsetCounts subset_counts(std::size_t n_x, std::size_t n_y, std::size_t schemes) {
    using Bits = std::vector<std::uint64_t>;
    return {Bits(2 * schemes * n_y), Bits(2 * schemes * n_x), Bits(2 * schemes * n_x), {}};
  }

  LineCounts& row(std::size_t i) { return rows_[i]; }
  std::int64_t* around_y() { return around_y_.data(); }
  std::int64_t* within_y() { return within_y_.data(); }
  void count_undecided() { ++undecided_; }

  // In balls of parts: the ball of x_i holds y_j in the `draws` of each scheme, among the rows whose `members` are x
  // and y; and the other way round. i, j: places in this tile.
  void add_ball_of_x(std::size_t i, std::size_t j, const std::uint64_t* draws, const std::uint64_t* x,
                     const std::uint64_t* y) {
    std::uint64_t* held = held_.data();
    std::uint64_t* balls = subsets_.balls_of_x.data() + 2 * schemes_ * j;
    std::uint64_t* rows = subsets_.rows_of_y.data() + 2 * schemes_ * i;
    for (std::size_t scheme = 0; scheme < schemes_; ++scheme, held += 4, balls += 2, rows += 2, x += 2, y += 2) {
      held[0] = draws[scheme] & x[0] & y[0];
      held[1] = draws[scheme] & x[0] & y[1];
      held[2] = draws[scheme] & x[1] & y[0];
      held[3] = draws[scheme] & x[1] & y[1];
      balls[0] |= held[0] | held[1];
      balls[1] |= held[2] | held[3];
      rows[0] |= held[0] | held[2];
      rows[1] |= held[1] | held[3];
    }
    pairs_.add(held_.data());
  }
  void add_ball_of_y(std::size_t i, const std::uint64_t* draws, const std::uint64_t* y) {
    for (std::size_t scheme = 0; scheme < schemes_; ++scheme) {
      for (std::size_t of_y = 0; of_y < 2; ++of_y) {
        subsets_.balls_of_y[2 * (i * schemes_ + scheme) + of_y] |= draws[scheme] & y[2 * scheme + of_y];
      }
    }
  }

  void add_to(BallCounts& counts) const {
    for (std::size_t i = 0; i < strip_.size; ++i) {
      counts.y_within_x[strip_.begin + i] += rows_[i].y_within_x;
      counts.y_around_x[strip_.begin + i] += rows_[i].y_around_x;
    }
    for (std::size_t j = 0; j < columns_.size; ++j) {
      counts.x_around_y[columns_.begin + j] += around_y_[j];
      counts.x_within_y[columns_.begin + j] += within_y_[j];
    }
    counts.undecided += undecided_;
    unite(subsets_.balls_of_x, columns_, counts.subsets.balls_of_x);
    unite(subsets_.rows_of_y, strip_, counts.subsets.rows_of_y);
    unite(subsets_.balls_of_y, strip_, counts.subsets.balls_of_y);
    pairs_.add_to(counts.subsets.pairs);
  }

 private:
  void unite(const std::vector<std::uint64_t>& part, const Range& range, std::vector<std::uint64_t>& whole) const {
    std::uint64_t* const place = whole.data() + 2 * schemes_ * range.begin;
    for (std::size_t i = 0; i < part.size(); ++i) place[i] |= part[i];
  }

  Range strip_;
  Range columns_;
  std::size_t schemes_;
  std::vector<LineCounts> rows_;
  std::vector<std::int64_t> around_y_;
  std::vector<std::int64_t> within_y_;
  std::int64_t undecided_ = 0;
  SubsetCounts subsets_;
  std::vector<std::uint64_t> held_;  // (schemes, 2, 2): the draws of one pair
  BitCounts pairs_;                  // (schemes, 2, 2)
};

std::size_t schemes_of(const Balls& x, const Balls& y) {
  if (x.subsets == nullptr || y.subsets == nullptr) return 0;
  FASTFID_EXPECT(x.subsets->schemes == y.subsets->schemes, InvalidArgument, "subsets_y: expected ", x.subsets->schemes,
                 " schemes, as subsets_x has; got ", y.subsets->schemes);
  return x.subsets->schemes;
}

// One sweep over all pairs of rows of x and y.
class Sweep {
 public:
  Sweep(const Balls& x, const Balls& y, std::size_t d, bool strict)
      : x_(x),
        y_(y),
        d_(d),
        strict_(strict),
        schemes_(schemes_of(x, y)),
        limits_x_(limits_of(x, strict)),
        limits_y_(limits_of(y, strict)),
        mean_(distances::about_the_mean({{x.rows, x.n}, {y.rows, y.n}}, d)),
        norms_x_(x.rows, x.n, d, mean_.data()),
        norms_y_(y.rows, y.n, d, mean_.data()),
        bound_(d),
        ties_(4 / std::sqrt(real(d))) {
    norms_x_.expect_finite(x.rows, x.n, d, x.name);
    norms_y_.expect_finite(y.rows, y.n, d, y.name);
    if (schemes_ != 0) {
      reaches_x_ = reaches_of(x);
      reaches_y_ = reaches_of(y);
    }
  }

  BallCounts run() {
    BallCounts counts{std::vector<std::int64_t>(y_.n), std::vector<std::int64_t>(x_.n), std::vector<std::int64_t>(x_.n),
                      std::vector<std::int64_t>(y_.n)};
    counts.subsets = TileCounts::subset_counts(x_.n, y_.n, schemes_);
    counts.subsets.pairs.resize(4 * schemes_ * kDraws);
    std::mutex mutex;
    const auto tile = [&](const Range& strip, const Range& columns, const float* products) {
      TileCounts found(strip, columns, schemes_);
      count_tile(strip, columns, products, found);
      const std::lock_guard lock(mutex);
      found.add_to(counts);
    };
    distances::for_each_tile(x_.rows, {0, x_.n}, y_.rows, {0, y_.n}, d_, mean_.data(), false, tile);
    return counts;
  }

 private:
  void count_tile(const Range& strip, const Range& columns, const float* products, TileCounts& tile) const {
    std::vector<double> lower(columns.size);
    std::vector<double> upper(columns.size);
    std::vector<std::uint8_t> flags(columns.size);
    for (std::size_t row = 0; row < strip.size; ++row) {
      const std::size_t i = strip.begin + row;
      const Line line{products + row * columns.size,
                      norms_x_.squares[i],
                      norms_x_.sizes[i],
                      norms_y_.squares.data() + columns.begin,
                      norms_y_.sizes.data() + columns.begin,
                      columns.size};
      const bool undecided = count_decided(line, bound_, limits_x_[i], limits_y_.data() + columns.begin, lower.data(),
                                           upper.data(), tile.row(row), tile.around_y(), tile.within_y());
      if (undecided) count_undecided(i, row, columns, lower.data(), upper.data(), tile);
      if (schemes_ != 0 &&
          flag_near(lower.data(), columns.size, reaches_x_[i], reaches_y_.data() + columns.begin, flags.data())) {
        count_subsets(i, row, columns, lower.data(), upper.data(), flags.data(), tile);
      }
    }
  }

  double exact(std::size_t i, std::size_t j) const {
    const float* const other = y_.rows + j * d_;
    double distance = 0;
    distances::exact(x_.rows + i * d_, &other, 1, d_, &distance);
    return distance;
  }

  void count_undecided(std::size_t i, std::size_t row, const Range& columns, const double* lower, const double* upper,
                       TileCounts& tile) const {
    const double limit = limits_x_[i];
    for (std::size_t j = 0; j < columns.size; ++j) {
      const double limit_y = limits_y_[columns.begin + j];
      const bool open_x = !(upper[j] <= limit) && !(lower[j] > limit);
      const bool open_y = !(upper[j] <= limit_y) && !(lower[j] > limit_y);
      if (!open_x && !open_y) continue;
      tile.count_undecided();
      const double distance = exact(i, columns.begin + j);
      if (open_x && distance <= limit) ++tile.row(row).y_within_x, ++tile.around_y()[j];
      if (open_y && distance <= limit_y) ++tile.row(row).y_around_x, ++tile.within_y()[j];
    }
  }

  void count_subsets(std::size_t i, std::size_t row, const Range& columns, const double* lower, const double* upper,
                     const std::uint8_t* flags, TileCounts& tile) const {
    for (std::size_t j = 0; j < columns.size; ++j) {
      if (flags[j] == 0) continue;
      double distance = lower[j] + (upper[j] - lower[j]) / 2;
      if (std::isfinite(distance)) {
        distance += (strict_ ? ties_ : -ties_) * (upper[j] - lower[j]);
      } else {
        distance = exact(i, columns.begin + j);
      }
      const std::uint64_t* const x = x_.subsets->members + 2 * schemes_ * i;
      const std::uint64_t* const y = y_.subsets->members + 2 * schemes_ * (columns.begin + j);
      if (const std::uint64_t* const draws = draws_that_reach(*x_.subsets, i, distance, strict_); draws != nullptr) {
        tile.add_ball_of_x(row, j, draws, x, y);
      }
      const std::uint64_t* const draws = draws_that_reach(*y_.subsets, columns.begin + j, distance, strict_);
      if (draws != nullptr) tile.add_ball_of_y(row, draws, y);
    }
  }

  Balls x_;
  Balls y_;
  std::size_t d_;
  bool strict_;
  std::size_t schemes_;  // 0 without subsets
  std::vector<double> limits_x_;
  std::vector<double> limits_y_;
  std::vector<double> reaches_x_;  // of the balls of parts
  std::vector<double> reaches_y_;
  std::vector<float> mean_;
  Norms norms_x_;
  Norms norms_y_;
  Bound bound_;
  // Distances of parts that differ by so much of the width of the bounds count as equal. Roundings that add up at
  // random are sqrt(d) times smaller than the bounds.
  double ties_;
};

}  // namespace

BallCounts count_in_balls(const Balls& x, const Balls& y, std::size_t d, bool strict) {
  distances::expect_sizes(x.n, d);
  distances::expect_sizes(y.n, d);
  return Sweep(x, y, d, strict).run();
}

}  // namespace fastfid
