// Trace of the matrix square root and Fréchet distance.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/frechet.hpp"
#include "core/moments.hpp"
#include "core/trace_sqrt.hpp"
#include "core/uncertainty.hpp"

#ifdef FASTFID_WITH_CUDA
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "bindings/dlpack.hpp"
#include "bindings/tensor_moments.hpp"
#include "cuda/math_libraries.hpp"
#include "cuda/polar.hpp"
#endif

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

using Doubles = py::array_t<double>;

TraceMethod parse_method(const std::string& method) {
  if (method == "auto") return TraceMethod::kAuto;
  if (method == "eigen") return TraceMethod::kEigen;
  if (method == "newton-schulz") return TraceMethod::kNewtonSchulz;
  throw InvalidArgument(message("method: expected 'auto', 'eigen' or 'newton-schulz', got '", method, "'"));
}

void check_tol(std::optional<double> tol) {
  FASTFID_EXPECT(!tol || (std::isfinite(*tol) && *tol > 0), InvalidArgument,
                 "tol: expected None or a positive number, got ", tol.value_or(0));
}

Doubles square_matrix(py::handle object, const std::string& name) {
  Doubles sigma = as_contiguous<double>(object, name, 2);
  FASTFID_EXPECT(sigma.shape(0) == sigma.shape(1), InvalidArgument, name, ": expected shape (d, d), got ",
                 describe(object));
  return sigma;
}

// One side of the distance and the arrays that keep its pointers alive.
struct Side {
  Doubles mu;
  py::array covariance;
  Gaussian gaussian;
};

// A side as the caller gives it.
struct SideArguments {
  py::handle mu;
  py::handle sigma;
  py::handle rows;
  std::optional<std::size_t> n;
  int number;
};

Side parse_side(const SideArguments& given) {
  const auto& [mu, sigma, rows, n, number] = given;
  const std::string suffix = std::to_string(number);
  const std::string mu_name = "mu" + suffix;
  const std::string sigma_name = "sigma" + suffix;
  const std::string rows_name = "rows" + suffix;
  Side side;
  side.mu = as_contiguous<double>(mu, mu_name, 1);
  side.gaussian.mu = side.mu.data();
  side.gaussian.d = static_cast<std::size_t>(side.mu.shape(0));
  side.gaussian.n = n;
  FASTFID_EXPECT(!n || *n <= static_cast<std::size_t>(kMaxRows), InvalidArgument, "n", suffix,
                 ": expected at most 2^62 samples, got ", n.value_or(0));
  FASTFID_EXPECT(sigma.is_none() != rows.is_none(), InvalidArgument, "expected exactly one of ", sigma_name, " and ",
                 rows_name, ", got ", sigma.is_none() ? "neither" : "both");
  const char* name = nullptr;
  if (!sigma.is_none()) {
    name = "sigma";
    const Doubles array = square_matrix(sigma, sigma_name);
    side.gaussian.covariance = array.data();
    side.covariance = array;
  } else {
    name = "rows";
    const py::array array = as_array(rows, rows_name, 2);
    FeatureRows features;
    features.n = static_cast<std::size_t>(array.shape(0));
    if (py::isinstance<py::array_t<float>>(array)) {
      features.data = as_contiguous<float>(rows, rows_name, 2).data();
    } else {
      features.data = as_contiguous<double>(rows, rows_name, 2).data();
    }
    side.gaussian.covariance = features;
    side.covariance = array;
    FASTFID_EXPECT(!n || *n == features.n, InvalidArgument, "n", suffix, ": expected the ", features.n, " rows of ",
                   rows_name, " or None, got ", n.value_or(0));
    side.gaussian.n = features.n;
  }
  FASTFID_EXPECT(side.covariance.shape(1) == side.mu.shape(0), InvalidArgument, name, suffix,
                 ": expected as many features as mu", suffix, ", which has ", side.mu.shape(0), ", got ",
                 describe(side.covariance));
  return side;
}

