"""``python -m fastfid``."""

from fastfid.cli import run

run()
