#!/usr/bin/env bash
# Runs tests/scale_spark with the packages of the extra "spark": the recipe for Spark, whose worker is killed. Java comes from
# Debian's or Ubuntu's packages where it is missing, for which this script must be run by root.
# usage: tools/scale_spark.sh [pytest arguments]
set -euo pipefail
if ! command -v java >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends default-jre-headless
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" spark python -m pytest tests/scale_spark "$@"
