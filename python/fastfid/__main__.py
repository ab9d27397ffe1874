"""``python -m fastfid``."""

import sys

from fastfid.cli import main

sys.exit(main())
