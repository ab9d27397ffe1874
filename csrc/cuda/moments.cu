#include "cuda/moments.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "core/errors.hpp"
#include "cuda/moments.cuh"

namespace fastfid::cuda {
namespace {

namespace kernels = moments;

constexpr int kFloat32Rows = 256;  // rows that are summed in float32 before float64 takes over
constexpr int kShiftRows = 256;    // rows whose mean is the shift
constexpr unsigned kThreads = 256;

int squares_of(int d) { return (d + 2 * kernels::kPanel - 1) / (2 * kernels::kPanel); }

std::size_t tiles_of(int squares) {
  const auto panels = static_cast<std::size_t>(2 * squares);
  return panels * (panels + 1) / 2;
}

int checked_dims(int d) {
  FASTFID_EXPECT(d >= 1 && d <= DeviceMoments::kMaxDims, InvalidArgument, "d: expected 1 to ",
                 int{DeviceMoments::kMaxDims}, ", got ", d);
  return d;
}

int checked_device(int device) {
  expect_device(device);
  return device;
}

unsigned blocks_for(int elements) { return (static_cast<unsigned>(elements) + kThreads - 1) / kThreads; }

// Calls f with a null pointer to the element type.
template <class F>
void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      f(static_cast<const float*>(nullptr));
      return;
    case DType::kFloat16:
      f(static_cast<const kernels::Half*>(nullptr));
      return;
    case DType::kBFloat16:
      f(static_cast<const kernels::BFloat16*>(nullptr));
      return;
    case DType::kFloat64:
      break;
  }
  throw InvalidArgument("rows on a device: expected float32, float16 or bfloat16, got float64");
}

std::size_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

template <class T, class How>
void launch_accumulate(const T* rows, std::int64_t row_stride, int n, int rows_per_copy, int squares, int copies,
                       const float* shift, double* scatter, double* sums, unsigned long long* first_bad,
                       unsigned long long first_index, Stream stream) {
  launch(kernels::accumulate<T, How>,
         dim3(static_cast<unsigned>(kernels::work_count(squares)), static_cast<unsigned>(copies)),
         dim3(kernels::kThreads), kernels::shared_bytes<T, How>(), stream, rows, row_stride, n, rows_per_copy, squares,
         shift, scatter, sums, first_bad, first_index);
}

}  // namespace

struct DeviceMoments::Sums {
  double* scatter;
  double* sums;
};

DeviceMoments::DeviceMoments(int d, int device, Arithmetic arithmetic, int block_rows)
    : d_(checked_dims(d)),
      device_(checked_device(device)),
      arithmetic_(arithmetic),
      block_rows_(block_rows),
      own_(device),
      last_(device) {}

DeviceMoments::DeviceMoments(const Moments& moments, int device, Arithmetic arithmetic, int block_rows)
    : DeviceMoments(moments.d(), device, arithmetic, block_rows) {
  const std::int64_t n = moments.n();
  if (n == 0) return;
  if (n <= d_) {
    load_rows(moments);
  } else {
    load_sums(moments);
  }
}

DeviceMoments::~DeviceMoments() {
  try {
    last_.wait_on(own_.get());
  } catch (const DeviceError&) {
    // The device is broken or the process ends: no code can use the memory any more.
  }
}

std::int64_t DeviceMoments::n() const {
  const std::lock_guard lock(mutex_);
  return seen();
}

void DeviceMoments::expect_room(std::int64_t rows, const char* what) const {
  FASTFID_EXPECT(rows >= 0 && rows <= kMaxRows - seen(), InvalidArgument, what,
                 ": expected at most 2^62 rows in all, got ", seen(), " and ", rows, " more");
}

std::size_t DeviceMoments::row_length() const { return static_cast<std::size_t>(squares_of(d_)) * 2 * kernels::kPanel; }

void DeviceMoments::begin(Stream stream) {
  FASTFID_EXPECT(stream.device == device_, InvalidArgument, "stream: expected one of cuda:", device_,
                 ", got one of cuda:", stream.device);
  last_.wait_on(stream);
}

void DeviceMoments::end(Stream stream) { last_.record(stream); }

