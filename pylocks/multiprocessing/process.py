"""The standard library's multiprocessing.process itself: Process itself."""

from __future__ import annotations

import multiprocessing.process
import sys

sys.modules[__name__] = multiprocessing.process
