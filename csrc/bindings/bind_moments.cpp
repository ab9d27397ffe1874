// fastfid.Moments.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "core/moments.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

// Every call below releases the GIL before it computes or waits for the object's lock. That is safe: the core touches
// no Python object, the arrays it reads and writes are kept alive by references on the caller's stack, and the lock is
// given back before the GIL is taken again. (An array that another thread writes to meanwhile gives arbitrary numbers,
// as in NumPy.)
template <class F>
auto without_gil(F&& f) {
  const py::gil_scoped_release release;
  return f();
}

py::array rows_to_numpy(RowBuffer rows, py::ssize_t d) {
  const auto n = static_cast<py::ssize_t>(rows.n());
  if (rows.is_float64()) return to_numpy(std::vector<double>(rows.float64()), {n, d});
  return to_numpy(std::vector<float>(rows.float32()), {n, d});
}

py::dict state_to_dict(MomentsState state) {
  const auto d = static_cast<py::ssize_t>(state.d);
  const auto k = static_cast<py::ssize_t>(state.counts.size());
  py::dict out;
  out["d"] = state.d;
  out["groups"] = state.groups;
  out["n"] = state.n;
  out["rows"] = rows_to_numpy(std::move(state.rows), d);
  out["counts"] = to_numpy(std::move(state.counts), {k});
  out["pending_counts"] = to_numpy(std::move(state.pending_counts), {k});
  out["pending"] = rows_to_numpy(std::move(state.pending), d);
  out["shift"] = to_numpy(std::move(state.shift), {k, d});
  out["shifted_mean"] = to_numpy(std::move(state.shifted_mean), {k, d});
  out["scatter"] = to_numpy(std::move(state.scatter), {k, d * (d + 1) / 2});
  return out;
}

py::object item(const py::dict& dict, const char* key) {
  FASTFID_EXPECT(dict.contains(key), InvalidArgument, "state: the key '", key, "' is missing");
  return dict[key];
}

template <class T>
T integer(const py::dict& dict, const char* key) {
  try {
    return py::cast<T>(item(dict, key));
  } catch (const py::cast_error&) {
    throw py::type_error(message("state['", key, "']: expected an integer, got ", describe(item(dict, key))));
  }
}

template <class T>
std::vector<T> vector(const py::dict& dict, const char* key, py::ssize_t rank) {
  const auto array = as_contiguous<T>(item(dict, key), key, rank);
  return {array.data(), array.data() + array.size()};
}

MomentsState dict_to_state(const py::dict& dict) {
  MomentsState state;
  state.d = integer<int>(dict, "d");
  state.groups = integer<int>(dict, "groups");
  state.n = integer<std::int64_t>(dict, "n");
  for (const auto& [key, rows] : {std::pair{"rows", &state.rows}, std::pair{"pending", &state.pending}}) {
    const py::object array = item(dict, key);
    *rows = RowBuffer(state.d);
    rows->append(as_rows(array, key, state.d));
  }
  state.counts = vector<std::int64_t>(dict, "counts", 1);
  state.pending_counts = vector<std::int64_t>(dict, "pending_counts", 1);
  state.shift = vector<double>(dict, "shift", 2);
  state.shifted_mean = vector<double>(dict, "shifted_mean", 2);
  state.scatter = vector<double>(dict, "scatter", 2);
  return state;
}

py::dict get_state(const Moments& self) {
  return state_to_dict(without_gil([&] { return self.state(); }));
}

std::unique_ptr<Moments> from_state(const py::dict& dict) {
  const MomentsState state = dict_to_state(dict);
  return without_gil([&] { return std::make_unique<Moments>(state); });
}

}  // namespace

void bind_moments(py::module_& module) {
  py::class_<Moments>(module, "Moments")
      .def(py::init<int, int>(), py::arg("d"), py::kw_only(), py::arg("groups") = 0)
      .def(
          "update",
          [](Moments& self, const py::object& x) {
            const RowsView rows = as_rows(x, "x", self.d());
            without_gil([&] { self.update(rows); });
          },
          py::arg("x"))
      .def(
          "merge", [](Moments& self, const Moments& other) { without_gil([&] { self.merge(other); }); },
          py::arg("other"))
      .def("reset", [](Moments& self) { without_gil([&] { self.reset(); }); })
      .def_property_readonly("d", &Moments::d)
      .def_property_readonly("groups", &Moments::groups)
      .def_property_readonly("n", [](const Moments& self) { return without_gil([&] { return self.n(); }); })
      .def_property_readonly("mean",
                             [](const Moments& self) {
                               py::array_t<double> out(self.d());
                               double* const data = out.mutable_data();
                               without_gil([&] { self.mean(data); });
                               return out;
                             })
      .def(
          "covariance",
          [](const Moments& self, std::int64_t ddof) {
            py::array_t<double> out({self.d(), self.d()});
            double* const data = out.mutable_data();
            without_gil([&] { self.covariance(ddof, data); });
            return out;
          },
          py::arg("ddof") = 1)
      .def_property_readonly("rows",
                             [](const Moments& self) -> py::object {
                               std::int64_t n = 0;
                               RowBuffer rows = without_gil([&] { return self.rows(n); });
                               if (n > self.d()) return py::none();
                               return rows_to_numpy(std::move(rows), self.d());
                             })
      .def(
          "group_moments",
          [](const Moments& self, int k) {
            py::array_t<double> mean(self.d());
            py::array_t<double> scatter({self.d(), self.d()});
            double* const mean_data = mean.mutable_data();
            double* const scatter_data = scatter.mutable_data();
            const auto n = without_gil([&] { return self.group_moments(k, mean_data, scatter_data); });
            return py::make_tuple(n, mean, scatter);
          },
          py::arg("k"))
      .def("state", &get_state)
      .def_static("from_state", &from_state, py::arg("state"))
      .def(py::pickle(&get_state, &from_state));
}

}  // namespace fastfid::bindings
