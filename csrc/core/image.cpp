#include "core/image.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"

// The loops over a row are FASTFID_CLONES (AVX2 doubles the speed on large images, AVX-512 adds little). Every output
// value is a sum of its own in ascending order of taps.

namespace fastfid::image {
namespace {

// Four floats in one register: R, G and B of a pixel, and one lane that is never read.
using Float4 = float __attribute__((vector_size(16)));

struct NamedFilter {
  std::string_view name;
  Filter filter;
};
constexpr std::array kFilters = {
    NamedFilter{"bilinear", Filter::kBilinear},
    NamedFilter{"bilinear-tf1", Filter::kBilinearTf1},
    NamedFilter{"bilinear-antialias", Filter::kBilinearAntialias},
    NamedFilter{"bicubic-antialias", Filter::kBicubicAntialias},
    NamedFilter{"bicubic-antialias-torch", Filter::kBicubicTorch},
};

template <class Table>
const auto& find_by_name(const Table& table, std::string_view what, std::string_view name) {
  for (const auto& row : table) {
    if (row.name == name) return row;
  }
  std::string known;
  for (const auto& row : table) known.append(known.empty() ? "" : ", ").append(row.name);
  throw InvalidArgument(message(what, ": expected one of ", known, "; got '", name, "'"));
}

// --- Weights -------------------------------------------------------------------------------------------------------

Taps identity_taps(std::ptrdiff_t n) {
  Taps taps{n, n, 1, {}, {}};
  taps.first.resize(n);
  for (std::ptrdiff_t i = 0; i < n; ++i) taps.first[i] = static_cast<std::int32_t>(i);
  taps.weights.assign(n, 1.0F);
  return taps;
}

// The weights of each output pixel are a window of `room` weights from first[o] on. Cuts the zeros at the end of the
// windows and gives all windows the longest length that remains. A window that would end beyond the input begins
// earlier, with zeros.
template <class Real>
Taps compact(std::ptrdiff_t in, std::ptrdiff_t room, const std::vector<std::ptrdiff_t>& first,
             const std::vector<Real>& weights) {
  const auto out = static_cast<std::ptrdiff_t>(first.size());
  std::vector<std::ptrdiff_t> count(out, room);
  Taps table{in, out, 1, {}, {}};
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    while (count[o] > 1 && weights[o * room + count[o] - 1] == Real{0}) --count[o];
    table.taps = std::max(table.taps, count[o]);
  }
  table.first.resize(out);
  table.weights.assign(out * table.taps, 0.0F);
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    const std::ptrdiff_t begin = std::min(first[o], in - table.taps);
    table.first[o] = static_cast<std::int32_t>(begin);
    for (std::ptrdiff_t k = 0; k < count[o]; ++k) {
      table.weights[o * table.taps + first[o] - begin + k] = static_cast<float>(weights[o * room + k]);
    }
  }
  return table;
}

// At most two neighbours. Positions and weights are in float32, as torch and TensorFlow compute them. Both repeat the
// last pixel beyond the edge; here the last pixel becomes one tap of weight 1.
Taps linear_taps(std::ptrdiff_t in, std::ptrdiff_t out, bool half_pixel) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  std::vector<std::ptrdiff_t> first(out);
  std::vector<float> weights(2 * out);
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    // torch's kernels for processors with FMA round this product and sum once; all processors of the last decade have
    // FMA. Noise images show this with torch 2.13: rounding twice is off by 1e-2 grey levels at 5000 pixels.
    const float position = half_pixel ? std::max(std::fma(scale, static_cast<float>(o) + 0.5F, -0.5F), 0.0F)
                                      : scale * static_cast<float>(o);
    first[o] = std::min(static_cast<std::ptrdiff_t>(position), in - 1);
    const float upper = first[o] == in - 1 ? 0.0F : std::clamp(position - static_cast<float>(first[o]), 0.0F, 1.0F);
    weights[2 * o] = 1.0F - upper;
    weights[2 * o + 1] = upper;
  }
  return compact(in, 2, first, weights);
}

double triangle(double x) { return std::max(1.0 - std::abs(x), 0.0); }

// Keys' cubic convolution kernel with a = -1/2 (R. Keys 1981, IEEE Trans. ASSP 29, 1153), as in Pillow.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

