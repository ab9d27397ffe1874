// One function per topic; module.cpp calls the functions in order.
#pragma once

#include <pybind11/pybind11.h>

#include "core/errors.hpp"

namespace fastfid::bindings {

void bind_cuda(pybind11::module_& module);
void bind_cuda_image(pybind11::module_& module);  // only in builds with CUDA
void bind_cuda_network(pybind11::module_& module);
void bind_dlpack(pybind11::module_& module);
void bind_features(pybind11::module_& module);
void bind_frechet(pybind11::module_& module);
void bind_frechet_results(pybind11::module_& module);  // the classes that bind_frechet's functions return
void bind_gaussian(pybind11::module_& module);
void bind_image(pybind11::module_& module);
void bind_kernel_sums(pybind11::module_& module);
void bind_moments(pybind11::module_& module);
void bind_neighbours(pybind11::module_& module);
void bind_raw_moments(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);
void bind_testing(pybind11::module_& module);  // the submodule _testing

#ifndef FASTFID_WITH_CUDA
[[noreturn]] inline void throw_without_cuda() {
  throw BackendUnavailable("fastfid was built without its CUDA part (" FASTFID_CUDA_STATUS ")");
}
#endif

}  // namespace fastfid::bindings
