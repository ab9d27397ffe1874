// Says which image a thread was at when a library that decodes it brings the process down.
#pragma once

#include <string>

namespace fastfid {

// Remembers the name of the image that the calling thread is at; empty: at none. Costs a copy of the name.
void set_current_image(std::string name);

// From now on a fatal signal (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) in a thread that is at an image writes one line
// with its name to standard error; then whatever handled the signal before takes over. For programs, not for libraries:
// it changes the whole process. A second call does nothing.
void report_crashes();

}  // namespace fastfid
