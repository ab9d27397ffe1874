#include "host/crash.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

namespace fastfid {
namespace {

constexpr std::array kSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
std::array<struct sigaction, kSignals.size()> g_previous;

// The image that each thread is decoding. This is not a thread-local variable: the first access to one may allocate,
// which a signal handler must not do. The TLS model that never allocates (initial-exec) leaves no room for the CUDA
// runtime's own 8 KiB, so that the extension could not be imported. A thread that finds no free slot is not reported.
struct Slot {
  std::atomic<bool> is_taken = false;
  std::atomic<pthread_t> thread;
  std::atomic<const char*> image = nullptr;
};
static_assert(std::atomic<pthread_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);
std::array<Slot, 256> g_slots;

// The slot of this thread, from its first image to the end of the thread, and the name that the slot points to.
class Reporter {
 public:
  Reporter() {
    for (Slot& slot : g_slots) {
      if (slot.is_taken.exchange(true)) continue;
      slot.thread = pthread_self();
      slot_ = &slot;
      break;
    }
  }
  ~Reporter() {
    if (slot_ == nullptr) return;
    slot_->image = nullptr;
    slot_->is_taken = false;
  }
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  void set(std::string name) {
    if (slot_ == nullptr) return;
    slot_->image = nullptr;  // the handler never sees half a name
    name_ = std::move(name);
    if (!name_.empty()) slot_->image = name_.c_str();
  }

 private:
  Slot* slot_ = nullptr;
  std::string name_;
};

// The image of the calling thread; null where the thread is decoding no image.
const char* current_image() {
  const pthread_t self = pthread_self();
  for (const Slot& slot : g_slots) {
    const char* const image = slot.image;
    if (image != nullptr && pthread_equal(slot.thread, self) != 0) return image;
  }
  return nullptr;
}

void say(const char* text) { [[maybe_unused]] const auto written = write(STDERR_FILENO, text, std::strlen(text)); }

// Writes the name, with control characters, including those of UTF-8, as \xNN. A name in an archive must neither
// control the terminal nor begin a new line. All other characters are written unchanged.
void say_name(const char* name) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::array<char, 512> out;
  std::size_t n = 0;
  const auto flush = [&] {
    out[n] = '\0';
    say(out.data());
    n = 0;
  };
  for (; *name != '\0'; ++name) {
    if (n + 5 > out.size()) flush();
    auto byte = static_cast<unsigned char>(*name);
    const auto next = static_cast<unsigned char>(name[1]);
    const bool is_c1 = byte == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F
    if (is_c1) {
      ++name;
      byte = next;
    }
    if (is_c1 || byte < 0x20 || byte == 0x7f) {
      out[n++] = '\\';
      out[n++] = 'x';
      out[n++] = kDigits[byte >> 4];
      out[n++] = kDigits[byte & 15];
    } else {
      out[n++] = static_cast<char>(byte);
    }
  }
  flush();
}

// Runs in the thread that received the signal, in any state of the process. Calls only async-signal-safe functions
// (POSIX.1-2017, section 2.4.3).
void on_crash(int number, siginfo_t* info, void*) {
  const int saved = errno;
  if (const char* const image = current_image(); image != nullptr) {
    say("fastfid: error: ");
    say_name(image);
    say(": the process crashed while this image was decoded (");
    say(number == SIGSEGV  ? "SIGSEGV"
        : number == SIGBUS ? "SIGBUS"
        : number == SIGFPE ? "SIGFPE"
        : number == SIGILL ? "SIGILL"
                           : "SIGABRT");
    say(")\n");
  }
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    if (kSignals[i] == number) sigaction(number, &g_previous[i], nullptr);
  }
  // When this handler returns, an instruction that failed is executed again and fails again. A signal that was sent
  // must be sent again.
  if (info->si_code <= 0) raise(number);
  errno = saved;
}

}  // namespace

void set_current_image(std::string name) {
  thread_local Reporter reporter;
  reporter.set(std::move(name));
}

void report_crashes() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &g_previous[i]);
  });
}

}  // namespace fastfid
