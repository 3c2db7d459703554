"""The standard library's multiprocessing.util itself: logging and finalizers."""

from __future__ import annotations

import multiprocessing.util
import sys

sys.modules[__name__] = multiprocessing.util
