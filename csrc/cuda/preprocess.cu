#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/errors.hpp"
#include "cuda/kernel.cuh"
#include "cuda/preprocess.hpp"

namespace fastfid::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocksPerMultiprocessor = 5;  // at most 48 registers; with 40 the compiler spills
constexpr unsigned kWord = 16;                    // bytes of a 128-bit load or store

// Input pixels of a segment, unless one output pixel needs more: 24 KiB of sums.
constexpr std::ptrdiff_t kSpan = 2048;
// The shared memory that every device of compute capability 8.0 and newer gives a block, minus the part that the device
// reserves.
constexpr std::size_t kMostSharedBytes = 96 << 10;

constexpr std::size_t round_up(std::size_t x, std::size_t step) { return (x + step - 1) / step * step; }

struct AxisTable {
  const std::int32_t* first;
  const float* weights;
  unsigned taps;
};

struct Channels {
  float red;
  float green;
  float blue;
};

// All parameters of a block. Shared memory: sums (planes, sum_pitch) float, output (3, out_pitch) T, then two buffers,
// or one, of (group, planes) staged rows of stage_pitch bytes.
template <class T>
struct Job {
  const std::uint8_t* images;
  const std::uint8_t* begin;  // all bytes of the images lie in [begin, end)
  const std::uint8_t* end;
  std::ptrdiff_t stride_n;
  std::ptrdiff_t stride_y;
  std::ptrdiff_t stride_c;
  AxisTable vertical;
  AxisTable horizontal;
  const std::int32_t* segments;
  unsigned segment_count;
  unsigned height;  // height of the output
  unsigned width;
  unsigned sum_pitch;    // floats
  unsigned out_pitch;    // elements
  unsigned stage_pitch;  // bytes
  unsigned group;        // taps staged at a time
  float low;
  float high;
  Channels divisor;
  Channels factor;
  Channels offset;
  T* out;
};

__device__ void convert(float value, float& out) { out = value; }
__device__ void convert(float value, std::uint16_t& out) { out = float_to_half(value); }

__device__ float of_channel(const Channels& values, unsigned channel) {
  return channel == 0 ? values.red : channel == 1 ? values.green : values.blue;
}

// Exact, because the last bits of 2^23 + byte are the byte.
__device__ float byte_to_float(unsigned byte) { return __uint_as_float(0x4b000000U | byte) - 8388608.0F; }

__device__ unsigned misalignment(const void* address) {
  return static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(address) % kWord);
}

