"""`python -m model`: all models, all mutations, a table; the exit status is the verdict."""

from __future__ import annotations

import sys

from model.check import main

if __name__ == "__main__":
    sys.exit(main())
