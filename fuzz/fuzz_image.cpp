// image::preprocess(), resize() and make_taps(): images of any size and strides give the bits that their pixels give
// side by side, or are refused.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/errors.hpp"
#include "core/image.hpp"
#include "core/parallel.hpp"
#include "fuzz.hpp"

using namespace fastfid;

namespace {

constexpr std::int64_t kMaxBytes = 1 << 16;
constexpr std::int64_t kMaxPixels = 1 << 14;

template <class T>
struct Picture {
  image::View<T> view{};
  std::vector<std::byte> memory;
  std::vector<T> plain;  // the pixels of the image side by side
  bool is_possible = true;
  bool is_small = true;  // small enough to be computed here

  image::View<T> beside() const {
    constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(T));
    return {plain.data(), view.height, view.width, 3 * size * view.width, 3 * size, size};
  }
};

std::int64_t side(fuzz::Provider& in) {
  switch (in.ConsumeIntegralInRange(0, 9)) {
    case 0:
      return fuzz::number(in);
    case 1:
      return in.ConsumeIntegralInRange<std::int64_t>(290, 310);
    case 2:
      return in.ConsumeIntegralInRange<std::int64_t>(1, 4096);
    default:
      return in.ConsumeIntegralInRange<std::int64_t>(1, 90);
  }
}

std::int64_t stride(fuzz::Provider& in, std::int64_t usual) {
  switch (in.ConsumeIntegralInRange(0, 7)) {
    case 0:
      return 0;
    case 1:
      return -usual;
    case 2:
      return in.ConsumeIntegralInRange<std::int64_t>(-40, 40);
    case 3:
      return fuzz::number(in);
    default:
      return usual;
  }
}

template <class T>
Picture<T> picture(fuzz::Provider& in, std::int64_t height, std::int64_t width) {
  constexpr auto size = static_cast<std::int64_t>(sizeof(T));
  Picture<T> out;
  out.is_possible = height >= 1 && height <= image::kMaxSide && width >= 1 && width <= image::kMaxSide;
  image::View<T>& view = out.view;
  view.height = height;
  view.width = width;
  view.stride_y = stride(in, out.is_possible ? 3 * size * width : 1);
  view.stride_x = stride(in, 3 * size);
  view.stride_c = stride(in, size);
  if (!out.is_possible) return out;
  fuzz::ExactReach reach;
  reach.add(height, view.stride_y);
  reach.add(width, view.stride_x);
  reach.add(3, view.stride_c);
  out.is_possible = reach.fits();
  const __int128 bytes = reach.high - reach.low + size;
  out.is_small = height * width <= kMaxPixels && bytes <= kMaxBytes;
  if (!out.is_possible || !out.is_small) return out;
  out.memory = fuzz::bytes(in, static_cast<std::size_t>(bytes));
  const std::byte* const first = out.memory.data() - static_cast<std::ptrdiff_t>(reach.low);
  view.data = reinterpret_cast<const T*>(first);
  out.plain.resize(static_cast<std::size_t>(3 * height * width));
  for (std::int64_t y = 0, i = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (std::int64_t c = 0; c < 3; ++c, ++i) {
        std::memcpy(&out.plain[static_cast<std::size_t>(i)],
                    first + y * view.stride_y + x * view.stride_x + c * view.stride_c, sizeof(T));
      }
    }
  }
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class T>
void resize(fuzz::Provider& in) {
  const Picture<T> one = picture<T>(in, side(in), side(in));
  const std::int64_t height = side(in);
  const std::int64_t width = side(in);
  const bool is_possible =
      one.is_possible && height >= 1 && height <= image::kMaxSide && width >= 1 && width <= image::kMaxSide;
  const auto filter = static_cast<image::Filter>(in.ConsumeIntegralInRange(0, 3));
  const bool clip = in.ConsumeBool();
  if (is_possible && (!one.is_small || height * width > kMaxPixels)) return;
  const std::size_t floats = is_possible ? static_cast<std::size_t>(3 * height * width) : 0;
  std::vector<float> out(floats, -1.0F);
  try {
    image::resize(one.view, height, width, filter, clip, out.data());
    fuzz::require(is_possible, "resized what cannot be");
  } catch (const InvalidArgument&) {
    fuzz::require(!is_possible, "refused what can be resized");
    return;
  }
  std::vector<float> beside(floats, -2.0F);
  image::resize(one.beside(), height, width, filter, clip, beside.data());
  fuzz::require(same_bits(out, beside), "strides change the bits");
}

