"""The recipe for Dask, with real workers."""

import os
import subprocess
import sys
from pathlib import Path

import launching

from fastfid import evaluate

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "scale" / "dask_parts.py"


def test_the_recipe_prints_what_one_process_computes(tmp_path):
    pictures = launching.make_pictures(tmp_path)
    command = [sys.executable, str(RECIPE), *map(str, pictures), str(tmp_path / "run"), "--dims", "64"]
    environment = {**os.environ, "DASK_DISTRIBUTED__DASHBOARD__LINK": "", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = evaluate(*pictures, metrics=["fid", "kid"], dims=64)
    assert done.stdout.split() == ["fid", str(found["fid"].value), "kid", str(found["kid"].value)]
