// The functions of cuBLAS and cuSOLVER that csrc/cuda/math_libraries.cpp looks up, on host memory, by OpenBLAS.
// Row-major code can use two column-major libraries wrongly (transposes, triangles, leading dimensions, the order of
// the arguments). These functions make the calls comparable with the CPU without a GPU.
//
// Prototypes follow cublas_api.h 13.0 and cusolverDn.h 12.0. One file is built under both names.
#include <cstddef>
#include <cstring>

extern "C" {
void scipy_cblas_dgemm(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*,
                       int);
void scipy_cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void scipy_cblas_dsyrk(int, int, int, int, int, double, const double*, int, double, double*, int);
void scipy_cblas_ssyrk(int, int, int, int, int, float, const float*, int, float, float*, int);
void scipy_cblas_dtrsm(int, int, int, int, int, int, int, double, const double*, int, double*, int);
void scipy_cblas_dtrmm(int, int, int, int, int, int, int, double, const double*, int, double*, int);
void scipy_dpotrf_(const char*, const int*, double*, const int*, int*, std::size_t);
}

namespace {

constexpr int kInvalidValue = 7;
constexpr int kColMajor = 102;
int handles = 0;
double solve_error = 0;             // relative error that is added to every element of a triangular solve
int failing_factorisations = 0;     // the number of next Cholesky factorisations that report failure
int (*current_device)() = nullptr;  // called in every function
int device_of_handles = -1;         // the current device when the last handle was made

// True where NVIDIA's libraries would launch on another device than the device of the handle.
bool is_elsewhere() { return current_device == nullptr || current_device() != device_of_handles; }

int trans(int op) { return op == 0 ? 111 : 112; }
int uplo(int fill) { return fill == 0 ? 122 : 121; }
int side(int s) { return s == 0 ? 141 : 142; }
int diag(int d) { return d == 0 ? 131 : 132; }

bool is_enum(int value) { return value == 0 || value == 1; }

template <class T, class F>
int gemm(F f, int ta, int tb, int m, int n, int k, const T* alpha, const T* a, int lda, const T* b, int ldb,
         const T* beta, T* c, int ldc) {
  if (is_elsewhere() || !is_enum(ta) || !is_enum(tb) || m < 0 || n < 0 || k < 0) return kInvalidValue;
  if (lda < (ta == 0 ? m : k) || ldb < (tb == 0 ? k : n) || ldc < m) return kInvalidValue;
  f(kColMajor, trans(ta), trans(tb), m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
  return 0;
}

template <class T, class F>
int syrk(F f, int fill, int op, int n, int k, const T* alpha, const T* a, int lda, const T* beta, T* c, int ldc) {
  if (is_elsewhere() || !is_enum(fill) || !is_enum(op) || lda < (op == 0 ? n : k) || ldc < n) return kInvalidValue;
  f(kColMajor, uplo(fill), trans(op), n, k, *alpha, a, lda, *beta, c, ldc);
  return 0;
}

}  // namespace

extern "C" {

// For tests: makes solves inexact and factorisations fail.
void spoil(double relative_error_of_solves, int factorisations_that_fail) {
  solve_error = relative_error_of_solves;
  failing_factorisations = factorisations_that_fail;
}

// For tests: sets the function that returns the current device of the thread.
void ask_for_device(int (*function)()) { current_device = function; }

int cublasCreate_v2(void** handle) {
  if (current_device == nullptr || current_device() < 0) return kInvalidValue;
  device_of_handles = current_device();
  *handle = &handles;
  ++handles;
  return 0;
}
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void* handle, void*) { return handle == &handles ? 0 : kInvalidValue; }
int cublasSetMathMode(void*, int mode) { return mode == 0 ? 0 : kInvalidValue; }
int cublasSetAtomicsMode(void*, int mode) { return mode == 0 ? 0 : kInvalidValue; }

int cublasDgemm_v2(void*, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda,
                   const double* b, int ldb, const double* beta, double* c, int ldc) {
  return gemm(scipy_cblas_dgemm, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasSgemm_v2(void*, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int lda,
                   const float* b, int ldb, const float* beta, float* c, int ldc) {
  return gemm(scipy_cblas_sgemm, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
int cublasDsyrk_v2(void*, int fill, int op, int n, int k, const double* alpha, const double* a, int lda,
                   const double* beta, double* c, int ldc) {
  return syrk(scipy_cblas_dsyrk, fill, op, n, k, alpha, a, lda, beta, c, ldc);
}
int cublasSsyrk_v2(void*, int fill, int op, int n, int k, const float* alpha, const float* a, int lda,
                   const float* beta, float* c, int ldc) {
  return syrk(scipy_cblas_ssyrk, fill, op, n, k, alpha, a, lda, beta, c, ldc);
}
int cublasDtrsm_v2(void*, int s, int fill, int op, int unit, int m, int n, const double* alpha, const double* a,
                   int lda, double* b, int ldb) {
  if (is_elsewhere() || !is_enum(s) || !is_enum(fill) || !is_enum(op) || lda < (s == 0 ? m : n) || ldb < m)
    return kInvalidValue;
  scipy_cblas_dtrsm(kColMajor, side(s), uplo(fill), trans(op), diag(unit), m, n, *alpha, a, lda, b, ldb);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < m; ++i) b[i + static_cast<std::size_t>(j) * ldb] *= 1 - solve_error;
  }
  return 0;
}
int cublasDtrmm_v2(void*, int s, int fill, int op, int unit, int m, int n, const double* alpha, const double* a,
                   int lda, const double* b, int ldb, double* c, int ldc) {
  if (is_elsewhere() || !is_enum(s) || !is_enum(fill) || !is_enum(op) || lda < (s == 0 ? m : n) || ldb < m || ldc < m) {
    return kInvalidValue;
  }
  for (int j = 0; j < n; ++j) {
    std::memcpy(c + static_cast<std::size_t>(j) * ldc, b + static_cast<std::size_t>(j) * ldb, sizeof(double) * m);
  }
  scipy_cblas_dtrmm(kColMajor, side(s), uplo(fill), trans(op), diag(unit), m, n, *alpha, a, lda, c, ldc);
  return 0;
}

int cusolverDnCreate(void** handle) { return cublasCreate_v2(handle); }
int cusolverDnDestroy(void*) { return 0; }
int cusolverDnSetStream(void* handle, void* stream) { return cublasSetStream_v2(handle, stream); }
int cusolverDnDpotrf_bufferSize(void*, int fill, int n, double*, int lda, int* size) {
  if (is_elsewhere() || !is_enum(fill) || lda < n) return kInvalidValue;
  *size = n;
  return 0;
}
int cusolverDnDpotrf(void*, int fill, int n, double* a, int lda, double* workspace, int size, int* info) {
  if (is_elsewhere() || !is_enum(fill) || lda < n || size < n) return kInvalidValue;
  std::memset(workspace, 0xff, sizeof(double) * size);
  const char triangle = fill == 0 ? 'L' : 'U';
  scipy_dpotrf_(&triangle, &n, a, &lda, info, 1);
  if (failing_factorisations > 0) {
    --failing_factorisations;
    *info = 1;
  }
  return 0;
}
}