// kPlanes: 1 for interleaved channels, 3 for planes.
template <class T, unsigned kPlanes>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) resample(Job<T> job) {
  constexpr unsigned kChannels = 3 / kPlanes;  // of a staged row
  constexpr unsigned kPerWord = kWord / sizeof(T);
  const unsigned y = blockIdx.x / job.segment_count;
  const unsigned segment = blockIdx.x % job.segment_count;
  const unsigned x0 = static_cast<unsigned>(job.segments[segment]);
  const unsigned count = static_cast<unsigned>(job.segments[segment + 1]) - x0;  // number of output pixels
  const unsigned in0 = static_cast<unsigned>(job.horizontal.first[x0]);
  const unsigned in1 = static_cast<unsigned>(job.horizontal.first[x0 + count - 1]) + job.horizontal.taps;
  const unsigned length = (in1 - in0) * kChannels;  // number of bytes of a staged row that are used

  float* const sums = reinterpret_cast<float*>(shared_memory());
  T* const finished = reinterpret_cast<T*>(sums + kPlanes * job.sum_pitch);
  std::uint8_t* const stage = reinterpret_cast<std::uint8_t*>(finished + 3 * job.out_pitch);
  const unsigned buffer_bytes = job.group * kPlanes * job.stage_pitch;

  const std::uint8_t* const corner = job.images + static_cast<std::ptrdiff_t>(blockIdx.y) * job.stride_n +
                                     static_cast<std::ptrdiff_t>(in0 * kChannels) +
                                     job.vertical.first[y] * job.stride_y;
  const float* const weights = job.vertical.weights + static_cast<std::size_t>(y) * job.vertical.taps;
  const auto source = [&](unsigned tap, unsigned plane) {
    return corner + static_cast<std::ptrdiff_t>(tap) * job.stride_y + static_cast<std::ptrdiff_t>(plane) * job.stride_c;
  };

  // Copies the rows of taps [tap, tap + group) as whole aligned words. The first and last words include neighbouring
  // bytes. Only words that would reach beyond the images are copied byte by byte.
  const unsigned words = job.stage_pitch / kWord;
  const auto stage_rows = [&](unsigned tap, std::uint8_t* buffer) {
    const unsigned rows = std::min(job.group, job.vertical.taps - tap) * kPlanes;
    for (unsigned at = threadIdx.x; at < rows * words; at += kThreads) {
      const unsigned row = at / words;
      const unsigned word = at % words;
      const std::uint8_t* const from = source(tap + row / kPlanes, row % kPlanes);
      const unsigned skip = misalignment(from);
      if (word * kWord >= skip + length) continue;
      const std::uint8_t* const p = from - skip + word * kWord;
      std::uint8_t* const to = buffer + row * job.stage_pitch + word * kWord;
      if (p >= job.begin && p + kWord <= job.end) {
        copy_async_16(to, p);
      } else {
#pragma unroll 1
        for (unsigned b = 0; b < kWord; ++b) {
          if (p + b >= job.begin && p + b < job.end) to[b] = p[b];
        }
      }
    }
    copy_async_commit();
  };

  // Vertical sums, four neighbouring bytes of a row per thread, tap after tap.
  stage_rows(0, stage);
  for (unsigned tap = 0, turn = 0; tap < job.vertical.taps; tap += job.group, turn ^= 1) {
    const unsigned next = tap + job.group;
    if (next < job.vertical.taps) {
      stage_rows(next, stage + (turn ^ 1) * buffer_bytes);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    const std::uint8_t* const buffer = stage + turn * buffer_bytes;
    const unsigned rows = std::min(job.group, job.vertical.taps - tap);
    const unsigned quads = (length + 3) / 4;
    for (unsigned at = threadIdx.x; at < quads * kPlanes; at += kThreads) {
      const unsigned plane = at / quads;
      const unsigned quad = at % quads;
      float4* const place = reinterpret_cast<float4*>(sums + plane * job.sum_pitch) + quad;
      float4 sum = tap == 0 ? make_float4(0, 0, 0, 0) : *place;
      for (unsigned row = 0; row < rows; ++row) {
        const unsigned offset = misalignment(source(tap + row, plane)) + 4 * quad;
        const auto* const word =
            reinterpret_cast<const std::uint32_t*>(buffer + (row * kPlanes + plane) * job.stage_pitch) + offset / 4;
        const auto bytes =
            static_cast<std::uint32_t>((static_cast<std::uint64_t>(word[1]) << 32 | word[0]) >> (offset % 4 * 8));
        const float weight = weights[tap + row];
        const float a = __fmul_rn(weight, byte_to_float(bytes & 0xff));
        const float b = __fmul_rn(weight, byte_to_float(bytes >> 8 & 0xff));
        const float c = __fmul_rn(weight, byte_to_float(bytes >> 16 & 0xff));
        const float d = __fmul_rn(weight, byte_to_float(bytes >> 24));
        // 0 + the first product is this product, or 0 where the product is -0. The sign of a zero is visible only where
        // an offset is 0.
        sum = make_float4(__fadd_rn(sum.x, a), __fadd_rn(sum.y, b), __fadd_rn(sum.z, c), __fadd_rn(sum.w, d));
      }
      *place = sum;
    }
    __syncthreads();
  }

  // Horizontal sums, limits, scale. An element is stored at the position within a 128-bit word that it has in `out`.
  T* const out = job.out + (static_cast<std::size_t>(blockIdx.y) * 3 * job.height + y) * job.width + x0;
  const std::size_t out_plane = static_cast<std::size_t>(job.height) * job.width;
  const auto phase = [&](unsigned channel) {
    return misalignment(out + channel * out_plane) / static_cast<unsigned>(sizeof(T));
  };
  for (unsigned at = threadIdx.x; at < 3 * count; at += kThreads) {
    const unsigned channel = at / count;
    const unsigned x = at % count;
    const float* const weight = job.horizontal.weights + static_cast<std::size_t>(x0 + x) * job.horizontal.taps;
    const unsigned start = (static_cast<unsigned>(job.horizontal.first[x0 + x]) - in0) * kChannels;
    const float* const pixel = sums + start + channel * (kPlanes == 1 ? 1 : job.sum_pitch);
    float sum = __fmul_rn(weight[0], pixel[0]);
    for (unsigned k = 1; k < job.horizontal.taps; ++k) {
      sum = __fadd_rn(sum, __fmul_rn(weight[k], pixel[k * kChannels]));
    }
    sum = sum < job.low ? job.low : sum;
    sum = sum > job.high ? job.high : sum;
    const float scaled = __fmul_rn(sum / of_channel(job.divisor, channel), of_channel(job.factor, channel));
    convert(__fsub_rn(scaled, of_channel(job.offset, channel)), finished[channel * job.out_pitch + phase(channel) + x]);
  }
  __syncthreads();
  const unsigned out_words = job.out_pitch / kPerWord;
  for (unsigned at = threadIdx.x; at < 3 * out_words; at += kThreads) {
    const unsigned channel = at / out_words;
    const unsigned begin = at % out_words * kPerWord;
    const unsigned skip = phase(channel);
    const T* const from = finished + channel * job.out_pitch;
    T* const to = out + channel * out_plane - skip;
    if (begin >= skip && begin + kPerWord <= skip + count) {
      *reinterpret_cast<uint4*>(to + begin) = *reinterpret_cast<const uint4*>(from + begin);
    } else {
      for (unsigned i = begin; i < begin + kPerWord; ++i) {
        if (i >= skip && i < skip + count) to[i] = from[i];
      }
    }
  }
}

Channels as_channels(const std::array<float, 3>& values) { return {values[0], values[1], values[2]}; }

// Shared memory of a block, for rows of `span` pixels.
struct Layout {
  unsigned sum_pitch;
  unsigned out_pitch;
  unsigned stage_pitch;
  unsigned group;
  std::size_t bytes;
};

Layout layout(std::size_t span, std::size_t longest, std::size_t taps, std::size_t planes, std::size_t element) {
  const std::size_t length = span * (3 / planes);
  const std::size_t per_word = kWord / element;
  Layout out{};
  out.sum_pitch = static_cast<unsigned>(round_up(length, 4));
  out.out_pitch = static_cast<unsigned>(round_up(longest + per_word - 1, per_word));
  // 15 bytes before the row, 3 bytes up to a whole quad, and 4 bytes for the second word that a quad reads.
  out.stage_pitch = static_cast<unsigned>(round_up(length + 15 + 3 + 4, kWord));
  for (std::size_t group = std::min<std::size_t>(taps, 4); group >= 1; --group) {
    const std::size_t buffers = taps > group ? 2 : 1;
    out.group = static_cast<unsigned>(group);
    out.bytes = planes * out.sum_pitch * sizeof(float) + 3 * out.out_pitch * element +
                buffers * group * planes * out.stage_pitch;
    if (out.bytes <= kMostSharedBytes) break;
  }
  return out;
}

}  // namespace

