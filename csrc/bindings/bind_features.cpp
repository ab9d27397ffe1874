// Spatial mean of feature maps: core/spatial_mean.hpp for NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/spatial_mean.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

py::array_t<float> spatial_mean_numpy(const py::object& object) {
  const auto map = as_contiguous<float>(object, "map", 4);
  const auto area = static_cast<std::size_t>(checked_mul(map.shape(2), map.shape(3), "map: h * w"));
  FASTFID_EXPECT(area >= 1, InvalidArgument, "map: expected h and w of at least 1, got ", describe(map));
  py::array_t<float> out({map.shape(0), map.shape(1)});
  const float* const data = map.data();
  const auto planes = static_cast<std::size_t>(out.size());
  float* const means = out.mutable_data();
  {
    // Safe without the GIL: this frame holds a reference to `map`, and no other thread knows `out` yet.
    const WithoutGil guard;
    spatial_mean(data, planes, area, means);
  }
  return out;
}

}  // namespace

void bind_features(py::module_& module) {
  module.def("spatial_mean", &spatial_mean_numpy, py::arg("map"),
             "Mean over h and w of a float32 map (n, c, h, w), taken in float64 and rounded once: float32 (n, c).\n\n"
             "Raises TypeError unless `map` is C-contiguous float32 with four axes, ValueError where h or w is 0.");
}

}  // namespace fastfid::bindings
