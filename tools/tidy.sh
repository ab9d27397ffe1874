#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy on the core, the host and the bindings.
# usage: tools/tidy.sh [FILE...]; needs clang-tidy of the extra "lint" and Python with pybind11 and scipy-openblas32.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
cmake -S . -B build/tidy -DFASTFID_CUDA=OFF -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >build/tidy.log || { tail -20 build/tidy.log >&2; exit 1; }
files=("$@")
((${#files[@]})) || files=(csrc/core/*.cpp csrc/host/*.cpp csrc/bindings/bind_[a-z]*.cpp csrc/bindings/module.cpp)
# The files of the CUDA part need its headers.
printf '%s\n' "${files[@]}" | grep -v 'bind_cuda_' | xargs -P "$(nproc)" -n 1 clang-tidy -p build/tidy --quiet
