#include "core/blas.hpp"

#include <cblas.h>
#include <lapacke.h>

#include <type_traits>
#include <vector>

#include "core/errors.hpp"
#include "core/tiles.hpp"

// LAPACK 3.7's second stage, from a symmetric band to tridiagonal form; lapacke.h does not declare it.
extern "C" void scipy_dsytrd_sb2st_(const char* stage1, const char* vect, const char* uplo, const lapack_int* n,
                                    const lapack_int* kd, double* ab, const lapack_int* ldab, double* d, double* e,
                                    double* hous, const lapack_int* lhous, double* work, const lapack_int* lwork,
                                    lapack_int* info, std::size_t stage1_length, std::size_t vect_length,
                                    std::size_t uplo_length);

namespace fastfid::linalg {
namespace {

static_assert(std::is_same_v<lapack_int, int>);

// Every wrapper calls this first. The setting belongs to this project's own copy of OpenBLAS (with its own SONAME): the
// copies of NumPy and SciPy keep their threads, and no other code can change the setting.
void ensure_single_threaded() {
  [[maybe_unused]] static const bool once = [] {
    scipy_openblas_set_num_threads(1);
    return true;
  }();
}

CBLAS_TRANSPOSE cblas(Transpose trans) { return trans == Transpose::kYes ? CblasTrans : CblasNoTrans; }

void check_arguments(const char* routine, lapack_int info) {
  FASTFID_EXPECT(info >= 0, DeviceError, "LAPACK's ", routine, " refused its argument ", -info);
}

void check_lapack(const char* routine, lapack_int info) {
  check_arguments(routine, info);
  FASTFID_EXPECT(info == 0, NumericalError, "LAPACK's ", routine, " did not converge (info ", info, ")");
}

}  // namespace

std::string blas_description() {
  return std::string(scipy_openblas_get_config()) + ", running " + scipy_openblas_get_corename() +
         "; own products for " + tiles::instruction_set();
}

void syrk(Transpose trans, int n, int k, double alpha, const double* a, int lda, double beta, double* c, int ldc,
          Triangle triangle) {
  ensure_single_threaded();
  scipy_cblas_dsyrk(CblasRowMajor, triangle == Triangle::kLower ? CblasLower : CblasUpper, cblas(trans), n, k, alpha, a,
                    lda, beta, c, ldc);
}

void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_dgemm(CblasRowMajor, cblas(trans_a), cblas(trans_b), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gemm(Transpose trans_a, Transpose trans_b, int m, int n, int k, float alpha, const float* a, int lda,
          const float* b, int ldb, float beta, float* c, int ldc) {
  ensure_single_threaded();
  scipy_cblas_sgemm(CblasRowMajor, cblas(trans_a), cblas(trans_b), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void trsm(Side side, Transpose trans, int m, int n, const double* r, int ldr, double* b, int ldb) {
  ensure_single_threaded();
  scipy_cblas_dtrsm(CblasRowMajor, side == Side::kLeft ? CblasLeft : CblasRight, CblasUpper, cblas(trans), CblasNonUnit,
                    m, n, 1.0, r, ldr, b, ldb);
}

double dot(int n, const double* x, const double* y) {
  ensure_single_threaded();
  return scipy_cblas_ddot(n, x, 1, y, 1);
}

bool potrf(int n, double* a, int lda) {
  ensure_single_threaded();
  const lapack_int info = scipy_LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', n, a, lda);
  check_arguments("dpotrf", info);
  return info == 0;
}

int pstrf(int n, double* a, double tol, int* pivots, double* work) {
  ensure_single_threaded();
  lapack_int rank = 0;
  check_arguments("dpstrf", scipy_LAPACKE_dpstrf_work(LAPACK_COL_MAJOR, 'L', n, a, n, pivots, &rank, tol, work));
  return rank;
}

void gelqf(int m, int n, double* a, double* tau) {
  ensure_single_threaded();
  // Column-major LAPACK sees A^T = L Q^T. Row-major, its L is R.
  check_lapack("dgelqf", scipy_LAPACKE_dgelqf(LAPACK_COL_MAJOR, n, m, a, n, tau));
}

void geqrt3(int m, int n, double* a, int lda, double* t, int ldt) {
  ensure_single_threaded();
  check_lapack("dgeqrt3", scipy_LAPACKE_dgeqrt3_work(LAPACK_COL_MAJOR, m, n, a, lda, t, ldt));
}

void apply_transposed_q(int m, int n, int k, const double* v, int ldv, const double* t, int ldt, double* c, int ldc,
                        double* work) {
  ensure_single_threaded();
  check_lapack("dgemqrt",
               scipy_LAPACKE_dgemqrt_work(LAPACK_COL_MAJOR, 'L', 'T', m, n, k, k, v, ldv, t, ldt, c, ldc, work));
}

void tridiagonal_of_band(int n, int width, double* band, double* diagonal, double* off_diagonal) {
  ensure_single_threaded();
  const lapack_int stride = width + 1;
  lapack_int info = 0;
  const auto chase = [&](double* hous, lapack_int lhous, double* work, lapack_int lwork) {
    scipy_dsytrd_sb2st_("N", "N", "L", &n, &width, band, &stride, diagonal, off_diagonal, hous, &lhous, work, &lwork,
                        &info, 1, 1, 1);
    check_lapack("dsytrd_sb2st", info);
  };
  double hous_size = 0;
  double work_size = 0;
  chase(&hous_size, -1, &work_size, -1);
  std::vector<double> hous(static_cast<std::size_t>(hous_size));
  std::vector<double> work(static_cast<std::size_t>(work_size));
  chase(hous.data(), static_cast<lapack_int>(hous.size()), work.data(), static_cast<lapack_int>(work.size()));
}

void sterf(int n, double* diagonal, double* off_diagonal) {
  ensure_single_threaded();
  check_lapack("dsterf", scipy_LAPACKE_dsterf_work(n, diagonal, off_diagonal));
}

void syevd(bool vectors, int n, double* a, double* values) {
  ensure_single_threaded();
  check_lapack("dsyevd", scipy_LAPACKE_dsyevd(LAPACK_COL_MAJOR, vectors ? 'V' : 'N', 'L', n, a, n, values));
}

void gesdd(int m, int n, double* a, double* values) {
  ensure_single_threaded();
  double unused = 0;
  check_lapack("dgesdd", scipy_LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'N', n, m, a, n, values, &unused, 1, &unused, 1));
}

}  // namespace fastfid::linalg
