#include "cuda/math_libraries.hpp"

#include <dlfcn.h>

#include <climits>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "core/errors.hpp"

namespace fastfid::cuda {
namespace {

// Enumerations of cublas_api.h; CUstream_st* is cudaStream_t.
enum Fill { kFillLower = 0 };
enum Side { kSideLeft = 0 };
enum Operation { kNone = 0, kTransposed = 1 };
enum Diagonal { kNonUnit = 0 };
constexpr int kDefaultMath = 0;
constexpr int kAtomicsNotAllowed = 0;
using Handle = void*;

template <class T>
using Gemm = int(Handle, Operation, Operation, int, int, int, const T*, const T*, int, const T*, int, const T*, T*,
                 int);
template <class T>
using Syrk = int(Handle, Fill, Operation, int, int, const T*, const T*, int, const T*, T*, int);

class Library {
 public:
  Library(const char* name, const char* package, const std::vector<std::string>& folders) {
#ifndef FASTFID_CUDA_EMULATION  // the emulation needs the folder's stand-in, even where torch has loaded the library
    // A library that the process has loaded already, for example torch's, comes before a second copy.
    path_ = name;
    handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (handle_ != nullptr) return;
#endif
    for (const std::string& folder : folders) {
      path_ = folder + "/" + name;
      handle_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_ != nullptr) return;
      reason_ = dlerror();
      // A file that exists but cannot be loaded explains more than its absence elsewhere.
      if (reason_.find("cannot open shared object file") == std::string::npos || reason_.find(path_) != 0) break;
    }
    path_ = name;
    handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) return;
    if (reason_.empty()) reason_ = dlerror();
    throw BackendUnavailable(message("the trace of the matrix square root on a GPU needs ", name,
                                     ", which could not be ", "loaded (", reason_, "): pip install ", package));
  }

  const std::string& path() const { return path_; }

  template <class Function>
  void find(const char* symbol, Function*& out) const {
    out = reinterpret_cast<Function*>(dlsym(handle_, symbol));
    FASTFID_EXPECT(out != nullptr, BackendUnavailable, path_, " lacks ", symbol, ": another version is needed");
  }

 private:
  void* handle_ = nullptr;  // stays open: the pool keeps handles of the library until the process ends
  std::string path_;
  std::string reason_;
};

struct Functions {
  Functions(const std::vector<std::string>& folders)
      : blas("libcublas.so.13", "nvidia-cublas", folders), solver("libcusolver.so.12", "nvidia-cusolver", folders) {
    blas.find("cublasCreate_v2", create);
    blas.find("cublasDestroy_v2", destroy);
    blas.find("cublasSetStream_v2", set_stream);
    blas.find("cublasSetMathMode", set_math_mode);
    blas.find("cublasSetAtomicsMode", set_atomics_mode);
    blas.find("cublasDgemm_v2", dgemm);
    blas.find("cublasSgemm_v2", sgemm);
    blas.find("cublasDsyrk_v2", dsyrk);
    blas.find("cublasSsyrk_v2", ssyrk);
    blas.find("cublasDtrsm_v2", dtrsm);
    blas.find("cublasDtrmm_v2", dtrmm);
    solver.find("cusolverDnCreate", solver_create);
    solver.find("cusolverDnDestroy", solver_destroy);
    solver.find("cusolverDnSetStream", solver_set_stream);
    solver.find("cusolverDnDpotrf_bufferSize", dpotrf_size);
    solver.find("cusolverDnDpotrf", dpotrf);
  }

