#include "cuda/polar.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/errors.hpp"
#include "core/numbers.hpp"
#include "cuda/math_libraries.hpp"
#include "cuda/polar_kernels.cuh"

namespace fastfid::cuda {
namespace {

constexpr int kMostExponent = 500;  // 4^-exponent is then a float64

double cube(std::size_t n) { return real(n) * real(n) * real(n); }

// Waits for the stream.
template <class T>
std::vector<T> read(const DeviceArray<T>& from, Stream stream) {
  std::vector<T> out(from.size());
  copy_to_host(out.data(), from.data(), from.size() * sizeof(T), stream);
  synchronize(stream);
  return out;
}

bool has_slow_float64(int device) { return device_properties(device).float32_per_float64 > 4; }

// Cholesky factorisations of n x n matrices.
class Cholesky {
 public:
  Cholesky(MathLibraries& math, double* any, std::size_t n, Stream stream)
      : math_(math), n_(n), workspace_(math.cholesky_workspace(any, n), stream) {}
  void operator()(double* a, int* failed) { math_.cholesky(a, n_, workspace_.data(), workspace_.size(), failed); }

 private:
  MathLibraries& math_;
  std::size_t n_;
  DeviceArray<double> workspace_;
};

class DevicePolar final : public PolarOperations {
 public:
  // M = A B^T, a.rows >= b.rows.
  DevicePolar(const DeviceFactor& a, const DeviceFactor& b, bool is_single_late, Stream stream)
      : a_(a), b_(b), is_single_late_(is_single_late), stream_(stream), math_(stream) {}

  std::size_t rows() const override { return a_.rows; }
  std::size_t cols() const override { return b_.rows; }

  void start() override {
    const std::size_t m = rows();
    const std::size_t n = cols();
    const std::size_t d = a_.d;
    for (auto* matrix : {&m_, &x_, &w_, &t_}) *matrix = DeviceArray<double>(m * n, stream_);
    for (auto* matrix : {&y_, &h_, &c_}) *matrix = DeviceArray<double>(n * n, stream_);
    // Only its upper triangle is ever written, and libraries may load, though not use, the other one.
    fill_bytes(c_.data(), 0, n * n * sizeof(double), stream_);
    sums_ = DeviceArray<double>(sum_workspace(), stream_);
    scalars_ = DeviceArray<PolarScalars>(1, stream_);
    fill_bytes(scalars_.data(), 0, sizeof(PolarScalars), stream_);
    cholesky_.emplace(math_, c_.data(), n, stream_);
    if (b_.shape == linalg::Shape::kUpper) {
      math_.multiply_by_upper_transposed(a_.f.data(), b_.f.data(), m, n, m_.data());
      flops_ += real(m) * real(n) * real(n);
    } else {
      math_.multiply_nt(a_.f.data(), b_.f.data(), m, n, d, m_.data());
      flops_ += 2 * real(m) * real(n) * real(d);
    }
    frobenius_norm(m_.data(), m * n, sums_.data(), &scalars_.data()->measures.norm_m, stream_);
    divide(m_.data(), m * n, &scalars_.data()->measures.norm_m, x_.data(), stream_);
  }

  void step(const polar::Quintic& c, bool is_first, bool is_late) override {
    if (is_late && is_single_late_) {
      if (!is_single_) {
        convert(x_.data(), rows() * cols(), single(t_), stream_);
        is_single_ = true;
        is_single_used_ = true;
      }
      step_in(single(t_), single(y_), single(h_), single(w_), c, is_first);
      std::swap(t_, w_);
    } else {
      to_double();
      step_in(x_.data(), y_.data(), h_.data(), w_.data(), c, is_first);
      std::swap(x_, w_);
    }
  }

  PolarMeasures measure() override {
    to_double();
    const std::size_t m = rows();
    const std::size_t n = cols();
    math_.gram_upper(x_.data(), m, n, y_.data());
    mirror_upper(y_.data(), n, stream_);
    math_.multiply_tn(x_.data(), m_.data(), n, n, m, h_.data());
    flops_ += 3 * real(m) * real(n) * real(n);
    cuda::measure(y_.data(), h_.data(), n, sums_.data(), scalars_.data(), stream_);
    enqueue_trial();
    on_host_ = read(scalars_, stream_).front();
    return on_host_.measures;
  }

