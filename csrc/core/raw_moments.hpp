// Raw sums of feature rows, in the layout of torchmetrics' FrechetInceptionDistance: sum x and sum x x^T.
//
// The sums of batches, metrics and processes are combined by plain addition, as distributed training reduces them. The
// disadvantage is cancellation: the covariance (C - n m m^T) / (n - 1) loses log10(|m|^2 / variance) digits of
// float64's 16. Moments (moments.hpp) is the accumulator without cancellation.
#pragma once

#include <cstddef>

namespace fastfid {

// sum += sum_i x_i and cross += sum_i x_i x_i^T over the n rows x_i.
//
// rows (n, d), sum (d,) and cross (d, d), both triangles, are row-major float64 in host memory and do not overlap.
// Throws InvalidArgument unless d >= 1 and n < 2^31. Throws NumericalError, naming the first row with a NaN or an
// infinity, before any row is added. Cost: n d^2 flops, in fixed tiles over the thread pool: the bits do not depend on
// the number of threads. Memory: one tile for each task.
void add_raw_moments(const double* rows, std::size_t n, int d, double* sum, double* cross);

}  // namespace fastfid
