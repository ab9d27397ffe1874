#!/usr/bin/env bash
# Builds sdist and wheel as `python -m build` does, the wheel from the sdist, and checks both: their descriptions, what the
# wheel needs of a system, and that it works where there is no compiler.
# usage: tools/wheel.sh [WEIGHTS]; with an Inception weights file it reads images too, and a library that watches the network
# must see no attempt to connect. CMAKE_ARGS reaches CMake.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
weights=${1:+$(realpath "$1")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine auditwheel
"$work/tools/bin/python" -m build --outdir "$work/dist" . >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; exit 1; }
"$work/tools/bin/twine" check --strict "$work"/dist/*
wheel=$(echo "$work"/dist/*.whl)
stat --printf '%n: %s bytes\n' "$work"/dist/* | sed "s|$work/dist/||"
"$work/tools/bin/auditwheel" show "$wheel" | sed 's/^/auditwheel: /'

# Nothing but glibc and libstdc++ is needed from outside, and no symbol is for debuggers only.
mkdir "$work/open"
python -m zipfile -e "$wheel" "$work/open"
for library in "$work"/open/fastfid/*.so; do
  needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  for name in $needed; do
    case $name in
      libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | ld-linux-*.so.* | libstdc++.so.6 | libgcc_s.so.1) ;;
      libgfortran.so.5 | libquadmath.so.0 | libfastfid_lapack.so) ;& # must be in the wheel
      *) [ -e "$work/open/fastfid/$name" ] || { echo "wheel.sh: $(basename "$library") needs $name" >&2; exit 1; } ;;
    esac
  done
  if readelf -S "$library" | grep -qF .debug_info; then
    echo "wheel.sh: $(basename "$library") has debugging symbols" >&2
    exit 1
  fi
done

# An environment with the wheel and what it depends on, and a PATH without a compiler.
python -m venv "$work/user"
"$work/user/bin/pip" install -q "$wheel"
watch=()
if [ -n "$weights" ]; then
  cc -shared -fPIC -o "$work/watch.so" tests/network_watch/network_watch.c -ldl
  watch=(LD_PRELOAD="$work/watch.so" NETWORK_WATCH="$work/network")
fi
cd "$work" # not the folder of the sources
mkdir home
env -i PATH="$work/user/bin" HOME="$work/home" "${watch[@]}" python "$OLDPWD/tests/smoke/smoke.py" ${weights:+"$weights"}
if [ -s "$work/network" ]; then
  echo "wheel.sh: it tried to reach the network:" >&2
  cat "$work/network" >&2
  exit 1
fi
