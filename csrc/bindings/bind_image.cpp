// Preprocessing of images: core/image.hpp for NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"
#include "core/image.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

// Views a NumPy array (h, w, 3) of T without copying. The caller keeps `object` alive.
template <class T>
image::View<T> view_of(const py::handle& object, const std::string& name, const char* expected) {
  expect_unmasked(object, name);
  if (!py::isinstance<py::array_t<T>>(object) || py::reinterpret_borrow<py::array>(object).ndim() != 3) {
    throw py::type_error(message(name, ": expected ", expected, ", got ", describe(object)));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  FASTFID_EXPECT(array.shape(2) == 3, InvalidArgument, name, ": expected ", expected, ", got ", describe(object));
  return {static_cast<const T*>(array.data()),
          array.shape(0),
          array.shape(1),
          array.strides(0),
          array.strides(1),
          array.strides(2)};
}

// The caller's array for the result.
py::array expect_place(const py::object& place, const std::vector<py::ssize_t>& shape) {
  constexpr const char* kExpected = "out: expected a writeable, C-contiguous float32 array of the result's shape, got ";
  if (!py::isinstance<py::array_t<float, py::array::c_style>>(place)) {
    throw py::type_error(message(kExpected, describe(place)));
  }
  const auto array = py::reinterpret_borrow<py::array>(place);
  const bool fits = std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim());
  FASTFID_EXPECT(fits && array.writeable(), InvalidArgument, kExpected, describe(place),
                 array.writeable() ? "" : ", read-only");
  return array;
}

py::array preprocess(const py::sequence& images, const image::InputSpec& asked, const py::object& place) {
  // A copy: without the GIL, the object may be destroyed or changed.
  const image::InputSpec spec = asked;  // NOLINT(performance-unnecessary-copy-initialization)
  // The references, not `images`, keep the pixels alive, because another thread may empty the list in the meantime.
  std::vector<py::object> references;
  std::vector<image::View<std::uint8_t>> views;
  const py::ssize_t count = call_python(PySequence_Size, images.ptr());
  if (count < 0) throw py::error_already_set();
  for (py::ssize_t i = 0; i < count; ++i) {
    references.push_back(object_from_python(PySequence_GetItem, images.ptr(), i));
    views.push_back(view_of<std::uint8_t>(references.back(), message("images[", i, "]"), "a uint8 array (h, w, 3)"));
  }
  image::check_images(views, spec);  // before memory for the result is allocated
  const auto height = spec.resizes() ? spec.height : views[0].height;
  const auto width = spec.resizes() ? spec.width : views[0].width;
  const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(views.size()), 3, height, width};
  py::array out = place.is_none() ? py::array(py::array_t<float>(shape)) : expect_place(place, shape);
  auto* const data = static_cast<float*>(out.mutable_data());
  {
    // Safe without the GIL: `references` and `out` keep every array and its memory alive. Either no other thread knows
    // `out` yet, or the caller passed `out` to be written to. A thread that writes into an image in the meantime spoils
    // only the values of this image.
    const WithoutGil guard;
    image::preprocess(views, spec, data);
  }
  return out;
}

image::InputSpec make_spec(const std::string& name, std::optional<std::pair<std::ptrdiff_t, std::ptrdiff_t>> size,
                           std::ptrdiff_t least, const std::string& filter, bool clip,
                           const std::array<float, 3>& divisor, const std::array<float, 3>& factor,
                           const std::array<float, 3>& offset) {
  const auto [height, width] = size.value_or(std::pair<std::ptrdiff_t, std::ptrdiff_t>{0, 0});
  FASTFID_EXPECT(!size || (height != 0 && width != 0), InvalidArgument, "size: expected 1 to ", image::kMaxSide,
                 " pixels a side, got ", height, " x ", width);
  image::InputSpec spec{name, height, width, least, image::filter_by_name(filter), clip, divisor, factor, offset};
  image::expect_spec(spec);
  return spec;
}

template <class T>
py::array_t<float> resize_as(const py::object& object, py::ssize_t height, py::ssize_t width, image::Filter filter,
                             bool clip) {
  const auto view = view_of<T>(object, "image", "a uint8 or float32 array (h, w, 3)");
  FASTFID_EXPECT(height >= 1 && height <= image::kMaxSide && width >= 1 && width <= image::kMaxSide, InvalidArgument,
                 "height, width: expected 1 to ", image::kMaxSide, ", got ", height, ", ", width);
  py::array_t<float> out({height, width, py::ssize_t{3}});
  float* const data = out.mutable_data();
  {
    // Safe without the GIL: the caller's reference keeps `object` alive, and no other thread knows `out` yet.
    const WithoutGil guard;
    image::resize(view, height, width, filter, clip, data);
  }
  return out;
}

