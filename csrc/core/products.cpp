#include "core/products.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "core/blas.hpp"
#include "core/squares.hpp"
#include "core/strips.hpp"

namespace fastfid::linalg {
namespace {

// Copies the elements right of the diagonal in rows `i` to their mirror images.
void mirror_strip(Matrix& c, Range i) {
  for_each_square({i.begin, i.end(), i.begin, c.cols()}, [&](const Square& s) {
    if (s.column < s.row) return;
    for (std::size_t col = s.column; col < s.column_end; ++col) {
      for (std::size_t r = s.row; r < std::min(s.row_end, col); ++r) c(col, r) = c(r, col);
    }
  });
}

}  // namespace

double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c) {
  const std::size_t m = a.rows();
  const std::size_t n = b.rows();
  const std::size_t k = a.cols();
  c.reshape(m, n);
  // Blocks are narrower where this skips more zeros.
  const auto list = blocks(m, n, shape_b == Shape::kUpper ? 512 : kStripColumns);
  // The first column that can be non-zero in the rows from `begin`.
  const auto start = [&](const Block& block) {
    return std::max(shape_a == Shape::kUpper ? block.i.begin : 0, shape_b == Shape::kUpper ? block.j.begin : 0);
  };
  parallel_for(list.size(), [&](std::size_t task) {
    const auto [i, j] = list[task];
    const std::size_t s = start(list[task]);
    gemm(Transpose::kNo, Transpose::kYes, dim(i.size), dim(j.size), dim(k - s), 1.0, a.row(i.begin) + s, dim(k),
         b.row(j.begin) + s, dim(k), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  double flops = 0;
  for (const Block& block : list) flops += product_flops(block.i.size, block.j.size, k - start(block));
  return flops;
}

double multiply(const Matrix& a, const Matrix& b, Matrix& c) {
  const std::size_t m = a.rows();
  const std::size_t n = b.cols();
  const std::size_t k = a.cols();
  c.reshape(m, n);
  const auto list = blocks(m, n);
  parallel_for(list.size(), [&](std::size_t task) {
    const auto [i, j] = list[task];
    gemm(Transpose::kNo, Transpose::kNo, dim(i.size), dim(j.size), dim(k), 1.0, a.row(i.begin), dim(k),
         b.data() + j.begin, dim(n), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  return product_flops(m, n, k);
}

double multiply_tn(const Matrix& a, const Matrix& b, Matrix& c) {
  const std::size_t m = a.cols();
  const std::size_t n = b.cols();
  const std::size_t k = a.rows();
  c.reshape(m, n);
  const auto list = blocks(m, n);
  parallel_for(list.size(), [&](std::size_t task) {
    const auto [i, j] = list[task];
    gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(k), 1.0, a.data() + i.begin, dim(m),
         b.data() + j.begin, dim(n), 0.0, c.row(i.begin) + j.begin, dim(n));
  });
  return product_flops(m, n, k);
}

double gram(const Matrix& a, Matrix& c, Fill fill) {
  const std::size_t n = a.cols();
  const std::size_t k = a.rows();
  c.reshape(n, n);
  parallel_for(strips(n), [&](std::size_t task) {
    const Range i = strip(task, n);  // the longest strip first
    syrk(Transpose::kYes, dim(i.size), dim(k), 1.0, a.data() + i.begin, dim(n), 0.0, c.row(i.begin) + i.begin, dim(n),
         Triangle::kUpper);
    for (std::size_t j = i.end(); j < n; j += kStripColumns) {
      gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(std::min(kStripColumns, n - j)), dim(k), 1.0,
           a.data() + i.begin, dim(n), a.data() + j, dim(n), 0.0, c.row(i.begin) + j, dim(n));
    }
    if (fill == Fill::kBoth) mirror_strip(c, i);
  });
  return product_flops(n, n, k) / 2;
}

double product_norm(const Matrix& a, Shape shape_a, const Matrix& b, double& flops) {
  const std::size_t m = a.rows();
  const std::size_t n = b.cols();
  const std::size_t k = a.cols();
  const std::size_t width = triangular_strip(n);
  std::vector<Block> list;
  for (std::size_t i = 0; i < strips(m); ++i) {
    for (std::size_t j = 0; j < divide_up(n, width); ++j) list.push_back({strip(i, m), range(j, n, width)});
  }
  std::vector<double> squares(list.size());
  std::vector<double> spent(list.size());
  parallel_for(list.size(), [&](std::size_t task) {
    const auto [i, j] = list[task];
    const std::size_t begin = shape_a == Shape::kUpper ? i.begin : 0;
    const std::size_t end = std::min(k, j.end());
    if (begin >= end) return;
    Matrix c(i.size, j.size);
    gemm(Transpose::kNo, Transpose::kNo, dim(i.size), dim(j.size), dim(end - begin), 1.0, a.row(i.begin) + begin,
         dim(k), b.row(begin) + j.begin, dim(n), 0.0, c.data(), dim(j.size));
    for (std::size_t e = 0; e < i.size * j.size; ++e) squares[task] += c.data()[e] * c.data()[e];
    spent[task] = product_flops(i.size, j.size, end - begin);
  });
  flops += std::accumulate(spent.begin(), spent.end(), 0.0);
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

}  // namespace fastfid::linalg