  // No proof rests on how cuSOLVER factors: its error would have to reach 0.1 of the eigenvalues of a matrix of norm
  // 3.9 for a wrong yes.
  bool is_norm_below_two() override {
    identity_minus(y_.data(), cols(), 3.9, c_.data(), stream_);
    (*cholesky_)(c_.data(), &scalars_.data()->failed);
    flops_ += cube(cols()) / 3;
    return read(scalars_, stream_).front().failed == 0;
  }

  PolarTrial first_trial() override { return to_trial(on_host_); }

  PolarTrial trial(double shift) override {
    copy_to_device(&scalars_.data()->shift, &shift, sizeof shift, stream_);
    enqueue_trial();
    return to_trial(read(scalars_, stream_).front());
  }

  linalg::Matrix matrix() override {
    linalg::Matrix out(rows(), cols());
    copy_to_host(out.data(), m_.data(), rows() * cols() * sizeof(double), stream_);
    synchronize(stream_);
    return out;
  }

  double flops() const override { return flops_; }
  bool is_single_used() const { return is_single_used_; }

 private:
  // Memory of a float64 matrix that is not in use, for a float32 one.
  static float* single(const DeviceArray<double>& memory) {
    return static_cast<float*>(static_cast<void*>(memory.data()));
  }

  static PolarTrial to_trial(const PolarScalars& s) {
    return {.is_factored = s.failed == 0, .norm_c = s.norm_c, .norm_w = s.norm_w, .residual = s.residual};
  }

  void to_double() {
    if (is_single_) convert(single(t_), rows() * cols(), x_.data(), stream_);
    is_single_ = false;
  }

  template <class T>
  void step_in(const T* x, T* y, T* y2, T* next, const polar::Quintic& c, bool is_first) {
    const std::size_t m = rows();
    const std::size_t n = cols();
    math_.gram_upper(x, m, n, y);
    mirror_upper(y, n, stream_);
    math_.gram_upper(y, n, n, y2);
    if (is_first) first_scale(y2, n, sums_.data(), scalars_.data(), stream_);
    polynomial(y, y2, n, c, is_first ? &scalars_.data()->scale : nullptr, stream_);
    math_.multiply(x, y, m, n, n, next);
    flops_ += 3 * real(m) * real(n) * real(n) + cube(n);
  }

  // C^T C = sym(H) + shift I, W = M C^-1 and the measure of what the solve left.
  void enqueue_trial() {
    const std::size_t m = rows();
    const std::size_t n = cols();
    shifted_symmetric_part(h_.data(), n, &scalars_.data()->shift, c_.data(), stream_);
    (*cholesky_)(c_.data(), &scalars_.data()->failed);
    copy_on_device(w_.data(), m_.data(), m * n * sizeof(double), stream_);
    math_.solve_right(c_.data(), w_.data(), m, n);
    math_.multiply_by_upper(w_.data(), c_.data(), m, n, t_.data());
    measure_trial(c_.data(), n, w_.data(), m_.data(), t_.data(), m * n, sums_.data(), scalars_.data(), stream_);
    flops_ += cube(n) / 3 + 2 * real(m) * real(n) * real(n);
  }

