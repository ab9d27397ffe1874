// core/image.hpp on a CUDA device: makes the network's input from uint8 images in device memory, as an InputSpec says.
//
// One kernel with one block per output row; a very wide image has one block per segment of an output row. The block
// copies the input rows of its taps into shared memory by 128-bit asynchronous copies, for any alignment. The vertical
// sums stay in shared memory in float32. The horizontal sums, limits and scale follow, and the row is written in
// 128-bit stores. The weights come from make_taps(). Every sum has the order and the rounding of the CPU, without fused
// operations. Float32 output is therefore bit-equal to image::preprocess(), and float16 output is the float32 output
// rounded once to nearest even.
//
// docs/cuda.md has the expected speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "core/image.hpp"
#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// n images (height, width, 3) of one size in device memory; strides in bytes. The pixels of a row are adjacent: the
// channels are either interleaved (stride_c = 1) or in planes (any stride_c). An ImageBatch does not own the memory.
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

  // (height, width) of the output. Throws InvalidArgument for sizes that image::preprocess() refuses, and for sizes
  // that need more shared memory than there is: more than about 400,000 pixels on a side.
  std::pair<std::ptrdiff_t, std::ptrdiff_t> output_size(std::ptrdiff_t height, std::ptrdiff_t width) const;

  // Enqueues the network's input, written to out (n, 3, H, W), C-contiguous, in device memory: float, or the bits of
  // IEEE halves. n = 0 does nothing. Waits for the device only when a side length is new to this object, to copy the
  // table of weights of this side length (10 to 300 KB). The object keeps the table until its destruction. The object
  // may be destroyed before the enqueued work is done. Throws as output_size() does, and DeviceError.
  void run(const ImageBatch& images, float* out, Stream stream);
  void run(const ImageBatch& images, std::uint16_t* out, Stream stream);

 private:
  // image::Taps in device memory, and the cuts of an output row into segments whose input fits into shared memory.
  struct Table {
    std::ptrdiff_t out = 0;
    std::ptrdiff_t taps = 0;
    DeviceArray<std::int32_t> first;
    DeviceArray<float> weights;
    DeviceArray<std::int32_t> segments;  // segment s: outputs [segments[s], segments[s + 1])
    std::ptrdiff_t segment_count = 0;
    std::ptrdiff_t span = 0;     // largest number of input pixels of a segment
    std::ptrdiff_t longest = 0;  // largest number of outputs of a segment
  };
  const Table& table(std::ptrdiff_t from, std::ptrdiff_t to);
  void reads_tables(Stream stream);  // notes that the work enqueued on the stream so far reads the tables
  template <class T>
  void run_as(const ImageBatch& images, T* out, Stream stream);

  const image::InputSpec spec_;
  int device_;
  std::mutex mutex_;  // guards all members below
  OwnedStream own_;   // the stream of the tables: waits for all work that reads the tables, so that they are freed
                      // after it
  Event point_;       // in a caller's stream; a wait refers to the last record before the wait, so one event is enough
  // The tables by the sides of the image and of the input. Nodes of a map are never moved.
  std::map<std::pair<std::ptrdiff_t, std::ptrdiff_t>, Table> tables_;
};

}  // namespace fastfid::cuda
