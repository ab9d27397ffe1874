// Balls of k nearest neighbours: core/neighbours.hpp for NumPy arrays.
#include "core/neighbours.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

py::array kth_squared_distances_numpy(const py::object& object, const py::object& k_object) {
  const auto x = as_contiguous<float>(object, "x", 2);
  const std::int64_t k = as_integer(k_object, "k");
  FASTFID_EXPECT(k >= 1, InvalidArgument, "k: expected 1 or more, got ", k);
  const float* const data = x.data();
  const auto n = static_cast<std::size_t>(x.shape(0));
  const auto d = static_cast<std::size_t>(x.shape(1));
  // Safe without the GIL: this frame holds a reference to `x`.
  std::vector<double> found =
      without_gil([&] { return kth_squared_distances(data, n, d, static_cast<std::size_t>(k)); });
  return to_numpy(std::move(found), {x.shape(0)});
}

// Radii for the n rows of the argument `rows`.
py::array_t<double> as_radii(const py::object& object, const char* argument, py::ssize_t n) {
  auto radii = as_contiguous<double>(object, argument, 1);
  FASTFID_EXPECT(radii.shape(0) == n, InvalidArgument, argument, ": expected shape (", n, ",), one for each row; got ",
                 describe(radii));
  return radii;
}

py::tuple count_in_balls_numpy(const py::object& x_object, const py::object& radii_x_object, const py::object& y_object,
                               const py::object& radii_y_object, bool strict) {
  const auto x = as_contiguous<float>(x_object, "x", 2);
  const auto y = as_contiguous<float>(y_object, "y", 2);
  FASTFID_EXPECT(x.shape(1) == y.shape(1), InvalidArgument, "y: expected shape (n, ", x.shape(1), "), as x has; got ",
                 describe(y));
  const auto radii_x = as_radii(radii_x_object, "radii_x", x.shape(0));
  const auto radii_y = as_radii(radii_y_object, "radii_y", y.shape(0));
  const Balls of_x{x.data(), radii_x.data(), static_cast<std::size_t>(x.shape(0)), "x"};
  const Balls of_y{y.data(), radii_y.data(), static_cast<std::size_t>(y.shape(0)), "y"};
  const auto d = static_cast<std::size_t>(x.shape(1));
  // Safe without the GIL: this frame holds references to `x`, `y` and their radii.
  BallCounts counts = without_gil([&] { return count_in_balls(of_x, of_y, d, strict); });
  return py::make_tuple(to_numpy(std::move(counts.x_around_y), {y.shape(0)}),
                        to_numpy(std::move(counts.y_within_x), {x.shape(0)}),
                        to_numpy(std::move(counts.y_around_x), {x.shape(0)}),
                        to_numpy(std::move(counts.x_within_y), {y.shape(0)}), counts.undecided);
}

}  // namespace

void bind_neighbours(py::module_& module) {
  module.def(
      "kth_squared_distances", &kth_squared_distances_numpy, py::arg("x"), py::arg("k"),
      "For each row of x (n, d), float32, the k-th smallest squared distance to the other rows; float64 (n,).\n\n"
      "The squared distance is the float64 sum of the squared differences, feature by feature. Raises TypeError "
      "unless\n"
      "x is C-contiguous float32 with two axes, ValueError where k is less than 1, n less than k + 1, or d is 0, and\n"
      "NumericalError where a row has NaN or infinite values.");
  module.def(
      "count_in_balls", &count_in_balls_numpy, py::arg("x"), py::arg("radii_x"), py::arg("y"), py::arg("radii_y"),
      py::arg("strict"),
      "Counts of rows in the balls around rows of x (n_x, d) and y (n_y, d), float32, with squared radii, float64:\n"
      "for each row of y the balls of x that hold it, for each row of x the rows of y in its ball, for each row of x\n"
      "the balls of y that hold it, for each row of y the rows of x in its ball; and the number of pairs that needed\n"
      "float64. A ball holds what is nearer than its radius, and without `strict` what is as near, too.\n\n"
      "Raises TypeError unless the arrays are C-contiguous, ValueError where shapes differ, d is 0, or a radius is\n"
      "negative or not finite, and NumericalError where a row has NaN or infinite values.");
}

}  // namespace fastfid::bindings