  Library blas;
  Library solver;
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*set_stream)(Handle, CUstream_st*);
  int (*set_math_mode)(Handle, int);
  int (*set_atomics_mode)(Handle, int);
  Gemm<double>* dgemm;
  Gemm<float>* sgemm;
  Syrk<double>* dsyrk;
  Syrk<float>* ssyrk;
  int (*dtrsm)(Handle, Side, Fill, Operation, Diagonal, int, int, const double*, const double*, int, double*, int);
  int (*dtrmm)(Handle, Side, Fill, Operation, Diagonal, int, int, const double*, const double*, int, const double*, int,
               double*, int);
  int (*solver_create)(Handle*);
  int (*solver_destroy)(Handle);
  int (*solver_set_stream)(Handle, CUstream_st*);
  int (*dpotrf_size)(Handle, Fill, int, double*, int, int*);
  int (*dpotrf)(Handle, Fill, int, double*, int, double*, int, int*);
};

std::mutex mutex;  // guards everything below
std::vector<std::string> library_folders;
std::unique_ptr<const Functions> loaded;

// Loaded at the first call that succeeds: after a failure the user may install what is missing and try again.
const Functions& functions() {
  const std::lock_guard lock(mutex);
  if (!loaded) loaded = std::make_unique<const Functions>(library_folders);
  return *loaded;
}

void check(int status, const char* call) {
  FASTFID_EXPECT(status == 0, DeviceError, call, " failed with status ", status);
}

int dim(std::size_t n) {
  FASTFID_EXPECT(n <= INT_MAX, InvalidArgument, "a matrix side of ", n, " is too large for cuBLAS");
  return static_cast<int>(n);
}

// The bounds rely on this check; see the header.
void expect_plain_float64() {
  constexpr const char* kVariable = "CUBLAS_EMULATE_DOUBLE_PRECISION";
  const char* const value = std::getenv(kVariable);
  FASTFID_EXPECT(value == nullptr || std::string_view(value).empty() || std::string_view(value) == "0",
                 BackendUnavailable, "the environment variable ", kVariable, " is '", value,
                 "': cuBLAS would emulate float64 products, and the bounds of the trace would prove nothing; unset it, "
                 "or compute on the CPU");
}

constexpr double kOne = 1;
constexpr double kZero = 0;
constexpr float kOneF = 1;
constexpr float kZeroF = 0;

}  // namespace

void set_math_library_folders(std::vector<std::string> folders) {
  const std::lock_guard lock(mutex);
  library_folders = std::move(folders);
}

std::vector<std::string> math_library_paths() {
  const Functions& f = functions();
  return {f.blas.path(), f.solver.path()};
}

struct MathLibraries::Handles {
  const Functions* functions;
  Handle blas = nullptr;
  Handle solver = nullptr;

  ~Handles() {
    if (blas != nullptr) functions->destroy(blas);
    if (solver != nullptr) functions->solver_destroy(solver);
  }
};

namespace {

// Idle handles by device. The handles hold device memory. The pool is never destroyed, because the driver may be
// unloaded earlier.
template <class Handles>
std::multimap<int, std::unique_ptr<Handles>>& pool() {
  static auto* const idle = new std::multimap<int, std::unique_ptr<Handles>>;
  return *idle;
}

}  // namespace

MathLibraries::MathLibraries(Stream stream) : guard_(stream.device), stream_(stream) {
  expect_plain_float64();
  const Functions& f = functions();
  {
    const std::lock_guard lock(mutex);
    if (const auto found = pool<Handles>().find(stream.device); found != pool<Handles>().end()) {
      handles_ = std::move(found->second);
      pool<Handles>().erase(found);
    }
  }
  if (!handles_) {
    handles_ = std::make_unique<Handles>(&f);
    check(f.create(&handles_->blas), "cublasCreate");
    check(f.solver_create(&handles_->solver), "cusolverDnCreate");
    check(f.set_math_mode(handles_->blas, kDefaultMath), "cublasSetMathMode");
    check(f.set_atomics_mode(handles_->blas, kAtomicsNotAllowed), "cublasSetAtomicsMode");
  }
  check(f.set_stream(handles_->blas, stream.handle), "cublasSetStream");
  check(f.solver_set_stream(handles_->solver, stream.handle), "cusolverDnSetStream");
}

MathLibraries::~MathLibraries() {
  const std::lock_guard lock(mutex);
  pool<Handles>().emplace(stream_.device, std::move(handles_));
}

