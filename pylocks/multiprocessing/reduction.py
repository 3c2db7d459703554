"""The standard library's multiprocessing.reduction itself: pickling for child processes."""

from __future__ import annotations

import multiprocessing.reduction
import sys

sys.modules[__name__] = multiprocessing.reduction