  const DeviceFactor& a_;
  const DeviceFactor& b_;
  bool is_single_late_;
  Stream stream_;
  MathLibraries math_;
  DeviceArray<double> m_;
  DeviceArray<double> x_;
  DeviceArray<double> y_;  // X^T X
  DeviceArray<double> h_;  // Y^2, then X^T M
  DeviceArray<double> c_;
  DeviceArray<double> w_;  // the next X, then M C^-1
  DeviceArray<double> t_;  // W C, and X in float32
  DeviceArray<double> sums_;
  DeviceArray<PolarScalars> scalars_;
  std::optional<Cholesky> cholesky_;
  PolarScalars on_host_;
  bool is_single_ = false;  // X is in t_, in float32
  bool is_single_used_ = false;
  double flops_ = 0;
};

// What first_order() reads.
struct TransportScalars {
  double norm_y = 0;
  double residual = 0;  // ||I - F Y||
  double norm_w = 0;    // of F2 Y
};

// L1 of core/factor.hpp for a factor in device memory, with V = I. As on the host, but for what is assumed of the
// solve, nothing: R = I - F Y is measured. Waits for the stream once or twice. Memory: three matrices.
double first_order(DeviceFactor& a, const DeviceFactor& b, double enough, Stream stream) {
  if (!a.has_first_order()) return kNoFirstOrder;
  const std::size_t d = a.d;
  constexpr double kMargin = 1.01;
  const double rounding = kMargin * (real(d) + 2) * kUnitRoundoff;  // of an element of a product
  MathLibraries math(stream);
  DeviceArray<double> y(d * d, stream);
  DeviceArray<double> product(std::max(d, b.rows) * d, stream);
  DeviceArray<double> rest(d * d, stream);
  DeviceArray<double> sums(sum_workspace(), stream);
  DeviceArray<TransportScalars> scalars(1, stream);
  for (auto* matrix : {&y, &rest}) fill_bytes(matrix->data(), 0, d * d * sizeof(double), stream);
  identity_minus(y.data(), d, 1, y.data(), stream);
  math.solve_right(a.f.data(), y.data(), d, d);
  zero_lower(y.data(), d, stream);
  math.multiply_by_upper(a.f.data(), y.data(), d, d, product.data());
  identity_minus(product.data(), d, 1, rest.data(), stream);
  frobenius_norm(y.data(), d * d, sums.data(), &scalars.data()->norm_y, stream);
  frobenius_norm(rest.data(), d * d, sums.data(), &scalars.data()->residual, stream);
  a.flops += 2 * cube(d);
  TransportScalars found = read(scalars, stream).front();
  const double norm_f = std::sqrt(a.trace);
  const double norm_b = std::sqrt(b.trace);
  const double r = kMargin * (found.residual + rounding * norm_f * found.norm_y);
  if (!(r < 0.5)) return kNoFirstOrder;
  const double factor = kMargin * a.distance / (1 - r);
  const double without_product = factor * norm_b * found.norm_y;
  if (without_product <= enough) return without_product;
  math.multiply_by_upper(b.f.data(), y.data(), b.rows, d, product.data());
  frobenius_norm(product.data(), b.rows * d, sums.data(), &scalars.data()->norm_w, stream);
  a.flops += real(b.rows) * real(d) * real(d);
  found = read(scalars, stream).front();
  return std::min(without_product, factor * (found.norm_w + rounding * norm_b * found.norm_y));
}

Factor factor_on_host(const DeviceCovariance& covariance, Stream stream) {
  const std::size_t d = covariance.d;
  linalg::Matrix copy;
  const double* sigma = covariance.sigma;
  if (covariance.is_on_device) {
    copy.reshape(d, d);
    copy_to_host(copy.data(), sigma, d * d * sizeof(double), stream);
    synchronize(stream);
    sigma = copy.data();
  }
  return std::move(fastfid::factor_covariances({{sigma, d, covariance.name}}).front());
}

}  // namespace

namespace {

// From ||A - R^T R|| as computed, A the given covariance: the product is off by d u |R|^T |R|, the symmetric part of A
// by u |A|.
double measured_distance(double residual, const FactorFacts& facts) {
  const double trace = facts.trace + std::sqrt(real(facts.d)) * residual;
  return 1.01 * (residual + (real(facts.d) + 4) * kUnitRoundoff * trace);
}

}  // namespace

DeviceFactor to_device(const Factor& factor, Stream stream) {
  DeviceFactor out;
  static_cast<FactorFacts&>(out) = factor;
  out.rows = factor.f.rows();
  out.shape = factor.shape;
  const std::size_t size = factor.f.rows() * factor.f.cols();
  out.f = DeviceArray<double>(size, stream);
  // From pageable memory: the call returns when the source is no longer needed.
  if (size > 0) copy_to_device(out.f.data(), factor.f.data(), size * sizeof(double), stream);
  return out;
}

std::vector<DeviceFactor> factor_covariances(const std::vector<DeviceCovariance>& covariances, Stream stream) {
  struct Matrices {
    DeviceArray<double> upload;  // of a covariance in host memory
    const double* sigma = nullptr;
    DeviceArray<double> scaled;  // the upper triangle of what is factored
    bool is_regular = true;
  };
  const std::size_t count = covariances.size();
  std::vector<Matrices> sides(count);
  std::vector<DeviceFactor> out(count);
  DeviceArray<double> sums(sum_workspace(), stream);
  DeviceArray<SymmetricFacts> facts(count, stream);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [sigma, is_on_device, d, name] = covariances[i];
    FASTFID_EXPECT(d >= 1 && d <= kMaxDims, InvalidArgument, name, ": expected a covariance with 1 <= d <= ", kMaxDims,
                   ", got d = ", d);
    Matrices& side = sides[i];
    side.sigma = sigma;
    if (!is_on_device) {
      side.upload = DeviceArray<double>(d * d, stream);
      copy_to_device(side.upload.data(), sigma, d * d * sizeof(double), stream);
      side.sigma = side.upload.data();
    }
    symmetric_facts(side.sigma, d, sums.data(), facts.data() + i, stream);
  }
  const std::vector<SymmetricFacts> found = read(facts, stream);

