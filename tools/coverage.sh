#!/usr/bin/env bash
# Lines and branches of python/fastfid and csrc that the tests run, in processes that the tests start too.
# usage: tools/coverage.sh [pytest arguments]; the reports are in build/coverage: python.txt with the lines that did not run,
# cpp.txt (a line a file) and cpp-lines.txt. APPEND=1 adds to the last run.
# Needs the extra "coverage", clang 16 or newer with its compiler-rt and LLVM's tools (Debian 12: clang-16, llvm-16 and
# libclang-rt-16-dev), and fastfid not installed as editable. CXX names another clang++. Device code counts where the
# emulation runs it.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
out=$PWD/build/coverage
site=$out/site
# The emulation is written in C++20 that older releases do not know.
compiler=""
for candidate in ${CXX:-clang++ $(compgen -c clang++- | sort -rV)}; do
  version=$("$candidate" -dumpversion 2>/dev/null) || continue
  ((${version%%.*} < 16)) || { compiler=$candidate && break; }
done
if [[ -z $compiler ]]; then
  echo "coverage.sh: found no clang++ 16 or newer; Debian 12 has it in clang-16, llvm-16 and libclang-rt-16-dev" >&2
  exit 2
fi
tools=$(dirname "$("$compiler" -print-prog-name=llvm-cov)")
flags="-fprofile-instr-generate -fcoverage-mapping"

if [[ -z ${APPEND:-} ]]; then
  rm -rf "$out"
  mkdir -p "$out/bin" "$out/profiles" "$out/objects"
  # -O1: loops keep their branches.
  # shellcheck disable=SC2086  # PIP_ARGS is a list of words
  CC=${compiler/clang++/clang} CXX=$compiler "$python" -m pip install --quiet --no-deps --upgrade --target "$site" ${PIP_ARGS:-} \
    -C build-dir="$out/cmake" -C install.strip=false -C cmake.build-type=Debug -C cmake.define.FASTFID_CUDA=OFF \
    -C "cmake.define.CMAKE_CXX_FLAGS_DEBUG=-O1 -g" -C "cmake.define.CMAKE_CXX_FLAGS=$flags" .
  # The compiler of tests/emulation.py.
  printf '#!/bin/sh\nexec %s %s "$@" -Wno-error\n' "$compiler" "$flags" >"$out/bin/c++"
  chmod +x "$out/bin/c++"
fi

export PATH=$out/bin:$PATH PYTHONPATH=$site COVERAGE_FILE=$out/data COVERAGE_RCFILE=$PWD/pyproject.toml
export LLVM_PROFILE_FILE=$out/profiles/%4m.profraw
"$python" - "$site" <<'CHECK'
import sys
from fastfid import _core
assert _core.__file__.startswith(sys.argv[1]), f"the tests would run {_core.__file__}"
CHECK
# Where a file may not grow, what counts cannot be written either; nor where a second signal comes while it is written.
skip="not a_full_disk and not disk_that_is_full and not two_signals_at_once"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
"$python" -m coverage run -m pytest -q -p no:cacheprovider --basetemp="$work/t" -k "$skip" "$@" || status=$?

# The emulation's libraries: the report reads them.
find "$work/t" -name '*.so' -size +100k -exec sh -c 'cp "$1" "$0/$(md5sum "$1" | cut -c1-12).so"' "$out/objects" {} \;
"$python" -m coverage combine -q --append
"$python" -m coverage report >"$out/python.txt"
"$tools/llvm-profdata" merge -sparse "$out"/profiles/*.profraw -o "$out/cpp.profdata"
objects=("$site"/fastfid/_core*.so)
for library in "$out"/objects/*.so; do objects+=(-object "$library"); done
cover=("${objects[@]}" -instr-profile "$out/cpp.profdata" "-ignore-filename-regex=/(tests|pybind11|include)/")
"$tools/llvm-cov" report "${cover[@]}" >"$out/cpp.txt"
"$tools/llvm-cov" show "${cover[@]}" -show-branches=count >"$out/cpp-lines.txt"
tail -1 "$out/python.txt"
tail -1 "$out/cpp.txt"
exit $status
