#!/usr/bin/env bash
# One process for each GPU, on any number of nodes: sbatch slurm_srun.sh REAL GENERATED RUN_DIR [options of fastfid]
# All nodes see the images and RUN_DIR. Where the job was killed, the same command goes on. Needs torch, for its TCPStore.
#SBATCH --ntasks=16
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=12
#SBATCH --requeue
set -euo pipefail
real=$1 generated=$2 run=$3
shift 3
# --kill-on-bad-exit: where one task dies, the others end too.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -m fastfid "$real" "$generated" --run-dir "$run" "$@"
