#include "core/dlpack.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/checked.hpp"
#include "core/errors.hpp"

namespace fastfid::dlpack {
namespace {

bool is_empty(const std::vector<std::int64_t>& shape) { return std::ranges::find(shape, 0) != shape.end(); }

std::vector<std::int64_t> row_major_strides(const std::vector<std::int64_t>& shape, const std::string& what) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride = checked_mul(stride, std::max<std::int64_t>(1, shape[axis]), what);
  }
  return strides;
}

std::int64_t element_bytes(DataType dtype, std::string_view argument) {
  const std::int64_t bits = std::int64_t{dtype.bits} * std::int64_t{dtype.lanes};
  FASTFID_EXPECT(bits > 0, InvalidArgument, argument, ": expected a dtype of at least one bit, got ", int{dtype.bits},
                 " bits in ", dtype.lanes, " lanes");
  return (bits + 7) / 8;
}

// Returns the address of the first element. Throws unless the addresses of all elements exist.
void* checked_address(const Tensor& tensor, const View& out, std::string_view argument) {
  const std::string bytes = message(argument, ": its number of bytes");
  const std::string address = message(argument, ": an element's address");
  const std::int64_t size = element_bytes(tensor.dtype, argument);
  std::int64_t total = size;
  for (const std::int64_t length : out.shape) total = checked_mul(total, std::max<std::int64_t>(1, length), bytes);
  const Reach reach = checked_reach(out.shape, out.strides, address);
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
  const std::uintptr_t first = checked_add<std::uintptr_t>(begin, tensor.byte_offset, address);
  if (is_empty(out.shape)) return reinterpret_cast<void*>(first);
  FASTFID_EXPECT(tensor.data != nullptr, InvalidArgument, argument, ": expected a tensor with memory, got ",
                 out.describe(), " without");
  const auto after = static_cast<std::uintptr_t>(checked_add(checked_mul(reach.high, size, address), size, address));
  checked_add(first, after, address);
  const auto before = static_cast<std::uintptr_t>(checked_mul(reach.low, -size, address));
  FASTFID_EXPECT(before <= first, InvalidArgument, address, " is negative: strides of ", out.describe());
  return reinterpret_cast<void*>(first);
}

}  // namespace

std::string device_name(Device device) {
  switch (device.type) {
    case kCpu:
      return "cpu";
    case kCudaHost:
      return "cpu (page-locked)";
    case kCuda:
    case kCudaManaged:
      return message("cuda:", device.id);
    default:
      return message("a device of DLPack type ", device.type);
  }
}

std::string dtype_name(DataType dtype) {
  const char* kind = nullptr;
  switch (dtype.code) {
    case kInt:
      kind = "int";
      break;
    case kUint:
      kind = "uint";
      break;
    case kFloat:
      kind = "float";
      break;
    case kBFloat:
      kind = "bfloat";
      break;
    case kComplex:
      kind = "complex";
      break;
    case kBool:
      return "bool";
    default:
      return message("DLPack dtype ", int{dtype.code}, " of ", int{dtype.bits}, " bits");
  }
  return message(kind, int{dtype.bits}, dtype.lanes == 1 ? "" : message("x", dtype.lanes));
}

bool View::is_contiguous() const {
  if (is_empty(shape)) return true;
  std::int64_t expected = 1;  // view() has checked that the product fits
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    if (shape[axis] != 1 && strides[axis] != expected) return false;
    expected *= shape[axis];
  }
  return true;
}

std::string View::describe() const {
  std::string text = dtype_name(dtype) + " (";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    text += message(axis == 0 ? "" : ", ", shape[axis], shape.size() == 1 ? "," : "");
  }
  return text + ") on " + device_name(device);
}

View view(const Tensor& tensor, std::string_view argument) {
  FASTFID_EXPECT(tensor.ndim >= 0 && tensor.ndim <= kMaxAxes, InvalidArgument, argument, ": expected a tensor of 0 to ",
                 kMaxAxes, " axes, got ", tensor.ndim);
  FASTFID_EXPECT(tensor.ndim == 0 || tensor.shape != nullptr, InvalidArgument, argument, ": expected the lengths of ",
                 tensor.ndim, " axes, got none");
  View out;
  out.device = tensor.device;
  out.dtype = tensor.dtype;
  out.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  for (const std::int64_t length : out.shape) {
    FASTFID_EXPECT(length >= 0, InvalidArgument, argument, ": expected no negative length, got ", out.describe());
  }
  if (tensor.strides != nullptr) {
    out.strides.assign(tensor.strides, tensor.strides + tensor.ndim);
  } else {
    out.strides = row_major_strides(out.shape, message(argument, ": its strides"));
  }
  out.data = checked_address(tensor, out, argument);
  return out;
}

}  // namespace fastfid::dlpack
