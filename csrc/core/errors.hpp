// The exceptions of the core, and the macro that checks a condition and throws them. bindings/module.cpp maps them to
// Python: InvalidArgument -> ValueError, NumericalError -> fastfid.NumericalError (a ValueError, as pytorch-fid's users
// expect), DeviceError -> fastfid.DeviceError, BackendUnavailable -> fastfid.BackendUnavailable.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace fastfid {

// A bad shape or value, too few samples, or dimensions that differ.
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// NaN or infinity in features, an indefinite covariance, an iteration that did not converge.
class NumericalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A CUDA or BLAS/LAPACK call failed.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The backend was not built, or there is no such device.
class BackendUnavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Concatenates its arguments as a stream would print them.
template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream out;
  out.precision(17);
  (out << ... << parts);
  return out.str();
}

}  // namespace fastfid

// Throws `Error` with the concatenated message unless `condition` holds. The message names the argument and says what
// was expected and what was given.
#define FASTFID_EXPECT(condition, Error, ...)                  \
  do {                                                         \
    if (!(condition)) {                                        \
      throw ::fastfid::Error(::fastfid::message(__VA_ARGS__)); \
    }                                                          \
  } while (false)
