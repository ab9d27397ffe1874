"""The recipe for Spark, with a real Spark in local mode. ``bash tools/scale_spark.sh`` runs it; it needs Java."""

import os
import subprocess
import sys
from pathlib import Path

import launching
import pytest

from fastfid import evaluate

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "scale" / "spark_parts.py"
# Python's own hook: each process imports it. In the first worker that begins a task, the task kills it.
KILL_ONCE = """
import os, signal
from fastfid.scale import engine

run_task = engine.run_task

def dies_once(*args, **options):
    try:
        os.unlink({mark!r})
    except FileNotFoundError:
        return run_task(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

engine.run_task = dies_once
"""


@pytest.mark.parametrize("kills", [False, True])
def test_the_recipe_prints_what_one_process_computes(tmp_path, kills):
    pictures = launching.make_pictures(tmp_path)
    mark = tmp_path / "mark"
    paths = [tmp_path / "hook", *filter(None, [os.environ.get("PYTHONPATH")])]
    paths[0].mkdir()
    if kills:
        mark.touch()
        (paths[0] / "sitecustomize.py").write_text(KILL_ONCE.format(mark=str(mark)))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2,4] --conf spark.ui.enabled=false pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TMPDIR": str(tmp_path),
    }
    words = [*map(str, pictures), str(tmp_path / "run"), "--parts", "4", "--dims", "64"]
    done = subprocess.run(
        [sys.executable, str(RECIPE), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = evaluate(*pictures, metrics=["fid", "kid"], dims=64)
    assert done.stdout.split() == ["fid", str(found["fid"].value), "kid", str(found["kid"].value)]
    assert not mark.exists()
    assert ("Python worker exited unexpectedly" in done.stderr) == kills
