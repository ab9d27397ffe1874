// The Python class DeviceMoments and the distance on the emulation. fastfid._core must have been imported: it
// translates exceptions, and makes Moments and the results known to Python.
#include "bindings/bindings.hpp"

#include <pybind11/pybind11.h>

extern "C" int emulated_current_device();  // defined in runtime.cpp

PYBIND11_MODULE(_emulated, module) {
  fastfid::bindings::bind_cuda(module);
  fastfid::bindings::bind_gaussian(module);
  fastfid::bindings::bind_frechet(module);
  module.def("current_device", &emulated_current_device);
}
