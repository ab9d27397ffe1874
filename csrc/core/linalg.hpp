// Thin header over BLAS and LAPACK: the few calls we use, always single-threaded, tiled over our own pool.
#pragma once

#include <string>

namespace fastfid::linalg {

// OpenBLAS's description of itself: version, options and the kernel it chose for this processor.
std::string blas_description();

}  // namespace fastfid::linalg
