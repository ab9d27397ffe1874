#!/usr/bin/env bash
# Runs tests/report_browser: a page of fastfid report in a real Chromium, without a window. Chromium comes from Debian's or
# Ubuntu's packages where it is missing, for which this script must be run by root.
# usage: tools/report_browser.sh [pytest arguments]
# FASTFID_SCREENSHOTS=DIR keeps the pictures of the pages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium
fi
python -m pytest tests/report_browser "$@"