void MathLibraries::gram_upper(const double* a, std::size_t m, std::size_t n, double* c) {
  check(handles_->functions->dsyrk(handles_->blas, kFillLower, kNone, dim(n), dim(m), &kOne, a, dim(n), &kZero, c,
                                   dim(n)),
        "cublasDsyrk");
}

void MathLibraries::gram_upper(const float* a, std::size_t m, std::size_t n, float* c) {
  check(handles_->functions->ssyrk(handles_->blas, kFillLower, kNone, dim(n), dim(m), &kOneF, a, dim(n), &kZeroF, c,
                                   dim(n)),
        "cublasSsyrk");
}

// C^T = B^T A^T. The libraries see the transposes of C, B and A.
void MathLibraries::multiply(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k, double* c) {
  check(handles_->functions->dgemm(handles_->blas, kNone, kNone, dim(n), dim(m), dim(k), &kOne, b, dim(n), a, dim(k),
                                   &kZero, c, dim(n)),
        "cublasDgemm");
}

void MathLibraries::multiply(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k, float* c) {
  check(handles_->functions->sgemm(handles_->blas, kNone, kNone, dim(n), dim(m), dim(k), &kOneF, b, dim(n), a, dim(k),
                                   &kZeroF, c, dim(n)),
        "cublasSgemm");
}

void MathLibraries::multiply_tn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
                                double* c) {
  check(handles_->functions->dgemm(handles_->blas, kNone, kTransposed, dim(n), dim(m), dim(k), &kOne, b, dim(n), a,
                                   dim(m), &kZero, c, dim(n)),
        "cublasDgemm");
}

void MathLibraries::multiply_nt(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
                                double* c) {
  check(handles_->functions->dgemm(handles_->blas, kTransposed, kNone, dim(n), dim(m), dim(k), &kOne, b, dim(k), a,
                                   dim(k), &kZero, c, dim(n)),
        "cublasDgemm");
}

// The libraries see R as the lower triangle R^T. C^T = R A^T needs the transpose of what they see; C^T = R^T A^T needs
// no transpose.
void MathLibraries::multiply_by_upper_transposed(const double* a, const double* r, std::size_t m, std::size_t n,
                                                 double* c) {
  check(handles_->functions->dtrmm(handles_->blas, kSideLeft, kFillLower, kTransposed, kNonUnit, dim(n), dim(m), &kOne,
                                   r, dim(n), a, dim(n), c, dim(n)),
        "cublasDtrmm");
}

void MathLibraries::multiply_by_upper(const double* a, const double* r, std::size_t m, std::size_t n, double* c) {
  check(handles_->functions->dtrmm(handles_->blas, kSideLeft, kFillLower, kNone, kNonUnit, dim(n), dim(m), &kOne, r,
                                   dim(n), a, dim(n), c, dim(n)),
        "cublasDtrmm");
}

void MathLibraries::solve_right(const double* r, double* b, std::size_t m, std::size_t n) {
  check(handles_->functions->dtrsm(handles_->blas, kSideLeft, kFillLower, kNone, kNonUnit, dim(n), dim(m), &kOne, r,
                                   dim(n), b, dim(n)),
        "cublasDtrsm");
}

std::size_t MathLibraries::cholesky_workspace(double* a, std::size_t n) {
  int size = 0;
  check(handles_->functions->dpotrf_size(handles_->solver, kFillLower, dim(n), a, dim(n), &size),
        "cusolverDnDpotrf_bufferSize");
  return static_cast<std::size_t>(size);
}

void MathLibraries::cholesky(double* a, std::size_t n, double* workspace, std::size_t workspace_size, int* failed) {
  check(handles_->functions->dpotrf(handles_->solver, kFillLower, dim(n), a, dim(n), workspace, dim(workspace_size),
                                    failed),
        "cusolverDnDpotrf");
}

}  // namespace fastfid::cuda
