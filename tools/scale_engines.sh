#!/usr/bin/env bash
# Runs tests/scale with the packages of the extra "ray", in an environment that exists for this run and sees the packages of
# the current one, fastfid among them.
# usage: tools/scale_engines.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python -m venv --without-pip "$venv"
# addsitedir, unlike a plain path, also reads the .pth files there: an editable install of fastfid is one.
python - "$venv/bin/python" <<'PYTHON'
import pathlib, subprocess, sys, sysconfig
asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
there = subprocess.run([sys.argv[1], "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
pathlib.Path(there, "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
PYTHON
python - <<'PYTHON' | xargs -d '\n' python -m pip --python "$venv/bin/python" install -q --no-compile
import tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print("\n".join(extras["ray"]))
PYTHON
"$venv/bin/python" -m pytest tests/scale "$@"
