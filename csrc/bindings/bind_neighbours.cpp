// Nearest neighbours and balls around rows: core/neighbours.hpp and core/balls.hpp for NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/balls.hpp"
#include "core/errors.hpp"
#include "core/neighbours.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

using FloatRows = py::array_t<float>;

// A search and the arrays that it reads. One call at a time: the others wait.
class Search {
 private:
  template <class F>
  auto alone(const F& f) {
    return without_gil([&] {
      const std::lock_guard lock(mutex_);
      return f();
    });
  }

 public:
  Search(FloatRows x, FloatRows others, bool within, std::size_t k, std::size_t rough)
      : x_(std::move(x)), others_(std::move(others)), k_(k), rough_(rough) {
    const float* const rows = x_.data();
    const float* const other_rows = within ? nullptr : others_.data();
    const auto n = static_cast<std::size_t>(x_.shape(0));
    const auto n_others = static_cast<std::size_t>(others_.shape(0));
    const auto d = static_cast<std::size_t>(x_.shape(1));
    search_ =
        without_gil([&] { return std::make_unique<NeighbourSearch>(rows, n, other_rows, n_others, d, k, rough); });
  }

  bool step() {
    return alone([&] { return search_->step(); });
  }
  py::array kth_squared_distances() {
    return to_numpy(alone([&] { return search_->kth_squared_distances(); }), {x_.shape(0)});
  }
  py::tuple nearest() {
    return arrays(alone([&] { return search_->nearest(); }), k_);
  }
  py::tuple rough() {
    return arrays(alone([&] { return search_->rough(); }), rough_);
  }

 private:
  py::tuple arrays(Neighbours found, std::size_t count) const {
    const auto columns = static_cast<py::ssize_t>(count);
    return py::make_tuple(to_numpy(std::move(found.indices), {x_.shape(0), columns}),
                          to_numpy(std::move(found.distances), {x_.shape(0), columns}));
  }

  FloatRows x_;
  FloatRows others_;
  std::size_t k_;
  std::size_t rough_;
  std::unique_ptr<NeighbourSearch> search_;
  std::mutex mutex_;
};

// Rows `y` with as many features as x.
FloatRows as_rows_beside(const py::object& object, const char* argument, const FloatRows& x) {
  auto rows = as_contiguous<float>(object, argument, 2);
  FASTFID_EXPECT(rows.shape(1) == x.shape(1), InvalidArgument, argument, ": expected shape (n, ", x.shape(1),
                 "), as x has; got ", describe(rows));
  return rows;
}

std::unique_ptr<Search> make_search(const py::object& x_object, const py::object& others_object,
                                    const py::object& k_object, const py::object& rough_object) {
  const auto x = as_contiguous<float>(x_object, "x", 2);
  const bool within = others_object.is_none();
  const FloatRows others = within ? x : as_rows_beside(others_object, "others", x);
  const std::int64_t k = as_integer(k_object, "k");
  const std::int64_t rough = as_integer(rough_object, "rough");
  FASTFID_EXPECT(k >= 1, InvalidArgument, "k: expected 1 or more, got ", k);
  FASTFID_EXPECT(rough >= 0, InvalidArgument, "rough: expected 0 or more, got ", rough);
  return std::make_unique<Search>(x, others, within, static_cast<std::size_t>(k), static_cast<std::size_t>(rough));
}

// An array of the argument `argument` with n rows.
template <class T>
py::array_t<T> for_each_row(const py::object& object, const std::string& argument, py::ssize_t n, py::ssize_t rank) {
  auto array = as_contiguous<T>(object, argument, rank);
  FASTFID_EXPECT(array.shape(0) == n, InvalidArgument, argument, ": expected shape (", n, rank == 1 ? ",)" : ", ...)",
                 ", one for each row; got ", describe(array));
  return array;
}

// What describes the balls of parts, and the arrays that it reads.
struct SubsetsOfRows {
  py::array_t<std::uint64_t> members;
  py::array_t<double> distances;
  py::array_t<std::uint64_t> reaching;
  Subsets view{};

  SubsetsOfRows(const py::object& object, const std::string& argument, py::ssize_t n) {
    if (!py::isinstance<py::tuple>(object) || py::reinterpret_borrow<py::tuple>(object).size() != 3) {
      throw py::type_error(message(argument, ": expected a tuple of three arrays, got ", describe(object)));
    }
    const auto parts = py::reinterpret_borrow<py::tuple>(object);
    members = for_each_row<std::uint64_t>(py::object(parts[0]), argument + "[0]", n, 3);
    distances = for_each_row<double>(py::object(parts[1]), argument + "[1]", n, 2);
    reaching = for_each_row<std::uint64_t>(py::object(parts[2]), argument + "[2]", n, 3);
    FASTFID_EXPECT(members.shape(1) >= 1 && members.shape(2) == 2, InvalidArgument, argument,
                   "[0]: expected shape (n, s, 2) with s at least 1, got ", describe(members));
    FASTFID_EXPECT(reaching.shape(1) == distances.shape(1) && reaching.shape(2) == members.shape(1), InvalidArgument,
                   argument, "[2]: expected shape (n, ", distances.shape(1), ", ", members.shape(1),
                   ") as [1] and [0] have it; got ", describe(reaching));
    view = {members.data(), distances.data(), reaching.data(), static_cast<std::size_t>(distances.shape(1)),
            static_cast<std::size_t>(members.shape(1))};
  }
};

py::tuple counts_of(BallCounts& counts, py::ssize_t n_x, py::ssize_t n_y) {
  return py::make_tuple(to_numpy(std::move(counts.x_around_y), {n_y}), to_numpy(std::move(counts.y_within_x), {n_x}),
                        to_numpy(std::move(counts.y_around_x), {n_x}), to_numpy(std::move(counts.x_within_y), {n_y}),
                        counts.undecided);
}

