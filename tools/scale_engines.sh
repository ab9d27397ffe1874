#!/usr/bin/env bash
# Runs tests/scale with the packages of the extra "ray": real Ray and real torchrun, whose processes are killed and stopped.
# usage: tools/scale_engines.sh [pytest arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" ray python -m pytest tests/scale "$@"
