// The thread pool of the core and its size policy. BLAS is always called single-threaded; parallelism is ours.
//
// Why not OpenBLAS's threads: with another process running, its workers spin, and a 2048-d eigenvalue problem takes
// 15 s, not 0.5 s; and its bits change with the thread count. Our tiles are fixed, so the bits never do.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace fastfid {

// Threads that a parallel region uses, and what says so. Always >= 1. The first of these that there is:
//   set_num_threads;
//   FASTFID_NUM_THREADS (throws InvalidArgument if it is no integer from 1 to 4096);
//   OMP_NUM_THREADS, but for a 1 beside LOCAL_WORLD_SIZE > 1, which is torchrun's default and not a wish;
//   min(CPU affinity, cgroup quota), divided by LOCAL_WORLD_SIZE, the processes that a launcher has started here.
struct ThreadsChoice {
  int number;
  std::string source;
};
ThreadsChoice threads_choice();
int num_threads();

// CPUs that the control groups of a process allow it: the smallest quota from its own group up to the root, or 0 where
// there is none. `membership` is its /proc/PID/cgroup, `mount` the root of the mounted hierarchies (v2, or v1 with the
// hierarchy of the CPU controller in mount/cpu).
int cgroup_quota(const std::string& membership = "/proc/self/cgroup", const std::string& mount = "/sys/fs/cgroup");

// Sets the number of threads for later calls of the whole process; 0 restores the default. Throws InvalidArgument if n
// < 0.
void set_num_threads(int n);

// Runs body(i) once for every i in [0, count). Tasks are handed out in ascending order, the caller works too, and the
// call returns when all are done. The first exception is rethrown in the caller, after the rest were skipped. May be
// called from several threads at once and from inside a body (which then runs its part itself). Where the system gives
// no more threads or no memory for them it uses fewer: it throws what a body throws and nothing else.
void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body);

// While it lives, parallel_for runs its bodies in this thread, where `is_serial`: for work whose regions are so short
// that waking another thread takes longer.
class SerialScope {
 public:
  explicit SerialScope(bool is_serial);
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool before_;
};

}  // namespace fastfid
