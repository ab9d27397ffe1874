// Build facts, threads, devices, crashes.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/blas.hpp"
#include "core/parallel.hpp"
#include "host/crash.hpp"
#include "host/cuda_driver.hpp"

namespace py = pybind11;

namespace fastfid::bindings {

void bind_runtime(py::module_& module) {
  module.def(
      "build_info",
      [] {
        py::dict info;
        info["compiler"] = FASTFID_COMPILER;
        info["build_type"] = FASTFID_BUILD_TYPE;
        info["sanitizers"] = FASTFID_SANITIZERS;
        info["blas"] = linalg::blas_description();
        info["cuda"] = FASTFID_CUDA_STATUS;
        return info;
      },
      R"(Facts about the build: compiler, flags, BLAS, CUDA (compiler and architectures, or why it was not built).

Examples
--------
>>> import fastfid
>>> {"blas", "compiler", "cuda"} <= set(fastfid.build_info())
True
)");
  module.def("num_threads", &num_threads, "The number of threads that the core uses.");
  module.def(
      "threads_source", [] { return threads_choice().source; }, "The setting that determines the number of threads.");
  module.def("cgroup_quota", &cgroup_quota, py::arg("membership"), py::arg("mount"),
             "CPUs that the control groups listed in the file `membership` allow, or 0 for no limit.");
  module.def("set_num_threads", &set_num_threads, py::arg("n"),
             "Sets the number of threads of the core for the whole process; 0 restores the default.");
  module.def(
      "set_current_image", &set_current_image, py::arg("name"),
      "Remembers the name (bytes or str) of the image that this thread decodes, for report_crashes; empty: none.");
  module.def("report_crashes", &report_crashes,
             "After this call, a fatal signal in a thread that decodes an image first writes the name to stderr.");
  module.def(
      "current_cuda_context", [] { return reinterpret_cast<std::uintptr_t>(current_cuda_context()); },
      "The CUDA context that is current in this thread, as a number; 0 without a context or a driver.");
  module.def(
      "set_current_cuda_context",
      [](std::uintptr_t context) { set_current_cuda_context(reinterpret_cast<void*>(context)); }, py::arg("context"),
      "Makes a context from current_cuda_context() current in this thread; no effect without a driver.");
  module.def(
      "cuda_driver",
      [] {
        // Safe: initialising the driver can take seconds and touches no Python object.
        CudaDriver driver;
        {
          const WithoutGil guard;
          driver = cuda_driver();
        }
        return py::make_tuple(driver.devices, driver.reason);
      },
      "(number of CUDA devices the driver reports, reason why there are none).");
  module.def("cuda_device_name", &cuda_device_name, py::arg("device"),
             // Safe without the GIL: the call asks the driver and touches no Python object.
             py::call_guard<WithoutGil>(),
             "The driver's name of the CUDA device with this number; empty where there is no such device.");
}

}  // namespace fastfid::bindings
