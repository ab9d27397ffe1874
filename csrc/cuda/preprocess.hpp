// core/image.hpp on a CUDA device: from uint8 images in device memory to the network's input, as an InputSpec says.
//
// One kernel, one block per output row (and, of very wide images, per segment of it): the input rows of its taps come
// by 128-bit asynchronous copies into shared memory, whatever their alignment; the vertical sums stay there in float32;
// the horizontal sums, limits and scale follow, and the row leaves in 128-bit stores. The weights are those of
// make_taps(), every sum has the CPU's order and is rounded as there, nothing is fused: float32 output is bit-equal to
// image::preprocess(), float16 output is that, rounded once to nearest even.
//
// Predicted on an H100 (3.35 TB/s; copies reach 3.0): an image of 512 x 512 reads 0.8 MB, where every row is a tap, and
// writes 1.07 MB (float16: 0.54). About 900 instruction slots of a multiprocessor per output row against 1000 in the
// time that its bytes take: 60 to 80 % of the copy bandwidth, 1.0 us an image; 32 x 32 images are bound by their
// stores, 0.5 us. Never run on a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "core/image.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// n images (height, width, 3) of one size in device memory; strides in bytes, the pixels of a row adjacent: either
// channels interleaved (stride_c = 1) or in planes (stride_c is free). Not owned.
struct ImageBatch {
  const std::uint8_t* data = nullptr;
  std::ptrdiff_t n = 0;
  std::ptrdiff_t height = 0;
  std::ptrdiff_t width = 0;
  std::ptrdiff_t stride_n = 0;
  std::ptrdiff_t stride_y = 0;
  std::ptrdiff_t stride_c = 0;
  bool is_interleaved = true;
};

// One spec on one device. May be called from several threads and for several streams.
class Preprocessor {
 public:
  // Throws BackendUnavailable where there is no such device.
  Preprocessor(image::InputSpec spec, int device);

  int device() const { return device_; }

  // (height, width) of what comes out. Throws InvalidArgument for sizes that image::preprocess() refuses, or that need
  // more shared memory than there is: more than about 400,000 pixels a side.
  std::pair<std::ptrdiff_t, std::ptrdiff_t> output_size(std::ptrdiff_t height, std::ptrdiff_t width) const;

  // Enqueues the network's input, written to out (n, 3, H, W), C-contiguous, in device memory: float, or the bits of
  // IEEE halves. n = 0 does nothing. Waits for the device only when a side length is new to this object, to copy its
  // table of weights (10 to 300 KB, kept for the object's lifetime, which may end while runs are under way). Throws as
  // output_size(), and DeviceError.
  void run(const ImageBatch& images, float* out, Stream stream);
  void run(const ImageBatch& images, std::uint16_t* out, Stream stream);

 private:
  // image::Taps in device memory, and where to cut an output row so that its input fits into shared memory.
  struct Table {
    std::ptrdiff_t out = 0;
    std::ptrdiff_t taps = 0;
    DeviceArray<std::int32_t> first;
    DeviceArray<float> weights;
    DeviceArray<std::int32_t> segments;  // segment s: outputs [segments[s], segments[s + 1])
    std::ptrdiff_t segment_count = 0;
    std::ptrdiff_t span = 0;     // most input pixels of a segment
    std::ptrdiff_t longest = 0;  // most outputs of a segment
  };
  const Table& table(std::ptrdiff_t from, std::ptrdiff_t to);
  void reads_tables(Stream stream);  // what the stream has been given so far reads them
  template <class T>
  void run_as(const ImageBatch& images, T* out, Stream stream);

  const image::InputSpec spec_;
  int device_;
  std::mutex mutex_;  // of all below
  OwnedStream own_;   // the tables': waits for whatever reads them, so that they are freed after it
  Event point_;       // in a caller's stream; a wait refers to the record before it, so one event serves all
  // By side of the image and of the input; nodes stay where they are.
  std::map<std::pair<std::ptrdiff_t, std::ptrdiff_t>, Table> tables_;
};

}  // namespace fastfid::cuda
