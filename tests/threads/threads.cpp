// What several threads may do at once with the core, for ThreadSanitizer: tools/sanitize_threads.sh builds and runs it.
// Each part also compares its result with that of one thread.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/moments.hpp"
#include "core/parallel.hpp"

using namespace fastfid;

namespace {

constexpr int kThreads = 6;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "threads: %s\n", what);
  std::exit(1);
}

void in_threads(const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(body, i);
  for (auto& thread : threads) thread.join();
}

RowsView view_of(const std::vector<float>& values, std::size_t n, std::size_t d) {
  return {reinterpret_cast<const std::byte*>(values.data()), DType::kFloat32, n,
          static_cast<std::ptrdiff_t>(d * sizeof(float)), sizeof(float)};
}

std::vector<float> rows_of(int seed, std::size_t n, std::size_t d) {
  std::vector<float> values(n * d);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7 + seed * 13) % 101) / 8;
  return values;
}

// Parallel regions from several threads at once, nested ones, and one that throws.
void pool() {
  std::atomic<int> total{0};
  in_threads([&](int) {
    for (int round = 0; round < 20; ++round) {
      std::vector<int> seen(97, 0);
      parallel_for(seen.size(), [&](std::size_t i) {
        parallel_for(3, [&](std::size_t) { total.fetch_add(1, std::memory_order_relaxed); });
        seen[i] += 1;
      });
      for (const int one : seen) expect(one == 1, "a task ran twice or never");
    }
  });
  expect(total == kThreads * 20 * 97 * 3, "a nested task ran twice or never");
  in_threads([&](int) {
    bool thrown = false;
    try {
      parallel_for(50, [](std::size_t i) {
        if (i == 20) throw std::runtime_error("20");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    expect(thrown, "an exception was lost");
  });
}

// The size of the pool changes while it works.
void pool_changes_its_size() {
  in_threads([&](int thread) {
    for (int round = 0; round < 20; ++round) {
      set_num_threads(1 + (thread + round) % 5);
      std::atomic<int> count{0};
      parallel_for(64, [&](std::size_t) { count.fetch_add(1); });
      expect(count == 64, "a task ran twice or never while the number of threads changed");
    }
  });
  set_num_threads(4);
}

// One accumulator that all threads add to, while others read it, merge it and copy it.
void shared_moments() {
  constexpr int d = 24;
  constexpr std::size_t n = 500;
  Moments shared(d);
  in_threads([&](int thread) {
    const auto rows = rows_of(thread, n, d);
    for (std::size_t first = 0; first < n; first += 50) {
      shared.update(view_of(std::vector<float>(rows.begin() + first * d, rows.begin() + (first + 50) * d), 50, d));
      std::vector<double> covariance(d * d);
      shared.covariance(0, covariance.data());
      const Moments copy(shared);
      expect(copy.n() % 50 == 0, "a copy was made in the middle of an update");
      Moments other(d);
      other.merge(shared);
      expect(other.n() % 50 == 0, "a merge took half an update");
    }
  });
  expect(shared.n() == static_cast<std::int64_t>(n) * kThreads, "rows were lost");
  Moments alone(d);
  for (int thread = 0; thread < kThreads; ++thread) alone.update(view_of(rows_of(thread, n, d), n, d));
  std::vector<double> mean(d), expected(d);
  shared.mean(mean.data());
  alone.mean(expected.data());
  for (int i = 0; i < d; ++i) expect(std::abs(mean[i] - expected[i]) < 1e-12, "another mean");
}

// Two accumulators that are merged into each other: no deadlock.
void merged_crosswise() {
  constexpr int d = 8;
  Moments a(d), b(d);
  const auto rows = rows_of(1, 10, d);
  in_threads([&](int thread) {
    for (int round = 0; round < 300; ++round) {
      Moments& into = thread % 2 ? a : b;
      into.update(view_of(rows, 10, d));
      if (a.n() + b.n() < 100'000) into.merge(thread % 2 ? b : a);
      if (round % 50 == 49) into.reset();
    }
  });
}

}  // namespace

int main() {
  set_num_threads(4);
  pool();
  pool_changes_its_size();
  shared_moments();
  merged_crosswise();
  std::puts("threads: passed");
}
