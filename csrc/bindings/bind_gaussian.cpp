// Operands of the Fréchet distance.
#include "bindings/gaussian.hpp"

#include <pybind11/stl.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"

namespace py = pybind11;

namespace fastfid::bindings {

py::array_t<double> square_matrix(py::handle object, const std::string& name) {
  py::array_t<double> sigma = as_contiguous<double>(object, name, 2);
  FASTFID_EXPECT(sigma.shape(0) == sigma.shape(1), InvalidArgument, name, ": expected shape (d, d), got ",
                 describe(object));
  return sigma;
}

FeatureRows feature_rows(py::handle object, const std::string& name) {
  const py::array array = as_array(object, name, 2);
  FeatureRows rows;
  rows.n = static_cast<std::size_t>(array.shape(0));
  if (py::isinstance<py::array_t<float>>(array)) {
    rows.data = as_contiguous<float>(object, name, 2).data();
  } else {
    rows.data = as_contiguous<double>(object, name, 2).data();
  }
  return rows;
}

BoundGaussian::BoundGaussian(py::handle mu, py::handle sigma, py::handle rows, std::optional<std::size_t> n,
                             std::string name) {
  gaussian_.name = std::move(name);
  const auto label = [this](const char* part) { return gaussian_.label(part); };
  const auto mean = as_contiguous<double>(mu, label("mu"), 1);
  gaussian_.mu = mean.data();
  gaussian_.d = static_cast<std::size_t>(mean.shape(0));
  mu_ = mean;
  FASTFID_EXPECT(!n || *n <= static_cast<std::size_t>(kMaxRows), InvalidArgument, label("n"),
                 ": expected at most 2^62 samples, got ", n.value_or(0));
  gaussian_.n = n;
  FASTFID_EXPECT(sigma.is_none() != rows.is_none(), InvalidArgument,
                 label("expected exactly one of sigma and rows, got "), sigma.is_none() ? "neither" : "both");
  const char* part = sigma.is_none() ? "rows" : "sigma";
  if (rows.is_none()) {
    const auto array = square_matrix(sigma, label(part));
    gaussian_.covariance = array.data();
    covariance_ = array;
  } else {
    const py::array array = as_array(rows, label(part), 2);
    const FeatureRows features = feature_rows(rows, label(part));
    gaussian_.covariance = features;
    covariance_ = array;
    FASTFID_EXPECT(!n || *n == features.n, InvalidArgument, label("n"), ": expected the ", features.n,
                   " of rows or None, got ", n.value_or(0));
    gaussian_.n = features.n;
  }
  FASTFID_EXPECT(py::cast<py::array>(covariance_).shape(1) == mean.shape(0), InvalidArgument, label(part),
                 ": expected as many features as mu, which has ", mean.shape(0), ", got ", describe(covariance_));
}

#ifdef FASTFID_WITH_CUDA

BoundGaussian::BoundGaussian(const py::object& moments, std::string name)
    : covariance_(moments), moments_(&py::cast<TensorMoments&>(moments)) {
  gaussian_.name = std::move(name);
  gaussian_.d = static_cast<std::size_t>(moments_->get().d());
}

const Gaussian& BoundGaussian::on_host() const {
  FASTFID_EXPECT(moments_ == nullptr, InvalidArgument, gaussian_.label("moments on cuda:"), moments_->get().device(),
                 " are for a distance that is taken there, got device 'cpu'");
  return gaussian_;
}

std::optional<std::size_t> BoundGaussian::n() const {
  return moments_ == nullptr ? gaussian_.n : std::optional(static_cast<std::size_t>(moments_->get().n()));
}

namespace {
BoundGaussian gaussian_on_device(const py::object& moments, std::string name) { return {moments, std::move(name)}; }
}  // namespace

#else

const Gaussian& BoundGaussian::on_host() const { return gaussian_; }

std::optional<std::size_t> BoundGaussian::n() const { return gaussian_.n; }

namespace {
[[noreturn]] BoundGaussian gaussian_on_device(const py::object&, const std::string&) { throw_without_cuda(); }
}  // namespace

#endif

void bind_gaussian(py::module_& module) {
  // Of this module alone: the tests load an emulation of it beside.
  py::class_<BoundGaussian>(module, "Gaussian", py::module_local(), R"(
An operand of the Fréchet distance: a mean and a covariance, the latter given by its elements or by feature rows.

Parameters
----------
mu : ndarray of float64, shape (d,)
sigma : ndarray of float64, shape (d, d), or None
    Covariance, C-contiguous.
rows : ndarray of float32 or float64, shape (n, d), or None
    Feature rows, not centred, n >= 2. With rows in place of sigma the distance is exact for n <= d: the singular
    covariance is never formed. Exactly one of sigma and rows is given.
n : int, optional
    Samples behind sigma, for the bias of a distance. The n of rows is known.
name : str
    Begins the messages about this Gaussian.

Raises
------
TypeError
    Another type, dtype, rank or memory order.
ValueError
    Shapes that do not fit together; neither or both of sigma and rows; n beyond 2^62, or not that of rows.

Notes
-----
The arrays are kept, not copied. They must not change while the Gaussian is in use.
)")
      .def(py::init<py::handle, py::handle, py::handle, std::optional<std::size_t>, std::string>(), py::arg("mu"),
           py::arg("sigma") = py::none(), py::kw_only(), py::arg("rows") = py::none(), py::arg("n") = py::none(),
           py::arg("name") = "")
      .def_static("on_device", &gaussian_on_device, py::arg("moments"), py::kw_only(), py::arg("name") = "",
                  "The Gaussian of DeviceMoments. Their numbers stay on the device, where the distance is taken.")
      .def_property_readonly("name", &BoundGaussian::name)
      .def_property_readonly("d", &BoundGaussian::d, "Number of features.")
      .def_property_readonly("n", &BoundGaussian::n, "Number of samples, or None.")
      .def("__repr__", [](const BoundGaussian& self) {
        const auto n = self.n();
        return message("Gaussian(d=", self.d(), ", n=", n ? std::to_string(*n) : "None", ", name='", self.name(), "')");
      });
}

}  // namespace fastfid::bindings
