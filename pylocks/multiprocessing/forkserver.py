"""The standard library's multiprocessing.forkserver itself: how children are forked from a server."""

from __future__ import annotations

import multiprocessing.forkserver
import sys

sys.modules[__name__] = multiprocessing.forkserver
