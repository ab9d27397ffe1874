#include "core/band.hpp"

#include <algorithm>
#include <cstddef>

#include "core/blas.hpp"
#include "core/strips.hpp"
#include "core/tiles.hpp"

namespace fastfid::linalg {
namespace {

constexpr std::size_t kBand = tiles::kVectors;  // 48 to 96 are as fast here, but slow down the later steps
static_assert(kStripRows % tiles::kEdge == 0);

// Works on the column-major lower triangle like LAPACK's dsytrd_sy2sb. For each block of kBand columns the part below
// the band is factored into Q R with Q = I - V T V^T, and the rest of the matrix becomes Q^T A Q = A - V W^T - W V^T
// with W = A V T - V (T^T V^T A V T) / 2. Only the columns of the next block are updated at once. The other elements
// are updated, tile by tile, when the A V of the next block reads them, so that the matrix goes through the cache once
// for each block.
class Reduction {
 public:
  explicit Reduction(Matrix& a) : n_(a.rows()), a_(a.data()) {}

  Band run() {
    tiles::instruction_set();  // the choice must precede the parallel regions
    for (std::size_t k = 0; k + kBand < n_; k += kBand) {
      k_ = k;
      first_ = k + kBand;
      m_ = n_ - first_;
      b_ = std::min(m_, kBand);
      factor();
      unpack_reflectors();
      multiply();
      finish_products();
      symmetrise();
      prepare_update();
    }
    return band();
  }

 private:
  // Element (i, j) of column-major A.
  double* at(std::size_t i, std::size_t j) { return a_ + i + j * n_; }

  // The row of mirrored_ at which the part of a strip begins.
  static std::size_t mirrored_row(std::size_t index) { return index * (index + 1) / 2 * kStripRows; }

  tiles::Strip strip_at(std::size_t index) {
    const Range i = strip(index, m_);
    return tiles::Strip{at(first_, first_), n_, m_, i.begin, i.end(), scratch_.row(index)};
  }

  // Calls body(index, strip, end of the strip's rows in V, W, left and right). In these four matrices the rows from m
  // on, up to a whole number of tiles, are zeros.
  template <class Body>
  void for_each_strip(const Body& body) {
    parallel_for(strips(m_), [&](std::size_t task) {
      const std::size_t index = strips(m_) - 1 - task;  // the longest strip first
      body(index, strip_at(index), tiles::padded(strip(index, m_).end()));
    });
  }

  // Computes Q R of the part below the band in columns [k, k + kBand), and T.
  void factor() {
    geqrt3(dim(m_), dim(b_), at(first_, k_), dim(n_), reflectors_.data(), kBand);
    if (b_ < kBand) {  // the last block has fewer rows than columns; the remaining columns are only rotated
      apply_transposed_q(dim(m_), dim(kBand - b_), dim(b_), at(first_, k_), dim(n_), reflectors_.data(), kBand,
                         at(first_, k_ + b_), dim(n_), work_.data());
    }
    for (std::size_t i = 0; i < kBand; ++i) {
      for (std::size_t j = 0; j < kBand; ++j) t_(i, j) = i <= j && j < b_ ? reflectors_[i + j * kBand] : 0.0;
    }
  }

  // Copies V from below the diagonal, where LAPACK left it.
  void unpack_reflectors() {
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t end) {
      for (std::size_t i = s.begin; i < end; ++i) {
        for (std::size_t j = 0; j < kBand; ++j) {
          v_(i, j) = i > j && i < m_ && j < b_ ? *at(first_ + i, k_ + j) : 0.0;
        }
        if (i < b_) v_(i, i) = 1;
      }
    });
  }

  // Makes the update of the preceding block, and computes A V. W receives each strip's own rows of A V. mirrored_
  // receives what each strip adds to the rows of other strips.
  void multiply() {
    for_each_strip([&](std::size_t index, const tiles::Strip& s, std::size_t) {
      tiles::update_and_multiply(s, update_, v_.data(), w_.data(), mirrored_.row(mirrored_row(index)));
    });
  }

