// The submodule _testing: the functions on which a proof rests, for the tests and for tools.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "core/errors.hpp"
#include "core/factorisation.hpp"
#include "core/polar.hpp"
#include "core/polar_table.hpp"
#include "core/root_table.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

using Doubles = py::array_t<double>;

linalg::Matrix to_matrix(const Doubles& array) {
  linalg::Matrix out(static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)));
  std::copy_n(array.data(), array.size(), out.data());
  return out;
}

py::tuple factor(py::handle sigma) {
  const Doubles array = as_contiguous<double>(sigma, "sigma", 2);
  FASTFID_EXPECT(array.shape(0) == array.shape(1), InvalidArgument, "sigma: expected shape (d, d), got ",
                 describe(sigma));
  const auto factors = factor_covariances({{array.data(), static_cast<std::size_t>(array.shape(0)), "sigma"}});
  const Factor& first = factors.front();
  Doubles f({static_cast<py::ssize_t>(first.f.rows()), array.shape(0)});
  std::copy_n(first.f.data(), f.size(), f.mutable_data());
  return py::make_tuple(f, first.exponent);
}

py::tuple certificate(py::handle m, py::handle x, double tol) {
  PolarWorkspace workspace;
  const linalg::Matrix matrix = to_matrix(as_contiguous<double>(m, "m", 2));
  HostPolar host(matrix, to_matrix(as_contiguous<double>(x, "x", 2)), workspace);
  const PolarCertificate proof = polar_certificate(host, tol);
  return py::make_tuple(proof.lower, proof.upper, proof.is_norm_proven);
}

py::tuple polar_table() {
  py::list stages;
  for (const auto& stage : polar::kStages) {
    py::list quintics;
    for (const auto& c : stage) quintics.append(py::make_tuple(c[0], c[1], c[2]));
    stages.append(quintics);
  }
  return py::make_tuple(polar::kGuard, stages);
}

py::tuple root_table() {
  return py::make_tuple(root::kLowerEnd, root::kError, root::kLinear, root::kPoles, root::kWeights);
}

}  // namespace

void bind_testing(py::module_& module) {
  py::module_ testing =
      module.def_submodule("_testing", "Pieces of the core, for the tests; they may change at any time.");
  testing.def("factor", &factor, py::arg("sigma"),
              "(F, exponent): sigma is 4^exponent F^T F, up to `factor_residual`.");
  testing.def("polar_certificate", &certificate, py::arg("m"), py::arg("x"), py::arg("tol") = 0.0,
              "(lower, upper, is_norm_proven): the bounds that X proves for the nuclear norm of M.");
  testing.def("polar_table", &polar_table, "(guard, stages): the polynomials of the polar iteration.");
  testing.def("root_table", &root_table,
              "(lower end, error, linear, poles, weights): the rational approximation of the square root.");
}

}  // namespace fastfid::bindings
