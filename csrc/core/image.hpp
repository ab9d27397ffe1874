// Makes a network's input from uint8 pictures, as an InputSpec says. fastfid/protocols.py has the specs that are used
// for the FID.
//
// A resize is separable. First every output row is a weighted sum of input rows (vertical pass, on the bytes where they
// are). Then every output pixel is a weighted sum of the pixels of one such row (horizontal pass). The weights are the
// weights of the peer whose number the protocol reproduces, computed in the peer's own arithmetic. Results differ from
// the peers' results only by the order of float32 sums: by less than 1e-3 grey levels, measured in tests/test_image.py
// and docs/protocols.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastfid::image {

// The longest side of an image that a resize accepts. For longer sides the peers' own float32 pixel positions are off
// by 1/16 pixel. The limit also bounds the table of weights (16 MiB at most).
inline constexpr std::ptrdiff_t kMaxSide = 1 << 20;

enum class Filter {
  kBilinear,           // torch F.interpolate(mode="bilinear", align_corners=False): half-pixel centres, no antialias
  kBilinearTf1,        // TensorFlow 1 resize_bilinear(align_corners=False): source position x * in / out, no antialias
  kBilinearAntialias,  // torch F.interpolate(mode="bilinear", align_corners=False, antialias=True)
  kBicubicAntialias,   // Pillow resize(BICUBIC): a = -1/2, support widened when shrinking
  kBicubicTorch,  // torch F.interpolate(mode="bicubic", align_corners=False, antialias=True): as Pillow, in float32
};

// The filter with this name in Python: "bilinear", "bilinear-tf1", "bilinear-antialias", "bicubic-antialias" or
// "bicubic-antialias-torch". For any other name throws InvalidArgument with a list of the names.
Filter filter_by_name(std::string_view name);

// The weights of one axis: output pixel o is sum_k weights[o * taps + k] * input[first[o] + k], 0 <= k < taps. The
// arrays are plain, so that a GPU kernel can use them too.
struct Taps {
  std::ptrdiff_t in = 0;            // input length
  std::ptrdiff_t out = 0;           // output length
  std::ptrdiff_t taps = 0;          // input pixels per output pixel, 1 <= taps <= in; some may have weight zero
  std::vector<std::int32_t> first;  // (out,), in ascending order; first[o] + taps <= in
  std::vector<float> weights;       // (out, taps)
};

// Weights for resampling `in` pixels to `out`. Equal lengths give the identity, as in every peer. The torch and
// TensorFlow filters are evaluated in float32 in the peer's order of operations (at 4000 pixels a position in double
// precision would differ by 2e-4 pixels, which is 0.05 grey levels on noise). Pillow's filter is evaluated in double
// precision.
// Throws InvalidArgument unless 1 <= in, out <= kMaxSide. Cost: O(in + out).
Taps make_taps(std::ptrdiff_t in, std::ptrdiff_t out, Filter filter);

// A picture in host memory, (height, width, 3), any strides (in bytes, may be negative or zero). A View does not own
// the memory.
template <class T>  // std::uint8_t or float
struct View {
  const T* data;
  std::ptrdiff_t height;
  std::ptrdiff_t width;
  std::ptrdiff_t stride_y;
  std::ptrdiff_t stride_x;
  std::ptrdiff_t stride_c;
};

// The description of how a network's input is made from a picture.
struct InputSpec {
  std::string name;           // the name of the protocol, for messages
  std::ptrdiff_t height = 0;  // the height of the input; 0: the picture keeps its size
  std::ptrdiff_t width = 0;
  std::ptrdiff_t least = 1;  // the smallest side that the network takes, where the picture keeps its size
  Filter filter = Filter::kBilinear;
  bool clips = false;  // limits grey levels to [0, 255] after the resize (bicubic overshoots)
  // input = grey / divisor * factor - offset for each channel, in float32 and in this order. Where nothing is resized,
  // the input has the peers' bits.
  std::array<float, 3> divisor{1, 1, 1};
  std::array<float, 3> factor{1, 1, 1};
  std::array<float, 3> offset{0, 0, 0};

  bool resizes() const { return height != 0; }
};

// Throws InvalidArgument unless both sides are 0 or both are 1 to kMaxSide, `least` is positive, divisors are not zero
// and all numbers are finite.
void expect_spec(const InputSpec& spec);

// Throws InvalidArgument for a picture that preprocess() refuses: a side of 0 or above kMaxSide, or, where the picture
// keeps its size, below spec.least. The message calls the picture `name`.
void expect_size(std::ptrdiff_t height, std::ptrdiff_t width, const InputSpec& spec, std::string_view name);

// Throws InvalidArgument where preprocess() would, without reading a picture. Returns the number of floats that
// preprocess() writes.
std::ptrdiff_t check_images(std::span<const View<std::uint8_t>> images, const InputSpec& spec);

// The network's input for `images`, written to out (n, 3, side_y, side_x), float32, C-contiguous. The sides are the
// sides of `spec`, or the common size of the pictures.
// Throws InvalidArgument for a picture with a side of 0 or above kMaxSide, for strides with which a pixel's address
// does not fit into 64 bits and, where pictures keep their size, for sizes that differ or are below spec.least.
// Messages call picture i `images[i]`. Memory: one float row of the widest picture per thread, the tables, and a packed
// copy of a picture whose pixels are not adjacent. Parallel over pictures, and over bands of rows of large pictures.
// The bits depend neither on threads nor on the instruction set chosen at run time. The pictures are only read.
void preprocess(std::span<const View<std::uint8_t>> images, const InputSpec& spec, float* out);

// `image` resampled to out (height, width, 3), float32 grey levels, C-contiguous, unscaled. `clip` limits the result to
// [0, 255]. Throws InvalidArgument for sides of 0 or above kMaxSide, and for the strides that preprocess() refuses.
// Memory and threads: like preprocess().
template <class T>  // std::uint8_t or float
void resize(const View<T>& image, std::ptrdiff_t height, std::ptrdiff_t width, Filter filter, bool clip, float* out);

}  // namespace fastfid::image