// All memory is allocated before any of it is kept. The memory is zeroed on the object's own stream, and begin() then
// orders this stream before the caller's stream.
void DeviceMoments::allocate(bool with_sums) {
  const bool with_buffer = buffer_.is_empty();
  with_sums = with_sums && scatter_.is_empty();
  if (!with_buffer && !with_sums) return;
  const Stream own = own_.get();
  last_.wait_on(own);
  const auto zeros = [own]<class T>(DeviceArray<T>& array, std::size_t size, int byte = 0) {
    array = DeviceArray<T>(size, own);
    fill_bytes(array.data(), byte, size * sizeof(T), own);
  };
  DeviceArray<float> buffer;
  DeviceArray<unsigned long long> first_bad;
  DeviceArray<float> shift;
  DeviceArray<double> scatter;
  DeviceArray<double> sums;
  const int squares = squares_of(d_);
  const auto copies = static_cast<std::size_t>(kernels::copies_for(squares));
  if (with_buffer) {
    zeros(buffer, static_cast<std::size_t>(std::max(d_, block_rows_)) * row_length());
    zeros(first_bad, 1, 0xff);
    zeros(shift, row_length());
  }
  if (with_sums) {
    zeros(scatter, copies * tiles_of(squares) * kernels::kTileSize);
    zeros(sums, copies * row_length());
  }
  last_.record(own);
  if (with_buffer) {
    buffer_ = std::move(buffer);
    first_bad_ = std::move(first_bad);
    shift_ = std::move(shift);
  }
  if (with_sums) {
    scatter_ = std::move(scatter);
    sums_ = std::move(sums);
  }
}

void DeviceMoments::append(const DeviceRows& rows, std::int64_t first, std::int64_t count, Stream stream) {
  if (count == 0) return;
  const auto row_length_ = static_cast<std::int64_t>(row_length());
  with_type(rows.dtype, [&]<class T>(const T*) {
    launch(kernels::append_rows<T>, dim3(static_cast<unsigned>(count)), dim3(kThreads), 0, stream,
           static_cast<const T*>(rows.data) + first * rows.row_stride, rows.row_stride, rows.column_stride, d_,
           buffer_.data() + pending_ * row_length_, row_length_, first_bad_.data(),
           static_cast<unsigned long long>(folded_ + pending_));
  });
  pending_ += count;
}

template <class T>
void DeviceMoments::fold(const T* rows, std::int64_t row_stride, std::int64_t count, std::int64_t first_index,
                         const Sums& sums, Stream stream) {
  if (first_index == 0) {
    const auto n = static_cast<int>(std::min<std::int64_t>(count, kShiftRows));
    launch(kernels::set_shift<T>, dim3(blocks_for(d_)), dim3(kThreads), 0, stream, rows, row_stride, n, d_,
           shift_.data());
  }
  const int squares = squares_of(d_);
  const int copies = kernels::copies_for(squares);
  const int rows_at_once = arithmetic_ == Arithmetic::kFloat64 ? block_rows_ : kFloat32Rows * copies;
  for (std::int64_t first = 0; first < count; first += rows_at_once) {
    const auto n = static_cast<int>(std::min<std::int64_t>(count - first, rows_at_once));
    // The share of a copy does not depend on n: the bits of a partial block do not matter, and the bits of a whole
    // block must not depend on n.
    const int rows_per_copy = std::min(rows_at_once, block_rows_) / copies;
    const auto start = arithmetic_ == Arithmetic::kFloat64 ? launch_accumulate<T, kernels::Float64>
                                                           : launch_accumulate<T, kernels::Float32>;
    start(rows + first * row_stride, row_stride, n, rows_per_copy, squares, copies, shift_.data(), sums.scatter,
          sums.sums, first_bad_.data(), static_cast<unsigned long long>(first_index + first), stream);
  }
}

void DeviceMoments::fold_buffer(Stream stream) {
  const auto length = static_cast<std::int64_t>(row_length());
  std::int64_t done = 0;
  for (; pending_ - done >= block_rows_; done += block_rows_) {
    fold(buffer_.data() + done * length, length, block_rows_, folded_ + done, {scatter_.data(), sums_.data()}, stream);
  }
  // At most block_rows_ - 1 rows are left, which do not overlap their new place.
  if (done > 0 && pending_ > done) {
    copy_on_device(buffer_.data(), buffer_.data() + done * length,
                   static_cast<std::size_t>((pending_ - done) * length) * sizeof(float), stream);
  }
  folded_ += done;
  pending_ -= done;
}

bool DeviceMoments::can_read_directly(const DeviceRows& rows) const {
  return static_cast<std::size_t>(d_) == row_length() && rows.column_stride == 1 &&
         reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0 &&
         static_cast<std::size_t>(rows.row_stride) * element_size(rows.dtype) % 16 == 0;
}

