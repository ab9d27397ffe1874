// One declaration per topic; module.cpp calls them in order.
#pragma once

#include <pybind11/pybind11.h>

namespace fastfid::bindings {

void bind_cuda(pybind11::module_& module);
void bind_cuda_image(pybind11::module_& module);  // only in builds with CUDA
void bind_cuda_network(pybind11::module_& module);
void bind_dlpack(pybind11::module_& module);
void bind_features(pybind11::module_& module);
void bind_frechet(pybind11::module_& module);
void bind_frechet_results(pybind11::module_& module);  // the classes that bind_frechet's functions return
void bind_image(pybind11::module_& module);
void bind_kernel_sums(pybind11::module_& module);
void bind_moments(pybind11::module_& module);
void bind_raw_moments(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);
void bind_testing(pybind11::module_& module);  // the submodule _testing

}  // namespace fastfid::bindings
