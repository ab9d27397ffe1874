// The trace of the matrix square root on a CUDA device: core's polar route (core/polar.hpp) with cuBLAS and cuSOLVER.
//
// What the host waits for, in the ordinary case (covariances in device memory, both positive definite, bracket within
// tol after the first stage): seven copies of less than 200 bytes.
//   1. facts of both covariances (finite, symmetric, trace)            2 passes
//   2. Cholesky factors, their residuals                               2 (1/6 + 1/2) products
//   3. M, ten iterations, certificate with its first trial             1/2 + 10 * 2 + 1/2 + 1 + 1/6 + 1/2 + 1/2
//   products
//   4. the inverse of each factor, and what it leaves: two copies      2 (1/2 + 1/2) products
//   5. its product with the other factor, if needed: two copies        2 (1/2) products
// Everything between two of them is enqueued at once. A further stage (12 products + certificate) or trial adds a copy.
//
// Predicted on an H100 or H200, d = 2048, float64 tensor cores (g = 2 d^3 flops at 60 of 67 TFLOP/s = 0.29 ms):
// 28 g = 8.1 ms of products if they ran at that rate; 77 passes over 32 MiB matrices at 3 to 4 TB/s, 0.8 ms; three
// Cholesky factorisations and three triangular solves bound by latency, 1 ms each; some 170 launches hidden behind
// them. 14 to 15 ms in all; 16 to 18 from covariances in host memory (two copies of 32 MiB). Never run on a GPU.
//
// The certificate is in float64 from first to last. That the products are those of the conventional algorithm, in any
// order of additions, is what the bounds assume of cuBLAS (no TF32, no emulation, no Strassen: math_libraries.hpp); of
// the triangular solve and the Cholesky factorisations they assume nothing: what these leave is measured.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/frechet.hpp"
#include "core/trace_sqrt.hpp"
#include "cuda/moments.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// F (rows, d) in device memory.
struct DeviceFactor : FactorFacts {
  DeviceArray<double> f;
  std::size_t rows = 0;
  linalg::Shape shape = linalg::Shape::kFull;
  std::string note;  // what the user should know of how it was made
};

// (d, d), row-major, contiguous; in memory of the stream's device or of the host.
struct DeviceCovariance {
  const double* sigma = nullptr;
  bool is_on_device = false;
  std::size_t d = 0;
  std::string name;  // begins the messages about this covariance
};

// Largest d, so that indices fit 32 bits.
inline constexpr std::size_t kMaxDims = 32768;

// As fastfid::factor_covariances(): Cholesky on the device. A covariance that is singular, or that it refuses, goes
// through the host's factorisation (pivoted, or the exception that it deserves), with a note. Throws InvalidArgument
// for d above kMaxDims. Only reads the covariances. Memory: 3 d^2 doubles each, one of them kept. Waits for the stream
// twice.
std::vector<DeviceFactor> factor_covariances(const std::vector<DeviceCovariance>& covariances, Stream stream);

// As fastfid::factor_rows() for n <= d rows of d float32 features in device memory, `stride` elements apart; their
// mean, (d,), is written to device memory. Throws InvalidArgument for n < 2. Waits for the stream once.
DeviceFactor factor_rows(const float* rows, std::size_t stride, std::size_t n, std::size_t d, double* mean,
                         const std::string& name, Stream stream);

// A factor made on the host, copied to the device.
DeviceFactor to_device(const Factor& factor, Stream stream);

// Whether the last six iterations of the first stage run in float32: kDevice takes them where float64 has less than a
// quarter of float32's rate (workstation cards; A100, H100 and H200 have half). Never for tol < 1e-8. `note` says so.
enum class LatePrecision { kDevice, kFloat64, kFloat32 };

// fastfid::trace_sqrt_product() by the polar route. Singular values of M, the last resort, are taken on the host.
// Throws DeviceError where a call fails, BackendUnavailable where cuBLAS or cuSOLVER is missing. Memory: seven matrices
// of the size of M, and three (d, d). Waits for the stream.
TraceResult trace_sqrt_product(DeviceFactor a, DeviceFactor b, std::optional<double> tol, Stream stream,
                               LatePrecision late = LatePrecision::kDevice);

// A Gaussian as moments on a device. Does not own them.
struct DeviceGaussian {
  std::string name;  // begins the messages about this Gaussian
  DeviceMoments* moments = nullptr;
};

// An operand of the distance: in host memory, or on the stream's device.
using AnyGaussian = std::variant<const Gaussian*, DeviceGaussian>;

// fastfid::frechet_distance(). From host memory covariances are copied to the device and factored there, rows are
// factored on the host; of moments on the device nothing comes to the host but their mean and a few scalars, singular
// covariances apart. No bias: the route yields no singular values. Throws as the two.
FrechetResult frechet_distance(const AnyGaussian& a, const AnyGaussian& b, std::optional<double> tol, Stream stream);

}  // namespace fastfid::cuda
