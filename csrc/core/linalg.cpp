#include "core/linalg.hpp"

#include <cblas.h>
#include <lapacke.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <numeric>

#include "core/errors.hpp"
#include "core/parallel.hpp"
#include "core/tiles.hpp"

// LAPACK 3.7's second stage, from a symmetric band to tridiagonal form; lapacke.h does not declare it.
extern "C" void scipy_dsytrd_sb2st_(const char* stage1, const char* vect, const char* uplo, const lapack_int* n,
                                    const lapack_int* kd, double* ab, const lapack_int* ldab, double* d, double* e,
                                    double* hous, const lapack_int* lhous, double* work, const lapack_int* lwork,
                                    lapack_int* info, std::size_t stage1_length, std::size_t vect_length,
                                    std::size_t uplo_length);

namespace fastfid::linalg {
namespace {

// Every wrapper calls this first. The setting belongs to our own copy of OpenBLAS (its own SONAME): NumPy's and SciPy's
// copies keep their threads, and nobody else can undo it.
void ensure_single_threaded() {
  [[maybe_unused]] static const bool once = [] {
    scipy_openblas_set_num_threads(1);
    return true;
  }();
}

CBLAS_TRANSPOSE cblas(Transpose trans) { return trans == Transpose::kYes ? CblasTrans : CblasNoTrans; }

int dim(std::size_t n) { return static_cast<int>(n); }

// A half-open range of rows or columns.
struct Range {
  std::size_t begin;
  std::size_t size;