void DeviceMoments::update(const DeviceRows& rows, Stream stream) {
  const std::lock_guard lock(mutex_);
  with_type(rows.dtype, [](const auto*) {});
  if (rows.n == 0) return;
  expect_room(rows.n, "x");
  const bool stays_thin = seen() + rows.n <= d_;
  allocate(!stays_thin && pending_ + rows.n >= block_rows_);
  begin(stream);
  try {
    add(rows, stays_thin, stream);
  } catch (...) {
    end(stream);  // reset() and the destructor then wait for the work launched before the failure
    throw;
  }
  end(stream);
}

void DeviceMoments::add(const DeviceRows& rows, bool stays_thin, Stream stream) {
  std::int64_t first = 0;
  if (!stays_thin) {
    fold_buffer(stream);
    if (pending_ > 0) {
      const std::int64_t fill = std::min(block_rows_ - pending_, rows.n);
      append(rows, 0, fill, stream);
      first = fill;
      fold_buffer(stream);
    }
    for (; rows.n - first >= block_rows_; first += block_rows_) {
      if (can_read_directly(rows)) {
        with_type(rows.dtype, [&]<class T>(const T*) {
          fold(static_cast<const T*>(rows.data) + first * rows.row_stride, rows.row_stride, block_rows_, folded_,
               {scatter_.data(), sums_.data()}, stream);
        });
        folded_ += block_rows_;
      } else {
        append(rows, first, block_rows_, stream);
        fold_buffer(stream);
      }
    }
  }
  append(rows, first, rows.n - first, stream);
}

void DeviceMoments::merge(DeviceMoments& other) {
  FASTFID_EXPECT(other.device_ == device_, InvalidArgument, "merge: expected moments on cuda:", device_,
                 ", got moments on cuda:", other.device_);
  FASTFID_EXPECT(other.d_ == d_, InvalidArgument, "merge: expected d = ", d_, ", got ", other.d_);
  FASTFID_EXPECT(other.arithmetic_ == arithmetic_, InvalidArgument, "merge: expected sums in the same arithmetic");
  const bool is_self = &other == this;
  std::unique_lock lock(mutex_, std::defer_lock);
  std::unique_lock others_lock(other.mutex_, std::defer_lock);
  if (is_self) {
    lock.lock();
  } else {
    std::lock(lock, others_lock);
  }
  const std::int64_t added = other.seen();
  expect_room(added, "merge");
  if (added == 0) return;
  const bool stays_thin = seen() + added <= d_;
  allocate(!stays_thin && (other.folded_ > 0 || pending_ + other.pending_ >= block_rows_));
  const Stream own = own_.get();
  begin(own);
  other.last_.wait_on(own);
  DeviceRows rows{other.buffer_.data(), DType::kFloat32, other.pending_, static_cast<std::int64_t>(row_length()), 1};
  DeviceArray<float> copy;
  if (is_self && rows.n > 0) {  // adding the rows moves them within the buffer
    copy = DeviceArray<float>(static_cast<std::size_t>(rows.n) * row_length(), own);
    copy_on_device(copy.data(), rows.data, copy.size() * sizeof(float), own);
    rows.data = copy.data();
  }
  // After any failure, the later work of both objects comes after the work that was launched before.
  const auto end_both = [&] {
    end(own);
    other.end(own);
  };
  try {
    if (other.folded_ > 0) add_sums(other, own);
    add(rows, stays_thin, own);
  } catch (...) {
    end_both();
    throw;
  }
  end_both();
}

void DeviceMoments::add_sums(const DeviceMoments& other, Stream stream) {
  const int squares = squares_of(d_);
  const auto copies = static_cast<unsigned>(kernels::copies_for(squares));
  const auto panels = static_cast<unsigned>(2 * squares);
  const auto length = static_cast<int>(row_length());
  const auto n = static_cast<double>(other.folded_);
  if (folded_ == 0) {  // S and s are zero about any shift
    copy_on_device(shift_.data(), other.shift_.data(), shift_.size() * sizeof(float), stream);
  }
  // The kernels that read the other's s come first, because it may be this object's s.
  launch(kernels::add_scatter, dim3(panels, panels, copies), dim3(kThreads), 0, stream, other.scatter_.data(),
         other.sums_.data(), other.shift_.data(), n, shift_.data(), scatter_.data());
  launch(kernels::add_sums, dim3(blocks_for(length), copies), dim3(kThreads), 0, stream, other.sums_.data(),
         other.shift_.data(), other.first_bad_.data(), static_cast<unsigned long long>(seen()), n, shift_.data(),
         length, sums_.data(), first_bad_.data());
  folded_ += other.folded_;
}

void DeviceMoments::reset() {
  const std::lock_guard lock(mutex_);
  last_.wait_on(own_.get());
  buffer_.reset();
  first_bad_.reset();
  shift_.reset();
  scatter_.reset();
  sums_.reset();
  last_.record(own_.get());
  folded_ = 0;
  pending_ = 0;
}

