#!/usr/bin/env bash
# Builds tests/threads/threads.cpp and the core with ThreadSanitizer and runs it.
# usage: tools/sanitize_threads.sh; CXX names another compiler. Needs Python with scipy-openblas32.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compiler=${CXX:-c++}
out=build/threads
mkdir -p "$out"
IFS=';' read -r openblas include _ < <("${PYTHON:-python}" cmake/carry_openblas.py "$PWD/$out/openblas")
flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -pthread -ffp-contract=off -fsanitize=thread -DFASTFID_SANITIZED
  -DBLAS_SYMBOL_PREFIX=scipy_ -Icsrc "-isystem$include" -Wall -Wextra)
printf '%s\0' csrc/core/*.cpp | xargs -0 -P "$(nproc)" -I{} \
  sh -c 'source=$1 && shift && "$@" -c "$source" -o "$0/$(basename "$source").o"' "$out" {} "$compiler" "${flags[@]}"
"$compiler" "${flags[@]}" tests/threads/threads.cpp "$out"/*.o "$openblas" "-Wl,-rpath,$(dirname "$openblas")" \
  -ldl -o "$out/threads"
# OpenBLAS is not instrumented, but called on memory of one thread only.
TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" "$out/threads"