  std::size_t end() const { return begin + size; }
};
std::size_t count(std::size_t n, std::size_t width) { return (n + width - 1) / width; }
Range range(std::size_t index, std::size_t n, std::size_t width) {
  return {index * width, std::min(width, n - index * width)};
}
// Of a task of the Cholesky factorisation.
constexpr std::size_t kCholeskyColumns = 512;

std::size_t strips(std::size_t n) { return count(n, kStripRows); }
Range strip(std::size_t index, std::size_t n) { return range(index, n, kStripRows); }

// The blocks of an m x n result: strips of rows, cut into `width` columns.
struct Block {
  Range i;
  Range j;
};
std::vector<Block> blocks(std::size_t m, std::size_t n, std::size_t width = kStripColumns) {
  std::vector<Block> out;
  for (std::size_t i = 0; i < strips(m); ++i) {
    for (std::size_t j = 0; j < count(n, width); ++j) out.push_back({strip(i, m), range(j, n, width)});
  }
  return out;
}

// Columns of a task whose rows end at the diagonal: few zeros are multiplied, and a product is still near its full
// rate.
std::size_t triangular_strip(std::size_t n) { return n <= 2 * kStripRows ? 48 : kStripRows; }

double product_flops(std::size_t m, std::size_t n, std::size_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// Copies what is right of the diagonal in rows `i` to its mirror image, in squares that fit the cache.
void mirror_strip(Matrix& c, Range i) {
  constexpr std::size_t kSquare = 32;
  for (std::size_t r0 = i.begin; r0 < i.end(); r0 += kSquare) {
    const std::size_t r1 = std::min(r0 + kSquare, i.end());
    for (std::size_t c0 = r0; c0 < c.cols(); c0 += kSquare) {
      for (std::size_t col = c0; col < std::min(c0 + kSquare, c.cols()); ++col) {
        for (std::size_t r = r0; r < std::min(r1, col); ++r) c(col, r) = c(r, col);
      }
    }
  }
}

void check_lapack(const char* routine, lapack_int info) {
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's ", routine, " refused its argument ", -info);
  FASTFID_EXPECT(info == 0, NumericalError, "LAPACK's ", routine, " did not converge (info ", info, ")");
}

}  // namespace

std::string blas_description() {
  return std::string(scipy_openblas_get_config()) + ", running " + scipy_openblas_get_corename() +
         "; own products for " + tiles::instruction_set();
}

void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle) {
  ensure_single_threaded();
  scipy_cblas_dsyrk(CblasRowMajor, triangle == Triangle::kLower ? CblasLower : CblasUpper, cblas(trans), n, k, alpha, a,
                    lda, beta, c, ldc);
}

void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_dgemm(CblasRowMajor, cblas(trans_a), cblas(trans_b), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void Matrix::reshape(std::size_t rows, std::size_t cols) {
  rows_ = rows;
  cols_ = cols;
  if (rows * cols <= capacity_) return;
  // Large ones ask for huge pages: fewer page faults, and strided reads of a panel miss the TLB less.
  constexpr std::size_t kHugePage = std::size_t{1} << 21;
  const std::size_t bytes = rows * cols * sizeof(double);
  const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
  data_.reset();
  capacity_ = 0;
  data_.reset(static_cast<double*>(std::aligned_alloc(alignment, size)));
  if (!data_) throw std::bad_alloc();
  capacity_ = rows * cols;
  if (alignment == kHugePage) madvise(data_.get(), size, MADV_HUGEPAGE);  // a hint: refusal costs speed only
}

void Matrix::Free::operator()(double* p) const { std::free(p); }

double multiply_nt(const Matrix& a, Shape shape_a, const Matrix& b, Shape shape_b, Matrix& c) {
  const std::size_t m = a.rows();
  const std::size_t n = b.rows();
  const std::size_t k = a.cols();
  c.reshape(m, n);
  // Narrower blocks where that skips more zeros.
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

namespace {

using tiles::kPanel;

// A triangular matrix in panels of kPanel columns, each with the rows that are not all zeros, in blocks of kPanel rows.
class Panels {
 public:
  // kLower: panel p has the blocks p, p + 1, ...; kUpper: the blocks 0 to p.
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

// Tasks of kTaskPanels x kTaskPanels panels: their results and kPanelDepth rows of what they are made of stay in the
// second-level cache.
constexpr std::size_t kTaskPanels = 12;
constexpr std::size_t kDepthBlocks = tiles::kPanelDepth / kPanel;

// f(first block, number of blocks) for the blocks [begin, end), at most kDepthBlocks at a time.
template <class F>
void for_each_depth(std::size_t begin, std::size_t end, F&& f) {
  for (std::size_t k = begin; k < end; k += kDepthBlocks) f(k, std::min(kDepthBlocks, end - k));
}

// Asks for one of kTaskPanels parts of the blocks that a panel's next products need, which then wait for less: in the
// order of these products the processor does not foresee them.
void prefetch(const double* next, std::size_t part) {
  constexpr std::size_t kPart = kDepthBlocks * kPanel * kPanel / kTaskPanels;
  static_assert(kPart % 8 == 0);
  // As a number: the last of them may lie beyond the memory of the panels, which no pointer may, and are not read.
  const auto address = reinterpret_cast<std::uintptr_t>(next) + part * kPart * sizeof(double);
  for (std::size_t byte = 0; byte < kPart * sizeof(double); byte += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(address + byte), 0, 2);
  }
}

}  // namespace

Congruence congruence(const Matrix& f, const FillElements& fill) {
  tiles::instruction_set();  // chosen before the threads need it
  const std::size_t n = f.rows();
  const std::size_t panels = count(n, kPanel);
  // Beyond row and column n there are zeros.
  Panels ft(Triangle::kLower, panels);  // F^T
  Panels k(Triangle::kUpper, panels);
  Panels qt(Triangle::kLower, panels);  // Q^T
  parallel_for(panels, [&](std::size_t p) {
    const Range columns = range(p, n, kPanel);
    double* out = ft.at(p, p);
    for (std::size_t j = columns.begin; j < panels * kPanel; ++j, out += kPanel) {
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
  });

  const std::size_t edge = count(panels, kTaskPanels);
  std::vector<Block> tasks;  // (panels of F, panels of K), those that sum over most blocks first
  for (std::size_t apart = edge; apart-- > 0;) {
    for (std::size_t i = 0; i + apart < edge; ++i) {
      tasks.push_back({range(i, panels, kTaskPanels), range(i + apart, panels, kTaskPanels)});
    }
  }
  std::vector<double> blocks_multiplied(tasks.size());
  parallel_for(tasks.size(), [&](std::size_t task) {
    const Range i = tasks[task].i;
    const Range j = tasks[task].j;
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
          blocks_multiplied[task] += static_cast<double>(end - begin);
        }
      }
    });
  });