// The antialiased filters: the kernel is stretched by in / out when shrinking, cut at the edges and normalised. `Real`
// is the type in which the peer computes: float for torch, double for Pillow. The places where a double slips into
// torch's float arithmetic (the literals 0.5) are kept.
template <class Real>
Taps stretched_taps(std::ptrdiff_t in, std::ptrdiff_t out, double (*kernel)(double), Real radius) {
  const Real scale = static_cast<Real>(in) / static_cast<Real>(out);
  const Real stretch = std::max(scale, Real{1});
  const Real support = radius * stretch;
  const auto inverse = static_cast<Real>(1.0 / stretch);
  const std::ptrdiff_t room = static_cast<std::ptrdiff_t>(std::ceil(support)) * 2 + 1;
  std::vector<std::ptrdiff_t> firsts(out);
  std::vector<Real> weights(out * room);
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    const auto center = static_cast<Real>(scale * (static_cast<double>(o) + 0.5));
    const std::ptrdiff_t first = std::max<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(center - support + 0.5), 0);
    const std::ptrdiff_t last = std::min(static_cast<std::ptrdiff_t>(center + support + 0.5), in);
    const std::ptrdiff_t count = std::clamp<std::ptrdiff_t>(last - first, 1, room);
    Real* const window = weights.data() + o * room;
    Real total = 0;
    for (std::ptrdiff_t k = 0; k < count; ++k) {
      const Real distance = static_cast<Real>(first + k) - center;
      window[k] = static_cast<Real>(kernel(static_cast<Real>((distance + 0.5) * inverse)));
      total += window[k];
    }
    for (std::ptrdiff_t k = 0; k < count; ++k) window[k] /= total;
    firsts[o] = first;
  }
  return compact(in, room, firsts, weights);
}

// --- Passes --------------------------------------------------------------------------------------------------------

template <class T>
[[gnu::always_inline]] inline void begin_sum(const T* const* rows, const float* weights, std::ptrdiff_t count,
                                             std::ptrdiff_t begin, std::ptrdiff_t end, float* __restrict out) {
  const T* const a = rows[0];
  const T* const b = rows[count > 1 ? 1 : 0];
  const T* const c = rows[count > 2 ? 2 : 0];
  const T* const d = rows[count > 3 ? 3 : 0];
  const float wa = weights[0];
  const float wb = count > 1 ? weights[1] : 0.0F;
  const float wc = count > 2 ? weights[2] : 0.0F;
  const float wd = count > 3 ? weights[3] : 0.0F;
  if (count == 1) {
    for (std::ptrdiff_t i = begin; i < end; ++i) out[i] = wa * static_cast<float>(a[i]);
  } else if (count == 2) {
    for (std::ptrdiff_t i = begin; i < end; ++i) out[i] = wa * static_cast<float>(a[i]) + wb * static_cast<float>(b[i]);
  } else if (count == 3) {
    for (std::ptrdiff_t i = begin; i < end; ++i) {
      out[i] = wa * static_cast<float>(a[i]) + wb * static_cast<float>(b[i]) + wc * static_cast<float>(c[i]);
    }
  } else {
    for (std::ptrdiff_t i = begin; i < end; ++i) {
      out[i] = wa * static_cast<float>(a[i]) + wb * static_cast<float>(b[i]) + wc * static_cast<float>(c[i]) +
               wd * static_cast<float>(d[i]);
    }
  }
}

template <class T>
[[gnu::always_inline]] inline void continue_sum(const T* const* rows, const float* weights, std::ptrdiff_t begin,
                                                std::ptrdiff_t end, float* __restrict out) {
  const T* const a = rows[0];
  const T* const b = rows[1];
  const T* const c = rows[2];
  const T* const d = rows[3];
  const float wa = weights[0];
  const float wb = weights[1];
  const float wc = weights[2];
  const float wd = weights[3];
  for (std::ptrdiff_t i = begin; i < end; ++i) {
    out[i] = out[i] + wa * static_cast<float>(a[i]) + wb * static_cast<float>(b[i]) + wc * static_cast<float>(c[i]) +
             wd * static_cast<float>(d[i]);
  }
}

// out[i] = the weighted sum of 1 to 4 rows.
FASTFID_CLONES void sum_few(const std::uint8_t* const* rows, const float* weights, std::ptrdiff_t count,
                            std::ptrdiff_t begin, std::ptrdiff_t end, float* out) {
  begin_sum(rows, weights, count, begin, end, out);
}
FASTFID_CLONES void sum_few(const float* const* rows, const float* weights, std::ptrdiff_t count, std::ptrdiff_t begin,
                            std::ptrdiff_t end, float* out) {
  begin_sum(rows, weights, count, begin, end, out);
}