// The number of the CUDA device in "cuda" or "cuda:N"; nothing for "cpu".
std::optional<int> parse_device(const std::string& device) {
  if (device == "cpu") return std::nullopt;
  if (device == "cuda") return 0;
  const std::string prefix = "cuda:";
  const std::string digits = device.rfind(prefix, 0) == 0 ? device.substr(prefix.size()) : "";
  FASTFID_EXPECT(!digits.empty() && digits.size() <= 4 && digits.find_first_not_of("0123456789") == std::string::npos,
                 InvalidArgument, "device: expected 'cpu', 'cuda' or 'cuda:N', got '", device, "'");
  return std::stoi(digits);
}

#ifdef FASTFID_WITH_CUDA

// Where pip and a toolkit put CUDA's libraries.
std::vector<std::string> math_library_folders() {
  std::vector<std::string> candidates;
  for (const py::handle entry : attribute(py::module_::import("sys"), "path")) {
    if (!py::isinstance<py::str>(entry)) continue;
    const auto path = py::cast<std::string>(entry);
    for (const char* folder : {"/nvidia/cu13/lib", "/nvidia/cublas/lib", "/nvidia/cusolver/lib"}) {
      candidates.push_back(path + folder);
    }
  }
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable)) candidates.push_back(std::string(root) + "/lib64");
  }
  candidates.emplace_back("/usr/local/cuda/lib64");
  std::erase_if(candidates, [](const std::string& path) {
    std::error_code ignored;  // what cannot be looked at is not there
    return !std::filesystem::is_directory(path, ignored);
  });
  return candidates;
}

void expect_polar_method(TraceMethod method) {
  FASTFID_EXPECT(method != TraceMethod::kEigen, InvalidArgument,
                 "method: 'eigen' runs on the CPU only; on a CUDA device there is 'newton-schulz', which 'auto' is");
}

// A covariance on the host or on the device, and what keeps it alive.
struct DeviceSide {
  Doubles array;
  ImportedTensor tensor;
  cuda::DeviceCovariance covariance;
};

DeviceSide parse_device_side(py::handle object, const char* name, cuda::Stream stream) {
  DeviceSide out;
  out.covariance.name = name;
  if (py::isinstance<py::array>(object)) {
    out.array = square_matrix(object, name);
    out.covariance.sigma = out.array.data();
    out.covariance.d = static_cast<std::size_t>(out.array.shape(0));
    return out;
  }
  const dlpack::Device where = tensor_device(object, name);
  out.covariance.is_on_device = dlpack::is_cuda(where);
  FASTFID_EXPECT(!out.covariance.is_on_device || where.id == stream.device, InvalidArgument, name,
                 ": expected a tensor on cuda:", stream.device, " or on the CPU, got one on cuda:", where.id);
  // For a tensor of the host the stream has no meaning.
  out.tensor = import_tensor(
      object, name,
      out.covariance.is_on_device ? std::optional(reinterpret_cast<std::uintptr_t>(stream.handle)) : std::nullopt);
  if (!out.tensor.is(dlpack::kFloat, 64) || out.tensor.shape.size() != 2 || !out.tensor.is_contiguous()) {
    throw py::type_error(
        message(name, ": expected a contiguous float64 tensor with 2 dimensions, got ", out.tensor.describe()));
  }
  FASTFID_EXPECT(out.tensor.shape[0] == out.tensor.shape[1], InvalidArgument, name, ": expected shape (d, d), got ",
                 out.tensor.describe());
  out.covariance.sigma = static_cast<const double*>(out.tensor.data);
  out.covariance.d = static_cast<std::size_t>(out.tensor.shape[0]);
  return out;
}

cuda::Stream legacy_stream(int device) {
  cuda::expect_device(device);
  cuda::set_math_library_folders(math_library_folders());
  return {device, reinterpret_cast<CUstream_st*>(std::uintptr_t{1})};
}

TraceResult trace_on_device(py::handle sigma1, py::handle sigma2, TraceMethod method, std::optional<double> tol,
                            int device) {
  expect_polar_method(method);
  const cuda::Stream stream = legacy_stream(device);
  const DeviceSide a = parse_device_side(sigma1, "sigma1", stream);
  const DeviceSide b = parse_device_side(sigma2, "sigma2", stream);
  FASTFID_EXPECT(a.covariance.d == b.covariance.d, InvalidArgument,
                 "sigma1 and sigma2 differ in dimension: ", a.covariance.d, " and ", b.covariance.d);
  // Safe: `a` and `b` keep the memory alive, the call returns when the device is done, no Python object is touched.
  const WithoutGil guard;
  auto factors = cuda::factor_covariances({a.covariance, b.covariance}, stream);
  return cuda::trace_sqrt_product(std::move(factors[0]), std::move(factors[1]), tol, stream);
}

