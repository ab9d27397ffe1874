# BLAS and LAPACK from the scipy-openblas32 wheel. The library travels inside our package. It is renamed, file and
# SONAME: a process that has another libscipy_openblas.so loaded would otherwise silently get that one.
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/carry_openblas.py" "${CMAKE_BINARY_DIR}/openblas"
  OUTPUT_VARIABLE _openblas OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(GET _openblas 0 FASTFID_OPENBLAS_LIBRARY)
list(GET _openblas 1 FASTFID_OPENBLAS_INCLUDE)
list(GET _openblas 2 FASTFID_OPENBLAS_LICENSE)
message(STATUS "fastfid: BLAS/LAPACK ${FASTFID_OPENBLAS_LIBRARY}")

add_library(fastfid_openblas SHARED IMPORTED)
set_target_properties(fastfid_openblas PROPERTIES
  IMPORTED_LOCATION "${FASTFID_OPENBLAS_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${FASTFID_OPENBLAS_INCLUDE}"
  # cblas.h and lapacke.h of this wheel prefix every symbol with it.
  INTERFACE_COMPILE_DEFINITIONS "BLAS_SYMBOL_PREFIX=scipy_")
