// Reports the image that a thread was decoding when the decoding library crashed the process.
#pragma once

#include <string>

namespace fastfid {

// Remembers the name of the image that the calling thread is decoding; an empty name means no image. Costs a copy of
// the name.
void set_current_image(std::string name);

// After this call, a fatal signal (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) in a thread that is decoding an image
// writes one line with the name of the image to standard error. Then the former handler of the signal takes over. For
// programs, not for libraries: the call changes the whole process. A second call does nothing.
void report_crashes();

}  // namespace fastfid