  Congruence out;
  out.norm_q = frobenius_norm(qt.data());
  out.g.reshape(n, n);
  std::sort(tasks.begin(), tasks.end(), [](const Block& a, const Block& b) {
    return std::pair(a.j.begin, a.i.begin) < std::pair(b.j.begin, b.i.begin);
  });
  parallel_for(tasks.size(), [&](std::size_t task) {
    const Range i = tasks[task].i;
    const Range j = tasks[task].j;
    Matrix g(i.size * j.size * kPanel, kPanel);
    const auto block = [&](std::size_t p, std::size_t q) {
      return g.row(((p - i.begin) * j.size + (q - j.begin)) * kPanel);
    };
    std::fill_n(g.data(), g.rows() * g.cols(), 0.0);
    const auto add = [&](const Panels& left, const Panels& right) {
      for_each_depth(j.begin, panels, [&](std::size_t first, std::size_t blocks) {
        for (std::size_t q = j.begin; q < std::min(j.end(), first + blocks); ++q) {
          const std::size_t begin = std::max(first, q);
          const std::size_t depth = first + blocks - begin;
          for (std::size_t p = i.begin; p < std::min(i.end(), q + 1); ++p) {
            if (first + blocks < panels) {
              prefetch(left.at(p, first + blocks), q - j.begin);
              prefetch(right.at(q, first + blocks), p - i.begin);
            }
            tiles::multiply_panels(depth * kPanel, left.at(p, begin), right.at(q, begin), block(p, q));
            blocks_multiplied[task] += static_cast<double>(depth);
          }
        }
      });
    };
    add(qt, ft);
    add(ft, qt);
    for (std::size_t p = i.begin; p < i.end(); ++p) {
      const Range rows = range(p, n, kPanel);
      for (std::size_t q = std::max(p, j.begin); q < j.end(); ++q) {
        const Range columns = range(q, n, kPanel);
        for (std::size_t r = 0; r < rows.size; ++r) {
          std::copy_n(block(p, q) + r * kPanel, columns.size, out.g.row(rows.begin + r) + columns.begin);
        }
      }
    }
  });
  out.flops =
      product_flops(kPanel, kPanel, kPanel) * std::accumulate(blocks_multiplied.begin(), blocks_multiplied.end(), 0.0);
  return out;
}