// out[i] += the weighted sum of 4 rows, term by term.
FASTFID_CLONES void add_four(const std::uint8_t* const* rows, const float* weights, std::ptrdiff_t begin,
                             std::ptrdiff_t end, float* out) {
  continue_sum(rows, weights, begin, end, out);
}
FASTFID_CLONES void add_four(const float* const* rows, const float* weights, std::ptrdiff_t begin, std::ptrdiff_t end,
                             float* out) {
  continue_sum(rows, weights, begin, end, out);
}

// Vertical pass: out[i] = sum_k weights[k] * rows[k][i], 0 <= i < n, taps >= 1. Each sweep adds four taps, so that the
// running sum is loaded and stored once for four rows; the first sweep adds the taps that are left over. The loop runs
// in tiles, so that the running sum stays in the L1 cache.
template <class T>
void sum_rows(const T* const* rows, const float* weights, std::ptrdiff_t taps, std::ptrdiff_t n, float* out) {
  constexpr std::ptrdiff_t kTile = 4096;
  const std::ptrdiff_t head = taps % 4 == 0 ? 4 : taps % 4;
  for (std::ptrdiff_t begin = 0; begin < n; begin += kTile) {
    const std::ptrdiff_t end = std::min(begin + kTile, n);
    sum_few(rows, weights, head, begin, end, out);
    for (std::ptrdiff_t k = head; k < taps; k += 4) add_four(rows + k, weights + k, begin, end, out);
  }
}

Float4 load4(const float* p) {
  Float4 value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void store4(float* p, Float4 value) { std::memcpy(p, &value, sizeof value); }

// Horizontal pass: out[4 * o + c] = sum_k weights * row[3 * (first[o] + k) + c] for c < 3. The fourth lane has no
// meaning, but `row` must be readable for one float beyond its 3 * taps.in floats. One 128-bit register per pixel needs
// no gather and only the baseline instructions. Four pixels at once hide the latency of the additions.
void sum_pixels(const float* row, const Taps& table, float* out) {
  const std::ptrdiff_t taps = table.taps;
  const auto sum_one = [&](std::ptrdiff_t o) {
    const float* const pixel = row + 3 * static_cast<std::ptrdiff_t>(table.first[o]);
    const float* const weight = table.weights.data() + o * taps;
    Float4 sum = weight[0] * load4(pixel);
    for (std::ptrdiff_t k = 1; k < taps; ++k) sum += weight[k] * load4(pixel + 3 * k);
    store4(out + 4 * o, sum);
  };
  std::ptrdiff_t o = 0;
  for (; o + 4 <= table.out; o += 4) {
    const float* const p0 = row + 3 * static_cast<std::ptrdiff_t>(table.first[o]);
    const float* const p1 = row + 3 * static_cast<std::ptrdiff_t>(table.first[o + 1]);
    const float* const p2 = row + 3 * static_cast<std::ptrdiff_t>(table.first[o + 2]);
    const float* const p3 = row + 3 * static_cast<std::ptrdiff_t>(table.first[o + 3]);
    const float* const w0 = table.weights.data() + o * taps;
    const float* const w1 = w0 + taps;
    const float* const w2 = w1 + taps;
    const float* const w3 = w2 + taps;
    Float4 s0 = w0[0] * load4(p0);
    Float4 s1 = w1[0] * load4(p1);
    Float4 s2 = w2[0] * load4(p2);
    Float4 s3 = w3[0] * load4(p3);
    for (std::ptrdiff_t k = 1; k < taps; ++k) {
      s0 += w0[k] * load4(p0 + 3 * k);
      s1 += w1[k] * load4(p1 + 3 * k);
      s2 += w2[k] * load4(p2 + 3 * k);
      s3 += w3[k] * load4(p3 + 3 * k);
    }
    store4(out + 4 * o, s0);
    store4(out + 4 * o + 4, s1);
    store4(out + 4 * o + 8, s2);
    store4(out + 4 * o + 12, s3);
  }
  for (; o < table.out; ++o) sum_one(o);
}

// Last step of preprocess(): limits, scales and separates the channels of n pixels of four floats.
FASTFID_CLONES void finish_planes(const float* pixels, std::ptrdiff_t n, float low, float high, const InputSpec& spec,
                                  float* __restrict red, float* __restrict green, float* __restrict blue) {
  const auto [divisor_r, divisor_g, divisor_b] = spec.divisor;
  const auto [factor_r, factor_g, factor_b] = spec.factor;
  const auto [offset_r, offset_g, offset_b] = spec.offset;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    red[i] = std::min(std::max(pixels[4 * i], low), high) / divisor_r * factor_r - offset_r;
    green[i] = std::min(std::max(pixels[4 * i + 1], low), high) / divisor_g * factor_g - offset_g;
    blue[i] = std::min(std::max(pixels[4 * i + 2], low), high) / divisor_b * factor_b - offset_b;
  }
}

