"""The standard library's multiprocessing.connection itself: connections and listeners."""

from __future__ import annotations

import multiprocessing.connection
import sys

sys.modules[__name__] = multiprocessing.connection
