// The Python class Gaussian: an operand of the Fréchet distance.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>
#include <string>

#include "core/frechet.hpp"

#ifdef FASTFID_WITH_CUDA
#include "bindings/tensor_moments.hpp"
#endif

namespace fastfid::bindings {

// `object` as a matrix (d, d). Throws TypeError for another dtype, rank or memory order, InvalidArgument for another
// shape.
pybind11::array_t<double> square_matrix(pybind11::handle object, const std::string& name);

// `object` as feature rows (n, d), float32 or float64, C-contiguous. Throws TypeError for another dtype, rank or memory
// order.
FeatureRows feature_rows(pybind11::handle object, const std::string& name);

// A Gaussian in host memory, or the moments of one on a CUDA device. Keeps the Python objects alive that hold its
// numbers. Immutable.
class BoundGaussian {
 public:
  // Exactly one of `sigma` and `rows` is not None. Throws TypeError and InvalidArgument as the Python class says.
  BoundGaussian(pybind11::handle mu, pybind11::handle sigma, pybind11::handle rows, std::optional<std::size_t> n,
                std::string name);

  // The Gaussian in host memory. Throws InvalidArgument for one on a device.
  const Gaussian& on_host() const;

  const std::string& name() const { return gaussian_.name; }
  std::size_t d() const { return gaussian_.d; }
  std::optional<std::size_t> n() const;

#ifdef FASTFID_WITH_CUDA
  // `moments` is a DeviceMoments.
  BoundGaussian(const pybind11::object& moments, std::string name);

  // The moments on a device; null for a Gaussian in host memory.
  TensorMoments* moments() const { return moments_; }
#endif

 private:
  Gaussian gaussian_;            // of a Gaussian on a device: name and d
  pybind11::object mu_;          // keeps gaussian_.mu alive
  pybind11::object covariance_;  // keeps gaussian_.covariance alive, or *moments_
#ifdef FASTFID_WITH_CUDA
  TensorMoments* moments_ = nullptr;
#endif
};

}  // namespace fastfid::bindings
