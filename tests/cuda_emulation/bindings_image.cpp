// The Python class CudaPreprocessor on the emulation; see bindings.cpp.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "cuda/preprocess.cu"

PYBIND11_MODULE(_emulated_image, module) { fastfid::bindings::bind_cuda_image(module); }
