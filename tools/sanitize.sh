#!/usr/bin/env bash
# Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer and runs the tests of the core with it.
# usage: tools/sanitize.sh [pytest arguments]; PIP_ARGS="--no-build-isolation" where the build requirements are installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
out=$PWD/build/sanitize
site=$out/site
rm -rf "$site"
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"$python" -m pip install --quiet --no-deps --upgrade --target "$site" ${PIP_ARGS:-} -C build-dir="$out/cmake" \
  -C install.strip=false -C cmake.build-type=Debug -C cmake.define.CMAKE_CXX_FLAGS_DEBUG=-O1 -C cmake.define.FASTFID_SANITIZE=address,undefined .

# The runtimes must be loaded before Python. libstdc++ must be loaded first too, or ASan cannot intercept its exceptions.
preload=""
for library in libasan.so libubsan.so libstdc++.so; do
  preload+=" $(realpath "$(${CC:-cc} -print-file-name=$library)")"
done
# -S ignores .pth files, so that an editable install cannot put another fastfid before this one.
PYTHONPATH=$site:$("$python" -c 'import sys; print(":".join(p for p in sys.path if p))')
export PYTHONPATH
run() {
  # Python's allocator hides its blocks from ASan. Memory that the interpreter keeps until it exits is not a leak of
  # fastfid.
  PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1:quarantine_size_mb=64 \
    UBSAN_OPTIONS=print_stacktrace=1 LD_PRELOAD=$preload "$python" -S "$@"
}
run - "$site" <<'CHECK'
import sys
from fastfid import _core
assert _core.__file__.startswith(sys.argv[1]), f"the tests would run {_core.__file__}"
assert _core.build_info()["sanitizers"] == "address,undefined", _core.build_info()
CHECK
# A sanitizer keeps freed memory and maps terabytes for its shadow, so tests that bound memory are excluded.
# The allocator of GCC 12's ASan is not safe in the child of a fork while other threads allocate: the child process of the
# fork test can wait for ever.
# --capture=sys: a report is written to file descriptor 2, and must not be lost with its process.
run -m pytest -q --capture=sys -p no:cacheprovider -m "not peers" -k "not memory_does_not_grow and not runs_out_of_memory and not fewer_threads_than_asked and not forked_process" \
  tests/test_moments.py tests/test_trace.py tests/test_frechet.py tests/test_image.py tests/test_dlpack.py tests/test_raw_moments.py "$@"
