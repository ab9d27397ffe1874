// The parts of a CUDA device that the network needs in addition to ONNX Runtime: a stream, buffers at fixed addresses,
// and the spatial mean.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/gil.hpp"
#include "core/checked.hpp"
#include "core/errors.hpp"
#include "cuda/features.hpp"
#include "cuda/runtime.hpp"

namespace py = pybind11;

namespace fastfid::bindings {
namespace {

// A stream of its own, and events that order it with other streams. The handles of other streams are numbers (0 and 1:
// the legacy default stream).
class CudaStream {
 public:
  explicit CudaStream(int device) : device_(checked(device)), stream_(device), joint_(device) {}

  cuda::Stream get() const { return stream_.get(); }
  int device() const { return device_; }
  std::uintptr_t handle() const { return reinterpret_cast<std::uintptr_t>(get().handle); }

  // Later work on this stream waits for all work that was enqueued on `other` so far.
  void wait_for(std::uintptr_t other) {
    joint_.record({device_, reinterpret_cast<CUstream_st*>(other)});
    joint_.wait_on(get());
  }
  // Later work on `other` waits for all work that was enqueued on this stream so far.
  void hold(std::uintptr_t other) {
    joint_.record(get());
    joint_.wait_on({device_, reinterpret_cast<CUstream_st*>(other)});
  }

 private:
  static int checked(int device) {
    cuda::expect_device(device);
    return device;
  }

  int device_;
  cuda::OwnedStream stream_;
  cuda::Event joint_;  // a wait refers to the last record before the wait, so one event is enough
};

// An array in device memory, C-contiguous, used in the order of one stream. A view of some rows shares the memory.
class CudaArray {
 public:
  CudaArray(std::vector<std::int64_t> shape, const py::dtype& dtype, std::shared_ptr<CudaStream> stream)
      : stream_(std::move(stream)), shape_(std::move(shape)), dtype_(dtype) {
    FASTFID_EXPECT(!shape_.empty(), InvalidArgument, "shape: expected at least one axis");
    std::size_t bytes = static_cast<std::size_t>(dtype_.itemsize());
    for (const std::int64_t length : shape_) {
      FASTFID_EXPECT(length >= 0, InvalidArgument, "shape: expected no negative length, got ", length);
      bytes = checked_mul(bytes, static_cast<std::size_t>(length), "shape: the number of bytes");
    }
    bytes_ = bytes;
    memory_ = std::make_shared<cuda::DeviceBytes>(bytes, stream_->get());
    data_ = static_cast<std::byte*>(memory_->data());
  }

  CudaArray rows(std::int64_t start, std::int64_t stop) const {
    FASTFID_EXPECT(0 <= start && start <= stop && stop <= shape_[0], InvalidArgument,
                   "rows: expected 0 <= start <= ", "stop <= ", shape_[0], ", got ", start, " and ", stop);
    CudaArray view = *this;
    const std::size_t row = shape_[0] == 0 ? 0 : bytes_ / static_cast<std::size_t>(shape_[0]);
    view.shape_[0] = stop - start;
    view.data_ = data_ + static_cast<std::size_t>(start) * row;
    view.bytes_ = static_cast<std::size_t>(stop - start) * row;
    return view;
  }