Preprocessor::Preprocessor(image::InputSpec spec, int device)
    : spec_(std::move(spec)), device_((expect_device(device), device)), own_(device), point_(device) {}

std::pair<std::ptrdiff_t, std::ptrdiff_t> Preprocessor::output_size(std::ptrdiff_t height, std::ptrdiff_t width) const {
  image::expect_size(height, width, spec_, "images");
  if (!spec_.resizes()) return {height, width};
  return {spec_.height, spec_.width};
}

void Preprocessor::reads_tables(Stream stream) {
  const std::lock_guard lock(mutex_);
  point_.record(stream);
  point_.wait_on(own_.get());
}

const Preprocessor::Table& Preprocessor::table(std::ptrdiff_t from, std::ptrdiff_t to) {
  const std::lock_guard lock(mutex_);
  const auto found = tables_.find({from, to});
  if (found != tables_.end()) return found->second;
  const image::Taps taps = image::make_taps(from, to, spec_.filter);
  std::vector<std::int32_t> segments{0};
  Table out;
  out.out = taps.out;
  out.taps = taps.taps;
  const auto close = [&](std::ptrdiff_t end) {
    const std::ptrdiff_t begin = segments.back();
    out.span = std::max(out.span, taps.first[end - 1] + taps.taps - taps.first[begin]);
    out.longest = std::max(out.longest, end - begin);
    segments.push_back(static_cast<std::int32_t>(end));
  };
  for (std::ptrdiff_t o = 1; o < taps.out; ++o) {
    if (taps.first[o] + taps.taps - taps.first[segments.back()] > kSpan) close(o);
  }
  close(taps.out);
  out.segment_count = static_cast<std::ptrdiff_t>(segments.size()) - 1;
  const auto upload = [&](auto& to, const auto& from) {
    to = {from.size(), own_.get()};
    copy_to_device(to.data(), from.data(), from.size() * sizeof(from[0]), own_.get());
  };
  upload(out.first, taps.first);
  upload(out.weights, taps.weights);
  upload(out.segments, segments);
  synchronize(own_.get());  // from now on any stream may read the tables, and the sources may be freed
  return tables_.emplace(std::pair{from, to}, std::move(out)).first->second;
}