void DeviceMoments::covariance_locked(double divisor, double* covariance, double* mean, Stream stream) {
  const int squares = squares_of(d_);
  const int copies = kernels::copies_for(squares);
  const auto length = static_cast<std::int64_t>(row_length());
  // Pending rows are added to a copy of the sums.
  DeviceArray<double> scatter;
  DeviceArray<double> sums;
  Sums all{scatter_.data(), sums_.data()};
  if (pending_ > 0) {
    scatter = DeviceArray<double>(static_cast<std::size_t>(copies) * tiles_of(squares) * kernels::kTileSize, stream);
    sums = DeviceArray<double>(static_cast<std::size_t>(copies) * row_length(), stream);
    all = {scatter.data(), sums.data()};
    for (const auto& [to, from] : {std::pair{&scatter, &scatter_}, std::pair{&sums, &sums_}}) {
      if (folded_ == 0) {
        fill_bytes(to->data(), 0, to->size() * sizeof(double), stream);
      } else {
        copy_on_device(to->data(), from->data(), to->size() * sizeof(double), stream);
      }
    }
    for (std::int64_t first = 0; first < pending_; first += block_rows_) {
      fold(buffer_.data() + first * length, length, std::min<std::int64_t>(block_rows_, pending_ - first),
           folded_ + first, all, stream);
    }
  }
  const auto n = static_cast<double>(folded_ + pending_);
  const DeviceArray<double> total(static_cast<std::size_t>(d_), stream);
  launch(kernels::finish_mean, dim3(blocks_for(d_)), dim3(kThreads), 0, stream, all.sums, copies, squares,
         shift_.data(), d_, n, total.data(), mean);
  const auto edge = static_cast<unsigned>((d_ + 31) / 32);
  launch(kernels::finish_covariance, dim3(edge, edge), dim3(32, 8), 0, stream, all.scatter, copies, squares,
         total.data(), d_, n, divisor, covariance);
}

void DeviceMoments::covariance(std::int64_t ddof, double* covariance, double* mean, Stream stream) {
  const std::lock_guard lock(mutex_);
  const std::int64_t n = folded_ + pending_;
  FASTFID_EXPECT(ddof >= 0, InvalidArgument, "ddof: expected 0 or more, got ", ddof);
  FASTFID_EXPECT(n > ddof, InvalidArgument, "a covariance with ddof = ", ddof, " needs more than ", ddof, " rows, got ",
                 n);
  begin(stream);
  covariance_locked(static_cast<double>(n - ddof), covariance, mean, stream);
  end(stream);
}

void DeviceMoments::expect_finite_locked() {
  if (first_bad_.is_empty()) return;
  unsigned long long first_bad = 0;
  begin(own_.get());
  copy_to_host(&first_bad, first_bad_.data(), sizeof first_bad, own_.get());
  synchronize(own_.get());
  FASTFID_EXPECT(first_bad == kernels::kNoBadRow, NumericalError, "row ", first_bad,
                 " of those given to update(), counted from 0, has NaN or infinity");
}

void DeviceMoments::expect_finite() {
  const std::lock_guard lock(mutex_);
  expect_finite_locked();
}

DeviceSnapshot DeviceMoments::snapshot(Stream stream) {
  const std::lock_guard lock(mutex_);
  expect_finite_locked();
  DeviceSnapshot out;
  out.n = folded_ + pending_;
  out.row_stride = static_cast<std::int64_t>(row_length());
  begin(stream);
  if (out.n <= d_) {
    out.rows = DeviceArray<float>(static_cast<std::size_t>(out.n) * row_length(), stream);
    if (out.n > 0) copy_on_device(out.rows.data(), buffer_.data(), out.rows.size() * sizeof(float), stream);
  } else {
    const auto d = static_cast<std::size_t>(d_);
    out.mean = DeviceArray<double>(d, stream);
    out.covariance = DeviceArray<double>(d * d, stream);
    covariance_locked(static_cast<double>(out.n - 1), out.covariance.data(), out.mean.data(), stream);
  }
  end(stream);
  return out;
}

void DeviceMoments::load_rows(const Moments& moments) {
  std::int64_t n = 0;
  RowBuffer buffer = moments.rows(n);
  FASTFID_EXPECT(!buffer.is_float64(), InvalidArgument, "rows: expected float32, as a device holds them, got float64");
  const std::vector<float> rows = std::move(buffer).take_float32();
  allocate(false);
  const Stream own = own_.get();
  begin(own);
  const DeviceArray<float> there(rows.size(), own);
  copy_to_device(there.data(), rows.data(), rows.size() * sizeof(float), own);
  append({there.data(), DType::kFloat32, n, d_, 1}, 0, n, own);
  end(own);
  synchronize(own);
}

