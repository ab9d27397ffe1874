#include "core/congruence.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "core/blas.hpp"
#include "core/strips.hpp"
#include "core/tiles.hpp"

namespace fastfid::linalg {
namespace {

using tiles::kPanel;

// A triangular matrix in panels of kPanel columns. A panel holds the rows that are not all zeros, in blocks of kPanel
// rows.
class Panels {
 public:
  // kLower: panel p has the blocks from p on. kUpper: panel p has the blocks 0 to p.
  Panels(Triangle triangle, std::size_t count)
      : triangle_(triangle), count_(count), data_(count * (count + 1) / 2 * kPanel, kPanel) {}

  double* at(std::size_t panel, std::size_t block) { return data_.row(index(panel, block) * kPanel); }
  const double* at(std::size_t panel, std::size_t block) const { return data_.row(index(panel, block) * kPanel); }
  const Matrix& data() const { return data_; }

 private:
  std::size_t index(std::size_t panel, std::size_t block) const {
    return triangle_ == Triangle::kUpper ? panel * (panel + 1) / 2 + block
                                         : panel * count_ - panel * (panel + 1) / 2 + block;
  }

  Triangle triangle_;
  std::size_t count_;
  Matrix data_;
};

// A task has kTaskPanels x kTaskPanels panels. The results of a task and kPanelDepth rows of its operands stay in the
// second-level cache.
constexpr std::size_t kTaskPanels = 12;
constexpr std::size_t kDepthBlocks = tiles::kPanelDepth / kPanel;

// Calls f(first block, number of blocks) for the blocks [begin, end), at most kDepthBlocks at a time.
template <class F>
void for_each_depth(std::size_t begin, std::size_t end, F&& f) {
  for (std::size_t k = begin; k < end; k += kDepthBlocks) f(k, std::min(kDepthBlocks, end - k));
}

// Prefetches one of kTaskPanels parts of the blocks that the next products of a panel need. The processor's prefetcher
// does not foresee these blocks in the order of the products.
void prefetch(const double* next, std::size_t part) {
  constexpr std::size_t kPart = kDepthBlocks * kPanel * kPanel / kTaskPanels;
  static_assert(kPart % 8 == 0);
  // The address is a number, because the last addresses may lie beyond the memory of the panels, where a pointer would
  // be invalid. These addresses are not read.
  const auto address = reinterpret_cast<std::uintptr_t>(next) + part * kPart * sizeof(double);
  for (std::size_t byte = 0; byte < kPart * sizeof(double); byte += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(address + byte), 0, 2);
  }
}

// Packs panel p of F^T and of K. Elements beyond row and column n are zeros.
void pack(const Matrix& f, const FillElements& fill, std::size_t p, Panels& ft, Panels& k) {
  const std::size_t n = f.rows();
  const Range columns = range(p, n, kPanel);
  double* out = ft.at(p, p);
  for (std::size_t j = columns.begin; j < divide_up(n, kPanel) * kPanel; ++j, out += kPanel) {
    for (std::size_t i = 0; i < kPanel; ++i) out[i] = i < columns.size && j < n ? f(columns.begin + i, j) : 0.0;
  }
  double* const panel = k.at(p, 0);
  if (columns.size < kPanel) std::fill_n(panel, (p + 1) * kPanel * kPanel, 0.0);
  fill(0, columns.end(), columns.begin, columns.size, panel, kPanel);
  double* const square = k.at(p, p);
  for (std::size_t i = 0; i < columns.size; ++i) {
    std::fill_n(square + i * kPanel, i, 0.0);
    square[i * kPanel + i] /= 2;
  }
}

// Tasks (panels of F, panels of K); the tasks that sum over most blocks come first.
std::vector<Block> tasks_of(std::size_t panels) {
  const std::size_t edge = divide_up(panels, kTaskPanels);
  std::vector<Block> tasks;
  for (std::size_t apart = edge; apart-- > 0;) {
    for (std::size_t i = 0; i + apart < edge; ++i) {
      tasks.push_back({range(i, panels, kTaskPanels), range(i + apart, panels, kTaskPanels)});
    }
  }
  return tasks;
}

// Computes the blocks of Q^T = (F K)^T of one task. Returns the number of products of blocks.
double multiply_q(const Block& task, const Panels& k, const Panels& ft, Panels& qt) {
  const Range i = task.i;
  const Range j = task.j;
  double blocks_multiplied = 0;
  for (std::size_t p = i.begin; p < i.end(); ++p) {
    for (std::size_t q = std::max(p, j.begin); q < j.end(); ++q) std::fill_n(qt.at(p, q), kPanel * kPanel, 0.0);
  }
  for_each_depth(i.begin, j.end(), [&](std::size_t first, std::size_t blocks) {
    for (std::size_t p = i.begin; p < i.end(); ++p) {
      for (std::size_t q = std::max(p, j.begin); q < j.end(); ++q) {
        const std::size_t begin = std::max(first, p);
        const std::size_t end = std::min(first + blocks, q + 1);
        if (begin >= end) continue;
        if (end <= q) {
          prefetch(k.at(q, end), p - i.begin);
          prefetch(ft.at(p, end), q - j.begin);
        }
        tiles::multiply_panels((end - begin) * kPanel, k.at(q, begin), ft.at(p, begin), qt.at(p, q));
        blocks_multiplied += static_cast<double>(end - begin);
      }
    }
  });
  return blocks_multiplied;
}

// The blocks of G of one task, as a sum of products.
class TaskOfG {
 public:
  TaskOfG(const Block& task, std::size_t panels)
      : i_(task.i), j_(task.j), panels_(panels), g_(i_.size * j_.size * kPanel, kPanel) {
    std::fill_n(g_.data(), g_.rows() * g_.cols(), 0.0);
  }

