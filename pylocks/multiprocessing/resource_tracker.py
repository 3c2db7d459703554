"""The standard library's multiprocessing.resource_tracker itself: who tidies up shared memory."""

from __future__ import annotations

import multiprocessing.resource_tracker
import sys

sys.modules[__name__] = multiprocessing.resource_tracker
