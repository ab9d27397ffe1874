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
  // Safe: `from` and `to` keep the memory alive until the kernel is on the stream; after that the caller is
  // responsible. No Python object is touched.
  const WithoutGil guard;
  if (is_half) {
    self.run(batch, static_cast<std::uint16_t*>(to.data), on);
  } else {
    self.run(batch, static_cast<float*>(to.data), on);
  }
}

}  // namespace

void bind_cuda_image(py::module_& module) {
  // Local to this module, because the tests load another module, with this class on the emulation.
  py::class_<cuda::Preprocessor>(module, "CudaPreprocessor", py::module_local(), R"(
`preprocess` on a CUDA device. Float32 results have the bits of the CPU's results.

Parameters
----------
spec : InputSpec
device : int
    Number of the CUDA device.

Raises
------
BackendUnavailable
    If there is no such device.
)")
      .def(py::init<image::InputSpec, int>(), py::arg("spec"), py::arg("device"))
      .def("run", &run, py::arg("images"), py::arg("out"), py::kw_only(), py::arg("channels_last"), py::arg("stream"),
           py::arg("start") = py::none(),
           R"(Enqueue the network's input for images. The host waits only when a side length is new to this object.

Parameters
----------
images : uint8 tensor (n, h, w, 3), or (n, 3, h, w) with channels_last=False
    On the object's device, through DLPack. The pixels of a row must be adjacent, in either memory order. Not modified.
    The memory must stay valid until the stream has read it.
out : float32 or float16 tensor (m, 3, H, W)
    Contiguous, on the object's device; receives the result. H, W: the size in the spec, or the size of the images.
channels_last : bool
    True if the channels are the last axis of `images`, False if they are the second.
stream : int
    cudaStream_t as a number.
start : int, optional
    The index of the first of the m images. Default: all images, m = n.

Raises
------
TypeError
    For another dtype or rank.
ValueError
    For another shape, order or device; for too few images; for a side of 0 or above 1048576, a side that the kernel
    cannot hold (above some 400,000), or a side that is too small for the network.
DeviceError
    If a CUDA call failed.
)")
      .def(
          "output_size",
          [](const cuda::Preprocessor& self, std::ptrdiff_t height, std::ptrdiff_t width) {
            return self.output_size(height, width);
          },
          py::arg("height"), py::arg("width"), "(H, W) for images of this size; ValueError as in `run`.");
}

}  // namespace fastfid::bindings
