#include "core/spatial_mean.hpp"

#include <algorithm>
#include <array>

#include "core/checked.hpp"
#include "core/errors.hpp"
#include "core/parallel.hpp"

namespace fastfid {
namespace {

// Eight sums side by side, so that the compiler can use vectors without a change of order.
double sum(const float* values, std::size_t count) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(values[i + lane]);
  }
  for (; i < count; ++i) lanes[i % kLanes] += static_cast<double>(values[i]);
  double total = 0;
  for (const double lane : lanes) total += lane;
  return total;
}

}  // namespace

void spatial_mean(const float* map, std::size_t planes, std::size_t area, float* out) {
  FASTFID_EXPECT(area >= 1, InvalidArgument, "map: expected h and w of at least 1");
  checked_mul(checked_mul(planes, area, "map: its number of bytes"), sizeof(float), "map: its number of bytes");
  // A task of 64 Ki values takes some 20 us, which is long against the cost of starting a task and short against a
  // batch.
  constexpr std::size_t kTaskValues = 1 << 16;
  const std::size_t planes_per_task = std::max<std::size_t>(1, kTaskValues / area);
  const std::size_t tasks = (planes + planes_per_task - 1) / planes_per_task;
  parallel_for(tasks, [=](std::size_t task) {
    const std::size_t end = std::min(planes, (task + 1) * planes_per_task);
    for (std::size_t i = task * planes_per_task; i < end; ++i) {
      out[i] = static_cast<float>(sum(map + i * area, area) / static_cast<double>(area));
    }
  });
}

}  // namespace fastfid