// Last step of resize(): limits and packs.
void finish_pixels(const float* pixels, std::ptrdiff_t n, float low, float high, float* out) {
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    for (int c = 0; c < 3; ++c) out[3 * i + c] = std::min(std::max(pixels[4 * i + c], low), high);
  }
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void check_sides(std::ptrdiff_t height, std::ptrdiff_t width, std::string_view name) {
  FASTFID_EXPECT(height >= 1 && width >= 1 && height <= kMaxSide && width <= kMaxSide, InvalidArgument, name,
                 ": expected an image of 1 to ", kMaxSide, " pixels a side, got height ", height, ", width ", width);
}

template <class T>
void check_reach(const View<T>& image, std::string_view name) {
  const std::array<std::int64_t, 3> shape{image.height, image.width, 3};
  const std::array<std::int64_t, 3> strides{image.stride_y, image.stride_x, image.stride_c};
  checked_reach(shape, strides, name);
}

// True if every row is an array of 3 * width adjacent values of T that can be read in place.
template <class T>
bool has_adjacent_pixels(const View<T>& image) {
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(T));
  return image.stride_c == size && image.stride_x == 3 * size && image.stride_y % alignof(T) == 0 &&
         reinterpret_cast<std::uintptr_t>(image.data) % alignof(T) == 0;
}

// Copies one row of `image` to `out`, with adjacent pixels.
template <class T>
void pack_row(const View<T>& image, std::ptrdiff_t y, T* out) {
  const auto* const row = reinterpret_cast<const std::byte*>(image.data) + y * image.stride_y;
  for (std::ptrdiff_t x = 0; x < image.width; ++x, out += 3) {
    const auto* const pixel = row + x * image.stride_x;  // a pixel beyond the last may have no address
    // memcpy, because NumPy allows a float at an odd address.
    for (int c = 0; c < 3; ++c) std::memcpy(out + c, pixel + c * image.stride_c, sizeof(T));
  }
}

// Makes output rows [begin, end) of a resize, one at a time, and calls finish(y, pixels of four floats) for each row.
template <class T, class Finish>
void resample_rows(const View<T>& image, const Taps& vertical, const Taps& horizontal, std::ptrdiff_t begin,
                   std::ptrdiff_t end, const Finish& finish) {
  const std::ptrdiff_t n = 3 * image.width;
  std::vector<float> row(n + 1);  // one more float: see sum_pixels
  std::vector<float> pixels(4 * horizontal.out);
  std::vector<const T*> rows(vertical.taps);
  // Rows that cannot be read in place are copied once; row y is copied to slot y modulo taps.
  const bool packs = !has_adjacent_pixels(image);
  std::vector<T> slots(packs ? vertical.taps * n : 0);
  std::ptrdiff_t next = 0;  // the first row that is not yet copied; first[] is in ascending order
  const auto* const base = reinterpret_cast<const std::byte*>(image.data);
  for (std::ptrdiff_t y = begin; y < end; ++y) {
    const std::ptrdiff_t first = vertical.first[y];
    for (std::ptrdiff_t k = 0; k < vertical.taps; ++k) {
      if (packs) {
        T* const slot = slots.data() + (first + k) % vertical.taps * n;
        if (first + k >= next) {
          pack_row(image, first + k, slot);
          next = first + k + 1;
        }
        rows[k] = slot;
      } else {
        rows[k] = reinterpret_cast<const T*>(base + (first + k) * image.stride_y);
      }
    }
    sum_rows(rows.data(), vertical.weights.data() + y * vertical.taps, vertical.taps, n, row.data());
    sum_pixels(row.data(), horizontal, pixels.data());
    finish(y, pixels.data());
  }
}

