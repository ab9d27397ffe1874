#include "core/parallel.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/errors.hpp"

namespace fastfid {
namespace {

constexpr long kMaxThreads = 4096;

// The number of threads with which the value of an environment variable begins. The number must be followed by the end,
// or by the comma of a list of numbers for nested regions. Returns 0 where the variable is not set or has another
// value.
int threads_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  return (*end == '\0' || *end == ',') && n >= 1 && n <= kMaxThreads ? static_cast<int>(n) : 0;
}

int cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                      : static_cast<int>(std::thread::hardware_concurrency());
  if (const int quota = cgroup_quota(); quota > 0) n = std::min(n, quota);
  return std::max(1, n);
}

ThreadsChoice choose_default() {
  if (const char* text = std::getenv("FASTFID_NUM_THREADS"); text != nullptr && *text != '\0') {
    const int n = threads_in("FASTFID_NUM_THREADS");
    FASTFID_EXPECT(n > 0 && std::string(text).find(',') == std::string::npos, InvalidArgument,
                   "FASTFID_NUM_THREADS: expected an integer from 1 to ", kMaxThreads, ", got '", text, "'");
    return {n, "FASTFID_NUM_THREADS"};
  }
  const int processes = std::max(1, threads_in("LOCAL_WORLD_SIZE"));
  // torchrun sets 1 for each of its processes on every machine. This 1 is not a choice of the user.
  if (const int n = threads_in("OMP_NUM_THREADS"); n > 1 || (n == 1 && processes == 1)) return {n, "OMP_NUM_THREADS"};
  return {std::max(1, cpus() / processes), processes > 1 ? "the CPUs / LOCAL_WORLD_SIZE" : "the CPUs"};
}

// The default is read once, so it does not change during the life of a process.
const ThreadsChoice& default_choice() {
  static const ThreadsChoice choice = choose_default();
  return choice;
}

std::atomic<int> g_num_threads{0};  // 0: not set; the default is used

// One parallel_for call. Every free thread takes tasks from `next`.
struct Region {
  Region(std::size_t n, const std::function<void(std::size_t)>& f) : count(n), body(&f) {}

  std::size_t count;
  const std::function<void(std::size_t)>* body;
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> running{0};  // helpers that work in the region; changes under the mutex
  std::mutex mutex;
  std::condition_variable done;
  std::exception_ptr error;

  void work() {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        (*body)(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next = count;
      }
    }
  }
};

// Polls for a moment before a thread goes to sleep. Regions of one computation follow each other within microseconds,
// and waking a thread takes 20 to 50 microseconds, or milliseconds where the thread is queued behind a busy process.
// The polling is short, because a thread that spins takes a core from the busy process.
template <class Condition>
void poll(const Condition& is_met) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  while (!is_met() && std::chrono::steady_clock::now() < end) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

// Helpers sleep on a condition variable when idle. They never stop, as a pool that has some is never destroyed.
class Pool {
 public:
  void run(Region& region, int helpers) {
    const std::shared_ptr<Ticket> shared = invite(region, helpers);
    region.work();
    if (!shared) return;
    {
      // From here on no thread may enter the region: tickets that are still in the queue are void.
      const std::lock_guard lock(shared->mutex);
      shared->region = nullptr;
    }
    poll([&] { return region.running == 0; });
    std::unique_lock lock(region.mutex);
    region.done.wait(lock, [&] { return region.running == 0; });
  }

 private:
  struct Ticket {
    Region* region;
    std::mutex mutex{};
    explicit Ticket(Region* r) : region(r) {}
    Ticket(Ticket&& other) noexcept : region(other.region) {}
  };

