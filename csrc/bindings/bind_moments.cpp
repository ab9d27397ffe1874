// fastfid.Moments.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "bindings/moments_state.hpp"
#include "core/moments.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

// Every call below releases the GIL before it computes or waits for the object's lock. Safe: the core touches no Python
// object, references on the caller's stack keep the arrays alive that the core reads and writes, and the lock is
// released before the GIL is taken again. (If another thread writes to an array in the meantime, the numbers are
// arbitrary, as in NumPy.)

py::array rows_to_numpy(RowBuffer rows, py::ssize_t d) {
  const auto n = static_cast<py::ssize_t>(rows.n());
  if (rows.is_float64()) return to_numpy(std::move(rows).take_float64(), {n, d});
  return to_numpy(std::move(rows).take_float32(), {n, d});
}

py::dict state_to_dict(MomentsState state) {
  const auto d = static_cast<py::ssize_t>(state.d);
  const auto k = static_cast<py::ssize_t>(state.counts.size());
  py::dict out;
  out["d"] = state.d;
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

// A state that Python gives: a view of the arrays, and the references that keep the arrays alive.
class ForeignState {
 public:
  explicit ForeignState(const py::handle& state) : state_(state) {
    if (!PyDict_Check(state.ptr())) {
      throw py::type_error(message("state: expected a dict, as Moments.state() returns it, got ", describe(state)));
    }
    view_.d = as_integer(item("d"), name_of("d"));
    refuse_groups();
    view_.n = as_integer(item("n"), name_of("n"));
    view_.rows = as_any_rows(item("rows"), name_of("rows"));
    view_.counts = counts("counts");
    view_.pending_counts = counts("pending_counts");
    view_.pending = as_any_rows(item("pending"), name_of("pending"));
    view_.shift = table("shift");
    view_.shifted_mean = table("shifted_mean");
    view_.scatter = table("scatter");
  }

  const MomentsStateView& view() const { return view_; }

 private:
  static std::string name_of(const char* key) { return message("state['", key, "']"); }

  // The entry, or a null handle if there is none.
  py::handle find(const char* key) {
    const py::str name(key);
    PyObject* const found = call_python(PyDict_GetItemWithError, state_.ptr(), name.ptr());
    if (found == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return kept_.emplace_back(py::reinterpret_borrow<py::object>(found));
  }

  py::handle item(const char* key) {
    const py::handle found = find(key);
    FASTFID_EXPECT(found, InvalidArgument, "state: the key '", key, "' is missing");
    return found;
  }

  // Earlier versions could divide the rows into groups, each with its own moments, and wrote the number of groups.
  void refuse_groups() {
    const py::handle found = find("groups");
    if (!found) return;
    const std::int64_t groups = as_integer(found, name_of("groups"));
    FASTFID_EXPECT(groups == 0, InvalidArgument, name_of("groups"),
                   ": expected 0, because moments of groups of rows are no longer supported, got ", groups);
  }

  std::span<const std::int64_t> counts(const char* key) {
    const auto array = as_contiguous<std::int64_t>(item(key), name_of(key), 1);
    return {array.data(), static_cast<std::size_t>(array.size())};
  }

  MomentsStateView::Table table(const char* key) {
    const auto array = as_contiguous<double>(item(key), name_of(key), 2);
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1))};
  }

  py::handle state_;
  std::vector<py::object> kept_;
  MomentsStateView view_;
};

}  // namespace

py::dict state_of(const Moments& moments) {
  return state_to_dict(without_gil([&] { return moments.state(); }));
}

std::unique_ptr<Moments> moments_from_state(py::handle state) {
  const ForeignState foreign(state);
  return without_gil([&] { return std::make_unique<Moments>(foreign.view()); });
}

