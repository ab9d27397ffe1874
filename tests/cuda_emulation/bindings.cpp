// The Python class DeviceMoments and the distance on the emulation. Exceptions are translated, and Moments and the
// results are known to Python, by fastfid._core, which must have been imported.
#include "bindings/bindings.hpp"

#include <pybind11/pybind11.h>

extern "C" int emulated_current_device();  // runtime.cpp

PYBIND11_MODULE(_emulated, module) {
  fastfid::bindings::bind_cuda(module);
  fastfid::bindings::bind_gaussian(module);
  fastfid::bindings::bind_frechet(module);
  module.def("current_device", &emulated_current_device);
}
