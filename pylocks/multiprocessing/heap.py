"""The standard library's multiprocessing.heap itself: shared memory for ctypes objects."""

from __future__ import annotations

import multiprocessing.heap
import sys

sys.modules[__name__] = multiprocessing.heap
