// A symmetric matrix stored in half of the memory, for sums of squares of rows.
#pragma once

#include <cstddef>
#include <functional>

#include "core/memory.hpp"
#include "core/parallel.hpp"

namespace fastfid {

// A symmetric d x d matrix of which one triangle is stored, in the rectangular full packed format of LAPACK
// (Gustavson, Wasniewski, Dongarra & Langou, ACM TOMS 37(2), 2010). Two triangles of half the size fill one rectangle
// above the off-diagonal square, so that BLAS works in place on half the memory.
//
// With h = ceil(d / 2), row-major: the lower triangle of S[0:h, 0:h] on and below the diagonal, S[h:d, 0:h] below it,
// and the upper triangle of S[h:d, h:d] whose diagonal is kGap places right of the diagonal of S[0:h, 0:h]. LAPACK's
// gap is 1. A gap of 8 elements, and rows of a multiple of 8, put each of these parts on cache lines of its own
// (measured: 1.3 % of the rank-k update).
class PackedSymmetric {
 public:
  PackedSymmetric() = default;
  explicit PackedSymmetric(int d) : d_(d) {}

  void allocate();  // Fills with zeros. Has no effect if the memory is allocated already.

  // S += Z^T Z with Z (k, d), row-major, rows ldz apart. Cut into 4 tasks of equal size for any number of threads.
  void add_gram(const double* z, int k, int ldz);
  // S += other + weight delta delta^T.
  void add(const PackedSymmetric& other, double weight, const double* delta);

  // S / divisor, (d, d), both triangles, row-major.
  void expand(double divisor, double* out) const;
  // Lower triangle by rows, d (d + 1) / 2 elements.
  void to_triangle(double* out) const;
  void from_triangle(const double* in);

  double diagonal(int i) const { return data_[index(i, i)]; }

 private:
  static constexpr int kGap = 8;

  int half() const { return (d_ + 1) / 2; }
  int row_length() const { return (d_ - half() + 7) / 8 * 8 + kGap; }
  std::size_t index(int row, int column) const;  // row >= column

  int d_ = 0;
  LargeVector data_;
};

// Calls body(i) for i in [0, count), on all threads where a task over d columns takes longer than waking a thread.
// Throws only what `body` throws: with std::ref, std::function allocates no memory.
template <class F>
void for_each_task(int d, int count, const F& body) {
  constexpr int kSmallDims = 128;  // for smaller d, a block takes about as long as waking a thread
  if (d < kSmallDims) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) body(i);
  } else {
    parallel_for(static_cast<std::size_t>(count), std::ref(body));
  }
}

}  // namespace fastfid
