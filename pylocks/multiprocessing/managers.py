"""The standard library's multiprocessing.managers itself: server processes."""

from __future__ import annotations

import multiprocessing.managers
import sys

sys.modules[__name__] = multiprocessing.managers
