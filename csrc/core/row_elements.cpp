#include "core/row_elements.hpp"

#include <bit>
#include <cstdint>

#include "core/multiversion.hpp"

namespace fastfid {
namespace {

// One element type: the test for NaN or infinity by its bits (all exponent bits set), and the value.
struct Float64 {
  using Bits = std::uint64_t;
  static constexpr Bits kExponent = 0x7ff0000000000000;
  static double value(Bits bits) { return std::bit_cast<double>(bits); }
};
struct Float32 {
  using Bits = std::uint32_t;
  static constexpr Bits kExponent = 0x7f800000;
  static double value(Bits bits) { return static_cast<double>(std::bit_cast<float>(bits)); }
};
struct BFloat16 {
  using Bits = std::uint16_t;
  static constexpr Bits kExponent = 0x7f80;
  static double value(Bits bits) { return Float32::value(static_cast<std::uint32_t>(bits) << 16); }
};
struct Float16 {
  using Bits = std::uint16_t;
  static constexpr Bits kExponent = 0x7c00;
  static double value(Bits bits) {
    const std::uint32_t magnitude = bits & 0x7fffu;
    const double normal = Float32::value((magnitude << 13) + (112u << 23));  // exponent bias 15 -> 127
    const double subnormal = static_cast<double>(static_cast<int>(magnitude)) * 0x1p-24;
    const double absolute = magnitude < 0x0400u ? subnormal : normal;
    return (bits & 0x8000u) != 0 ? -absolute : absolute;
  }
};

template <class Type>
[[gnu::always_inline]] inline typename Type::Bits load(const std::byte* row, int j) {
  typename Type::Bits bits;  // the row may be unaligned
  std::memcpy(&bits, row + static_cast<std::size_t>(j) * sizeof bits, sizeof bits);
  return bits;
}

template <class Type>
[[gnu::always_inline]] inline void convert(const std::byte* row, int n, double* out) {
  for (int j = 0; j < n; ++j) out[j] = Type::value(load<Type>(row, j));
}

// sum[j] += row[j] - shift[j]
template <class Type>
[[gnu::always_inline]] inline void add_shifted(const std::byte* row, const double* shift, int n, double* sum) {
  for (int j = 0; j < n; ++j) sum[j] += Type::value(load<Type>(row, j)) - shift[j];
}

// out[j] = (row[j] - shift[j]) - mean[j]
template <class Type>
[[gnu::always_inline]] inline void centre(const std::byte* row, const double* shift, const double* mean, int n,
                                          double* out) {
  for (int j = 0; j < n; ++j) out[j] = (Type::value(load<Type>(row, j)) - shift[j]) - mean[j];
}

template <class Type>
[[gnu::always_inline]] inline bool is_nonfinite(const std::byte* row, int n) {
  typename Type::Bits bad = 0;
  for (int j = 0; j < n; ++j) bad |= (load<Type>(row, j) & Type::kExponent) == Type::kExponent ? 1 : 0;
  return bad != 0;
}

// The loops above over one element type, compiled for several instruction sets. Templates cannot be compiled for
// several.
#define FASTFID_ELEMENT(TYPE)                                                                                  \
  FASTFID_CLONES void convert_##TYPE(const std::byte* row, int n, double* out) { convert<TYPE>(row, n, out); } \
  FASTFID_CLONES void add_shifted_##TYPE(const std::byte* row, const double* shift, int n, double* sum) {      \
    add_shifted<TYPE>(row, shift, n, sum);                                                                     \
  }                                                                                                            \
  FASTFID_CLONES void centre_##TYPE(const std::byte* row, const double* shift, const double* mean, int n,      \
                                    double* out) {                                                             \
    centre<TYPE>(row, shift, mean, n, out);                                                                    \
  }                                                                                                            \
  FASTFID_CLONES bool is_nonfinite_##TYPE(const std::byte* row, int n) { return is_nonfinite<TYPE>(row, n); }  \
  const Element k##TYPE = {sizeof(TYPE::Bits), convert_##TYPE, add_shifted_##TYPE, centre_##TYPE, is_nonfinite_##TYPE};

FASTFID_ELEMENT(Float16)
FASTFID_ELEMENT(BFloat16)
FASTFID_ELEMENT(Float32)
FASTFID_ELEMENT(Float64)
#undef FASTFID_ELEMENT

}  // namespace

Element element(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return kFloat16;
    case DType::kBFloat16:
      return kBFloat16;
    case DType::kFloat32:
      return kFloat32;
    case DType::kFloat64:
      break;
  }
  return kFloat64;
}

}  // namespace fastfid