  MathLibraries math(stream);
  DeviceArray<FactorCheck> checks(count, stream);
  fill_bytes(checks.data(), 0, count * sizeof(FactorCheck), stream);
  std::optional<Cholesky> cholesky;
  std::size_t prepared = 0;  // the d that `cholesky` is for
  DeviceArray<double> product;
  for (std::size_t i = 0; i < count; ++i) {
    const SymmetricFacts& fact = found[i];
    DeviceFactor& factor = out[i];
    Matrices& side = sides[i];
    const std::size_t d = covariances[i].d;
    factor.d = d;
    side.is_regular = fact.trace > 0 && std::isfinite(fact.trace) &&
                      fact.largest <= std::numeric_limits<double>::max() && fact.asymmetry <= kAsymmetry * fact.largest;
    if (side.is_regular) factor.exponent = power_of_four(fact.trace);
    side.is_regular &= std::abs(factor.exponent) <= kMostExponent;
    if (!side.is_regular) continue;
    factor.trace = std::scalbn(fact.trace, -2 * factor.exponent);
    factor.rows = d;
    factor.rank = d;
    factor.shape = linalg::Shape::kUpper;
    factor.f = DeviceArray<double>(d * d, stream);
    fill_bytes(factor.f.data(), 0, d * d * sizeof(double), stream);  // the factorisation may load the lower triangle
    side.scaled = DeviceArray<double>(d * d, stream);
    if (prepared != d) {
      cholesky.emplace(math, factor.f.data(), d, stream);
      product = DeviceArray<double>(d * d, stream);
      prepared = d;
    }
    FactorCheck* const check = checks.data() + i;
    scaled_symmetric_part(side.sigma, d, std::scalbn(1.0, -2 * factor.exponent), factor.f.data(), side.scaled.data(),
                          stream);
    (*cholesky)(factor.f.data(), &check->failed);
    zero_lower(factor.f.data(), d, stream);
    math.gram_upper(factor.f.data(), d, d, product.data());
    check_factor(side.scaled.data(), factor.f.data(), product.data(), d, real(d) * kUnitRoundoff, sums.data(), check,
                 stream);
    factor.flops = cube(d) / 3 + cube(d);
  }
  const std::vector<FactorCheck> checked = read(checks, stream);
  for (std::size_t i = 0; i < count; ++i) {
    if (sides[i].is_regular && checked[i].failed == 0 && checked[i].lost_pivots == 0) {
      out[i].residual = checked[i].residual / out[i].trace;
      out[i].distance = measured_distance(checked[i].residual, out[i]);
      continue;
    }
    out[i] = to_device(factor_on_host(covariances[i], stream), stream);
    if (out[i].trace > 0) out[i].note = message(covariances[i].name, " was factored on the host");
  }
  return out;
}

DeviceFactor factor_rows(const float* rows, std::size_t stride, std::size_t n, std::size_t d, double* mean,
                         const std::string& name, Stream stream) {
  FASTFID_EXPECT(n >= 2, InvalidArgument, name, ": expected at least 2 samples, got ", n);
  FASTFID_EXPECT(n <= d, InvalidArgument, name, ": expected at most d = ", d, " rows, got ", n);
  DeviceFactor out;
  out.d = d;
  out.f = DeviceArray<double>(n * d, stream);
  const DeviceArray<double> sums(sum_workspace(), stream);
  const DeviceArray<double> both(2, stream);
  centre_rows(rows, stride, n, d, out.f.data(), mean, stream);
  frobenius_norm(out.f.data(), n * d, sums.data(), both.data(), stream);
  frobenius_norm(mean, d, sums.data(), both.data() + 1, stream);
  const std::vector<double> norms = read(both, stream);
  const double scatter = std::pow(norms[0], 2);
  if (scatter == 0) return out;
  const double trace = scatter / real(n - 1);
  out.exponent = power_of_four(trace);
  out.trace = std::scalbn(trace, -2 * out.exponent);
  out.rows = n - 1;
  out.rank = n - 1;
  // The second pass finds what rounding left of the mean: n u of the mean magnitudes, which are the mean's and the
  // rest's.
  const double magnitudes = norms[1] + norms[0] / std::sqrt(real(n));
  const double divisor = std::sqrt(real(n - 1)) * std::scalbn(1.0, out.exponent);
  out.row_error = rows_error(n, d, std::sqrt(out.trace), 1.01 * real(n) * kUnitRoundoff * magnitudes / divisor);
  reflect_rows(out.f.data(), n, d, divisor, stream);
  return out;
}