namespace {

// F = high + low, as residual() needs it.
struct Split {
  Matrix high;
  Matrix low;
  double low_norm = 0;    // ||low||_F at most
  double scaled_low = 0;  // ||low V^-1||_F at most
};

// The powers of two of which the elements of a column's part `high` are multiples: of 2 b bits and the carry of r sums,
// products have 53.
std::vector<double> quanta(const Matrix& f, Shape shape) {
  const std::size_t r = f.rows();
  const std::size_t n = f.cols();
  int carry = 0;
  while ((std::size_t{1} << carry) < r) ++carry;
  const int bits = (53 - carry) / 2;
  std::vector<double> out(n);
  parallel_for(strips(n), [&](std::size_t task) {
    const Range j = strip(task, n);
    for (std::size_t k = 0; k < (shape == Shape::kUpper ? std::min(r, j.end()) : r); ++k) {
      for (std::size_t c = j.begin; c < j.end(); ++c) out[c] = std::max(out[c], std::abs(f(k, c)));
    }
    for (std::size_t c = j.begin; c < j.end(); ++c) {
      if (out[c] > 0) out[c] = std::scalbn(1.0, std::ilogb(out[c]) + 1 - bits);
    }
  });
  return out;
}

Split split(const Matrix& f, Shape shape, const std::vector<double>& scale) {
  const std::size_t r = f.rows();
  const std::size_t n = f.cols();
  const std::vector<double> quantum = quanta(f, shape);
  Split out{Matrix(r, n), Matrix(r, n)};
  std::vector<double> reciprocal(n);
  double squares = 0;
  double scaled_squares = 0;
  for (std::size_t j = 0; j < n; ++j) {
    reciprocal[j] = quantum[j] > 0 ? 1 / quantum[j] : 0;
    squares += quantum[j] * quantum[j] / 4;
    if (!scale.empty()) scaled_squares += (quantum[j] / scale[j]) * (quantum[j] / scale[j]) / 4;
  }
  out.low_norm = std::sqrt(static_cast<double>(r) * squares);
  out.scaled_low = std::sqrt(static_cast<double>(r) * scaled_squares);
  for_each_row(r, [&](std::size_t k) {
    constexpr double kToInteger = 0x1.8p52;  // a number below 2^51 added to it is rounded to an integer
    for (std::size_t j = 0; j < n; ++j) {
      const double x = f(k, j);
      const double high = (x * reciprocal[j] + kToInteger - kToInteger) * quantum[j];
      out.high(k, j) = high;
      out.low(k, j) = x - high;
    }
  });
  return out;
}

// Of the lower triangle of one strip of E, counted with its mirror image.
struct ResidualPartial {
  double squares = 0;
  double scaled = 0;
  double largest = 0;
  double flops = 0;
};

// Rows `i` of E = S - F^T F, columns up to the diagonal.
Matrix residual_strip(const FillElements& fill, const Matrix& f, const Split& parts, Shape shape, Range i,
                      double& flops) {
  const int n = dim(f.cols());
  const std::size_t depth = shape == Shape::kUpper ? std::min(f.rows(), i.end()) : f.rows();
  Matrix e(i.size, i.end());
  Matrix product(i.size, i.end());
  fill(i.begin, i.size, 0, i.end(), e.data(), i.end());
  const auto multiply = [&](double alpha, const Matrix& left, const Matrix& right, double beta, Matrix& out) {
    gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(i.end()), dim(depth), alpha, left.data() + i.begin, n,
         right.data(), n, beta, out.data(), dim(i.end()));
    flops += product_flops(i.size, i.end(), depth);
  };
  // Apart from S: added to it inside of the product, the sums would not be exact.
  multiply(1.0, parts.high, parts.high, 0.0, product);
  for (std::size_t k = 0; k < i.size * i.end(); ++k) e.data()[k] -= product.data()[k];
  multiply(-1.0, parts.high, parts.low, 1.0, e);
  multiply(-1.0, parts.low, f, 1.0, e);
  return e;
}

}  // namespace

ResidualNorms residual(const FillElements& fill, const Matrix& f, Shape shape, const std::vector<double>& scale,
                       double& flops) {
  const std::size_t n = f.cols();
  const Split parts = split(f, shape, scale);
  std::vector<ResidualPartial> partials(strips(n));
  parallel_for(strips(n), [&](std::size_t task) {
    const std::size_t index = strips(n) - 1 - task;
    const Range i = strip(index, n);
    ResidualPartial& partial = partials[index];
    const Matrix e = residual_strip(fill, f, parts, shape, i, partial.flops);
    for (std::size_t r = 0; r < i.size; ++r) {
      const double* const row = e.row(r);
      const std::size_t diagonal = i.begin + r;
      for (std::size_t c = 0; c <= diagonal; ++c) {
        const double weight = c < diagonal ? 2 : 1;
        partial.squares += weight * row[c] * row[c];
        partial.largest = std::max(partial.largest, std::abs(row[c]));
        if (scale.empty()) continue;
        const double x = row[c] / scale[c] / scale[diagonal];
        partial.scaled += weight * x * x;
      }
    }
  });
  ResidualNorms out;
  for (const ResidualPartial& partial : partials) {
    out.frobenius += partial.squares;
    out.scaled += partial.scaled;
    out.largest = std::max(out.largest, partial.largest);
    flops += partial.flops;
  }
  out.frobenius = std::sqrt(out.frobenius);
  out.scaled = std::sqrt(out.scaled);
  const double size = static_cast<double>(n);
  const double count = 2 * static_cast<double>(f.rows()) + 4;
  const double rounding = 1.01 * count * 0x1p-53;
  // Each of the products and sums may underflow by half of the smallest number.
  const double underflow = size * count * 0x1p-1074;
  out.error = rounding * (out.frobenius + 4 * parts.low_norm * frobenius_norm(f)) + underflow;
  if (scale.empty()) return out;
  const double least = *std::min_element(scale.begin(), scale.end());
  out.scaled_error = rounding * (out.scaled + 4 * parts.scaled_low * std::sqrt(1.01 * size));
  out.scaled_error += underflow / least / least;
  return out;
}