  // W := A V T. Also computes the strips' parts of V^T W.
  void finish_products() {
    for_each_strip([&](std::size_t index, const tiles::Strip& s, std::size_t end) {
      for (std::size_t other = index; other < strips(m_); ++other) {
        const double* const from = mirrored_.row(mirrored_row(other));
        const std::size_t last = std::min(end, tiles::mirrored_rows(strip_at(other)));
        for (std::size_t e = s.begin * kBand; e < last * kBand; ++e) w_.data()[e] += from[e];
      }
      // The rows of A V are first copied to the strip's own part of mirrored_, because their product with T overwrites
      // them. The strip has read its part of mirrored_ already.
      double* const y = mirrored_.row(mirrored_row(index) + s.begin);
      std::copy(w_.row(s.begin), w_.row(end), y);
      std::fill(w_.row(s.begin), w_.row(end), 0.0);
      tiles::multiply(tiles::Left::kPlain, end - s.begin, y, t_.data(), w_.row(s.begin));
      std::fill(products_.row(index * kBand), products_.row((index + 1) * kBand), 0.0);
      tiles::multiply(tiles::Left::kTransposed, end - s.begin, v_.row(s.begin), w_.row(s.begin),
                      products_.row(index * kBand));
    });
  }

  // W := W - V (T^T V^T W) / 2. Also packs the factors of the update.
  void symmetrise() {
    for (std::size_t index = 1; index < strips(m_); ++index) {
      for (std::size_t e = 0; e < kBand * kBand; ++e) products_.data()[e] += products_.row(index * kBand)[e];
    }
    std::fill(z_.row(0), z_.row(kBand), 0.0);
    tiles::multiply(tiles::Left::kTransposed, kBand, t_.data(), products_.data(), z_.data());
    for (std::size_t e = 0; e < kBand * kBand; ++e) z_.data()[e] *= -0.5;
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t end) {
      tiles::multiply(tiles::Left::kPlain, end - s.begin, v_.row(s.begin), z_.data(), w_.row(s.begin));
      tiles::pack_update(s.begin, end, v_.data(), w_.data(), left_.data(), right_.data());
    });
    std::fill(left_.row(tiles::padded(m_)), left_.row(tiles::padded(m_) + kBand), 0.0);
    std::fill(right_.row(tiles::padded(m_)), right_.row(tiles::padded(m_) + kBand), 0.0);
  }

  // Makes the update in the columns of the next block only; the rest of the update is made later.
  void prepare_update() {
    update_ = {left_.data(), right_.data()};
    for_each_strip([&](std::size_t, const tiles::Strip& s, std::size_t) { tiles::update_panel(s, update_); });
    update_ = update_.without_first_panel();
  }

  Band band() {
    Band band{n_, kBand, std::vector<double>((kBand + 1) * n_)};
    for (std::size_t j = 0; j < n_; ++j) {
      std::copy_n(at(j, j), std::min(kBand + 1, n_ - j), band.elements.data() + j * (kBand + 1));
    }
    return band;
  }

  std::size_t n_;
  double* a_;
  std::size_t rows_ = tiles::padded(n_) + tiles::kEdge;  // Update::without_first_panel reads kBand rows further
  Matrix v_{rows_, kBand};
  Matrix w_{rows_, kBand};
  Matrix left_{rows_, 2 * kBand};
  Matrix right_{rows_, 2 * kBand};
  // For each strip, one after the other: what the mirror images of the strip's elements add to A V, and the strip's
  // part of V^T W.
  Matrix mirrored_{mirrored_row(strips(n_)), kBand};
  Matrix products_{strips(n_) * kBand, kBand};
  Matrix scratch_{strips(n_), tiles::kEdge * tiles::kEdge};
  Matrix t_{kBand, kBand};
  Matrix z_{kBand, kBand};
  std::vector<double> reflectors_ = std::vector<double>(kBand * kBand);
  std::vector<double> work_ = std::vector<double>(kBand * kBand);
  tiles::Update update_;  // the pending update

  // The current block:
  std::size_t k_ = 0;      // the first column
  std::size_t first_ = 0;  // the first row below the band
  std::size_t m_ = 0;      // the number of rows below the band
  std::size_t b_ = 0;      // the number of reflectors
};

}  // namespace

Band reduce_to_band(Matrix& a) { return Reduction(a).run(); }

// The band is reduced to tridiagonal form by bulge chasing. Then follows the square-root-free QL method.
std::vector<double> symmetric_eigenvalues(Band band) {
  std::vector<double> values(band.n);
  std::vector<double> off_diagonal(band.n);
  tridiagonal_of_band(dim(band.n), dim(band.width), band.elements.data(), values.data(), off_diagonal.data());
  sterf(dim(band.n), values.data(), off_diagonal.data());
  return values;
}

}  // namespace fastfid::linalg