// A side in host memory, or moments on the device, which the caller keeps alive.
struct AnySide {
  std::optional<Side> host;
  TensorMoments* moments = nullptr;

  cuda::Side get() const { return moments != nullptr ? cuda::Side(&moments->get()) : cuda::Side(&host->gaussian); }
};

AnySide parse_any_side(const SideArguments& given, int device) {
  AnySide out;
  if (!py::isinstance<TensorMoments>(given.mu)) {
    out.host = parse_side(given);
    return out;
  }
  out.moments = &py::cast<TensorMoments&>(given.mu);
  FASTFID_EXPECT(out.moments->get().device() == device, InvalidArgument, "side ", given.number,
                 ": expected moments on cuda:", device,
                 ", where the distance is taken, got moments on cuda:", out.moments->get().device());
  FASTFID_EXPECT(given.sigma.is_none() && given.rows.is_none(), InvalidArgument, "side ", given.number,
                 ": expected neither sigma nor rows beside moments");
  return out;
}

FrechetResult distance_on_device(const SideArguments& first, const SideArguments& second, TraceMethod method,
                                 std::optional<double> tol, int device) {
  expect_polar_method(method);
  const cuda::Stream stream = legacy_stream(device);
  const AnySide a = parse_any_side(first, device);
  const AnySide b = parse_any_side(second, device);
  FrechetResult out;
  {
    // Safe: as on the CPU; moments on the device lock themselves. The call returns when the device is done.
    const WithoutGil guard;
    out = cuda::frechet_distance(a.get(), b.get(), tol, stream);
  }
  for (const AnySide* side : {&a, &b}) {
    if (side->moments != nullptr) side->moments->give_back();
  }
  return out;
}

#else

[[noreturn]] void throw_not_built() {
  throw BackendUnavailable("device: fastfid was built without its CUDA part (" FASTFID_CUDA_STATUS ")");
}
TraceResult trace_on_device(py::handle, py::handle, TraceMethod, std::optional<double>, int) { throw_not_built(); }
FrechetResult distance_on_device(const SideArguments&, const SideArguments&, TraceMethod, std::optional<double>, int) {
  throw_not_built();
}

#endif

TraceResult trace_of_arrays(py::handle sigma1, py::handle sigma2, const std::string& method, std::optional<double> tol,
                            const std::string& device) {
  if (const auto index = parse_device(device)) {
    const TraceMethod route = parse_method(method);
    check_tol(tol);
    return trace_on_device(sigma1, sigma2, route, tol, *index);
  }
  const Doubles a = square_matrix(sigma1, "sigma1");
  const Doubles b = square_matrix(sigma2, "sigma2");
  FASTFID_EXPECT(a.shape(0) == b.shape(0), InvalidArgument, "sigma1 and sigma2 differ in dimension: ", a.shape(0),
                 " and ", b.shape(0));
  const TraceMethod route = parse_method(method);
  check_tol(tol);
  const auto d = static_cast<std::size_t>(a.shape(0));
  const double* const pa = a.data();
  const double* const pb = b.data();
  // Safe: the core reads the two arrays only, which `a` and `b` keep alive, and touches no Python object.
  const WithoutGil guard;
  return trace_sqrt_product({pa, d, "sigma1"}, {pb, d, "sigma2"}, route, tol).trace;
}

FrechetResult distance_of_arrays(py::handle mu1, py::handle sigma1, py::handle rows1, py::handle mu2, py::handle sigma2,
                                 py::handle rows2, const std::string& method, std::optional<double> tol,
                                 std::optional<std::size_t> n1, std::optional<std::size_t> n2,
                                 const std::string& device) {
  const SideArguments first{mu1, sigma1, rows1, n1, 1};
  const SideArguments second{mu2, sigma2, rows2, n2, 2};
  const TraceMethod route = parse_method(method);
  check_tol(tol);
  if (const auto index = parse_device(device)) return distance_on_device(first, second, route, tol, *index);
  const Side a = parse_side(first);
  const Side b = parse_side(second);
  // Safe: the core reads the arrays only, which `a` and `b` keep alive, and touches no Python object.
  const WithoutGil guard;
  return frechet_distance(a.gaussian, b.gaussian, route, tol);
}

}  // namespace

