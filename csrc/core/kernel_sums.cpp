#include "core/kernel_sums.hpp"

#include <algorithm>
#include <numeric>

#include "core/blas.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

// Rows of a strip; a tile is the product of two strips. dgemm of 384 x 384 x 2048 runs at 90 % of its best rate.
constexpr std::size_t kRows = 384;

std::size_t strips_of(std::size_t n) { return divide_up(n, kRows); }

void expect_sizes(std::size_t n_x, std::size_t n_y, std::size_t d) {
  FASTFID_EXPECT(d >= 1 && d <= (std::size_t{1} << 30), InvalidArgument, "rows: expected 1 to 2^30 columns, got ", d);
  for (const std::size_t n : {n_x, n_y}) {
    checked_mul(checked_mul(n, d, "rows: their number of bytes"), sizeof(double), "rows: their number of bytes");
  }
}

// A strip of rows in float64.
struct Strip {
  std::size_t count = 0;
  std::vector<double> values;

  void load(const float* rows, std::size_t n, std::size_t d, std::size_t strip) {
    const std::size_t begin = strip * kRows;
    count = std::min(n, begin + kRows) - begin;
    values.assign(rows + begin * d, rows + (begin + count) * d);
  }
};

// Computes k - shift of every pair, row-major (a.count, b.count).
void evaluate(const Strip& a, const Strip& b, std::size_t d, double shift, std::vector<double>& tile) {
  tile.resize(a.count * b.count);
  const int width = static_cast<int>(d);
  const int columns = static_cast<int>(b.count);
  linalg::gemm(linalg::Transpose::kNo, linalg::Transpose::kYes, static_cast<int>(a.count), columns, width,
               1.0 / static_cast<double>(d), a.values.data(), width, b.values.data(), width, 0.0, tile.data(), columns);
  for (double& value : tile) {
    const double base = value + 1.0;
    value = base * base * base - shift;
  }
}

// Adds the sums over the tile's columns to rows[i], and the sums over the tile's rows to columns[j]. Returns the sum of
// the squares.
double add_sums(const std::vector<double>& tile, std::size_t n_rows, std::size_t n_columns, double* rows,
                double* columns) {
  double squares = 0;
  for (std::size_t i = 0; i < n_rows; ++i) {
    const double* const values = tile.data() + i * n_columns;
    double sum = 0;
    double square = 0;
    for (std::size_t j = 0; j < n_columns; ++j) {
      sum += values[j];
      square += values[j] * values[j];
      columns[j] += values[j];
    }
    rows[i] += sum;
    squares += square;
  }
  return squares;
}

// For the tiles of each strip k of x with the strips of y from first(k) on: adds the sums over y to of_x and the sums
// over x to of_y, strip by strip. Returns the sum of the squares.
template <class First>
double add_tiles(const float* x, std::size_t n_x, const float* y, std::size_t n_y, std::size_t d, double shift,
                 const First& first, double* of_x, double* of_y) {
  const std::size_t strips = strips_of(n_x);
  std::vector<double> of_strips(checked_mul(strips, n_y, "rows: the number of their sums"));
  std::vector<double> squares(strips);
  parallel_for(strips, [&](std::size_t k) {
    Strip a;
    Strip b;
    std::vector<double> tile;
    a.load(x, n_x, d, k);
    for (std::size_t strip = first(k); strip < strips_of(n_y); ++strip) {
      b.load(y, n_y, d, strip);
      evaluate(a, b, d, shift, tile);
      squares[k] += add_sums(tile, a.count, b.count, of_x + k * kRows, of_strips.data() + k * n_y + strip * kRows);
    }
  });
  for (std::size_t k = 0; k < strips; ++k) {
    for (std::size_t j = first(k) * kRows; j < n_y; ++j) of_y[j] += of_strips[k * n_y + j];
  }
  return std::accumulate(squares.begin(), squares.end(), 0.0);
}

}  // namespace

KernelSums kernel_sums(const float* x, std::size_t n_x, const float* y, std::size_t n_y, std::size_t d, double shift) {
  expect_sizes(n_x, n_y, d);
  KernelSums sums{std::vector<double>(n_x), std::vector<double>(n_y)};
  sums.squares = add_tiles(
      x, n_x, y, n_y, d, shift, [](std::size_t) { return std::size_t{0}; }, sums.of_x.data(), sums.of_y.data());
  return sums;
}

KernelSumsWithin kernel_sums_within(const float* x, std::size_t n, std::size_t d, double shift) {
  expect_sizes(n, n, d);
  KernelSumsWithin sums{std::vector<double>(n)};
  std::vector<double> squares(strips_of(n));
  parallel_for(strips_of(n), [&](std::size_t k) {
    Strip a;
    std::vector<double> tile;
    a.load(x, n, d, k);
    evaluate(a, a, d, shift, tile);
    for (std::size_t i = 0; i < a.count; ++i) tile[i * a.count + i] = 0;  // a row is no pair with itself
    std::vector<double> mirrored(a.count);  // the sums over rows: those over columns again
    squares[k] = add_sums(tile, a.count, a.count, sums.of_x.data() + k * kRows, mirrored.data());
  });
  sums.squares = std::accumulate(squares.begin(), squares.end(), 0.0);
  // The tiles right of the diagonal; each tile also represents its mirror image.
  sums.squares +=
      2 * add_tiles(x, n, x, n, d, shift, [](std::size_t k) { return k + 1; }, sums.of_x.data(), sums.of_x.data());
  return sums;
}

}  // namespace fastfid
