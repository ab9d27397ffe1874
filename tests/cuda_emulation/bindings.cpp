// The Python class DeviceMoments on the emulation. Exceptions are translated, and Moments is known to Python, by
// fastfid._core, which must have been imported.
#include "bindings/bindings.hpp"

#include <pybind11/pybind11.h>

PYBIND11_MODULE(_emulated, module) { fastfid::bindings::bind_cuda(module); }
