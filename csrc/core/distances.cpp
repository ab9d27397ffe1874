#include "core/distances.hpp"

#include <array>
#include <memory>
#include <mutex>

#include "core/blas.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/memory.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"

namespace fastfid::distances {
namespace {

using FloatVector = std::vector<float, HugePageAllocator<float>>;

constexpr std::size_t kDiagonal = 256;  // rows of the products on the diagonal

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

}  // namespace

void expect_sizes(std::size_t n, std::size_t d) {
  FASTFID_EXPECT(d >= 1 && d <= (std::size_t{1} << 30), InvalidArgument, "rows: expected 1 to 2^30 columns, got ", d);
  checked_mul(checked_mul(n, d, "rows: their number of bytes"), sizeof(double), "rows: their number of bytes");
}

FASTFID_CLONES void exact(const float* row, const float* const* others, std::size_t count, std::size_t d, double* out) {
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

Norms::Norms(const float* rows, std::size_t n, std::size_t d, const float* mean) : squares(n), sizes(n) {
  parallel_for(divide_up(n, kGroup), [&](std::size_t group) {
    const Range range = linalg::range(group, n, kGroup);
    for (std::size_t i = range.begin; i < range.end(); ++i) {
      squares[i] = square_of_norm(rows + i * d, mean, d);
      sizes[i] = squares[i] == 0 ? 0 : std::sqrt(squares[i]) + 0x1p-62;
    }
  });
}

// A centred row overflows where its values are not finite, and where they are merely large.
void Norms::expect_finite(const float* rows, std::size_t n, std::size_t d, const char* name) const {
  if (std::all_of(squares.begin(), squares.end(), [](double square) { return std::isfinite(square); })) return;
  for (std::size_t i = 0; i < n; ++i) {
    const float* const row = rows + i * d;
    FASTFID_EXPECT(std::isfinite(squares[i]) || std::all_of(row, row + d, [](float x) { return std::isfinite(x); }),
                   NumericalError, name, ": row ", i, " has NaN or infinite values");
  }
}

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

void for_each_tile(const float* x, const Range& of_x, const float* y, const Range& of_y, std::size_t d,
                   const float* mean, bool below, const Tile& tile) {
  FloatVector panel(std::min(of_y.size, kPanel) * d);
  const std::size_t most_rows = std::min(of_x.size, kRows);
  Scratch scratch(most_rows * d, most_rows * std::min(of_y.size, kColumns));
  for (std::size_t first = of_y.begin; first < of_y.end(); first += kPanel) {
    const Range columns{first, std::min(kPanel, of_y.end() - first)};
    parallel_for(divide_up(columns.size, kGroup), [&](std::size_t group) {
      const Range rows = linalg::range(group, columns.size, kGroup);
      for (std::size_t i = rows.begin; i < rows.end(); ++i) centre(y + (first + i) * d, mean, d, panel.data() + i * d);
    });
    const std::size_t strips = divide_up(of_x.size, kRows);
    const std::size_t parts = divide_up(columns.size, kColumns);
    const std::size_t run =
        std::clamp(strips * parts / (8 * static_cast<std::size_t>(num_threads())), std::size_t{1}, parts);
    const std::size_t runs = divide_up(parts, run);
    parallel_for(strips * runs, [&](std::size_t task) {
      Range strip = linalg::range(task / runs, of_x.size, kRows);
      strip.begin += of_x.begin;
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

}  // namespace fastfid::distances
