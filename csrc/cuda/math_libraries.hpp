// The cuBLAS and cuSOLVER calls of the polar route, on row-major matrices in device memory.
//
// The libraries are found at run time (dlopen); the build needs neither the libraries nor their headers. The libraries
// are libcublas.so.13 and libcusolver.so.12. The search takes copies that the process has loaded already, then copies
// in the folders of set_math_library_folders() (the `nvidia-*` wheels that torch and onnxruntime-gpu use, or a
// toolkit), then copies on the loader's own path. Declarations follow cublas_api.h 13.0 and cusolverDn.h 12.0.
//
// Both libraries are column-major: they see the transpose of a row-major matrix, and its upper triangle as a lower one.
// Only this class handles the difference. Every call is enqueued on the stream and does not wait.
//
// The bounds of the trace rely on this assumption: every float64 product (gemm, syrk, trmm) multiplies float64 numbers
// and sums in float64 in any order, so that the componentwise error bound n u |A| |B| holds. cuBLAS's default
// mathematics mode fulfils the assumption and is set explicitly, as long as the environment does not ask for emulated
// float64 (cuBLAS 13.0 Update 2 and newer, CUBLAS_EMULATE_DOUBLE_PRECISION): no mode is documented to overrule this
// variable, so the constructor throws where the variable is set. Nothing is assumed about solves, factorisations and
// float32 products. Atomics are switched off: on one kind of device every call gives the same bits.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cuda/runtime.hpp"

namespace fastfid::cuda {

// The folders that are searched first, in this order. Has an effect only until the libraries are loaded, once per
// process.
void set_math_library_folders(std::vector<std::string> folders);

// The paths of the two loaded libraries, for diagnostics. Throws as MathLibraries does.
std::vector<std::string> math_library_paths();

// A cuBLAS and a cuSOLVER handle of one device, borrowed from a pool until destruction (creating handles takes
// milliseconds), working on one stream. As long as the object exists, the device of the stream is the current device of
// the thread: the libraries launch on the current device, not on the device of the handle. The object must be used and
// destroyed in the thread that made it.
class MathLibraries {
 public:
  // Throws BackendUnavailable, saying what to install, where a library is not found or lacks a function. Throws
  // BackendUnavailable also where the environment asks for emulated float64, and DeviceError where a handle cannot be
  // made.
  explicit MathLibraries(Stream stream);
  ~MathLibraries();
  MathLibraries(const MathLibraries&) = delete;
  MathLibraries& operator=(const MathLibraries&) = delete;

  // The upper triangle of C = A^T A, n x n from (m x n). cublasDsyrk or cublasSsyrk: n^2 m flops.
  void gram_upper(const double* a, std::size_t m, std::size_t n, double* c);
  void gram_upper(const float* a, std::size_t m, std::size_t n, float* c);

  // C = A B, (m x n) from (m x k), (k x n).
  void multiply(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k, double* c);
  void multiply(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k, float* c);

  // C = A^T B, (m x n) from (k x m), (k x n).
  void multiply_tn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k, double* c);

  // C = A B^T, (m x n) from (m x k), (n x k).
  void multiply_nt(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k, double* c);

  // C = A R^T, (m x n) from (m x n) and upper-triangular R (n x n), whose lower triangle is not read: half the cost of
  // a full product.
  void multiply_by_upper_transposed(const double* a, const double* r, std::size_t m, std::size_t n, double* c);

  // C = A R for the same shapes; the lower triangle of R is not read.
  void multiply_by_upper(const double* a, const double* r, std::size_t m, std::size_t n, double* c);

  // B := B R^-1, B (m x n), upper-triangular R (n x n).
  void solve_right(const double* r, double* b, std::size_t m, std::size_t n);

  // Elements of workspace that cholesky() needs.
  std::size_t cholesky_workspace(double* a, std::size_t n);

  // A = R^T R in the upper triangle of A (n x n); the lower triangle is neither read nor written. Sets *failed (device
  // memory) to 0 if the factorisation succeeded.
  void cholesky(double* a, std::size_t n, double* workspace, std::size_t workspace_size, int* failed);

 private:
  struct Handles;
  const DeviceGuard guard_;
  std::unique_ptr<Handles> handles_;
  Stream stream_;
};

}  // namespace fastfid::cuda
