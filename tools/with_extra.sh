#!/usr/bin/env bash
# Runs a command in an environment that exists for this run. It sees the packages of the current one, fastfid and torch among
# them, and has those of an extra of pyproject.toml besides, or one release of a package in place of the current one. So the
# current environment stays as it is.
# usage: tools/with_extra.sh EXTRA COMMAND [arguments], or tools/with_extra.sh PACKAGE==VERSION COMMAND [arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=$1
shift
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
# The extra "torch" keeps pip from another torch, which would bring gigabytes of CUDA.
python - "$extra" <<'PYTHON' | xargs -d '\n' python -m pip --python "$venv/bin/python" install -q --no-compile
import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
asked = [sys.argv[1]] if "==" in sys.argv[1] else extras[sys.argv[1]]
print("\n".join(name for name in [*asked, *extras["torch"]] if not name.startswith("fastfid[")))
PYTHON
PATH="$venv/bin:$PATH" "$@"
