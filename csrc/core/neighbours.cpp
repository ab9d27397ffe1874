#include "core/neighbours.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "core/blas.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/memory.hpp"
#include "core/multiversion.hpp"
#include "core/numbers.hpp"
#include "core/parallel.hpp"
#include "core/strips.hpp"

namespace fastfid {
namespace {

using linalg::Range;
using FloatVector = std::vector<float, HugePageAllocator<float>>;

// A tile is the product of a strip of kRows rows and kColumns rows of a panel, which runs at 93 % of the best rate of
// sgemm at d = 2048. The rows of a panel are centred once, for all threads; a strip is centred for a run of tiles.
constexpr std::size_t kRows = 1024;
constexpr std::size_t kColumns = 512;
constexpr std::size_t kPanel = 8 * kColumns;
constexpr std::size_t kDiagonal = 256;  // rows of the products on the diagonal
constexpr std::size_t kGroup = 128;     // rows with one mutex
constexpr std::size_t kChains = 8;      // distances computed side by side; each is one chain of additions

void expect_sizes(std::size_t n, std::size_t d) {
  FASTFID_EXPECT(d >= 1 && d <= (std::size_t{1} << 30), InvalidArgument, "rows: expected 1 to 2^30 columns, got ", d);
  checked_mul(checked_mul(n, d, "rows: their number of bytes"), sizeof(double), "rows: their number of bytes");
}

// The oracle's distances of `row` to `count` <= kChains other rows.
FASTFID_CLONES void distances(const float* row, const float* const* others, std::size_t count, std::size_t d,
                              double* out) {
  std::array<double, kChains> sums{};
  std::array<const float*, kChains> rows{};
  for (std::size_t c = 0; c < kChains; ++c) rows[c] = c < count ? others[c] : row;
  for (std::size_t i = 0; i < d; ++i) {
    const auto value = static_cast<double>(row[i]);
    for (std::size_t c = 0; c < kChains; ++c) {
      const double difference = value - static_cast<double>(rows[c][i]);
      sums[c] += difference * difference;
    }
  }
  for (std::size_t c = 0; c < count; ++c) out[c] = sums[c];
}

// out[i] = row[i] - mean[i], in float32
FASTFID_CLONES void centre(const float* row, const float* mean, std::size_t d, float* out) {
  for (std::size_t i = 0; i < d; ++i) out[i] = row[i] - mean[i];
}

// The sum of the squares of the centred row.
FASTFID_CLONES double square_of_norm(const float* row, const float* mean, std::size_t d) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(row[i + lane] - mean[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (; i < d; ++i) {
    const auto value = static_cast<double>(row[i] - mean[i]);
    sums[0] += value * value;
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// What the bounds need of the rows of one set.
struct Norms {
  std::vector<double> squares;  // N
  std::vector<double> sizes;    // |x'|, as the bound takes it

  Norms(const float* rows, std::size_t n, std::size_t d, const float* mean) : squares(n), sizes(n) {
    parallel_for(divide_up(n, kGroup), [&](std::size_t group) {
      const Range range = linalg::range(group, n, kGroup);
      for (std::size_t i = range.begin; i < range.end(); ++i) {
        squares[i] = square_of_norm(rows + i * d, mean, d);
        sizes[i] = squares[i] == 0 ? 0 : std::sqrt(squares[i]) + 0x1p-62;
      }
    });
  }

  // A centred row overflows where its values are not finite, and where they are merely large.
  void expect_finite(const float* rows, std::size_t n, std::size_t d, const char* name) const {
    if (std::all_of(squares.begin(), squares.end(), [](double square) { return std::isfinite(square); })) return;
    for (std::size_t i = 0; i < n; ++i) {
      const float* const row = rows + i * d;
      FASTFID_EXPECT(std::isfinite(squares[i]) || std::all_of(row, row + d, [](float x) { return std::isfinite(x); }),
                     NumericalError, name, ": row ", i, " has NaN or infinite values");
    }
  }
};

// About the mean of two sets, from at most 1,024 rows of each. The bound holds for any m.
std::vector<float> about_the_mean(std::initializer_list<std::pair<const float*, std::size_t>> sets, std::size_t d) {
  std::vector<double> sum(d);
  std::size_t count = 0;
  for (const auto& [rows, n] : sets) {
    for (std::size_t i = 0; i < n; i += divide_up(n, std::size_t{1024}), ++count) {
      for (std::size_t j = 0; j < d; ++j) sum[j] += static_cast<double>(rows[i * d + j]);
    }
  }
  std::vector<float> mean(d);
  for (std::size_t j = 0; j < d && count > 0; ++j) mean[j] = static_cast<float>(sum[j] / real(count));
  return mean;
}

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

// Bounds, and whether a lower bound is less than its limit: that of the row (one), or one for each column.
FASTFID_CLONES bool bound_and_find_below(const Line& line, const Bound& bound, double limit, double* lower,
                                         double* upper) {
  bound_line(line, bound, lower, upper);
  int found = 0;
  for (std::size_t j = 0; j < line.count; ++j) found |= lower[j] < limit ? 1 : 0;
  return found != 0;
}
FASTFID_CLONES bool bound_and_find_below(const Line& line, const Bound& bound, const double* limits, double* lower,
                                         double* upper) {
  bound_line(line, bound, lower, upper);
  int found = 0;
  for (std::size_t j = 0; j < line.count; ++j) found |= lower[j] < limits[j] ? 1 : 0;
  return found != 0;
}

// Counts the pairs that the bounds decide. Returns true if there are others.
struct LineCounts {
  std::int64_t y_within_x = 0;
  std::int64_t y_around_x = 0;
};
FASTFID_CLONES bool count_decided(const Line& line, const Bound& bound, double limit_x,
                                  const double* __restrict limits_y, double* __restrict lower, double* __restrict upper,
                                  LineCounts& of_row, std::int64_t* __restrict x_around_y,
                                  std::int64_t* __restrict x_within_y) {
  bound_line(line, bound, lower, upper);
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

// Memory that one task hands on to the next.
class Scratch {
 public:
  struct Buffers {
    FloatVector rows;
    FloatVector products;
  };

  Scratch(std::size_t rows, std::size_t products) : rows_(rows), products_(products) {}

  template <class F>
  void with_buffers(F&& f) {
    std::unique_ptr<Buffers> buffers = take();
    f(*buffers);
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(buffers));
  }

 private:
  std::unique_ptr<Buffers> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<Buffers> buffers = std::move(free_.back());
        free_.pop_back();
        return buffers;
      }
    }
    return std::make_unique<Buffers>(Buffers{FloatVector(rows_), FloatVector(products_)});
  }

  std::size_t rows_;
  std::size_t products_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Buffers>> free_;
};

// The products of a strip's rows and rows of a panel, (strip.size, columns.size). `below`: both are rows of one set,
// and what lies right of the diagonal is left out, but for squares of kDiagonal.
void multiply(const Range& strip, const float* rows, const Range& columns, const float* others, std::size_t d,
              bool below, float* products) {
  const int width = linalg::dim(d);
  for (std::size_t begin = strip.begin; begin < strip.end();) {
    const bool whole = !below || begin >= columns.end();
    const std::size_t end = whole ? strip.end() : std::min(begin + kDiagonal, strip.end());
    if (const std::size_t limit = whole ? columns.end() : std::min(end, columns.end()); limit > columns.begin) {
      linalg::gemm(linalg::Transpose::kNo, linalg::Transpose::kYes, linalg::dim(end - begin),
                   linalg::dim(limit - columns.begin), width, 1.0F, rows + (begin - strip.begin) * d, width, others,
                   width, 0.0F, products + (begin - strip.begin) * columns.size, linalg::dim(columns.size));
    }
    begin = end;
  }
}

// Calls tile(strip of x, columns of y, products) for all pairs of rows; `below`, where both sets are one, for those
// left of the diagonal at least. The products of a strip's row i begin at i * columns.size. Tiles run in parallel; they
// are the same for any number of threads.
template <class Tile>
void for_each_tile(const float* x, std::size_t n_x, const float* y, std::size_t n_y, std::size_t d, const float* mean,
                   bool below, const Tile& tile) {
  FloatVector panel(std::min(n_y, kPanel) * d);
  const std::size_t most_rows = std::min(n_x, kRows);
  Scratch scratch(most_rows * d, most_rows * std::min(n_y, kColumns));
  for (std::size_t first = 0; first < n_y; first += kPanel) {
    const Range columns{first, std::min(kPanel, n_y - first)};
    parallel_for(divide_up(columns.size, kGroup), [&](std::size_t group) {
      const Range rows = linalg::range(group, columns.size, kGroup);
      for (std::size_t i = rows.begin; i < rows.end(); ++i) centre(y + (first + i) * d, mean, d, panel.data() + i * d);
    });
    const std::size_t first_row = below ? first : 0;
    const std::size_t strips = divide_up(n_x - first_row, kRows);
    const std::size_t parts = divide_up(columns.size, kColumns);
    const std::size_t run =
        std::clamp(strips * parts / (8 * static_cast<std::size_t>(num_threads())), std::size_t{1}, parts);
    const std::size_t runs = divide_up(parts, run);
    parallel_for(strips * runs, [&](std::size_t task) {
      Range strip = linalg::range(task / runs, n_x - first_row, kRows);
      strip.begin += first_row;
      const std::size_t begin = task % runs * run;
      if (below && first + begin * kColumns >= strip.end()) return;
      scratch.with_buffers([&](Scratch::Buffers& buffers) {
        float* const rows = buffers.rows.data();
        for (std::size_t i = 0; i < strip.size; ++i) centre(x + (strip.begin + i) * d, mean, d, rows + i * d);
        for (std::size_t k = begin; k < std::min(begin + run, parts); ++k) {
          Range part = linalg::range(k, columns.size, kColumns);
          const float* const others = panel.data() + part.begin * d;
          part.begin += first;
          if (below && part.begin >= strip.end()) break;
          multiply(strip, rows, part, others, d, below, buffers.products.data());
          tile(strip, part, buffers.products.data());
        }
      });
    });
  }
}

// A row that may be among the k nearest of another.
struct Candidate {
  double lower;
  double upper;
  std::size_t index;
};

// The candidates of every row. A pair is dropped where k others have upper bounds that are not larger than its lower
// bound: the k-th smallest distance is the same without it.
class Nearest {
 public:
  Nearest(const float* x, std::size_t n, std::size_t d, std::size_t k)
      : x_(x),
        d_(d),
        k_(k),
        capacity_(checked_add(checked_mul(k, std::size_t{2}, "k"), std::size_t{16}, "k")),
        candidates_(checked_mul(n, capacity_, "k: the number of candidates")),
        sizes_(n),
        limits_(n, kInfinity) {}

