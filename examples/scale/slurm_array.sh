#!/usr/bin/env bash
# An array of SLURM jobs, which need not run at the same time:
# bash slurm_array.sh REAL GENERATED RUN_DIR JOBS [options of fastfid plan]
# Run it on a machine that has sbatch and sees the images and RUN_DIR, as all nodes do. Needs no torch.
# The result comes into RUN_DIR/result.txt. Where jobs of the array failed, start the same command again.
set -euo pipefail
real=$1 generated=$2 run=$3 jobs=$4
shift 4
fastfid plan "$real" "$generated" --run-dir "$run" --workers "$jobs" "$@"
part="fastfid part --run-dir $(printf %q "$run") --index \$SLURM_ARRAY_TASK_ID --of $jobs"
array=$(sbatch --parsable --array="0-$((jobs - 1))" --gpus=1 --cpus-per-task=12 --requeue --wrap "$part")
sbatch --dependency="afterok:$array" --output="$run/result.txt" --wrap "fastfid reduce --run-dir $(printf %q "$run") --quiet"
