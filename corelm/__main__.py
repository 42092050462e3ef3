"""``python -m corelm``."""

from __future__ import annotations

import sys

from corelm.cli import main

if __name__ == "__main__":
    sys.exit(main())