py::tuple count_in_balls_numpy(const py::object& x_object, const py::object& radii_x_object, const py::object& y_object,
                               const py::object& radii_y_object, bool strict, const py::object& subsets_x_object,
                               const py::object& subsets_y_object) {
  const auto x = as_contiguous<float>(x_object, "x", 2);
  const auto y = as_rows_beside(y_object, "y", x);
  const auto radii_x = for_each_row<double>(radii_x_object, "radii_x", x.shape(0), 1);
  const auto radii_y = for_each_row<double>(radii_y_object, "radii_y", y.shape(0), 1);
  Balls of_x{x.data(), radii_x.data(), static_cast<std::size_t>(x.shape(0)), "x"};
  Balls of_y{y.data(), radii_y.data(), static_cast<std::size_t>(y.shape(0)), "y"};
  const auto d = static_cast<std::size_t>(x.shape(1));
  FASTFID_EXPECT(subsets_x_object.is_none() == subsets_y_object.is_none(), InvalidArgument,
                 "subsets_x, subsets_y: expected both or neither");
  std::unique_ptr<SubsetsOfRows> subsets_x;
  std::unique_ptr<SubsetsOfRows> subsets_y;
  if (!subsets_x_object.is_none()) {
    subsets_x = std::make_unique<SubsetsOfRows>(subsets_x_object, "subsets_x", x.shape(0));
    subsets_y = std::make_unique<SubsetsOfRows>(subsets_y_object, "subsets_y", y.shape(0));
    of_x.subsets = &subsets_x->view;
    of_y.subsets = &subsets_y->view;
  }
  // Safe without the GIL: this frame holds references to all arrays.
  BallCounts counts = without_gil([&] { return count_in_balls(of_x, of_y, d, strict); });
  py::tuple found = counts_of(counts, x.shape(0), y.shape(0));
  if (!subsets_x) return found;
  SubsetCounts& of = counts.subsets;
  const auto schemes = static_cast<py::ssize_t>(of_x.subsets->schemes);
  return py::make_tuple(std::move(found), py::make_tuple(to_numpy(std::move(of.balls_of_x), {y.shape(0), schemes, 2}),
                                                         to_numpy(std::move(of.rows_of_y), {x.shape(0), schemes, 2}),
                                                         to_numpy(std::move(of.balls_of_y), {x.shape(0), schemes, 2}),
                                                         to_numpy(std::move(of.pairs), {schemes, 2, 2, 64})));
}

}  // namespace

void bind_neighbours(py::module_& module) {
  py::class_<Search>(module, "NeighbourSearch", py::module_local(),
                     "The k nearest rows among `others` of each row of x (n, d), float32; with others=None, among the\n"
                     "other rows of x. Call step() until it returns False, a second or two each; then the results.\n\n"
                     "The squared distance is the float64 sum of the squared differences, feature by feature. Raises\n"
                     "TypeError unless the arrays are C-contiguous float32 with two axes, ValueError where k is less\n"
                     "than 1, there are fewer rows than k or `rough` to choose from, or d is 0, and NumericalError\n"
                     "where a row has NaN or infinite values.")
      .def(py::init(&make_search), py::arg("x"), py::arg("others"), py::arg("k"), py::arg("rough") = 0)
      .def("step", &Search::step, "Compare more pairs of rows; False when all have been compared.")
      .def("kth_squared_distances", &Search::kth_squared_distances,
           "The k-th smallest squared distances, float64 (n,).")
      .def("nearest", &Search::nearest,
           "Indices, int64 (n, k), and squared distances, float64 (n, k): nearest first, equal ones by index.")
      .def("rough", &Search::rough,
           "The same of the `rough` nearest rows by distances that are as exact as float32 products.");
  module.def(
      "count_in_balls", &count_in_balls_numpy, py::arg("x"), py::arg("radii_x"), py::arg("y"), py::arg("radii_y"),
      py::arg("strict"), py::arg("subsets_x") = py::none(), py::arg("subsets_y") = py::none(),
      "Counts of rows in the balls around rows of x (n_x, d) and y (n_y, d), float32, with squared radii, float64:\n"
      "for each row of y the balls of x that hold it, for each row of x the rows of y in its ball, for each row of x\n"
      "the balls of y that hold it, for each row of y the rows of x in its ball; and the number of pairs that needed\n"
      "float64. A ball holds what is nearer than its radius, and without `strict` what is as near, too.\n\n"
      "With `subsets_x` and `subsets_y`, returns these counts and a tuple about s schemes, each of which draws two "
      "parts\n"
      "of both sets 64 times, a bit for each. Each argument is a tuple of the draws in which a row is in a part, "
      "uint64\n"
      "(n, s, 2); the squared distances of the nearest other rows, ascending, float64 (n, c); the draws in which the\n"
      "ball of a row among its part reaches past so many of these, uint64 (n, c, s). The results: the draws in which "
      "a\n"
      "ball of a part of x holds a row of y, (n_y, s, 2); in which the ball of a row of x holds a row of a part of y,\n"
      "(n_x, s, 2); in which a ball of a part of y holds a row of x, (n_x, s, 2), all uint64; and the number of rows\n"
      "of a part of y in balls of a part of x, int64 (s, 2, 2, 64).\n\n"
      "Raises TypeError unless the arrays are C-contiguous, ValueError where shapes differ, d is 0, or a radius is\n"
      "negative or not finite, and NumericalError where a row has NaN or infinite values.");
}

}  // namespace fastfid::bindings
