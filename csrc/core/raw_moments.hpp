// Raw sums of feature rows, in the layout of torchmetrics' FrechetInceptionDistance: sum x and sum x x^T.
//
// They add up across batches, metrics and processes by plain addition, which is what distributed training reduces. The
// price is cancellation: the covariance (C - n m m^T) / (n - 1) loses log10(|m|^2 / variance) digits of float64's 16.
// Moments (moments.hpp) is the accumulator without that price.
#pragma once

#include <cstddef>

namespace fastfid {

// sum += sum_i x_i and cross += sum_i x_i x_i^T over the n rows x_i.
//
// rows (n, d), sum (d,) and cross (d, d), both triangles, are row-major float64 in host memory and do not overlap.
// Throws InvalidArgument unless d >= 1 and n < 2^31, NumericalError, naming the first row with a NaN or an infinity,
// before anything is added. Costs n d^2 flops
// in fixed tiles over the pool: the bits do not depend on the number of threads. Allocates one tile a task.
void add_raw_moments(const double* rows, std::size_t n, int d, double* sum, double* cross);

}  // namespace fastfid
