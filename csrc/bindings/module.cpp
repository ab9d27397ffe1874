// Table of contents of the extension module fastfid._core. Every topic has its own bind_*.cpp.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "core/errors.hpp"

namespace py = pybind11;

namespace {

constexpr const char* kOneInterpreter =
    "fastfid._core: works in the main interpreter only, and this is a sub-interpreter; "
    "import fastfid in the main interpreter, or in another process";

bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

}  // namespace

// One interpreter, and with the GIL (pybind11's default, as py::mod_gil_not_used is absent): ThreadSanitizer has not
// seen the bindings on a free-threaded build. Python heeds this declaration from 3.12 on, and only in isolated
// interpreters. The first line of the body refuses all others.
PYBIND11_MODULE(_core_of_main, module, py::multiple_interpreters::not_supported()) {
  if (!in_main_interpreter()) throw py::import_error(kOneInterpreter);
  module.doc() = "The compiled core of fastfid: images, moments, matrix square root, Fréchet distance.";

  // InvalidArgument derives from std::invalid_argument, which pybind11 already turns into ValueError.
  py::register_exception<fastfid::NumericalError>(module, "NumericalError", PyExc_ValueError).doc() = R"(
NaN or infinity in features, an indefinite covariance, no convergence.

Examples
--------
>>> import fastfid
>>> try:
...     fastfid.frechet_distance(([0.0], [[-1.0]]), ([0.0], [[1.0]]))
... except fastfid.NumericalError:
...     print("no covariance")
no covariance
)";
  py::register_exception<fastfid::DeviceError>(module, "DeviceError", PyExc_RuntimeError).doc() = R"(
A call of CUDA or of the linear algebra library failed. The message names the call.

Examples
--------
>>> import fastfid
>>> issubclass(fastfid.DeviceError, RuntimeError)
True
)";
  py::register_exception<fastfid::BackendUnavailable>(module, "BackendUnavailable", PyExc_RuntimeError).doc() = R"(
The backend was not built, or there is no such device. No other device is used instead.

Examples
--------
>>> import fastfid
>>> try:
...     fastfid.InceptionV3(64, device="cuda:99")
... except fastfid.BackendUnavailable:
...     print("no such device")
no such device
)";

#ifdef FASTFID_WITH_CUDA
  fastfid::bindings::bind_cuda_image(module);
  fastfid::bindings::bind_cuda_network(module);
#endif
  fastfid::bindings::bind_dlpack(module);
  fastfid::bindings::bind_features(module);
  fastfid::bindings::bind_frechet_results(module);
  fastfid::bindings::bind_gaussian(module);
  fastfid::bindings::bind_frechet(module);
  fastfid::bindings::bind_image(module);
  fastfid::bindings::bind_kernel_sums(module);
  fastfid::bindings::bind_neighbours(module);
  fastfid::bindings::bind_raw_moments(module);
  fastfid::bindings::bind_runtime(module);
  fastfid::bindings::bind_moments(module);
  fastfid::bindings::bind_cuda(module);
  fastfid::bindings::bind_testing(module);
}

// What Python calls. In a sub-interpreter of Python 3.11, pybind11's own function would wait for a lock for ever: it
// asks for the thread's state (PyGILState_Ensure) and gets the main interpreter's, which waits for this one.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (in_main_interpreter()) return PyInit__core_of_main();
  PyErr_SetString(PyExc_ImportError, kOneInterpreter);
  return nullptr;
}