// Output rows per task. A task is about a millisecond of work on one core, which is some fifty times the cost of waking
// a thread. The number depends only on the shapes.
std::ptrdiff_t rows_per_task(const Taps& vertical, const Taps& horizontal) {
  constexpr double kSumsPerTask = 4e6;
  const double sums_per_row = 3.0 * static_cast<double>(vertical.taps) * static_cast<double>(horizontal.in) +
                              4.0 * static_cast<double>(horizontal.taps) * static_cast<double>(horizontal.out);
  return std::max<std::ptrdiff_t>(1, static_cast<std::ptrdiff_t>(kSumsPerTask / sums_per_row));
}

// A band of output rows of one picture.
struct Task {
  std::size_t image;
  std::ptrdiff_t begin;
  std::ptrdiff_t end;
};

void append_tasks(std::size_t image, const Taps& vertical, const Taps& horizontal, std::vector<Task>& tasks) {
  const std::ptrdiff_t step = rows_per_task(vertical, horizontal);
  for (std::ptrdiff_t begin = 0; begin < vertical.out; begin += step) {
    tasks.push_back({image, begin, std::min(begin + step, vertical.out)});
  }
}

}  // namespace

Filter filter_by_name(std::string_view name) { return find_by_name(kFilters, "filter", name).filter; }

void expect_spec(const InputSpec& spec) {
  const auto is_side = [](std::ptrdiff_t side) { return side >= 1 && side <= kMaxSide; };
  const bool keeps = spec.height == 0 && spec.width == 0;
  FASTFID_EXPECT(keeps || (is_side(spec.height) && is_side(spec.width)), InvalidArgument, "size: expected 1 to ",
                 kMaxSide, " pixels a side, got ", spec.height, " x ", spec.width);
  FASTFID_EXPECT(is_side(spec.least), InvalidArgument, "least: expected 1 to ", kMaxSide, ", got ", spec.least);
  for (std::size_t c = 0; c < 3; ++c) {
    FASTFID_EXPECT(std::isfinite(spec.divisor[c]) && spec.divisor[c] != 0, InvalidArgument,
                   "divisor: expected finite numbers other than 0, got ", spec.divisor[c]);
    FASTFID_EXPECT(std::isfinite(spec.factor[c]), InvalidArgument, "factor: expected finite numbers, got ",
                   spec.factor[c]);
    FASTFID_EXPECT(std::isfinite(spec.offset[c]), InvalidArgument, "offset: expected finite numbers, got ",
                   spec.offset[c]);
  }
}

void expect_size(std::ptrdiff_t height, std::ptrdiff_t width, const InputSpec& spec, std::string_view name) {
  check_sides(height, width, name);
  FASTFID_EXPECT(spec.resizes() || (height >= spec.least && width >= spec.least), InvalidArgument, name, ": protocol '",
                 spec.name, "' does not resize and the network needs at least ", spec.least,
                 " pixels a side, got height ", height, ", width ", width);
}

Taps make_taps(std::ptrdiff_t in, std::ptrdiff_t out, Filter filter) {
  FASTFID_EXPECT(in >= 1 && in <= kMaxSide && out >= 1 && out <= kMaxSide, InvalidArgument, "resize: expected 1 to ",
                 kMaxSide, " pixels, got ", in, " to ", out);
  if (in == out) return identity_taps(in);
  switch (filter) {
    case Filter::kBilinear:
      return linear_taps(in, out, true);
    case Filter::kBilinearTf1:
      return linear_taps(in, out, false);
    case Filter::kBilinearAntialias:
      return stretched_taps<float>(in, out, triangle, 1.0F);
    case Filter::kBicubicAntialias:
      return stretched_taps<double>(in, out, cubic, 2.0);
    case Filter::kBicubicTorch:
      return stretched_taps<float>(in, out, cubic, 2.0F);
  }
  throw InvalidArgument(message("filter: unknown value ", static_cast<int>(filter)));
}