template <class T>
void Preprocessor::run_as(const ImageBatch& images, T* out, Stream stream) {
  const auto [height, width] = output_size(images.height, images.width);
  if (images.n == 0) return;
  const Table& vertical = table(images.height, height);
  const Table& horizontal = table(images.width, width);
  const std::size_t planes = images.is_interleaved ? 1 : 3;
  const Layout shape = layout(static_cast<std::size_t>(horizontal.span), static_cast<std::size_t>(horizontal.longest),
                              static_cast<std::size_t>(vertical.taps), planes, sizeof(T));
  FASTFID_EXPECT(shape.bytes <= kMostSharedBytes, InvalidArgument, "images: a width of ", images.width,
                 " pixels is more than the GPU kernel can resize; preprocess them on the CPU");
  // The address range of the batch, for strides of any sign.
  const std::uint8_t* begin = images.data;
  const std::uint8_t* end = images.data + images.width * (images.is_interleaved ? 3 : 1);
  const auto extend = [&](std::ptrdiff_t count, std::ptrdiff_t stride) {
    (stride < 0 ? begin : end) += (count - 1) * stride;
  };
  extend(images.n, images.stride_n);
  extend(images.height, images.stride_y);
  if (!images.is_interleaved) extend(3, images.stride_c);

  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr std::ptrdiff_t kMostImages = 65535;  // largest size of a grid
  for (std::ptrdiff_t first = 0; first < images.n; first += kMostImages) {
    const std::ptrdiff_t n = std::min(kMostImages, images.n - first);
    const Job<T> job{
        .images = images.data + first * images.stride_n,
        .begin = begin,
        .end = end,
        .stride_n = images.stride_n,
        .stride_y = images.stride_y,
        .stride_c = images.stride_c,
        .vertical = {vertical.first.data(), vertical.weights.data(), static_cast<unsigned>(vertical.taps)},
        .horizontal = {horizontal.first.data(), horizontal.weights.data(), static_cast<unsigned>(horizontal.taps)},
        .segments = horizontal.segments.data(),
        .segment_count = static_cast<unsigned>(horizontal.segment_count),
        .height = static_cast<unsigned>(height),
        .width = static_cast<unsigned>(width),
        .sum_pitch = shape.sum_pitch,
        .out_pitch = shape.out_pitch,
        .stage_pitch = shape.stage_pitch,
        .group = shape.group,
        .low = spec_.clips ? 0.0F : -kInfinity,
        .high = spec_.clips ? 255.0F : kInfinity,
        .divisor = as_channels(spec_.divisor),
        .factor = as_channels(spec_.factor),
        .offset = as_channels(spec_.offset),
        .out = out + first * 3 * height * width};
    const dim3 grid(static_cast<unsigned>(vertical.out * horizontal.segment_count), static_cast<unsigned>(n));
    if (images.is_interleaved) {
      launch(resample<T, 1>, grid, dim3(kThreads), shape.bytes, stream, job);
    } else {
      launch(resample<T, 3>, grid, dim3(kThreads), shape.bytes, stream, job);
    }
    reads_tables(stream);
  }
}

void Preprocessor::run(const ImageBatch& images, float* out, Stream stream) { run_as(images, out, stream); }
void Preprocessor::run(const ImageBatch& images, std::uint16_t* out, Stream stream) { run_as(images, out, stream); }

}  // namespace fastfid::cuda
