// NumPy arrays as arguments and results. Only this file checks dtype, rank and shape.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bindings/gil.hpp"
#include "core/errors.hpp"
#include "core/moments.hpp"

namespace fastfid::bindings {

// A description for messages: "an array of uint8 (4, 5, 3)", or the type of an object that is not an array. Used in the
// "got ..." of a message.
inline std::string describe(pybind11::handle object) {
  namespace py = pybind11;
  if (!py::isinstance<py::array>(object)) return type_name(object);
  return message("an array of ", text(attribute(object, "dtype")), " ", text(attribute(object, "shape")));
}

// `object` as an integer, by its __index__. Throws TypeError for an object without __index__, and ValueError for an
// integer beyond 64 bits.
inline std::int64_t as_integer(pybind11::handle object, const std::string& argument) {
  namespace py = pybind11;
  PyObject* const index = call_python(PyNumber_Index, object.ptr());
  if (index == nullptr) {
    const py::error_already_set error;
    if (!error.matches(PyExc_TypeError)) throw error;
    throw py::type_error(message(argument, ": expected an integer, got ", describe(object)));
  }
  const auto number = py::reinterpret_steal<py::object>(index);
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  FASTFID_EXPECT(overflow == 0, InvalidArgument, argument, ": expected an integer of 64 bits, got a longer one");
  return value;
}

// Throws TypeError for a numpy.ma.MaskedArray, because its mask would be dropped in silence.
inline void expect_unmasked(pybind11::handle object, const std::string& argument) {
  namespace py = pybind11;
  if (py::isinstance<py::array>(object) && has_attribute(object, "mask")) {
    throw py::type_error(message(argument, ": expected an array without a mask, got a masked array, ", describe(object),
                                 "; fill or drop what is masked first"));
  }
}

// The argument as a NumPy array of `rank` dimensions, with any dtype and strides. Nothing is converted: throws
// TypeError for a list, a tensor or another rank.
inline pybind11::array as_array(pybind11::handle object, const std::string& argument, pybind11::ssize_t rank) {
  namespace py = pybind11;
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(
        message(argument, ": expected a NumPy array with ", rank, " dimensions, got ", describe(object)));
  }
  expect_unmasked(object, argument);
  auto array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() != rank) {
    throw py::type_error(
        message(argument, ": expected a NumPy array with ", rank, " dimensions, got ", describe(object)));
  }
  return array;
}

// Rows (n, any) of float16, bfloat16, float32 or float64 in native byte order, any strides, and the number of columns.
// The view is valid as long as the array exists. bfloat16 is the dtype of ml_dtypes, recognised by its name. Throws
// TypeError for another dtype or rank.
inline MomentsStateView::Rows as_any_rows(pybind11::handle object, const std::string& argument) {
  namespace py = pybind11;
  const py::array array = as_array(object, argument, 2);
  const py::dtype dtype = array.dtype();
  const char kind = dtype.kind();
  const auto size = dtype.itemsize();
  RowsView rows;
  if (kind == 'f' && size == 8) {
    rows.dtype = DType::kFloat64;
  } else if (kind == 'f' && size == 4) {
    rows.dtype = DType::kFloat32;
  } else if (kind == 'f' && size == 2) {
    rows.dtype = DType::kFloat16;
  } else if (size == 2 && text(attribute(dtype, "name")) == "bfloat16") {
    rows.dtype = DType::kBFloat16;
  } else {
    throw py::type_error(message(argument, ": expected float32, float64, float16 or bfloat16, got ", describe(object)));
  }
  if (!py::cast<bool>(attribute(dtype, "isnative"))) {
    throw py::type_error(message(argument, ": expected native byte order, got ", describe(object)));
  }
  rows.data = static_cast<const std::byte*>(array.data());
  rows.n = static_cast<std::size_t>(array.shape(0));
  rows.row_stride = array.strides(0);
  rows.column_stride = array.strides(1);
  return {rows, static_cast<std::size_t>(array.shape(1))};
}

// The rows of as_any_rows() with d columns. Throws ValueError for another number of columns.
inline RowsView as_rows(pybind11::handle object, const std::string& argument, int d) {
  const auto [view, columns] = as_any_rows(object, argument);
  FASTFID_EXPECT(columns == static_cast<std::size_t>(d), InvalidArgument, argument, ": expected shape (n, ", d,
                 "), got ", describe(object));
  return view;
}

// A C-contiguous, aligned, native array of exactly this dtype and rank. Throws TypeError for any other object.
template <class T>
pybind11::array_t<T> as_contiguous(pybind11::handle object, const std::string& argument, pybind11::ssize_t rank) {
  namespace py = pybind11;
  const py::array array = as_array(object, argument, rank);
  if (!py::isinstance<py::array_t<T, py::array::c_style>>(array) ||
      (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) {
    throw py::type_error(
        message(argument, ": expected a C-contiguous ", text(py::dtype::of<T>()), " array, got ", describe(object)));
  }
  return py::reinterpret_borrow<py::array_t<T>>(array);
}

// Hands the vector's memory to a NumPy array without a copy.
template <class T>
pybind11::array_t<T> to_numpy(std::vector<T>&& values, std::vector<pybind11::ssize_t> shape) {
  namespace py = pybind11;
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owned->data();
  py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
  owned.release();
  return py::array_t<T>(std::move(shape), data, owner);
}

}  // namespace fastfid::bindings
