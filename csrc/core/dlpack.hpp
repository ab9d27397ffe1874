// Reads and checks DLPack's description of a tensor.
//
// The structures follow DLPack 1.1 (dmlc/dlpack, include/dlpack/dlpack.h), whose layout is fixed for the major version
// 1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fastfid::dlpack {

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};
struct Device {
  std::int32_t type;
  std::int32_t id;
};
struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};
struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

inline constexpr std::int32_t kCpu = 1;
inline constexpr std::int32_t kCuda = 2;
inline constexpr std::int32_t kCudaHost = 3;
inline constexpr std::int32_t kCudaManaged = 13;

// True for memory of a CUDA device. Page-locked memory of the host is not memory of a device.
inline bool is_cuda(Device device) { return device.type == kCuda || device.type == kCudaManaged; }

inline constexpr std::uint8_t kInt = 0;
inline constexpr std::uint8_t kUint = 1;
inline constexpr std::uint8_t kFloat = 2;
inline constexpr std::uint8_t kBFloat = 4;
inline constexpr std::uint8_t kComplex = 5;
inline constexpr std::uint8_t kBool = 6;

// The largest number of axes of a tensor, as in NumPy and torch.
inline constexpr std::int32_t kMaxAxes = 64;

// "cpu", "cuda:1"
std::string device_name(Device device);
// "float32"
std::string dtype_name(DataType dtype);

// A tensor as the producer describes it. A View does not own the memory.
struct View {
  void* data = nullptr;  // address of the first element, byte_offset included
  Device device{};
  DataType dtype{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements

  bool is_cuda() const { return dlpack::is_cuda(device); }
  bool is(std::uint8_t code, int bits) const { return dtype.code == code && dtype.bits == bits && dtype.lanes == 1; }
  bool is_contiguous() const;  // row-major; true of a tensor without elements
  // "float32 (50, 2048) on cuda:0"
  std::string describe() const;
};

// Reads the description. The arrays behind `shape` and `strides` must have `ndim` elements; everything else is checked.
// Throws InvalidArgument, with the name of the argument, for: a number of axes outside 0 to kMaxAxes; a missing shape;
// negative lengths; a dtype of no size; elements without memory; lengths, strides or an offset with which the number of
// bytes does not fit into 63 bits or the address of an element does not fit into 64 bits. Only the producer can know
// whether the memory is as large as the description says.
View view(const Tensor& tensor, std::string_view argument);

}  // namespace fastfid::dlpack
