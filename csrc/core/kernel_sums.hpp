// Sums of the polynomial kernel k(a, b) = (a . b / d + 1)^3 over pairs of feature rows. The Kernel Inception Distance
// (Binkowski et al. 2018, "Demystifying MMD GANs") and its standard error need nothing else.
//
// Rows are float32, C-contiguous, (n, d) in host memory; products and sums are in float64. Parallel over fixed tiles,
// whose sums are added in a fixed order: the bits do not depend on threads, and equal calls give equal bits. The error
// of each kernel value is a few d u (|a| . |b| / d + 1)^3, u = 2^-53. Each sum adds an error of n u times the absolute
// values of its terms. Scratch memory: 13 MB for each thread at d = 2048, and n_x n_y / 48 bytes. A caller with many
// rows should pass a few rows of y at a time.
#pragma once

#include <cstddef>
#include <vector>

namespace fastfid {

// Sums of k - shift. A shift near the mean of k makes sums of little absolute value, so that variances of k, which are
// differences of such sums, keep their digits.
struct KernelSums {
  std::vector<double> of_x;  // (n_x,): sum over j of k(x_i, y_j) - shift
  std::vector<double> of_y;  // (n_y,): sum over i of k(x_i, y_j) - shift
  double squares = 0;        // sum over i and j of (k(x_i, y_j) - shift)^2
};

// All pairs of a row of x and a row of y: 2 n_x n_y d flops. Throws InvalidArgument for d = 0 or d above 2^30.
KernelSums kernel_sums(const float* x, std::size_t n_x, const float* y, std::size_t n_y, std::size_t d, double shift);

struct KernelSumsWithin {
  std::vector<double> of_x;  // (n,): sum over all j other than i of k(x_i, x_j) - shift
  double squares = 0;        // sum over all i and all j other than i of (k(x_i, x_j) - shift)^2
};

// All pairs of two different rows of x: n^2 d flops. Throws InvalidArgument for the same d as kernel_sums().
KernelSumsWithin kernel_sums_within(const float* x, std::size_t n, std::size_t d, double shift);

}  // namespace fastfid
