#include "core/crash.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

namespace fastfid {
namespace {

constexpr std::array kSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
std::array<struct sigaction, kSignals.size()> g_previous;

thread_local std::string t_name;
// Of the initial-exec model: the first look at another thread-local variable of a shared library may allocate, which a
// signal handler must not.
thread_local const char* t_image __attribute__((tls_model("initial-exec"))) = nullptr;

void say(const char* text) { [[maybe_unused]] const auto written = write(STDERR_FILENO, text, std::strlen(text)); }

// Runs in the thread that the signal is for, on whatever state it left: only async-signal-safe calls (POSIX.1-2017,
// section 2.4.3).
void on_crash(int number, siginfo_t* info, void*) {
  const int saved = errno;
  if (t_image != nullptr) {
    say("fastfid: error: ");
    say(t_image);
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
  // An instruction that failed is run, and fails, again when this returns; a signal that was sent is sent again.
  if (info->si_code <= 0) raise(number);
  errno = saved;
}

}  // namespace

void set_current_image(std::string name) {
  t_image = nullptr;  // never half a name
  t_name = std::move(name);
  if (!t_name.empty()) t_image = t_name.c_str();
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