  // Invites up to `helpers` workers, and starts the workers that are missing. Where threads or memory run out, fewer
  // workers are invited, or none: the calling thread does the work in any case.
  std::shared_ptr<Ticket> invite(Region& region, int helpers) {
    std::shared_ptr<Ticket> ticket;
    try {
      ticket = std::make_shared<Ticket>(Ticket{&region});
      const std::lock_guard lock(mutex_);
      try {
        while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { loop(); });
      } catch (const std::system_error&) {
        helpers = static_cast<int>(workers_.size());
      }
      for (int i = 0; i < helpers; ++i) {
        queue_.push_back(ticket);
        ++queued_;
      }
    } catch (const std::bad_alloc&) {  // no ticket, or fewer tickets in the queue
    }
    wake_.notify_all();
    return ticket;
  }

  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (queue_.empty()) {
        lock.unlock();
        poll([&] { return queued_ > 0; });
        lock.lock();
      }
      wake_.wait(lock, [&] { return !queue_.empty(); });
      const auto ticket = queue_.front();
      queue_.pop_front();
      --queued_;
      lock.unlock();
      Region* region = nullptr;
      {
        const std::lock_guard ticket_lock(ticket->mutex);
        region = ticket->region;
        if (region != nullptr) {
          const std::lock_guard region_lock(region->mutex);
          ++region->running;
        }
      }
      if (region != nullptr) {
        region->work();
        const std::lock_guard region_lock(region->mutex);
        --region->running;
        region->done.notify_all();
      }
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Ticket>> queue_;
  std::atomic<std::size_t> queued_{0};  // queue_.size(), readable without the lock
  std::vector<std::thread> workers_;
};

std::atomic<Pool*> g_pool{nullptr};

// The pool lives as long as the process: joining threads in a static destructor can deadlock when the interpreter has
// already torn them down. After fork() the child has none of the parent's threads, so the child forgets the parent's
// pool and starts its own pool when it needs one. The fork handler must not fail, so it allocates nothing.
// Returns null if there is no memory even for an empty pool.
Pool* pool() {
  static std::once_flag once;
  static bool survives_fork = false;
  std::call_once(once, [] { survives_fork = pthread_atfork(nullptr, nullptr, [] { g_pool = nullptr; }) == 0; });
  Pool* found = g_pool;
  if (found != nullptr || !survives_fork) return found;
  try {
    auto fresh = std::make_unique<Pool>();
    if (g_pool.compare_exchange_strong(found, fresh.get())) found = fresh.release();  // else another thread was first
  } catch (const std::bad_alloc&) {
  }
  return found;
}

thread_local bool t_inside = false;

}  // namespace

int cgroup_quota(const std::string& membership, const std::string& mount) {
  double least = 0;                                                  // CPUs
  const auto limit = [&](const std::string& quota, double period) {  // "max" (v2) and -1 (v1): no limit
    const double cpus = period > 0 ? std::atof(quota.c_str()) / period : 0;
    if (cpus > 0 && (least == 0 || cpus < least)) least = cpus;
  };
  std::ifstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // "hierarchy:controllers:/path"; v2 has no controllers
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(":/", first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_v2 = controllers == ",,";
    if (!is_v2 && controllers.find(",cpu,") == std::string::npos) continue;
    // In a container the path may be a path of the host that does not exist here. The loop still ends at the
    // container's own group.
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      std::string quota;
      double period = 0;
      if (is_v2) {
        std::ifstream(mount + path + "/cpu.max") >> quota >> period;
      } else {
        std::ifstream(mount + "/cpu" + path + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(mount + "/cpu" + path + "/cpu.cfs_period_us") >> period;
      }
      limit(quota, period);
      if (path.empty()) break;
    }
  }
  return least == 0 ? 0 : std::max(1, static_cast<int>(std::min(least, 4096.0) + 0.5));
}

int num_threads() {
  const int asked = g_num_threads.load();
  return asked > 0 ? asked : default_choice().number;
}

ThreadsChoice threads_choice() {
  const int asked = g_num_threads.load();
  return asked > 0 ? ThreadsChoice{asked, "--threads or set_num_threads"} : default_choice();
}

void set_num_threads(int n) {
  FASTFID_EXPECT(n >= 0 && n <= kMaxThreads, InvalidArgument, "threads: expected 0 (the default) to ", kMaxThreads,
                 ", got ", n);
  g_num_threads = n;
}

SerialScope::SerialScope(bool is_serial) : before_(t_inside) { t_inside |= is_serial; }
SerialScope::~SerialScope() { t_inside = before_; }

void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body) {
  const auto threads = static_cast<std::size_t>(num_threads());
  if (count <= 1 || threads == 1 || t_inside) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  // Nested regions run in the thread that opened them, because the outer region already uses all threads.
  const std::function<void(std::size_t)> guarded = [&](std::size_t i) {
    const bool outer = t_inside;
    t_inside = true;
    try {
      body(i);
    } catch (...) {
      t_inside = outer;
      throw;
    }
    t_inside = outer;
  };
  Region region(count, guarded);
  if (Pool* const helpers = pool()) {
    helpers->run(region, static_cast<int>(std::min(threads, count)) - 1);
  } else {
    region.work();
  }
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace fastfid