double product_norm(const Matrix& a, Shape shape_a, const Matrix& b, double& flops) {
  const std::size_t m = a.rows();
  const std::size_t n = b.cols();
  const std::size_t k = a.cols();
  const std::size_t width = triangular_strip(n);
  std::vector<Block> list;
  for (std::size_t i = 0; i < strips(m); ++i) {
    for (std::size_t j = 0; j < count(n, width); ++j) list.push_back({strip(i, m), range(j, n, width)});
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

// LAPACK is column-major: it sees the transpose of our matrices, and our upper triangle as its lower one.
bool cholesky(Matrix& a) {
  ensure_single_threaded();
  const std::size_t n = a.rows();
  // Strip by strip: what the strips above contribute, the factor of the square on the diagonal, and with it the rest.
  for (std::size_t index = 0; index < strips(n); ++index) {
    const Range i = strip(index, n);
    const auto columns = [&](std::size_t task) {
      Range j = range(task, n - i.end(), kCholeskyColumns);
      j.begin += i.end();
      return j;
    };
    const std::size_t tasks = count(n - i.end(), kCholeskyColumns);
    if (i.begin > 0) {
      parallel_for(tasks + 1, [&](std::size_t task) {
        if (task == tasks) {
          syrk(Transpose::kYes, dim(i.size), dim(i.begin), -1.0, a.data() + i.begin, dim(n), 1.0,
               a.row(i.begin) + i.begin, dim(n), Triangle::kUpper);
        } else {
          const Range j = columns(task);
          gemm(Transpose::kYes, Transpose::kNo, dim(i.size), dim(j.size), dim(i.begin), -1.0, a.data() + i.begin,
               dim(n), a.data() + j.begin, dim(n), 1.0, a.row(i.begin) + j.begin, dim(n));
        }
      });
    }
    double* const square = a.row(i.begin) + i.begin;
    const lapack_int info = scipy_LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', dim(i.size), square, dim(n));
    FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's dpotrf refused its argument ", -info);
    if (info > 0) return false;
    for (std::size_t r = i.begin; r < i.end(); ++r) {
      if (!(a(r, r) > 0)) return false;  // dpotrf lets a NaN pivot pass
      std::fill_n(a.row(r), r, 0.0);
    }
    parallel_for(tasks, [&](std::size_t task) {
      const Range j = columns(task);
      scipy_cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, dim(i.size), dim(j.size), 1.0,
                        square, dim(n), a.row(i.begin) + j.begin, dim(n));
    });
  }
  return true;
}

Matrix pivoted_cholesky(Matrix& s, double tol) {
  ensure_single_threaded();
  const std::size_t n = s.rows();
  std::vector<lapack_int> pivots(n);
  std::vector<double> work(2 * n);
  lapack_int rank = 0;
  const lapack_int info = scipy_LAPACKE_dpstrf_work(LAPACK_COL_MAJOR, 'L', dim(n), s.data(), dim(n), pivots.data(),
                                                    &rank, tol, work.data());
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's dpstrf refused its argument ", -info);
  Matrix f(static_cast<std::size_t>(rank), n);
  for (std::size_t i = 0; i < f.rows(); ++i) {
    for (std::size_t j = 0; j < n; ++j) f(i, static_cast<std::size_t>(pivots[j] - 1)) = j < i ? 0.0 : s(i, j);
  }
  return f;
}

Matrix triangular_factor(Matrix& a) {
  ensure_single_threaded();
  const std::size_t n = a.cols();
  // Column-major LAPACK sees A^T = L Q^T, and its L is our R.
  std::vector<double> tau(n);
  check_lapack("dgelqf", scipy_LAPACKE_dgelqf(LAPACK_COL_MAJOR, dim(n), dim(a.rows()), a.data(), dim(n), tau.data()));
  Matrix r(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    std::fill_n(r.row(i), i, 0.0);
    std::copy_n(a.row(i) + i, n - i, r.row(i) + i);
  }
  return r;
}

double solve_right(const Matrix& r, Matrix& b) {
  ensure_single_threaded();
  const std::size_t n = r.rows();
  parallel_for(strips(b.rows()), [&](std::size_t t) {
    const Range i = strip(t, b.rows());
    scipy_cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, dim(i.size), dim(n), 1.0,
                      r.data(), dim(n), b.row(i.begin), dim(n));
  });
  return product_flops(b.rows(), n, n) / 2;
}