  void* data() const { return data_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  const py::dtype& dtype() const { return dtype_; }
  const std::shared_ptr<CudaStream>& stream() const { return stream_; }
  std::size_t bytes() const { return bytes_; }
  bool is(char kind, py::ssize_t itemsize) const { return dtype_.kind() == kind && dtype_.itemsize() == itemsize; }

  void fill(int byte) const { cuda::fill_bytes(data_, byte, bytes_, stream_->get()); }

  void copy_from(const py::array& source) const {
    FASTFID_EXPECT(
        shape_of(source) == shape_ && source.dtype().equal(dtype_) && (source.flags() & py::array::c_style) != 0,
        InvalidArgument, "source: expected a C-contiguous array of ", text(dtype_), " ",
        text(py::tuple(py::cast(shape_))), ", got ", describe(source));
    const void* const from = source.data();
    // Safe without the GIL: the caller holds a reference to `source`, and the memory that is read does not belong to
    // Python.
    const WithoutGil guard;
    cuda::copy_to_device(data_, from, bytes_, stream_->get());
    // Pageable memory is read before the copy returns. Page-locked memory may be read later, hence the wait.
    cuda::synchronize(stream_->get());
  }

  void copy_on_device(const CudaArray& source) const {
    FASTFID_EXPECT(source.shape_ == shape_ && source.dtype_.equal(dtype_) && source.stream_ == stream_, InvalidArgument,
                   "source: expected an array of the same shape, dtype and stream");
    cuda::copy_on_device(data_, source.data_, bytes_, stream_->get());
  }

  // Copies of some rows in a new array. Neighbours are one copy.
  CudaArray take(const std::vector<std::int64_t>& indices) const {
    std::vector<std::int64_t> shape = shape_;
    shape[0] = static_cast<std::int64_t>(indices.size());
    CudaArray out(shape, dtype_, stream_);
    for (std::size_t first = 0; first < indices.size();) {
      std::size_t last = first + 1;
      while (last < indices.size() && indices[last] == indices[last - 1] + 1) ++last;
      const auto count = static_cast<std::int64_t>(last - first);
      const auto target = static_cast<std::int64_t>(first);
      out.rows(target, target + count).copy_on_device(rows(indices[first], indices[first] + count));
      first = last;
    }
    return out;
  }

  py::array numpy() const {
    py::array out(dtype_, shape_);
    void* const to = out.mutable_data();
    {
      // Safe without the GIL: no other thread knows `out` yet.
      const WithoutGil guard;
      cuda::copy_to_host(to, data_, bytes_, stream_->get());
      cuda::synchronize(stream_->get());
    }
    return out;
  }

  py::capsule dlpack(const py::object& consumer) const {
    // None means the legacy default stream; -1 means a consumer that orders the work itself.
    const auto handle = consumer.is_none() ? std::int64_t{1} : consumer.cast<std::int64_t>();
    if (handle >= 0 && static_cast<std::uintptr_t>(handle) != stream_->handle()) {
      stream_->hold(static_cast<std::uintptr_t>(handle));
    }
    auto owner = std::make_unique<Export>();
    owner->memory = memory_;
    owner->stream = stream_;
    owner->shape = shape_;
    const auto bits = static_cast<std::uint8_t>(8 * dtype_.itemsize());
    const std::uint8_t code = dtype_.kind() == 'f' ? dlpack::kFloat : dlpack::kUint;
    owner->managed.tensor = {data_,
                             {dlpack::kCuda, stream_->device()},
                             static_cast<std::int32_t>(owner->shape.size()),
                             {code, bits, 1},
                             owner->shape.data(),
                             nullptr,
                             0};
    owner->managed.context = owner.get();
    owner->consumer = handle;
    owner->managed.deleter = [](dlpack::ManagedTensor* managed) {
      auto* const exported = static_cast<Export*>(managed->context);
      try {
        // The consumer's unfinished work may still use the memory, which is reused on this object's stream.
        if (exported->consumer >= 0) exported->stream->wait_for(static_cast<std::uintptr_t>(exported->consumer));
      } catch (const std::exception&) {
        // The device is broken or the process ends: the memory is no longer used.
      }
      delete exported;
    };
    py::capsule capsule(&owner->managed, "dltensor", [](PyObject* unused) {
      // A consumer renames the capsule and deletes the tensor itself; then there is nothing to do here.
      if (!PyCapsule_IsValid(unused, "dltensor")) return;
      auto* const managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(unused, "dltensor"));
      managed->deleter(managed);
    });
    owner.release();
    return capsule;
  }

 private:
  struct Export {
    dlpack::ManagedTensor managed{};
    std::int64_t consumer = -1;  // the stream on which the consumer uses the memory
    std::vector<std::int64_t> shape;
    std::shared_ptr<CudaStream> stream;  // outlives the memory, which is freed on this stream
    std::shared_ptr<cuda::DeviceBytes> memory;
  };

  static std::vector<std::int64_t> shape_of(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
  }

  // Declared before the memory, which is freed on this stream.
  std::shared_ptr<CudaStream> stream_;
  std::shared_ptr<cuda::DeviceBytes> memory_;
  std::vector<std::int64_t> shape_;
  py::dtype dtype_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// A recording on a stream. The recording keeps the stream alive.
class CudaGraph {
 public:
  CudaGraph(std::shared_ptr<CudaStream> stream, const py::function& work)
      : stream_(std::move(stream)), graph_(stream_->get(), [&] { call(work); }) {}

  void launch() const { graph_.launch(); }

