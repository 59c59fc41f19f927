"""``python -m scr_watchd``."""

import sys

from scr_watchd.cli import main

sys.exit(main())
