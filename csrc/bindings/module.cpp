// Table of contents of the extension module fastfid._core. Every topic has its own bind_*.cpp.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "core/errors.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled core of fastfid: images, moments, matrix square root, Fréchet distance.";

  // InvalidArgument derives from std::invalid_argument, which pybind11 already turns into ValueError.
  py::register_exception<fastfid::NumericalError>(module, "NumericalError", PyExc_ValueError);
  py::register_exception<fastfid::DeviceError>(module, "DeviceError", PyExc_RuntimeError);
  py::register_exception<fastfid::BackendUnavailable>(module, "BackendUnavailable", PyExc_RuntimeError);

  fastfid::bindings::bind_dlpack(module);
  fastfid::bindings::bind_features(module);
  fastfid::bindings::bind_frechet(module);
  fastfid::bindings::bind_image(module);
  fastfid::bindings::bind_raw_moments(module);
  fastfid::bindings::bind_runtime(module);
  fastfid::bindings::bind_moments(module);
}
