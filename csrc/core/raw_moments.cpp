#include "core/raw_moments.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/blas.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

constexpr int kTile = 256;  // 512 KiB of scratch memory for each task, and 36 tasks at d = 2048

}  // namespace

void add_raw_moments(const double* rows, std::size_t n, int d, double* sum, double* cross) {
  const auto width = static_cast<std::size_t>(d);
  FASTFID_EXPECT(n <= static_cast<std::size_t>(std::numeric_limits<int>::max()), InvalidArgument,
                 "features: expected fewer than 2^31 rows, got ", n);
  FASTFID_EXPECT(d >= 1, InvalidArgument, "features: expected at least 1 dimension, got ", d);
  checked_mul(checked_mul(n, width, "features: their number of bytes"), sizeof(double),
              "features: their number of bytes");
  for (std::size_t i = 0; i < n; ++i) {
    const double* row = rows + i * width;
    FASTFID_EXPECT(std::all_of(row, row + width, [](double x) { return std::isfinite(x); }), NumericalError,
                   "features: row ", i, " has NaN or infinite values");
  }
  if (n == 0) return;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < width; ++j) sum[j] += rows[i * width + j];
  }

  std::vector<std::pair<int, int>> tiles;  // (first row, first column) of each tile on or below the diagonal
  for (int i = 0; i < d; i += kTile) {
    for (int j = 0; j <= i; j += kTile) tiles.emplace_back(i, j);
  }
  parallel_for(tiles.size(), [&](std::size_t t) {
    const auto [first, second] = tiles[t];
    const int height = std::min(kTile, d - first);
    const int breadth = std::min(kTile, d - second);
    std::vector<double> product(static_cast<std::size_t>(height) * static_cast<std::size_t>(breadth));
    linalg::gemm(linalg::Transpose::kYes, linalg::Transpose::kNo, height, breadth, static_cast<int>(n), 1.0,
                 rows + first, d, rows + second, d, 0.0, product.data(), breadth);
    for (int i = 0; i < height; ++i) {
      for (int j = 0; j < breadth; ++j) {
        const double value =
            product[static_cast<std::size_t>(i) * static_cast<std::size_t>(breadth) + static_cast<std::size_t>(j)];
        const auto row = static_cast<std::size_t>(first) + static_cast<std::size_t>(i);
        const auto column = static_cast<std::size_t>(second) + static_cast<std::size_t>(j);
        cross[row * width + column] += value;
        if (first != second) cross[column * width + row] += value;
      }
    }
  });
}

}  // namespace fastfid
