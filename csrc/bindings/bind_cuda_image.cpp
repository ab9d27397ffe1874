// Preprocessing on a CUDA device, for tensors that come through DLPack. Only in builds with CUDA.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/gil.hpp"
#include "core/errors.hpp"
#include "cuda/preprocess.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

ImportedTensor import_on_device(py::handle object, const char* name, int device, std::uintptr_t stream) {
  const dlpack::Device where = tensor_device(object, name);
  FASTFID_EXPECT(dlpack::is_cuda(where) && where.id == device, InvalidArgument, name,
                 ": expected a tensor on cuda:", device, ", got one elsewhere");
  return import_tensor(object, name, stream);
}

cuda::ImageBatch as_batch(const ImportedTensor& tensor, bool channels_last) {
  if (!tensor.is(dlpack::kUint, 8) || tensor.shape.size() != 4) {
    throw py::type_error(message("images: expected a uint8 tensor with 4 dimensions, got ", tensor.describe()));
  }
  const std::size_t y = channels_last ? 1 : 2;
  const std::size_t c = channels_last ? 3 : 1;
  FASTFID_EXPECT(tensor.shape[c] == 3, InvalidArgument, "images: expected shape ",
                 channels_last ? "(n, h, w, 3)" : "(n, 3, h, w)", ", got ", tensor.describe());
  cuda::ImageBatch batch;
  batch.data = static_cast<const std::uint8_t*>(tensor.data);
  batch.n = tensor.shape[0];
  batch.height = tensor.shape[y];
  batch.width = tensor.shape[y + 1];
  batch.stride_n = tensor.strides[0];
  batch.stride_y = tensor.strides[y];
  batch.stride_c = tensor.strides[c];
  const auto stride_x = tensor.strides[y + 1];
  batch.is_interleaved = batch.stride_c == 1 && (stride_x == 3 || batch.width == 1);
  FASTFID_EXPECT(batch.is_interleaved || stride_x == 1 || batch.width == 1, InvalidArgument,
                 "images: expected the pixels of a row side by side, as in a contiguous tensor or one with permuted ",
                 "axes, got strides of ", stride_x, " bytes from pixel to pixel and ", batch.stride_c,
                 " from channel to channel; call .contiguous() first");
  return batch;
}

void run(cuda::Preprocessor& self, py::handle images, py::handle out, bool channels_last, std::uintptr_t stream,
         std::optional<std::int64_t> start) {
  const ImportedTensor from = import_on_device(images, "images", self.device(), stream);
  const ImportedTensor to = import_on_device(out, "out", self.device(), stream);
  cuda::ImageBatch batch = as_batch(from, channels_last);
  if (start) {
    const std::int64_t count = to.shape.empty() ? 0 : to.shape[0];
    FASTFID_EXPECT(0 <= *start && *start <= batch.n - count, InvalidArgument, "start: expected 0 to ", batch.n - count,
                   " for ", count, " of ", batch.n, " images, got ", *start);
    batch.data += *start * batch.stride_n;
    batch.n = count;
  }
  const auto [height, width] = self.output_size(batch.height, batch.width);
  const bool is_half = to.is(dlpack::kFloat, 16);
  if (!is_half && !to.is(dlpack::kFloat, 32)) {
    throw py::type_error(message("out: expected float32 or float16, got ", to.describe()));
  }
  const std::vector<std::int64_t> expected = {batch.n, 3, height, width};
  FASTFID_EXPECT(to.shape == expected && to.is_contiguous(), InvalidArgument, "out: expected a contiguous tensor (",
                 batch.n, ", 3, ", height, ", ", width, "), got ", to.describe());
  const cuda::Stream on{self.device(), reinterpret_cast<CUstream_st*>(stream)};
  // Safe: `from` and `to` keep the memory alive until the kernel is on the stream, what comes later is the caller's
  // business; no Python object is touched.
  const WithoutGil guard;
  if (is_half) {
    self.run(batch, static_cast<std::uint16_t*>(to.data), on);
  } else {
    self.run(batch, static_cast<float*>(to.data), on);
  }
}

}  // namespace

void bind_cuda_image(py::module_& module) {
  // Known to this module alone: the tests load another, with the same class on the emulation.
  py::class_<cuda::Preprocessor>(module, "CudaPreprocessor", py::module_local(), R"(
`preprocess` on a CUDA device: float32 results are those of the CPU, bit for bit.

Parameters
----------
spec : InputSpec
device : int
    Number of the CUDA device.

Raises
------
BackendUnavailable
    There is no such device.
)")
      .def(py::init<image::InputSpec, int>(), py::arg("spec"), py::arg("device"))
      .def("run", &run, py::arg("images"), py::arg("out"), py::kw_only(), py::arg("channels_last"), py::arg("stream"),
           py::arg("start") = py::none(),
           R"(Enqueue the network's input for images. Waits only when a side length is new to this object.

Parameters
----------
images : uint8 tensor (n, h, w, 3), or (n, 3, h, w) with channels_last=False
    On the object's device, through DLPack; the pixels of a row side by side, in either memory order. Not modified. Its
    memory must stay until the stream has read it.
out : float32 or float16 tensor (m, 3, H, W)
    Contiguous, on the same device; H, W: the size in the spec, or the images'. Filled.
channels_last : bool
    Which axis of `images` the channels are.
stream : int
    cudaStream_t as a number.
start : int, optional
    Take m images from this one on. Default: all images, m = n.

Raises
------
TypeError
    Another dtype or rank.
ValueError
    Another shape, order or device; too few images; a side of 0 or above 1048576, one that the kernel cannot hold (above
    some 400,000), one that is too small for the network.
DeviceError
    A CUDA call failed.
)")
      .def(
          "output_size",
          [](const cuda::Preprocessor& self, std::ptrdiff_t height, std::ptrdiff_t width) {
            return self.output_size(height, width);
          },
          py::arg("height"), py::arg("width"), "(H, W) for images of this size; ValueError as in `run`.");
}

}  // namespace fastfid::bindings