  const double* limits() const { return limits_.data(); }

  // Adds row `other` to the candidates of `row`. Calls for one row must not overlap.
  void add(std::size_t row, std::size_t other, double lower, double upper) {
    if (!(lower < limits_[row])) return;
    candidates_[row * capacity_ + sizes_[row]++] = {lower, upper, other};
    if (sizes_[row] < capacity_) return;
    prune(row);
    // Bounds that overlap, as those of ties do: distances take their place, of which the k smallest suffice.
    if (sizes_[row] > k_ + (capacity_ - k_) / 2) {
      resolve(row, of(row));
      prune(row);
    }
  }

  // The k-th smallest distance. Candidates below the k-th smallest lower bound precede it, whatever their order.
  double kth(std::size_t row) {
    const std::span<Candidate> all = of(row);
    std::nth_element(all.begin(), all.begin() + last(), all.end(), by_lower);
    const double least = all[k_ - 1].lower;
    std::nth_element(all.begin(), all.begin() + last(), all.end(), by_upper);
    const double most = all[k_ - 1].upper;
    const auto begin =
        std::partition(all.begin(), all.end(), [&](const Candidate& other) { return other.upper < least; });
    const auto end = std::partition(begin, all.end(), [&](const Candidate& other) { return other.lower <= most; });
    const std::span<Candidate> open(begin, end);
    resolve(row, open);
    const auto kth = open.begin() + (last() - (begin - all.begin()));
    std::nth_element(open.begin(), kth, open.end(), by_upper);
    return kth->upper;
  }

