// Moments as a dict of integers and NumPy arrays, for every class of Python's that has a state.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/moments.hpp"

namespace fastfid::bindings {

// What Moments.state() returns. With the GIL held, which is given back meanwhile.
pybind11::dict state_of(const Moments& moments);

// What Moments.from_state() makes of it. Throws py::type_error, naming the entry, for one of another type, dtype or
// rank; InvalidArgument for a missing one; and what Moments(MomentsStateView) throws. Likewise with the GIL.
std::unique_ptr<Moments> moments_from_state(pybind11::handle state);

}  // namespace fastfid::bindings
