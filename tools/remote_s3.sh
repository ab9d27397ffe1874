#!/usr/bin/env bash
# Runs tests/remote_s3 with the packages of the extra "s3": s3fs, and moto, whose server is a process that answers as S3.
# usage: tools/remote_s3.sh [pytest arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" s3 python -m pytest tests/remote_s3 "$@"