void bind_moments(py::module_& module) {
  py::options options;
  options.disable_function_signatures();  // the docstrings begin with a sentence; the types are in _core.pyi
  py::class_<Moments>(module, "Moments",
                      R"(Number, mean and covariance of a stream of feature rows, in one pass and mergeable.

Sums are in float64 for every dtype of the rows. The result is the same, bit for bit, for every split of the rows into
calls of `update` and for every number of threads. Merged objects agree with one pass to rounding. Memory does not grow
with the number of rows: while n <= d the rows themselves are kept (`rows`), then 4 d^2 bytes (17 MB at d = 2048).
An object may be used from several threads. After a fork, the child must not use an object that another thread was using
at the moment of the fork: in the child the lock of the object stays taken.

Parameters
----------
d : int
    Number of features, 1 to 2^20.

Raises
------
ValueError
    If d is out of range.

Notes
-----
Blocks of rows are centred on their own means and joined by the formulas of Chan, Golub and LeVeque (1983).

Examples
--------
>>> import numpy as np
>>> import fastfid
>>> moments = fastfid.Moments(2)
>>> moments.update(np.array([[1.0, 2.0], [3.0, 4.0]]))
>>> moments.update(np.array([[5.0, 9.0]]))
>>> moments.n, moments.mean
(3, array([3., 5.]))
>>> moments.covariance()
array([[ 4.,  7.],
       [ 7., 13.]])
)")
      .def(py::init<int>(), py::arg("d"))
      .def(
          "update",
          [](Moments& self, const py::object& x) {
            const RowsView rows = as_rows(x, "x", self.d());
            without_gil([&] { self.update(rows); });
          },
          py::arg("x"),
          R"(Add rows.

Parameters
----------
x : numpy.ndarray
    (n, d), float32, float64, float16 or bfloat16 (the dtype of ml_dtypes), any strides. Not modified; no copy is made.

Raises
------
TypeError
    If x is not a NumPy array of such a dtype with two dimensions, or if x has a mask.
ValueError
    If x has another number of features, or there would be more than 2^62 rows in all.
NumericalError
    If a value is NaN or infinite; the message names the row. Then no row of the call has been added.

Examples
--------
>>> import numpy as np
>>> import fastfid
>>> moments = fastfid.Moments(3)
>>> moments.update(np.ones((5, 3), np.float32))
>>> moments
Moments(d=3, n=5)
)")
      .def(
          "merge", [](Moments& self, const Moments& other) { without_gil([&] { self.merge(other); }); },
          py::arg("other"),
          R"(Add all rows that `other` has seen. While the sum of both n is <= d, the rows are concatenated.

Parameters
----------
other : Moments
    With the same d; not modified. It may be this object itself.

Raises
------
ValueError
    If d differs, or there would be more than 2^62 rows in all.

Examples
--------
>>> import numpy as np
>>> import fastfid
>>> a, b = fastfid.Moments(1), fastfid.Moments(1)
>>> a.update(np.array([[1.0], [2.0]]))
>>> b.update(np.array([[6.0]]))
>>> a.merge(b)
>>> a.n, a.mean, a.covariance()
(3, array([3.]), array([[7.]]))
)")
      .def(
          "reset", [](Moments& self) { without_gil([&] { self.reset(); }); }, "Forget all rows and free the memory.")
      .def_property_readonly("d", &Moments::d, "Number of features.")
      .def_property_readonly(
          "n", [](const Moments& self) { return without_gil([&] { return self.n(); }); }, "Number of rows seen.")
      .def_property_readonly(
          "mean",
          [](const Moments& self) {
            py::array_t<double> out(self.d());
            double* const data = out.mutable_data();
            without_gil([&] { self.mean(data); });
            return out;
          },
          R"(Mean of the rows, float64 (d,), a new array.

Raises
------
ValueError
    If there are no rows.
NumericalError
    If the mean overflows.
)")
      .def(
          "covariance",
          [](const Moments& self, std::int64_t ddof) {
            py::array_t<double> out({self.d(), self.d()});
            double* const data = out.mutable_data();
            without_gil([&] { self.covariance(ddof, data); });
            return out;
          },
          py::arg("ddof") = 1, R"(Covariance of the rows, float64 (d, d), exactly symmetric, a new array.

Parameters
----------
ddof : int, optional
    The divisor is n - ddof.

Raises
------
ValueError
    If ddof < 0 or n <= ddof.
NumericalError
    If the covariance overflows.
)")
      .def_property_readonly(
          "rows",
          [](const Moments& self) -> py::object {
            std::int64_t n = 0;
            RowBuffer rows = without_gil([&] { return self.rows(n); });
            if (n > self.d()) return py::none();
            return rows_to_numpy(std::move(rows), self.d());
          },
          "The rows in the order of their arrival while n <= d: a new array (n, d), float64 if any row was float64, "
          "else float32. None once n > d.")
      .def("state", &state_of, R"(All data of the object, as a dict of integers and new NumPy arrays.

Returns
-------
dict
    ``d``, ``n``; ``rows`` (n, d) while n <= d, else no rows. K is 1 for n > d, else 0: ``counts`` and
    ``pending_counts`` int64 (K,), ``pending`` (number of pending rows, d), ``shift`` and ``shifted_mean`` float64
    (K, d), ``scatter`` float64 (K, d (d + 1) / 2), the lower triangle by rows.
)")
      .def_static(
          "from_state", [](const py::object& state) { return moments_from_state(state); }, py::arg("state"),
          R"(Make an object from a state, bit for bit.

Parameters
----------
state : dict
    As `state` returns it. States of earlier versions also have ``groups``, which must be 0.

Raises
------
TypeError
    If an entry has another type, dtype or rank.
ValueError
    If an entry is missing, out of its range or of another shape, or the entries contradict each other.
NumericalError
    If an array has NaN or infinity.
)")
      .def(py::pickle(&state_of, [](const py::dict& state) { return moments_from_state(state); }))
      .def("__repr__", [](const Moments& self) {
        const auto n = without_gil([&] { return self.n(); });
        return message("Moments(d=", self.d(), ", n=", n, ")");
      });
}

}  // namespace fastfid::bindings
