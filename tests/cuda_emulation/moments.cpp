// csrc/cuda/moments.cu, emulated, as a C library for tests/test_cuda_moments.py. Errors are returned as text.
#include <algorithm>
#include <cstring>

#include "cuda/moments.cu"

namespace {

using fastfid::cuda::DeviceMoments;
namespace kernels = fastfid::cuda::moments;

template <class F>
int guarded(char* error, F&& f) {
  try {
    f();
    return 0;
  } catch (const std::exception& e) {
    std::strncpy(error, e.what(), 255);
    error[255] = 0;
    return 1;
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void emulation_order(int order) { emulation::the_order = static_cast<emulation::Order>(order); }

// The first `launches` launches succeed, and all later launches fail. -1: no launch fails.
void emulation_fail_after(int launches) { emulation::launches_before_failure = launches; }

DeviceMoments* moments_new(int d, int is_float32, int block_rows) {
  using fastfid::cuda::Arithmetic;
  return new DeviceMoments(d, 0, is_float32 != 0 ? Arithmetic::kFloat32 : Arithmetic::kFloat64, block_rows);
}
// Makes an object from the state of `self`, with the arithmetic of `self`.
DeviceMoments* moments_reload(DeviceMoments* self, int block_rows) {
  const fastfid::Moments host(self->to_host()->state());
  return new DeviceMoments(host, 0, self->arithmetic(), block_rows);
}
void moments_delete(DeviceMoments* self) { delete self; }

// dtype: 0 float16, 1 bfloat16, 2 float32, 3 float64, as in fastfid::DType
int moments_update(DeviceMoments* self, const void* data, int dtype, long n, long row_stride, long column_stride,
                   char* error) {
  return guarded(error, [&] {
    self->update({data, static_cast<fastfid::DType>(dtype), n, row_stride, column_stride}, {0, nullptr});
  });
}
int moments_merge(DeviceMoments* self, DeviceMoments* other, char* error) {
  return guarded(error, [&] { self->merge(*other); });
}
long moments_n(DeviceMoments* self) { return self->n(); }
void moments_reset(DeviceMoments* self) { self->reset(); }
int moments_covariance(DeviceMoments* self, long ddof, double* covariance, double* mean, char* error) {
  return guarded(error, [&] { self->covariance(ddof, covariance, mean, {0, nullptr}); });
}
int moments_expect_finite(DeviceMoments* self, char* error) {
  return guarded(error, [&] { self->expect_finite(); });
}
// Covariance and mean of to_host(); rows, (n, d), only if n <= d.
int moments_to_host(DeviceMoments* self, double* covariance, double* mean, float* rows, char* error) {
  return guarded(error, [&] {
    const auto host = self->to_host();
    std::int64_t n = 0;
    const auto kept = host->rows(n).take_float32();
    std::copy(kept.begin(), kept.end(), rows);
    host->mean(mean);
    host->covariance(1, covariance);
  });
}

// The schedule: for each block 4 tiles as (row, column) pairs, with -1 for a missing tile; then the panels whose
// columns the block sums.
int work_count(int squares) { return kernels::work_count(squares); }
void work_tiles(int index, int squares, int* tiles, int* panels) {
  const kernels::Work work = kernels::work_of(index, squares);
  for (int tile = 0; tile < 4; ++tile) {
    tiles[2 * tile] = work.has_tile(tile) ? work.panel(work.left(tile)) : -1;
    tiles[2 * tile + 1] = work.has_tile(tile) ? work.panel(work.right(tile)) : -1;
    panels[tile] = work.sums_columns(tile) ? work.panel(tile) : -1;
  }
}
int copies_for(int squares) { return kernels::copies_for(squares); }
}
#pragma GCC visibility pop
