#include "core/neighbours.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <span>
#include <tuple>

#include "core/checked.hpp"
#include "core/distances.hpp"
#include "core/errors.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

using distances::kChains;
using distances::kGroup;
using distances::Line;
using linalg::Range;

// Bounds, and whether a lower bound is not above its limit: that of the row (one), or one for each column.
FASTFID_CLONES bool bound_and_find_below(const Line& line, const distances::Bound& bound, double limit, double* lower,
                                         double* upper) {
  distances::bound_line(line, bound, lower, upper);
  int found = 0;
  for (std::size_t j = 0; j < line.count; ++j) found |= lower[j] <= limit ? 1 : 0;
  return found != 0;
}
FASTFID_CLONES bool bound_and_find_below(const Line& line, const distances::Bound& bound, const double* limits,
                                         double* lower, double* upper) {
  distances::bound_line(line, bound, lower, upper);
  int found = 0;
  for (std::size_t j = 0; j < line.count; ++j) found |= lower[j] <= limits[j] ? 1 : 0;
  return found != 0;
}

// A row that may be among the k nearest of another.
struct Candidate {
  double lower;
  double upper;
  std::size_t index;
};

// The candidates of every row. A pair is dropped where k others have upper bounds below its lower bound, or where k
// others are nearer by exact distances, or as near with a smaller index.
class Nearest {
 public:
  Nearest(const float* rows, std::size_t n, const float* others, std::size_t d, std::size_t k)
      : rows_(rows),
        others_(others),
        d_(d),
        k_(k),
        capacity_(checked_add(checked_mul(k, std::size_t{2}, "k"), std::size_t{16}, "k")),
        candidates_(checked_mul(n, capacity_, "k: the number of candidates")),
        sizes_(n),
        limits_(n, kInfinity) {}

  // What is farther from the row cannot be one of its k nearest.
  double limit(std::size_t row) const { return limits_[row]; }

