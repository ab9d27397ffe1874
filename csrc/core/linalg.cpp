#include "core/linalg.hpp"

#include <cblas.h>

namespace fastfid::linalg {

std::string blas_description() {
  return std::string(scipy_openblas_get_config()) + ", running " + scipy_openblas_get_corename();
}

}  // namespace fastfid::linalg
