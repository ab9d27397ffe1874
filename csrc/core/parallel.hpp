// The thread pool of the core and the policy for its size. BLAS is always called single-threaded; this pool provides
// the parallelism.
//
// OpenBLAS's own threads are not used for two reasons. With another process running, OpenBLAS's workers spin, and a
// 2048-d eigenvalue problem takes 15 s instead of 0.5 s. And the bits of OpenBLAS's results change with the number of
// threads. The tiles of this project are fixed, so the bits do not change.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace fastfid {

// The number of threads of a parallel region, always >= 1, and the name of the setting that determines it. The first of
// these settings that is present counts:
//   set_num_threads;
//   FASTFID_NUM_THREADS (throws InvalidArgument if it is not an integer from 1 to 4096);
//   OMP_NUM_THREADS, except for a 1 together with LOCAL_WORLD_SIZE > 1, which is torchrun's default and not a choice;
//   min(CPU affinity, cgroup quota), divided by LOCAL_WORLD_SIZE, the processes that a launcher started on this
//   machine.
struct ThreadsChoice {
  int number;
  std::string source;
};
ThreadsChoice threads_choice();
int num_threads();

// The number of CPUs that the control groups of a process allow: the smallest quota from the process's own group up to
// the root, or 0 where there is no quota. `membership` is the /proc/PID/cgroup of the process, `mount` the root of the
// mounted hierarchies (v2, or v1 with the hierarchy of the CPU controller in mount/cpu).
int cgroup_quota(const std::string& membership = "/proc/self/cgroup", const std::string& mount = "/sys/fs/cgroup");

// Sets the number of threads for later calls in the whole process; 0 restores the default. Throws InvalidArgument if n
// < 0.
void set_num_threads(int n);

// Runs body(i) once for every i in [0, count). Tasks are handed out in ascending order. The calling thread works too,
// and the call returns when all tasks are done. After an exception the remaining tasks are skipped, and the first
// exception is rethrown in the calling thread. May be called from several threads at once, and from inside a body; the
// inner call then runs all its tasks in its own thread. Where the system gives no more threads, or no memory for
// threads, fewer threads are used. Throws only what a body throws.
void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body);

// While a SerialScope with `is_serial` exists, parallel_for runs all bodies in the calling thread. For work whose
// parallel regions are shorter than the time to wake another thread.
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