 private:
  static bool by_lower(const Candidate& a, const Candidate& b) { return a.lower < b.lower; }
  static bool by_upper(const Candidate& a, const Candidate& b) { return a.upper < b.upper; }

  std::ptrdiff_t last() const { return static_cast<std::ptrdiff_t>(k_) - 1; }
  std::span<Candidate> of(std::size_t row) { return {candidates_.data() + row * capacity_, sizes_[row]}; }

  void prune(std::size_t row) {
    const std::span<Candidate> all = of(row);
    std::nth_element(all.begin(), all.begin() + last(), all.end(), by_upper);
    limits_[row] = all[k_ - 1].upper;
    const auto end = std::remove_if(all.begin() + last() + 1, all.end(),
                                    [&](const Candidate& other) { return !(other.lower < limits_[row]); });
    sizes_[row] = static_cast<std::size_t>(end - all.begin());
  }

  void resolve(std::size_t row, std::span<Candidate> some) const {
    std::array<const float*, kChains> others{};
    std::array<double, kChains> found{};
    for (std::size_t first = 0; first < some.size(); first += kChains) {
      const std::size_t count = std::min(kChains, some.size() - first);
      for (std::size_t c = 0; c < count; ++c) others[c] = x_ + some[first + c].index * d_;
      distances(x_ + row * d_, others.data(), count, d_, found.data());
      for (std::size_t c = 0; c < count; ++c) some[first + c].lower = some[first + c].upper = found[c];
    }
  }

