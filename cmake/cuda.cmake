# FASTFID_CUDA: AUTO builds the CUDA part where nvcc 13 or newer is found and compiles; ON fails where it does not; OFF
# leaves it out. Sets FASTFID_WITH_CUDA and, for people, FASTFID_CUDA_STATUS: what was decided, and why.
#
# The runtime (cudart) is linked statically: the extension can be imported where there is no driver and no device.
set(FASTFID_CUDA AUTO CACHE STRING "CUDA part: AUTO, ON or OFF")
set_property(CACHE FASTFID_CUDA PROPERTY STRINGS AUTO ON OFF)
# CI sets it: where there is no GPU, the compiler is the only one who notices a mistake, spilled registers included.
# Users do not: another version of nvcc may warn of something new.
option(FASTFID_CUDA_WERROR "Treat warnings in CUDA code as errors" OFF)
string(TOUPPER "${FASTFID_CUDA}" _cuda_wish)
if(NOT _cuda_wish MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTFID_CUDA: expected AUTO, ON or OFF; got ${FASTFID_CUDA}")
endif()

# Machine code for A100 (runs on 8.6 and 8.9 too) and H100/H200, PTX for whatever comes later.
set(FASTFID_CUDA_ARCHITECTURES "80-real;90-real;90-virtual")

# Sets `reason` in the caller to why CUDA cannot be built, or to nothing.
function(_fastfid_find_cuda wish)
  set(reason "" PARENT_SCOPE)
  if(wish STREQUAL "AUTO" AND FASTFID_SANITIZE)
    set(reason "FASTFID_SANITIZE is set" PARENT_SCOPE)
    return()
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(FASTFID_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(NOT FASTFID_NVCC)
      set(reason "nvcc was not found" PARENT_SCOPE)
      return()
    endif()
    set(CMAKE_CUDA_COMPILER "${FASTFID_NVCC}" CACHE FILEPATH "CUDA compiler")
  endif()
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed OR NOT text MATCHES "release ([0-9]+)\\.([0-9]+)")
    set(reason "${CMAKE_CUDA_COMPILER} does not tell its version" PARENT_SCOPE)
    return()
  endif()
  set(major ${CMAKE_MATCH_1})
  set(version "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
  if(major LESS 12 OR (major LESS 13 AND wish STREQUAL "AUTO"))
    set(reason "nvcc ${version} is too old (13 needed; 12 only with FASTFID_CUDA=ON, untested)" PARENT_SCOPE)
    return()
  elseif(major LESS 13)
    message(WARNING "fastfid: nvcc ${version}: only 13 and newer are tested")
  endif()
  # Device code, the host compiler behind it, C++20, and the static runtime: what the build will need.
  set(probe "${CMAKE_BINARY_DIR}/cuda_probe")
  file(WRITE "${probe}.cu" "#include <cuda_runtime.h>\n#include <concepts>\n__global__ void kernel(int* p) { *p = 1; }\n"
    "int main() { int n = 0; kernel<<<1, 1>>>(nullptr); return cudaGetDeviceCount(&n); }\n")
  execute_process(
    COMMAND "${CMAKE_CUDA_COMPILER}" -std=c++20 -ccbin "${CMAKE_CXX_COMPILER}" -gencode arch=compute_80,code=sm_80
      -cudart static -o "${probe}" "${probe}.cu"
    OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed)
    message(STATUS "fastfid: nvcc ${version} failed to compile and link a kernel:\n${text}")
    string(STRIP "${text}" text)
    set(reason "nvcc ${version} failed to compile and link a kernel: ${text}" PARENT_SCOPE)
    return()
  endif()
  # CMake must know this nvcc too, and how to ask it for C++20. Where it does not, enable_language would end the
  # configuration; a project of its own fails alone. What has passed once is not asked again.
  set(asked "${CMAKE_VERSION} ${CMAKE_CUDA_COMPILER} ${version}")
  if(wish STREQUAL "AUTO" AND NOT FASTFID_CUDA_LANGUAGE STREQUAL asked)
    file(WRITE "${probe}_project/CMakeLists.txt" "cmake_minimum_required(VERSION 3.26)\n"
      "project(cuda_probe LANGUAGES CXX CUDA)\nadd_executable(probe \"${probe}.cu\")\n")
    execute_process(
      COMMAND "${CMAKE_COMMAND}" -G "${CMAKE_GENERATOR}" "-DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}"
        "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}" "-DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER}"
        "-DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CXX_COMPILER}" -DCMAKE_CUDA_ARCHITECTURES=80-real -DCMAKE_CUDA_STANDARD=20
        -DCMAKE_CUDA_STANDARD_REQUIRED=ON -DCMAKE_CUDA_EXTENSIONS=OFF -DCMAKE_CUDA_RUNTIME_LIBRARY=Static
        -S "${probe}_project" -B "${probe}_project/build"
      OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE failed)
    if(failed)
      message(STATUS "fastfid: CMake ${CMAKE_VERSION} cannot use nvcc ${version}:\n${text}")
      set(reason "CMake ${CMAKE_VERSION} cannot use nvcc ${version}" PARENT_SCOPE)
      return()
    endif()
    set(FASTFID_CUDA_LANGUAGE "${asked}" CACHE INTERNAL "CMake and nvcc that get on with each other")
  endif()
endfunction()

set(FASTFID_WITH_CUDA OFF)
if(_cuda_wish STREQUAL "OFF")
  set(FASTFID_CUDA_STATUS "not built: FASTFID_CUDA=OFF")
else()
  _fastfid_find_cuda(${_cuda_wish})
  if(reason AND _cuda_wish STREQUAL "ON")
    message(FATAL_ERROR "fastfid: FASTFID_CUDA=ON, but ${reason}")
  elseif(reason)
    set(FASTFID_CUDA_STATUS "not built: ${reason}")
  else()
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
    set(CMAKE_CUDA_ARCHITECTURES "${FASTFID_CUDA_ARCHITECTURES}")
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    set(FASTFID_WITH_CUDA ON)
    set(FASTFID_CUDA_STATUS "nvcc ${CMAKE_CUDA_COMPILER_VERSION}, sm_80, sm_90, PTX compute_90")
  endif()
endif()
# One line, fit for a C++ string on a compiler's command line, whatever nvcc has said: CMake drops definitions with # in
# them, splits at ; and expands $.
string(REGEX REPLACE "[\r\n\t ]+" " " FASTFID_CUDA_STATUS "${FASTFID_CUDA_STATUS}")
string(REGEX REPLACE "[^A-Za-z0-9 _.,:()/+=-]" "'" FASTFID_CUDA_STATUS "${FASTFID_CUDA_STATUS}")
string(LENGTH "${FASTFID_CUDA_STATUS}" _length)
if(_length GREATER 300)
  string(SUBSTRING "${FASTFID_CUDA_STATUS}" 0 297 FASTFID_CUDA_STATUS)
  string(APPEND FASTFID_CUDA_STATUS "...")
endif()
message(STATUS "fastfid: CUDA ${FASTFID_CUDA_STATUS}")