void bind_frechet_results(py::module_& module) {
  py::class_<TraceResult>(module, "TraceResult", R"(
The trace of the matrix square root of a product of covariances, with numerical bounds.

Attributes
----------
value : float
    The point estimate; never the midpoint of the bounds.
lower, upper : float
    Numerical bounds of the trace for the matrices as given, every element exact. A covariance that rounding has made
    slightly indefinite stands for its positive semi-definite part: negative eigenvalues set to zero. They hold with
    and without a note. docs/numerics.md says by which theorems, and what they assume of LAPACK.
method : str
    The route `value` comes from: "rational", "eigen", "newton-schulz" or "svd" (the last resort).
iterations : int
    Iterations of the polar Newton-Schulz route.
gemms : float
    Floating-point operations of products, factorisations and solves, in units of one d x d x d product (2 d^3).
rank : int
    The smaller numerical rank of the two factors.
factor_residual : float
    The larger of ||Sigma - F^T F||_F / tr Sigma of the two sides, from 64 rows of the difference for d > 64 (all for
    a singular Sigma); 0 for sides given by their rows.
float32_rounding : float
    By how much each bound was moved because a covariance was rounded to float32 and is indefinite for it; else 0.
note : str
    What there is to know about the result: why the bounds are wide (a covariance that is singular or nearly so, float32
    rounding), a last resort, a tolerance not met.

Examples
--------
>>> import numpy as np
>>> import fastfid
>>> result = fastfid.trace_sqrt_product(np.eye(3), 4 * np.eye(3))
>>> result.lower <= result.value <= result.upper, result.rank
(True, 3)
)")
      .def_readonly("value", &TraceResult::value)
      .def_readonly("lower", &TraceResult::lower)
      .def_readonly("upper", &TraceResult::upper)
      .def_readonly("method", &TraceResult::method)
      .def_readonly("iterations", &TraceResult::iterations)
      .def_readonly("gemms", &TraceResult::gemms)
      .def_readonly("rank", &TraceResult::rank)
      .def_readonly("factor_residual", &TraceResult::factor_residual)
      .def_readonly("float32_rounding", &TraceResult::float32_rounding)
      .def_readonly("note", &TraceResult::note)
      .def("__repr__", [](const TraceResult& r) {
        return message("TraceResult(value=", r.value, ", lower=", r.lower, ", upper=", r.upper, ", method='", r.method,
                       "')");
      });

  py::class_<FrechetResult>(module, "FrechetResult", R"(
The Fréchet distance of two Gaussians (the squared 2-Wasserstein distance), with bounds.

Attributes
----------
value : float
    The point estimate.
lower, upper : float
    Numerical bounds of the distance for means and covariances as given, from those of the trace; `lower` is never
    negative.
mean_term : float
    |mu1 - mu2|^2.
trace1, trace2 : float
    Traces of the two covariances.
trace : TraceResult
    tr((Sigma1 Sigma2)^(1/2)).
bias : float or None
    Sampling bias by the closed form for Gaussian features: about how much the value exceeds the distance of the
    distributions. Present where both n are known and larger than d and the route yields singular values.
)")
      .def_readonly("value", &FrechetResult::value)
      .def_readonly("lower", &FrechetResult::lower)
      .def_readonly("upper", &FrechetResult::upper)
      .def_readonly("mean_term", &FrechetResult::mean_term)
      .def_readonly("trace1", &FrechetResult::trace1)
      .def_readonly("trace2", &FrechetResult::trace2)
      .def_readonly("trace", &FrechetResult::trace)
      .def_readonly("bias", &FrechetResult::bias)
      .def("__repr__", [](const FrechetResult& r) {
        return message("FrechetResult(value=", r.value, ", lower=", r.lower, ", upper=", r.upper, ")");
      });
}