 private:
  std::shared_ptr<CudaStream> stream_;
  cuda::Graph graph_;
};

void spatial_mean_cuda(const CudaArray& map, const CudaArray& out) {
  FASTFID_EXPECT(map.shape().size() == 4 && (map.is('f', 4) || map.is('f', 2)), InvalidArgument,
                 "map: expected float32 or float16 of shape (n, c, h, w)");
  const auto n = map.shape()[0];
  const auto c = map.shape()[1];
  FASTFID_EXPECT(out.is('f', 4) && out.shape() == std::vector<std::int64_t>({n, c}), InvalidArgument,
                 "out: expected float32 of shape (", n, ", ", c, ")");
  FASTFID_EXPECT(out.stream() == map.stream(), InvalidArgument, "out: expected an array of the map's stream");
  const auto area = static_cast<std::size_t>(checked_mul(map.shape()[2], map.shape()[3], "map: h * w"));
  FASTFID_EXPECT(area >= 1, InvalidArgument, "map: expected h and w of at least 1");
  cuda::spatial_mean(map.data(), map.is('f', 4) ? cuda::MapType::kFloat32 : cuda::MapType::kFloat16,
                     static_cast<std::size_t>(checked_mul(n, c, "map: n * c")), area, static_cast<float*>(out.data()),
                     map.stream()->get());
}

}  // namespace

void bind_cuda_network(py::module_& module) {
  py::class_<CudaStream, std::shared_ptr<CudaStream>>(module, "CudaStream",
                                                      "A new CUDA stream on one device. Only synchronize() waits.")
      .def(py::init<int>(), py::arg("device"))
      .def_property_readonly("device", &CudaStream::device)
      .def_property_readonly("handle", &CudaStream::handle, "The cudaStream_t, as a number.")
      .def("wait_for", &CudaStream::wait_for, py::arg("other"),
           "Later work on this stream waits for all work so far on the stream `other` of this device.")
      .def("hold", &CudaStream::hold, py::arg("other"),
           "Later work on the stream `other` waits for all work so far on this stream.")
      .def(
          "synchronize", [](const CudaStream& self) { cuda::synchronize(self.get()); },
          // Safe without the GIL: the call waits for the device and touches no Python object.
          py::call_guard<WithoutGil>(), "Waits until all work on the stream is done.");

  py::class_<CudaArray>(module, "CudaArray",
                        "A C-contiguous array in device memory, not initialised, used in the order of one CudaStream. "
                        "Other libraries see it through DLPack.")
      .def(py::init([](std::vector<std::int64_t> shape, const py::object& dtype, std::shared_ptr<CudaStream> stream) {
             return CudaArray(std::move(shape), py::dtype::from_args(dtype), std::move(stream));
           }),
           py::arg("shape"), py::arg("dtype"), py::arg("stream"))
      .def_property_readonly("shape", [](const CudaArray& self) { return py::tuple(py::cast(self.shape())); })
      .def_property_readonly("dtype", &CudaArray::dtype)
      .def_property_readonly("stream", &CudaArray::stream)
      .def_property_readonly(
          "data", [](const CudaArray& self) { return reinterpret_cast<std::uintptr_t>(self.data()); },
          "Address of the first element; valid as long as the array or a view of it exists.")
      .def_property_readonly("nbytes", &CudaArray::bytes)
      .def("rows", &CudaArray::rows, py::arg("start"), py::arg("stop"), "A view of the rows start to stop - 1.")
      .def("fill_bytes", &CudaArray::fill, py::arg("value"), "Sets every byte; does not wait.")
      .def("copy_from", &CudaArray::copy_from, py::arg("source"),
           "Copies a NumPy array of this shape and dtype; waits.")
      .def("copy_on_device", &CudaArray::copy_on_device, py::arg("source"),
           "Copies a CudaArray of this shape, dtype and stream; does not wait.")
      .def("take", &CudaArray::take, py::arg("indices"), "Copies of rows, a new array; does not wait.")
      .def("numpy", &CudaArray::numpy, "A copy as a NumPy array; waits for all earlier work in the stream.")
      .def("__dlpack__",
           [](const CudaArray& self, const py::kwargs& keywords) {
             // max_version, dl_device and copy are ignored: the result is always an unversioned capsule on this device,
             // without a copy.
             return self.dlpack(keywords.contains("stream") ? py::object(keywords["stream"]) : py::none());
           })
      .def("__dlpack_device__",
           [](const CudaArray& self) { return py::make_tuple(dlpack::kCuda, self.stream()->device()); });

  py::class_<CudaGraph>(module, "CudaGraph",
                        "A recording of the work that `work()` enqueues on a CudaStream from this thread; the work is "
                        "not executed. Arrays that it reads and writes must live as long as it is launched.")
      .def(py::init<std::shared_ptr<CudaStream>, const py::function&>(), py::arg("stream"), py::arg("work"))
      .def("launch", &CudaGraph::launch, "Enqueues the recorded work on the stream; does not wait.");

  module.def("cuda_spatial_mean", &spatial_mean_cuda, py::arg("map"), py::arg("out"),
             "spatial_mean on the device: `map`, CudaArray float32 or float16 (n, c, h, w), into `out`, CudaArray "
             "float32 (n, c), of the same stream. Does not wait.");
}

}  // namespace fastfid::bindings
