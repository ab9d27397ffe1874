// Raw sums in the layout of torchmetrics.
#include <pybind11/pybind11.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/raw_moments.hpp"

namespace py = pybind11;

namespace fastfid::bindings {

void bind_raw_moments(py::module_& module) {
  module.def(
      "add_raw_moments",
      [](const py::object& features, const py::object& sum, const py::object& cross) {
        const auto rows = as_contiguous<double>(features, "features", 2);
        auto sum_array = as_contiguous<double>(sum, "sum", 1);
        auto cross_array = as_contiguous<double>(cross, "cross", 2);
        const auto d = rows.shape(1);
        FASTFID_EXPECT(d >= 1 && d <= (1 << 20) && sum_array.shape(0) == d && cross_array.shape(0) == d &&
                           cross_array.shape(1) == d,
                       InvalidArgument, "expected shapes (n, d), (d,) and (d, d), got ", describe(features), ", ",
                       describe(sum), " and ", describe(cross));
        const double* const data = rows.data();
        double* const sum_data = sum_array.mutable_data();  // ValueError where the array is read-only
        double* const cross_data = cross_array.mutable_data();
        const auto n = static_cast<std::size_t>(rows.shape(0));
        // Safe: the core touches no Python object, and this frame holds references to the arrays.
        const WithoutGil guard;
        add_raw_moments(data, n, static_cast<int>(d), sum_data, cross_data);
      },
      py::arg("features"), py::arg("sum"), py::arg("cross"),
      "Adds the rows of features (n, d) to sum (d,) and their outer products to cross (d, d); float64, in place.");
}

}  // namespace fastfid::bindings
