#!/usr/bin/env bash
# Installs fastfid with the oldest versions that pyproject.toml allows of what it depends on, and runs tests that use them.
# usage: tools/minimum_versions.sh [pytest arguments]; CMAKE_ARGS reaches CMake.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m venv "$work"
# Of "numpy>=1.26" the constraint "numpy==1.26.*"; tests need more packages, of any version.
python - >"$work/constraints" <<'PYTHON'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [one for name in ("demo", "report", "parquet", "urls") for one in project["optional-dependencies"][name]]
for one in [*project["dependencies"], *extras]:
    name, version = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", one).groups()
    print(f"{name}=={version}.*")
PYTHON
cat "$work/constraints"
"$work/bin/pip" install -q -c "$work/constraints" ".[demo,report,parquet,urls,torch]" pytest pytest-timeout hypothesis psutil mpmath ml_dtypes
# Old packages warn beside new ones.
"$work/bin/python" -m pytest -q -p no:cacheprovider tests/test_frechet.py tests/test_moments.py tests/test_statistics.py \
  tests/test_npz.py tests/test_sources.py tests/test_fid.py tests/test_prdc.py tests/test_demo.py tests/test_report.py \
  -W "ignore::DeprecationWarning" "$@"
