// csrc/cuda/polar.cpp and its kernels, emulated, for ctypes.
#include "cuda/polar.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cuda/math_libraries.hpp"
#include "cuda/polar_kernels.cu"
#include "cuda_emulation.hpp"

using namespace fastfid;

namespace {

void put(const std::string& text, char* out) { std::strncpy(out, text.c_str(), 1023); }

}  // namespace

extern "C" {

void emulation_order(int order) { emulation::the_order = static_cast<emulation::Order>(order); }

void set_folder(const char* folder) { cuda::set_math_library_folders({folder}); }

struct Outcome {
  double value, lower, upper, gemms, factor_residual;
  int iterations;
  char method[1024], note[1024], error[1024];
};

// Sides are covariances (d, d) or, where n > 0, feature rows (n, d). tol < 0: no tolerance.
void trace_sqrt_product(const double* first, int n1, const double* second, int n2, int d, int is_on_device, double tol,
                        int late, Outcome* out) {
  try {
    const cuda::Stream stream;
    const auto side = [&](const double* data, int n, const char* name) {
      const auto dims = static_cast<std::size_t>(d);
      if (n > 0) return cuda::to_device(factor_rows(data, static_cast<std::size_t>(n), dims, name), stream);
      return std::move(cuda::factor_covariances({{data, is_on_device != 0, dims, name}}, stream).front());
    };
    cuda::DeviceFactor a = side(first, n1, "sigma1");
    cuda::DeviceFactor b = side(second, n2, "sigma2");
    const TraceResult result =
        cuda::trace_sqrt_product(std::move(a), std::move(b), tol < 0 ? std::nullopt : std::optional(tol), stream,
                                 static_cast<cuda::LatePrecision>(late));
    out->value = result.value;
    out->lower = result.lower;
    out->upper = result.upper;
    out->gemms = result.gemms;
    out->factor_residual = result.factor_residual;
    out->iterations = result.iterations;
    put(result.method, out->method);
    put(result.note, out->note);
  } catch (const std::exception& error) {
    put(error.what(), out->error);
  }
}

// out: value, lower, upper, mean_term, trace1, trace2; sides as in trace_sqrt_product().
void frechet_distance(const double* mu1, const double* first, int n1, const double* mu2, const double* second, int n2,
                      int d, double* out) {
  const auto side = [&](const double* mu, const double* data, int n) {
    Gaussian gaussian{"", mu, static_cast<std::size_t>(d), data};
    if (n > 0) gaussian.covariance = FeatureRows{data, static_cast<std::size_t>(n)};
    return gaussian;
  };
  const Gaussian a = side(mu1, first, n1);
  const Gaussian b = side(mu2, second, n2);
  const FrechetResult r = cuda::frechet_distance(&a, &b, std::nullopt, {});
  std::copy_n(std::vector{r.value, r.lower, r.upper, r.mean_term, r.trace1, r.trace2}.data(), 6, out);
}

void mirror(double* a, int n) { cuda::mirror_upper(a, n, {}); }

void polynomial(double* y, const double* y2, int n, const double* c, const double* scale) {
  cuda::polynomial(y, y2, n, {c[0], c[1], c[2]}, scale, {});
}
void polynomial_single(float* y, const float* y2, int n, const double* c, const double* scale) {
  cuda::polynomial(y, y2, n, {c[0], c[1], c[2]}, scale, {});
}

void shifted_symmetric_part(const double* h, int n, double shift, double* c) {
  cuda::shifted_symmetric_part(h, n, &shift, c, {});
}

double first_scale(const double* y2, int n) {
  std::vector<double> work(cuda::sum_workspace());
  cuda::PolarScalars scalars;
  cuda::first_scale(y2, n, work.data(), &scalars, {});
  return scalars.scale;
}

// out: norm_y, norm_h, <Y, H>, tr Y, tr H, shift.
void measure(const double* y, const double* h, int n, double norm_m, double* out) {
  std::vector<double> work(cuda::sum_workspace());
  cuda::PolarScalars s;
  s.measures.norm_m = norm_m;
  cuda::measure(y, h, n, work.data(), &s, {});
  const PolarMeasures& m = s.measures;
  std::copy_n(std::vector{m.norm_y, m.norm_h, m.inner_yh, m.trace_y, m.trace_h, s.shift}.data(), 6, out);
}

// out: norm_c, norm_w, residual.
void measure_trial(const double* c, int n, const double* w, const double* m, const double* wc, int rows, double* out) {
  std::vector<double> work(cuda::sum_workspace());
  cuda::PolarScalars s;
  cuda::measure_trial(c, n, w, m, wc, static_cast<std::size_t>(rows) * n, work.data(), &s, {});
  std::copy_n(std::vector{s.norm_c, s.norm_w, s.residual}.data(), 3, out);
}

void centre_rows(const float* x, int stride, int n, int d, double* f, double* mean) {
  cuda::centre_rows(x, stride, n, d, f, mean, {});
}
void reflect_rows(double* f, int n, int d, double divisor) { cuda::reflect_rows(f, n, d, divisor, {}); }

// out: trace, largest, asymmetry.
void symmetric_facts(const double* s, int n, double* out) {
  std::vector<double> work(cuda::sum_workspace());
  cuda::SymmetricFacts facts;
  cuda::symmetric_facts(s, n, work.data(), &facts, {});
  std::copy_n(std::vector{facts.trace, facts.largest, facts.asymmetry}.data(), 3, out);
}
}
