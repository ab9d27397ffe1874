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
#include "bindings/gaussian.hpp"
#include "bindings/gil.hpp"
#include "core/frechet.hpp"
#include "core/influence.hpp"
#include "core/moments.hpp"
#include "core/trace_sqrt.hpp"

#ifdef FASTFID_WITH_CUDA
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "bindings/dlpack.hpp"
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

// A covariance in host or device memory, and the object that keeps it alive.
struct TensorCovariance {
  Doubles array;
  ImportedTensor tensor;
  cuda::DeviceCovariance covariance;
};

TensorCovariance parse_covariance(py::handle object, const char* name, cuda::Stream stream) {
  TensorCovariance out;
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
  const TensorCovariance a = parse_covariance(sigma1, "sigma1", stream);
  const TensorCovariance b = parse_covariance(sigma2, "sigma2", stream);
  FASTFID_EXPECT(a.covariance.d == b.covariance.d, InvalidArgument,
                 "sigma1 and sigma2 differ in dimension: ", a.covariance.d, " and ", b.covariance.d);
  // Safe: `a` and `b` keep the memory alive, the call returns when the device is done, no Python object is touched.
  const WithoutGil guard;
  auto factors = cuda::factor_covariances({a.covariance, b.covariance}, stream);
  return cuda::trace_sqrt_product(std::move(factors[0]), std::move(factors[1]), tol, stream);
}

cuda::AnyGaussian on_device(const BoundGaussian& given, int device) {
  if (given.moments() == nullptr) return &given.on_host();
  const int where = given.moments()->get().device();
  FASTFID_EXPECT(where == device, InvalidArgument, message(given.name(), given.name().empty() ? "" : ": "),
                 "expected moments on cuda:", device, ", where the distance is taken, got moments on cuda:", where);
  return cuda::DeviceGaussian{given.name(), &given.moments()->get()};
}

FrechetResult distance_on_device(const BoundGaussian& a, const BoundGaussian& b, TraceMethod method,
                                 std::optional<double> tol, int device) {
  expect_polar_method(method);
  const cuda::Stream stream = legacy_stream(device);
  FrechetResult out;
  {
    const cuda::AnyGaussian any_a = on_device(a, device);
    const cuda::AnyGaussian any_b = on_device(b, device);
    // Safe: the core touches no Python object. `a` and `b` keep the arrays and the moments alive; moments on the device
    // lock themselves. The call returns when the device is done.
    const WithoutGil guard;
    out = cuda::frechet_distance(any_a, any_b, tol, stream);
  }
  for (const BoundGaussian* given : {&a, &b}) {
    if (given->moments() != nullptr) given->moments()->give_back();
  }
  return out;
}

#else

TraceResult trace_on_device(py::handle, py::handle, TraceMethod, std::optional<double>, int) { throw_without_cuda(); }
FrechetResult distance_on_device(const BoundGaussian&, const BoundGaussian&, TraceMethod, std::optional<double>, int) {
  throw_without_cuda();
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

std::optional<FeatureRows> parse_rows(py::handle object, const char* name, std::size_t d) {
  if (object.is_none()) return std::nullopt;
  const py::array array = as_array(object, name, 2);
  FASTFID_EXPECT(static_cast<std::size_t>(array.shape(1)) == d, InvalidArgument, name, ": expected shape (n, ", d,
                 "), got ", describe(object));
  return feature_rows(object, name);
}

// The result as Python holds it.
struct InfluenceArrays {
  Doubles of_a;
  Doubles of_b;
  double second_order;
};

InfluenceArrays influence_of_arrays(const BoundGaussian& a, const BoundGaussian& b, py::handle rows_a,
                                    py::handle rows_b) {
  const Gaussian& host_a = a.on_host();
  const Gaussian& host_b = b.on_host();
  const auto first = parse_rows(rows_a, "rows_a", host_a.d);
  const auto second = parse_rows(rows_b, "rows_b", host_b.d);
  Influence out;
  {
    // Safe: the core reads arrays only, which `a`, `b` and the arguments keep alive, and touches no Python object.
    const WithoutGil guard;
    out = influence(host_a, host_b, first, second);
  }
  const auto vector = [](std::vector<double>&& values) {
    const auto n = static_cast<py::ssize_t>(values.size());
    return to_numpy(std::move(values), {n});
  };
  return {vector(std::move(out.a)), vector(std::move(out.b)), out.second_order};
}

FrechetResult distance(const BoundGaussian& a, const BoundGaussian& b, const std::string& method,
                       std::optional<double> tol, const std::string& device, bool needs_bias) {
  const TraceMethod route = parse_method(method);
  check_tol(tol);
  if (const auto index = parse_device(device)) return distance_on_device(a, b, route, tol, *index);
  const Gaussian& host_a = a.on_host();
  const Gaussian& host_b = b.on_host();
  // Safe: the core reads the arrays only, which `a` and `b` keep alive, and touches no Python object.
  const WithoutGil guard;
  return frechet_distance(host_a, host_b, route, tol, needs_bias);
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
  // Of this module alone: the tests load an emulation of it beside.
  py::class_<InfluenceArrays>(module, "Influence", py::module_local(), R"(
The influence function of a Fréchet distance at rows of the two samples.

Attributes
----------
of_a, of_b : ndarray of float64, shape (n,)
    By how much the distance moves, to first order, if a fraction e of the sample becomes this row, over e. Empty where
    no rows were given.
second_order : float
    The variance of the second-order part of the distance for Gaussian features, over (1/n_a + 1/n_b)^2.
)")
      .def_readonly("of_a", &InfluenceArrays::of_a)
      .def_readonly("of_b", &InfluenceArrays::of_b)
      .def_readonly("second_order", &InfluenceArrays::second_order);

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
  module.def("frechet_distance", &distance, py::arg("a"), py::arg("b"), py::kw_only(), py::arg("method") = "auto",
             py::arg("tol") = py::none(), py::arg("device") = "cpu", py::arg("needs_bias") = true, R"(
Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr Sigma1 + tr Sigma2 - 2 tr((Sigma1 Sigma2)^(1/2)).

Parameters
----------
a, b : Gaussian
    In host memory for every device; for a CUDA device also on it.
method, tol, device
    As for trace_sqrt_product.
needs_bias : bool
    Take the bias too, where both n are known. The bias takes singular values, which the fastest route does not need. A
    CUDA device gives no bias.

Returns
-------
FrechetResult

Raises
------
ValueError, NumericalError, BackendUnavailable, DeviceError
    As for trace_sqrt_product. Messages begin with the name of the Gaussian.
)");

  module.def("influence", &influence_of_arrays, py::arg("a"), py::arg("b"), py::kw_only(),
             py::arg("rows_a") = py::none(), py::arg("rows_b") = py::none(), R"(
The influence function of the Fréchet distance at rows of the two samples.

Parameters
----------
a, b : Gaussian
    In host memory.
rows_a, rows_b : ndarray of float32 or float64, shape (n, d), or None
    Feature rows of each sample, or of a part of it, C-contiguous.

Returns
-------
Influence

Raises
------
TypeError
    Rows of another type, dtype, rank or memory order.
ValueError
    Different d.
NumericalError
    NaN, infinity, an indefinite covariance.

Notes
-----
The mean over a whole sample is zero, up to the divisor n - 1 of its covariance. A singular covariance stands for the
Gaussian on its range. core/influence.hpp has the formulas.
)");
}

}  // namespace fastfid::bindings