void preprocess(fuzz::Provider& in) {
  image::InputSpec spec;
  spec.filter = static_cast<image::Filter>(in.ConsumeIntegralInRange(0, 3));
  spec.clips = in.ConsumeBool();
  spec.least = 75;
  if (in.ConsumeIntegralInRange(0, 2) > 0) {
    spec.height = in.ConsumeIntegralInRange(1, 300);
    spec.width = in.ConsumeIntegralInRange(1, 300);
  }
  spec.divisor = {255, 128, 3};
  spec.factor = {2, 1, -1};
  spec.offset = {1, 0, 0.5};
  const int count = in.ConsumeIntegralInRange(0, 3);
  const std::int64_t height = side(in);
  const std::int64_t width = side(in);
  std::vector<Picture<std::uint8_t>> pictures;
  std::vector<image::View<std::uint8_t>> views;
  std::vector<image::View<std::uint8_t>> beside;
  bool is_possible = count > 0;
  bool is_small = true;
  for (int i = 0; i < count; ++i) {
    const bool is_alike = in.ConsumeIntegralInRange(0, 3) > 0;
    pictures.push_back(picture<std::uint8_t>(in, is_alike ? height : side(in), is_alike ? width : side(in)));
    const Picture<std::uint8_t>& one = pictures.back();
    const bool fits_network =
        spec.resizes() || (one.view.height >= 75 && one.view.width >= 75 &&
                           one.view.height == pictures[0].view.height && one.view.width == pictures[0].view.width);
    is_possible = is_possible && one.is_possible && fits_network;
    is_small = is_small && one.is_small;
    views.push_back(one.view);
  }
  std::ptrdiff_t floats = 0;
  try {
    floats = image::check_images(views, spec);
    fuzz::require(is_possible, "accepted images that cannot be");
  } catch (const InvalidArgument& error) {
    fuzz::require(!is_possible, std::string("refused images that can be: ") + error.what());
    return;
  }
  if (!is_small) return;
  for (const auto& one : pictures) beside.push_back(one.beside());
  std::vector<float> out(static_cast<std::size_t>(floats), -1.0F);
  image::preprocess(views, spec, out.data());
  std::vector<float> expected(static_cast<std::size_t>(floats), -2.0F);
  image::preprocess(beside, spec, expected.data());
  fuzz::require(same_bits(out, expected), "strides change the bits");
}

void taps(fuzz::Provider& in) {
  const std::int64_t from = side(in);
  const std::int64_t to = side(in);
  const auto filter = static_cast<image::Filter>(in.ConsumeIntegralInRange(0, 3));
  try {
    const image::Taps table = image::make_taps(from, to, filter);
    fuzz::require(table.in == from && table.out == to && table.taps >= 1 && table.taps <= from, "sizes of the table");
    fuzz::require(table.first.size() == static_cast<std::size_t>(to) &&
                      table.weights.size() == static_cast<std::size_t>(to * table.taps),
                  "lengths of the table");
    for (std::size_t o = 0; o < table.first.size(); ++o) {
      fuzz::require(table.first[o] >= 0 && table.first[o] + table.taps <= from, "a window outside of the input");
      fuzz::require(o == 0 || table.first[o] >= table.first[o - 1], "windows that go back");
    }
    fuzz::require(std::ranges::all_of(table.weights, [](float x) { return std::isfinite(x); }), "weights are numbers");
  } catch (const InvalidArgument&) {
    fuzz::require(from < 1 || from > image::kMaxSide || to < 1 || to > image::kMaxSide, "refused lengths that can be");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  set_num_threads(1);
  fuzz::Provider in(data, length);
  switch (in.ConsumeIntegralInRange(0, 7)) {
    case 0:
      preprocess(in);
      break;
    case 1:
      taps(in);
      break;
    case 2:
    case 3:
      resize<float>(in);
      break;
    default:
      resize<std::uint8_t>(in);
  }
  return 0;
}
