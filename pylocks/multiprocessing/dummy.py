"""The standard library's multiprocessing.dummy itself: the same face over threads."""

from __future__ import annotations

import multiprocessing.dummy
import sys

sys.modules[__name__] = multiprocessing.dummy
