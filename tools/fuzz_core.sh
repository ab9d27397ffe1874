#!/usr/bin/env bash
# Builds the fuzz targets of fuzz/ with AddressSanitizer and UndefinedBehaviorSanitizer and runs them, one at a time.
# usage: tools/fuzz_core.sh [--minutes M] [TARGET...]; M minutes for each target (default: 1), all targets by default.
# Needs clang with its compiler-rt (Debian: clang and libclang-rt-14-dev) and Python with scipy-openblas32. CXX names
# another clang++. Failing inputs are stored in build/fuzz/TARGET/failed. The exit code is 1 if there are any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=1
targets=()
while (($#)); do
  case $1 in
    --minutes) minutes=${2:?--minutes: expected a number} && shift 2 ;;
    -*) echo "fuzz_core.sh: $1: expected --minutes M or the names of targets" >&2 && exit 2 ;;
    *) targets+=("$1") && shift ;;
  esac
done
if ((${#targets[@]} == 0)); then
  for source in fuzz/fuzz_*.cpp; do
    target=${source#fuzz/fuzz_}
    targets+=("${target%.cpp}")
  done
fi

compiler=${CXX:-}
for candidate in clang++ clang++-{20,19,18,17,16,15,14}; do
  [[ -n $compiler ]] || compiler=$(command -v "$candidate" || true)
done
[[ -n $compiler ]] || { echo "fuzz_core.sh: found no clang++; Debian has it in clang and libclang-rt-14-dev" >&2 && exit 2; }

out=build/fuzz
mkdir -p "$out/core"
IFS=';' read -r openblas include _ < <("${PYTHON:-python}" cmake/carry_openblas.py "$PWD/$out/openblas")
flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -pthread -ffp-contract=off -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS
  -DFASTFID_SANITIZED -DBLAS_SYMBOL_PREFIX=scipy_ -Icsrc -Ifuzz "-isystem$include" -Wall -Wextra)
sanitizers=address,undefined
# If a source is newer than the files built from it, everything is built again.
if [[ ! -e $out/built || -n $(find csrc/core fuzz tools/fuzz_core.sh -newer "$out/built" -name '*.*' -print -quit) ]]; then
  printf '%s\0' csrc/core/*.cpp | xargs -0 -P "$(nproc)" -I{} \
    sh -c 'source=$1 && shift && "$@" -c "$source" -o "$0/$(basename "$source").o"' "$out/core" {} \
    "$compiler" "${flags[@]}" -fsanitize=fuzzer-no-link,$sanitizers
  for source in fuzz/fuzz_*.cpp; do
    "$compiler" "${flags[@]}" -fsanitize=fuzzer,$sanitizers "$source" "$out"/core/*.o "$openblas" \
      "-Wl,-rpath,$(dirname "$openblas")" -ldl -o "$out/$(basename "${source%.cpp}")"
  done
  touch "$out/built"
fi

failed=0
for target in "${targets[@]}"; do
  folder=$out/$target
  mkdir -p "$folder/corpus" "$folder/failed"
  end=$((SECONDS + 60 * minutes))
  runs=0 crashes=0
  # A run ends at the first failing input, and the next run continues. Memory and time of one input are bounded.
  while ((SECONDS < end && crashes < 20)); do
    status=0
    "$out/fuzz_$target" -max_total_time=$((end - SECONDS)) -max_len=4096 -rss_limit_mb=3000 -timeout=120 \
      -report_slow_units=60 -print_final_stats=1 -artifact_prefix="$folder/failed/" "$folder/corpus" \
      "fuzz/corpus/$target" >"$folder/log" 2>&1 || status=$?
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log" | tail -1)
    runs=$((runs + ${executed:-0}))
    ((status == 0)) && break
    crashes=$((crashes + 1))
    grep -m1 -E 'ERROR: |runtime error: |^fuzz: ' "$folder/log" || tail -3 "$folder/log"
  done
  echo "$target: $runs runs in $minutes minutes, $crashes failed"
  ((crashes == 0)) || failed=1
done
exit $failed
