// The steps of the polar route that are not products: element-wise steps and sums, on row-major matrices in device
// memory.
//
// All functions enqueue on the stream and return. They read and write every element once (n = 2048, float64: 32 MiB for
// each matrix). The order of a sum is fixed and depends only on the number of elements, so the bits are the same on
// every device. Every matrix has fewer than 2^31 elements.
#pragma once

#include <cstddef>

#include "core/polar.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// Scalars of the polar route. They are in device memory, and one copy brings all of them to the host.
struct PolarScalars {
  PolarMeasures measures;
  double scale = 1;  // scale of the first step
  double shift = 0;  // shift of the first trial
  double norm_c = 0;
  double norm_w = 0;
  double residual = 0;  // ||M - W C||_F
  int failed = 0;       // not 0 where the last Cholesky factorisation failed
};

// The facts about a symmetric matrix before it is factored.
struct SymmetricFacts {
  double trace = 0;
  double largest = 0;    // max |element|; NaN where an element is NaN
  double asymmetry = 0;  // max |element - mirror image|
};

// The facts about the factor of a symmetric matrix.
struct FactorCheck {
  double residual = 0;  // ||A - R^T R||_F
  int lost_pivots = 0;  // pivots below noise times the diagonal element of A, or not a number
  int failed = 0;
};

// Elements of the workspace that the sums need.
std::size_t sum_workspace();

// The lower triangle of A (n x n) becomes the mirror image of the upper triangle.
template <class T>
void mirror_upper(T* a, std::size_t n, Stream stream);

// Y := c0 I + c1 Y + c2 Y2 in both triangles, from the upper triangles. The coefficients are scaled_quintic(c, *scale);
// `scale` is in device memory, and null means 1.
template <class T>
void polynomial(T* y, const T* y2, std::size_t n, const polar::Quintic& c, const double* scale, Stream stream);

// C's upper triangle := (H + H^T) / 2 + *shift I.
void shifted_symmetric_part(const double* h, std::size_t n, const double* shift, double* c, Stream stream);

// C's upper triangle := level I - Y.
void identity_minus(const double* y, std::size_t n, double level, double* c, Stream stream);

// A's lower triangle := 0.
void zero_lower(double* a, std::size_t n, Stream stream);

// x[i] := m[i] / *divisor.
void divide(const double* m, std::size_t count, const double* divisor, double* x, Stream stream);

// to[i] := from[i], rounded where T is narrower.
template <class To, class From>
void convert(const From* from, std::size_t count, To* to, Stream stream);

// *norm := ||A||_F of `count` elements.
void frobenius_norm(const double* a, std::size_t count, double* workspace, double* norm, Stream stream);

// Sets scalars->scale from the upper triangle of Y^2.
void first_scale(const double* y2, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream);
void first_scale(const float* y2, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream);

// Sets scalars->measures except norm_m, and scalars->shift, from Y (both triangles) and H, both n x n.
void measure(const double* y, const double* h, std::size_t n, double* workspace, PolarScalars* scalars, Stream stream);

// Sets scalars->norm_c, norm_w and residual from the upper triangle of C (n x n), W, M and the product WC (m x n).
void measure_trial(const double* c, std::size_t n, const double* w, const double* m, const double* wc,
                   std::size_t count, double* workspace, PolarScalars* scalars, Stream stream);

// The facts of S (n x n).
void symmetric_facts(const double* s, std::size_t n, double* workspace, SymmetricFacts* facts, Stream stream);

// A's and the copy's upper triangle := (S + S^T) / 2 times `scale`, a power of two.
void scaled_symmetric_part(const double* s, std::size_t n, double scale, double* a, double* copy, Stream stream);

// F (n x d) := X minus the mean of each column. The means are written to `mean` (d,). X: n rows of d features, `stride`
// elements apart. Computed in float64 in two passes, as on the host.
void centre_rows(const float* x, std::size_t stride, std::size_t n, std::size_t d, double* f, double* mean,
                 Stream stream);

// Reflects the rows of F (n x d), whose columns sum to zero, so that the last row would become zero
// (fastfid::factor_rows), and divides the first n - 1 rows by `divisor`. The last row is not written.
void reflect_rows(double* f, std::size_t n, std::size_t d, double divisor, Stream stream);

// Sets check->residual and lost_pivots from the upper triangles of A, its factor R, and R^T R.
void check_factor(const double* a, const double* r, const double* rtr, std::size_t n, double noise, double* workspace,
                  FactorCheck* check, Stream stream);

}  // namespace fastfid::cuda