  const float* x_;
  std::size_t d_;
  std::size_t k_;
  std::size_t capacity_;
  std::vector<Candidate> candidates_;  // capacity_ for each row
  std::vector<std::size_t> sizes_;
  std::vector<double> limits_;  // the k-th smallest upper bound of the row's candidates when they were last pruned
};

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

// The counts of one tile, which are added to those of all.
class TileCounts {
 public:
  TileCounts(const Range& strip, const Range& columns)
      : strip_(strip), columns_(columns), rows_(strip.size), around_y_(columns.size), within_y_(columns.size) {}

  LineCounts& row(std::size_t i) { return rows_[i]; }
  std::int64_t* around_y() { return around_y_.data(); }
  std::int64_t* within_y() { return within_y_.data(); }
  void count_undecided() { ++undecided_; }

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
  }

 private:
  Range strip_;
  Range columns_;
  std::vector<LineCounts> rows_;
  std::vector<std::int64_t> around_y_;
  std::vector<std::int64_t> within_y_;
  std::int64_t undecided_ = 0;
};

}  // namespace

std::vector<double> kth_squared_distances(const float* x, std::size_t n, std::size_t d, std::size_t k) {
  expect_sizes(n, d);
  FASTFID_EXPECT(k >= 1, InvalidArgument, "k: expected 1 or more, got ", k);
  FASTFID_EXPECT(n > k, InvalidArgument, "x: expected at least k + 1 = ", k, " + 1 rows, got ", n);
  const std::vector<float> mean = about_the_mean({{x, n}}, d);
  const Norms norms(x, n, d, mean.data());
  norms.expect_finite(x, n, d, "x");
  const Bound bound(d);
  Nearest nearest(x, n, d, k);
  std::vector<std::mutex> mutexes(divide_up(n, kGroup));

  // Pairs (i, j) with j < i. Each is a candidate of row i, and of row j.
  for_each_tile(x, n, x, n, d, mean.data(), true, [&](const Range& strip, const Range& columns, const float* products) {
    std::vector<double> lower(columns.size);
    std::vector<double> upper(columns.size);
    const auto line = [&](std::size_t i, const Range& part) {
      const std::size_t count = i <= part.begin ? 0 : std::min(part.end(), i) - part.begin;
      return Line{products + (i - strip.begin) * columns.size + (part.begin - columns.begin),
                  norms.squares[i],
                  norms.sizes[i],
                  norms.squares.data() + part.begin,
                  norms.sizes.data() + part.begin,
                  count};
    };
    for (std::size_t first = strip.begin; first < strip.end(); first += kGroup) {
      const std::lock_guard lock(mutexes[first / kGroup]);
      for (std::size_t i = first; i < std::min(first + kGroup, strip.end()); ++i) {
        const Line of_row = line(i, columns);
        if (!bound_and_find_below(of_row, bound, nearest.limits()[i], lower.data(), upper.data())) continue;
        for (std::size_t j = 0; j < of_row.count; ++j) nearest.add(i, columns.begin + j, lower[j], upper[j]);
      }
    }
    for (std::size_t first = columns.begin; first < columns.end(); first += kGroup) {
      const std::lock_guard lock(mutexes[first / kGroup]);
      const Range part{first, std::min(kGroup, columns.end() - first)};
      for (std::size_t i = strip.begin; i < strip.end(); ++i) {
        const Line of_row = line(i, part);
        if (!bound_and_find_below(of_row, bound, nearest.limits() + first, lower.data(), upper.data())) continue;
        for (std::size_t j = 0; j < of_row.count; ++j) nearest.add(first + j, i, lower[j], upper[j]);
      }
    }
  });
  std::vector<double> found(n);
  parallel_for(divide_up(n, kGroup), [&](std::size_t group) {
    const Range rows = linalg::range(group, n, kGroup);
    for (std::size_t i = rows.begin; i < rows.end(); ++i) found[i] = nearest.kth(i);
  });
  return found;
}

