#!/usr/bin/env bash
# Runs tests/training with the packages of the extra "loops": Lightning, accelerate, evaluate, TensorBoard, Weights & Biases, MLflow.
# usage: tools/training_loops.sh [pytest arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" loops python -m pytest tests/training "$@"
