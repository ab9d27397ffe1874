// dlpack::view(): every description of a tensor is either accepted or refused, and every element of an accepted tensor
// has an address.
#include <cstdint>
#include <vector>

#include "core/dlpack.hpp"
#include "core/errors.hpp"
#include "fuzz.hpp"

using namespace fastfid;

namespace {

constexpr __int128 kMax = std::numeric_limits<std::int64_t>::max();

// True if the description is possible, in exact arithmetic.
bool is_possible(const dlpack::Tensor& tensor) {
  if (tensor.ndim < 0 || tensor.ndim > dlpack::kMaxAxes || (tensor.ndim > 0 && tensor.shape == nullptr)) return false;
  const __int128 size = (tensor.dtype.bits * tensor.dtype.lanes + 7) / 8;
  if (size == 0) return false;
  __int128 total = size;
  bool is_empty = false;
  for (std::int32_t axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.shape[axis] < 0) return false;
    is_empty = is_empty || tensor.shape[axis] == 0;
    if (tensor.shape[axis] > 1) total *= tensor.shape[axis];
    if (total > kMax) return false;
  }
  const auto first = static_cast<__int128>(reinterpret_cast<std::uintptr_t>(tensor.data)) + tensor.byte_offset;
  constexpr __int128 kAddresses = std::numeric_limits<std::uintptr_t>::max();
  if (first > kAddresses) return false;
  if (is_empty) return true;
  if (tensor.data == nullptr) return false;
  fuzz::ExactReach reach;
  std::int64_t row_major = 1;
  for (std::int32_t axis = tensor.ndim; axis-- > 0;) {
    reach.add(tensor.shape[axis], tensor.strides == nullptr ? row_major : tensor.strides[axis]);
    row_major *= tensor.shape[axis];
    if (!reach.fits()) return false;
  }
  return (reach.high + 1) * size <= kMax && -reach.low * size <= kMax &&
         first + (reach.high + 1) * size <= kAddresses && first + reach.low * size >= 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  fuzz::Provider in(data, length);
  const bool is_plain = in.ConsumeBool();  // true: a possible number of axes
  const auto axes = in.ConsumeIntegralInRange<std::int32_t>(0, is_plain ? 4 : dlpack::kMaxAxes + 2);
  // The arrays have exactly as many elements as there are axes.
  std::vector<std::int64_t> shape(static_cast<std::size_t>(axes));
  std::vector<std::int64_t> strides(static_cast<std::size_t>(axes));
  for (auto* values : {&shape, &strides}) {
    for (std::int64_t& value : *values) value = in.ConsumeBool() ? in.ConsumeIntegralInRange(0, 3) : fuzz::number(in);
  }
  dlpack::Tensor tensor{};
  tensor.ndim = in.ConsumeIntegralInRange(0, 9) > 0 ? axes : in.PickValueInArray({-1, -2147483647 - 1, 2147483647, 65});
  tensor.shape = in.ConsumeIntegralInRange(0, 9) > 0 && tensor.ndim <= axes ? shape.data() : nullptr;
  tensor.strides = in.ConsumeBool() && tensor.shape != nullptr ? strides.data() : nullptr;
  tensor.dtype = {in.ConsumeIntegralInRange<std::uint8_t>(0, 8),
                  in.PickValueInArray<std::uint8_t>({32, 8, 64, 1, 0, 255}),
                  in.PickValueInArray<std::uint16_t>({1, 0, 4, 65535})};
  tensor.device = {in.PickValueInArray({1, 2, 3, 10, 13, -1}), in.ConsumeIntegralInRange(-1, 3)};
  tensor.data = in.ConsumeBool() ? &tensor : reinterpret_cast<void*>(fuzz::number(in));
  tensor.byte_offset = in.ConsumeBool() ? 0 : static_cast<std::uint64_t>(fuzz::number(in));

  try {
    const dlpack::View view = dlpack::view(tensor, "tensor");
    fuzz::require(is_possible(tensor), "accepted what cannot be: " + view.describe());
    fuzz::require(view.shape.size() == view.strides.size(), "as many strides as axes");
    fuzz::require(tensor.strides != nullptr || view.is_contiguous(), "a tensor without strides is row-major");
  } catch (const InvalidArgument& error) {
    fuzz::require(!is_possible(tensor), std::string("refused what can be: ") + error.what());
    fuzz::require(std::string(error.what()).rfind("tensor: ", 0) == 0, "a message begins with the argument's name");
  }
  return 0;
}
