// csrc/cuda/preprocess.cu, emulated, for ctypes.
#include "cuda/preprocess.cu"

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
void preprocess(const char* protocol, const std::uint8_t* images, const long* shape, const long* strides,
                int is_interleaved, void* out, int is_half, char* error) {
  try {
    static std::map<std::string, std::unique_ptr<cuda::Preprocessor>> made;  // so that tables are used again
    auto& preprocessor = made[protocol];
    if (!preprocessor) preprocessor = std::make_unique<cuda::Preprocessor>(protocol, 0);
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