  // Adds row `other` to the candidates of `row`. Calls for one row must not overlap.
  void add(std::size_t row, std::size_t other, double lower, double upper) {
    if (!(lower <= limits_[row])) return;
    candidates_[row * capacity_ + sizes_[row]++] = {lower, upper, other};
    if (sizes_[row] < capacity_) return;
    prune(row);
    // Bounds that overlap, as those of ties do: distances take their place, of which the k smallest suffice.
    if (sizes_[row] > k_ + (capacity_ - k_) / 2) {
      resolve(row, of(row));
      prune(row);
      sizes_[row] = k_;
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

  // The k nearest rows and their distances, sorted.
  void sorted(std::size_t row, std::int64_t* indices, double* found) {
    resolve(row, of(row));
    prune(row);
    const std::span<Candidate> all = of(row);
    std::sort(all.begin(), all.begin() + last() + 1, by_upper);
    for (std::size_t i = 0; i < k_; ++i) {
      indices[i] = static_cast<std::int64_t>(all[i].index);
      found[i] = all[i].upper;
    }
  }

 private:
  static bool by_lower(const Candidate& a, const Candidate& b) { return a.lower < b.lower; }
  static bool by_upper(const Candidate& a, const Candidate& b) {
    return std::tie(a.upper, a.index) < std::tie(b.upper, b.index);
  }

  std::ptrdiff_t last() const { return static_cast<std::ptrdiff_t>(k_) - 1; }
  std::span<Candidate> of(std::size_t row) { return {candidates_.data() + row * capacity_, sizes_[row]}; }

  void prune(std::size_t row) {
    const std::span<Candidate> all = of(row);
    std::nth_element(all.begin(), all.begin() + last(), all.end(), by_upper);
    limits_[row] = all[k_ - 1].upper;
    const auto end = std::remove_if(all.begin() + last() + 1, all.end(),
                                    [&](const Candidate& other) { return !(other.lower <= limits_[row]); });
    sizes_[row] = static_cast<std::size_t>(end - all.begin());
  }

  void resolve(std::size_t row, std::span<Candidate> some) const {
    std::array<const float*, kChains> others{};
    std::array<double, kChains> found{};
    for (std::size_t first = 0; first < some.size(); first += kChains) {
      const std::size_t count = std::min(kChains, some.size() - first);
      for (std::size_t c = 0; c < count; ++c) others[c] = others_ + some[first + c].index * d_;
      distances::exact(rows_ + row * d_, others.data(), count, d_, found.data());
      for (std::size_t c = 0; c < count; ++c) some[first + c].lower = some[first + c].upper = found[c];
    }
  }

  const float* rows_;
  const float* others_;
  std::size_t d_;
  std::size_t k_;
  std::size_t capacity_;
  std::vector<Candidate> candidates_;  // capacity_ for each row
  std::vector<std::size_t> sizes_;
  std::vector<double> limits_;  // the k-th smallest upper bound of the row's candidates when they were last pruned
};

// The nearest rows of every row by the middles of bounds: a heap for each row, whose first element is the farthest.
// What is kept does not depend on the order of arrival.
class Rough {
 public:
  Rough(std::size_t n, std::size_t count)
      : count_(count), places_(checked_mul(n, count, "rough: the number of neighbours")), sizes_(n) {}

  double limit(std::size_t row) const {
    if (count_ == 0) return -1;
    return sizes_[row] < count_ ? kInfinity : places_[row * count_].first;
  }

  // Calls for one row must not overlap.
  void add(std::size_t row, std::size_t other, double distance) {
    Place* const begin = places_.data() + row * count_;
    const Place place{distance, other};
    if (sizes_[row] < count_) {
      begin[sizes_[row]++] = place;
      std::push_heap(begin, begin + sizes_[row]);
    } else if (place < *begin) {
      std::pop_heap(begin, begin + count_);
      begin[count_ - 1] = place;
      std::push_heap(begin, begin + count_);
    }
  }

  void sorted(std::size_t row, std::int64_t* indices, double* found) {
    Place* const begin = places_.data() + row * count_;
    std::sort(begin, begin + count_);
    for (std::size_t i = 0; i < count_; ++i) {
      found[i] = begin[i].first;
      indices[i] = static_cast<std::int64_t>(begin[i].second);
    }
  }

 private:
  using Place = std::pair<double, std::size_t>;

  std::size_t count_;
  std::vector<Place> places_;
  std::vector<std::size_t> sizes_;
};

const float* checked_rows(const float* rows, std::size_t n, std::size_t n_others, std::size_t d, std::size_t k,
                          std::size_t rough, bool within) {
  distances::expect_sizes(n, d);
  distances::expect_sizes(n_others, d);
  FASTFID_EXPECT(k >= 1, InvalidArgument, "k: expected 1 or more, got ", k);
  if (within) {
    FASTFID_EXPECT(n > k, InvalidArgument, "x: expected at least k + 1 = ", k, " + 1 rows, got ", n);
    FASTFID_EXPECT(n > rough, InvalidArgument, "rough: expected at most ", n - 1, ", got ", rough);
  } else {
    FASTFID_EXPECT(n_others >= k, InvalidArgument, "others: expected at least k = ", k, " rows, got ", n_others);
    FASTFID_EXPECT(n_others >= rough, InvalidArgument, "rough: expected at most ", n_others, ", got ", rough);
  }
  return rows;
}

// Pairs of numbers that one step multiplies.
constexpr std::size_t kStep = std::size_t{1} << 36;

}  // namespace

class NeighbourSearch::State {
 public:
  State(const float* rows, std::size_t n, const float* others, std::size_t n_others, std::size_t d, std::size_t k,
        std::size_t rough)
      : within_(others == nullptr),
        rows_(checked_rows(rows, n, n_others, d, k, rough, within_)),
        n_(n),
        others_(within_ ? rows : others),
        n_others_(within_ ? n : n_others),
        d_(d),
        k_(k),
        count_(rough),
        mean_(within_ ? distances::about_the_mean({{rows_, n_}}, d)
                      : distances::about_the_mean({{rows_, n_}, {others_, n_others_}}, d)),
        norms_(rows_, n_, d, mean_.data()),
        norms_of_others_(others_, within_ ? 0 : n_others_, d, mean_.data()),
        bound_(d),
        nearest_(rows_, n, others_, d, k),
        rough_(n, rough),
        reach_(n, kInfinity),
        mutexes_(divide_up(n, kGroup)) {
    norms_.expect_finite(rows_, n_, d, "x");
    if (!within_) norms_of_others_.expect_finite(others_, n_others_, d, "others");
  }

  bool step() {
    if (first_column_ >= n_others_) return false;
    const Range columns{first_column_, std::min(distances::kPanel, n_others_ - first_column_)};
    if (within_) first_row_ = std::max(first_row_, first_column_);
    const std::size_t most = std::max(kStep / (distances::kPanel * d_) / distances::kRows, std::size_t{1});
    const Range strips{first_row_, std::min(most * distances::kRows, n_ - first_row_)};
    compare(strips, columns);
    first_row_ = strips.end();
    if (first_row_ >= n_) {
      first_row_ = 0;
      first_column_ += distances::kPanel;
    }
    return first_column_ < n_others_;
  }

  std::vector<double> kth_squared_distances() {
    expect_done();
    std::vector<double> found(n_);
    for_each_row([&](std::size_t i) { found[i] = nearest_.kth(i); });
    return found;
  }

  Neighbours nearest() {
    return collect(k_,
                   [&](std::size_t i, std::int64_t* indices, double* found) { nearest_.sorted(i, indices, found); });
  }

  Neighbours rough() {
    return collect(count_,
                   [&](std::size_t i, std::int64_t* indices, double* found) { rough_.sorted(i, indices, found); });
  }

