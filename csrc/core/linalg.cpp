#include "core/linalg.hpp"

#include <cblas.h>

namespace fastfid::linalg {
namespace {

// Every wrapper calls this first. The setting belongs to our own copy of OpenBLAS (its own SONAME): NumPy's and SciPy's
// copies keep their threads, and nobody else can undo it.
void ensure_single_threaded() {
  [[maybe_unused]] static const bool once = [] {
    scipy_openblas_set_num_threads(1);
    return true;
  }();
}

CBLAS_TRANSPOSE cblas(Transpose trans) { return trans == Transpose::kYes ? CblasTrans : CblasNoTrans; }

}  // namespace

std::string blas_description() {
  return std::string(scipy_openblas_get_config()) + ", running " + scipy_openblas_get_corename();
}

void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_dsyrk(CblasRowMajor, CblasLower, cblas(trans), n, k, alpha, a, lda, beta, c, ldc);
}

void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_dgemm(CblasRowMajor, cblas(trans_a), cblas(trans_b), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace fastfid::linalg