void DeviceMoments::load_sums(const Moments& moments) {
  const auto d = static_cast<std::size_t>(d_);
  const std::int64_t rows = moments.n();
  const auto n = static_cast<double>(rows);
  std::vector<double> mean(d);
  std::vector<double> full(d * d);
  moments.mean(mean.data());
  moments.covariance(rows - 1, full.data());  // divided by 1
  std::vector<float> shift(row_length());
  std::vector<double> sums(row_length());
  for (std::size_t j = 0; j < d; ++j) {
    FASTFID_EXPECT(std::abs(mean[j]) <= std::numeric_limits<float>::max(), InvalidArgument, "mean: feature ", j,
                   " has ", mean[j], ", which is beyond float32, as which a device holds rows");
    shift[j] = static_cast<float>(mean[j]);
    sums[j] = n * (mean[j] - shift[j]);
  }
  // Only the lower triangle of S is read.
  std::vector<double> scatter(tiles_of(squares_of(d_)) * kernels::kTileSize);
  for (int row = 0; row < d_; ++row) {
    for (int column = 0; column <= row; ++column) {
      const auto tile = static_cast<std::size_t>(kernels::tile_index(row / kernels::kPanel, column / kernels::kPanel));
      const auto i = static_cast<std::size_t>(row);
      const auto j = static_cast<std::size_t>(column);
      scatter[tile * kernels::kTileSize + i % kernels::kPanel * kernels::kPanel + j % kernels::kPanel] =
          full[i * d + j] + sums[i] * (mean[j] - shift[j]);
    }
  }
  allocate(true);
  const Stream own = own_.get();
  begin(own);
  copy_to_device(shift_.data(), shift.data(), shift.size() * sizeof(float), own);
  copy_to_device(sums_.data(), sums.data(), sums.size() * sizeof(double), own);  // copy 0; the others are zero
  copy_to_device(scatter_.data(), scatter.data(), scatter.size() * sizeof(double), own);
  end(own);
  synchronize(own);
  folded_ = rows;
}

std::unique_ptr<Moments> DeviceMoments::to_host() {
  const std::lock_guard lock(mutex_);
  const std::int64_t n = folded_ + pending_;
  if (n == 0) return std::make_unique<Moments>(d_);
  const Stream own = own_.get();
  const auto d = static_cast<std::size_t>(d_);
  MomentsState state;
  state.d = d_;
  state.n = n;
  state.rows = RowBuffer(d_);
  state.pending = RowBuffer(d_);
  expect_finite_locked();  // own_ is ordered after all work from here on
  if (n <= d_) {
    std::vector<float> rows(static_cast<std::size_t>(n) * row_length());
    copy_to_host(rows.data(), buffer_.data(), rows.size() * sizeof(float), own);
    synchronize(own);
    RowsView view;
    view.data = reinterpret_cast<const std::byte*>(rows.data());
    view.n = static_cast<std::size_t>(n);
    view.row_stride = static_cast<std::ptrdiff_t>(row_length() * sizeof(float));
    view.column_stride = sizeof(float);
    state.rows.append(view);
    return std::make_unique<Moments>(state);
  }
  const DeviceArray<double> scatter(d * d, own);
  const DeviceArray<double> mean(d, own);
  covariance_locked(1, scatter.data(), mean.data(), own);
  end(own);
  std::vector<double> full(d * d);
  std::vector<float> shift(d);
  state.shifted_mean.resize(d);
  copy_to_host(full.data(), scatter.data(), full.size() * sizeof(double), own);
  copy_to_host(state.shifted_mean.data(), mean.data(), d * sizeof(double), own);
  copy_to_host(shift.data(), shift_.data(), d * sizeof(float), own);
  synchronize(own);
  state.shift.assign(shift.begin(), shift.end());
  for (std::size_t j = 0; j < d; ++j) state.shifted_mean[j] -= state.shift[j];
  state.scatter.reserve(d * (d + 1) / 2);
  for (std::size_t row = 0; row < d; ++row) {
    state.scatter.insert(state.scatter.end(), full.begin() + static_cast<std::ptrdiff_t>(row * d),
                         full.begin() + static_cast<std::ptrdiff_t>(row * d + row + 1));
  }
  state.counts = {n};
  state.pending_counts = {0};
  return std::make_unique<Moments>(state);
}

}  // namespace fastfid::cuda