 private:
  // Pairs within one set are those with other < row; each is a candidate of both.
  void compare(const Range& strips, const Range& panel) {
    distances::for_each_tile(
        rows_, strips, others_, panel, d_, mean_.data(), within_,
        [&](const Range& strip, const Range& columns, const float* products) {
          std::vector<double> lower(columns.size);
          std::vector<double> upper(columns.size);
          for (std::size_t first = strip.begin; first < strip.end(); first += kGroup) {
            const std::lock_guard lock(mutexes_[first / kGroup]);
            for (std::size_t i = first; i < std::min(first + kGroup, strip.end()); ++i) {
              const Line of_row = line(strip, columns, products, i, columns);
              if (!bound_and_find_below(of_row, bound_, reach_[i], lower.data(), upper.data())) continue;
              for (std::size_t j = 0; j < of_row.count; ++j) offer(i, columns.begin + j, lower[j], upper[j]);
            }
          }
          if (!within_) return;
          for (std::size_t first = columns.begin; first < columns.end(); first += kGroup) {
            const std::lock_guard lock(mutexes_[first / kGroup]);
            const Range part{first, std::min(kGroup, columns.end() - first)};
            for (std::size_t i = strip.begin; i < strip.end(); ++i) {
              const Line of_row = line(strip, columns, products, i, part);
              if (!bound_and_find_below(of_row, bound_, reach_.data() + first, lower.data(), upper.data())) continue;
              for (std::size_t j = 0; j < of_row.count; ++j) offer(first + j, i, lower[j], upper[j]);
            }
          }
        });
  }

  // The products of row i and the columns of `part`.
  Line line(const Range& strip, const Range& columns, const float* products, std::size_t i, const Range& part) const {
    const std::size_t left = i <= part.begin ? 0 : std::min(part.end(), i) - part.begin;
    const distances::Norms& others = within_ ? norms_ : norms_of_others_;
    return {products + (i - strip.begin) * columns.size + (part.begin - columns.begin),
            norms_.squares[i],
            norms_.sizes[i],
            others.squares.data() + part.begin,
            others.sizes.data() + part.begin,
            within_ ? left : part.size};
  }

  void offer(std::size_t row, std::size_t other, double lower, double upper) {
    if (!(lower <= reach_[row])) return;
    nearest_.add(row, other, lower, upper);
    if (count_ > 0) {
      double middle = lower + (upper - lower) / 2;
      if (!std::isfinite(middle)) {
        const float* const second = others_ + other * d_;
        distances::exact(rows_ + row * d_, &second, 1, d_, &middle);
      }
      rough_.add(row, other, middle);
    }
    reach_[row] = std::max(nearest_.limit(row), rough_.limit(row));
  }

  void expect_done() const {
    FASTFID_EXPECT(first_column_ >= n_others_, InvalidArgument, "search: call step() until it returns false first");
  }

  template <class F>
  void for_each_row(const F& f) {
    parallel_for(divide_up(n_, kGroup), [&](std::size_t group) {
      const Range rows = linalg::range(group, n_, kGroup);
      for (std::size_t i = rows.begin; i < rows.end(); ++i) f(i);
    });
  }

  template <class F>
  Neighbours collect(std::size_t count, const F& f) {
    expect_done();
    Neighbours found{std::vector<std::int64_t>(n_ * count), std::vector<double>(n_ * count)};
    for_each_row([&](std::size_t i) { f(i, found.indices.data() + i * count, found.distances.data() + i * count); });
    return found;
  }

  bool within_;
  const float* rows_;
  std::size_t n_;
  const float* others_;
  std::size_t n_others_;
  std::size_t d_;
  std::size_t k_;
  std::size_t count_;  // of rough neighbours
  std::vector<float> mean_;
  distances::Norms norms_;
  distances::Norms norms_of_others_;
  distances::Bound bound_;
  Nearest nearest_;
  Rough rough_;
  std::vector<double> reach_;  // the larger of both limits
  std::vector<std::mutex> mutexes_;
  std::size_t first_row_ = 0;  // of the next step
  std::size_t first_column_ = 0;
};

NeighbourSearch::NeighbourSearch(const float* rows, std::size_t n, const float* others, std::size_t n_others,
                                 std::size_t d, std::size_t k, std::size_t rough)
    : state_(std::make_unique<State>(rows, n, others, n_others, d, k, rough)) {}
NeighbourSearch::~NeighbourSearch() = default;
bool NeighbourSearch::step() { return state_->step(); }
std::vector<double> NeighbourSearch::kth_squared_distances() { return state_->kth_squared_distances(); }
Neighbours NeighbourSearch::nearest() { return state_->nearest(); }
Neighbours NeighbourSearch::rough() { return state_->rough(); }

}  // namespace fastfid