py::array_t<float> resize(const py::object& object, py::ssize_t height, py::ssize_t width,
                          const std::string& filter_name, bool clip) {
  const auto filter = image::filter_by_name(filter_name);
  if (py::isinstance<py::array_t<float>>(object)) return resize_as<float>(object, height, width, filter, clip);
  return resize_as<std::uint8_t>(object, height, width, filter, clip);
}

py::tuple resize_taps(py::ssize_t in, py::ssize_t out, const std::string& filter_name) {
  const auto table = image::make_taps(in, out, image::filter_by_name(filter_name));
  return py::make_tuple(py::array_t<std::int32_t>(table.out, table.first.data()),
                        py::array_t<float>({table.out, table.taps}, table.weights.data()));
}

}  // namespace

void bind_image(py::module_& module) {
  py::class_<image::InputSpec>(module, "InputSpec", R"(
How a network's input is made from a uint8 image: a resize, then `grey / divisor * factor - offset` for each channel.

Parameters
----------
name : str
    The name of the protocol, for messages.
size : (int, int) or None
    Height and width of the input. None: images keep their size, and all images of a batch must have one size.
least : int
    The smallest side that the network takes, where images keep their size.
filter : str
    As in `resize`.
clip : bool
    Limit grey levels to [0, 255] after the resize.
divisor, factor, offset : three floats
    For red, green and blue; in float32.

Raises
------
ValueError
    For an unknown filter, a side of 0 or above 1048576, a divisor of 0, or a number that is not finite.
)")
      .def(py::init(&make_spec), py::kw_only(), py::arg("name"), py::arg("size"), py::arg("least") = 1,
           py::arg("filter") = "bilinear", py::arg("clip") = false, py::arg("divisor"), py::arg("factor"),
           py::arg("offset"))
      .def(
          "output_size",
          [](const image::InputSpec& self, std::ptrdiff_t height, std::ptrdiff_t width) {
            return self.resizes() ? std::pair(self.height, self.width) : std::pair(height, width);
          },
          py::arg("height"), py::arg("width"), "Height and width of the input that an image of this size gives.");
  module.def("preprocess", &preprocess, py::arg("images"), py::arg("spec"), py::arg("out") = py::none(),
             R"(Turn uint8 images into the network's input.

Parameters
----------
images : sequence of uint8 array (h, w, 3)
    RGB; any strides, sizes may differ. Also one array (n, h, w, 3). Never modified.
spec : InputSpec
    The preprocessing. `fastfid.protocols` has the specs that are used for the FID.
out : float32 array (n, 3, H, W), optional
    C-contiguous; receives the result.

Returns
-------
float32 array (n, 3, H, W)
    H, W: the size in `spec`, or the common size of the images. The array is `out` where `out` is given.

Raises
------
TypeError
    If an image is not a uint8 array of three axes, or `out` is not a C-contiguous float32 array.
ValueError
    If `out` has another shape or is read-only. Also for no images, a last axis that is not 3, or a side of 0 or above
    1048576, and, where images keep their size, for sizes that differ or are too small for the network.
)");
  module.def("resize", &resize, py::arg("image"), py::arg("height"), py::arg("width"), py::arg("filter"), py::kw_only(),
             py::arg("clip") = false,
             R"(Resample one image with a peer's filter, without scaling its grey levels.

Parameters
----------
image : uint8 or float32 array (h, w, 3)
    Any strides. Never modified. A value that is not finite spoils the pixels around it.
height, width : int
    Size of the result, in pixels.
filter : str
    "bilinear" (torch, half-pixel, no antialias), "bilinear-tf1" (TensorFlow 1), "bilinear-antialias" (torch),
    "bicubic-antialias" (Pillow) or "bicubic-antialias-torch".
clip : bool
    Limit the result to [0, 255].

Returns
-------
float32 array (height, width, 3)
    In the units of `image`, not rounded.

Raises
------
TypeError
    If `image` is not a uint8 or float32 array of three axes.
ValueError
    For an unknown filter, a last axis that is not 3, or a side of 0 or above 1048576.
)");
  module.def("resize_taps", &resize_taps, py::arg("n_in"), py::arg("n_out"), py::arg("filter"),
             R"(The weights with which `resize` makes n_out pixels from n_in pixels along one axis.

Returns
-------
first : int32 array (n_out,)
    The first input pixel of each output pixel.
weights : float32 array (n_out, taps)
    The weights of the input pixels.

Raises
------
ValueError
    For an unknown filter, or a length that is not 1 to 1048576.
)");
}

}  // namespace fastfid::bindings
