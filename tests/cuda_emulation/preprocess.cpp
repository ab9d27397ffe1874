// csrc/cuda/preprocess.cu, emulated, for ctypes.
#include "cuda/preprocess.cu"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <string>

#include "cuda_emulation.hpp"

using namespace fastfid;

extern "C" {

void emulation_order(int order) { emulation::the_order = static_cast<emulation::Order>(order); }

// strides: n, y, c, in bytes. `error` has room for 1024 bytes.
// size: height, width, least side; height 0: images keep their size. scale: divisor, factor, offset, three each.
void preprocess(const char* name, const long* size, const char* filter, int clips, const float* scale,
                const std::uint8_t* images, const long* shape, const long* strides, int is_interleaved, void* out,
                int is_half, char* error) {
  try {
    static std::map<std::string, std::unique_ptr<cuda::Preprocessor>> made;  // kept, so that tables are reused
    auto& preprocessor = made[name];
    if (!preprocessor) {
      image::InputSpec spec{name, size[0], size[1], size[2], image::filter_by_name(filter), clips != 0, {}, {}, {}};
      std::copy_n(scale, 3, spec.divisor.begin());
      std::copy_n(scale + 3, 3, spec.factor.begin());
      std::copy_n(scale + 6, 3, spec.offset.begin());
      preprocessor = std::make_unique<cuda::Preprocessor>(spec, 0);
    }
    const cuda::ImageBatch batch{images,     shape[0],   shape[1],   shape[2],
                                 strides[0], strides[1], strides[2], is_interleaved != 0};
    if (is_half != 0) {
      preprocessor->run(batch, static_cast<std::uint16_t*>(out), {});
    } else {
      preprocessor->run(batch, static_cast<float*>(out), {});
    }
  } catch (const std::exception& failure) {
    std::strncpy(error, failure.what(), 1023);
  }
}
}