Matrix inverse_of_upper(const Matrix& r, double& flops) {
  ensure_single_threaded();
  const std::size_t n = r.rows();
  Matrix y(n, n);
  for_each_row(n, [&](std::size_t i) {
    std::fill_n(y.row(i), n, 0.0);
    y(i, i) = 1;
  });
  const std::size_t width = triangular_strip(n);
  std::vector<double> spent(count(n, width));
  parallel_for(spent.size(), [&](std::size_t task) {
    const std::size_t index = spent.size() - 1 - task;  // the longest first
    const Range j = range(index, n, width);
    scipy_cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, dim(j.end()), dim(j.size), 1.0,
                      r.data(), dim(n), y.data() + j.begin, dim(n));
    spent[index] = product_flops(j.end(), j.end(), j.size) / 2;
  });
  flops += std::accumulate(spent.begin(), spent.end(), 0.0);
  return y;
}

// As LAPACK's dsytrd_sy2sb does on the column-major lower triangle: for each block of kBand columns the part below the
// band is factored, Q R with Q = I - V T V^T, and the rest becomes Q^T A Q = A - V W^T - W V^T with
// W = A V T - V (T^T V^T A V T) / 2. But that update is made when the next block's A V reads the elements, tile by
// tile, and only in the next block's own columns at once: the matrix goes through the cache once for each block.
Band reduce_to_band(Matrix& matrix) {
  constexpr std::size_t kBand = tiles::kVectors;  // 48 to 96 are as fast, and what follows is not
  static_assert(kStripRows % tiles::kEdge == 0);
  ensure_single_threaded();
  tiles::instruction_set();  // chosen before the threads need it
  const std::size_t n = matrix.rows();
  double* const a = matrix.data();
  const auto at = [&](std::size_t i, std::size_t j) { return a + i + j * n; };
  const std::size_t rows = tiles::padded(n) + tiles::kEdge;  // Update::without_first_panel reads on for kBand rows
  Matrix v(rows, kBand);
  Matrix w(rows, kBand);
  Matrix left(rows, 2 * kBand);
  Matrix right(rows, 2 * kBand);
  // Of each strip, one after the other: what it adds to A V by its elements' mirror images, and its part of V^T W.
  const auto mirrored_row = [](std::size_t index) { return index * (index + 1) / 2 * kStripRows; };
  Matrix mirrored(mirrored_row(strips(n)), kBand);
  Matrix products(strips(n) * kBand, kBand);
  Matrix scratch(strips(n), tiles::kEdge * tiles::kEdge);
  Matrix t(kBand, kBand);
  Matrix z(kBand, kBand);
  std::vector<double> reflectors(kBand * kBand);
  std::vector<double> work(kBand * kBand);
  tiles::Update update;  // what is still to be made
  for (std::size_t k = 0; k + kBand < n; k += kBand) {
    const std::size_t first = k + kBand;  // of the rows below the band
    const std::size_t m = n - first;
    const std::size_t b = std::min(m, kBand);
    check_lapack("dgeqrt3", scipy_LAPACKE_dgeqrt3_work(LAPACK_COL_MAJOR, dim(m), dim(b), at(first, k), dim(n),
                                                       reflectors.data(), kBand));
    if (b < kBand) {  // the last block: fewer rows than columns; the columns beyond are only rotated
      check_lapack("dgemqrt", scipy_LAPACKE_dgemqrt_work(LAPACK_COL_MAJOR, 'L', 'T', dim(m), dim(kBand - b), dim(b),
                                                         dim(b), at(first, k), dim(n), reflectors.data(), kBand,
                                                         at(first, k + b), dim(n), work.data()));
    }
    for (std::size_t i = 0; i < kBand; ++i) {
      for (std::size_t j = 0; j < kBand; ++j) t(i, j) = i <= j && j < b ? reflectors[i + j * kBand] : 0.0;
    }
    const auto strip_at = [&](std::size_t index) {
      const Range i = strip(index, m);
      return tiles::Strip{at(first, first), n, m, i.begin, i.end(), scratch.row(index)};
    };
    // Rows from m on, up to a whole number of tiles, are zeros in all of V, W, left and right.
    const auto for_each_strip = [&](const auto& body) {
      parallel_for(strips(m), [&](std::size_t task) {
        const std::size_t index = strips(m) - 1 - task;  // the longest strip first
        body(index, strip_at(index), tiles::padded(strip(index, m).end()));
      });
    };
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t end) {
      for (std::size_t i = s.begin; i < end; ++i) {
        for (std::size_t j = 0; j < kBand; ++j) {
          v(i, j) = i > j && i < m && j < b ? *at(first + i, k + j) : 0.0;
        }
        if (i < b) v(i, i) = 1;
      }
    });
    for_each_strip([&](std::size_t index, const tiles::Strip& s, std::size_t) {
      tiles::update_and_multiply(s, update, v.data(), w.data(), mirrored.row(mirrored_row(index)));
    });
    for_each_strip([&](std::size_t index, const tiles::Strip& s, std::size_t end) {
      for (std::size_t other = index; other < strips(m); ++other) {
        const double* const from = mirrored.row(mirrored_row(other));
        const std::size_t last = std::min(end, tiles::mirrored_rows(strip_at(other)));
        for (std::size_t e = s.begin * kBand; e < last * kBand; ++e) w.data()[e] += from[e];
      }
      // A V has been read when its rows are overwritten: a copy of them is in the strip's own part of `mirrored`.
      double* const y = mirrored.row(mirrored_row(index) + s.begin);
      std::copy(w.row(s.begin), w.row(end), y);
      std::fill(w.row(s.begin), w.row(end), 0.0);
      tiles::multiply(tiles::Left::kPlain, end - s.begin, y, t.data(), w.row(s.begin));
      std::fill(products.row(index * kBand), products.row((index + 1) * kBand), 0.0);
      tiles::multiply(tiles::Left::kTransposed, end - s.begin, v.row(s.begin), w.row(s.begin),
                      products.row(index * kBand));
    });
    for (std::size_t index = 1; index < strips(m); ++index) {
      for (std::size_t e = 0; e < kBand * kBand; ++e) products.data()[e] += products.row(index * kBand)[e];
    }
    std::fill(z.row(0), z.row(kBand), 0.0);
    tiles::multiply(tiles::Left::kTransposed, kBand, t.data(), products.data(), z.data());
    for (std::size_t e = 0; e < kBand * kBand; ++e) z.data()[e] *= -0.5;
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t end) {
      tiles::multiply(tiles::Left::kPlain, end - s.begin, v.row(s.begin), z.data(), w.row(s.begin));
      tiles::pack_update(s.begin, end, v.data(), w.data(), left.data(), right.data());
    });
    std::fill(left.row(tiles::padded(m)), left.row(tiles::padded(m) + kBand), 0.0);
    std::fill(right.row(tiles::padded(m)), right.row(tiles::padded(m) + kBand), 0.0);
    update = {left.data(), right.data()};
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t) { tiles::update_panel(s, update); });
    update = update.without_first_panel();
  }
  Band band{n, kBand, std::vector<double>((kBand + 1) * n)};
  for (std::size_t j = 0; j < n; ++j) {
    std::copy_n(at(j, j), std::min(kBand + 1, n - j), band.elements.data() + j * (kBand + 1));
  }
  return band;
}