void bind_frechet(py::module_& module) {
  module.def("trace_sqrt_product", &trace_of_arrays, py::arg("sigma1"), py::arg("sigma2"), py::kw_only(),
             py::arg("method") = "auto", py::arg("tol") = py::none(), py::arg("device") = "cpu", R"(
tr((Sigma1 Sigma2)^(1/2)) of two covariances, with numerical bounds.

Parameters
----------
sigma1, sigma2 : ndarray of float64, shape (d, d), C-contiguous
    Symmetric positive semi-definite up to rounding, of any rank and scale. For a CUDA device also contiguous tensors of
    torch, CuPy or JAX (DLPack), on that device or on the CPU; what is on the device stays there, unless it is singular.
method : {"auto", "eigen", "newton-schulz"}
    "auto" is the fastest on the device. On CPUs: without `tol` and from d = 192 on a rational approximation of the root
    for positive definite covariances, otherwise "eigen". On CUDA devices there is "newton-schulz" only.
tol : float, optional
    Width of the bracket [lower, upper] asked for, relative to the trace. Work is bounded: a bracket that stays wider
    is reported in `note`.
device : {"cpu", "cuda", "cuda:N"}
    Where to compute. CUDA needs the wheels nvidia-cublas and nvidia-cusolver, or a toolkit. Works on the legacy default
    stream and returns when done.

Returns
-------
TraceResult

Raises
------
TypeError
    Another type, dtype, rank or memory order.
ValueError
    Matrices that are not square, of one size and symmetric; an unknown method or device; tol <= 0.
NumericalError
    NaN, infinity, an indefinite matrix, a trace beyond float64.
BackendUnavailable
    No such device, or no cuBLAS or cuSOLVER for it; or CUBLAS_EMULATE_DOUBLE_PRECISION is set.
DeviceError
    A call of CUDA failed.

Examples
--------
>>> import numpy as np
>>> import fastfid
>>> round(fastfid.trace_sqrt_product(np.diag([1.0, 4.0]), np.diag([9.0, 16.0])).value, 12)
11.0
)");
  module.def("frechet_distance", &distance_of_arrays, py::arg("mu1"), py::arg("sigma1"), py::arg("rows1"),
             py::arg("mu2"), py::arg("sigma2"), py::arg("rows2"), py::kw_only(), py::arg("method") = "auto",
             py::arg("tol") = py::none(), py::arg("n1") = py::none(), py::arg("n2") = py::none(),
             py::arg("device") = "cpu", R"(
Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr Sigma1 + tr Sigma2 - 2 tr((Sigma1 Sigma2)^(1/2)).

Parameters
----------
mu1, mu2 : ndarray of float64, shape (d,)
    For a CUDA device also DeviceMoments on it, without sigma and rows: what they hold stays there.
sigma1, sigma2 : ndarray of float64, shape (d, d), or None
rows1, rows2 : ndarray of float32 or float64, shape (n, d), or None
    Feature rows, not centred, n >= 2: what a side with n <= d has in place of sigma, so that its singular covariance
    is never formed. Exactly one of sigma and rows is given for each side.
method, tol, device
    As for trace_sqrt_product; arrays are NumPy's for every device.
n1, n2 : int, optional
    Samples behind sigma1 and sigma2, for the bias; for sides with rows they are known.

Returns
-------
FrechetResult

Raises
------
TypeError, ValueError, NumericalError
    As for trace_sqrt_product.
)");

  module.def(
      "influence_standard_error",
      [](const Moments& moments1, const Moments& moments2) {
        // Safe: the core touches no Python object; both Moments lock themselves and are kept alive by the caller.
        const WithoutGil guard;
        const StandardError error = influence_standard_error(moments1, moments2);
        return std::make_pair(error.value, error.relative_error);
      },
      py::arg("moments1"), py::arg("moments2"), R"(
Standard error of the Fréchet distance of two sides by the influence function.

Parameters
----------
moments1, moments2 : Moments
    Both with groups and n > d.

Returns
-------
standard_error : float
relative_error : float
    Of the standard error itself: 1 / sqrt(2 (groups - 1)) where one side dominates, less where both count.

Raises
------
ValueError
    Different d, no groups, n <= d.
NumericalError
    A singular covariance: there is no influence function.

Notes
-----
The sampling bias of the distance is another matter and usually larger: see FrechetResult.bias.
)");
}

}  // namespace fastfid::bindings