std::ptrdiff_t check_images(std::span<const View<std::uint8_t>> images, const InputSpec& spec) {
  FASTFID_EXPECT(!images.empty(), InvalidArgument, "images: expected at least one image, got none");
  const View<std::uint8_t>& first = images[0];
  for (std::size_t i = 0; i < images.size(); ++i) {
    const View<std::uint8_t>& image = images[i];
    const std::string name = message("images[", i, "]");
    expect_size(image.height, image.width, spec, name);
    FASTFID_EXPECT(spec.resizes() || (image.height == first.height && image.width == first.width), InvalidArgument,
                   name, ": protocol '", spec.name, "' does not resize, so all images must have one size: expected ",
                   first.height, " x ", first.width, " (height x width), got ", image.height, " x ", image.width);
    check_reach(image, name);
  }
  const std::ptrdiff_t plane = spec.resizes() ? spec.height * spec.width : first.height * first.width;
  constexpr const char* kWhat = "images: the number of bytes of the result";
  const auto floats = checked_mul(checked_cast<std::ptrdiff_t>(images.size(), kWhat), 3 * plane, kWhat);
  checked_mul<std::ptrdiff_t>(floats, sizeof(float), kWhat);
  return floats;
}

void preprocess(std::span<const View<std::uint8_t>> images, const InputSpec& spec, float* out) {
  check_images(images, spec);
  // A batch has few different side lengths. Each table is made once per call, which costs 1 % of a resize.
  std::map<std::pair<std::ptrdiff_t, std::ptrdiff_t>, Taps> tables;  // by the sides of the picture and of the input
  const auto target = [&](std::ptrdiff_t side, std::ptrdiff_t of_input) { return spec.resizes() ? of_input : side; };
  const auto table = [&](std::ptrdiff_t from, std::ptrdiff_t to) -> const Taps& {
    const auto found = tables.find({from, to});
    if (found != tables.end()) return found->second;
    return tables.emplace(std::pair{from, to}, make_taps(from, to, spec.filter)).first->second;
  };
  const auto vertical_of = [&](const View<std::uint8_t>& image) -> const Taps& {
    return table(image.height, target(image.height, spec.height));
  };
  const auto horizontal_of = [&](const View<std::uint8_t>& image) -> const Taps& {
    return table(image.width, target(image.width, spec.width));
  };
  std::vector<Task> tasks;
  std::vector<std::pair<const Taps*, const Taps*>> taps;  // for each picture; nodes of a map are never moved
  for (std::size_t i = 0; i < images.size(); ++i) {
    taps.emplace_back(&vertical_of(images[i]), &horizontal_of(images[i]));
    append_tasks(i, *taps[i].first, *taps[i].second, tasks);
  }
  const float low = spec.clips ? 0.0F : -kInfinity;
  const float high = spec.clips ? 255.0F : kInfinity;
  parallel_for(tasks.size(), [&](std::size_t t) {
    const auto [i, begin, end] = tasks[t];
    const Taps& vertical = *taps[i].first;
    const Taps& horizontal = *taps[i].second;
    const std::ptrdiff_t plane = vertical.out * horizontal.out;
    float* const image_out = out + static_cast<std::ptrdiff_t>(i) * 3 * plane;
    resample_rows(images[i], vertical, horizontal, begin, end, [&](std::ptrdiff_t y, const float* pixels) {
      float* const red = image_out + y * horizontal.out;
      finish_planes(pixels, horizontal.out, low, high, spec, red, red + plane, red + 2 * plane);
    });
  });
}

template <class T>
void resize(const View<T>& image, std::ptrdiff_t height, std::ptrdiff_t width, Filter filter, bool clip, float* out) {
  check_sides(image.height, image.width, "image");
  check_reach(image, "image");
  const Taps vertical = make_taps(image.height, height, filter);
  const Taps horizontal = make_taps(image.width, width, filter);
  const float low = clip ? 0.0F : -kInfinity;
  const float high = clip ? 255.0F : kInfinity;
  std::vector<Task> tasks;
  append_tasks(0, vertical, horizontal, tasks);
  parallel_for(tasks.size(), [&](std::size_t t) {
    resample_rows(
        image, vertical, horizontal, tasks[t].begin, tasks[t].end,
        [&](std::ptrdiff_t y, const float* pixels) { finish_pixels(pixels, width, low, high, out + 3 * width * y); });
  });
}

template void resize(const View<std::uint8_t>&, std::ptrdiff_t, std::ptrdiff_t, Filter, bool, float*);
template void resize(const View<float>&, std::ptrdiff_t, std::ptrdiff_t, Filter, bool, float*);

}  // namespace fastfid::image
