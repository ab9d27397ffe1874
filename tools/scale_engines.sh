#!/usr/bin/env bash
# Runs tests/scale with the packages of the extra "engines": real Ray, torchrun and Dask, whose processes are killed and stopped.
# usage: tools/scale_engines.sh [pytest arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" engines python -m pytest tests/scale "$@"
