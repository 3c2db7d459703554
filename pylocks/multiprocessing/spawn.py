"""The standard library's multiprocessing.spawn itself: how children are started afresh."""

from __future__ import annotations

import multiprocessing.spawn
import sys

sys.modules[__name__] = multiprocessing.spawn
