// The error check of every CUDA call.
#pragma once

#include <cuda_runtime_api.h>

#include "core/errors.hpp"

namespace fastfid::cuda {

// Throws DeviceError: "cudaMemcpyAsync failed: cudaErrorInvalidValue (invalid argument)".
void check(cudaError_t code, const char* call);

}  // namespace fastfid::cuda

// FASTFID_CUDA_CHECK(cudaMemcpyAsync(...)): throws DeviceError unless the call succeeds.
#define FASTFID_CUDA_CHECK(call) ::fastfid::cuda::check((call), #call)
