"""The standard library's multiprocessing.shared_memory itself: named blocks of shared memory."""

from __future__ import annotations

import multiprocessing.shared_memory
import sys

sys.modules[__name__] = multiprocessing.shared_memory
