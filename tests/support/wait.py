"""Waiting for what another thread or process will do, with a bound that only a hang reaches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE_S = float(os.environ.get("TESTS_PATIENCE_S", "40"))
"""Seconds: longer than anything here takes on an overloaded machine; shorter than the test's own timeout."""


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE_S) -> None:
    """Return once `condition` holds; AssertionError saying `what` was waited for if it never does."""
    deadline = time.monotonic() + patience
    pause = 0.0
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause + 0.0002, 0.005)