BallCounts count_in_balls(const Balls& x, const Balls& y, std::size_t d, bool strict) {
  expect_sizes(x.n, d);
  expect_sizes(y.n, d);
  const std::vector<double> limits_x = limits_of(x, strict);
  const std::vector<double> limits_y = limits_of(y, strict);
  const std::vector<float> mean = about_the_mean({{x.rows, x.n}, {y.rows, y.n}}, d);
  const Norms norms_x(x.rows, x.n, d, mean.data());
  const Norms norms_y(y.rows, y.n, d, mean.data());
  norms_x.expect_finite(x.rows, x.n, d, x.name);
  norms_y.expect_finite(y.rows, y.n, d, y.name);
  const Bound bound(d);
  BallCounts counts{std::vector<std::int64_t>(y.n), std::vector<std::int64_t>(x.n), std::vector<std::int64_t>(x.n),
                    std::vector<std::int64_t>(y.n)};
  std::mutex mutex;
  for_each_tile(x.rows, x.n, y.rows, y.n, d, mean.data(), false,
                [&](const Range& strip, const Range& columns, const float* products) {
                  TileCounts tile(strip, columns);
                  std::vector<double> lower(columns.size);
                  std::vector<double> upper(columns.size);
                  for (std::size_t row = 0; row < strip.size; ++row) {
                    const std::size_t i = strip.begin + row;
                    const Line line{products + row * columns.size,
                                    norms_x.squares[i],
                                    norms_x.sizes[i],
                                    norms_y.squares.data() + columns.begin,
                                    norms_y.sizes.data() + columns.begin,
                                    columns.size};
                    const double limit = limits_x[i];
                    if (!count_decided(line, bound, limit, limits_y.data() + columns.begin, lower.data(), upper.data(),
                                       tile.row(row), tile.around_y(), tile.within_y())) {
                      continue;
                    }
                    for (std::size_t j = 0; j < columns.size; ++j) {
                      const double limit_y = limits_y[columns.begin + j];
                      const bool open_x = !(upper[j] <= limit) && !(lower[j] > limit);
                      const bool open_y = !(upper[j] <= limit_y) && !(lower[j] > limit_y);
                      if (!open_x && !open_y) continue;
                      tile.count_undecided();
                      const float* const other = y.rows + (columns.begin + j) * d;
                      double distance = 0;
                      distances(x.rows + i * d, &other, 1, d, &distance);
                      if (open_x && distance <= limit) ++tile.row(row).y_within_x, ++tile.around_y()[j];
                      if (open_y && distance <= limit_y) ++tile.row(row).y_around_x, ++tile.within_y()[j];
                    }
                  }
                  const std::lock_guard lock(mutex);
                  tile.add_to(counts);
                });
  return counts;
}

}  // namespace fastfid