// Chased to tridiagonal form, then the square-root-free QL method.
std::vector<double> symmetric_eigenvalues(Band band) {
  ensure_single_threaded();
  std::vector<double> values(band.n);
  std::vector<double> off_diagonal(band.n);
  const lapack_int size = dim(band.n);
  const lapack_int width = dim(band.width);
  const lapack_int stride = width + 1;
  lapack_int info = 0;
  const auto chase = [&](double* hous, lapack_int lhous, double* work, lapack_int lwork) {
    scipy_dsytrd_sb2st_("N", "N", "L", &size, &width, band.elements.data(), &stride, values.data(), off_diagonal.data(),
                        hous, &lhous, work, &lwork, &info, 1, 1, 1);
    check_lapack("dsytrd_sb2st", info);
  };
  double hous_size = 0;
  double work_size = 0;
  chase(&hous_size, -1, &work_size, -1);
  std::vector<double> hous(static_cast<std::size_t>(hous_size));
  std::vector<double> work(static_cast<std::size_t>(work_size));
  chase(hous.data(), dim(hous.size()), work.data(), dim(work.size()));
  check_lapack("dsterf", scipy_LAPACKE_dsterf_work(size, values.data(), off_diagonal.data()));
  return values;
}

std::vector<double> symmetric_eigenvalues(Matrix& a) {
  ensure_single_threaded();
  const std::size_t n = a.rows();
  if (n >= kMinBandSize) return symmetric_eigenvalues(reduce_to_band(a));
  std::vector<double> values(n);
  check_lapack("dsyevd", scipy_LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', dim(n), a.data(), dim(n), values.data()));
  return values;
}

std::vector<double> symmetric_eigenvectors(Matrix& a) {
  ensure_single_threaded();
  const int n = dim(a.rows());
  std::vector<double> values(a.rows());
  check_lapack("dsyevd", scipy_LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', n, a.data(), n, values.data()));
  return values;
}

std::vector<double> singular_values(Matrix& a) {
  ensure_single_threaded();
  std::vector<double> values(std::min(a.rows(), a.cols()));
  if (values.empty()) return values;
  double unused = 0;
  check_lapack("dgesdd", scipy_LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'N', dim(a.cols()), dim(a.rows()), a.data(),
                                              dim(a.cols()), values.data(), &unused, 1, &unused, 1));
  return values;
}

void scale_in_place(double* x, std::size_t n, int e) {
  if (e == 0) return;
  // 2^e itself may not be representable: two steps.
  const double first = std::scalbn(1.0, e / 2);
  const double second = std::scalbn(1.0, e - e / 2);
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] * first * second;
}

double inner_product(const Matrix& a, const Matrix& b) {
  // One partial sum per row: the order of additions does not depend on the number of threads.
  ensure_single_threaded();
  std::vector<double> sums(a.rows());
  parallel_for(strips(a.rows()), [&](std::size_t t) {
    const Range i = strip(t, a.rows());
    for (std::size_t r = i.begin; r < i.end(); ++r) {
      sums[r] = scipy_cblas_ddot(dim(a.cols()), a.row(r), 1, b.row(r), 1);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double frobenius_norm(const Matrix& a) { return std::sqrt(inner_product(a, a)); }

double trace(const Matrix& a) {
  double sum = 0;
  for (std::size_t i = 0; i < a.rows(); ++i) sum += a(i, i);
  return sum;
}

}  // namespace fastfid::linalg
