// Moments as a dict of integers and NumPy arrays, for every Python class that has a state.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/moments.hpp"

namespace fastfid::bindings {

// The dict that Moments.state() returns. Must be called with the GIL held; the GIL is released during the computation.
pybind11::dict state_of(const Moments& moments);

// The Moments that Moments.from_state() makes from `state`. Throws py::type_error, naming the entry, for an entry of
// another type, dtype or rank. Throws InvalidArgument for a missing entry, and whatever Moments(MomentsStateView)
// throws. Must be called with the GIL held; the GIL is released during the computation.
std::unique_ptr<Moments> moments_from_state(pybind11::handle state);

}  // namespace fastfid::bindings
