"""The recipes of examples/scale, with stand-ins for SLURM's commands that start the processes on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import launching
import pytest

from fastfid import cli

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "scale"
SCRIPTS = ["slurm_array.sh", "slurm_srun.sh"]
COMMANDS = {
    "fastfid": 'exec python -m fastfid "$@"',
    # One process a task, in a step of its own.
    "srun": """
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
  SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NUM_NODES=1 SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
""",
    # The jobs of an array one after the other; prints the number of the job.
    "sbatch": """
array=0-0 output=/dev/null
while (($#)); do
  case $1 in
    --array=*) array=${1#*=} ;;
    --output=*) output=${1#*=} ;;
    --dependency=*) [[ $1 == --dependency=afterok:77 ]] ;;
    --wrap) shift; job=$1 ;;
  esac
  shift
done
for ((i = ${array%-*}; i <= ${array#*-}; i++)); do
  SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_ARRAY_TASK_ID=$i bash -c "$job" >"$output"
done
echo 77
""",
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a machine with SLURM's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{text}\n")
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), os.path.dirname(sys.executable), os.environ["PATH"]])
    return launching.environment(tmp_path, PATH=path)


def run(script, arguments, environment):
    words = ["bash", str(FOLDER / script), *map(str, arguments)]
    done = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_recipe_is_run_here():
    assert sorted(path.name for path in FOLDER.glob("slurm*")) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_has_the_syntax_of_bash(name):
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)


def test_the_recipes_of_slurm_print_what_one_process_prints(slurm, tmp_path, capsys, weights):
    pictures = launching.make_pictures(tmp_path)
    assert cli.main([*map(str, pictures), "--dims", "64", "--quiet"]) == 0
    plain = capsys.readouterr().out
    runs = [tmp_path / name for name in ("of srun", "of an array")]
    job = {**slurm, "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1"}
    assert run("slurm_srun.sh", [*pictures, runs[0], "--dims", "64"], job) == plain
    run("slurm_array.sh", [*pictures, runs[1], 2, "--dims", "64"], slurm)
    assert (runs[1] / "result.txt").read_text() == plain