  // Adds left^T right. Returns the number of products of blocks.
  double add(const Panels& left, const Panels& right) {
    double blocks_multiplied = 0;
    for_each_depth(j_.begin, panels_, [&](std::size_t first, std::size_t blocks) {
      for (std::size_t q = j_.begin; q < std::min(j_.end(), first + blocks); ++q) {
        const std::size_t begin = std::max(first, q);
        const std::size_t depth = first + blocks - begin;
        for (std::size_t p = i_.begin; p < std::min(i_.end(), q + 1); ++p) {
          if (first + blocks < panels_) {
            prefetch(left.at(p, first + blocks), q - j_.begin);
            prefetch(right.at(q, first + blocks), p - i_.begin);
          }
          tiles::multiply_panels(depth * kPanel, left.at(p, begin), right.at(q, begin), block(p, q));
          blocks_multiplied += static_cast<double>(depth);
        }
      }
    });
    return blocks_multiplied;
  }

  // Writes the elements on and above the diagonal to G.
  void write(Matrix& out) {
    const std::size_t n = out.rows();
    for (std::size_t p = i_.begin; p < i_.end(); ++p) {
      const Range rows = range(p, n, kPanel);
      for (std::size_t q = std::max(p, j_.begin); q < j_.end(); ++q) {
        const Range columns = range(q, n, kPanel);
        for (std::size_t r = 0; r < rows.size; ++r) {
          std::copy_n(block(p, q) + r * kPanel, columns.size, out.row(rows.begin + r) + columns.begin);
        }
      }
    }
  }

 private:
  double* block(std::size_t p, std::size_t q) { return g_.row(((p - i_.begin) * j_.size + (q - j_.begin)) * kPanel); }

  Range i_;
  Range j_;
  std::size_t panels_;
  Matrix g_;
};

}  // namespace

Congruence congruence(const Matrix& f, const FillElements& fill) {
  tiles::instruction_set();  // the choice must precede the parallel regions
  const std::size_t n = f.rows();
  const std::size_t panels = divide_up(n, kPanel);
  Panels ft(Triangle::kLower, panels);  // F^T
  Panels k(Triangle::kUpper, panels);
  Panels qt(Triangle::kLower, panels);  // Q^T
  parallel_for(panels, [&](std::size_t p) { pack(f, fill, p, ft, k); });

  std::vector<Block> tasks = tasks_of(panels);
  std::vector<double> blocks_multiplied(tasks.size());
  parallel_for(tasks.size(), [&](std::size_t task) { blocks_multiplied[task] += multiply_q(tasks[task], k, ft, qt); });

  Congruence out;
  out.norm_q = frobenius_norm(qt.data());
  out.g.reshape(n, n);
  std::sort(tasks.begin(), tasks.end(), [](const Block& a, const Block& b) {
    return std::pair(a.j.begin, a.i.begin) < std::pair(b.j.begin, b.i.begin);
  });
  parallel_for(tasks.size(), [&](std::size_t task) {
    TaskOfG g(tasks[task], panels);
    blocks_multiplied[task] += g.add(qt, ft);
    blocks_multiplied[task] += g.add(ft, qt);
    g.write(out.g);
  });
  out.flops =
      product_flops(kPanel, kPanel, kPanel) * std::accumulate(blocks_multiplied.begin(), blocks_multiplied.end(), 0.0);
  return out;
}

}  // namespace fastfid::linalg
