// Sums of the KID's kernel: core/kernel_sums.hpp for NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"
#include "core/kernel_sums.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

py::tuple kernel_sums_numpy(const py::object& x_object, const py::object& y_object, double shift) {
  const auto x = as_contiguous<float>(x_object, "x", 2);
  const auto y = as_contiguous<float>(y_object, "y", 2);
  FASTFID_EXPECT(x.shape(1) == y.shape(1), InvalidArgument, "y: expected shape (n, ", x.shape(1), "), as x has; got ",
                 describe(y));
  const float* const x_data = x.data();
  const float* const y_data = y.data();
  const auto n_x = static_cast<std::size_t>(x.shape(0));
  const auto n_y = static_cast<std::size_t>(y.shape(0));
  const auto d = static_cast<std::size_t>(x.shape(1));
  // Safe without the GIL: this frame holds references to `x` and `y`.
  KernelSums sums = without_gil([&] { return kernel_sums(x_data, n_x, y_data, n_y, d, shift); });
  return py::make_tuple(to_numpy(std::move(sums.of_x), {x.shape(0)}), to_numpy(std::move(sums.of_y), {y.shape(0)}),
                        sums.squares);
}

py::tuple kernel_sums_within_numpy(const py::object& object, double shift) {
  const auto x = as_contiguous<float>(object, "x", 2);
  const float* const data = x.data();
  const auto n = static_cast<std::size_t>(x.shape(0));
  const auto d = static_cast<std::size_t>(x.shape(1));
  // Safe without the GIL: this frame holds a reference to `x`.
  KernelSumsWithin sums = without_gil([&] { return kernel_sums_within(data, n, d, shift); });
  return py::make_tuple(to_numpy(std::move(sums.of_x), {x.shape(0)}), sums.squares);
}

}  // namespace

void bind_kernel_sums(py::module_& module) {
  module.def(
      "kernel_sums", &kernel_sums_numpy, py::arg("x"), py::arg("y"), py::arg("shift"),
      "Sums of k(a, b) - shift, k(a, b) = (a . b / d + 1)^3, over pairs of a row of x (n_x, d) and a row of y (n_y, "
      "d),\n"
      "both float32: for each row of x over all rows of y, for each row of y over all rows of x, and the sum of the\n"
      "squares of k(a, b) - shift over all pairs; float64 (n_x,), float64 (n_y,) and a float.\n\n"
      "Raises TypeError unless both are C-contiguous float32 with two axes, ValueError where d differs or is 0.");
  module.def(
      "kernel_sums_within", &kernel_sums_within_numpy, py::arg("x"), py::arg("shift"),
      "For each row of x (n, d), float32, the sum of k(a, b) - shift, k(a, b) = (a . b / d + 1)^3, over all other\n"
      "rows, float64 (n,); and the sum of the squares of k(a, b) - shift over all ordered pairs, a float.\n\n"
      "Raises TypeError unless x is C-contiguous float32 with two axes, ValueError where d is 0.");
}

}  // namespace fastfid::bindings
