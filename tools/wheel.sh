#!/usr/bin/env bash
# Builds sdist and wheel as `python -m build` does, the wheel from the sdist, and checks both: their descriptions, what the
# wheel needs of a system, and that it works where there is no compiler.
# The build must not reach for the network: the sdist has all that it needs beside the build requirements.
# usage: tools/wheel.sh [WEIGHTS]; with an Inception weights file it reads images too, and the installed wheel passes the tests
# of privacy. CMAKE_ARGS reaches CMake. DIST names a folder that gets the sdist and the wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
weights=${1:+$(realpath "$1")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine auditwheel cmake ninja
python - <<'PYTHON' | xargs -d '\n' "$work/tools/bin/pip" install -q
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]))
PYTHON
cc -shared -fPIC -o "$work/watch.so" tests/network_watch/network_watch.c -ldl
quiet() {
  if [ -s "$work/network" ]; then
    echo "wheel.sh: $1 tried to reach the network:" >&2
    cat "$work/network" >&2
    exit 1
  fi
}
LD_PRELOAD="$work/watch.so" NETWORK_WATCH="$work/network" "$work/tools/bin/python" -m build --no-isolation \
  --outdir "$work/dist" . >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; exit 1; }
quiet "the build"
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
  if readelf -SW "$library" | grep -qE ' \.(symtab|debug_info) '; then
    echo "wheel.sh: $(basename "$library") is not stripped" >&2
    exit 1
  fi
done

# An environment with the wheel and what it depends on, and a PATH without a compiler.
python -m venv "$work/user"
"$work/user/bin/pip" install -q "$wheel"
cd "$work" # not the folder of the sources
mkdir home
env -i PATH="$work/user/bin" HOME="$work/home" LD_PRELOAD="$work/watch.so" NETWORK_WATCH="$work/network" \
  python "$OLDPWD/tests/smoke/smoke.py" ${weights:+"$weights"}
quiet "the installed wheel"
cd "$OLDPWD"
if [ -n "$weights" ]; then
  "$work/user/bin/pip" install -q pytest pytest-timeout
  FASTFID_WEIGHTS=$weights "$work/user/bin/python" -m pytest -q -p no:cacheprovider tests/test_privacy.py
fi
if [ -n "${DIST:-}" ]; then
  mkdir -p "$DIST"
  cp "$work"/dist/* "$DIST"
fi