TraceResult trace_sqrt_product(DeviceFactor a, DeviceFactor b, std::optional<double> tol, Stream stream,
                               LatePrecision late) {
  if (a.rows < b.rows) std::swap(a, b);
  const bool is_single_late =
      late == LatePrecision::kFloat32 || (late == LatePrecision::kDevice && has_slow_float64(stream.device));
  DevicePolar device(a, b, is_single_late, stream);
  TraceResult out = fastfid::trace_sqrt_product(a, b, device, tol, [&](double enough) {
    const double first_a = first_order(a, b, enough, stream);
    const double first_b = first_order(b, a, enough, stream);
    return factor_error(a, b, first_a, first_b);
  });
  const auto add = [&](const std::string& note) {
    if (!note.empty()) out.note += (out.note.empty() ? "" : "; ") + note;
  };
  add(a.note);
  add(b.note);
  if (device.is_single_used()) add("the last 6 iterations of the first stage ran in float32, the bounds in float64");
  return out;
}

namespace {

// An operand of the distance before its covariance is factored.
struct Prepared {
  Gaussian gaussian;         // for moments on the device: name, mean and dimension alone
  std::vector<double> mean;  // for moments on the device
  DeviceSnapshot snapshot;
  std::optional<DeviceFactor> factor;          // of rows
  std::optional<DeviceCovariance> covariance;  // where there are no rows
};

Prepared prepare_host(const Gaussian& gaussian, Stream stream) {
  Prepared out;
  out.gaussian = gaussian;
  if (const auto* const sigma = std::get_if<const double*>(&gaussian.covariance)) {
    out.covariance = DeviceCovariance{*sigma, false, gaussian.d, gaussian.label("sigma")};
  } else {
    const auto& rows = std::get<FeatureRows>(gaussian.covariance);
    out.factor = to_device(fastfid::factor_rows(rows, gaussian.d, gaussian.label("rows")), stream);
  }
  return out;
}

Prepared prepare_device(const DeviceGaussian& given, Stream stream) {
  Prepared out;
  DeviceMoments& moments = *given.moments;
  const auto d = static_cast<std::size_t>(moments.d());
  out.gaussian.name = given.name;
  const std::string rows_name = out.gaussian.label("rows");
  try {
    out.snapshot = moments.snapshot(stream);
  } catch (const NumericalError& error) {
    throw NumericalError(message(rows_name, ": ", error.what()));
  }
  DeviceSnapshot& snapshot = out.snapshot;
  if (snapshot.n <= moments.d()) {
    snapshot.mean = DeviceArray<double>(d, stream);
    out.factor = factor_rows(snapshot.rows.data(), static_cast<std::size_t>(snapshot.row_stride),
                             static_cast<std::size_t>(snapshot.n), d, snapshot.mean.data(), rows_name, stream);
  } else {
    out.covariance = DeviceCovariance{snapshot.covariance.data(), true, d, out.gaussian.label("sigma")};
  }
  out.mean = read(snapshot.mean, stream);
  out.gaussian.mu = out.mean.data();
  out.gaussian.d = d;
  return out;
}

Prepared prepare(const AnyGaussian& any, Stream stream) {
  if (const auto* const host = std::get_if<const Gaussian*>(&any)) return prepare_host(**host, stream);
  return prepare_device(std::get<DeviceGaussian>(any), stream);
}

}  // namespace

FrechetResult frechet_distance(const AnyGaussian& a, const AnyGaussian& b, std::optional<double> tol, Stream stream) {
  std::array<Prepared, 2> both = {prepare(a, stream), prepare(b, stream)};
  const auto solve = [&] {
    std::vector<DeviceCovariance> covariances;
    for (const Prepared& each : both) {
      if (each.covariance) covariances.push_back(*each.covariance);
    }
    // Together: each call waits twice, however many there are.
    std::vector<DeviceFactor> factors;
    if (!covariances.empty()) factors = factor_covariances(covariances, stream);
    auto next = factors.begin();
    for (Prepared& each : both) {
      if (each.covariance) each.factor = std::move(*next++);
    }
    TraceTerms out = trace_terms(*both[0].factor, *both[1].factor);
    out.trace = trace_sqrt_product(std::move(*both[0].factor), std::move(*both[1].factor), tol, stream);
    return out;
  };
  return fastfid::frechet_distance(both[0].gaussian, both[1].gaussian, solve, false);
}

}  // namespace fastfid::cuda
